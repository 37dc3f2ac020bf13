"""Files to a share by SMB 3: Debian's samba, and servers that do wrong."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cofferdam.brokers.patch import ntlm, pushing, smb
from cofferdam.brokers.patch.outcome import Outcome
from cofferdam.policy.terms.patch_rows import Smb, Way
from tests.brokers.patch.makers import untold
from tests.ports import held_port
from tests.waiting import PATIENT, eventually

SMBD = shutil.which("smbd") or "/usr/sbin/smbd"
needs_smbd = pytest.mark.skipif(not Path(SMBD).exists() or os.geteuid() != 0, reason="samba, which takes root to start")
ME = pwd.getpwuid(os.getuid()).pw_name
PASSWORD = "a long and random one"


class Samba:
    """An asset with a share that takes nothing unencrypted."""

    def __init__(self, folder: Path, *more: str, anybody: bool = False) -> None:
        self.files = folder / "files"
        self.files.mkdir()
        self.port = held_port()
        self.config = folder / "smb.conf"
        places = "\n".join(
            f"{name} = {folder / kind}" for kind, names in {
                "private": ("private dir", "state directory", "lock directory", "cache directory", "pid directory",
                            "ncalrpc dir"),
            }.items() for name in names
        )  # fmt: skip
        (folder / "private").mkdir()
        guest = "map to guest = Bad User\n" if anybody else ""
        self.config.write_text(
            f"[global]\n{places}\nsmb ports = {self.port}\nserver role = standalone\nbind interfaces only = yes\n"
            f"interfaces = 127.0.0.1\nlog file = {folder}/log\nload printers = no\nprintcap name = /dev/null\n"
            f"disable spoolss = yes\nserver min protocol = SMB3_11\nsmb encrypt = required\n{guest}"
            + "\n".join(more)
            + f"\n[updates]\npath = {self.files}\nread only = no\nguest ok = {'yes' if anybody else 'no'}\n"
        )
        subprocess.run(
            ["smbpasswd", "-c", str(self.config), "-s", "-a", ME], input=f"{PASSWORD}\n{PASSWORD}\n".encode(),
            check=True, capture_output=True, timeout=PATIENT,
        )  # fmt: skip
        command = [SMBD, "-F", "--no-process-group", "-s", str(self.config)]
        # It ends its whole group, when it is ended.
        self.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        eventually(self._answers)

    def _answers(self) -> bool:
        assert self.process.poll() is None
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", self.port)) == 0

    def way(self, path: str = "in/{file}", share: str = "updates", user: str = ME) -> Way:
        said = Smb(port=self.port, share=share, user=user, domain="", path=path, secret="x")
        return Way(asset="press", address="127.0.0.1", smb=said)

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(PATIENT)


@pytest.fixture(scope="module")
def samba(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Samba]:
    made = Samba(tmp_path_factory.mktemp("samba"))
    (made.files / "in").mkdir()
    yield made
    made.close()


def push(way: Way, data: bytes, folder: Path, secret: str = PASSWORD, sha256: str = "") -> Outcome:
    file = folder / "press.bin"
    file.write_bytes(data)
    digest = sha256 or hashlib.sha256(data).hexdigest()
    return asyncio.run(smb.push(way, secret, file, "press.bin", len(data), digest, untold))


@needs_smbd
@pytest.mark.parametrize("size", [0, 1, smb.UNIT, 5 * smb.MOST + 17])
def test_a_file_goes_to_a_real_share_and_is_read_back(samba: Samba, tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    assert push(samba.way(), data, tmp_path) == Outcome("sent")
    assert (samba.files / "in" / "press.bin").read_bytes() == data
    assert [each.name for each in (samba.files / "in").iterdir()] == ["press.bin"]
    (samba.files / "in" / "version").write_text("2.1\n")
    assert asyncio.run(smb.read_text(samba.way(), PASSWORD, "in/version", 10)) == "2.1\n"
    (samba.files / "in" / "version").unlink()


@needs_smbd
@pytest.mark.parametrize(
    ("change", "secret", "says"),
    [
        (lambda samba: samba.way(), "another", "password is another"),
        (lambda samba: samba.way(), "", "no credential"),
        (lambda samba: samba.way(user="nobody-here"), PASSWORD, "does not know the user"),
        (lambda samba: samba.way(share="other"), PASSWORD, "no such share"),
        (lambda samba: samba.way("nowhere/{file}"), PASSWORD, "no such folder"),
    ],
)  # fmt: skip
def test_what_a_real_share_refuses(
    samba: Samba, tmp_path: Path, change: Callable[[Samba], Way], secret: str, says: str
) -> None:
    (samba.files / "in" / "press.bin").write_bytes(b"old")
    found = push(change(samba), b"new", tmp_path, secret)
    assert (found.state, says in found.detail) == ("failed", True), found
    assert (samba.files / "in" / "press.bin").read_bytes() == b"old"


@needs_smbd
def test_what_reads_back_otherwise_changes_nothing(samba: Samba, tmp_path: Path) -> None:
    (samba.files / "in" / "press.bin").write_bytes(b"old")
    found = push(samba.way(), b"new", tmp_path, sha256="0" * 64)
    assert (found.state, "another hash" in found.detail) == ("failed", True), found
    assert {each.name: each.read_bytes() for each in (samba.files / "in").iterdir()} == {"press.bin": b"old"}


@needs_smbd
@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("server smb encrypt = off", "server max protocol = SMB3_02", "server min protocol = SMB2"), "SMB 3.1.1|no"),
        (("server smb3 encryption algorithms = AES-256-CCM",), "AES-128-GCM"),
    ],
)  # fmt: skip
def test_a_server_without_what_it_takes_is_refused(tmp_path: Path, more: tuple[str, ...], says: str) -> None:
    server = Samba(tmp_path, *more)
    try:
        found = push(server.way("{file}"), b"new", tmp_path)
        assert found.state == "failed", found
        assert any(word in found.detail for word in says.split("|")), found
        assert not list(server.files.iterdir())
    finally:
        server.close()


@needs_smbd
def test_a_guest_sends_nothing(tmp_path: Path) -> None:
    server = Samba(tmp_path, anybody=True)
    try:
        found = push(server.way("{file}", user="nobody-here"), b"new", tmp_path)
        assert (found.state, "guest" in found.detail or "says" in found.detail) == ("failed", True), found
        assert not list(server.files.iterdir())
    finally:
        server.close()


# --- servers that do wrong --------------------------------------------------------------------------------------------


async def _between(port: int, change: Callable[[int, bytes], bytes]) -> tuple[asyncio.Server, int]:
    """Somebody on the path, who may change each message of the server."""

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)

        async def forth() -> None:
            while data := await reader.read(65536):
                back.write(data)
            back.close()

        number = 0
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(forth())
                with contextlib.suppress(asyncio.IncompleteReadError, OSError):
                    while True:
                        length = int.from_bytes(await there.readexactly(4), "big")
                        data = change(number, await there.readexactly(length))
                        writer.write(len(data).to_bytes(4, "big") + data)
                        number += 1
                writer.close()
        finally:
            for each in (writer, back):
                each.transport.abort()

    made = await asyncio.start_server(one, "127.0.0.1", 0)
    return made, int(made.sockets[0].getsockname()[1])


def flipped(number: int, at: int) -> Callable[[int, bytes], bytes]:
    def change(count: int, data: bytes) -> bytes:
        if count != number:
            return data
        changed = bytearray(data)
        changed[at % len(data)] ^= 1
        return bytes(changed)

    return change


@needs_smbd
@pytest.mark.parametrize(
    ("number", "at"),
    [(0, 70), (0, 78), (0, 80), (1, 90), (1, 150), (2, 50), (2, 66), (3, 5), (3, 60), (5, -1), (7, 30)],
)
def test_whoever_is_on_the_path_changes_nothing_unseen(samba: Samba, tmp_path: Path, number: int, at: int) -> None:
    (samba.files / "in" / "press.bin").write_bytes(b"old")
    file = tmp_path / "press.bin"
    file.write_bytes(b"new")

    async def run() -> Outcome:
        server, port = await _between(samba.port, flipped(number, at))
        said = samba.way()
        assert said.smb is not None
        way = Way(asset="press", address="127.0.0.1", smb=Smb(port=port, share=said.smb.share, user=ME, domain="",
                  path=said.smb.path, secret="x"))  # fmt: skip
        async with server:
            sha256 = hashlib.sha256(b"new").hexdigest()
            return await smb.push(way, PASSWORD, file, "press.bin", 3, sha256, untold)

    found = asyncio.run(run())
    assert found.state == "failed", found
    assert (samba.files / "in" / "press.bin").read_bytes() == b"old"


@pytest.mark.parametrize("answer", [b"", b"\0\0\0\4abcd", b"\xff\xff\xff\xff", b"\0\0\0\x40" + bytes(64), b"x" * 500])
def test_a_server_that_is_none(tmp_path: Path, answer: bytes) -> None:
    file = tmp_path / "press.bin"
    file.write_bytes(b"new")

    async def run() -> Outcome:
        async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(100)
            writer.write(answer)
            writer.close()

        server = await asyncio.start_server(one, "127.0.0.1", 0)
        port = int(server.sockets[0].getsockname()[1])
        said = Smb(port=port, share="updates", user=ME, domain="", path="{file}", secret="x")
        async with server:
            way = Way(asset="press", address="127.0.0.1", smb=said)
            return await smb.push(way, PASSWORD, file, "press.bin", 3, "0" * 64, untold)

    assert asyncio.run(run()).state == "failed"


@pytest.mark.parametrize(
    ("data", "digest"),
    [(b"", "31d6cfe0d16ae931b73c59d7e0c089c0"), (b"message digest", "d9130a8164549fe818874806e1c7014b"),
     (b"1234567890" * 8, "e33b4ddc9c38f2199c3e7b164fcc0536")],
)  # fmt: skip
def test_md4_is_as_its_rfc_has_it(data: bytes, digest: str) -> None:
    assert ntlm.md4(data).hex() == digest


@pytest.mark.parametrize("challenge", [b"", b"NTLMSSP\0\2\0\0\0" + bytes(60), b"x" * 200])
def test_a_question_that_is_none_of_ntlm(challenge: bytes) -> None:
    with pytest.raises(ntlm.NoLogin):
        ntlm.authenticate("u", "p", ntlm.negotiate(), challenge)


@pytest.mark.parametrize("length", range(24))
def test_answers_that_are_too_short_raise_nothing_else(length: int) -> None:
    """By a server that knows the password."""

    async def run() -> None:
        share = smb._Share(asyncio.StreamReader(), None)  # type: ignore[arg-type]

        async def answered(*_: object, **__: object) -> tuple[int, bytes]:
            share._last = bytes(64 + length)
            return 0, bytes(length)

        share.ask = answered  # type: ignore[method-assign]
        for each in (
            share._tree_of(b"x"), share.create("x", 0, 0), share.write(b"h", 0, b"x"), share.read(b"h", 0),
            share.rename(b"h", "x"), share.log_in(Smb(port=1, share="x", user="u", domain="", path="x", secret="x"),
                                                  "192.0.2.1", "p"),
        ):  # fmt: skip
            with contextlib.suppress(*smb._ENDS):
                await each

    asyncio.run(run())


def test_what_no_way_knows_of_an_asset_is_unknown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An exception would end the installer's work for all others."""

    async def broken(*_: object) -> Outcome:
        raise IndexError("what an asset sent")

    monkeypatch.setattr(smb, "push", broken)
    way = Way(asset="press", address="127.0.0.1", smb=Smb(port=1, share="x", user="u", domain="", path="x", secret="x"))
    found = asyncio.run(pushing.push(way, "x", tmp_path, "x", 1, "x", untold))
    assert found == Outcome("unknown", "IndexError: what an asset sent")
