"""The keeper as the gate starts it, a process under its filter, with hostile processes in place of its sides."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cofferdam.audit.events.gate import RecordViolation
from cofferdam.audit.events.relay import MessagesPushed
from cofferdam.brokers.kit.supervision import Configure, Failing, Ready
from cofferdam.brokers.relay import records
from cofferdam.brokers.relay.records import Answered, FromKeeper, Item, Push, ToKeeper, Works
from cofferdam.brokers.relay.store import Store
from cofferdam.crossing.exit import EXIT_REFUSED, EXIT_VIOLATION
from cofferdam.crossing.framing import PACKET, pack
from cofferdam.crossing.pipe import make_pipe
from cofferdam.crossing.records import RecordCodec, Unpacker
from cofferdam.policy.table import to_bytes
from cofferdam.policy.terms.relay_rows import fingerprint, slice_for
from tests.brokers.harness import Auditor, PartChild, write_all
from tests.brokers.relay.keeping import PRINCIPALS, body, make_policy, make_rows
from tests.waiting import PATIENT, eventually

ROW = make_rows()


class Alone:
    """A keeper's process. The test has the sides' ends of its pipes."""

    def __init__(self, store: Path) -> None:
        store.mkdir(exist_ok=True, mode=0o700)
        self.store = store
        self.auditor = Auditor()
        self.auditor.start()
        self.ends: dict[str, tuple[int, int]] = {}
        inputs, outputs = {}, {}
        for side in ("outer", "inner"):
            inputs[side], to_keeper = make_pipe()
            from_keeper, outputs[side] = make_pipe()
            self.ends[side] = (from_keeper, to_keeper)
        self.child = PartChild("relay", "keeper", self.auditor, inputs, outputs, ("-m", "cofferdam.brokers.half"))
        self.child.start([])
        self.child.send(
            Configure(
                crew="relay/enterprise-control", part="keeper", broker="relay", source_zones=("enterprise",),
                target_zone="control", boot="t", policy=to_bytes(make_policy(ROW).table), store=str(store),
            )
        )  # fmt: skip
        self._codec: RecordCodec[ToKeeper] = RecordCodec(ToKeeper, limit=records.RECORD_BYTES)
        self._answers: Unpacker[FromKeeper] = Unpacker(RecordCodec(FromKeeper, limit=records.RECORD_BYTES))

    def ready(self) -> None:
        found: Ready = self.child.wait_for(Ready)
        assert all(in_force for _, in_force, _ in found.facts), found.facts

    def say(self, side: str, *said: ToKeeper) -> None:
        self.say_bytes(side, *pack([self._codec.encode(record) for record in said]))

    def say_bytes(self, side: str, *packets: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):
            for packet in packets:
                write_all(self.ends[side][1], packet)

    def works(self, side: str) -> None:
        zone = "control" if side == "inner" else "enterprise"
        names = {name for name, where in PRINCIPALS.items() if where == zone}
        self.say(side, Works(fingerprint({"out": slice_for(ROW, names)})))

    def answer(self, side: str) -> FromKeeper:
        found: list[FromKeeper] = []

        def look() -> bool:
            with contextlib.suppress(BlockingIOError):
                found.extend(self._answers.feed(os.read(self.ends[side][0], PACKET)))
            return bool(found)

        eventually(look)
        return found[0]

    def ended(self) -> int:
        assert self.child.process is not None
        return self.child.process.wait(PATIENT)

    def close(self) -> None:
        self.child.close()
        self.auditor.stop()
        for pair in self.ends.values():
            for fd in pair:
                with contextlib.suppress(OSError):
                    os.close(fd)


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Alone]:
    made = Alone(tmp_path / "store")
    yield made
    made.close()


def push(number: int, key: str, data: bytes, who: str = "mes") -> Push:
    return Push(number, who, "counts", (Item(key, data),))


def _random_bytes(alone: Alone, side: str) -> None:
    alone.say_bytes(side, random.Random(3).randbytes(4000))


def _half_a_record(alone: Alone, side: str) -> None:
    whole = alone._codec.encode(push(2, "k", b"1"))
    alone.say_bytes(side, *pack([whole[:-1]]))


def _more_than_a_record_may_have(alone: Alone, side: str) -> None:
    size = records.RECORD_BYTES + 1
    alone.say_bytes(side, b"\x01\x00\x08" + size.to_bytes(4, "big") + b"xxxx")


def _another_set(alone: Alone, side: str) -> None:
    alone.say_bytes(side, *pack([msgspec.msgpack.encode(["tag", 1, 2, 3])]))


def _others_channel(alone: Alone, side: str) -> None:
    alone.works("outer")
    alone.say("outer", push(1, "k", body(count=1), "erp"))


def _as_the_other_side(alone: Alone, side: str) -> None:
    if side == "outer":
        alone.works("outer")
        alone.say("outer", push(1, "k", body(count=1)))
    else:
        alone.say("inner", records.Pull(2, "erp", "counts", 1, 30, 0))


def _fails_the_schema(alone: Alone, side: str) -> None:
    alone.say("inner", push(2, "k", body(count="many")))


def _a_number_again(alone: Alone, side: str) -> None:
    alone.say("inner", push(1, "k", body(count=1)))


BOTH = (_random_bytes, _half_a_record, _more_than_a_record_may_have, _another_set, _as_the_other_side)


@pytest.mark.parametrize(
    ("side", "hostile"),
    [(side, each) for side in ("outer", "inner") for each in BOTH]
    + [("outer", _others_channel), ("inner", _fails_the_schema), ("inner", _a_number_again)],
)
def test_a_hostile_side_ends_the_keeper_with_an_entry_and_changes_nothing(
    alone: Alone, side: str, hostile: Any
) -> None:
    alone.ready()
    alone.works("inner")
    alone.say("inner", push(1, "good", body(count=1)))
    answer = alone.answer("inner")
    assert isinstance(answer, Answered) and answer.results[0].number == 1
    hostile(alone, side)
    assert alone.ended() == EXIT_VIOLATION
    assert side in alone.child.wait_for(Failing).reason
    # What it has said last may still lie in the pipe.
    eventually(lambda: any(isinstance(draft, RecordViolation) for draft in alone.auditor.drafts))
    violations = [draft for draft in alone.auditor.drafts if isinstance(draft, RecordViolation)]
    assert [draft.half for draft in violations] == [f"relay/enterprise-control/{side}"]
    assert [draft.first for draft in alone.auditor.drafts if isinstance(draft, MessagesPushed)] == [1]
    store = Store(alone.store)
    assert [one.key for one in store.messages("counts", 0, 10)] == ["good"]
    assert store.all("SELECT count(*) FROM held") == [(0,)]
    store.close()


def test_a_damaged_store_keeps_the_keeper_from_starting_and_names_the_way_out(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    (folder / "keeper.db").write_bytes(b"not a database, for 4096 bytes " * 200)
    alone = Alone(folder)
    try:
        failing = alone.child.wait_for(Failing)
        said = f"{failing.reason} {failing.hint}"
        assert str(folder / "keeper.db") in said and "damaged" in said and "put back a backup" in said
        assert alone.ended() == EXIT_REFUSED
    finally:
        alone.close()
