"""The stage: plant, gate and actors as processes at their hosts, their events gathered, all of them gone at the end.

Every process is tied to this one: should we be killed, the kernel ends it. Whoever does not stop at SIGTERM is
killed. The gate is the real `cofferdam up`, spoken to through the same verbs that an operator has.

Not here: what is played (lab.tour, lab.demo) and where (lab.layout).
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec

from cofferdam.enforce import kernel
from cofferdam.errors import CofferdamError, GateError
from cofferdam.gate.client import ask
from cofferdam.gate.watch.report import StatusReport
from cofferdam.lab import events
from cofferdam.lab.layout import Host, Layout, maker_lives

COFFERDAM = [sys.executable, "-m", "cofferdam.cli.main"]
START_SECONDS = 120.0
"""How long a process may take until it is ready, and for what it is told to do: a busy machine is no finding."""
GATE_SECONDS = 240.0
"""How long the gate may take: crews of all plays start at once."""
PATIENCE_SECONDS = 180.0
"""How long is waited for what comes by itself."""
UNANSWERED_SECONDS = 0.25
"""How long an intruder waits where a firewall gives no answer: it makes hundreds of attempts."""
STOP_SECONDS = 40.0
"""How long a process may take to stop at SIGTERM."""
KEPT_EVENTS = 200_000
"""Events kept of one process; beyond it the oldest go (a demo may run for days)."""

FOLDER = "cofferdam-lab-"
"""Temporary directories of the lab begin with it; the id of the process that made one follows."""

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def tie_to(parent: int) -> Callable[[], None]:
    """What a child does before it becomes its program: ask the kernel for SIGTERM at the death of its parent."""

    def tie() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)

    return tie


T = TypeVar("T")


async def in_the_end(
    look: Callable[[], Awaitable[T]], good: Callable[[T], object], seconds: float = PATIENCE_SECONDS
) -> T:
    """What is seen once it is good, or when time is up: for what becomes true by itself, a moment later."""
    end = time.monotonic() + seconds
    while True:
        seen = await look()
        if good(seen) or time.monotonic() > end:
            return seen
        await asyncio.sleep(0.2)


class Answer(msgspec.Struct, frozen=True):
    """What a verb of the command line said."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """The output as JSON. Raises CofferdamError where it is none."""
        try:
            return json.loads(self.out)
        except ValueError as error:
            raise CofferdamError(f"expected JSON, got {self.out[:200]!r} {self.err[-300:]!r}") from error

    @property
    def text(self) -> str:
        """All that was said, in one line."""
        return " ".join((self.out + " " + self.err).split())


class Actor:
    """One process of the lab; `seen` are its events, in order."""

    def __init__(
        self,
        name: str,
        process: asyncio.subprocess.Process,
        log: Path,
        listener: events.Sink | None,
        decode: Callable[[bytes], events.Event],
    ) -> None:
        self.name = name
        self._decode = decode
        self.process = process
        self.seen: list[events.Event] = []
        self._log = log
        self._listener = listener
        self._changed = asyncio.Condition()
        self._ended = False
        self._garbled = ""
        self._reader = asyncio.get_running_loop().create_task(self._read())

    async def _read(self) -> None:
        if self.process.stdout is None:
            return
        try:
            while line := await self.process.stdout.readline():
                event = self._decode(line)
                self.seen.append(event)
                if len(self.seen) > KEPT_EVENTS:
                    del self.seen[: KEPT_EVENTS // 10]
                if self._listener is not None:
                    self._listener(event)
                async with self._changed:
                    self._changed.notify_all()
        except CofferdamError as error:
            self._garbled = str(error)
        finally:
            self._ended = True
            async with self._changed:
                self._changed.notify_all()

    @property
    def running(self) -> bool:
        return self.process.returncode is None

    def complaint(self) -> str:
        """The last lines of its stderr."""
        try:
            return self._log.read_text(errors="replace")[-2000:].strip()
        except OSError:
            return ""

    async def wait_for(
        self, wanted: Callable[[events.Event], bool], *, after: int = 0, seconds: float = START_SECONDS
    ) -> events.Event:
        """The first event from index `after` on for which `wanted` holds.

        Raises CofferdamError when the process ends first or nothing comes within so many seconds.
        """
        at = after
        try:
            async with asyncio.timeout(seconds), self._changed:
                while True:
                    while at < len(self.seen):
                        if wanted(self.seen[at]):
                            return self.seen[at]
                        at += 1
                    if self._ended:
                        break
                    await self._changed.wait()
        except TimeoutError:
            raise CofferdamError(f"{self.name} did not do what it should in {seconds:g} s") from None
        await asyncio.wait([self._reader])
        raise CofferdamError(f"{self.name} ended: {self._garbled or self.complaint() or 'without a word'}")

    async def do(self, command: events.Command, *, seconds: float = START_SECONDS) -> list[events.Event]:
        """Give a command to a driven actor, which may take so long; the events it caused. Raises CofferdamError when
        the actor ended."""
        at = len(self.seen)
        if self.process.stdin is None or not self.running:
            raise CofferdamError(f"{self.name} does not run: {self.complaint()}")
        with contextlib.suppress(ConnectionError):  # it has just ended; the wait below says so with its words
            self.process.stdin.write(events.command_line(command))
            await self.process.stdin.drain()
        await self.wait_for(lambda event: isinstance(event, events.Done), after=at, seconds=seconds)
        return [event for event in self.seen[at:] if not isinstance(event, events.Done)]

    async def stop(self) -> int:
        """End it; its exit code."""
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                self.process.terminate()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                code = await self.process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            code = await self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()
        self._reader.cancel()
        await asyncio.wait([self._reader])
        return code


def clean() -> list[Path]:
    """Remove the temporary directories of labs that were killed; what was removed. Other users' are left alone."""
    left = [
        path
        for path in Path(tempfile.gettempdir()).glob(f"{FOLDER}*")
        if path.is_dir() and not path.is_symlink() and path.stat().st_uid == os.geteuid()
        if not maker_lives(path.name, FOLDER)
    ]
    for path in left:
        _unmount(path)
        shutil.rmtree(path, ignore_errors=True)
    return left


def _unmount(folder: Path) -> None:
    """Disks that a step has put into a folder go with it."""
    with contextlib.suppress(OSError):
        rows = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        for there in sorted(one for one in rows if one.startswith(f"{folder}/")):
            kernel.umount(there)


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """An impatient second Ctrl-C does not stop the cleaning up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class Scene:
    """The stage with its processes. Use as an async context manager; leaving it ends and removes everything.

    `policy` is the policy file's text, and the files beside it. `state` is the gate's state directory; without one a
    temporary directory is made and removed at the end. `machine` is which one of the policy's the gate is on, "" where
    it names none. `patience` is how long an actor waits for an answer (s),
    `report` the pause between two reports of the plant (s).
    """

    def __init__(
        self,
        layout: Layout,
        policy: tuple[str, dict[str, str]],
        *,
        state: Path | None = None,
        machine: str = "",
        speed_up: float = 1.0,
        patience: float = 20.0,
        report: float = 0.5,
    ) -> None:
        self.layout = layout
        self.patience = patience
        self.report = report
        self.machine = machine
        self.speed_up = speed_up
        self.actors: dict[str, Actor] = {}
        self.gate: Actor | None = None
        self.options: list[str] = []
        """Of `cofferdam up`: what plays that stand before the gate have it told."""
        self._given = state
        self._policy, self._files = policy
        self.directory = Path()

    @property
    def state(self) -> Path:
        """The gate's state directory."""
        return self.directory / "state"

    @property
    def policy(self) -> Path:
        """The policy file that the gate runs."""
        return self.directory / "policy.yaml"

    async def __aenter__(self) -> Self:
        if self._given is None:
            self.directory = Path(tempfile.mkdtemp(prefix=f"{FOLDER}{os.getpid()}-"))
        else:
            self._given.mkdir(parents=True, exist_ok=True)
            self.directory = self._given.resolve()
        try:
            self.layout.__enter__()
        except BaseException:
            self._remove()
            raise
        self.directory.chmod(0o755)  # the gate, which may be another user, reads the policy and the files beside it
        self.state.mkdir(mode=0o700, exist_ok=True)
        self.policy.write_text(self._policy, encoding="utf-8")
        for name, content in self._files.items():
            (self.directory / name).write_text(content, encoding="utf-8")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _deaf():
            try:
                # Who came after the gate, the gate, who was there before it: each group at once.
                names = list(self.actors)
                at = names.index("gate") if "gate" in names else len(names)
                for group in (names[at + 1 :], names[at : at + 1], names[:at]):
                    await asyncio.gather(*(self.actors[name].stop() for name in group))
            finally:
                self.layout.__exit__(kind, error, trace)
                self._remove()

    def _remove(self) -> None:
        _unmount(self.directory)
        if self._given is None:
            shutil.rmtree(self.directory, ignore_errors=True)

    async def start(
        self,
        name: str,
        host: Host,
        argv: list[str],
        *,
        events_out: bool = True,
        listener: events.Sink | None = None,
        decode: Callable[[bytes], events.Event] = events.parse,
    ) -> Actor:
        """Start a process at a host. `decode` makes an event of a line of its output."""
        log = self.directory / f"{name}.log"
        with log.open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                *self.layout.run_in(host, argv),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE if events_out else errors,
                stderr=errors,
                preexec_fn=tie_to(os.getpid()),
                start_new_session=True,  # Ctrl-C at the terminal is for us; we end the others in order
                limit=1 << 20,
            )
        actor = Actor(name, process, log, listener, decode)
        self.actors[name] = actor
        return actor

    async def start_gate(self) -> Actor:
        """`cofferdam up`, answering at its control socket."""
        argv = [*COFFERDAM, "up", str(self.policy), "--state", str(self.state)]
        argv += ["--machine", self.machine] if self.machine else []
        argv += self.options
        self.gate = await self.start("gate", "gate", argv, events_out=False)
        await self.ready(self.gate, self.state)
        return self.gate

    async def ready(self, gate: Actor, state: Path) -> None:
        """Wait until a gate works that was started with this state directory. Raises CofferdamError."""
        for _ in range(int(GATE_SECONDS / 0.1)):
            if not gate.running:
                raise CofferdamError(f"{gate.name} did not start: {gate.complaint()}")
            try:
                crews = (await self.status(state)).pairs
            except GateError:
                crews = ()
            # It answers before its crews work; people who came by then would find nobody.
            if crews and all(crew.working for crew in crews):
                return
            await asyncio.sleep(0.1)
        raise CofferdamError(f"{gate.name} is not ready after {GATE_SECONDS:g} s: {gate.complaint()}")

    @contextlib.contextmanager
    def blaming_the_gate(self) -> Iterator[None]:
        """Whatever fails because the gate is not there any more is told with the gate's own words."""
        try:
            yield
        except CofferdamError as error:
            if self.gate is not None and not self.gate.running:
                raise CofferdamError(f"the gate ended: {self.gate.complaint()}") from error
            raise

    async def status(self, state: Path | None = None) -> StatusReport:
        """What the gate says of itself, or the one with this state directory. Raises GateError where none answers."""
        said = await asyncio.to_thread(ask, state or self.state, "status", fresh=True)
        try:
            return msgspec.convert(said, StatusReport)
        except msgspec.ValidationError as error:
            raise GateError(f"the gate's status is not understood: {error}") from error

    async def verb(self, *words: str, state: bool = True) -> Answer:
        """Run `cofferdam WORDS`, with `--state` unless told otherwise."""
        argv = [*COFFERDAM, *words, *(["--state", str(self.state)] if state else [])]
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1"},
        )
        out, err = await process.communicate()
        return Answer(process.returncode or 0, out.decode(errors="replace"), err.decode(errors="replace"))
