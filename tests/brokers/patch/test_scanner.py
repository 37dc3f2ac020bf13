"""The scanner against Debian's clamd with a base of one signature, and against what only looks like it."""

from __future__ import annotations

import io
import socket
import threading
import zipfile
from pathlib import Path

import pytest

from cofferdam.brokers.kit.clamd import scan
from tests.brokers.patch.makers import EICAR, HAS_CLAMD, clamd

pytestmark = pytest.mark.skipif(not HAS_CLAMD, reason="clamd is not installed")


def test_clean_and_found(tmp_path: Path) -> None:
    with clamd(tmp_path / "clamd") as at:
        file = tmp_path / "file"
        file.write_bytes(b"firmware" * 100_000)
        assert scan(str(at), file).verdict == "clean"
        held = io.BytesIO()
        with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("inner", EICAR)
        file.write_bytes(held.getvalue())
        found = scan(str(at), file)
        assert (found.verdict, found.detail) == ("found", "Test.Eicar.UNOFFICIAL")


@pytest.mark.parametrize(
    ("more", "says"),
    [(("AlertExceedsMax no",), "AlertExceedsMax"), (("StreamMaxLength 1M",), "size limit|hung up")],
)  # fmt: skip
def test_what_it_did_not_look_into_is_not_clean(tmp_path: Path, more: tuple[str, ...], says: str) -> None:
    with clamd(tmp_path / "clamd", *more) as at:
        file = tmp_path / "file"
        file.write_bytes(b"\1firmware" * 1_000_000)
        found = scan(str(at), file)
        assert found.verdict == "not scanned"
        assert any(word in found.detail for word in says.split("|")), found


@pytest.mark.parametrize("answer", [b"", b"nonsense\0", b"ClamAV 1.4.6/27000/Thu Jan  1 10:00:00 2026\0", b"x" * 9000])
def test_a_scanner_that_is_none(tmp_path: Path, answer: bytes) -> None:
    at = tmp_path / "fake.ctl"
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(at))
    server.listen()

    def serve() -> None:
        while True:
            try:
                peer, _ = server.accept()
            except OSError:
                return
            with peer:
                peer.recv(100)
                peer.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    file = tmp_path / "file"
    file.write_bytes(b"x")
    assert scan(str(at), file).verdict == "not scanned"
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    assert scan(str(tmp_path / "nothing"), file).verdict == "not scanned"
