"""The control socket: how `status`, `reload`, `down`, `sever` and `restore` reach the running gate.

A Unix socket in the state directory, mode 0600, and the kernel says who is at the other end (SO_PEERCRED): the user
whose gate it is, or root. One request, a JSON line, and one answer, a JSON line, for each connection.

Beside it there may be a socket for each role (enforce.doors), where who is in its group asks for what the role may.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from cofferdam.audit.events import evidence
from cofferdam.audit.events.base import clip
from cofferdam.audit.events.proof import ProofDone
from cofferdam.errors import CofferdamError, GateError, PolicyError
from cofferdam.gate.asking import UNHEARD, told_apart
from cofferdam.gate.audit import now_ns
from cofferdam.gate.gate import REPORT_SECONDS, Gate
from cofferdam.gate.log import spelled
from cofferdam.gate.pinging import ping_asset
from cofferdam.gate.reload import reload_policy
from cofferdam.gate.requests import (
    LOOK,
    MAY,
    AddPeer,
    AgreeGrant,
    Answer,
    AskGrant,
    AskPart,
    Clocks,
    Down,
    EndGrant,
    EndSession,
    Findings,
    Leaks,
    Night,
    Peers,
    PingAsset,
    Policy,
    Proof,
    Record,
    Reload,
    Request,
    Restore,
    RestorePart,
    RevokePeer,
    Sever,
    SeverPart,
    Status,
)
from cofferdam.gate.shown import Shown, ShownPolicy
from cofferdam.gate.sides import RECORD_SECONDS
from cofferdam.gate.state import REQUEST_BYTES, control_socket

REQUEST_SECONDS = 5.0
"""For the request to arrive."""
ANSWER_SECONDS = 5.0
"""For an answer to be taken: who does not read holds no place for others."""
PIECE_BYTES = 256 << 10
"""Of an answer that are written at once: of one who reads slowly no more than that is kept."""
AT_A_DOOR = 8
"""Connections of a role that are open at a time. For one more, whoever has most there gives up the oldest of theirs;
who has most already is closed unheard. Nobody's group keeps the gate busy, and nobody in it keeps the others out."""
PLACE_SECONDS = 0.1
"""A connection at a door takes its place for so long at least: a loop that asks and asks leaves the gate its time."""
LET_IN, BREATH_SECONDS = 16, 0.01
"""So many connections of a role are let in, or shut out, before the next breath: the rest wait in the kernel. However
many knock, that is a twentieth of the gate's time or so."""
PING_SECONDS = 1.0
"""From one ping of a member to the next, whatever the asset: each is an entry of the log."""
LOGIN_SECONDS, NAME_SECONDS = 0.2, 5.0
"""For the launcher to say whose login it is. A severing does not wait for a name; what two people have to agree on
does, and is refused without one (asking)."""
NEEDS_NAME = ("ask-grant", "agree-grant", "ask-part")
NOBODY = -1
"""All users that this machine has no name for count as one: anybody may have thousands of those (subuid)."""


class ControlServer:
    """Serves the control socket of one gate."""

    def __init__(self, gate: Gate, doors: Mapping[str, socket.socket] = {}) -> None:
        """`doors`: a listening socket for each role that somebody has (enforce.doors)."""
        self._gate = gate
        self._doors = dict(doors)
        # The connections of each role, the oldest first, with the user at the other end.
        self._at_door: dict[str, dict[asyncio.StreamWriter, int]] = {role: {} for role in doors}
        self._shown, self._peers, self._policy = Shown(), Shown(), ShownPolicy()
        self._pinged: dict[str, float] = {}
        self._letting_in: list[asyncio.Task[None]] = []
        self._met: set[asyncio.Task[None]] = set()
        self._servers: list[asyncio.Server] = []
        self._path: Path = control_socket(gate.options.state)

    async def listen(self) -> None:
        """Raises: GateError."""
        ours = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            # The launcher's lock says that no other gate runs here: what lies there is a dead gate's.
            self._path.unlink(missing_ok=True)
            old = os.umask(0o177)
            try:
                ours.bind(str(self._path))
            finally:
                os.umask(old)
        except OSError as error:
            ours.close()
            hint = "a socket's path has at most 107 bytes: use a shorter --state" if len(str(self._path)) > 107 else ""
            raise GateError(f"cannot make the control socket {self._path}: {error}", hint=hint) from None
        self._servers = [await asyncio.start_unix_server(self._serve, sock=ours, limit=REQUEST_BYTES)]
        for role, sock in self._doors.items():
            self._letting_in.append(asyncio.get_running_loop().create_task(self._let_in(role, sock)))

    async def close(self) -> None:
        for task in self._letting_in:  # who has been let in is answered, as long as there is time
            task.cancel()
        await asyncio.gather(*self._letting_in, return_exceptions=True)
        self._letting_in.clear()
        for sock in self._doors.values():
            sock.close()
        for server in self._servers:
            server.close()
            await server.wait_closed()
        if self._servers:
            self._servers.clear()
            self._path.unlink(missing_ok=True)

    async def _let_in(self, role: str, sock: socket.socket) -> None:
        """Takes connections at a door, some at a time. Who would be shut out is so before anything is made for them.
        Raises nothing."""
        sock.setblocking(False)
        loop, there = asyncio.get_running_loop(), self._at_door[role]
        while True:
            for _ in range(LET_IN):
                try:
                    came, _ = await loop.sock_accept(sock)
                except OSError:  # it went away, or there is no room for it just now
                    break
                try:
                    shut = len(there) >= AT_A_DOOR and not _would_give_way(there, _counts_as(_peer(came)[1]))
                except OSError:
                    shut = True
                if shut:
                    came.close()
                    continue
                task = loop.create_task(self._meet(role, came))
                self._met.add(task)
                task.add_done_callback(self._met.discard)
            await asyncio.sleep(BREATH_SECONDS)

    async def _meet(self, role: str, came: socket.socket) -> None:
        """Whatever goes wrong with who came costs them their connection."""
        try:
            reader, writer = await asyncio.open_unix_connection(sock=came, limit=REQUEST_BYTES)
            await self._at(role, reader, writer)
        except Exception as error:
            came.close()
            self._gate.log.error("command-failed", command="?", by=role, reason=f"{type(error).__name__}: {error}")

    async def _at(self, role: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = self._at_door[role]
        try:
            uid = _counts_as(_peer(writer.get_extra_info("socket"))[1])
        except OSError:  # it went away at once
            writer.close()
            return
        if len(there) >= AT_A_DOOR and not _gives_way(there, uid):
            writer.close()
            return
        there[writer] = uid
        over = time.monotonic() + PLACE_SECONDS
        try:
            await self._serve(reader, writer, role)
            await asyncio.sleep(over - time.monotonic())
        finally:
            there.pop(writer, None)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, role: str = "") -> None:
        try:
            pid, uid = _peer(writer.get_extra_info("socket"))
            async with asyncio.timeout(REQUEST_SECONDS):
                line = await reader.readuntil(b"\n")
            if role or uid in (0, os.geteuid()):
                wait = NAME_SECONDS if _verb(line) in NEEDS_NAME else LOGIN_SECONDS
                answer: Answer | bytes = await self._obey(line, await self._person(pid, uid, role, wait), reader, role)
            else:
                answer = Answer(False, error="only root and the user whose gate this is may use it")
            told = memoryview(answer if isinstance(answer, bytes) else self._encoded(answer) + b"\n")
            async with asyncio.timeout(ANSWER_SECONDS):
                for start in range(0, len(told), PIECE_BYTES):
                    writer.write(told[start : start + PIECE_BYTES])
                    await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # it went away, or it is none of ours
        finally:
            writer.close()
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    await writer.wait_closed()
            except TimeoutError:
                writer.transport.abort()
            except OSError:
                pass

    def _encoded(self, answer: Answer) -> bytes:
        try:
            return msgspec.json.encode(answer)
        except Exception as error:  # what no JSON can say has come from a part
            self._gate.command_failed("answer", "gate", error)
            return msgspec.json.encode(Answer(False, None, f"the answer cannot be written: {error}"))

    async def _obey(self, line: bytes, user: str, reader: asyncio.StreamReader, role: str) -> Answer | bytes:
        try:
            request = msgspec.json.decode(line, type=Request)
        except Exception as error:  # whatever the words are (too deep, too large), they are theirs and no bug of ours
            return Answer(False, error=f"not understood: {error}", hint="is the command of the gate's own version?")
        try:
            if role and not isinstance(request, MAY[role]):
                may = "may look at this gate and cut off" if role == "sever" else "may look at this gate"
                return Answer(False, error=f"{user} {may}, and no more", hint=_ASK_ROOT)
            if role and isinstance(request, Status):
                return Answer(True, await self._shown.of(lambda fresh: self._do(Status(fresh), user)))
            if role and isinstance(request, Peers):  # the launcher has a process made for it
                return Answer(True, await self._peers.of(lambda _: self._do(request, user)))
            if isinstance(request, Policy):
                return self._policy.told(self._gate, _counts_for(user) if role else None)
            if role and isinstance(request, PingAsset):
                self._pace(_counts_for(user))
            if isinstance(request, (AskGrant, AgreeGrant)):
                told_apart(user)
            if isinstance(request, (Sever, SeverPart, EndSession, Restore, RestorePart, AskGrant)):
                # Their words are shown to others, who are root: no terminal is to obey them, and no line is to begin.
                request = msgspec.structs.replace(request, reason=clip(spelled(request.reason)))
            more = b""
            if isinstance(request, Reload) and request.bytes:
                async with asyncio.timeout(REQUEST_SECONDS):
                    more = await reader.readexactly(request.bytes)
            try:
                return Answer(True, await self._do(request, user, more))
            finally:
                if not isinstance(request, LOOK):
                    self._shown.forget()
                    self._peers.forget()
        except (asyncio.IncompleteReadError, TimeoutError):
            raise  # it went away in the middle: nothing was done
        except PolicyError as error:
            return Answer(False, None, str(error), error.hint, tuple(map(str, error.problems)))
        except CofferdamError as error:
            return Answer(False, None, str(error), error.hint)
        except Exception as error:  # an operator's command never ends the gate, whatever it met
            self._gate.command_failed(_verb(line), user, error)
            return Answer(False, None, f"it failed: {error}", "the gate's log says more")

    def _pace(self, user: str) -> None:
        """Raises: GateError, for who has pinged a moment ago."""
        now = time.monotonic()
        self._pinged = {one: at for one, at in self._pinged.items() if now - at < PING_SECONDS}
        if user in self._pinged:
            raise GateError(f"{user or 'somebody'} asked less than a second ago", hint="wait, and ask again")
        self._pinged[user] = now

    async def _person(self, pid: int, uid: int, role: str, seconds: float = LOGIN_SECONDS) -> str:
        """Who it is: for root, and for the gate's user, the one who logged in (`loginuid`, which sudo and su leave
        alone), if the launcher knows; for members of a group the user that they are.

        So that two people are two although both may do this as root only. Root can pretend to be anybody: this tells
        colleagues apart, it does not keep root from lying. A member could lie, too: a process that no login began may
        say once who logged in, without any privilege. So a member's word for it is not asked.
        """
        login = -1
        if uid == 0 or (not role and uid == os.geteuid()):
            try:
                async with asyncio.timeout(seconds):
                    login = await self._gate.launcher.ask_login(pid)
            except (GateError, TimeoutError):
                return _user(uid) + UNHEARD
        return _user(uid if login < 0 else login)

    async def _do(self, request: Request, user: str, more: bytes = b"") -> object:
        gate = self._gate
        match request:
            case Status(fresh):
                if fresh:
                    await asyncio.gather(gate.reports(), gate.drops.fresh(REPORT_SECONDS))
                    await gate.look_at_sessions()
                return gate.status()
            case PingAsset(asset):
                return await ping_asset(gate, asset, user)
            case Reload(path):
                if path and not path.startswith("/"):
                    raise GateError("the policy's path is not absolute")
                return await reload_policy(gate, Path(path) if path else None, more)
            case Policy():
                raise GateError("the policy is told as it is kept")  # see _obey
            case Down():
                gate.stop(f"stopped by {user}")
                return None
            case Sever(side, reason, until_ns):
                if until_ns and until_ns <= now_ns():
                    raise GateError("that end is over already", hint="--for takes a duration from now, such as 2h")
                sessions = await gate.sever(side, user, reason, until_ns)
                ends = next((cut.until_ns for cut in gate.cuts.cuts if cut.side == side), 0)
                return {"side": side, "sessions": sessions, "until_ns": ends}
            case SeverPart(kind, name, reason, until_ns):
                sessions, ends = await gate.hands.sever(gate, kind, name, user, reason, until_ns)
                return {"what": kind, "name": name, "sessions": sessions, "until_ns": ends}
            case RestorePart(kind, name, reason):
                changed = await gate.hands.restore(gate, kind, name, user, reason)
                return {"what": kind, "name": name, "changed": changed}
            case EndSession(session, reason):
                return {"what": "session", "name": session, "sessions": await gate.end_session(session, user, reason)}
            case AskGrant(conduit, lasts, reason):
                return await gate.hands.ask(gate, conduit, user, reason, lasts)
            case AgreeGrant(number):
                return await gate.hands.agree(gate, number, user)
            case EndGrant(number):
                return {"number": number, "changed": await gate.hands.end(gate, number, user)}
            case AddPeer(name, key):
                return await gate.overlay.add_peer(name, key, user)
            case RevokePeer(name):
                return await gate.overlay.revoke_peer(name, user)
            case Peers():
                return await gate.overlay.peers()
            case AskPart(broker, part, verb, arguments, crew):
                return await gate.ask(broker, part, verb, arguments, crew, user)
            case Restore(side, reason):
                return {"side": side, "changed": await gate.restore(side, user, reason=reason)}
            case Proof(report, result, detail):
                done = ProofDone(report=report, result=result, detail=clip(detail), wall_ns=now_ns())
                return {"recorded": await gate.audit.record(done, RECORD_SECONDS)}
            case Findings(made):
                return {"recorded": gate.evidence.take(made, user)}
            case Clocks(due):
                return {"alarms": gate.evidence.clocks(due)}
            case Night():
                return {"begins": gate.evidence.nightly.ask()}
            case Record(event):
                gate.evidence.told(event)
                return {"recorded": await gate.audit.record(by_whom(event, user), RECORD_SECONDS)}
            case Leaks(tried, found):
                gate.leaks.told("")
                return {"new": gate.leaks.found(tried, {leak.asset: leak.detail for leak in found})}


_ASK_ROOT = "root and the user whose gate it is may do the rest (docs/operations.md has the table)"


def _would_give_way(there: Mapping[Any, int], uid: int) -> bool:
    """Whether somebody has more there than `uid` would have with one more."""
    users = list(there.values())
    return max(map(users.count, users)) > users.count(uid) + 1


def _gives_way(there: dict[asyncio.StreamWriter, int], uid: int) -> bool:
    """Ends the oldest connection of the user with most of them, if that is more than `uid` would have with one more.
    What it has asked for is done all the same."""
    if not _would_give_way(there, uid):
        return False
    users = list(there.values())
    most = max(users, key=users.count)
    oldest = next(writer for writer, user in there.items() if user == most)
    del there[oldest]
    oldest.transport.abort()
    return True


class _Named:
    """Users that this machine has a name for. To look for one in a list of thousands takes milliseconds, and whoever
    has no name may come a thousand times a second, each time as another."""

    def __init__(self) -> None:
        self._users: frozenset[int] = frozenset()
        self._of: tuple[int, ...] | None = None

    def __contains__(self, uid: int) -> bool:
        try:
            found = Path("/etc/passwd").stat()
            of: tuple[int, ...] = (found.st_ino, found.st_size, found.st_mtime_ns)
        except OSError:
            of = ()
        if of != self._of:
            self._users, self._of = frozenset(user.pw_uid for user in pwd.getpwall()), of
        return uid in self._users


_named = _Named()


def _counts_as(uid: int) -> int:
    """As whom a user takes places."""
    return uid if uid in _named else NOBODY


def _verb(line: bytes) -> str:
    """The command that a line names, for the record."""
    try:
        return str(msgspec.json.decode(line).get("type", "?"))[:64]
    except Exception:
        return "?"


def by_whom(event: evidence.Told, user: str) -> evidence.Told:
    """The event with who asked for it and when, as the gate knows both."""
    changes: dict[str, Any] = {"wall_ns": now_ns()}
    if "by" in event.__struct_fields__:
        changes["by"] = clip(user, 128)
    return msgspec.structs.replace(event, **changes)


def _peer(end: socket.socket) -> tuple[int, int]:
    """The process and the user id at the other end, as the kernel knows them. Raises: OSError."""
    raw = end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("iII"))
    pid, uid, _ = struct.unpack("iII", raw)
    return pid, uid


_NAMELESS = "uid "
"""No user's name begins so: it has a space."""


def _counts_for(user: str) -> str:
    """As whom a member is paced: whoever may be many counts as one."""
    return "" if user.startswith(_NAMELESS) else user


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"{_NAMELESS}{uid}"
