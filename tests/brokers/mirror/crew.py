"""A mirror's crew as the gate starts it: four real processes with pipes between them, under the real filter; and a real
PostgreSQL as the historian."""

from __future__ import annotations

import contextlib
import socket
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psycopg

from cofferdam.brokers.kit.http.keys import Key, Secrets, new_key, write_secrets
from cofferdam.brokers.kit.supervision import Command, CommandDone, Configure, Listener, NewPolicy, Ready, Secret, Stop
from cofferdam.crossing.pipe import make_pipe
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import loads
from cofferdam.policy.table import CompiledPolicy, to_bytes
from cofferdam.policy.terms.base import Scope
from cofferdam.policy.terms.kinds import KINDS
from tests import services
from tests.brokers.harness import WATCHED, Auditor, PartChild, impatient, tell_to_stop
from tests.services import Postgres
from tests.waiting import PATIENT, eventually

OFFICE = "127.0.0.1"
PASSWORD = "three words and 1"
POLICY = """
site: works
zones:
  office: {{side: it, level: 4}}
  plant: {{side: ot, level: 2}}
principals:
  bi: {{zone: office, addresses: [127.0.0.1]}}
  lake: {{zone: office, addresses: [127.0.0.1]}}
  coarse: {{zone: office, addresses: [127.0.0.1]}}
  far: {{zone: office, addresses: [127.0.0.9]}}
{assets}
conduits:
  history:
    from: plant
    to: office
    broker: mirror
    owner: data
    reason: reports
    sources:
      historian:
        at: "127.0.0.1:{historian}"
        database: {database}
        role: mirror
        plain: true
        table: samples
        quality: quality
        every: 200 ms
        since: 90 days
        {source}
      {more}
    mirror: {{nightly: false{mirror}}}
    listen:
      office: {{at: "127.0.0.1:{port}", plain: true}}
    allow:
      - {{who: bi, read: [flow_*, tank]}}
      - {{who: lake, read: all, sql: true}}
      - {{who: coarse, read: [flow_*], resolution: 1 min}}
      - {{who: far, read: all}}
limits: {{audit_wait_seconds: 60}}
"""
PARTS = ("keeper", "spooler", "collector", "reader")
PRINCIPALS = ("bi", "lake", "coarse", "far")
FILES, LOADER, PUBLISHER = "files", "loader", "publisher"
"""Parts that are there where a source is a folder, and where history is copied into a database."""
PIPES = tuple((a, b) for one, other in (("collector", "spooler"), (FILES, "spooler"), ("spooler", "keeper"))
              for a, b in ((one, other), (other, one)))  # fmt: skip


class Plant:
    """A historian: a table of samples in a database of its own."""

    def __init__(self, made: Postgres, *options: str) -> None:
        self.made = made
        self._dsn = made.fresh(*options)
        self.database = self._dsn.split("dbname=")[1].split()[0]
        self.again()
        self.conn.execute("create table samples(tag text, time timestamptz, value float8, quality bigint default 192)")
        with contextlib.suppress(psycopg.errors.DuplicateObject):
            self.conn.execute(f"create role mirror login password '{PASSWORD}'")
        self.conn.execute("grant select on samples to mirror")

    def again(self) -> None:
        """Connects anew."""
        self.conn = psycopg.connect(self._dsn, autocommit=True)

    def add(self, rows: list[tuple[str, float, float | None, int]]) -> None:
        """(tag, seconds since 1970, value, quality)"""
        with self.conn.cursor() as cursor, cursor.copy("copy samples(tag, time, value, quality) from stdin") as copy:
            for tag, at, value, quality in rows:
                moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(int(at))) + f".{int(at % 1 * 1e6):06d}Z"
                copy.write_row((tag, moment, value, quality))

    def count(self) -> int:
        row = self.conn.execute("select count(distinct (tag, time)) from samples").fetchone()
        assert row is not None
        return int(row[0])


@contextlib.contextmanager
def historian() -> Iterator[Postgres]:
    """A cluster that lets the mirror's role in by SCRAM alone."""
    with services.postgres() as made:
        (made.folder / "data" / "pg_hba.conf").write_text(
            f"local all all trust\nhost all,replication {services.USER} 127.0.0.1/32 trust\n"
            "host all all all scram-sha-256\n"
        )
        with psycopg.connect(made.dsn(), autocommit=True) as conn:
            conn.execute("select pg_reload_conf()")
        yield made


@dataclass
class RunningCrew:
    """A crew that runs. `keys`: principal -> the text of its key."""

    auditor: Auditor
    stores: Path
    plant: Plant | None
    options: dict[str, str]
    listener: socket.socket
    keys: dict[str, str]
    rows: dict[str, Key]
    children: dict[str, PartChild] = field(default_factory=dict)
    said: dict[str, Any] = field(default_factory=dict)
    folders: tuple[str, ...] = ()
    number: int = 0

    @property
    def parts(self) -> tuple[str, ...]:
        """Those that this policy needs."""
        needs = ((FILES, "folder:", "more"), (LOADER, "postgresql", "mirror"), (PUBLISHER, "publish:", "mirror"))
        return (*PARTS, *(part for part, word, option in needs if word in self.options.get(option, "")))

    def folder(self, name: str) -> Path:
        """A folder of the site's, as the launcher makes it."""
        return self.stores / "folders" / name

    def policy(self, **options: str) -> CompiledPolicy:
        """The policy with these words in it."""
        words = {"source": "", "mirror": "", "assets": "", "more": ""} | self.options | options
        text = POLICY.format(
            historian=self.plant.made.port if self.plant else 5432, port=self.listener.getsockname()[1],
            database=self.plant.database if self.plant else "none", **words,
        )  # fmt: skip
        return compile_policy(loads(text), now_ns=time.time_ns())

    def secrets(self, part: str) -> Secrets:
        if part == LOADER:
            return Secrets(passwords={"postgresql": PASSWORD})
        if part == PUBLISHER:
            return Secrets(passwords={"s3": PASSWORD})
        if part == "collector":
            return Secrets(passwords={"historian": PASSWORD})
        return Secrets(keys=tuple(self.rows.values()))

    @property
    def port(self) -> int:
        port: int = self.listener.getsockname()[1]
        return port

    def store(self, part: str) -> Path:
        return self.stores / part

    def start(self) -> None:
        """Starts all processes, as the gate does."""
        pipes = {pipe: make_pipe() for pipe in PIPES if {*pipe} <= {*self.parts}}
        policy = self.policy()
        for part in self.parts:
            inputs = {source: ends[0] for (source, target), ends in pipes.items() if target == part}
            outputs = {target: ends[1] for (source, target), ends in pipes.items() if source == part}
            build = impatient("cofferdam.brokers.mirror.collector") if part == "collector" else WATCHED
            self.children[part] = PartChild("mirror", part, self.auditor, inputs, outputs, build)
        for part in self.parts:
            if part in self.said:
                self.said[part].close()
            self.said[part] = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the crew
            self.children[part].start([self.listener] if part == "reader" else [], self.said[part])
        for part in self.parts:
            self.children[part].send(self._configure(part, policy))
        for part in self.parts:
            ready: Ready = self.children[part].wait_for(Ready)
            assert all(in_force for _, in_force, _ in ready.facts), ready.facts

    def _configure(self, part: str, policy: CompiledPolicy) -> Configure:
        listeners: tuple[Listener, ...] = ()
        if part == "reader":
            listeners = (Listener(self.listener.fileno(), *self.listener.getsockname()[:2]),)
        secrets: tuple[Secret, ...] = ()
        if part in ("collector", "reader", LOADER, PUBLISHER):
            secrets = (Secret("mirror", write_secrets(self.secrets(part))),)
        return Configure(
            crew="mirror",
            part=part,
            broker="mirror",
            source_zones=("office",),
            target_zone="plant",
            boot="t",
            policy=self.slice(part, policy),
            listeners=listeners,
            assets=("history",),
            store=str(self.store(part)) if part in ("keeper", "spooler") else "",
            reads={"keeper": str(self.store("keeper"))} if part in ("reader", LOADER, PUBLISHER) else {},
            folders={name: str(self.folder(name)) for name in self.folders} if part == FILES else {},
            secrets=secrets,
        )

    def slice(self, part: str, policy: CompiledPolicy) -> bytes:
        scope = Scope(frozenset(policy.conduits), frozenset({"history"}))
        return to_bytes(KINDS["mirror"].slice(policy, scope, part))

    def reload(self, policy: CompiledPolicy) -> None:
        for part in self.parts:
            listeners = self._configure(part, policy).listeners
            self.children[part].send(NewPolicy(self.slice(part, policy), listeners, ("history",)))

    def ask(self, part: str, verb: str, **said: object) -> Any:
        """An operator's verb: its answer, or the words of its refusal."""
        self.number += 1
        self.children[part].send(Command(self.number, verb, msgspec.json.encode(said)))
        done: CommandDone = self.children[part].wait_for(CommandDone)
        assert done.number == self.number
        return msgspec.json.decode(done.result) if not done.error else done.error

    def client(self, who: str, **options: Any) -> httpx.Client:
        """An HTTP client of a principal, with its key."""
        headers = {"authorization": f"Bearer {self.keys[who]}"} if who else {}
        return httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}", headers=headers, timeout=PATIENT, trust_env=False, **options
        )

    def mirrored(self) -> int:
        """Samples of different times that SQL finds."""
        with self.client("lake") as lake:
            answer = lake.post("/v1/sql", content="SELECT count(*) AS n FROM samples")
        if answer.status_code == 503:  # it says when to come again
            return -1
        assert answer.status_code == 200, answer.text
        found: int = answer.json()["rows"][0]["n"]
        return found

    def catches_up(self) -> None:
        """Until the mirror has what the historian has."""
        assert self.plant is not None
        wanted = self.plant.count()
        eventually(lambda: self.mirrored() == wanted)

    def stderr(self, part: str) -> str:
        self.said[part].seek(0)
        text: str = self.said[part].read().decode()
        return text

    def kill(self, *parts: str) -> None:
        """kill -9 of some parts; the others end by themselves. `start` has them born again."""
        for part in parts:
            process = self.children[part].process
            assert process is not None
            process.kill()
        for child in self.children.values():
            child.close()

    def ends_well(self) -> None:
        for part in self.parts:
            self.children[part].status()
        tell_to_stop(self.children.values(), 5.0)
        for part in self.parts:
            said = (part, *self.children[part].ended(), self.stderr(part))
            assert said == (part, 0, "", ""), said

    def close(self) -> None:
        for part in self.said:
            print(part, self.stderr(part))  # shown where a test fails
        for child in self.children.values():
            with contextlib.suppress(BrokenPipeError):
                child.send(Stop(0.0))
        for part, child in self.children.items():
            child.close()
            self.said[part].close()
        self.auditor.stop()
        self.listener.close()
        if self.plant is not None:
            self.plant.conn.close()


@contextlib.contextmanager
def crew(
    stores: Path, plant: Plant | None, *, start: bool = True, folders: tuple[str, ...] = (), **options: str
) -> Iterator[RunningCrew]:
    """A crew with its own stores, and keys for all principals; and these folders of the site's."""
    for name in folders:
        (stores / "folders" / name).mkdir(parents=True, exist_ok=True)
    for part in ("keeper", "spooler"):
        (stores / part).mkdir(mode=0o700, parents=True, exist_ok=True)
    keys, rows = {}, {}
    for number, name in enumerate(PRINCIPALS):
        text, sha256 = new_key()
        keys[name] = text
        rows[name] = Key(id=f"key0000{number}", principal=name, sha256=sha256, created=time.time_ns())
    auditor = Auditor()
    listener = socket.socket()
    listener.bind((OFFICE, 0))
    listener.listen(128)
    found = RunningCrew(auditor, stores, plant, options, listener, keys, rows, folders=folders)
    auditor.start()
    try:
        if start:
            found.start()
        yield found
    finally:
        found.close()
