"""The gate's side of the launcher's socket: orders as awaitable calls, reports handed to who waits for them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeVar

from cofferdam.enforce.orders import (
    MAX_ORDER,
    MAX_PART,
    MOST_PARTS,
    ORDERS,
    PLANS,
    REPORTS,
    AskDropped,
    Asked,
    AskLogin,
    AskTunnel,
    Child,
    CloseListener,
    DroppedState,
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
    PeerState,
    Place,
    Prepare,
    Prepared,
    Report,
    SetTunnel,
    Severing,
    Spawn,
    Spawned,
    SpawnJob,
    TunnelPeer,
    TunnelSet,
    TunnelState,
    Way,
)
from cofferdam.enforce.plans.records import NetworkPlan
from cofferdam.errors import CrossingError, GateError, StoreUnfit

R = TypeVar("R", Prepared, ListenerOpened, Spawned, TunnelSet, TunnelState, DroppedState, Login)

MAX_FDS = 2 * MOST_PARTS
"""Descriptors with one report: two for each child of a crew."""


class Born:
    """A child that was started: what to read from it and write to it by, and how it ends. `listeners_at`, `store`,
    `reads`, `folders` and `sockets` are for itself: the number of its first listener, folders, services of the host."""

    def __init__(self, child: Child, read_fd: int, write_fd: int, ended: asyncio.Future[int]) -> None:
        self.number = child.child
        self.part = child.part
        self.pid = child.pid
        self.listeners_at = child.listeners_at
        self.store = child.store
        self.reads = dict(child.reads)
        self.folders = dict(child.folders)
        self.sockets = dict(child.sockets)
        self.read_fd = read_fd
        self.write_fd = write_fd
        self.call = ""
        """The system call for which the kernel ended it, where it says so; there before `ended` is done."""
        self.ended = ended
        """Done with the exit status (minus the signal's number) when the launcher has reaped it."""


class LauncherLink:
    """One object; `on_asked` is called when somebody signals the launcher or has changed the fence, `on_lost` when the
    launcher has gone."""

    def __init__(
        self, end: socket.socket, on_asked: Callable[[Asked | Fenced], None], on_lost: Callable[[], None]
    ) -> None:
        self._socket = end
        self._loop = asyncio.get_running_loop()
        self._on_asked = on_asked
        self._on_lost = on_lost
        self._serial = 0
        self._outgoing: deque[bytes] = deque()
        self._waiting: dict[int, asyncio.Future[tuple[Report, list[int]]]] = {}
        self._ended: dict[int, asyncio.Future[int]] = {}
        self._born: dict[int, Born] = {}
        self._early: dict[int, Exited] = {}
        end.setblocking(False)
        self._loop.add_reader(end.fileno(), self._readable)

    async def prepare(self, plan: NetworkPlan) -> Prepared:
        """Raises: GateError."""
        data, serial = PLANS.encode(plan), self._next()
        while len(data) > MAX_PART:
            self._send(Prepare(serial, data[:MAX_PART], more=True))
            data = data[MAX_PART:]
        return (await self._call(Prepare(serial, data), Prepared))[0]

    async def open_listener(
        self, place: Place, address: str, port: int, *, datagrams: bool = False, way: Way = "", peer: str = ""
    ) -> ListenerOpened:
        """Raises: GateError: which address, why, and what to do."""
        order = OpenListener(self._next(), place, address, port, datagrams, way, peer)
        return (await self._call(order, ListenerOpened))[0]

    def close_listener(self, listener: int) -> None:
        self._send(CloseListener(listener))

    async def spawn(self, kind: str, crew: str, parts: Sequence[PartOrder], *, road: str = "") -> list[Born]:
        """The children, in the order of `parts`. Raises: GateError; StoreUnfit, where it is for a store of theirs."""
        spawned, fds = await self._call(Spawn(self._next(), kind, crew, tuple(parts), road), Spawned)
        return self._births(spawned, fds)

    async def spawn_job(self, kind: str, crew: str, job: str, *, road: str = "") -> Born:
        """One process for one piece of work. Raises: GateError."""
        spawned, fds = await self._call(SpawnJob(self._next(), kind, crew, job, road), Spawned)
        return self._births(spawned, fds)[0]

    async def set_tunnel(self, key: str, peers: tuple[TunnelPeer, ...]) -> tuple[TunnelSet, asyncio.Future[int] | None]:
        """The tunnel, and when its program ends, if one was started for it. Raises: GateError."""
        done = (await self._call(SetTunnel(self._next(), key, peers), TunnelSet))[0]
        if done.child is None:
            return done, None
        ended: asyncio.Future[int] = self._loop.create_future()
        self._ended[done.child.child] = ended
        if done.child.child in self._early:
            self._exited(self._early.pop(done.child.child))
        return done, ended

    async def ask_tunnel(self) -> tuple[PeerState, ...]:
        """Raises: GateError."""
        return (await self._call(AskTunnel(self._next()), TunnelState))[0].peers

    async def ask_dropped(self) -> DroppedState:
        """What the firewalls have dropped so far, and how the interfaces do. Raises: GateError."""
        return (await self._call(AskDropped(self._next()), DroppedState))[0]

    async def ask_login(self, pid: int) -> int:
        """The user whose login began this process of the machine; -1 where none did. Raises: GateError."""
        return (await self._call(AskLogin(self._next(), pid), Login))[0].uid

    def kill(self, born: Born) -> None:
        """Ends a child at once; nothing happens if it has ended."""
        if not born.ended.done():
            self._send(Kill(born.number))

    def notify(self, order: Notify | Severing) -> None:
        self._send(order)

    async def finish(self, order: Finish) -> None:
        """The last order. Does not return: the launcher ends this process."""
        self._loop.remove_reader(self._socket.fileno())
        self._loop.remove_writer(self._socket.fileno())
        self._socket.setblocking(True)
        for waiting in self._outgoing:
            self._socket.send(waiting)
        self._socket.send(ORDERS.encode(order))
        await self._loop.create_future()

    def _next(self) -> int:
        self._serial += 1
        return self._serial

    def _send(self, order: Order) -> None:
        self._outgoing.append(ORDERS.encode(order))
        if len(self._outgoing) == 1:
            self._flush()

    def _flush(self) -> None:
        """Sends what the socket takes; the rest when it has room, in order."""
        # A launcher that does not read is a launcher that has gone; the kernel ends us with it.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while self._outgoing:
                try:
                    self._socket.send(self._outgoing[0])
                except BlockingIOError:
                    self._loop.add_writer(self._socket.fileno(), self._flush)
                    return
                self._outgoing.popleft()
        self._outgoing.clear()
        self._loop.remove_writer(self._socket.fileno())

    async def _call(
        self,
        order: Prepare | OpenListener | Spawn | SpawnJob | SetTunnel | AskTunnel | AskDropped | AskLogin,
        kind: type[R],
    ) -> tuple[R, list[int]]:
        try:
            # The launcher ends everything at an order that does not decode: such a one must not be sent.
            ORDERS.decode(ORDERS.encode(order))
        except CrossingError as error:
            raise GateError(
                f"the launcher would not take this {type(order).__name__}: {error}",
                hint="the policy asks for more than one crew can have: shorter names, or fewer assets on one road "
                "(`cofferdam up --pairs N` spreads them)",
            ) from None
        future: asyncio.Future[tuple[Report, list[int]]] = self._loop.create_future()
        self._waiting[order.serial] = future
        try:
            self._send(order)
            report, fds = await future
        finally:
            self._waiting.pop(order.serial, None)
        if isinstance(report, OrderFailed):
            raise (StoreUnfit if report.store else GateError)(report.message, hint=report.hint)
        if not isinstance(report, kind):
            raise CrossingError(f"the launcher answered {type(order).__name__} with {type(report).__name__}")
        return report, fds

    def _births(self, spawned: Spawned, fds: list[int]) -> list[Born]:
        if len(fds) != 2 * len(spawned.children):
            raise CrossingError(f"{len(fds)} descriptors came with {len(spawned.children)} children")
        born = []
        for child, read_fd, write_fd in zip(spawned.children, fds[::2], fds[1::2], strict=True):
            ended = self._loop.create_future()
            one = Born(child, read_fd, write_fd, ended)
            self._ended[child.child], self._born[child.child] = ended, one
            born.append(one)
            if child.child in self._early:
                self._exited(self._early.pop(child.child))
        return born

    def _readable(self) -> None:
        for _ in range(64):
            try:
                data, fds, flags, _ = socket.recv_fds(self._socket, MAX_ORDER + 1, MAX_FDS)
            except BlockingIOError:
                return
            except ConnectionResetError:
                data, fds, flags = b"", [], 0
            if not data:
                self._loop.remove_reader(self._socket.fileno())
                self._on_lost()
                return
            if flags & (socket.MSG_CTRUNC | socket.MSG_TRUNC):
                raise CrossingError("a report of the launcher was cut short")
            for fd in fds:
                os.set_inheritable(fd, False)
            self._take(REPORTS.decode(data), fds)

    def _take(self, report: Report, fds: list[int]) -> None:
        if isinstance(report, Asked | Fenced):
            self._on_asked(report)
        elif isinstance(report, Exited):
            self._exited(report)
        else:
            future = self._waiting.pop(report.serial, None)
            if future is not None and not future.done():
                future.set_result((report, fds))
            else:
                for fd in fds:
                    os.close(fd)

    def _exited(self, report: Exited) -> None:
        ended = self._ended.pop(report.child, None)
        if ended is None:
            # It ended before its birth was told to who waits for it (both came in one turn of the loop).
            self._early[report.child] = report
            return
        born = self._born.pop(report.child, None)
        if born is not None:
            born.call = report.call
        if not ended.done():
            ended.set_result(report.status)
