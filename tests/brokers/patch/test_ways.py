"""Ways in to assets: vsftpd with and without TLS, tftpd-hpa, assets that do wrong. Each outcome is what is known."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from cofferdam.brokers.patch import ftp, tftp
from cofferdam.brokers.patch.outcome import Outcome, Progress
from cofferdam.policy.terms.patch_checks import der_of
from cofferdam.policy.terms.patch_rows import Ftp, Tftp, Way
from tests.brokers.patch.makers import counting, untold
from tests.folders import others_get_into
from tests.ports import held_port, held_ports
from tests.waiting import PATIENT, eventually

DATA = bytes(range(256)) * 8_001 + b"end"
SHA256 = hashlib.sha256(DATA).hexdigest()
FTPD, TFTPD = shutil.which("vsftpd"), shutil.which("in.tftpd") or "/usr/sbin/in.tftpd"
USER, PASSWORD = "cofferdam-ftp", "cofferdam-secret"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="its server takes a user of the machine")


def certificate(folder: Path) -> Path:
    """A key and its certificate in one file."""
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "asset")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30)).sign(key, hashes.SHA256())
    )  # fmt: skip
    file = folder / "asset.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    file.write_bytes(private + made.public_bytes(Encoding.PEM))
    return file


class Ftpd:
    """Debian's vsftpd, for anybody, over one folder."""

    def __init__(self, folder: Path, *, tls: bool) -> None:
        self.files = folder / "files"
        (self.files / "fw").mkdir(parents=True)
        user = pwd.getpwnam("daemon")
        os.chown(self.files / "fw", user.pw_uid, user.pw_gid)
        self.pem = certificate(folder)
        self.port, self.low = held_ports(2)
        lines = [
            "listen=YES", "listen_address=127.0.0.1", f"listen_port={self.port}", "background=NO",
            "anonymous_enable=YES", "local_enable=NO", "ftp_username=daemon", f"anon_root={self.files}",
            "write_enable=YES", "anon_upload_enable=YES", "anon_other_write_enable=YES", "anon_umask=022",
            "anon_world_readable_only=NO", f"pasv_min_port={self.low}", f"pasv_max_port={self.low}",
            "seccomp_sandbox=NO",
            "secure_chroot_dir=/var/run/vsftpd/empty", "xferlog_enable=NO", "allow_writeable_chroot=YES",
        ]  # fmt: skip
        if tls:
            lines += [
                "ssl_enable=YES", "allow_anon_ssl=YES", "force_anon_logins_ssl=YES", "force_anon_data_ssl=YES",
                f"rsa_cert_file={self.pem}", f"rsa_private_key_file={self.pem}", "require_ssl_reuse=YES",
                "ssl_ciphers=HIGH",
            ]  # fmt: skip
        config = folder / "vsftpd.conf"
        config.write_text("\n".join([*lines, ""]))
        Path("/var/run/vsftpd/empty").mkdir(parents=True, exist_ok=True)
        self.process = subprocess.Popen(["vsftpd", str(config)], stdout=subprocess.DEVNULL)
        eventually(lambda: self.process.poll() is not None or answers(self.port))
        assert self.process.poll() is None

    def way(self, **changes: Any) -> Way:
        said: dict[str, Any] = {
            "port": self.port, "user": "anonymous", "path": "fw/{file}", "secret": "a", "data": (self.low, self.low),
        }  # fmt: skip
        return Way(asset="a", address="127.0.0.1", rate=10**7, ftp=Ftp(**(said | changes)))

    @property
    def pin(self) -> str:
        return hashlib.sha256(der_of(self.pem.read_bytes())).hexdigest()

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(PATIENT)


def answers(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module", params=[False, True], ids=["ftp", "ftps"])
def server(request: pytest.FixtureRequest) -> Iterator[tuple[Ftpd, str]]:
    if FTPD is None or os.geteuid() != 0:
        pytest.skip("vsftpd, which takes root to start")
    with others_get_into() as folder:
        made = Ftpd(folder, tls=request.param)
        yield made, made.pin if request.param else ""
        made.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("file") / "fw.bin"
    path.write_bytes(DATA)
    return path


def push(way: Way, file: Path, sha256: str = SHA256, sent: Progress = untold) -> Outcome:
    return asyncio.run(ftp.push(way, PASSWORD, file, "fw.bin", len(DATA), sha256, sent))


def test_a_file_goes_to_a_real_server_and_is_read_back(server: tuple[Ftpd, str], file: Path) -> None:
    ftpd, pin = server
    there = ftpd.files / "fw" / "fw.bin"
    for _ in range(2):  # the second time over the first
        counted: list[int] = []
        assert push(ftpd.way(certificate=pin), file, sent=counting(counted)) == Outcome("sent")
        assert there.read_bytes() == DATA
        assert sum(counted) == len(DATA)
    assert [each.name for each in (ftpd.files / "fw").iterdir()] == ["fw.bin"]
    text = asyncio.run(ftp.read_text(ftpd.way(certificate=pin), PASSWORD, "fw/fw.bin", 256))
    assert text.encode("utf-8", "replace")[:128] == DATA[:128]
    there.unlink()


def test_what_reads_back_otherwise_changes_nothing(server: tuple[Ftpd, str], file: Path) -> None:
    ftpd, pin = server
    there = ftpd.files / "fw" / "fw.bin"
    there.write_bytes(b"old")
    os.chown(there, pwd.getpwnam("daemon").pw_uid, -1)
    found = push(ftpd.way(certificate=pin), file, "ab" * 32)
    assert found.state == "failed"
    assert "another hash" in found.detail
    assert there.read_bytes() == b"old"
    assert not there.with_name("fw.bin.part").exists()
    there.unlink()


def test_what_the_policy_does_not_have_is_refused(server: tuple[Ftpd, str], file: Path) -> None:
    ftpd, pin = server
    for way, says in (
        (ftpd.way(certificate="ab" * 32), "another certificate" if pin else "AUTH TLS"),
        (ftpd.way(certificate=pin, data=(1, 2)), "data port"),
        (ftpd.way(certificate=pin, path="no/such/place"), "STOR"),
        (ftpd.way(certificate=pin, path="a\r\nDELE fw"), "line end"),
        (ftpd.way(certificate=pin, port=held_port()), "still there"),
    ):
        found = push(way, file)
        assert found.state == "failed", found
        assert says in found.detail
    if pin:
        assert push(ftpd.way(), file).state == "failed"  # no password goes out without TLS where it is asked for


class Odd:
    """An asset that speaks FTP and does one thing wrong."""

    def __init__(self, wrong: str) -> None:
        self.wrong = wrong
        self.stored: dict[str, bytes] = {"fw.bin": b"old"}
        self.stores = 0

    async def serve(self, work: Callable[[Way], Awaitable[Outcome]]) -> Outcome:
        self._data: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: list[Any] = []

        def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._writers.append(writer)
            self._data.put_nowait((reader, writer))

        data = await asyncio.start_server(take, "127.0.0.1", 0)
        control = await asyncio.start_server(self._control, "127.0.0.1", 0)
        self._port = data.sockets[0].getsockname()[1]
        said = Ftp(port=control.sockets[0].getsockname()[1], user="u", path="{file}", secret="a",
                   data=(self._port, self._port))  # fmt: skip
        try:
            return await work(Way(asset="a", address="127.0.0.1", rate=10**7, ftp=said))
        finally:
            data.close()
            control.close()
            for each in self._writers:
                each.transport.abort()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await asyncio.sleep(0)

    async def _control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def say(text: str) -> None:
            writer.write(text.encode() + b"\r\n")

        old = ""
        self._writers.append(writer)
        self._tasks.append(asyncio.current_task())
        try:
            say("220-hello\r\n220 there" if self.wrong != "endless" else "220-" + "x" * 100_000)
            while line := (await reader.readline()).decode().strip():
                word, _, name = line.partition(" ")
                if word == "EPSV":
                    port = 1 if self.wrong == "another port" else self._port
                    say("500 no" if self.wrong == "old" else f"229 ok (|||{port}|)")
                elif word == "PASV":
                    say(f"227 ok (10,9,9,9,{self._port // 256},{self._port % 256})")
                elif word == "STOR":
                    await self._store(name, say, writer)
                elif word == "RETR":
                    _, out = await self._data.get()
                    say("150 ok" if name in self.stored else "550 none")
                    out.write(self.stored.get(name, b"")[:: -1 if self.wrong == "other bytes" else 1])
                    out.close()
                    say("226 ok")
                elif word == "DELE":
                    say("250 ok" if self.stored.pop(name, None) is not None else "550 none")
                elif word == "RNFR":
                    old = name
                    say("350 go on")
                elif word == "RNTO":
                    if self.wrong == "no overwriting" and name in self.stored:
                        say("550 exists")
                    elif self.wrong == "no renaming" or (
                        self.wrong == "not there" and name == "fw.bin" and old != "fw.bin.was"
                    ):
                        say("553 not allowed")
                    elif self.wrong == "keeps the old":
                        say("250 ok")
                    else:
                        self.stored[name] = self.stored.pop(old)
                        if self.wrong == "reboots":
                            writer.transport.abort()
                            return
                        say("250 ok")
                elif word == "USER":
                    say("331 password")
                else:
                    say("200 ok")
        except (OSError, KeyError):
            pass
        finally:
            writer.close()

    async def _store(self, name: str, say: Callable[[str], None], writer: asyncio.StreamWriter) -> None:
        data, _ = await self._data.get()
        self.stores += 1
        say("150 ok")
        took = b""
        while piece := await data.read(1 << 20):
            took += piece
            if self.wrong == "drops at 99 %" and len(took) > len(DATA) * 99 // 100:
                writer.transport.abort()
                return
        self.stored[name] = took
        say("552 the disk is full" if self.wrong == "full" else "226 ok")


@pytest.mark.parametrize(
    ("wrong", "state", "has_old", "says"),
    [
        ("nothing", "sent", False, ""), ("old", "sent", False, ""), ("no overwriting", "sent", False, ""),
        ("full", "failed", True, "disk is full"), ("drops at 99 %", "failed", True, "still there"),
        ("other bytes", "failed", True, "another hash"), ("another port", "failed", True, "data port"),
        ("no renaming", "unknown", True, "not known"), ("not there", "unknown", True, "not known"),
        ("keeps the old", "unknown", True, "another hash"), ("reboots", "sent", False, "the asset has it"),
        ("endless", "failed", True, "without an end"),
    ],
)  # fmt: skip
def test_an_asset_that_does_wrong(file: Path, wrong: str, state: str, has_old: bool, says: str) -> None:
    asset = Odd(wrong)
    found = asyncio.run(asset.serve(lambda way: ftp.push(way, "pw", file, "fw.bin", len(DATA), SHA256, untold)))
    assert (found.state, says in found.detail) == (state, True), found
    assert (asset.stored.get("fw.bin") == b"old") is has_old
    assert asset.stores <= 1  # never a second blind write
    assert not has_old or asset.stored["fw.bin"] == b"old"
    assert "fw.bin.was" not in asset.stored


# --- TFTP -------------------------------------------------------------------------------------------------------------


class Tftpd:
    """Debian's tftpd-hpa over one folder."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.files = folder / "files"
        self.files.mkdir(parents=True)
        self.files.chmod(0o777)
        self.port = held_port()
        command = [TFTPD, "-4", "--foreground", "--address", f":{self.port}", "--create", "--user", "nobody",
                   "--secure", *options, str(self.files)]  # fmt: skip
        self.process = subprocess.Popen(command)

    def way(self, **changes: Any) -> Way:
        said: dict[str, Any] = {"port": self.port, "path": "{file}"}
        return Way(asset="a", address="127.0.0.1", rate=10**7, tftp=Tftp(**(said | changes)))

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(PATIENT)


@pytest.fixture(scope="module")
def tftpd() -> Iterator[Tftpd]:
    if not Path(TFTPD).exists() or os.geteuid() != 0:
        pytest.skip("tftpd-hpa, which takes root to start")
    with others_get_into() as folder:
        made = Tftpd(folder)
        yield made
        made.close()


def send(way: Way, file: Path, sha256: str = SHA256) -> Outcome:
    return asyncio.run(tftp.push(way, file, "fw.bin", len(DATA), sha256, untold))


def test_a_file_goes_by_tftp_and_is_read_back(tftpd: Tftpd, file: Path) -> None:
    assert send(tftpd.way(), file) == Outcome("sent")
    assert (tftpd.files / "fw.bin").read_bytes() == DATA
    assert "no hash" in send(tftpd.way(read_back=False), file).detail
    assert send(tftpd.way(), file, "ab" * 32).state == "unknown"  # it stands in its place already
    (tftpd.files / "fw.bin").chmod(0o600)


def test_tftp_of_lengths_around_a_block(tftpd: Tftpd, tmp_path: Path) -> None:
    for length in (0, 1, tftp.BLOCK - 1, tftp.BLOCK, tftp.BLOCK + 1, 3 * tftp.BLOCK):
        made = tmp_path / f"of-{length}"
        made.write_bytes(b"z" * length)
        digest = hashlib.sha256(b"z" * length).hexdigest()
        found = asyncio.run(tftp.push(tftpd.way(), made, made.name, length, digest, untold))
        assert found == Outcome("sent")
        assert (tftpd.files / made.name).read_bytes() == b"z" * length


class OddTftp(asyncio.DatagramProtocol):
    """An asset that speaks TFTP, without options, and does one thing wrong."""

    def __init__(self, wrong: str) -> None:
        self.wrong = wrong
        self.got = b""
        self.anew = 0
        """Requests to write that came once it was being written. (Before that one may come again, where no answer has
        come in time.)"""
        self.expected = 1

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, source: Any) -> None:
        code, body = int.from_bytes(data[:2], "big"), data[2:]
        if code == tftp.WRQ:
            self.anew += self.expected > 1
            if self.wrong == "refuses":
                self.transport.sendto(b"\0\5\0\3disk full\0", source)
                return
            self.transport.sendto(b"\0\4\0\0", source)
        elif code == tftp.DATA:
            number = int.from_bytes(body[:2], "big")
            if self.wrong == "falls silent" and number == 3:
                return
            if self.wrong == "full" and number == 3:
                self.transport.sendto(b"\0\5\0\3disk full\0", source)
                return
            if number == self.expected:
                self.got += body[2:]
                self.expected += 1
            if self.wrong == "acknowledges twice":
                self.transport.sendto(b"\0\4" + body[:2], source)
            self.transport.sendto(b"\0\4" + body[:2], source)


@pytest.mark.parametrize(
    ("wrong", "state", "says"),
    [
        ("nothing", "sent", "no hash"), ("acknowledges twice", "sent", "no hash"), ("refuses", "failed", "disk full"),
        ("full", "unknown", "disk full"), ("falls silent", "unknown", "does not answer"),
    ],
)  # fmt: skip
def test_an_asset_that_does_wrong_by_tftp(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str, state: str, says: str
) -> None:
    monkeypatch.setattr(tftp, "AGAIN_SECONDS", 0.1)
    made = tmp_path / "f"
    made.write_bytes(DATA[:5000])

    async def run() -> tuple[Outcome, OddTftp]:
        loop = asyncio.get_running_loop()
        transport, asset = await loop.create_datagram_endpoint(lambda: OddTftp(wrong), ("127.0.0.1", 0))
        said = Tftp(port=transport.get_extra_info("sockname")[1], path="{file}", read_back=False)
        way = Way(asset="a", address="127.0.0.1", rate=10**7, tftp=said)
        try:
            return await tftp.push(way, made, "f", 5000, SHA256, untold), asset
        finally:
            transport.close()

    found, asset = asyncio.run(run())
    assert (found.state, says in found.detail) == (state, True), found
    assert asset.got == DATA[:5000] or state != "sent"
    assert not asset.anew
