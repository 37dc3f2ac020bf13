"""What vendors, approvers and plants have, made by their real tools: gpg, osslsigncode, minisign, ssh-keygen, clamd,
OpenSSH's server."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import os
import shutil
import socket as socketlib
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from cofferdam.brokers.patch.outcome import Progress
from tests.ports import held_port
from tests.waiting import PATIENT, eventually


def run(*command: str | Path, data: bytes = b"", **options: str) -> bytes:
    done = subprocess.run(
        list(map(str, command)), input=data, capture_output=True, timeout=PATIENT, env={**os.environ, **options}
    )
    assert done.returncode == 0, done.stderr.decode("utf-8", "replace") + done.stdout.decode("utf-8", "replace")
    return done.stdout


async def untold(_count: int) -> None:
    """For a push whose progress nobody asks for."""


def counting(counted: list[int]) -> Progress:
    """For one whose progress is looked at."""

    async def count(some: int) -> None:
        counted.append(some)

    return count


class Gpg:
    """A vendor's OpenPGP key."""

    def __init__(self, folder: Path, *how: str, name: str = "Vendor <sign@vendor.example>") -> None:
        self.home = folder
        folder.mkdir(mode=0o700)
        self._gpg(*how, "--quick-generate-key", name, "ed25519", "sign", "1y")

    def _gpg(self, *words: str, data: bytes = b"") -> bytes:
        return run("gpg", "--batch", "--quiet", "--passphrase", "", "--pinentry-mode", "loopback", *words, data=data,
                   GNUPGHOME=str(self.home))  # fmt: skip

    def public(self) -> bytes:
        return self._gpg("--armor", "--export")

    def sign(self, data: bytes, *how: str) -> bytes:
        return self._gpg(*how, "--armor", "--detach-sign", data=data)

    def revoke(self) -> None:
        """Its key, by the certificate that gpg has made for that."""
        (made,) = (self.home / "openpgp-revocs.d").glob("*.rev")
        text = made.read_bytes()
        self._gpg("--import", data=text[text.index(b":-----BEGIN") + 1 :])

    def close(self) -> None:
        run("gpgconf", "--kill", "all", GNUPGHOME=str(self.home))


def ssh_key(folder: Path, name: str) -> Path:
    """A person's key: NAME and NAME.pub."""
    key = folder / name
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", key)
    return key


class Publisher:
    """An authority and a publisher's certificate under it, by openssl."""

    def __init__(self, folder: Path, *, usage: str = "codeSigning", name: str = "Vendor Ltd", days: int = 365) -> None:
        folder.mkdir()
        self.ca, self.key, self.cert = folder / "ca.pem", folder / "key.pem", folder / "cert.pem"
        run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", folder / "ca.key", "-out", self.ca,
            "-subj", "/CN=Vendor CA", "-days", "3650", "-addext", "basicConstraints=critical,CA:TRUE",
            "-addext", "keyUsage=critical,keyCertSign")  # fmt: skip
        run("openssl", "req", "-newkey", "rsa:2048", "-nodes", "-keyout", self.key, "-out", folder / "csr",
            "-subj", f"/O=Vendor/CN={name}")  # fmt: skip
        extensions = folder / "ext"
        extensions.write_text(f"keyUsage=critical,digitalSignature\nextendedKeyUsage={usage}\n")
        run("openssl", "x509", "-req", "-in", folder / "csr", "-CA", self.ca, "-CAkey", folder / "ca.key",
            "-CAcreateserial", "-days", str(days), "-out", self.cert, "-extfile", extensions)  # fmt: skip

    def sign(self, file: Path, out: Path, *more: str) -> Path:
        run("osslsigncode", "sign", "-certs", self.cert, "-key", self.key, "-h", "sha256", *more, "-in", file,
            "-out", out)  # fmt: skip
        return out

    def holds(self, file: Path) -> bool:
        """Whether osslsigncode finds its signature good."""
        command = ["osslsigncode", "verify", "-CAfile", str(self.ca), "-in", str(file)]
        return subprocess.run(command, capture_output=True, timeout=PATIENT).returncode == 0


def a_program(folder: Path) -> Path:
    """A PE file: a launcher of distlib or setuptools, as pip and uv bring them, or one of our own making."""
    for name in ("distlib", "setuptools", "pip"):
        try:
            files = importlib.metadata.files(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        found = next((each for each in files if each.name in ("t64.exe", "cli-64.exe")), None)
        if found is not None and Path(str(found.locate())).is_file():
            return Path(str(found.locate()))
    pytest.skip("no PE file at hand")


def a_package(folder: Path, payload: bytes) -> Path:
    """An installer package, by wixl."""
    (folder / "fw.bin").write_bytes(payload)
    (folder / "fw.wxs").write_text(
        """<?xml version="1.0"?><Wix xmlns="http://schemas.microsoft.com/wix/2006/wi">
        <Product Id="*" UpgradeCode="12345678-1234-1234-1234-111111111111" Name="Fw" Version="1.0.0"
         Manufacturer="Vendor" Language="1033"><Package InstallerVersion="200" Compressed="yes"/>
        <Media Id="1" Cabinet="c.cab" EmbedCab="yes"/><Directory Id="TARGETDIR" Name="SourceDir">
        <Directory Id="D" Name="D"><Component Id="C" Guid="12345678-1234-1234-1234-222222222222">
        <File Id="F" Source="fw.bin"/></Component></Directory></Directory>
        <Feature Id="X" Level="1"><ComponentRef Id="C"/></Feature></Product></Wix>"""
    )
    subprocess.run(["wixl", "-o", "fw.msi", "fw.wxs"], cwd=folder, check=True, capture_output=True, timeout=PATIENT)
    return folder / "fw.msi"


def a_cabinet(folder: Path, payload: bytes) -> Path:
    """A cabinet, by gcab."""
    (folder / "fw.bin").write_bytes(payload)
    subprocess.run(["gcab", "-c", "fw.cab", "fw.bin"], cwd=folder, check=True, capture_output=True, timeout=PATIENT)
    return folder / "fw.cab"


HAS_PUBLISHERS = all(map(shutil.which, ("osslsigncode", "wixl", "gcab")))


EICAR = (r"X5O!P%@AP[4\PZX54(P^)7CC)7}$" + "EICAR-STANDARD-" + "ANTIVIRUS-TEST-FILE!$H+H*").encode()
HAS_CLAMD = shutil.which("clamd") is not None


def answers(at: Path) -> bool:
    """Whether somebody listens there: the socket is there before that."""
    with socketlib.socket(socketlib.AF_UNIX) as sock:
        return sock.connect_ex(str(at)) == 0


@contextlib.contextmanager
def clamd(folder: Path, *more: str) -> Iterator[Path]:
    """Debian's clamd with a base of one signature; its socket. As strict as ClamAV's own base: the test file is the one
    of 68 bytes, and none that has it within."""
    base = folder / "base"
    base.mkdir(parents=True)
    (base / "test.hdb").write_text(f"{hashlib.md5(EICAR, usedforsecurity=False).hexdigest()}:{len(EICAR)}:Test.Eicar\n")
    socket = folder / "clamd.ctl"
    config = folder / "clamd.conf"
    lines = [f"LocalSocket {socket}", "LocalSocketMode 666", f"DatabaseDirectory {base}", "Foreground yes",
             f"LogFile {folder}/clamd.log", "AlertExceedsMax yes", f"TemporaryDirectory {folder}", *more]  # fmt: skip
    if "AlertExceedsMax no" in more:
        lines.remove("AlertExceedsMax yes")
    config.write_text("\n".join([*lines, ""]))
    process = subprocess.Popen(["clamd", "-c", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: answers(socket) or process.poll() is not None, PATIENT)
        assert process.poll() is None, (folder / "clamd.log").read_text()
        yield socket
    finally:
        process.terminate()
        process.wait(PATIENT)


def listening(port: int) -> None:
    """Waits until somebody listens there."""

    def there() -> bool:
        with socketlib.socket() as sock:
            return sock.connect_ex(("127.0.0.1", port)) == 0

    eventually(there)


class Sshd:
    """An asset with OpenSSH's SFTP: its files are in `files`."""

    def __init__(
        self, folder: Path, authorized: Path, port: int = 0, *, address: str = "127.0.0.1", start: bool = True
    ) -> None:
        folder.mkdir(parents=True)
        self.files = folder / "files"
        self.files.mkdir()
        self.port = port or held_port()
        self.host = ssh_key(folder, "host")
        keys = folder / "authorized"
        keys.write_text(authorized.read_text())
        keys.chmod(0o600)
        self.config = folder / "sshd_config"
        self.config.write_text(
            textwrap.dedent(f"""
            ListenAddress {address}
            Port {self.port}
            HostKey {self.host}
            AuthorizedKeysFile {keys}
            PidFile none
            UsePAM no
            StrictModes no
            PasswordAuthentication no
            Subsystem sftp internal-sftp -d {self.files}
        """)
        )
        self.log = folder / "log"
        self.process: subprocess.Popen[bytes] | None = None
        if start:
            self.start()

    @property
    def host_key(self) -> str:
        return " ".join(self.host.with_suffix(".pub").read_text().split()[:2])

    def start(self, *within: str) -> None:
        """`within`: a command that it is started by."""
        Path("/run/sshd").mkdir(exist_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([*within, "/usr/sbin/sshd", "-D", "-e", "-f", str(self.config)], stderr=log)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(PATIENT)
            self.process = None
