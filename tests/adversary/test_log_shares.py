"""Nobody's noise fills the log: each producer has its shares of a day, refused writes one of their own, and what
somebody waits for goes on being recorded when the rest is full."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cofferdam.audit.entry import CROWD, DRAFTS, Draft, kinds
from cofferdam.audit.events import access, gate
from cofferdam.audit.events.access import Cells, Refused, RefusedMany, SessionOpened, WriteAllowed, WriteOutcome
from cofferdam.audit.events.base import MAX_SAFE_INTEGER
from cofferdam.audit.events.gate import RecordViolation, Severed
from cofferdam.audit.events.log import NotRecorded
from cofferdam.audit.log import AuditLog
from cofferdam.audit.quota import AROUND_BYTES, DAY_NS, Quota, Share, share_of
from cofferdam.audit.service import RESERVE_BYTES, TELL_NS, Auditor
from cofferdam.errors import LogUnwritable
from tests.adversary.takeover import Taken, taken
from tests.audit.conftest import Opener as Opener
from tests.audit.conftest import clock as clock
from tests.audit.conftest import opener as opener
from tests.audit.conftest import write
from tests.audit.test_service import events, introduced
from tests.gate.plant import Client, log_of
from tests.gate.plant import events as gate_events
from tests.waiting import eventually

SMALL: dict[Share, int] = {"noise": 40_000, "refused": 40_000, "changes": 400_000}
GB = 1 << 30


def refused(number: int, *, is_write: bool) -> Refused:
    return Refused(
        session=f"s{number}", principals=(), source="10.0.0.1", asset="plc", conduit="", rule="", fault="value",
        detail="", is_write=is_write,
    )  # fmt: skip


class Sky:
    """Time and disk in the test's hands."""

    def __init__(self, log: AuditLog) -> None:
        self.now = 1_000_000_000
        self.free = 100 * GB
        self.auditor: Auditor = introduced(
            log, "outer", "inner", "gate", mono_ns=lambda: self.now, disk=lambda: (self.free, 1000 * GB), most=SMALL
        )
        self.log = log

    def say(self, producer: str, *drafts: Draft) -> bool:
        self.auditor.submit(producer, 1, list(drafts))
        return all(result.ok for result in self.auditor.commit())

    def kinds(self, maker: str) -> list[str]:
        return [str(event["kind"]) for who, event in events(self.log) if who == maker]


@pytest.fixture
def sky(opener: Opener) -> Sky:
    return Sky(opener())


def test_noise_crowds_out_neither_refused_writes_nor_changes_nor_others(sky: Sky) -> None:
    for number in range(500):
        assert sky.say("outer", refused(number, is_write=False))
    few = sky.kinds("outer").count("refused")
    assert 10 < few < 100
    assert sky.say("outer", refused(1, is_write=True)) and sky.kinds("outer").count("refused") == few + 1
    assert sky.say("inner", refused(1, is_write=False), write()) and len(sky.kinds("inner")) == 2
    sky.now += TELL_NS
    sky.auditor.tick()
    [told] = [event for _, event in events(sky.log) if event["kind"] == "not-recorded"]
    assert told["producer"] == "outer" and told["count"] == 500 - few and told["kinds"] == [["refused", 500 - few]]
    assert sky.auditor.status().over == ("outer",)
    sky.now += DAY_NS // 2
    assert sky.say("outer", refused(1, is_write=False)) and sky.kinds("outer").count("refused") == few + 2


def test_counts_that_are_lies_make_no_number_that_json_cannot_hold(sky: Sky) -> None:
    many = RefusedMany(wall_ns=1, session="s", source="a", asset="plc", count=MAX_SAFE_INTEGER, is_write=True)
    for _ in range(400):
        assert sky.say("outer", many)
    sky.now += TELL_NS
    sky.auditor.tick()
    [told] = [event for _, event in events(sky.log) if event["kind"] == "not-recorded"]
    assert told["who"] == [["a", "plc", MAX_SAFE_INTEGER, MAX_SAFE_INTEGER, 0, 0, ""]]


@pytest.mark.parametrize("text", ["\x01" * 127, "\U0001f511" * 127, "a" * 127])
def test_what_was_left_out_is_told_whatever_it_was_named(sky: Sky, text: str) -> None:
    """An entry that did not fit was lost, and with it what others had been left out with."""
    spans = tuple(Cells(text, start, 1) for start in range(4))
    for number in range(300):
        source = f"{number % 70}{text}"[:64]
        many = RefusedMany(session="s", source=source, asset=text, count=1, is_write=True, spans=spans)
        assert sky.say("outer", many) and sky.say("inner", refused(number, is_write=True))
    sky.now += TELL_NS
    sky.auditor.tick()
    told: dict[str, Any] = {}
    for _, event in events(sky.log):
        if event["kind"] == "not-recorded":
            told[str(event["producer"])] = event
    for who in ("outer", "inner"):
        kept = sum(kind != "not-recorded" for kind in sky.kinds(who))
        assert told[who]["count"] == 300 - kept == sum(row[2] for row in told[who]["who"])
    assert all(row[6] for row in told["outer"]["who"])


def test_what_was_left_out_last_is_told_when_the_log_is_closed(sky: Sky) -> None:
    for number in range(300):
        assert sky.say("outer", refused(number, is_write=False))
    kept = sky.kinds("outer").count("refused")
    sky.auditor.close()
    assert [event["count"] for _, event in events(sky.log) if event["kind"] == "not-recorded"] == [300 - kept]


def test_what_was_left_out_is_not_forgotten_where_the_disk_does_not_take_it(
    sky: Sky, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(300):
        assert sky.say("outer", refused(number, is_write=False))
    kept = sky.kinds("outer").count("refused")

    def full(parts: object) -> None:
        raise LogUnwritable("no space left")

    with monkeypatch.context() as disk:
        disk.setattr(sky.log, "append_all", full)
        sky.now += TELL_NS
        sky.auditor.tick()
    assert not sky.auditor.status().writable
    sky.auditor.tick()
    assert sky.auditor.status().writable
    assert [event["count"] for _, event in events(sky.log) if event["kind"] == "not-recorded"] == [300 - kept]


def test_a_change_that_has_no_room_is_refused(sky: Sky) -> None:
    said = [sky.say("inner", write(number)) for number in range(1000)]
    assert said[0] and not said[-1]
    assert sky.kinds("inner").count("write-allowed") == said.count(True)
    assert sky.say("gate", Severed(side="it"))


def test_on_a_disk_that_is_nearly_full_only_what_somebody_waits_for_is_recorded(sky: Sky) -> None:
    sky.free = 1 << 20
    sky.now += 2_000_000_000
    sky.auditor.tick()
    assert sky.say("outer", SessionOpened(session="s", half="h", source="a", source_port=1, asset="p"))
    assert sky.say("inner", write()) and sky.say("gate", Severed(side="it"))
    assert [sky.kinds(who) for who in ("outer", "inner", "gate")] == [[], ["write-allowed"], ["severed"]]


def test_noise_does_not_fill_the_disk_between_two_looks_at_it(sky: Sky) -> None:
    """With 30 MB of it in a second nothing was left for what somebody waits for, on a disk that is small."""
    sky.auditor._most = {share: GB for share in SMALL}
    sky.free = RESERVE_BYTES + 100_000
    sky.now += 2_000_000_000
    sky.auditor.tick()
    for number in range(500):
        assert sky.say("outer", refused(number, is_write=False))
    kept = sky.kinds("outer").count("refused")
    assert 20 < kept < 100_000 // AROUND_BYTES // 2
    assert sky.say("inner", write())
    sky.now += 2_000_000_000
    sky.auditor.tick()  # there is as much room as there was
    assert sky.say("outer", refused(1, is_write=False)) and sky.kinds("outer").count("refused") == kept + 1


@given(
    st.lists(
        st.tuples(st.sampled_from(["noise", "refused", "changes"]), st.integers(1, 900), st.integers(0, DAY_NS // 40))
    )
)
def test_in_no_day_a_share_is_passed(said: list[tuple[Share, int, int]]) -> None:
    now, quota = 0, Quota(0, SMALL)
    taken: list[tuple[int, Share, int]] = []
    for share, size, later in said:
        now += later
        quota.fill(now)
        if quota.take(share, size):
            taken.append((now, share, size + AROUND_BYTES))
    for start, _, _ in taken:
        for share in SMALL:
            day = sum(size for at, kind, size in taken if kind == share and start <= at < start + DAY_NS)
            assert day <= SMALL[share] * 1.51


def test_every_kind_of_event_has_a_share() -> None:
    """What a crowd can cause is said so by its topic; a refused write is apart from all of that."""
    assert {share_of(refused(1, is_write=True)), share_of(refused(1, is_write=False))} == {"refused", "noise"}
    assert not {WriteAllowed, Severed} & CROWD and set(CROWD) <= set(DRAFTS) and NotRecorded in CROWD


@pytest.fixture(scope="module")
def owned(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with taken(tmp_path_factory.mktemp("owned")) as scene:
        yield scene


FLOOD = """
draft = Refused(session='x', principals=(), source='a', asset='p', conduit='', rule='', fault='value', detail='y' * 500)
data = pack([msgspec.msgpack.encode(Batch(number=1, policy='', drafts=(draft,) * 200, wants_ack=False))])
sent = 0
until = time.monotonic() + 6
while time.monotonic() < until:
    for packet in data:
        while time.monotonic() < until:
            try:
                sent += os.write(audit, packet)
                break
            except BlockingIOError:
                outer._reactor.turn(0.002)
say(sent >> 20)
"""


def test_an_owned_outer_half_cannot_fill_the_disk_nor_delay_others(owned: Taken) -> None:
    """H9: it says to the log what it may say, as fast as it can."""
    folder = owned.site.state / "audit"

    def size() -> int:
        return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())

    with Client(owned.other_port) as operator:
        said = int(owned.inject(FLOOD) or 0)
        assert said >= 1
        assert operator.write(5)
        assert size() < 100 << 20
        eventually(lambda: owned.gate.status()["audit"]["writable"])
        assert operator.write(6)
    assert owned.gate.stop() == 0
    assert [event["points"][0][1] for event in gate_events(owned.site.state, "write-allowed")] == ["5", "6"]
    assert len(log_of(owned.site.state)) < 150_000


def test_a_producer_that_changes_nothing_has_no_share_of_changes(opener: Opener) -> None:
    """An outer half that is owned tells of broken rules, which are no crowd's, as fast as it can."""
    log = opener()
    auditor = Auditor(log, mono_ns=lambda: 1_000_000_000, disk=lambda: (100 * GB, 1000 * GB))
    auditor.introduce("outer", kinds((*access.OUTER, *gate.PART)))
    said, before = True, log.size
    draft = RecordViolation(half="x" * 100, detail="y" * 500)
    while said:
        auditor.submit("outer", 1, [draft] * 100)
        said = all(result.ok for result in auditor.commit())
    assert 1_000 < log.size - before < 16_000
    auditor.upkeep.close()


def test_whoever_fills_a_share_blinds_the_log_for_nobody_else_nor_for_themselves(sky: Sky) -> None:
    """H8 by way of the shares: thousands of harmless refusals, and then the one that matters."""

    def attempt(who: str, value: int) -> Refused:
        return Refused(
            session="s", principals=(who,), source="10.0.0.1", asset="plc", conduit="", rule="", fault="value",
            detail="", is_write=True, spans=(Cells("holding", 40, 1),), values=(value,),
        )  # fmt: skip

    for _ in range(300):
        assert sky.say("outer", attempt("erp", 7))
    assert sky.say("outer", attempt("erp", 31337))
    assert sky.say("outer", attempt("operator", 5))
    there = [event for _, event in events(sky.log) if event["kind"] == "refused"]
    assert ["operator"] in [event["principals"] for event in there]
    assert [31337] not in [event["values"] for event in there]
    sky.now += TELL_NS
    sky.auditor.tick()
    [told] = [event for _, event in events(sky.log) if event["kind"] == "not-recorded"]
    count = 302 - len(there)
    assert told["who"] == [["erp", "plc", count, count, 7, 31337, "holding 40-40"]]


def test_what_a_refused_batch_took_with_it_is_counted(sky: Sky) -> None:
    said = [sky.say("inner", write(number), refused(number, is_write=True)) for number in range(600)]
    lost = said.count(False)
    assert lost > 1
    sky.now += TELL_NS
    sky.auditor.tick()
    [told] = [event for _, event in events(sky.log) if event["kind"] == "not-recorded"]
    assert dict(told["kinds"])["write-allowed"] == lost  # type: ignore[call-overload]


def test_an_outcome_has_room_where_a_further_write_has_none(sky: Sky) -> None:
    number = 0
    while sky.say("inner", write(number)):
        number += 1
    assert sky.say("inner", WriteOutcome(session="s", write=f"w{number - 1}", asset="plc-7", outcome="done"))


def test_nobody_takes_the_last_of_the_disk_from_others(sky: Sky, monkeypatch: pytest.MonkeyPatch) -> None:
    """An owned inner half filled a disk with writes that nobody had asked for, and all others' were refused from then
    on. Nor does it by their outcomes."""
    sky.auditor._most = {share: GB for share in SMALL}
    monkeypatch.setattr(AuditLog, "journal_room", 0)
    sky.free = 400_000
    sky.now += 2_000_000_000
    sky.auditor.tick()
    number = 0
    while sky.say("inner", write(number)):
        number += 1
    assert number > 50
    assert sky.auditor.status().writable and "writes of inner are refused" in sky.auditor.status().reason
    sky.auditor.introduce("other", ("write-allowed", "write-outcome"))
    assert all(sky.say("other", write(turn)) for turn in range(15)) and sky.say("gate", Severed(side="it"))
    assert not sky.say("inner", WriteOutcome(session="s", write="none", asset="plc-7", outcome="done"))
    [twice] = [WriteOutcome(session="s", write=f"w{number - 1}", asset="plc-7", outcome="done")]
    assert sky.say("inner", twice) and not sky.say("inner", twice, twice)
    sky.free = GB
    sky.now += 2_000_000_000
    sky.auditor.tick()
    assert sky.say("inner", write(number)) and not sky.auditor.status().reason


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.integers(1, 2000), st.integers(0, DAY_NS // 400)), max_size=200))
def test_nobody_takes_more_than_they_leave(said: list[tuple[str, int, int]]) -> None:
    now, quota = 0, Quota(0, SMALL)
    for who, size, later in said:
        now += later
        quota.fill(now)
        if quota.take("noise", size, who):
            assert quota._used["noise"][who] <= quota._left["noise"] + 2 * (size + AROUND_BYTES)
