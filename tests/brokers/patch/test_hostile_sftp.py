"""An asset that speaks SSH well and SFTP badly: whatever it answers, a transfer has an outcome, and nothing is left
behind that would end the installer."""

from __future__ import annotations

import asyncio
import base64
import gc
import hashlib
import os
import pwd
import random
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from cofferdam.brokers.patch import scp, sftp
from cofferdam.brokers.patch.outcome import Outcome
from cofferdam.policy.terms.patch_rows import Sftp, Way
from tests.brokers.patch.makers import Sshd, counting, listening, ssh_key, untold

DATA = b"data" * 20_000
VERSION, HANDLE, CONTENT, STATUS = 2, 102, 103, 101
INIT, OPEN, READ = 1, 3, 5


def text(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


class Session(asyncssh.SSHServerSession[bytes]):
    """SFTP, answered wrongly now and then."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._held = b""

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        self._channel = chan

    def subsystem_requested(self, subsystem: str) -> bool:
        return True

    def data_received(self, data: bytes, datatype: Any) -> None:
        self._held += data
        while len(self._held) >= 4 and len(self._held) >= 4 + (size := int.from_bytes(self._held[:4], "big")):
            asked, self._held = self._held[4 : 4 + size], self._held[4 + size :]
            made = self._spoilt(self._answer(asked[0], asked[1:5]))
            if not self._channel.is_closing():
                self._channel.write(text(made))

    @staticmethod
    def _answer(kind: int, number: bytes) -> bytes:
        if kind == INIT:
            return bytes([VERSION]) + struct.pack(">I", 3) + text(b"posix-rename@openssh.com") + text(b"1")
        if kind == OPEN:
            return bytes([HANDLE]) + number + text(b"h")
        if kind == READ:
            return bytes([CONTENT]) + number + text(DATA[:9])
        return bytes([STATUS]) + number + struct.pack(">I", 0) + text(b"ok") + text(b"en")

    def _spoilt(self, answer: bytes) -> bytes:
        how, at = self._dice.random(), self._dice.randrange(len(answer))
        if how < 0.02:
            return answer[:at] + self._dice.randbytes(1) + answer[at + 1 :]
        if how < 0.04:
            return answer[:at] or b"\0"
        if how < 0.05:
            return answer + b"more"
        return self._dice.randbytes(40) if how < 0.06 else answer


async def sessions(folder: Path, count: int, seed: int) -> dict[str, int]:
    sftp.prepare()
    dice, key = random.Random(seed), asyncssh.generate_private_key("ssh-ed25519")
    file = folder / "file"
    file.write_bytes(DATA)

    class Server(asyncssh.SSHServer):
        def begin_auth(self, username: str) -> bool:
            return False

        def session_requested(self) -> Session:
            return Session(dice)

    left: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: left.append(context))
    server = await asyncssh.create_server(Server, "127.0.0.1", 0, server_host_keys=[key], encoding=None)
    said = Sftp(port=server.get_port(), user="u", host_key=key.export_public_key().decode().strip(), path="{file}",
                secret="a")  # fmt: skip
    way = Way(asset="a", address="127.0.0.1", sftp=said)
    found: dict[str, int] = {}
    for _ in range(count):
        outcome = await sftp.push(way, "secret", file, "f", len(DATA), hashlib.sha256(DATA).hexdigest(), untold)
        found[outcome.state] = found.get(outcome.state, 0) + 1
        try:
            await sftp.read_text(way, "secret", "version", 20)
        except OSError:
            pass
    server.close()
    await server.wait_closed()
    gc.collect()
    assert not left, left
    return found


def test_whatever_it_answers_there_is_an_outcome(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sftp, "SILENT_SECONDS", 1.0)
    found = asyncio.run(sessions(tmp_path, 15, 1))
    assert found.get("failed"), found
    assert "sent" not in found, found


@pytest.mark.soak
def test_and_many_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sftp, "SILENT_SECONDS", 1.0)
    assert sum(asyncio.run(sessions(tmp_path, 500, 2)).values()) == 500


class Short(asyncssh.SFTPServer):
    """Gives fewer bytes than are asked for, as it may (draft-ietf-secsh-filexfer-02, 6.4)."""

    def __init__(self, channel: asyncssh.SSHServerChannel[bytes]) -> None:
        super().__init__(channel, chroot=Short.folder)

    folder = b""

    def read(self, file_obj: object, offset: int, size: int) -> Any:
        return super().read(file_obj, offset, min(size, 30_000 if offset < 60_000 else 7_000))


def test_an_asset_that_gives_less_than_is_asked_for_reads_back_whole(tmp_path: Path) -> None:
    key, data = asyncssh.generate_private_key("ssh-ed25519"), random.Random(3).randbytes(300_001)
    Short.folder = os.fsencode(tmp_path)
    (tmp_path / "file").write_bytes(data)

    class Server(asyncssh.SSHServer):
        def begin_auth(self, username: str) -> bool:
            return False

    sent: list[int] = []

    async def run() -> Outcome:
        sftp.prepare()
        server = await asyncssh.create_server(Server, "127.0.0.1", 0, server_host_keys=[key], sftp_factory=Short)
        said = Sftp(port=server.get_port(), user="u", host_key=key.export_public_key().decode().strip(), path="there",
                    secret="a")  # fmt: skip
        way, sha256 = Way(asset="a", address="127.0.0.1", sftp=said), hashlib.sha256(data).hexdigest()
        found = await sftp.push(way, "secret", tmp_path / "file", "f", len(data), sha256, counting(sent))
        server.close()
        return found

    assert asyncio.run(run()).state == "sent"
    assert sum(sent) == len(data)
    assert (tmp_path / "there").read_bytes() == data


@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
def test_an_asset_that_reboots_in_the_middle_has_what_it_had(tmp_path: Path, share: float) -> None:
    """OpenSSH behind something that cuts the connection after a share of the file."""
    sftp.prepare()
    key = ssh_key(tmp_path, "machine")
    sshd = Sshd(tmp_path / "plc", key.with_suffix(".pub"))
    data = random.Random(1).randbytes(4_000_000)
    file, secret = tmp_path / "fw", sftp.KEY_MARK + base64.b64encode(key.read_bytes()).decode()
    file.write_bytes(data)
    (sshd.files / "fw.bin").write_bytes(b"old")
    cuts = 0

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal cuts
        there, back = await asyncio.open_connection("127.0.0.1", sshd.port)

        async def answers() -> None:
            while piece := await there.read(65536):
                writer.write(piece)

        passed = 0
        try:
            async with asyncio.TaskGroup() as tasks:
                task = tasks.create_task(answers())
                while passed < share * len(data) and (piece := await reader.read(65536)):
                    back.write(piece)
                    passed += len(piece)
                task.cancel()
        finally:
            cuts += 1
            for each in (writer, back):
                each.transport.abort()

    async def run() -> Outcome:
        server = await asyncio.start_server(one, "127.0.0.1", 0)
        async with server:
            said = Sftp(port=server.sockets[0].getsockname()[1], user=pwd.getpwuid(os.getuid()).pw_name,
                        host_key=sshd.host_key, path=f"{sshd.files}/{{file}}", secret="x")  # fmt: skip
            way = Way(asset="plc", address="127.0.0.1", sftp=said)
            sha256 = hashlib.sha256(data).hexdigest()
            return await sftp.push(way, secret, file, "fw.bin", len(data), sha256, untold)

    try:
        listening(sshd.port)
        found = asyncio.run(run())
    finally:
        sshd.stop()
    assert (found.state, "what the asset had is still there" in found.detail) == ("failed", True), found
    assert (sshd.files / "fw.bin").read_bytes() == b"old"
    assert cuts == 1  # nothing was begun again


@pytest.fixture
def plc(tmp_path: Path) -> Iterator[tuple[Sshd, str]]:
    """A real server with a file in it, and the credential for it."""
    key = ssh_key(tmp_path, "machine")
    sshd = Sshd(tmp_path / "plc", key.with_suffix(".pub"))
    (sshd.files / "fw.bin").write_bytes(b"old")
    try:
        listening(sshd.port)
        yield sshd, sftp.KEY_MARK + base64.b64encode(key.read_bytes()).decode()
    finally:
        sshd.stop()


def pushed(sshd: Sshd, secret: str, file: Path, *, host_key: str = "", of_old: bool = False) -> Outcome:
    said = Sftp(port=sshd.port, user=pwd.getpwuid(os.getuid()).pw_name, host_key=host_key or sshd.host_key,
                path=f"{sshd.files}/{{file}}", secret="x", scp=of_old)  # fmt: skip
    data = file.read_bytes()
    way = Way(asset="plc", address="127.0.0.1", sftp=said)
    push = scp.push if of_old else sftp.push
    sha256 = hashlib.sha256(data).hexdigest()
    return asyncio.run(push(way, secret, file, "fw.bin", len(data), sha256, untold))


@pytest.mark.parametrize("of_old", [False, True], ids=["sftp", "scp"])
def test_an_asset_with_another_host_key_is_sent_nothing(tmp_path: Path, plc: tuple[Sshd, str], of_old: bool) -> None:
    (file := tmp_path / "fw").write_bytes(DATA)
    other = " ".join(ssh_key(tmp_path, "other").with_suffix(".pub").read_text().split()[:2])
    found = pushed(*plc, file, host_key=other, of_old=of_old)
    assert (found.state, "host key" in found.detail.lower()) == ("failed", True), found
    assert [each.name for each in plc[0].files.iterdir()] == ["fw.bin"]
    assert (plc[0].files / "fw.bin").read_bytes() == b"old"
    assert pushed(*plc, file, of_old=of_old).state == "sent"


@pytest.mark.skipif(os.geteuid() != 0, reason="a small disk is mounted by root")
def test_an_asset_whose_disk_is_full_keeps_what_it_had(tmp_path: Path, plc: tuple[Sshd, str]) -> None:
    files = plc[0].files
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", files], check=True)
    try:
        (files / "fw.bin").write_bytes(b"old")
        (file := tmp_path / "fw").write_bytes(os.urandom(3_000_000))
        found = pushed(*plc, file)
        assert (found.state, "what the asset had is still there" in found.detail) == ("failed", True), found
        assert (files / "fw.bin").read_bytes() == b"old"
        assert [each.name for each in files.iterdir()] == ["fw.bin"]
    finally:
        subprocess.run(["umount", "-l", files], check=True)
