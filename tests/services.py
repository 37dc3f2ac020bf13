"""Services of other makers, the real ones, for tests: each is started once a session and lies in a folder of its own.

Not here: what a test does with one; clients.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.ports import held_port
from tests.waiting import PATIENT

_POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
POSTGRES_BIN = _POSTGRES[-1].parent if _POSTGRES else None
needs_postgres = pytest.mark.skipif(POSTGRES_BIN is None, reason="there is no PostgreSQL (Debian: postgresql)")
USER = "plant"


@dataclass(frozen=True)
class Postgres:
    """A running cluster: trusts `USER` from this machine."""

    port: int
    folder: Path

    def dsn(self, database: str = "postgres") -> str:
        """How a client gets there; without any name to resolve."""
        return f"hostaddr=127.0.0.1 port={self.port} user={USER} dbname={database} sslmode=disable"


def _unprivileged() -> pwd.struct_passwd | None:
    """Who runs a service that refuses to run as root; None: whoever runs the tests."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    return None


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
            ],
            stdout=said, stderr=said, **common,
        )  # fmt: skip
        try:
            _until_ready(process, folder, port, log)
            yield Postgres(port, folder)
        finally:
            process.terminate()
            try:
                process.wait(PATIENT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            shutil.rmtree(folder, ignore_errors=True)


def _until_ready(process: subprocess.Popen[bytes], folder: Path, port: int, log: Path) -> None:
    assert POSTGRES_BIN is not None
    deadline = time.monotonic() + PATIENT
    while True:
        asked = [str(POSTGRES_BIN / "pg_isready"), "-q", "-h", str(folder), "-p", str(port), "-d", "postgres"]
        if subprocess.run([*asked, "-U", USER], check=False, capture_output=True).returncode == 0:
            return
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
