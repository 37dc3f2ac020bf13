"""Files by SCP: OpenSSH as the asset, and assets that do wrong."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import pwd
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from cofferdam.brokers.patch import scp, sftp
from cofferdam.brokers.patch.outcome import PIECE, Outcome
from cofferdam.policy.terms.patch_rows import Sftp, Way
from tests.brokers.patch.makers import Sshd, listening, ssh_key, untold

ME = pwd.getpwuid(os.getuid()).pw_name


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ssh_key(tmp_path_factory.mktemp("key"), "machine")


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory, key: Path) -> Iterator[Sshd]:
    made = Sshd(tmp_path_factory.mktemp("asset") / "plc", key.with_suffix(".pub"))
    listening(made.port)
    yield made
    made.stop()


def pushed(port: int, host_key: str, path: str, key: Path, file: Path, data: bytes) -> Outcome:
    sftp.prepare()
    file.write_bytes(data)
    said = Sftp(port=port, user=ME, host_key=host_key, path=path, secret="x", scp=True)
    way = Way(asset="plc", address="127.0.0.1", sftp=said)
    secret = sftp.KEY_MARK + base64.b64encode(key.read_bytes()).decode()
    sha256 = hashlib.sha256(data).hexdigest()
    return asyncio.run(scp.push(way, secret, file, "fw.bin", len(data), sha256, untold))


@pytest.mark.parametrize("size", [0, 1, PIECE, 3 * PIECE + 7])
def test_a_file_goes_to_a_real_server_and_is_read_back(sshd: Sshd, key: Path, tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    (sshd.files / "a place").mkdir(exist_ok=True)
    path = f"{sshd.files}/a place/{{file}}"
    assert pushed(sshd.port, sshd.host_key, path, key, tmp_path / "fw", data) == Outcome("sent")
    assert (sshd.files / "a place" / "fw.bin").read_bytes() == data


def test_what_a_real_server_refuses(sshd: Sshd, key: Path, tmp_path: Path) -> None:
    found = pushed(sshd.port, sshd.host_key, f"{sshd.files}/nowhere/{{file}}", key, tmp_path / "fw", b"new")
    assert (found.state, "No such file" in found.detail) == ("failed", True) or found.state == "unknown", found
    other = " ".join(ssh_key(tmp_path, "other").with_suffix(".pub").read_text().split()[:2])
    found = pushed(sshd.port, other, f"{sshd.files}/{{file}}", key, tmp_path / "fw", b"new")
    assert found.state == "failed"
    assert not (sshd.files / "fw.bin").exists()


Deed = Callable[[str, Any, Any], Awaitable[None]]


def taking(until: int, end: bytes = b"\0") -> Deed:
    """Takes so many bytes of the file, then says this and hangs up; and has another file."""

    async def deed(command: str, into: Any, out: Any) -> None:
        if command.startswith("scp -f"):
            out.write(b"C0600 3 fw.bin\n")
            await into.read(2)
            out.write(b"old\0")
            return
        out.write(b"\0")
        await into.readuntil(b"\n")
        out.write(b"\0")
        await into.read(until)
        out.write(end)

    return deed


def saying(answer: bytes) -> Deed:
    async def deed(command: str, into: Any, out: Any) -> None:
        await asyncio.sleep(0)
        out.write(answer)

    return deed


@pytest.mark.parametrize(
    ("deed", "state"),
    [
        (saying(b""), "failed"), (saying(b"\1scp: no space\n"), "failed"), (saying(b"x" * 9000), "failed"),
        (saying(b"\2"), "failed"), (taking(10), "unknown"), (taking(10, b"\1disk full\n"), "unknown"),
        (taking(100_000), "unknown"),
    ],
)  # fmt: skip
def test_an_asset_that_does_wrong(tmp_path: Path, key: Path, deed: Deed, state: str) -> None:
    """Nothing is sent again, and "sent" is said of nothing that does not read back."""
    host, begun = asyncssh.generate_private_key("ssh-ed25519"), []
    file, secret = tmp_path / "fw", sftp.KEY_MARK + base64.b64encode(key.read_bytes()).decode()
    file.write_bytes(b"new firmware" * 1000)

    async def one(process: Any) -> None:
        begun.append(process.command)
        await deed(process.command, process.stdin, process.stdout)
        process.exit(0)

    async def run() -> None:
        server = await asyncssh.listen(
            "127.0.0.1", 0, server_host_keys=[host], authorized_client_keys=str(key.with_suffix(".pub")),
            process_factory=one, encoding=None,
        )  # fmt: skip
        async with server:
            said = Sftp(port=server.get_port(), user=ME, host_key=host.export_public_key().decode(), path="{file}",
                        secret="x", scp=True)  # fmt: skip
            way = Way(asset="plc", address="127.0.0.1", sftp=said)
            sha256 = hashlib.sha256(b"new firmware" * 1000).hexdigest()
            found.append(await scp.push(way, secret, file, "fw.bin", 12_000, sha256, untold))

    found: list[Outcome] = []
    asyncio.run(run())
    assert found[0].state == state, found
    assert sum(command.startswith("scp -t") for command in begun) == 1
