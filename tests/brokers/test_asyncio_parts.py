"""Parts that run on asyncio, with the libraries that they are for, under the real filter, with real clients."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import threading
from pathlib import Path
from typing import Any

import asyncssh
import httpx
import pytest

from cofferdam.brokers.kit.supervision import Command, Failing, Ready
from tests.brokers.harness import LATE
from tests.brokers.relay.certificates import make
from tests.brokers.toys import RunningToy, running
from tests.services import Postgres, needs_postgres
from tests.waiting import PATIENT, eventually

AUTHORITY = make("tests", ca=True)
SERVER = make("web.test", by=AUTHORITY)


def _command(verb: str, arguments: str) -> Command:
    return Command(1, verb, arguments.encode())


def ends_well(toy: RunningToy) -> None:
    """It is still there, says so, ends in order, and imported nothing after its filter was on."""
    toy.child.status()
    assert toy.stop() == 0
    assert toy.stderr() == ""


def test_the_filter_is_on() -> None:
    with running("web") as toy:
        assert all(in_force for _, in_force, _ in toy.ready.facts), toy.ready.facts
        ends_well(toy)


# --- HTTP -------------------------------------------------------------------------------------------------------


def test_who_comes_before_the_auditor_has_answered_waits_for_it() -> None:
    with running("web", late=True) as toy, socket.create_connection(("127.0.0.1", toy.port)) as client:
        client.settimeout(PATIENT)
        client.sendall(b"GET / HTTP/1.1\r\nHost: toy\r\nConnection: close\r\n\r\n")
        assert not toy.child.said_ready()
        toy.auditor.greet()
        toy.child.wait_for(Ready)
        assert b" 200 " in client.recv(4096)
        client.close()
        ends_well(toy)


def test_plain_http() -> None:
    with (
        running("web") as toy,
        httpx.Client(base_url=f"http://127.0.0.1:{toy.port}", trust_env=False, timeout=PATIENT) as client,
    ):
        for _ in range(3):
            assert client.get("/").text == "hello 127.0.0.1"
        body = os.urandom(300_000)
        assert client.post("/echo", content=body).content == body
        assert client.get("/nothing").status_code == 404
        client.close()
        ends_well(toy)


@pytest.fixture
def trusting(tmp_path: Path) -> Path:
    """A file with the certificate that signed the server's."""
    file = tmp_path / "ca.pem"
    file.write_bytes(AUTHORITY.pem)
    return file


def test_tls_with_httpx_and_curl(trusting: Path) -> None:
    context = ssl.create_default_context(cafile=str(trusting))
    with running("web", secrets={"certificate": SERVER.pem, "key": SERVER.key}) as toy:
        url = f"https://127.0.0.1:{toy.port}"
        with httpx.Client(base_url=url, verify=context, trust_env=False, timeout=PATIENT) as client:
            body = os.urandom(300_000)
            for _ in range(3):
                assert client.get("/").text == "hello 127.0.0.1"
                assert client.post("/echo", content=body).content == body
        if shutil.which("curl"):
            asked = ["curl", "-sS", "--noproxy", "*", "--cacert", str(trusting), url]
            assert subprocess.run(asked, capture_output=True, text=True, check=True).stdout == "hello 127.0.0.1"
        ends_well(toy)


def test_a_client_that_breaks_tls_or_http_ends_nobody_else(trusting: Path) -> None:
    context = ssl.create_default_context(cafile=str(trusting))
    with running("web", secrets={"certificate": SERVER.pem, "key": SERVER.key}) as toy:
        for nonsense in (b"GET / HTTP/1.1\r\n\r\n", os.urandom(600), b"\x16\x03\x01\x00\x05hello", b""):
            with socket.create_connection(("127.0.0.1", toy.port)) as sock:
                sock.settimeout(PATIENT)
                with contextlib.suppress(OSError):  # the other end may have gone by then
                    sock.sendall(nonsense)
                    sock.shutdown(socket.SHUT_WR)
                with contextlib.suppress(ConnectionError):
                    while sock.recv(4096):
                        pass
        with (
            socket.create_connection(("127.0.0.1", toy.port)) as raw,
            context.wrap_socket(raw, server_hostname="web.test") as sock,
        ):
            sock.sendall(b"\x00\xff nonsense\r\n\r\n")
            assert b"400" in sock.recv(4096)
        eventually(lambda: toy.child.status().malformed == 4)
        with httpx.Client(verify=context, trust_env=False, timeout=PATIENT) as client:
            assert client.get(f"https://127.0.0.1:{toy.port}/").status_code == 200
        ends_well(toy)


def test_a_bug_in_a_request_is_that_requests_and_a_500() -> None:
    with running("web") as toy:
        assert httpx.get(f"http://127.0.0.1:{toy.port}/bug", trust_env=False, timeout=PATIENT).status_code == 500
        assert httpx.get(f"http://127.0.0.1:{toy.port}/", trust_env=False, timeout=PATIENT).status_code == 200
        ends_well(toy)


def test_connections_are_bounded_and_counted_by_their_sockets() -> None:
    with running("web") as toy:
        held = [socket.create_connection(("127.0.0.1", toy.port)) for _ in range(6)]
        eventually(lambda: _answers(held[-1]))
        beyond = socket.create_connection(("127.0.0.1", toy.port))
        beyond.settimeout(PATIENT)
        assert beyond.recv(1) == b""
        assert toy.child.status().limits == {"client_connections_per_address": 1}
        for sock in (*held, beyond):
            sock.close()
        eventually(lambda: _lets_in(toy.port))


def _answers(sock: socket.socket) -> bool:
    sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    sock.settimeout(PATIENT)
    return b"200" in sock.recv(4096)


def _lets_in(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port)) as sock:
        try:
            return _answers(sock)
        except OSError:
            return False


# --- SSH --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def keys() -> dict[str, asyncssh.SSHKey]:
    return {name: asyncssh.generate_private_key("ssh-ed25519") for name in ("host", "client", "stranger")}


def _public(key: asyncssh.SSHKey) -> bytes:
    return key.export_public_key()


@pytest.mark.skipif(not shutil.which("ssh"), reason="there is no ssh client (Debian: openssh-client)")
def test_an_ssh_server_with_the_real_ssh(tmp_path: Path, keys: dict[str, asyncssh.SSHKey]) -> None:
    for name in ("client", "stranger"):
        (tmp_path / name).touch(0o600)
        keys[name].write_private_key(tmp_path / name)
    secrets = {"host-key": keys["host"].export_private_key(), "client": _public(keys["client"])}
    with running("ssh-server", secrets=secrets) as toy:
        known = tmp_path / "known"
        known.write_bytes(f"[127.0.0.1]:{toy.port} ".encode() + _public(keys["host"]))

        def ssh(key: str) -> subprocess.CompletedProcess[str]:
            options = [f"UserKnownHostsFile={known}", "BatchMode=yes", "IdentitiesOnly=yes", "ServerAliveInterval=5"]
            command = ["ssh", "-F", "none", "-i", str(tmp_path / key), "-p", str(toy.port)]
            for option in options:
                command += ["-o", option]
            return subprocess.run(
                [*command, "plant@127.0.0.1", "show valve 7"], input="x" * 70_000, capture_output=True, text=True,
                check=False,
            )  # fmt: skip

        done = ssh("client")
        assert (done.stdout, done.returncode) == ("show valve 7: 70000 characters\n", 3), done.stderr
        assert "Permission denied" in ssh("stranger").stderr
        assert ssh("client").returncode == 3
        ends_well(toy)


class _Sshd(threading.Thread):
    """A server elsewhere, for a client part."""

    def __init__(self, keys: dict[str, asyncssh.SSHKey]) -> None:
        super().__init__(daemon=True)
        self._keys = keys
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self.port = 0

    def run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.run_forever()
        self._server.close()
        self._loop.run_until_complete(self._server.wait_closed())
        self._loop.close()

    async def _serve(self) -> None:
        async def session(process: Any) -> None:
            process.stdout.write(f"{process.command}: {await process.stdin.read()}")
            process.exit(4)

        self._server = await asyncssh.listen(
            "127.0.0.1", 0, server_host_keys=[self._keys["host"]], process_factory=session,
            authorized_client_keys=asyncssh.import_authorized_keys(_public(self._keys["client"]).decode()),
        )  # fmt: skip
        self.port = self._server.get_port()
        self._ready.set()

    def __enter__(self) -> _Sshd:
        self.start()
        assert self._ready.wait(PATIENT)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self.join()


def test_an_ssh_client_part(keys: dict[str, asyncssh.SSHKey]) -> None:
    with _Sshd(keys) as server:
        known = f"[127.0.0.1]:{server.port} ".encode() + _public(keys["host"])
        secrets = {"client-key": keys["client"].export_private_key(), "known-hosts": known}
        with running("ssh-client", secrets=secrets) as toy:
            for _ in range(2):
                said = toy.ask("run", host="127.0.0.1", port=server.port, command="show valve 7")
                assert said == {"out": "show valve 7: abc", "status": 4}
            ends_well(toy)


# --- databases --------------------------------------------------------------------------------------------------


@needs_postgres
def test_postgresql_with_psycopg(postgres_server: Postgres) -> None:
    with running("postgres") as toy:
        assert toy.ask("book", dsn=postgres_server.dsn(), count=50) == [[50, "line 9", 75.0]]
        ends_well(toy)


def test_sqlite_with_every_commit_on_disk(tmp_path: Path) -> None:
    with running("store", store=tmp_path) as toy:
        assert toy.ask("sqlite", count=100) == {"mode": "wal", "count": 100, "sync": 2}
        ends_well(toy)
    with running("store", store=tmp_path) as toy:
        assert toy.ask("sqlite", count=1)["count"] == 101


def test_duckdb_in_a_store(tmp_path: Path) -> None:
    with running("store", store=tmp_path) as toy:
        assert toy.ask("duckdb", rows=10_000) == {"count": 10_000, "sum": sum(range(10_000)) * 1.5}
        ends_well(toy)


# --- what goes wrong --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["call-back", "task", "thrown away"])
def test_what_nobody_catches_ends_the_process(where: str) -> None:
    """asyncio by itself would log it and go on."""
    with running("web") as toy:
        toy.child.send(_command("fail", f'{{"where": "{where}"}}'))
        assert "ZeroDivisionError" in toy.child.wait_for(Failing).reason
        assert toy.child.process is not None
        assert toy.child.process.wait(PATIENT) == 5


def test_a_system_call_outside_the_profile_ends_the_process() -> None:
    with running("web") as toy:
        toy.child.send(_command("break_out", "{}"))
        assert toy.child.process is not None
        assert toy.child.process.wait(PATIENT) == -signal.SIGSYS


def test_a_name_is_not_resolved() -> None:
    with running("postgres") as toy:
        toy.child.send(_command("book", '{"dsn": "host=database.plant.example user=x", "count": 1}'))
        reason = toy.child.wait_for(Failing).reason
        assert "names are not resolved here" in reason or "resolve" in reason
        assert LATE not in toy.stderr()
