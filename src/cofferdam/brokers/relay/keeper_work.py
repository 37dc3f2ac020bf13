"""How the keeper does what it has decided: store, audit log, answer, in this order.

    1  all that one turn of the loop brings is decided and committed in one transaction, with its entries for the log
    2  the entries go to the auditor, who syncs them; meanwhile the commit is synced
    3  what was pushed is acknowledged, and may be handed out, once both are; what is waiting for it is woken

An acknowledged push is thus in the store and in the log, each synced. Whoever is killed between 1 and 3 leaves entries
in the store that the log may not have: they are told (again) at the next start, marked `again`, before anything of
theirs is handed out. A power cut in 2 may leave an entry in the log whose commit the disk has not: of the last commit
with pushes alone, since each is synced before the next one is made, and never of one that was acknowledged. That the
next entry of the store, `store-opened`, names an earlier commit says so (ledger.booked): it stands in the log before
any other of the new keeper's. So that a backup that is put back cannot be taken for that, `store-kept` says that the
last ones did last.

A settling is acknowledged once it is synced in the store. Handing messages out waits for no disk: its commit is synced
within `SYNC_SECONDS`, as its entry leaves. If the power fails in between, the lease has never been.

While the log cannot be written nothing new is taken and, unless the policy says otherwise, nothing is handed out.

Not here: what is decided (keeper), who asked for it (keeper_part), what operators may do (keeper_verbs).
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Final

import msgspec

from cofferdam.audit.entry import Draft
from cofferdam.audit.events import relay as events
from cofferdam.audit.events.base import clip
from cofferdam.brokers.broker import Setting
from cofferdam.brokers.kit.figures import Figures
from cofferdam.brokers.relay.figures import FIGURES
from cofferdam.brokers.relay.keeper import Channel, Consumer, Machine
from cofferdam.brokers.relay.keeper_rows import Untold
from cofferdam.brokers.relay.ledger import Told
from cofferdam.brokers.relay.shelf import Shelf
from cofferdam.brokers.relay.store import Store
from cofferdam.errors import StoreError, StoreFull
from cofferdam.policy.messages.checked import Problem
from cofferdam.policy.messages.checking import Checks
from cofferdam.policy.table import CompiledPolicy
from cofferdam.policy.terms.relay_rows import Relay, RelayRows

SYNC_SECONDS: Final = 0.02
"""A commit that nothing waits for is synced so soon."""
KEPT_NS: Final = 10_000_000_000
"""So long after the last push it is told that it lasts. Other entries may show that as well, and whoever reads pushes
alone (the evidence) does not see them."""
UNLOGGED_MOST: Final = 20_000
"""Messages that wait for the log, before no more are taken."""
RESERVE_BYTES: Final = 48 << 20
"""Room on the store's disk that pushes leave free, so that settling and removing still work. No more than an eighth."""

KEYS_MOST: Final = 32_000_000
"""Messages of all channels together: 8 bytes of memory each."""

Yes = Callable[[], None]
No = Callable[[Problem, int], None]


class _Group:
    """One commit on its way into the log."""

    __slots__ = ("answers", "began", "done", "left", "sent", "synced", "untold")

    def __init__(self, untold: Untold, began: int, *, synced: bool = False) -> None:
        self.untold = untold
        self.began = began
        self.synced = synced
        self.sent = 0
        """Counts attempts, so that the outcome of an old one counts for nothing. 0: has to be sent."""
        self.left = 0
        self.done = not untold.drafts
        self.answers: list[tuple[Yes, No]] = []

    @property
    def messages(self) -> int:
        return sum(last - first + 1 for first, last in self.untold.pushed.values())


class Work:
    """The store, the machine, and the way to the log."""

    def __init__(self, setting: Setting, on_shown: Callable[[Iterable[str]], None]) -> None:
        """`on_shown` is called with the channels that have messages to hand out now. Raises: StoreError."""
        if setting.store is None:
            raise StoreError("the keeper was given no folder for its store")
        self._setting = setting
        self._reactor = setting.reactor
        self._audit = setting.audit
        self._on_shown = on_shown
        self.figures = Figures(FIGURES)
        self.store = Store(setting.store)
        self.shelf = Shelf(self.store)
        self.told = Told()
        self._durable = False
        self._scheduled = False
        self._after_commit: list[tuple[Yes, No]] = []
        self._after_log: list[tuple[Yes, No]] = []
        self._groups: deque[_Group] = deque()
        self._told_upto = 0
        self._unshown = self._unshown_at = 0
        """The last commit with pushes that the log was told of, and when, until it is told that it lasts."""
        self._opened = False
        """The log has it that the store was opened: nothing else is told before."""
        self._lowered = False
        """Less is shown than before the machine was made: a commit on its way may be of what came late, below it."""
        self._sync_timer = False
        self._halted = False
        self.full = ""
        """Why nothing can be stored now, "" if it can."""
        self.take_rows(setting.policy)
        untold = self.store.untold()
        for one in untold:
            group = _Group(one, self.now, synced=True)
            self._again(group)
            self._groups.append(group)
        self._make()
        self._opening: events.StoreOpened | None = events.StoreOpened(
            wall_ns=self.wall, store=self.store.name, commit=self.store.group, untold=len(untold),
            messages=sum(channel.messages for channel in self.machine.channels.values()), found=self.store.found,
        )  # fmt: skip
        self._audit.on_writable = self._tell_opened
        self.change(durable=False)

    @property
    def now(self) -> int:
        """Monotonic ns."""
        return self._setting.clock()

    @property
    def wall(self) -> int:
        """UTC ns."""
        return self._setting.wall()

    def take_rows(self, policy: CompiledPolicy) -> None:
        """The rows of this policy. Raises: CofferdamError where a schema does not compile: nothing has changed then."""
        conduits = [
            (name, conduit.terms) for name, conduit in policy.conduits.items() if isinstance(conduit.terms, RelayRows)
        ]
        relay = Relay(conduits)
        self.checks = Checks(relay)
        self.relay = relay
        self.rows = dict(conduits)
        self.policy = policy

    def take_policy(self, policy: CompiledPolicy) -> None:
        """Works by it from now on."""
        self.take_rows(policy)
        self.machine.take_policy(self.relay, self.now)
        self.change(durable=False)

    def _make(self) -> None:
        """The machine, from what is stored."""
        self.machine = Machine(self.relay, self.store.rows(), self.store.series, self.now, self.wall)
        for group in self._groups:
            for name, (first, _) in group.untold.pushed.items():
                channel = self.machine.channels[name]
                channel.shown = min(channel.shown, first - 1)
                self._lowered = True

    # --- one turn ---------------------------------------------------------------------------------------------------

    def change(self, *, durable: bool) -> None:
        """Something was decided: this turn ends with a commit. `durable`: somebody waits for the disk."""
        self._durable |= durable
        if not self._scheduled:
            self._scheduled = True
            self._reactor.later(self._commit)

    def after_commit(self, yes: Yes, no: No) -> None:
        """Calls one of the two when this turn's commit is there, or has failed."""
        self._after_commit.append((yes, no))
        self.change(durable=False)

    def after_log(self, yes: Yes, no: No) -> None:
        """Calls one of the two when this turn's commit, and all before it, are in the audit log, or that failed."""
        self._after_log.append((yes, no))
        self.change(durable=True)

    def split(self) -> None:
        """What the turn has decided by now is a commit of its own."""
        self._commit()

    def _commit(self) -> None:
        if self._halted:
            return
        self._scheduled = False
        now, wall = self.now, self.wall
        self._tell_dead()
        answers, self._after_commit = self._after_commit, []
        logged, self._after_log = self._after_log, []
        durable, self._durable = self._durable or self.store.writing, False
        told, self.told = self.told, Told()
        drafts = told.entries(self.store.name, self.store.group + 1, wall)
        began = now
        try:
            self.store.begin()
            self.store.save(self.machine.changes(now, wall))
            if self._told_upto:
                self.store.told(self._told_upto)
            untold = self.store.commit(drafts, told.pushed)
        except StoreFull as error:
            self._no_room(error, answers + logged)
            return
        except StoreError as error:
            self._failed(error)
            raise
        self._told_upto = 0
        self.full = ""
        group = _Group(untold, began)
        group.answers = logged
        self._groups.append(group)
        if durable:
            self._make_last()
            self.figures.measure("commit", self.now - began)
        elif not self._sync_timer and drafts:
            self._sync_timer = True
            self._reactor.call_in(SYNC_SECONDS, self._sync)
        for yes, _ in answers:
            yes()
        self._send()
        self._seal()

    def _tell_dead(self) -> None:
        for row in self.machine.died():
            self.figures.add("dead", 1, row.channel)
            self.told.settle(row.channel, row.consumer, row.number, "dead", row.reason, row.count)

    def _make_last(self) -> None:
        """The disk has all that was committed; meanwhile the auditor makes last what it is told of it."""
        self._tell_all(len(self._groups))
        self._audit.flush()
        try:
            self.store.sync()
        except StoreError as error:
            self._failed(error)
            raise
        for group in self._groups:
            group.synced = True

    def _sync(self) -> None:
        self._sync_timer = False
        if any(not group.synced and group.untold.drafts for group in self._groups):
            self.change(durable=True)

    def _no_room(self, error: StoreError, answers: list[tuple[Yes, No]]) -> None:
        """The commit was taken back, and all is as it was before this turn."""
        self.full = f"{error}: {error.hint}"
        self.store.rollback()
        self._make()
        problem = Problem("store", clip(f"{error}; nothing was stored"))
        for _, no in answers:
            no(problem, 60)

    def _failed(self, error: StoreError) -> None:
        """Nothing of the store can be relied on: the process ends, and says why."""
        self.store.fail()
        detail = clip(f"{error} {error.hint}".strip())
        failed = events.StoreFailed(wall_ns=self.wall, store=self.store.name, commit=self.store.group, detail=detail)
        self._audit.note(failed, always=True)

    def guard(self, error: StoreError) -> None:
        """A read or a write within a turn has failed. What was decided in the turn is taken back if the store is only
        full; if not, this raises what ends the process."""
        if not isinstance(error, StoreFull):
            self._failed(error)
            raise error
        answers = self._after_commit + self._after_log
        self._after_commit, self._after_log, self.told, self._durable = [], [], Told(), False
        self._no_room(error, answers)

    # --- the log ----------------------------------------------------------------------------------------------------

    def _tell_opened(self) -> None:
        """Tells the log that the store was opened, as often as it takes until it has that."""
        opening, self._opening = self._opening, None

        def done(ok: bool, reason: str) -> None:
            if self._halted:
                return
            if ok:
                self._opened = True
                self._send()
                return
            self._opening = opening
            for group in self._groups:
                self._doubt(group, reason)

        if opening is not None:
            self._audit.record(opening, done)

    def _send(self) -> None:
        """Hands the auditor what is synced and was not handed to it, and ends what it has confirmed."""
        self._tell_all(next((at for at, group in enumerate(self._groups) if not group.synced), len(self._groups)))
        self._confirmed()

    def _tell_all(self, count: int) -> None:
        """Hands the auditor what it was not handed of the first so many commits."""
        for group in islice(self._groups, count):
            if self._opened and self._audit.writable and not group.sent and not group.done:
                self._tell(group)

    def _tell(self, group: _Group) -> None:
        if group.untold.pushed:
            self._unshown, self._unshown_at = group.untold.group, self.now
        group.sent += 1
        group.left = len(group.untold.drafts)
        done = functools.partial(self._told_one, group, group.sent)
        for draft in group.untold.drafts:
            self._audit.record(draft, done)

    def _told_one(self, group: _Group, attempt: int, ok: bool, reason: str) -> None:
        if group.sent != attempt or group.done or self._halted:
            return
        if ok:
            group.left -= 1
            if not group.left:
                group.done = True
                self._confirmed()
            return
        # Its fate is not known. It is told again; whoever waits hears that it is not certain yet.
        group.sent = 0
        self._again(group)
        self._doubt(group, reason)

    def _doubt(self, group: _Group, reason: str) -> None:
        """Whoever waits for this commit's entries hears that they are not recorded yet."""
        answers, group.answers = group.answers, []
        for _, no in answers:
            no(Problem("log", clip(f"the audit log did not take it: {reason}")), 5)

    def _again(self, group: _Group) -> None:
        drafts: list[Draft] = [msgspec.structs.replace(draft, again=True) for draft in group.untold.drafts]
        group.untold = msgspec.structs.replace(group.untold, drafts=drafts)

    def _confirmed(self) -> None:
        shown: set[str] = set()
        answers: list[tuple[Yes, No]] = []
        groups = self._groups
        while groups and groups[0].done and groups[0].synced:
            group = groups.popleft()
            if group.untold.drafts:
                self._told_upto = group.untold.group
                self.figures.measure("logged", self.now - group.began)
            for channel, (_, last) in group.untold.pushed.items():
                self.machine.show(channel, last)
                shown.add(channel)
            answers += group.answers
        if self._lowered and not any(group.untold.pushed for group in groups):
            self._lowered = False
            for known in self.machine.channels.values():
                self.machine.show(known.name, known.next - 1)
                shown.add(known.name)
        for yes, _ in answers:
            yes()
        if shown:
            self._on_shown(shown)

    def let_go(self, channel: Channel, number: int) -> None:
        """Somebody is done with a message. If it is older than what the channel still keeps, and was there only since
        it was dead to somebody, it goes with the last one who may get it."""
        if number > channel.gone or self.machine.awaits(channel, number):
            return
        self.store.begin()
        size = self.store.forget(channel.name, number)
        if size >= 0:
            self.machine.removed(channel, 0, 1, size)

    def oldest(self, consumer: Consumer) -> int:
        """How long (ns) a consumer has had a message waiting for it."""
        if not consumer.lag:
            return 0
        at = self.store.stored_at(consumer.channel.name, consumer.lowest)
        return max(0, self.wall - at) if at else 0

    def note(self, draft: Draft) -> None:
        """Hands the log an entry that nothing waits for."""
        self._audit.note(draft, always=True)

    @property
    def log_down(self) -> str:
        """Why nothing can be recorded, "" if it can."""
        return "" if self._audit.writable else self._audit.reason

    def _tell_kept(self) -> None:
        """Tells that the last commit that the log has pushes of did last."""
        if self._unshown and not any(group.untold.group <= self._unshown for group in self._groups):
            self.note(events.StoreKept(wall_ns=self.wall, store=self.store.name, commit=self._unshown))
            self._unshown = 0

    @property
    def unlogged(self) -> int:
        """Messages that wait for the log."""
        return sum(group.messages for group in self._groups)

    # --- time -------------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Twice a second."""
        self._sync()
        self._tell_opened()
        self._send()
        if self.now - self._unshown_at >= KEPT_NS:
            self._tell_kept()
        self.store.index.mark()
        free, size = self.store.room()
        self.figures.set("store_free", free)
        self.figures.set("store_size", size)
        reserve = min(RESERVE_BYTES, size // 8)
        if free < reserve:
            self.full = f"{self.store.path} has {free} bytes left, and {reserve} are kept free: make room on its disk"
        elif len(self.store.index) >= KEYS_MOST:
            self.full = (
                f"{self.store.path} has {KEYS_MOST} messages, the most that a keeper knows the keys of: let consumers"
                " catch up, or `keep` them for less long"
            )
        elif self.full:
            self.full = ""
        if self._told_upto and not self._groups:
            self.change(durable=False)

    def _seal(self) -> None:
        try:
            self.store.seal()
        except StoreFull as error:  # the index grows in memory until there is room
            self.full = f"{error}: {error.hint}"
            self.store.rollback()
        except StoreError as error:
            self._failed(error)
            raise

    @property
    def busy(self) -> int:
        """Commits that somebody waits for."""
        return sum(1 for group in self._groups if group.answers) + len(self._after_commit) + len(self._after_log)

    def end(self) -> None:
        """Writes what is decided, and closes the store in order."""
        if self._scheduled or self._told_upto:
            self._commit()
        self._tell_kept()
        self.halt()

    def halt(self) -> None:
        """Nothing is stored or answered any more. What this turn has decided is taken back."""
        self._halted = True
        if not self.store.failed:
            self.store.close()
