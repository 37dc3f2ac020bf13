"""A disk that is full at each step of the patch relay: nothing is half there or half released, and once there is room
it goes on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gate.patching import Works
from tests.waiting import eventually

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a small disk is mounted by root")
DATA = os.urandom(3_000_000)


class Small:
    """All stores of a gate on a disk of 120 MB, of which uploads leave 64 free."""

    def __init__(self, folder: Path) -> None:
        self.works = Works(folder / "works", prepare=self.mount)

    def mount(self, works: Works) -> None:
        self.disk = works.state / "stores"
        self.disk.mkdir(mode=0o711, parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=120m,mode=711", "tmpfs", self.disk], check=True)

    def full(self, left: int) -> None:
        """But for so many bytes."""
        free = os.statvfs(self.disk)
        with (self.disk / "ballast").open("ab") as ballast:
            ballast.write(bytes(max(0, free.f_bavail * free.f_frsize - left)))

    def empty(self) -> None:
        (self.disk / "ballast").unlink()

    def close(self) -> None:
        self.works.close()
        subprocess.run(["umount", "-l", self.disk], check=True)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Small]:
    made = Small(tmp_path_factory.mktemp("small"))
    yield made
    made.close()


def test_nothing_is_half_done_on_a_full_disk_and_all_goes_on_when_there_is_room(small: Small) -> None:
    works = small.works
    file, signature = works.folder / "fw.bin", works.folder / "fw.bin.asc"
    file.write_bytes(DATA)
    signature.write_bytes(works.vendor.sign(DATA))
    words = ("put", str(file), "--product", "plc-firmware", "--version", "1.0", "--signature", str(signature))

    # it comes
    small.full(60_000_000)
    assert "disk is full" in works.patch(*words, code=2)
    assert works.told("list") == []
    small.empty()
    number = int(works.told(*words)["number"])

    # it is looked at: that takes no room
    found = works.examined(number)
    assert found["state"] == "passed", found
    small.full(1_000_000)
    works.patch("examine", str(number))
    assert works.examined(number)["state"] == "passed"
    small.empty()

    # it is released: a copy that the installer sees, and its metadata
    works.patch("request", str(number))
    works.approve(number, "alice")
    small.full(1_000_000)
    assert "has its signatures and is not released yet" in works.approve(number, "bob", code=2)
    assert works.told("plan")["releases"] == []
    assert not (works.sshd.files / "fw.bin").exists()
    small.empty()
    eventually(lambda: works.asset("plc-2")["state"] == "done")
    assert (works.sshd.files / "fw.bin").read_bytes() == DATA
    works.patch("verify")
