"""The inner half of a proxy: judges every request again, records it, and asks the asset itself.

The order is: decide, record in the audit log, act. Nothing that comes over the crossing is believed: a message is
checked as if the outer half were hostile, because one day it may be.

Not here: what happens to a write (writes), queues and connections (device), sharing of reads (sharing), the process
around it (brokers.half).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from cofferdam.brokers.broker import Asked, Setting
from cofferdam.brokers.kit.budget import LogBudget, share_of
from cofferdam.brokers.kit.datagrams import Datagrams, bound
from cofferdam.brokers.kit.refusals import RefusalLog
from cofferdam.brokers.kit.seam_ends import BackInner
from cofferdam.brokers.kit.transport import Transport
from cofferdam.brokers.proxy.connection import Job
from cofferdam.brokers.proxy.device import Device
from cofferdam.brokers.proxy.face import towards
from cofferdam.brokers.proxy.inner_reads import Reads
from cofferdam.brokers.proxy.pinging import PING, keep_alive, ping
from cofferdam.brokers.proxy.reads_book import ReadsBook, counted
from cofferdam.brokers.proxy.records import (
    Again,
    Closed,
    Denied,
    Ended,
    Frame,
    Kept,
    Opened,
    Request,
    Unwatch,
    Watch,
)
from cofferdam.brokers.proxy.sessions import Served, Session, Tally, borrowed, no_tls, same_device
from cofferdam.brokers.proxy.sharing import SharedReads
from cofferdam.brokers.proxy.writes import BitJob
from cofferdam.crossing.channel import Sender
from cofferdam.errors import CrossingError
from cofferdam.limits import Limits
from cofferdam.model import Allow, Asset, Deny, Failure, Fault, NeedValues, Operation, Shown
from cofferdam.policy.points.decide import Flow
from cofferdam.policy.rows import BY_JUMP
from cofferdam.policy.table import CompiledPolicy
from cofferdam.protocols.registry import PROTOCOLS, Protocols

CROSSING_NS = 50_000_000
"""A record that crosses takes less than this, but where its reader is late."""
SESSIONS = 65536
"""Sessions that the outer half may have open; it has its own, lower limit on connections."""


class Inner(Reads):
    """The half itself. Besides what the process around it calls, transports and the audit client call it back."""

    def __init__(self, setting: Setting, protocols: Protocols = PROTOCOLS) -> None:
        super().__init__(setting, protocols)
        self.urgent = setting.policy.urgent(setting.broker, setting.policy.conduits)
        self.broker = setting.broker
        self._zones, self._other_zone = setting.zones
        self._connect = setting.dial
        self._ended: dict[int, Session] = {}  # by us, and the outer half has not said yet that it knows
        self._budget = LogBudget(setting.audit)
        self._reads_book = ReadsBook(setting.audit)
        self._common = self.protocol.common(setting.secrets)
        if any(asset.tls is not None and asset.tls.asset for asset in setting.policy.assets.values()):
            from cofferdam.brokers.proxy.securing import Securing  # most halves need no TLS

            self._securing = Securing(setting.secrets, False)
        self._kept_alive: tuple[Served, ...] = ()
        self._seams: dict[tuple[str, int], BackInner] = {}
        port = self.protocol.dialect.datagrams
        # Made now, since the filter lets nobody make a socket later.
        self._datagrams = Datagrams(setting.reactor, bound(port), self._datagram) if port else None
        self._take(setting.policy, setting.assets)
        if setting.again:
            self._state.spend_all(self._clock())
        for write in setting.recent:
            self._state.note_past(
                write.asset,
                write.spans,
                frozenset(write.points),
                write.items,
                self._clock() - write.age_ns,
                write.moves,
            )
        self.set_severed(setting.severed)

    # --- policy and the operator's hand -----------------------------------------------------------------------

    def _take(self, policy: CompiledPolicy, assets: Iterable[str]) -> None:
        self.policy = policy
        self.limits: Limits = policy.limits
        self._most_under_way = policy.limits.client_outstanding * 4
        self._state.adopt(policy.assets, policy.limits.known_value_seconds)
        self._own_side = str(policy.zones[self._other_zone].side)
        self._outer_side = str(policy.zones[self._zones[0]].side)
        kept: dict[str, Served] = {}
        devices: dict[tuple[str, int, str], Device] = {}
        for name in assets:
            asset = policy.assets[name]
            key = (asset.address, asset.port, asset.route)
            device = devices.get(key) or self._devices.get(key)
            if device is None or not same_device(device.asset, asset):
                device = Device(
                    asset=asset,
                    protocol=self.protocol,
                    limits=policy.limits,
                    reactor=self._reactor,
                    connect=self._way_to(asset),
                    report=lambda what, section, detail, asset=asset: self._broken(asset, what, section, detail),  # type: ignore[misc]
                    permit=self._permitted,
                    news=self._news,
                    facing=towards(self._common, asset, self._wall),
                    datagrams=self._datagrams,
                    clock=self._clock,
                )
                device.held = self._own_side in self.severed
            elif key not in devices:
                device.adopt(asset, towards(self._common, asset, self._wall))
            devices[key] = device
            limit_ns = asset.share_reads_ms * 1_000_000
            old = self._served.get(name)
            if old is not None and old.device is device:
                shared = old.shared
                # What is under way keeps its place: only the age that is allowed changes.
                if shared is None or not limit_ns:
                    shared = SharedReads(self.protocol, limit_ns) if limit_ns else None
                else:
                    shared.limit_ns = limit_ns
                    shared.written()
                old.adopt(asset, shared)
                kept[name] = old
            else:
                kept[name] = Served(asset, device, SharedReads(self.protocol, limit_ns) if limit_ns else None)
            kept[name].steps = self._state.watches(name)
        for key, device in self._devices.items():
            if devices.get(key) is not device:
                device.retire("the policy has changed")
        renamed: dict[Device, dict[int, int]] = {}
        units: dict[Device, set[int]] = {}
        for one in kept.values():
            units.setdefault(one.device, set()).add(one.asset.unit)
            if one.asset.device_unit >= 0:
                renamed.setdefault(one.device, {})[one.asset.unit] = one.asset.device_unit
        for device, found in units.items():
            said = renamed.get(device, {})
            if said != device.units:  # what connections have is asked by the old names
                device.units = said
                device.close("the units' names have changed")
            device.shared = len(found) > 1 or (-1 in found and self.protocol.dialect.units is not None)
        for name, gone in self._served.items():
            if kept.get(name) is not gone:
                self._forget_parked(gone, None)
        self._devices, self._served = devices, kept
        # One asset for each device: its connections are shared.
        alive = {id(one.device): one for one in kept.values() if one.asset.manners.keep_alive_ms}
        self._kept_alive = tuple(alive.values())

    def take_secrets(self, secrets: Mapping[str, bytes]) -> None:
        if self._securing is not None:
            self._securing.take(secrets)

    def _way_to(self, asset: Asset) -> Callable[[str, int, Callable[[], None]], Transport]:
        """How a connection to a device is opened."""
        if asset.tls is None or not asset.tls.asset:
            return self._connect
        if self._securing is None:
            return no_tls
        name = asset.tls.name
        return lambda address, port, connected: self._securing.dial(self._connect, name, address, port, connected)

    def take_policy(self, policy: CompiledPolicy, assets: tuple[str, ...]) -> int:
        """Judges by another policy from now on. Returns how many sessions it ended."""
        self._take(policy, assets)
        self._kept.forget()
        ended = 0
        for session in list(self._sessions.values()):
            flow = self._flow(session.source, session.asset, session.shown, session.lent)
            if isinstance(flow, Deny):
                ended += 1
                self._outer.send(Ended(session.id, "the new policy does not allow this session"))
                self._close(session)
                self._ended[session.id] = session
            session.flow = flow
        if self._standings:
            self._judge_all_again()
        return ended

    def accept(self, transport: Transport, source: str, port: int, local: tuple[str, int]) -> None:
        """A device has opened a connection to us, where the policy says that one does. From elsewhere, and where there
        is enough of it, it is closed, and counted."""
        everywhere = ("::" if ":" in local[0] else "0.0.0.0", local[1])  # noqa: S104 - looked up, not bound to
        for device in self._devices.values():
            asset = device.asset
            if asset.address == source and asset.calls_at in (local, everywhere):
                if device.arrived(transport):
                    return
                break
        self.limit_hits["stray_connections"] = self.limit_hits.get("stray_connections", 0) + 1
        transport.close()

    def join(self, place: tuple[str, int], sender: Sender[Any]) -> Callable[[Any], None]:
        back = self._seams[place] = BackInner(sender, self._withdrawn, self._clock)
        return back.take

    def leave(self, place: tuple[str, int]) -> None:
        self._seams.pop(place).end()

    def _withdrawn(self, lent: str) -> None:
        """A session of another broker has ended, and whatever came by it ends here."""
        for session in [one for one in self._sessions.values() if one.lent == lent and one.source.startswith(BY_JUMP)]:
            self._outer.send(Ended(session.id, "the session by which it came has ended"))
            self._close(session)
            self._ended[session.id] = session

    def _datagram(self, source: str, port: int, data: bytes) -> None:
        """By UDP. One that no stream at a device of that address has is dropped, and counted."""
        if not any(device.datagram(port, data) for key, device in self._devices.items() if key[0] == source):
            self.limit_hits["stray_datagrams"] = self.limit_hits.get("stray_datagrams", 0) + 1

    def command(self, asked: Asked) -> None:
        if asked.verb == PING:
            ping(asked, self._served, self.policy, self.protocol, self._wall(), self._clock)
            return
        asked.answer(self.protocol.command(self._common, asked.verb, asked.arguments))

    def _flow(self, source: str, asset: str, shown: Shown, lent: str) -> Flow | Deny:
        if asset not in self._served:
            return Deny("", "", Fault.ASSET, f"{asset} is not served here")
        if source.startswith(BY_JUMP) and not any(
            seam.lends(lent, source[len(BY_JUMP) :], asset, shown.user) for seam in self._seams.values()
        ):
            return Deny(
                "", "", Fault.PRINCIPAL, f"{source} asks, and no session there lives that is theirs and for {asset}"
            )
        return self.policy.flow(self.broker, source, asset, self._zones, shown)

    def set_severed(self, sides: Collection[str]) -> None:
        """Cuts sides off. With the asset's side severed its connections are closed; either side's requests end."""
        self.severed = frozenset(sides)
        held = self._own_side in self.severed
        for device in self._devices.values():
            device.held = held
            if held:
                device.close(f"the {self._own_side} side was severed")
            elif self.severed:
                device.drop_all(f"the {self._outer_side} side was severed")
        if self._standings:
            self._check_all()

    def _permitted(self, job: Job) -> bool:
        """Whether a job that has waited for its turn may still be sent: the verdict has not lapsed, nothing is severed,
        and if another policy came in between, it allows the same."""
        wall = self._wall()
        session = job.session
        if self.severed or wall >= job.allow.valid_until:
            return False
        if session is None or session.flow is job.flow:
            return True
        flow = session.flow
        operation = job.operation if isinstance(job, BitJob) else self.protocol.operation(job.request)
        return isinstance(flow, Flow) and isinstance(flow.decide(operation, wall), Allow)

    # --- records from the outer half --------------------------------------------------------------------------

    def on_record(self, source: str, record: Any) -> None:
        self.take(record)

    def taker(self, source: str) -> Callable[[Any], None]:
        return self.take

    def take(self, record: Any) -> None:
        """What the outer half says.

        Raises:
            CrossingError: it says what no honest outer half would say. The half has to stop.
        """
        if type(record) is Again:
            self._again(record)
        elif isinstance(record, Request):
            self._request(record)
        elif isinstance(record, Kept):
            self._keep(record)
        elif isinstance(record, Opened):
            if record.session in self._sessions or record.session in self._ended:
                raise CrossingError(f"session {record.session} is opened twice")
            if len(self._sessions) + len(self._ended) >= SESSIONS:
                raise CrossingError(f"more than {SESSIONS} sessions are open")
            source = record.source
            if record.lent and not source.startswith(BY_JUMP):  # nobody on the inside knows who that is
                raise CrossingError(f"session {record.session} is lent, and comes by no conduit of the jump server")
            shown = Shown(record.user, record.application, record.certificate)
            flow = self._flow(source, record.asset, shown, record.lent)
            share = share_of(source, record.user) if record.lent and isinstance(flow, Flow) else source
            refusals = RefusalLog(self._audit, self._budget, record.name, source, False, record.asset, share)
            session = Session(record, flow, refusals, share)
            session.from_wall = self._wall()
            self._sessions[record.session] = session
            if record.lent and isinstance(flow, Flow):
                self._audit.note(borrowed(session, self._wall()))
        elif isinstance(record, Closed):
            self._ended.pop(record.session, None)
            closed = self._sessions.get(record.session)
            if closed is not None:
                self._close(closed)
        elif isinstance(record, Watch):
            self._watch(record)
        elif isinstance(record, Unwatch):
            self._unwatch(record)
        elif isinstance(record, Frame):
            self._frame(record)

    def _close(self, session: Session) -> None:
        self._sessions.pop(session.id, None)
        self._forget_held(session)
        served = self._served.get(session.asset)
        if served is not None:
            self._forget_parked(served, session)
            served.device.drop_line(session.share, session.id)
        if self._standings:
            self._end_all_of(session)
        session.refusals.flush(self._wall())
        self._count_reads(session)

    def _take_id(self, record: Request[Any] | Watch[Any]) -> Session | None:
        if record.id <= self._last_id:
            raise CrossingError(f"request {record.id} comes after request {self._last_id}")
        self._last_id = record.id
        session = self._sessions.get(record.session)
        if session is None:
            self._outer.send(Denied(record.id, "", "", Fault.CONDUIT, "the session was ended"))
        return session

    def _request(self, record: Request[Any]) -> None:
        if record.id <= self._last_id:
            raise CrossingError(f"request {record.id} comes after request {self._last_id}")
        self._last_id = record.id
        message = record.message
        session = self._sessions.get(record.session)
        flow = None if session is None else session.flow
        # The same question as before, in the same window: a message that was checked and judged, and is equal to it.
        known = flow.recall(message, self._wall()) if isinstance(flow, Flow) else None
        if known is None:
            self.protocol.check(message)
        if session is None:
            self._over(record)
            return
        try:
            arrived = self._clock()
            operation = self.protocol.operation(message) if known is None else known.operation
            if record.born and operation.is_write and arrived - record.born > CROSSING_NS:
                arrived = record.born  # this half was late: what has lain in the crossing has waited there
            if session.waits and self._hold(session, record, operation, arrived):
                return
            if known is None or self.severed or not self._audit.writable or session.under_way >= self._most_under_way:
                self._judge(session, record, operation, arrived)
            else:
                self._read(session, record.id, known, arrived)
        except CrossingError:
            raise
        except Exception as error:
            self._internal(session, record.id, error)

    def _over(self, record: Request[Any]) -> None:
        """Refuses what had left the outer half before it heard that the session was ended here."""
        verdict = Deny("", "", Fault.CONDUIT, "the session was ended")
        operation = self.protocol.operation(record.message)
        session = self._ended.get(record.session)
        if session is not None and operation.is_write:
            session.refusals.add(verdict, operation, session.flow, self._wall())
        self._answer_refused(operation, Denied(record.id, "", "", verdict.fault, verdict.detail))

    def _judge(self, session: Session, record: Request[Any], operation: Operation, arrived: int) -> None:
        if self._busy(session, record.id, operation):
            return
        verdict = self._decide(session, operation)
        if isinstance(verdict, NeedValues):
            self._park(session, record, operation, arrived)
        else:
            flow = session.flow
            if isinstance(verdict, Allow) and isinstance(flow, Flow):
                flow.remember(record.message, operation, verdict)
            self._settle(session, record, operation, verdict, arrived)

    def _busy(self, session: Session, number: int, operation: Operation) -> bool:
        if session.under_way < self._most_under_way:
            return False
        self._limit("client_outstanding", session.source, "the outer half let too many requests through")
        self._turn_away(session, number, operation, Failure.BUSY, "too many requests of its session are under way")
        return True

    # --- the rest ---------------------------------------------------------------------------------------------

    def _count_reads(self, session: Session) -> None:
        """Tells what was read since it was last told: an entry for each conduit that allowed some of it. What passes
        the source's budget of entries, by sessions without end, is told together with the rest of it (reads_book)."""
        wall = self._wall()
        flow = session.flow
        principals = flow.principals[:16] if isinstance(flow, Flow) else ()
        for tally in session.tallies.values():
            if not tally.reads and not tally.notices:
                continue
            told = counted(session, tally, principals, session.from_wall, wall)
            if not self._reads_book.over(told) and self._budget.spend(session.share, False, wall, 0):
                self._audit.note(told)
            else:
                self._reads_book.add(told)
        session.tally = Tally("")
        session.tallies = {"": session.tally}
        session.from_wall = wall

    def tick(self) -> None:
        """To be called about twice a second."""
        wall = self._wall()
        interval = self.policy.audit.interval_ms * 1_000_000
        for session in self._sessions.values():
            session.refusals.tick(wall)
            if wall - session.from_wall >= interval or wall < session.from_wall:
                self._count_reads(session)
        self._budget.tick(wall)
        self._reads_book.tick(wall)
        for seam in self._seams.values():
            seam.tick()
        self._troubles.tick(self._clock(), wall)
        if self._standings:
            self._check_all()
        for one in self._kept_alive:
            keep_alive(one, self.policy, self.protocol, wall, self._clock())
        for device in self._devices.values():
            device.tick()

    def end(self) -> None:
        for session in list(self._sessions.values()):
            self._close(session)
        for device in self._devices.values():
            device.close("the gate stops")
        if self._datagrams is not None:
            self._datagrams.close()
            self._datagrams = None
        self._budget.tell(self._wall())
        self._reads_book.tell()
        self._troubles.tell(self._wall())

    def halt(self) -> None:
        # Nothing is sent to any device from now on, whatever is confirmed or allowed later; what a device has gets the
        # outcome that it is not known.
        for device in self._devices.values():
            device.retire("the half stops")
