"""A relay's crew as the gate starts it: three real processes with pipes between them, under the real filter;
four where the MES has its messages in tables."""

from __future__ import annotations

import contextlib
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import msgspec

from cofferdam.brokers.kit.http.keys import Given, Key, Secrets, Tls, new_key, write_secrets
from cofferdam.brokers.kit.supervision import Command, CommandDone, Configure, Listener, NewPolicy, Ready, Secret, Stop
from cofferdam.brokers.registry import BROKERS
from cofferdam.crossing.pipe import make_pipe
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import loads
from cofferdam.policy.table import CompiledPolicy, to_bytes
from cofferdam.policy.terms.base import Scope
from cofferdam.policy.terms.kinds import KINDS
from tests.brokers.harness import WATCHED, Auditor, PartChild, impatient, listen, tell_to_stop
from tests.waiting import PATIENT

OFFICE, PLANT, ELSEWHERE = "127.0.0.1", "127.0.0.2", "127.0.0.9"
"""Whoever comes from these addresses is the ERP, the MES, or nobody."""
POLICY = """
site: works
zones:
  office: {{side: it, level: 4}}
  plant: {{side: ot, level: 2}}
principals:
  erp: {{zone: office, addresses: [{office}]}}
  lake: {{zone: office, addresses: [{office}]}}
  mes: {{zone: plant, addresses: [{plant}]}}
conduits:
  counts-to-erp:
    from: plant
    to: office
    broker: relay
    owner: production
    reason: daily counts
    listen:
      office: {{at: "{office}:{outer}"{doors}}}
      plant: {{at: "{plant}:{inner}", plain: true}}
    {counts_tables}
    {folders}
    channels:
      counts: {{schema: count.json, most: 100 kB{counts}}}
    allow:
      - {{who: mes, push: [{more}]{via}}}
      - {{who: [erp{lake}], pull: [{more}]}}{nats_rule}
      - {{who: lake, browse: counts}}
    {nats}
  orders-to-mes:
    from: office
    to: plant
    broker: relay
    owner: planning
    reason: production orders
    {conduit}
    listen:
      office: {{at: "{office}:{outer}"{doors}}}
      plant: {{at: "{plant}:{inner}", plain: true}}
    {tables}
    {folders_out}
    channels:
      orders:
        schema: order.json
        set: {{/site: works}}
        limits: {{/quantity: {{min: 1, max: 10000, max_step: 500}}}}
        {orders}
    allow:
      - {{who: {planner}, push: orders}}
      - {{who: mes, pull: orders{via}}}
limits: {{audit_wait_seconds: 60}}
"""
"""(The auditor is a thread of the test's, and waits for its turn.)"""
WORDS = {
    "doors": ", plain: true", "counts": "", "more": "counts", "conduit": "", "planner": "erp", "tables": "", "via": "",
    "orders": "", "folders": "", "folders_out": "",
    "lake": ", lake", "nats": "", "nats_rule": "",
}  # fmt: skip
"""What stands in the policy if a test says nothing else."""
FILES = {
    "count.json": b'{"type": "object", "required": ["line", "n"], "properties": {"line": {"type": "string"},'
    b' "n": {"type": "integer", "minimum": 0}, "note": {"type": "string"}}, "additionalProperties": false}',
    "order.json": b'{"type": "object", "required": ["quantity"], "properties": {"quantity": {"type": "integer"}}}',
}
PARTS = ("keeper", "outer", "inner")


def policy_text(words: dict[str, str], **ports: int) -> str:
    """The policy with these words in it. `counts_tables`: tables of the first conduit, if they are others."""
    said = WORDS | words
    return POLICY.format(office=OFFICE, plant=PLANT, **ports, **{"counts_tables": said["tables"], **said})


TABLES = "inner-tables"
FOLDERS = "inner-folders"
NATS = "outer-nats"
FOLDER_NAMES = ("counts-in", "orders-out")


@dataclass
class RunningCrew:
    """A crew that runs. `keys`: principal -> the text of its key."""

    auditor: Auditor
    store: Path
    files: dict[str, bytes]
    options: dict[str, str]
    listeners: dict[str, socket.socket]
    keys: dict[str, str]
    rows: dict[str, Key]
    tls: Tls | None
    passwords: dict[str, str] = field(default_factory=dict)
    children: dict[str, PartChild] = field(default_factory=dict)
    said: dict[str, Any] = field(default_factory=dict)
    number: int = 0

    def policy(self, **options: str) -> CompiledPolicy:
        """The policy with these words in it."""
        ports = {name: sock.getsockname()[1] for name, sock in self.listeners.items()}
        text = policy_text(self.options | options, **ports)
        return compile_policy(loads(text, files=self.files), now_ns=time.time_ns())

    def secrets(self, side: str) -> Secrets:
        if side == FOLDERS:
            return Secrets()
        if side in (TABLES, NATS):
            return Secrets(passwords=self.passwords)
        own = {"outer": ("erp", "lake"), "inner": ("mes",)}[side]
        tls = {"office": self.tls} if self.tls is not None and side == "outer" else {}
        return Secrets(keys=tuple(self.rows[name] for name in own if name in self.rows), tls=tls)

    def folder(self, name: str) -> Path:
        """A folder of the site's, as the launcher makes it."""
        path = self.store.parent / name
        path.mkdir(exist_ok=True)
        return path

    def port(self, side: str) -> int:
        port: int = self.listeners[side].getsockname()[1]
        return port

    @property
    def parts(self) -> tuple[str, ...]:
        more = [
            part for part, word in ((TABLES, "tables"), (FOLDERS, "folders"), (NATS, "nats")) if self.options.get(word)
        ]
        return (*PARTS, *more)

    def start(self) -> None:
        """Starts all processes, as the gate does."""
        parts = self.parts
        pipes = {pipe: make_pipe() for pipe in BROKERS["relay"].crew.pipes if set(pipe) <= set(parts)}
        policy = self.policy()
        for part in parts:
            inputs = {source: ends[0] for (source, target), ends in pipes.items() if target == part}
            outputs = {target: ends[1] for (source, target), ends in pipes.items() if source == part}
            build = WATCHED if part in PARTS else impatient("cofferdam.brokers.relay.ways")
            self.children[part] = PartChild("relay", part, self.auditor, inputs, outputs, build)
        for part in parts:
            own = [self.listeners[part]] if part in self.listeners else []
            if part in self.said:
                self.said[part].close()
            self.said[part] = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the crew
            self.children[part].start(own, self.said[part])
        for part in parts:
            self.children[part].send(self._configure(part, policy))
        for part in parts:
            ready: Ready = self.children[part].wait_for(Ready)
            assert all(in_force for _, in_force, _ in ready.facts), ready.facts

    def _configure(self, part: str, policy: CompiledPolicy) -> Configure:
        listeners: tuple[Listener, ...] = ()
        if part in self.listeners:
            sock = self.listeners[part]
            listeners = (Listener(sock.fileno(), sock.getsockname()[0], sock.getsockname()[1]),)
        secrets = (Secret("relay", write_secrets(self.secrets(part))),) if part != "keeper" else ()
        return Configure(
            crew="relay",
            part=part,
            broker="relay",
            source_zones=("office",),
            target_zone="plant",
            boot="t",
            policy=self.slice(part, policy),
            listeners=listeners,
            assets=("counts", "orders"),
            store=str(self.store) if part == "keeper" else "",
            folders={name: str(self.folder(name)) for name in FOLDER_NAMES} if part == FOLDERS else {},
            secrets=secrets,
        )

    def slice(self, part: str, policy: CompiledPolicy) -> bytes:
        scope = Scope(frozenset(policy.conduits), frozenset({"counts", "orders"}))
        return to_bytes(KINDS["relay"].slice(policy, scope, part))

    def reload(self, policy: CompiledPolicy, parts: tuple[str, ...] = ()) -> None:
        """Gives the parts another policy."""
        for part in parts or self.parts:
            listeners = self._configure(part, policy).listeners
            self.children[part].send(NewPolicy(self.slice(part, policy), listeners, ("counts", "orders")))

    def ask(self, part: str, verb: str, said: object) -> CommandDone:
        """An operator's verb."""
        self.number += 1
        self.children[part].send(Command(self.number, verb, msgspec.json.encode(said)))
        done: CommandDone = self.children[part].wait_for(CommandDone)
        assert done.number == self.number
        return done

    def client(self, who: str, key: str | None = None, **options: Any) -> httpx.Client:
        """An HTTP client of a principal, at its own address, with its key."""
        side = "inner" if who == "mes" else "outer"
        own, scheme = (PLANT, "http") if side == "inner" else (OFFICE, "https" if self.tls else "http")
        key = self.keys.get(who) if key is None else key
        headers = {"authorization": f"Bearer {key}"} if key else {}
        source = options.pop("source", own)
        verify = options.pop("verify", True)
        return httpx.Client(
            base_url=f"{scheme}://{own}:{self.port(side)}",
            headers=headers,
            transport=httpx.HTTPTransport(local_address=source, verify=verify, trust_env=False),
            timeout=PATIENT,
            **options,
        )

    def raw(self, side: str = "outer", source: str | None = None) -> socket.socket:
        """A bare connection."""
        own = PLANT if side == "inner" else OFFICE
        sock = socket.socket()
        sock.settimeout(PATIENT)
        sock.bind((source or own, 0))
        sock.connect((own, self.port(side)))
        return sock

    def give(self, side: str, secrets: Secrets) -> None:
        """Hands a side other keys and certificates while it runs."""
        done = self.ask(side, "secrets", Given(secrets=secrets, by="root"))
        assert not done.error, done

    def stderr(self, part: str) -> str:
        self.said[part].seek(0)
        text: str = self.said[part].read().decode()
        return text

    def ends_well(self) -> None:
        """All are still there, end in order, and had nothing to say on stderr."""
        for part in self.parts:
            self.children[part].status()
        tell_to_stop(self.children.values(), 2.0)
        for part in self.parts:
            said = (part, *self.children[part].ended(), self.stderr(part))
            assert said == (part, 0, "", ""), said

    def kill(self, part: str) -> None:
        """kill -9 of one part; the others end by themselves. `start` has them born again."""
        process = self.children[part].process
        assert process is not None
        process.kill()
        for child in self.children.values():
            child.close()

    def close(self) -> None:
        for part in self.said:
            print(self.stderr(part))  # shown where a test fails
        for child in self.children.values():
            with contextlib.suppress(BrokenPipeError):
                child.send(Stop(0.0))
        for part, child in self.children.items():
            child.close()
            self.said[part].close()
        self.auditor.stop()
        for sock in self.listeners.values():
            sock.close()


def listener_at(address: str) -> socket.socket:
    """A listening socket at an address, on a port that nobody has."""
    sock = socket.socket()
    sock.bind((address, 0))
    sock.listen(4096)
    return sock


@contextlib.contextmanager
def crew(
    store: Path,
    *,
    files: dict[str, bytes] | None = None,
    tls: Tls | None = None,
    start: bool = True,
    passwords: dict[str, str] | None = None,
    words: dict[str, str] | None = None,
    **options: str,
) -> Iterator[RunningCrew]:
    """A crew with its own store, and keys for erp, lake and mes."""
    store.mkdir(mode=0o700, exist_ok=True)
    keys, rows = {}, {}
    for number, name in enumerate(("erp", "lake", "mes")):
        text, sha256 = new_key()
        keys[name] = text
        rows[name] = Key(id=f"key0000{number}", principal=name, sha256=sha256, created=time.time_ns())
    auditor = Auditor()
    listeners = {"outer": listener_at(OFFICE), "inner": listener_at(PLANT)}
    said, given = {**options, **(words or {})}, {**FILES, **(files or {})}
    found = RunningCrew(auditor, store, given, said, listeners, keys, rows, tls, passwords or {})
    auditor.start()
    try:
        if start:
            found.start()
        yield found
    finally:
        found.close()


Maker = Callable[..., contextlib.AbstractContextManager[RunningCrew]]
__all__ = ["ELSEWHERE", "OFFICE", "PLANT", "RunningCrew", "crew", "listen"]
