"""Two gates on two machines: what goes in inside comes out outside, and nothing comes back."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator

import pytest

from tests.brokers.diode.machines import Strand
from tests.enforce.site import netns
from tests.gate.plant import events
from tests.waiting import eventually

pytestmark = netns


@pytest.fixture(scope="module")
def strand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Strand]:
    with Strand(tmp_path_factory.mktemp("strand")) as strand:
        strand.up()
        yield strand


def put(strand: Strand, name: str, data: bytes) -> str:
    """A file into the inside's folder, as a user would put it there; its hash."""
    folder = strand.inside.folder()
    hidden = folder / f".{name}"
    hidden.write_bytes(data)
    hidden.chmod(0o644)
    hidden.rename(folder / name)
    return hashlib.sha256(data).hexdigest()


def arrived(strand: Strand, name: str, digest: str) -> None:
    path = strand.outside.folder() / name
    try:
        eventually(path.exists)
    except AssertionError as error:
        raise AssertionError(strand.said()) from error
    assert hashlib.sha256(path.read_bytes()).hexdigest() == digest


def test_files_come_whole(strand: Strand) -> None:
    digests = {name: put(strand, name, data) for name, data in {
        "empty.csv": b"", "small.csv": b"1,2\n", "large.csv": os.urandom(3_000_000),
    }.items()}  # fmt: skip
    for name, digest in digests.items():
        arrived(strand, name, digest)
    sent = {one["name"]: one for one in events(strand.inside.state, "diode-file-sent")}
    came = {one["name"]: one for one in events(strand.outside.state, "diode-file-received")}
    for name, digest in digests.items():
        assert sent[name]["sha256"] == came[name]["sha256"] == digest
        assert (sent[name]["first"], sent[name]["last"]) == (came[name]["first"], came[name]["last"])
    eventually(lambda: not any(strand.outside.state.glob("stores/*/keeper/part/*")))


def test_five_percent_of_loss_are_repaired(strand: Strand) -> None:
    strand.lose(0.05)
    try:
        digest = put(strand, "lossy.csv", os.urandom(5_000_000))
        arrived(strand, "lossy.csv", digest)
    finally:
        strand.lose(0)
    assert strand.outside.status()["channels"][0]["missing"] == 0
