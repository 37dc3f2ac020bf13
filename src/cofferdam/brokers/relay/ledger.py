"""What the audit log is told of a commit: one entry a channel and consumer, and the tree over the messages in it. PURE.

A leaf is the canonical JSON of

    [channel, number, principal, key, SHA-256 in hexadecimal, size]

for messages pushed and leased, and [channel, number, consumer, says] for messages settled or dead; leaves stand in the
order of numbers, and the root is that of RFC 6962 (audit.tree). `prove` makes the path by which one message is shown
against an entry, `shown` checks it.

`compare` holds what a store says of its commits against what stands in the log, of which `booked` says what counts.

Not here: reading the store or the log.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from cofferdam.audit.entry import Draft
from cofferdam.audit.events import relay as events
from cofferdam.audit.events.base import clip
from cofferdam.audit.tree import check_inclusion, edge_root, inclusion_proof, leaf_hash, perfect_root
from cofferdam.brokers.relay.keeper_rows import Stored
from cofferdam.brokers.relay.told import PassedOver

MOST_FINDINGS: Final = 100
SYNCED_NS: Final = 60_000_000_000
"""A keeper that tells something so long after a commit has synced that."""
Says = Literal["done", "failed", "dead"]
_encode = msgspec.json.Encoder().encode


def message_leaf(channel: str, number: int, who: str, key: str, sha256: bytes, size: int) -> bytes:
    """The leaf hash of a message."""
    return leaf_hash(_encode((channel, number, who, key, sha256.hex(), size)))


def settled_leaf(channel: str, number: int, consumer: str, says: str) -> bytes:
    """The leaf hash of a verdict."""
    return leaf_hash(_encode((channel, number, consumer, says)))


def prove(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """The path from leaf `index` to the root over `leaves`."""

    def read(level: int, first: int, count: int) -> list[bytes]:
        if not level:
            return list(leaves[first : first + count])
        width = 1 << 8 * level
        return [perfect_root(leaves[at * width : (at + 1) * width]) for at in range(first, first + count)]

    return inclusion_proof(index, len(leaves), read)


def shown(leaf: bytes, index: int, count: int, path: Sequence[bytes], root: str) -> bool:
    """Whether `path` shows that `leaf` is number `index` (from 0) of the `count` messages under this root."""
    return check_inclusion(leaf, index, count, path, bytes.fromhex(root))


class _Run:
    """Messages of one entry. `who`: whose they are, "" if there are several."""

    __slots__ = ("key", "leaves", "reason", "sha256", "size", "tries", "who")

    def __init__(self) -> None:
        self.leaves: list[tuple[int, bytes]] = []
        self.size = self.tries = 0
        self.who = self.key = self.reason = ""
        self.sha256 = b""

    def add(self, number: int, leaf: bytes, who: str = "", key: str = "", sha256: bytes = b"", size: int = 0) -> None:
        if who != self.who:
            self.who = "" if self.leaves else who
        self.size += size
        self.key, self.sha256 = key, sha256
        self.leaves.append((number, leaf))

    def add_all(self, whos: set[str], key: str, sha256: bytes, size: int, leaves: list[tuple[int, bytes]]) -> None:
        """The same for several: `key` and `sha256` are the last one's, `size` is that of all."""
        if whos != {self.who}:
            self.who = "" if self.leaves or len(whos) > 1 else next(iter(whos))
        self.size += size
        self.key, self.sha256 = key, sha256
        self.leaves += leaves

    @property
    def count(self) -> int:
        return len(self.leaves)

    @property
    def first(self) -> int:
        return min(self.leaves)[0]

    @property
    def last(self) -> int:
        return max(self.leaves)[0]

    @property
    def root(self) -> str:
        self.leaves.sort()
        return edge_root([[leaf for _, leaf in self.leaves]]).hex()

    @property
    def one(self) -> tuple[str, str]:
        """(key, SHA-256) of the message, if it is but one."""
        return (clip(self.key), self.sha256.hex()) if self.count == 1 else ("", "")


class Told:
    """Gathers what one commit has to tell."""

    def __init__(self) -> None:
        self._pushed: dict[str, _Run] = {}
        self._leased: dict[tuple[str, str, int], _Run] = {}
        self._settled: dict[tuple[str, str, Says], _Run] = {}
        self._others: list[tuple[Callable[..., Draft], dict[str, Any]]] = []

    def __bool__(self) -> bool:
        return bool(self._pushed or self._leased or self._settled or self._others)

    @property
    def pushed(self) -> dict[str, tuple[int, int]]:
        """(first, last) number of the messages that are new, by channel."""
        return {channel: (run.first, run.last) for channel, run in self._pushed.items()}

    def last(self, channel: str) -> int:
        """The highest of them in a channel, 0 for none."""
        run = self._pushed.get(channel)
        return run.last if run is not None else 0

    def push(self, channel: str, number: int, who: str, key: str, sha256: bytes, size: int) -> None:
        """A message is new."""
        run = self._pushed.get(channel)
        if run is None:  # setdefault would make one for each message
            run = self._pushed[channel] = _Run()
        run.add(number, message_leaf(channel, number, who, key, sha256, size), who, key, sha256, size)

    def push_all(
        self, channel: str, first: int, who: str, keys: list[str], hashes: list[bytes], sizes: list[int]
    ) -> None:
        """Several are new, of one principal, numbered from `first` on."""
        run = self._pushed.get(channel)
        if run is None:
            run = self._pushed[channel] = _Run()
        leaves = [
            (number, message_leaf(channel, number, who, key, sha256, size))
            for number, (key, sha256, size) in enumerate(zip(keys, hashes, sizes, strict=True), first)
        ]
        run.add_all({who}, keys[-1], hashes[-1], sum(sizes), leaves)

    def lease(self, channel: str, consumer: str, lease: int, messages: list[Stored]) -> None:
        """Messages are handed to a consumer."""
        run = self._leased.get((channel, consumer, lease))
        if run is None:
            run = self._leased[channel, consumer, lease] = _Run()
        leaves = [
            (one.number, message_leaf(channel, one.number, one.who, one.key, one.sha256, one.size)) for one in messages
        ]
        last, size = messages[-1], sum([one.size for one in messages])
        run.add_all({one.who for one in messages}, last.key, last.sha256, size, leaves)

    def settle(self, channel: str, consumer: str, number: int, says: Says, reason: str, tries: int = 0) -> None:
        """A consumer is done with a message, or failed, or it is dead to it. Of several reasons the first is told."""
        run = self._settled.get((channel, consumer, says))
        if run is None:
            run = self._settled[channel, consumer, says] = _Run()
        run.add(number, settled_leaf(channel, number, consumer, says))
        run.reason = run.reason or reason
        run.tries = max(run.tries, tries)

    def done(self, channel: str, consumer: str, numbers: list[int]) -> None:
        """A consumer is done with these."""
        run = self._settled.get((channel, consumer, "done"))
        if run is None:
            run = self._settled[channel, consumer, "done"] = _Run()
        run.leaves += [(number, settled_leaf(channel, number, consumer, "done")) for number in numbers]

    def add(self, kind: Callable[..., Draft], **members: Any) -> None:
        """Anything else."""
        self._others.append((kind, members))

    def entries(self, store: str, commit: int, wall_ns: int) -> list[Draft]:
        """What is handed to the auditor."""
        drafts: list[Draft] = []

        def tell(kind: Callable[..., Draft], **members: Any) -> None:
            drafts.append(kind(wall_ns=wall_ns, store=store, commit=commit, **members))

        for channel, run in self._pushed.items():
            key, sha256 = run.one
            tell(
                events.MessagesPushed, channel=channel, first=run.first, count=run.count, size=run.size, root=run.root,
                principal=run.who, key=key, sha256=sha256,
            )  # fmt: skip
        for (channel, consumer, says), run in self._settled.items():
            if says == "dead":
                tell(
                    events.MessagesDead, channel=channel, consumer=consumer, tries=run.tries, count=run.count,
                    first=run.first, last=run.last, root=run.root, reason=clip(run.reason),
                )  # fmt: skip
                continue
            tell(
                events.MessagesSettled, channel=channel, consumer=consumer, says=says, count=run.count, first=run.first,
                last=run.last, root=run.root, reason=clip(run.reason),
            )  # fmt: skip
        for (channel, consumer, lease), run in self._leased.items():
            key, sha256 = run.one
            tell(
                events.MessagesLeased, channel=channel, consumer=consumer, lease=lease, count=run.count,
                first=run.first, last=run.last, size=run.size, root=run.root, key=key, sha256=sha256,
            )  # fmt: skip
        for kind, members in self._others:
            tell(kind, **members)
        return drafts


# --- store and log ----------------------------------------------------------------------------------------------


class Batch(msgspec.Struct, frozen=True):
    """What the store has of the messages that one commit brought to a channel, as its `verify` reports it."""

    commit: int
    channel: str
    first: int
    count: int
    size: int
    root: str


class Logged(msgspec.Struct, frozen=True):
    """An entry of the log: its number, the log's time, and what it says."""

    index: int
    time_ns: int
    event: Mapping[str, Any]


class _Lasting:
    """What the log has shown of one store by now. `top`: the last commit that it names; `last`: what that one brought,
    by channel, as long as nothing shows that it lasts; `kept`: the last commit of messages that did."""

    __slots__ = ("kept", "last", "top")

    def __init__(self) -> None:
        self.top = self.kept = 0
        self.last: dict[str, Logged] = {}

    def lasts(self) -> list[Logged]:
        """What waited to be shown counts."""
        last, self.last = self.last, {}
        if last:
            self.kept = self.top
        return list(last.values())

    def outlived(self, entry: Logged) -> bool:
        """Whether this entry shows that the keeper lived on after what waits: it does nothing else before its sync."""
        first = next(iter(self.last.values()), entry)
        return entry.time_ns - first.time_ns > SYNCED_NS or (
            entry.event["kind"] == "messages-pushed" and str(entry.event["channel"]) in self.last
        )


class Passed(msgspec.Struct, frozen=True):
    """An entry "messages-pushed" that does not count, and the `store-opened` that took it back."""

    entry: Logged
    opened: Logged

    def as_json(self) -> PassedOver:
        event = self.entry.event
        return {
            "entry": self.entry.index, "channel": event["channel"], "first": event["first"], "count": event["count"],
            "commit": event["commit"], "opened": self.opened.index,
            "seconds_before": round((self.opened.time_ns - self.entry.time_ns) / 1e9, 1),
        }  # fmt: skip

    def __str__(self) -> str:
        said = self.as_json()
        return (
            f"passed over: entry {said['entry']}, {said['channel']} {said['first']} to"
            f" {said['first'] + said['count'] - 1}, which the store lacked when it was opened"
            f" {said['seconds_before']} s later (entry {said['opened']})"
        )


def booked(entries: Iterable[Logged]) -> tuple[list[Logged], list[Passed]]:
    """Of these entries (as read back, in order) the "messages-pushed" that count, those whose commit did last; and
    those that are passed over. An entry is written while its commit is (keeper_work), and if the power fails then the
    log has it and the store has not; the store's next `store-opened` names an earlier commit. That is so of one commit
    alone, the last one that the log names: all before it, and what `store-kept` says, was on the disk. So what a
    backup lacks that was put back counts. And it is so of one entry a channel: who tells another of the same commit,
    or anything else a minute later, has lived on, and so has the commit. The kinds "messages-pushed", "store-opened"
    and "store-kept" are enough."""
    stores: dict[str, _Lasting] = {}
    found: list[Logged] = []
    passed: list[Passed] = []
    for entry in entries:
        event = entry.event
        if "store" not in event or "commit" not in event:
            continue
        store = stores.setdefault(str(event["store"]), _Lasting())
        commit, kind = int(event["commit"]), event["kind"]
        if kind == "store-opened":
            if commit >= store.top or commit < store.kept:
                found += store.lasts()
            passed += [Passed(each, entry) for each in store.last.values()]
            store.last = {}
            store.top, store.kept = commit, min(store.kept, commit)
            continue
        if commit > store.top or store.outlived(entry):
            found += store.lasts()
            store.top = max(store.top, commit)
        if kind == "store-kept" and commit >= store.top:
            found += store.lasts()
        elif kind == "messages-pushed" and store.kept < commit == store.top:
            store.last[str(event["channel"])] = entry
        elif kind == "messages-pushed":
            found.append(entry)
    for store in stores.values():
        found += store.lasts()
    return found, passed


def compare(
    store: str, gone: Mapping[str, int], batches: Iterable[Batch], entries: Iterable[Mapping[str, Any]]
) -> list[str]:
    """What does not fit between a store and the log's "messages-pushed" events of it (those that are `booked`): one
    sentence each, none if all is well. `gone`: channel -> the number up to which its messages were removed in their
    time."""
    findings: list[str] = []
    logged: dict[tuple[int, str], Mapping[str, Any]] = {}
    given: dict[str, list[tuple[int, int]]] = {}  # channel -> numbers in the log so far, as (first, last), in order
    for event in entries:
        if event.get("store") == store:
            at = (int(event["commit"]), str(event["channel"]))
            before = logged.setdefault(at, event)
            if before is not event and (before["root"], before["first"]) == (event["root"], event["first"]):
                continue  # told again
            if before is not event:
                findings.append(f"{at[1]}: the log has two different entries for commit {at[0]}")
            first, last = int(event["first"]), int(event["first"]) + int(event["count"]) - 1
            if twice := _add(given.setdefault(at[1], []), first, last):
                again = f"{at[1]} {twice[0]} to {twice[1]}"
                findings.append(f"{again}: given out once more by commit {at[0]}, after a backup was put back")
    for batch in batches:
        numbers = f"{batch.channel} {batch.first} to {batch.first + batch.count - 1}"
        entry = logged.pop((batch.commit, batch.channel), None)
        if entry is None:
            findings.append(f"{numbers}: in the store by commit {batch.commit}, and not in the log")
        elif entry["first"] <= gone.get(batch.channel, 0):
            continue  # some of its messages are gone: what is left has another root
        elif (entry["first"], entry["count"], entry["root"]) != (batch.first, batch.count, batch.root):
            findings.append(f"{numbers}: the store has other messages than the log has for commit {batch.commit}")
    for (commit, channel), entry in sorted(logged.items()):
        if entry["first"] + entry["count"] - 1 > gone.get(channel, 0):
            findings.append(f"{channel} from {entry['first']} on: in the log by commit {commit}, and not in the store")
    return findings[:MOST_FINDINGS]


def _add(ranges: list[tuple[int, int]], first: int, last: int) -> tuple[int, int] | None:
    """Adds numbers to those that are known, and says which of them were. What comes over a strand comes late at times,
    so they need not be above all others."""
    at = bisect_left(ranges, first, key=lambda known: known[1])
    end = at
    while end < len(ranges) and ranges[end][0] <= last:
        end += 1
    known = ranges[at:end]
    twice = (max(first, known[0][0]), min(last, known[-1][1])) if known else None
    if at and ranges[at - 1][1] == first - 1:
        at -= 1
    if end < len(ranges) and ranges[end][0] == last + 1:
        end += 1
    merged = ranges[at:end]
    ranges[at:end] = [(min([first, *(one[0] for one in merged)]), max([last, *(one[1] for one in merged)]))]
    return twice
