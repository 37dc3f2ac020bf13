"""Honest files that no scanner sees all of: they stay in quarantine, somebody else releases one, and it passes; what
something was found in never does. With real clients, a real sshd and a real clamd."""

from __future__ import annotations

import contextlib
import io
import json
import re
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.brokers.jump.site import THERE, JumpSite
from tests.brokers.patch.makers import EICAR, HAS_CLAMD, clamd
from tests.gate.plant import events
from tests.gate.test_jump_files import scp
from tests.waiting import eventually

pytestmark = pytest.mark.skipif(not THERE or not HAS_CLAMD, reason="there is no OpenSSH, or no clamd (Debian)")
CAREFUL = """careful:
    from: office
    to: plant
    broker: jump
    owner: maintenance
    reason: what leads have signed for
    listen: "127.0.0.1:DOOR"
    clients: people
    approval: {by: leads, signed: true, always: {from: "00:00", to: "24:00", zone: Europe/Paris}}
    files: {scan: true}
    allow:
      - {who: {group: careful}, asset: station, as: LOGIN, do: [up, down], paths: ["FILES/**"]}
"""


def firmware(inside: bytes = b"hello") -> bytes:
    """With a trailer, as some makers have it: bytes behind the end of an archive, into which nobody may look."""
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as archive:
        info = tarfile.TarInfo("image")
        info.size = len(inside)
        archive.addfile(info, io.BytesIO(inside))
    return held.getvalue() + b"trailer of the maker's, with a checksum"


class Works(JumpSite):
    """Its people are anna, whom root at the gate is, ben, and cara, who is anna by another name."""

    def __init__(self, folder: Path, scanner: Path) -> None:
        self.scanner = scanner
        super().__init__(folder, ("--socket", f"clamd={scanner}"), free="files: {scan: true}", conduits=CAREFUL)

    def comes(self, name: str, full: str, group: str, *more: str) -> None:
        key = self.folder / name
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
        self.jump("person", "add", name, "--full", full, "--group", group, *more)
        self.jump("factor", "key", name, f"{key}.pub")

    def brings(self, who: str, name: str, data: bytes) -> tuple[bool, bytes]:
        """Whether somebody's file reaches the asset, and what they are told, but for that it takes a while."""
        (self.folder / "mine").write_bytes(data)
        done = scp(self, who, str(self.folder / "mine"), f"station@127.0.0.1:{self.files}/{name}")
        there = (self.files / name).exists() and (self.files / name).read_bytes() == data
        assert there == (done.returncode == 0), done.stderr
        return there, re.sub(rb"\s*\[gate\] \S+ is looked through\s*", b"", done.stderr)

    def held(self, *states: str) -> list[dict[str, Any]]:
        """What is in quarantine, but for what was rejected."""
        found: list[dict[str, Any]] = json.loads(self.jump("quarantine", "list", "--json"))
        return [one for one in found if one["state"] in (states or ("waits", "released", "found", "kept"))]

    def waits(self, who: str, name: str, data: bytes) -> str:
        """Somebody brings a file, and it waits. Returns its number."""
        passed, said = self.brings(who, name, data)
        assert not passed and b"waits for somebody else to release it" in said, said
        return str(max(one["number"] for one in self.held()))

    def reject(self) -> None:
        """Nothing waits any more."""
        for one in self.held():
            self.jump("quarantine", "reject", str(one["number"] or one["kept"]), "tidied up")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Works]:
    with tempfile.TemporaryDirectory(prefix="clamd-") as scanner, clamd(Path(scanner) / "one") as socket:
        folder = tmp_path_factory.mktemp("jump")
        with contextlib.closing(Works(folder, socket)) as made:
            made.set_up()
            made.comes("anna", "Anna Boss", "staff", "--account", "root", "--group", "leads")
            made.comes("ben", "Ben Vendor", "staff")
            made.comes("cara", "anna  BOSS", "staff")
            made.comes("vic", "Victor", "careful")
            yield made
            assert made.gate.stop() == 0, made.gate.said()
            assert "Traceback" not in made.gate.said()


def test_somebody_else_releases_it_and_it_passes(site: Works) -> None:
    data = firmware()
    number = site.waits("ben", "tool.run", data)
    (one,) = site.held()
    assert (one["state"], one["person"], one["asset"], one["way"], one["size"]) == (
        "waits",
        "ben",
        "station",
        "up",
        len(data),
    )
    assert (site.state.rglob(f"quarantine/{one['kept']}"), one["path"]) and one["path"].endswith("/tool.run")
    eventually(lambda: any(each["name"].endswith("/jump-files") for each in site.gate.status()["alarms"]))
    shown = site.jump("quarantine", "show", number)
    assert one["sha256"] in shown and one["kept"] in shown
    assert b"tool.run" in site.ssh("ben", "ben", "files").stdout
    for who in ("vic", "cara"):  # nobody approves there: others are not told what ben brings
        done = site.ssh(who, who, "files")
        assert done.returncode == 0 and b"tool.run" not in done.stdout, who
    # Once more, and it still waits, as the same.
    assert site.waits("ben", "tool.run", data) == number
    said = site.jump("quarantine", "release", number, "compared", "with", "the maker's list", "--for", "2h")
    assert "ben brings it once more" in said
    assert b"released by anna until" in site.ssh("ben", "ben", "requests").stdout
    assert site.brings("ben", "tool.run", data) == (True, b"")
    passed = events(site.state, "asset-file-passed")[-1]
    assert (passed["scan"], passed["sha256"], passed["person"]) == ("released by anna", one["sha256"], "ben")
    (decided,) = [each for each in events(site.state, "file-decided") if each["file"] == int(number)]
    assert (decided["decision"], decided["by"], decided["sha256"]) == ("released", "anna", one["sha256"])
    assert decided["reason"] == "compared with the maker's list" and decided["until_ns"]
    assert site.brings("ben", "tool.run", data)[0]  # as often as it is brought
    # Nothing else passes by it: no other bytes, path or person.
    for who, name, other in (
        ("ben", "tool.run", firmware(b"other")), ("ben", "tool2.run", data), ("cara", "tool.run", data),
    ):  # fmt: skip
        (site.files / name).unlink(missing_ok=True)
        assert not site.brings(who, name, other)[0], (who, name)
    # And not any more once it is over.
    site.jump("quarantine", "reject", number, "it was the wrong one")
    (site.files / "tool.run").unlink(missing_ok=True)
    assert not site.brings("ben", "tool.run", data)[0]
    assert int(number) in {one["number"] for one in site.held("rejected")}
    site.reject()
    eventually(lambda: not list(next(site.state.rglob("quarantine")).iterdir()))


def test_who_may_not_release_it(site: Works) -> None:
    """Whoever has brought it; the same person by another account; who is nobody; who may not approve there."""
    data = firmware(b"mine")
    for who, why in (("anna", "nobody releases what they have brought"), ("cara", "are the same person")):
        number = site.waits(who, "mine.run", data)
        said = site.jump("quarantine", "release", number, "it is good", code=2)
        assert why in said, said
        assert not site.brings(who, "mine.run", data)[0]
    site.reject()


def test_where_approvals_are_signed_a_release_is(site: Works) -> None:
    data = firmware(b"signed")
    number = site.waits("vic", "signed.run", data)
    assert "it takes a signature" in site.jump("quarantine", "release", number, "good", code=2)
    said = site.jump("quarantine", "release", number, "good", "--key", str(site.folder / "tech"), code=2)
    assert "it takes somebody of leads" in said, said
    said = site.jump("quarantine", "release", number, "good", "--key", str(site.folder / "vic"), code=2)
    assert "nobody releases what they have brought" in said, said
    assert not site.brings("vic", "signed.run", data)[0]
    statement, signed = site.folder / "statement", site.folder / "statement.sig"
    statement.write_text(site.jump("quarantine", "statement", number, "--for", "3h"))
    subprocess.run(
        ["ssh-keygen", "-q", "-Y", "sign", "-n", "cofferdam-approval", "-f", str(site.folder / "lead"), str(statement)],
        check=True, capture_output=True,
    )  # fmt: skip
    words = ("quarantine", "release", number, "good", "--signature", str(signed))
    assert "no signature over file" in site.jump(*words, "--for", "4h", code=2)  # it was not that which was signed
    site.jump(*words, "--for", "3h")
    assert site.brings("vic", "signed.run", data)[0]
    assert events(site.state, "asset-file-passed")[-1]["scan"] == "released by lead"
    site.reject()


def test_what_something_is_found_in_is_never_released(site: Works) -> None:
    passed, said = site.brings("ben", "bad.run", firmware(EICAR))
    assert not passed and b"the scanner finds Test.Eicar" in said and b"waits" not in said
    (one,) = site.held()
    assert (one["number"], one["state"]) == (0, "kept")
    assert "there is no file 0" in site.jump("quarantine", "show", "0", code=2)
    assert "Traceback" not in site.jump("quarantine", "reject", "²", code=2)
    site.jump("quarantine", "reject", one["kept"], "seen")
    assert events(site.state, "file-decided")[-1]["kept"] == one["kept"]
    assert site.held() == []
    assert "no file" in site.jump("quarantine", "reject", one["kept"], code=2)


def test_what_comes_from_the_asset_waits_and_is_released_as_well(site: Works) -> None:
    data = firmware(b"down")
    (site.files / "down.run").write_bytes(data)
    (site.folder / "got").unlink(missing_ok=True)
    far = f"station@127.0.0.1:{site.files}/down.run"
    done = scp(site, "ben", far, str(site.folder / "got"))
    assert done.returncode == 1 and b"waits for somebody else" in done.stderr and not (site.folder / "got").exists()
    (one,) = site.held()
    assert (one["way"], one["person"]) == ("down", "ben")
    site.jump("quarantine", "release", str(one["number"]), "it is what the asset has")
    assert scp(site, "ben", far, str(site.folder / "got")).returncode == 0
    assert (site.folder / "got").read_bytes() == data
    assert [each["scan"] for each in events(site.state, "asset-file-passed") if each["way"] == "down"][
        -1
    ] == "released by anna"
    # By that way alone.
    assert not site.brings("ben", "down.run.new", data)[0]
    site.reject()


def test_without_the_scanner_not_even_what_was_released_passes(site: Works) -> None:
    data = firmware(b"late")
    number = site.waits("ben", "late.run", data)
    site.jump("quarantine", "release", number, "good")
    away = site.scanner.rename(site.scanner.with_name("away"))
    try:
        passed, said = site.brings("ben", "late.run", data)
    finally:
        away.rename(site.scanner)
    assert not passed and b"it was not scanned" in said and b"waits" not in said, said
    site.reject()
