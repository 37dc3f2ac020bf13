"""The jump server's inner part: sessions at assets, by grants of the keeper and by nothing else.

It has no store. It holds a credential for as long as it signs in with it. What the outer part says can only be data of
a session that has a grant.

Not here: the session (inner_session), legs (inner_ssh), what it does while the keeper is away (inner_without).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection
from typing import Any, Final

import asyncssh

from cofferdam.audit.events.base import clip
from cofferdam.audit.events.jump import HostKeyRefused
from cofferdam.brokers.broker import Asked, Part, Setting
from cofferdam.brokers.jump import file_records, records
from cofferdam.brokers.jump.accounts import key_name
from cofferdam.brokers.jump.alone import alone
from cofferdam.brokers.jump.inner_files import Files
from cofferdam.brokers.jump.inner_held import Quarantine
from cofferdam.brokers.jump.inner_lent import Lending
from cofferdam.brokers.jump.inner_rotate import rotate
from cofferdam.brokers.jump.inner_session import Live
from cofferdam.brokers.jump.inner_share import Share
from cofferdam.brokers.jump.inner_ssh import FilesLeg, NoLeg, connect, open_files, open_session
from cofferdam.brokers.jump.inner_telnet import open_telnet
from cofferdam.brokers.jump.inner_without import Without
from cofferdam.brokers.kit.counted import Counted
from cofferdam.brokers.kit.figures import Reported
from cofferdam.brokers.kit.supervision import AssetStatus, SessionStatus
from cofferdam.crossing.channel import Sender
from cofferdam.errors import CofferdamError, CrossingError, LocalProtocolError
from cofferdam.model import Asset
from cofferdam.policy.table import CompiledPolicy
from cofferdam.policy.terms.jump_rows import Files as FileRules
from cofferdam.policy.terms.jump_rows import JumpRows
from cofferdam.protocols.terminals.dialect import BARE

UNWANTED_KEPT: Final = 1_024
"""Sessions that were given up before there was a grant. The outer part takes back more only where none follows."""


class Inner(Part):
    """The part."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        alone()
        if setting.start is None:
            raise LocalProtocolError("the inner part of the jump server needs a loop with tasks")
        self._setting = setting
        self._start = setting.start
        self._outer = setting.senders["outer"]
        self._keeper = setting.senders["keeper"]
        self._archivist = setting.senders["archivist"]
        self._live: dict[int, Live] = {}
        self._last = 0
        self._unwanted: deque[int] = deque(maxlen=UNWANTED_KEPT)
        self._bytes = {"sent": 0, "received": 0}
        self._files: dict[int, tuple[Files, asyncssh.SSHClientConnection]] = {}
        self._without = Without(self._live, self._keeper.send, setting.clock, setting.wall)
        self._quarantine = Quarantine(self._archivist.send, self._keeper.send)
        self._shares: dict[tuple[str, str], Share] = {}
        self._refused = Counted(setting.audit)
        self._host_keys_refused: dict[str, int] = {}
        self._lending = Lending(self.to_outer, setting.clock)
        self._severed = False
        self._work_by(setting.policy)
        self.set_severed(setting.severed)

    # --- the gate -----------------------------------------------------------------------------------------------------

    def _work_by(self, policy: CompiledPolicy) -> None:
        self._policy = policy
        self.rows = {name: each.terms for name, each in policy.conduits.items() if isinstance(each.terms, JumpRows)}
        self._sides = {policy.zones[row.inner].side for row in self.rows.values()}

    def take_policy(self, policy: CompiledPolicy, assets: tuple[str, ...]) -> int:
        before = self._policy.assets
        self._work_by(policy)
        ended = self._without.loaded()
        moved = [
            one for one in self._live.values() if policy.assets.get(one.grant.asset) != before.get(one.grant.asset)
        ]
        for live in moved:
            live.end("the policy has changed the asset")
        return ended + len(moved)

    def set_severed(self, sides: Collection[str]) -> None:
        self._severed = bool(self._sides & set(sides))
        if self._severed:
            for live in list(self._live.values()):
                live.end("an operator has cut this side off")

    def end_sessions(self, sessions: Collection[str], reason: str) -> None:
        for live in list(self._live.values()):
            if live.grant.name in sessions:
                live.end(reason)

    def away(self, other: str) -> None:
        self._quarantine.away()
        self._without.begin()

    def anew(self, other: str, life: int) -> None:
        self._quarantine.anew()
        self._without.over(self._last)
        for whose, share in list(self._shares.items()):
            self._tell_share(*whose, share)

    def command(self, asked: Asked) -> None:
        self._without.command(asked)

    def sessions(self) -> tuple[SessionStatus, ...]:
        """The keeper tells them, while it is there."""
        if not self._without.away:
            return ()
        return tuple(
            SessionStatus(
                session=live.grant.name, asset=live.grant.asset, source=live.grant.source, port=0,
                principals=(live.grant.person,), since=(at := self._setting.wall() - self.now() + live.began),
                requests=0, refused=0, last=at,
            )
            for live in self._live.values()
        )  # fmt: skip

    def join(self, place: tuple[str, int], sender: Sender[Any]) -> Callable[[Any], None]:
        return self._lending.join(place, sender)

    def leave(self, place: tuple[str, int]) -> None:
        self._lending.leave(place)

    def tick(self) -> None:
        self._lending.tick()
        self._without.tick()
        for live in list(self._live.values()):
            row = self.rows.get(live.grant.conduit)
            live.look(*(row.idle * 10**9, row.lock * 10**9) if row is not None else (0,))
        for number, (_, connection) in list(self._files.items()):
            if connection.is_closed() and number in self._live:
                self._live[number].leg_closed("the asset's end is gone")
        for whose, share in list(self._shares.items()):
            self._tell_share(*whose, share)
        self._refused.tick(self.now(), self._setting.wall())

    def stop(self) -> None:
        for live in list(self._live.values()):
            live.end("the gate stops")

    def end(self) -> None:
        self.stop()
        self._refused.tell(self._setting.wall())

    @property
    def busy(self) -> int:
        return len(self._live)

    def figures(self) -> Reported:
        return {
            "bytes_to_assets": {"": self._bytes["sent"] + sum(one.sent for one in self._live.values())},
            "bytes_from_assets": {"": self._bytes["received"] + sum(one.received for one in self._live.values())},
        }

    def alarms(self) -> dict[str, str]:
        return {
            f"jump-host-key-{asset}": f"{asset} showed another host key than was accepted, "
            f"{'once' if count == 1 else f'{count} times'}; this stands until a session finds the accepted one"
            for asset, count in list(self._host_keys_refused.items())[:16]
        }

    def assets(self) -> tuple[AssetStatus, ...]:
        used = {live.grant.asset for live in self._live.values()}
        return tuple(AssetStatus(name, "up" if name in used else "idle") for name in sorted(self._policy.assets))

    # --- ways of a session --------------------------------------------------------------------------------------------

    def to_outer(self, record: Any) -> None:
        self._outer.send(record)

    def to_archivist(self, record: Any) -> None:
        self._archivist.send(record)
        if type(record) is records.Happened and len(record.data) < records.KEY_BYTES:
            self._archivist.flush()

    def now(self) -> int:
        return self._setting.clock()

    def ended(self, live: Live, reason: str) -> None:
        self._lending.ended(live)
        if (found := self._files.pop(live.number, None)) is not None:
            found[0].end()
            whose = (live.grant.conduit, live.grant.person)
            share = self._shares[whose]
            share.sessions -= 1
            self._tell_share(*whose, share)
        if self._live.pop(live.number, None) is not None:
            self._bytes["sent"] += live.sent
            self._bytes["received"] += live.received
            self._without.ended(records.Ended(live.number, clip(reason, 1000), live.sent, live.received))

    def _share(self, grant: records.Grant, rules: FileRules) -> Share:
        """What its person still may, together with their other sessions of files."""
        share = self._shares.setdefault(
            (grant.conduit, grant.person), Share(rules, grant.left, self._setting.wall())
        )  # fmt: skip
        share.sessions += 1
        return share

    def _tell_share(self, conduit: str, person: str, share: Share) -> None:
        if self._without.away:
            return
        if count := share.untold():
            self._keeper.send(records.Used(conduit, person, count))
        if not share.sessions:
            del self._shares[conduit, person]

    def idle(self, live: Live) -> None:
        self._keeper.send(records.Idle(live.number))

    # --- records ------------------------------------------------------------------------------------------------------

    def on_record(self, source: str, record: Any) -> None:
        if isinstance(record, records.Grant):
            self._begin(record)
            return
        if isinstance(record, records.Rotate):
            self._without.turns(record)
            self._start(self._rotate(record))
            return
        if isinstance(record, records.Held | records.Judged | records.Given | file_records.Cleared):
            self._quarantine.on_record(record)
            return
        live = self._live.get(record.session)
        if live is None:
            if source == "outer" and record.session > self._last:
                if isinstance(record, records.Send | records.Took):
                    raise CrossingError(f"data of session {record.session}, which has no grant")
                if isinstance(record, records.Close):
                    self._unwanted.append(record.session)
            return
        if source == "outer":
            live.person(record)
        elif isinstance(record, records.Stored):
            live.stored(record.number, record.trouble)
        elif isinstance(record, records.Revoke):
            live.end(record.reason)
        elif isinstance(record, records.Unlock):
            live.unlock()
        elif isinstance(record, records.Warn):
            live.warn(record.text)

    def _begin(self, grant: records.Grant) -> None:
        if grant.session <= self._last:
            raise CrossingError(f"a second grant for session {grant.session}")
        self._last = grant.session
        live = self._live[grant.session] = Live(grant, self)
        if grant.session in self._unwanted:  # what is told by two ways comes in any order
            live.end("the person is gone")
            return
        asset = self._policy.assets.get(grant.asset)
        if self._severed or asset is None or grant.conduit not in self.rows:
            live.end("an operator has cut this side off" if self._severed else "the policy has just changed")
            return
        if grant.what == "port":
            self._lending.lend(live, asset)
        else:
            self._start(self._serve(live, asset))

    async def _leave(self, files: Files, connection: asyncssh.SSHClientConnection) -> None:
        """A session of files is over: nothing of what was not finished stays at the asset."""
        try:
            await files.clean()
        finally:
            connection.abort()

    async def _rotate(self, asked: records.Rotate) -> None:
        """Changes a password at an asset, as the policy says that it is done."""
        row, asset = self.rows.get(asked.conduit), self._policy.assets.get(asked.asset)
        if self._severed or asset is None or row is None or row.rotate is None or (
            asked.command not in ("", row.rotate.command)
        ):  # fmt: skip
            said = "an operator has cut this side off" if self._severed else "the policy has just changed"
            self._without.turned(records.Rotated(asked.number, "unknown", said))
            return
        try:
            done = await rotate(asked, asset.address, asset.port)
        except (CofferdamError, asyncio.CancelledError):
            raise
        except Exception as error:  # what one asset's answer made us stumble over
            done = records.Rotated(asked.number, "unknown", clip(f"the gate stumbled: {type(error).__name__}"))
        self._without.turned(done)

    async def _serve(self, live: Live, asset: Asset) -> None:
        grant = live.grant
        try:
            if asset.protocol in BARE:
                await open_telnet(live, asset)
                return
            connection = await connect(grant, asset.address, asset.port)
            self._host_keys_refused.pop(grant.asset, None)
            if live.done:
                connection.abort()
                return
            if grant.what == "sftp":
                sftp = await open_files(live, connection)
                rules = self.rows[grant.conduit].files if grant.conduit in self.rows else FileRules()
                share = self._share(grant, rules)
                files = Files(live, sftp, rules, self._setting, self._quarantine, self._refused, share)
                live.files = files.ask
                self._files[grant.session] = (files, connection)
                live.start(FilesLeg(lambda: self._start(self._leave(files, connection))))
            else:
                live.start(await open_session(live, connection))
        except NoLeg as error:
            if error.shown:
                self._host_keys_refused[grant.asset] = self._host_keys_refused.get(grant.asset, 0) + 1
                self._setting.audit.note(
                    HostKeyRefused(
                        wall_ns=self._setting.wall(), session=grant.name, asset=grant.asset, found=error.shown,
                        expected=key_name(grant.host_key),
                    )
                )  # fmt: skip
            live.end(str(error))
        except asyncio.CancelledError:
            live.end("the gate stops")
            raise
        except CofferdamError:
            raise
        except Exception as error:  # what one asset's answer made us stumble over is this session's end, and no other's
            live.end(f"the gate stumbled: {type(error).__name__}: {error}")
