"""The launcher: the process of `cofferdam up`, the only one that may hold privilege.

It opens listeners, makes pipes, starts the gate, the auditor and the halves, and reaps them. It reads no policy, no
network input and no file; all it takes are the typed orders of `orders` from the gate, and signals. Each child gets
exactly the descriptors it needs, at known numbers. When the gate ends, all end; when the launcher ends, the kernel
ends all (see `isolation`).

It keeps the pipes between each producer of audit entries and the auditor open, so that a half sees nothing of an
auditor's restart, and hands both ends to the next auditor. This is the one place where descriptors are passed on:
to the gate and to the auditor, never to a half.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import select
import signal
import socket
import stat
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cofferdam.crossing.introduction import INTRODUCTIONS, Introduction
from cofferdam.crossing.pipe import make_pipe
from cofferdam.enforce import compiled
from cofferdam.enforce.isolation import Isolation
from cofferdam.enforce.messages import Messages
from cofferdam.enforce.orders import (
    GATE_CHILD,
    MAX_ORDER,
    ORDERS,
    PLANS,
    REPORTS,
    AskDropped,
    Asked,
    AskTunnel,
    Child,
    CloseListener,
    DroppedState,
    Exited,
    Failed,
    Finish,
    Kill,
    Notify,
    Opened,
    OpenListener,
    Order,
    Place,
    Prepare,
    Prepared,
    Report,
    Role,
    SetTunnel,
    SpawnAuditor,
    Spawned,
    SpawnNames,
    SpawnPair,
    TunnelSet,
    TunnelState,
)
from cofferdam.errors import CofferdamError, CrossingError, GateError

FIRST_FD = 3
"""A child's descriptors are numbered from here on, in the order of its command line."""
LISTENERS_AT = 9
"""Where the listeners of an outer half begin: behind its pipes."""
GATE_SILENCE_SECONDS = 10.0
"""A gate that has not said for so long that it is alive is ended, and everything with it."""
OWN_PAUSE_SECONDS = 3.0
"""A turn of the launcher's loop that took longer, by an order or because it was stopped, says nothing of the gate."""
REAP_SECONDS = 5.0
"""How long the launcher waits for children that it has killed."""
CONFINED: tuple[Role, ...] = ("outer", "inner", "names")
"""Who holds no socket but those of its work."""
_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "TZ")


@dataclass
class _Producer:
    """One that hands entries to the auditor, with both ends of both pipes; the producer has copies of two of them."""

    name: str
    batches: tuple[int, int]  # (read, write) of the pipe towards the auditor
    answers: tuple[int, int]
    seen: bool = False  # an auditor has read from it

    def close(self) -> None:
        for fd in (*self.batches, *self.answers):
            os.close(fd)


@dataclass
class _Process:
    pid: int
    role: Role
    producer: _Producer | None


class Launcher:
    """One gate with all its processes. `run()` starts it and returns the exit code when all has ended."""

    def __init__(
        self, isolation: Isolation, state: Path, gate_arguments: Sequence[str], *, environment: Sequence[str] = ()
    ) -> None:
        self._isolation = isolation
        self._state = state
        self._gate_arguments = list(gate_arguments)
        self._gate_environment = environment
        self._build = compiled.find()
        self._children: dict[int, _Process] = {}
        self._next_child = GATE_CHILD
        self._listeners: dict[int, socket.socket] = {}
        self._next_listener = 1
        self._producers: list[_Producer] = []
        self._auditor: socket.socket | None = None
        self._orders: socket.socket | None = None
        self._asked = 0
        self._plan = b""
        self._finish: Finish | None = None
        self._messages: Messages | None = None
        self._heard = 0.0  # when the gate last said that it is alive (monotonic, s)
        self._watched = False

    def run(self) -> int:
        """Starts the gate and serves it until it ends.

        Raises:
            GateError: another gate uses the state directory, or the gate refused to start.
        """
        lock = _lock(self._state)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        old_wake = signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signals = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        old_handlers = {number: signal.signal(number, lambda *_: None) for number in signals}
        try:
            self._messages = Messages()
            self._isolation.begin()
            self._start_gate()
            return self._serve(wake_read)
        finally:
            self._end_all()
            self._isolation.undo()
            if self._messages is not None:
                self._messages.close()
            for number, handler in old_handlers.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(old_wake)
            os.close(wake_read)
            os.close(wake_write)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            os.close(lock)

    # --- the loop -----------------------------------------------------------------------------------------------

    def _serve(self, wake: int) -> int:
        orders = self._orders
        if orders is None:
            raise GateError("the gate was not started")
        poll = select.poll()
        poll.register(wake, select.POLLIN)
        poll.register(orders, select.POLLIN)
        gate_status: int | None = None
        looked = time.monotonic()
        while gate_status is None and self._finish is None:
            ready = {fd for fd, _ in poll.poll(1000)}
            now = time.monotonic()
            if now - looked > OWN_PAUSE_SECONDS:
                self._heard = now  # it was this loop that stood still: what the gate said meanwhile waits to be read
            looked = now
            if self._watched and now - self._heard > GATE_SILENCE_SECONDS:
                raise GateError(
                    f"the gate has not been heard of for {GATE_SILENCE_SECONDS:.0f} s; everything was stopped",
                    hint="nobody could have severed a side; under systemd it is started again",
                )
            # Orders first: the gate's last words count more than its exit.
            if orders.fileno() in ready and not self._take_order(orders):
                poll.unregister(orders)
            if wake in ready:
                gate_status = self._take_signals(os.read(wake, 512))
        while self._finish is None and self._take_order(orders):
            pass
        finish = self._finish
        if finish is None:
            raise GateError(
                f"the gate ended unexpectedly ({_how(gate_status)}); everything was stopped",
                hint="its last messages stand above; under systemd it is started again",
            )
        if finish.message:
            error = GateError(finish.message, hint=finish.hint)
            raise error
        return finish.code

    def _take_signals(self, numbers: bytes) -> int | None:
        """Handles the signals; the gate's exit status once it has ended."""
        gate_status: int | None = None
        for number in numbers:
            if number in (signal.SIGTERM, signal.SIGINT):
                self._asked += 1
                self._report(Asked("stop", self._asked))
                if self._asked >= 3:  # the gate had two chances
                    self._finish = Finish(1, "stopped at once, by the third signal")
            elif number == signal.SIGHUP:
                self._report(Asked("reload"))
        while True:
            try:
                pid, raw = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return gate_status
            if pid == 0:
                return gate_status
            status = os.waitstatus_to_exitcode(raw)
            child = next((number for number, process in self._children.items() if process.pid == pid), None)
            if child is None:
                continue
            process = self._children.pop(child)
            if process.producer is not None:
                self._producers.remove(process.producer)
                process.producer.close()  # the auditor reads what is left, then the end
            if process.role == "auditor" and self._auditor is not None:
                self._auditor.close()
                self._auditor = None
            if process.role == "tunnel":
                self._isolation.tunnel().ended()
            if child == GATE_CHILD:
                gate_status = status
            else:
                self._report(Exited(child, status))

    def _take_order(self, orders: socket.socket) -> bool:
        """Takes and carries out one order; False when there is none (left)."""
        try:
            data = orders.recv(MAX_ORDER + 1, socket.MSG_DONTWAIT)
        except (BlockingIOError, ConnectionResetError):
            return False
        if not data:
            return False
        if len(data) > MAX_ORDER:
            raise CrossingError(f"an order of more than {MAX_ORDER} bytes")
        self._obey(ORDERS.decode(data))
        return True

    def _obey(self, order: Order) -> None:
        match order:
            case Prepare(serial):
                self._answer(serial, lambda: self._prepare(order))
            case OpenListener(serial):
                self._answer(serial, lambda: self._open_listener(order))
            case CloseListener(listener):
                held = self._listeners.pop(listener, None)
                if held is not None:
                    held.close()
            case SpawnPair(serial):
                self._answer(serial, lambda: self._spawn_pair(order))
            case SpawnAuditor(serial):
                self._answer(serial, lambda: self._spawn_auditor(order))
            case SpawnNames(serial):
                self._answer(serial, lambda: self._spawn_names(order))
            case SetTunnel(serial):
                self._answer(serial, lambda: self._set_tunnel(order))
            case AskTunnel(serial):
                self._answer(serial, lambda: self._report(TunnelState(serial, self._isolation.tunnel().state())))
            case AskDropped(serial):
                self._answer(serial, lambda: self._report(DroppedState(serial, self._isolation.dropped())))
            case Kill(child):
                if child in self._children and child != GATE_CHILD:
                    os.kill(self._children[child].pid, signal.SIGKILL)
            case Notify(state):
                self._heard, self._watched = time.monotonic(), state == "WATCHDOG=1"
                _notify(state)
            case Finish():
                self._finish = order

    def _answer(self, serial: int, work: Callable[[], None]) -> None:
        try:
            work()
        except CofferdamError as error:
            self._report(Failed(serial, str(error), error.hint))
        except OSError as error:
            self._report(Failed(serial, f"{error.strerror or error}"))

    def _report(self, report: Report, fds: Sequence[int] = ()) -> None:
        if self._orders is not None:
            try:
                socket.send_fds(self._orders, [REPORTS.encode(report)], list(fds), socket.MSG_DONTWAIT)
            except BlockingIOError:
                raise GateError("the gate takes no more reports: it hangs; everything was stopped") from None
            except (BrokenPipeError, ConnectionResetError):
                return  # a gate that has gone is noticed by its exit

    # --- the orders ---------------------------------------------------------------------------------------------

    def _prepare(self, order: Prepare) -> None:
        self._plan += order.part
        if len(self._plan) > PLANS.limit:
            raise CrossingError(f"a plan of more than {PLANS.limit} bytes")
        if order.more:
            return
        plan, self._plan = self._plan, b""
        self._isolation.prepare(PLANS.decode(plan))
        build = ("compiled", self._build.is_compiled, self._build.why)
        self._report(Prepared(order.serial, self._isolation.name, (*self._isolation.describe(), build)))

    def _open_listener(self, order: OpenListener) -> None:
        listener = self._isolation.open_listener(order.place, order.address, order.port, datagrams=order.datagrams)
        number, self._next_listener = self._next_listener, self._next_listener + 1
        self._listeners[number] = listener
        name = listener.getsockname()
        self._report(Opened(order.serial, number, name[0], name[1]))

    def _start_gate(self) -> None:
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        producer = self._new_producer("gate")
        arguments = ["-m", "cofferdam.gate.process", "--orders", "3", "--audit-in", "4", "--audit-out", "5"]
        fds = [theirs.fileno(), producer.answers[0], producer.batches[1]]
        self._spawn("gate", None, [*arguments, *self._gate_arguments], fds, producer)
        theirs.close()

    def _spawn_auditor(self, order: SpawnAuditor) -> None:
        if self._auditor is not None:
            raise GateError("there is an auditor already")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with _pipes(2) as ((to_read, to_write), (from_read, from_write)):
            arguments = ["-m", "cofferdam.audit.process", "--state", str(self._state)]
            arguments += ["--control-in", "3", "--control-out", "4", "--producers", "5"]
            child = self._spawn("auditor", None, arguments, [to_read, from_write, theirs.fileno()], None)
            theirs.close()
            ours.setblocking(False)
            self._auditor = ours
            for producer in self._producers:
                self._introduce(producer)
            self._report(Spawned(order.serial, (child,)), [from_read, to_write])

    def _introduce(self, producer: _Producer) -> None:
        """Hands a producer's pipes to the auditor, if one runs. The next one gets them anew."""
        if self._auditor is not None:
            message = INTRODUCTIONS.encode(Introduction(producer.name, producer.seen))
            try:
                socket.send_fds(self._auditor, [message], [producer.batches[0], producer.answers[1]])
                producer.seen = True
            except OSError:  # dead or stuck: it is replaced, and its successor gets all producers
                for process in self._children.values():
                    if process.role == "auditor":
                        os.kill(process.pid, signal.SIGKILL)

    def _spawn_pair(self, order: SpawnPair) -> None:
        unknown = [number for number in order.listeners if number not in self._listeners]
        if unknown:
            raise GateError(f"no listener {unknown[0]}")
        listeners = [self._listeners[number].fileno() for number in order.listeners]
        with _pipes(6) as pipes:
            requests, replies, to_outer, from_outer, to_inner, from_inner = pipes
            outer = self._spawn_half(
                "outer", order.pair, order.outer, (to_outer[0], from_outer[1]), (replies[0], requests[1]), listeners
            )
            inner = self._spawn_half(
                "inner", order.pair, order.inner, (to_inner[0], from_inner[1]), (requests[0], replies[1]), []
            )
            ends = [from_outer[0], to_outer[1], from_inner[0], to_inner[1]]
            self._report(Spawned(order.serial, (outer, inner), LISTENERS_AT), ends)

    def _spawn_names(self, order: SpawnNames) -> None:
        unknown = [number for number in order.listeners if number not in self._listeners]
        if unknown:
            raise GateError(f"no listener {unknown[0]}")
        with _pipes(2) as ((to_read, to_write), (from_read, from_write)):
            fds = [to_read, from_write, *(self._listeners[number].fileno() for number in order.listeners)]
            first, last = FIRST_FD + 2, FIRST_FD + len(fds) - 1
            arguments = ["-m", "cofferdam.enforce.overlay.names", "--control-in", str(FIRST_FD)]
            arguments += ["--control-out", str(FIRST_FD + 1), "--sockets", f"{first}-{last}"]
            child = self._spawn("names", order.place, arguments, fds, None)
            self._report(Spawned(order.serial, (child,), first), [from_read, to_write])

    def _set_tunnel(self, order: SetTunnel) -> None:
        tunnel = self._isolation.tunnel()
        pid = tunnel.make()
        child = self._register("tunnel", pid, None) if pid else None
        try:
            tunnel.set(order)
        except CofferdamError:
            tunnel.end()  # it may still let in whom it should not
            raise
        kind: Literal["kernel", "wireguard-go"] = "kernel" if tunnel.kind == "kernel" else "wireguard-go"
        self._report(TunnelSet(order.serial, kind, tunnel.name, child))

    def _spawn_half(
        self,
        role: Role,
        pair: str,
        place: Place,
        control: tuple[int, int],
        crossing: tuple[int, int],
        listeners: list[int],
    ) -> Child:
        producer = self._new_producer(f"{pair}/{role}")
        names = ["--control-in", "--control-out", "--crossing-in", "--crossing-out", "--audit-in", "--audit-out"]
        fds = [*control, *crossing, producer.answers[0], producer.batches[1]]
        arguments = [*self._build.arguments, "--name", producer.name, "--role", role]
        for number, name in enumerate(names, FIRST_FD):
            arguments += [name, str(number)]
        return self._spawn(role, place, arguments, [*fds, *listeners], producer)

    def _new_producer(self, name: str) -> _Producer:
        producer = _Producer(name, make_pipe(), make_pipe())
        self._producers.append(producer)
        self._introduce(producer)
        return producer

    # --- children -----------------------------------------------------------------------------------------------

    def _spawn(
        self, role: Role, place: Place | None, arguments: list[str], fds: list[int], producer: _Producer | None
    ) -> Child:
        """Starts a child: a Python of ours, isolated from the environment (-I), with `fds` from FIRST_FD on."""
        wanted = [*_ENVIRONMENT, *(self._gate_environment if role == "gate" else ())]
        environment = {name: os.environ[name] for name in wanted if name in os.environ}
        command = [sys.executable, "-I", *arguments]
        sys.stderr.flush()
        with self._isolation.forking(role):
            pid = os.fork()
            if pid == 0:
                self._become(role, place, command, environment, fds)
        return self._register(role, pid, producer)

    def _register(self, role: Role, pid: int, producer: _Producer | None) -> Child:
        number, self._next_child = self._next_child, self._next_child + 1
        self._children[number] = _Process(pid, role, producer)
        return Child(number, role, pid)

    def _become(
        self, role: Role, place: Place | None, command: list[str], environment: dict[str, str], fds: list[int]
    ) -> None:
        """A fresh fork becomes the child's program. Nothing returns from here."""
        try:
            if self._messages is not None and role in CONFINED:
                os.dup2(self._messages.fd, 2)
            _place_descriptors(fds)
            self._isolation.child_setup(role, place)
            os.execve(sys.executable, command, environment)  # noqa: S606 - our own interpreter, no shell
        except BaseException as error:
            os.write(2, f"cofferdam: cannot start the {role} process: {error}\n".encode())
        finally:
            os._exit(127)

    def _end_all(self) -> None:
        for process in self._children.values():
            os.kill(process.pid, signal.SIGKILL)
        deadline = time.monotonic() + REAP_SECONDS
        for process in self._children.values():
            while os.waitpid(process.pid, os.WNOHANG)[0] == 0 and time.monotonic() < deadline:
                time.sleep(0.005)
        self._children.clear()
        for listener in self._listeners.values():
            listener.close()
        self._listeners.clear()
        for producer in self._producers:
            producer.close()
        self._producers.clear()
        for end in (self._orders, self._auditor):
            if end is not None:
                end.close()
        self._orders = self._auditor = None


@contextlib.contextmanager
def _pipes(count: int):  # type: ignore[no-untyped-def]
    """So many packet pipes; the launcher's copies are closed afterwards."""
    pipes = [make_pipe() for _ in range(count)]
    try:
        yield pipes
    finally:
        for pair in pipes:
            for fd in pair:
                os.close(fd)


def _place_descriptors(fds: Sequence[int]) -> None:
    """In a fresh child: `fds` become FIRST_FD and following, standard input is empty, standard output goes where
    errors go, and nothing else stays open."""
    above = FIRST_FD + len(fds)
    copies = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, above) for fd in fds]  # out of the way of the targets
    for target, copy in enumerate(copies, FIRST_FD):
        os.dup2(copy, target, inheritable=True)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    os.closerange(above, resource.getrlimit(resource.RLIMIT_NOFILE)[1])


def _lock(state: Path) -> int:
    """Takes the state directory for this gate; the descriptor that holds it."""
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        _own(state)
        lock = os.open(state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise GateError(
            f"cannot use the state directory {state}: {error.strerror}",
            hint="give another one with --state, or make it writable for this user",
        ) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise GateError(
            f"another gate runs with the state directory {state}",
            hint=f"`cofferdam status --state {state}` shows it, `cofferdam down --state {state}` stops it; "
            "a second gate needs a --state of its own",
        ) from None
    return lock


def _own(state: Path) -> None:
    """Whoever can write to the state directory can restore a severed side and swap the log: it must be ours alone.

    Raises: GateError.
    """
    found = state.stat()
    sticky_group = found.st_mode & stat.S_ISVTX and not found.st_mode & stat.S_IWOTH
    if found.st_uid not in (0, os.geteuid()) or (found.st_mode & 0o022 and not sticky_group):
        raise GateError(
            f"the state directory {state} can be written by others than its user",
            hint=f"give it to this user alone: chown {os.geteuid()} {state} && chmod 700 {state}; or another --state",
        )


def _notify(state: str) -> None:
    """Tells the service manager, if there is one (sd_notify(3)). A lost notice is its business, not ours."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if path.startswith(("/", "@")):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
            to.sendto(state.encode(), path.replace("@", "\0", 1) if path[0] == "@" else path)


def _how(status: int | None) -> str:
    """An exit status in words."""
    if status is None:
        return "status unknown"
    if status >= 0:
        return f"exit code {status}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-status).name
    return f"signal {-status}"
