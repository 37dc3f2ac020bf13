"""The patch relay in a gate that was started as a user starts it: real gpg, ssh-keygen, clamd and OpenSSH around it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

import pytest

from tests.gate.patching import Works
from tests.waiting import eventually


@pytest.fixture(scope="module")
def works(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Works]:
    made = Works(tmp_path_factory.mktemp("works"))
    yield made
    made.close()


def test_a_genuine_file_goes_to_the_assets_once_two_have_signed(works: Works) -> None:
    data = b"firmware 1.0 " * 50_000
    number = works.put("fw.bin", data, "1.0")
    found = works.examined(number)
    assert found["state"] == "passed", (found["reason"], works.gate.said()[-3000:])
    assert found["report"]["facts"]["name"].startswith("Vendor")
    works.patch("request", str(number), "--reason", "CVE-2026-1")
    works.approve(number, "alice")
    assert "signed already" in works.approve(number, "alice", code=2)
    assert "no approver" in works.patch("approve", str(number), "--key", str(works.keys["h1"]), "--yes", code=2)
    assert works.asset("plc-1")["why"] == "nothing is released"
    works.approve(number, "bob")
    eventually(lambda: works.asset("plc-2")["state"] == "done")
    assert (works.sshd.files / "fw.bin").read_bytes() == data
    assert (works.sshd.files / "two" / "fw.bin").read_bytes() == data
    works.patch("export", str(works.folder / "evidence.json"))
    log = json.loads((works.folder / "evidence.json").read_text())["log"]
    kinds = [entry["kind"] for entry in log]
    order = ["file-taken", "file-examined", "release-requested", "release-signed", "release-decided",
             "releases-believed", "install-started", "install-ended"]  # fmt: skip
    assert [kinds.index(kind) for kind in order] == sorted(kinds.index(kind) for kind in order)
    started = {entry["sha256"] for entry in log if entry["kind"] == "install-started"}
    assert started == {hashlib.sha256(data).hexdigest()}
    works.patch("verify")
