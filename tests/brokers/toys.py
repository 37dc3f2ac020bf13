"""Small brokers for tests, of one part each: what libraries do in an asyncio part, under the real filter.

Each part does one thing with one library, by command or for whoever connects. Their processes are real ones, started
as the gate starts them; what they import after the filter is on is told on stderr.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Collection, Coroutine, Iterator
from pathlib import Path
from typing import Any

import msgspec

from cofferdam.brokers.broker import Asked, Broker, Part, Setting
from cofferdam.brokers.kit import aio, tls
from cofferdam.brokers.kit.supervision import Command, CommandDone, Configure, Listener, Ready, Secret, Stop
from cofferdam.brokers.registry import BROKERS
from cofferdam.enforce.profile import Can, Crew, Profile
from cofferdam.policy.table import CompiledPolicy
from tests.brokers.harness import WATCH, Auditor, PartChild, listen, make_policy
from tests.waiting import PATIENT

ROOT = Path(__file__).parent.parent.parent
START = f"""
import sys
sys.path[:0] = {[str(ROOT), *(path for path in sys.path if "site-packages" in path)]!r}
from tests.brokers import toys
toys.register()
"""


class Toy(Part):
    """A part whose commands are methods: `ask_VERB`, a coroutine function."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.setting = setting
        assert setting.start is not None
        self.start: Callable[[Coroutine[Any, Any, None]], None] = setting.start

    def on_record(self, source: str, record: Any) -> None:
        """There is no other part."""

    def take_policy(self, policy: CompiledPolicy, assets: tuple[str, ...]) -> int:
        return 0

    def set_severed(self, sides: Collection[str]) -> None:
        """Nothing to cut off."""

    def command(self, asked: Asked) -> None:
        self.start(self._answer(asked))

    async def _answer(self, asked: Asked) -> None:
        asked.answer(await getattr(self, f"ask_{asked.verb}")(asked.decode(dict[str, Any])))

    async def ask_fail(self, said: dict[str, Any]) -> None:
        """Fails where nobody catches it."""
        if said["where"] == "call-back":
            asyncio.get_running_loop().call_soon(lambda: 1 // 0)
        elif said["where"] == "task":
            raise ZeroDivisionError
        elif said["where"] == "thrown away":
            asyncio.get_running_loop().create_task(_fail())  # nobody keeps it, nobody awaits it
            await asyncio.sleep(0.05)

    async def ask_break_out(self, said: dict[str, Any]) -> None:
        """A system call that no profile has."""
        socket.socketpair()


async def _fail() -> None:
    raise ZeroDivisionError


# --- HTTP -------------------------------------------------------------------------------------------------------


class Web(Toy):
    """Starlette behind uvicorn's protocol class, by TLS where it has a certificate."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        import uvicorn
        from starlette.applications import Starlette
        from starlette.requests import Request
        from starlette.responses import PlainTextResponse, Response
        from starlette.routing import Route
        from uvicorn.protocols.http.h11_impl import H11Protocol
        from uvicorn.server import ServerState

        async def hello(request: Request) -> Response:
            return PlainTextResponse(f"hello {request.client.host if request.client else '?'}")

        async def echo(request: Request) -> Response:
            return Response(await request.body())

        async def bug(request: Request) -> Response:
            raise ZeroDivisionError

        routes = [Route("/", hello), Route("/echo", echo, methods=["POST"]), Route("/bug", bug)]
        config = uvicorn.Config(
            Starlette(routes=routes), http="h11", ws="none", lifespan="off", log_config=None, access_log=False,
            server_header=False,
        )  # fmt: skip
        config.load()
        logging.getLogger("uvicorn").disabled = True  # a client must not be able to fill the log
        logging.getLogger("uvicorn.error").disabled = True
        state = ServerState()
        self.places = aio.Places(8, 6)
        self.make: Callable[[], asyncio.Protocol] = lambda: H11Protocol(config, state, {})
        self.context = None
        if "certificate" in setting.secrets:
            self.context = tls.server_context(setting.secrets["certificate"], setting.secrets["key"])

    def accept_socket(self, sock: socket.socket, source: str, port: int, local: tuple[str, int]) -> None:
        limit = self.places.take(sock, source)
        if limit:
            self.limit_hits[limit] = self.limit_hits.get(limit, 0) + 1
        else:
            self.start(self.serve(sock))

    async def serve(self, sock: socket.socket) -> None:
        try:
            await aio.serve(sock, self.make, self.context, handshake_seconds=5)
        except OSError:
            self.malformed += 1


# --- SSH --------------------------------------------------------------------------------------------------------


class SshServer(Toy):
    """A server that lets one key in and answers every command with what it was."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        import asyncssh

        async def session(process: Any) -> None:
            text = await process.stdin.read()
            process.stdout.write(f"{process.command}: {len(text)} characters\n")
            process.exit(3)

        self.asyncssh = asyncssh
        self.options: dict[str, Any] = {
            "server_host_keys": [asyncssh.import_private_key(setting.secrets["host-key"].decode())],
            "authorized_client_keys": asyncssh.import_authorized_keys(setting.secrets["client"].decode()),
            "process_factory": session,
            "config": None,
            "gss_host": None,  # else it asks for this machine's own name
        }

    def accept_socket(self, sock: socket.socket, source: str, port: int, local: tuple[str, int]) -> None:
        self.start(self.serve(sock))

    async def serve(self, sock: socket.socket) -> None:
        try:
            await self.asyncssh.run_server(sock, **self.options)
        except (OSError, self.asyncssh.Error):
            self.malformed += 1


class SshClient(Toy):
    """Runs a command elsewhere."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        import asyncssh

        os.environ["LOGNAME"] = "part"  # else it asks the user database, which is a file
        self.asyncssh = asyncssh
        self.key = asyncssh.import_private_key(setting.secrets["client-key"].decode())
        self.known = asyncssh.import_known_hosts(setting.secrets["known-hosts"].decode())

    async def ask_run(self, said: dict[str, Any]) -> dict[str, Any]:
        async with self.asyncssh.connect(
            said["host"], said["port"], username="plant", client_keys=[self.key], known_hosts=self.known, config=None,
            agent_path=None, x509_trusted_certs=None, x509_trusted_cert_paths=None, gss_host=None,
        ) as connection:  # fmt: skip
            done = await connection.run(said["command"], input="abc")
            return {"out": done.stdout, "status": done.exit_status}


# --- databases --------------------------------------------------------------------------------------------------


class PostgresClient(Toy):
    """Asks a real PostgreSQL."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        import psycopg

        self.psycopg = psycopg

    async def ask_book(self, said: dict[str, Any]) -> list[list[Any]]:
        async with (
            await self.psycopg.AsyncConnection.connect(said["dsn"]) as connection,
            connection.cursor() as cursor,
        ):
            await cursor.execute("create table booked (id bigint primary key, what text, at timestamptz, n numeric)")
            async with connection.transaction():
                for number in range(said["count"]):
                    await cursor.execute("insert into booked values (%s, %s, now(), 1.5)", (number, f"line {number}"))
            await cursor.execute("select count(*), max(what), sum(n)::float from booked")
            found: list[list[Any]] = [list(row) for row in await cursor.fetchall()]
            return found


class Store(Toy):
    """SQLite as the relay's keeper has it, and DuckDB as the mirror's."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        assert setting.store is not None
        self.store = setting.store
        import duckdb

        # Made before the filter: it looks into /proc for limits on memory.
        self.series = duckdb.connect(
            ":memory:", config={"threads": 1, "temp_directory": str(self.store), "autoinstall_known_extensions": False}
        )

    async def ask_sqlite(self, said: dict[str, Any]) -> dict[str, Any]:
        with contextlib.closing(sqlite3.connect(self.store / "queue.db", isolation_level=None)) as ledger:
            mode = ledger.execute("pragma journal_mode=wal").fetchone()[0]
            ledger.execute("pragma synchronous=full")
            ledger.execute("create table if not exists messages (id integer primary key, body blob)")
            for number in range(said["count"]):
                ledger.execute("begin immediate")
                ledger.execute("insert into messages (body) values (?)", (b"x" * number,))
                ledger.execute("commit")
            ledger.execute("pragma wal_checkpoint(truncate)")
            count = ledger.execute("select count(*) from messages").fetchone()[0]
            return {"mode": mode, "count": count, "sync": ledger.execute("pragma synchronous").fetchone()[0]}

    async def ask_duckdb(self, said: dict[str, Any]) -> dict[str, Any]:
        file, rows = self.store / "t.parquet", int(said["rows"])
        self.series.execute(f"attach '{self.store / 'series.duckdb'}' as kept")
        self.series.execute(f"create table kept.t as select i as n, i * 1.5::double as v from range({rows}) r(i)")
        self.series.execute(f"copy kept.t to '{file}' (format parquet)")
        self.series.execute("detach kept")
        found = self.series.execute(f"select count(*), sum(v) from read_parquet('{file}')").fetchone()
        assert found is not None
        return {"count": found[0], "sum": found[1]}


# --- declarations and processes ---------------------------------------------------------------------------------

_SSH = ("encodings.idna",)
_CLIENT = Can.DIAL_TCP | Can.STREAM | Can.KEEPALIVE
TOYS: dict[str, tuple[type[Toy], Can, tuple[str, ...]]] = {
    "web": (Web, Can.ACCEPT | Can.STREAM, ()),
    "ssh-server": (SshServer, Can.ACCEPT | Can.STREAM | Can.KEEPALIVE, _SSH),
    "ssh-client": (SshClient, _CLIENT, _SSH),
    "postgres": (PostgresClient, _CLIENT, ()),
    "store": (Store, Can.STORE, ()),
}


def _broker(word: str) -> Broker:
    made, can, preload = TOYS[word]
    profile = Profile(
        f"{word}/part", stands="outer", can=can, runtime="asyncio", preload=preload, store=Can.STORE in can
    )
    return Broker(word, Crew(word, {"part": profile}), {"part": f"tests.brokers.toys:{made.__name__}"}, {})


def register() -> None:
    """In the process of a toy: has its registry know the toys too."""
    for word in TOYS:
        BROKERS._make[word] = lambda word=word: _broker(word)  # type: ignore[attr-defined]


@contextlib.contextmanager
def running(
    word: str, *, secrets: dict[str, bytes] | None = None, store: Path | None = None, late: bool = False
) -> Iterator[RunningToy]:
    """A toy's process, ready; with a `late` auditor it is not yet."""
    listener = listen()
    toy = RunningToy(word, listener, secrets or {}, store, late=late)
    listener.close()
    try:
        yield toy
    finally:
        toy.close()


class RunningToy:
    """A toy, and the port at which it may be reached."""

    def __init__(
        self, word: str, listener: socket.socket, secrets: dict[str, bytes], store: Path | None, *, late: bool = False
    ) -> None:
        self.auditor = Auditor(late=late)
        self.number = 0
        self.port = int(listener.getsockname()[1])
        self.child = PartChild(word, "part", self.auditor, {}, {}, ("-c", WATCH, START))
        self.auditor.start()
        self.said = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the toy
        self.child.start([listener], self.said)
        policy = make_policy(device_port=1, port=2)
        accepts = Can.ACCEPT in TOYS[word][1]
        self.child.send(
            Configure(
                crew="toy",
                part="part",
                broker=word,
                source_zones=("enterprise",),
                target_zone="control",
                boot="t",
                policy=policy.to_bytes(),
                listeners=(Listener(listener.fileno(), "127.0.0.1", self.port),) if accepts else (),
                store=str(store) if store is not None else "",
                secrets=tuple(Secret(name, value) for name, value in secrets.items()),
            )
        )
        if not late:
            self.ready: Ready = self.child.wait_for(Ready)

    def ask(self, verb: str, **arguments: Any) -> Any:
        """Has the toy do something."""
        self.number += 1
        self.child.send(Command(self.number, verb, msgspec.json.encode(arguments)))
        done: CommandDone = self.child.wait_for(CommandDone)
        assert done.number == self.number and not done.error, done
        return msgspec.json.decode(done.result)

    def stderr(self) -> str:
        """What the process has written there so far."""
        self.said.seek(0)
        return self.said.read().decode()

    def stop(self) -> int:
        """Ends it in order. Returns its exit code."""
        self.child.send(Stop(1.0))
        assert self.child.process is not None
        return self.child.process.wait(PATIENT)

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.child.send(Stop(1.0))
        self.child.close()
        self.auditor.stop()
        self.said.close()
