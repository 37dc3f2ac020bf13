"""The launcher: the process of `cofferdam up`, the only one that may hold privilege.

It opens listeners, makes pipes, starts the gate and the parts of crews, and reaps them. It reads no policy and no
network input; all it takes are the typed orders of `orders` from the gate, and signals. An order names a kind of crew,
which is looked up in a table of the code: program, place, descriptors, user, limits and store of each part follow from
there. Each child gets exactly the descriptors that it needs. When the gate ends, all end; when the launcher ends, the
kernel ends all (see `isolation`).

The auditor is a crew like others; the pipes of those who tell it are kept here (producers). Not here: forks and
how they end (children).
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Literal

from msgspec import structs

from cofferdam.enforce import compiled, credentials, doors, sites, stores
from cofferdam.enforce.children import Children
from cofferdam.enforce.crews import GATE
from cofferdam.enforce.forked import FIRST_FD, how, notify, pipes_of
from cofferdam.enforce.isolation import Berth, Isolation
from cofferdam.enforce.kept import Kept
from cofferdam.enforce.orders import (
    GATE_CHILD,
    MAX_ORDER,
    MOST_JOBS,
    ORDERS,
    PLANS,
    REPORTS,
    SEAM_WAYS,
    TUNNEL,
    AskDropped,
    Asked,
    AskLogin,
    AskTunnel,
    Child,
    CloseListener,
    Exited,
    Fenced,
    Finish,
    Kill,
    ListenerOpened,
    Login,
    Notify,
    OpenListener,
    Order,
    OrderFailed,
    PartOrder,
    Prepare,
    Prepared,
    Report,
    SetTunnel,
    Severing,
    Spawn,
    Spawned,
    SpawnJob,
    TunnelSet,
    TunnelState,
    Way,
)
from cofferdam.enforce.producers import Producer, Producers
from cofferdam.enforce.profile import Can, Crew, Profile
from cofferdam.enforce.seams import Seams
from cofferdam.enforce.statefolder import hold_network, lock_state
from cofferdam.errors import CofferdamError, CrossingError, GateError, StoreUnfit

GATE_SILENCE_SECONDS = 10.0
"""A gate that has not said for so long that it is alive is ended, and everything with it."""
OWN_PAUSE_SECONDS = 3.0
"""A turn of the launcher's loop that took longer, by an order or because it was stopped, says nothing of the gate."""
SEVERS: dict[int, Literal["it", "ot"]] = {signal.SIGUSR1: "it", signal.SIGUSR2: "ot"}
"""Signals by which a side is cut off without the gate: whatever holds the gate up, its parts end at once."""
_FITTING: dict[Way, Can] = {"": Can.ACCEPT | Can.DATAGRAMS, "out": Can.EMIT, "in": Can.COLLECT}
"""What a part may that is given a socket which goes so."""
_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "TZ", "PYDANTIC_DISABLE_PLUGINS")


@dataclass
class _Listener:
    """A socket that is held for the gate, or an end of a seam's pipe, and the network that it is in."""

    sock: socket.socket | FileIO
    space: str
    way: Way = ""


class Launcher:
    """One gate with all its processes. `run()` starts it and returns the exit code when all has ended."""

    def __init__(
        self,
        isolation: Isolation,
        state: Path,
        crews: Mapping[str, Crew],
        gate_arguments: Sequence[str],
        *,
        environment: Sequence[str] = (),
        folders: Path | None = None,
        sockets: Mapping[str, Path] = {},
        groups: Mapping[str, int] = {},
    ) -> None:
        """`crews`: all kinds that the gate may have started. `folders`: where the site's folders are; None: in the
        state directory. `sockets`: services of the host, by the names by which profiles know them, as the operator gave
        them: no order can name another. `groups`: who has which role at the gate (doors.DOORS), by group id."""
        self._folders = folders or state / sites.FOLDER
        self._sockets = dict(sockets)
        self._groups = dict(groups)
        self._isolation = isolation
        self._state = state
        self._crews = crews
        self._gate_arguments = list(gate_arguments)
        self._gate_environment = environment
        self._build = compiled.find()
        self._children = Children(isolation)
        self._listeners: dict[int, _Listener] = {}
        self._next_listener = 1
        self._seams = Seams()
        self._kept = Kept()
        self._producers = Producers(self._end_auditor)
        self._orders: socket.socket | None = None
        self._asked = 0
        self._plan = b""
        self._finish: Finish | None = None
        self._cut: set[str] = set()  # sides that were cut off by a signal, and that the gate has not taken in yet
        self._heard = 0.0  # when the gate last said that it is alive (monotonic, s)
        self._watched = False

    def run(self) -> int:
        """Starts the gate and serves it until it ends.

        Raises:
            GateError: another gate uses the state directory, or the gate refused to start.
        """
        lock = lock_state(self._state)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        old_wake = signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signals = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, *SEVERS)
        old_handlers = {number: signal.signal(number, lambda *_: None) for number in signals}
        try:
            self._children.begin()
            self._isolation.begin()
            with doors.opened(self._state, self._groups) as opened:
                self._start_gate(opened)
            return self._serve(wake_read)
        finally:
            self._end_all()
            self._isolation.undo()
            self._children.close()
            self._isolation.kernel_log.close()
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
            self._look_at_fence()
            if self._watched and now - self._heard > GATE_SILENCE_SECONDS:
                raise GateError(
                    f"the gate has not been heard from for {GATE_SILENCE_SECONDS:.0f} s; everything was stopped",
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
                f"the gate ended unexpectedly ({how(gate_status)}); everything was stopped",
                hint="its last messages stand above; under systemd it is started again",
            )
        if finish.message:
            raise GateError(finish.message, hint=finish.hint)
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
            elif number in SEVERS:
                self._sever(SEVERS[number])
        while True:
            try:
                pid, raw = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return gate_status
            if pid == 0:
                return gate_status
            status = os.waitstatus_to_exitcode(raw)
            gone = self._children.gone(pid)
            if gone is None:
                continue
            child, process = gone
            self._kept.gone(child)
            if process.producer is not None:
                self._producers.end(process.producer)
            if process.profile is None:
                self._isolation.tunnel().ended()
            elif process.profile.producers:
                self._producers.detach()
            if child == GATE_CHILD:
                gate_status = status
            else:
                call = self._isolation.kernel_log.call_of(pid) if status == -signal.SIGSYS else ""
                self._report(Exited(child, status, call))

    def _sever(self, side: Literal["it", "ot"]) -> None:
        """Ends all parts of a side, now, and starts none there until the gate knows that it is severed."""
        self._cut.add(side)
        self._children.kill(lambda process: process.side == side)
        self._report(Asked("sever-it" if side == "it" else "sever-ot"))

    def _look_at_fence(self) -> None:
        """Where it cannot be put back, whom it held ends: without it they would reach all that this host reaches."""
        looked = self._isolation.look_at_fence()
        if looked is None:
            return
        if not looked.stands:
            self._children.kill(lambda process: process.profile is not None and process.profile.fenced)
        self._report(Fenced(looked.stands, looked.detail))

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
                    held.sock.close()
                    self._seams.forget()
            case Spawn(serial):
                self._answer(serial, lambda: self._spawn(order))
            case SpawnJob(serial):
                self._answer(serial, lambda: self._spawn_job(order))
            case SetTunnel(serial):
                self._answer(serial, lambda: self._set_tunnel(order))
            case AskTunnel(serial):
                self._answer(serial, lambda: self._report(TunnelState(serial, self._isolation.tunnel().state())))
            case AskDropped(serial):
                self._answer(serial, lambda: self._report(self._isolation.dropped(serial)))
            case AskLogin(serial, pid):
                self._answer(serial, lambda: self._report(Login(serial, doors.login_of(pid))))
            case Kill(child):
                if child in self._children.by_number and child != GATE_CHILD:
                    os.kill(self._children.by_number[child].pid, signal.SIGKILL)
            case Notify(state):
                self._heard, self._watched = time.monotonic(), state == "WATCHDOG=1"
                notify(state)
            case Severing(sides):
                self._cut -= set(sides)
            case Finish():
                self._finish = order

    def _answer(self, serial: int, work: Callable[[], None]) -> None:
        try:
            work()
        except CofferdamError as error:
            self._report(OrderFailed(serial, str(error), error.hint, isinstance(error, StoreUnfit)))
        except OSError as error:
            self._report(OrderFailed(serial, f"{error.strerror or error}"))

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
        if order.way not in ("", "out", "in"):
            self._open_seam(order)
            return
        listener = self._isolation.open_listener(
            order.place, order.address, order.port, datagrams=order.datagrams, way=order.way, peer=order.peer
        )
        number, self._next_listener = self._next_listener, self._next_listener + 1
        self._listeners[number] = _Listener(listener, self._isolation.space(order.place), order.way)
        name = listener.getsockname()
        self._report(ListenerOpened(order.serial, number, name[0], name[1]))

    def _open_seam(self, order: OpenListener) -> None:
        """An end of a pipe between two crews. Both ends are held here, so that a crew may come and go."""
        space = self._isolation.space(order.place)
        number, self._next_listener = self._next_listener, self._next_listener + 1
        end = self._seams.end((space, order.address, order.port), order.way)
        self._listeners[number] = _Listener(end, space, order.way)
        self._report(ListenerOpened(order.serial, number, order.address, order.port))

    def _start_gate(self, opened: Mapping[str, socket.socket]) -> None:
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        producer = self._producers.new(GATE.name, GATE.says)
        arguments = ["-m", GATE.program, "--orders", "3", "--audit-in", "4", "--audit-out", "5"]
        fds = [theirs.fileno(), producer.answers[0], producer.batches[1], *(one.fileno() for one in opened.values())]
        arguments += [word for number, role in enumerate(opened, 6) for word in ("--door", f"{role}={number}")]
        berth = Berth(GATE, self._isolation.user(GATE.name))
        with theirs, credentials.handed(FIRST_FD + len(fds)) as (words, more):
            self._start(GATE.name, berth, [*arguments, *words, *self._gate_arguments], [*fds, *more], producer)

    def _spawn(self, order: Spawn) -> None:
        """All parts of a crew, or none."""
        crew = self._crews.get(order.kind)
        if crew is None:
            raise GateError(f"there is no crew of the kind {order.kind}")
        cut = [part.place.side for part in order.parts if part.place is not None and part.place.side in self._cut]
        if cut:
            raise GateError(f"the {cut[0]} side was cut off by a signal, and the gate does not know yet")
        berths = self._berths(crew, order)
        joints = crew.joints(berths.keys())
        children: list[Child] = []
        with pipes_of(len(joints)) as pipes, pipes_of(2 * len(berths)) as control:
            joined = self._kept.again(crew, order) or dict(zip(joints, pipes, strict=True))
            try:
                for number, part in enumerate(order.parts):
                    ends = (control[2 * number][0], control[2 * number + 1][1])
                    children.append(self._spawn_part(order, part, berths[part.part], ends, joined))
            except BaseException:
                for child in children:
                    os.kill(self._children.by_number[child.child].pid, signal.SIGKILL)
                raise
            self._kept.keep(order.crew, crew, joined, children)
            ours = [(control[2 * number + 1][0], control[2 * number][1]) for number in range(len(berths))]
            self._report(Spawned(order.serial, tuple(children)), [fd for pair in ours for fd in pair])

    def _berths(self, crew: Crew, order: Spawn) -> dict[str, Berth]:
        """Where and as whom the parts of a crew live, their stores made. Raises: GateError, if the order makes no
        sense or a store is not to be had."""
        if wrong := crew.unfit([part.part for part in order.parts], again=bool(self._kept.again(crew, order))):
            raise GateError(f"the order for the crew {order.crew} ({crew.kind}) {wrong}")
        users: dict[str, int] = {}
        folders: dict[str, Path] = {}
        site: dict[str, dict[str, Path]] = {}
        for part in order.parts:
            profile = crew.parts[part.part]
            if profile.producers and self._producers.taken:
                raise GateError("there is an auditor already")
            if profile.root and any(
                other.profile and other.profile.root for other in self._children.by_number.values()
            ):
                raise GateError(f"{profile.name} runs already")  # a gate that was taken over could order many
            if (part.place is None) == (profile.stands in ("outer", "inner")):
                raise GateError(f"{profile.name} is to stand {profile.stands}, and the order says {part.place}")
            self._check_listeners(part, profile, f"{order.road or order.crew}/{part.part}")
            if profile.fenced:
                self._isolation.admit(f"{order.road or order.crew}/{part.part}")
            users[part.part] = self._isolation.user(f"{order.road or order.crew}/{part.part}")
            if profile.store:
                folders[part.part] = stores.make(
                    self._state, order.crew, part.part, users[part.part], shared=crew.is_read(part.part)
                )
            if part.folders and not profile.folders:
                raise GateError(f"{profile.name} is given a folder of the site's, and may have none")
            site[part.part] = {name: sites.make(self._folders, name, users[part.part]) for name in part.folders}
        return {
            part.part: Berth(
                profile := crew.parts[part.part],
                users[part.part],
                part.place,
                folders.get(part.part),
                part.quota or profile.quota,
                crew.is_read(part.part),
                self._reads(crew, order, part.part, folders, users),
                site[part.part],
                urgent=part.urgent,
            )
            for part in order.parts
        }

    def _reads(
        self, crew: Crew, order: Spawn, part: str, folders: Mapping[str, Path], users: Mapping[str, int]
    ) -> dict[Path, int]:
        """What a part sees of others' stores, with whose each is."""
        profile = crew.parts[part]
        found = {self._state / "audit": self._isolation.user("auditor/auditor")} if profile.log else {}
        for name in profile.reads:
            if name in folders:
                found[folders[name]] = users[name]
            elif part in crew.alone and (folder := stores.of(self._state, order.crew, name)).is_dir():
                # It is born again by itself: whose store it sees lives on.
                found[folder] = self._isolation.user(f"{order.road or order.crew}/{name}")
        return found

    def _check_listeners(self, part: PartOrder, profile: Profile, who: str) -> None:
        """A part gets listeners of its own network, if it may use any; and the ends of a strand that the network plan
        has for it alone, wherever they are."""
        for number in part.listeners:
            held = self._listeners.get(number)
            if held is None:
                raise GateError(f"no listener {number}")
            if held.way in ("", "out", "in"):
                fits = bool(profile.can & _FITTING[held.way])
            else:
                fits = profile.seam != "" and held.way in SEAM_WAYS[profile.seam]
            if not fits:
                raise GateError(f"{profile.name} is given a listener, and may use none of that kind")
            if part.place is None:
                raise GateError(f"{profile.name} is given a listener, and may use none")
            if held.space != self._isolation.space(part.place) and not (
                held.way and self._isolation.strand_of(held.space) == who
            ):
                raise GateError(f"{profile.name} is given a listener of {held.space}, and stands elsewhere")

    def _spawn_part(
        self,
        order: Spawn,
        part: PartOrder,
        berth: Berth,
        control: tuple[int, int],
        pipes: Mapping[tuple[str, str], tuple[int, int]],
    ) -> Child:
        profile, name = berth.profile, f"{order.crew}/{part.part}"
        program = self._build.arguments if profile.compiled else ("-m", profile.program)
        arguments = [*program, "--name", name, "--kind", order.kind, "--part", part.part]
        fds: list[int] = []

        def give(option: str, fd: int, other: str = "") -> None:
            arguments.extend((option, f"{other}{'=' if other else ''}{FIRST_FD + len(fds)}"))
            fds.append(fd)

        give("--control-in", control[0])
        give("--control-out", control[1])
        producer = self._producers.new(name, profile.says) if profile.says else None
        if producer is not None:
            give("--audit-in", producer.answers[0])
            give("--audit-out", producer.batches[1])
        for (source, target), (read_fd, write_fd) in pipes.items():
            if target == part.part:
                give("--in", read_fd, source)
            elif source == part.part:
                give("--out", write_fd, target)
        if profile.writes or profile.root:
            arguments += ["--state", str(self._state)]
        if profile.root:  # what it looks at, it does not ask the gate
            arguments += ["--isolation", self._isolation.name]
        theirs = self._producers.attach() if profile.producers else None
        if theirs is not None:
            give("--producers", theirs.fileno())
        at = FIRST_FD + len(fds) if part.listeners else 0
        if part.listeners:
            arguments += ["--listeners-at", str(at), "--listeners", str(len(part.listeners))]
            fds += [self._listeners[number].sock.fileno() for number in part.listeners]
        with contextlib.ExitStack() as failed, contextlib.ExitStack() as after:
            if producer is not None:
                failed.callback(self._producers.end, producer)
            if theirs is not None:
                after.callback(theirs.close)
                failed.callback(self._producers.detach)
            held = hold_network(self._state) if profile.wires else -1
            if held >= 0:
                after.callback(os.close, held)
            for wire in self._isolation.wires(part.place) if profile.wires and part.place is not None else ():
                after.callback(wire.sock.close)
                arguments += ["--wire", f"{FIRST_FD + len(fds)},{wire.text}"]
                fds.append(wire.sock.fileno())
            child = self._start(part.part, berth, arguments, fds, producer)
            process = self._children.by_number[child.child]
            process.held = os.dup(held) if held >= 0 else -1
            process.side = part.place.side if part.place is not None else ""
            failed.pop_all()
        if theirs is not None:
            self._producers.introduce_all()
        reads = {other.name: str(other) for other in berth.reads}
        store = str(berth.store) if berth.store is not None else ""
        folders = {name: str(path) for name, path in berth.folders.items()}
        return structs.replace(child, listeners_at=at, store=store, reads=reads, folders=folders)

    def _spawn_job(self, order: SpawnJob) -> None:
        """A process for one piece of work: control pipes, what it may read, and nothing else."""
        crew = self._crews.get(order.kind)
        profile = crew.jobs.get(order.job) if crew is not None else None
        if crew is None or profile is None:
            raise GateError(f"crews of the kind {order.kind} have no job {order.job}")
        children = self._children.by_number.values()
        if sum(1 for each in children if each.profile and each.profile.ordered_by) >= MOST_JOBS:
            raise GateError(f"{MOST_JOBS} jobs run already")
        road, name = order.road or order.crew, f"{order.crew}/{order.job}"
        folders = {part: stores.of(self._state, order.crew, part) for part in profile.reads}
        if missing := [part for part, folder in folders.items() if not folder.is_dir()]:
            raise GateError(f"{name} reads the store of {missing[0]}, which there is not")
        sockets = {word: self._sockets[word] for word in profile.sockets if word in self._sockets}
        berth = Berth(
            profile,
            self._isolation.user(f"{road}/{order.job}"),
            reads={folder: self._isolation.user(f"{road}/{part}") for part, folder in folders.items()},
            sockets=tuple(sockets.values()),
        )
        arguments = ["-m", profile.program, "--name", name, "--kind", order.kind, "--job", order.job]
        arguments += ["--control-in", str(FIRST_FD), "--control-out", str(FIRST_FD + 1)]
        with pipes_of(2) as pipes:
            child = self._start(order.job, berth, arguments, [pipes[0][0], pipes[1][1]], None)
            seen = {part: str(folder) for part, folder in folders.items()}
            child = structs.replace(child, reads=seen, sockets={word: str(path) for word, path in sockets.items()})
            self._report(Spawned(order.serial, (child,)), [pipes[1][0], pipes[0][1]])

    def _end_auditor(self) -> None:
        self._children.kill(lambda process: process.profile is not None and bool(process.profile.producers))

    def _set_tunnel(self, order: SetTunnel) -> None:
        tunnel = self._isolation.tunnel()
        pid = tunnel.make()
        child = self._children.register(TUNNEL, pid, None) if pid else None
        try:
            tunnel.set(order)
        except CofferdamError:
            tunnel.end()  # it may still let in whom it should not
            raise
        kind: Literal["kernel", "wireguard-go"] = "kernel" if tunnel.kind == "kernel" else "wireguard-go"
        self._report(TunnelSet(order.serial, kind, tunnel.name, child))

    # --- children -----------------------------------------------------------------------------------------------

    def _start(self, part: str, berth: Berth, arguments: list[str], fds: list[int], producer: Producer | None) -> Child:
        """Starts a child with no more of the environment than it needs."""
        wanted = [*_ENVIRONMENT, *(self._gate_environment if berth.profile is GATE else ())]
        environment = {name: os.environ[name] for name in wanted if name in os.environ}
        return self._children.start(part, berth, arguments, environment, fds, producer)

    def _end_all(self) -> None:
        self._children.end_all(self._producers.close)
        for listener in self._listeners.values():
            listener.sock.close()
        self._listeners.clear()
        self._seams.close()
        self._kept.close()
        if self._orders is not None:
            self._orders.close()
            self._orders = None
