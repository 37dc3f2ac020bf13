"""How much a client can make the gate write into its audit log, and that what is not written is counted."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cofferdam.audit.client import AuditClient
from cofferdam.audit.events.access import (
    LimitHit,
    Malformed,
    ReadsCounted,
    Refused,
    RefusedMany,
    SessionClosed,
    SessionOpened,
    WriteAllowed,
)
from cofferdam.audit.events.base import ADDRESS
from cofferdam.audit.records import COUNT_BYTES_A_SECOND, Ack, Hello, ToAuditor
from cofferdam.brokers.kit.budget import ALL_ENTRIES, ENTRIES, INTERVAL_NS, TOLD, LogBudget, share_of
from cofferdam.brokers.kit.limit_notes import NOTES
from cofferdam.model import Assign, Item, Operation
from cofferdam.values import Text
from tests.brokers.stage import WALL, AuditPipe, ManualReactor, Stage, Wire, read, write
from tests.brokers.test_adversary import PACE, run_device
from tests.examples import examples

REFUSED = read(1, 300, 1)
"""A frame whose request policy refuses."""
BROKEN = b"\x00\x01\x00\x07\x00\x06\x01\x03\x00\x00\x00\x01"
"""A frame of another protocol: it ends the connection."""
FREE = "client_connects_per_second: 1000000, "
"""With as many connections a second as one likes, so that the budget alone has to hold."""
KNOWN = FREE + "stranger_connections: 100, client_outstanding: 100"


def visit(stage: Stage, source: str, frames: bytes) -> Wire:
    """A client comes, sends, and leaves."""
    client = stage.client(source)
    if not client.closed:
        client.on_data(frames)
        if not client.closed:
            client.on_closed("closed by the client")
    stage.cross()
    return client


def rest(stage: Stage) -> None:
    """Until all that was counted has been told."""
    stage.reactor.advance(11)
    stage.outer.tick()
    stage.inner.tick()
    stage.reactor.settle()


def told(stage: Stage) -> int:
    """The openings and refusals that the log tells of, one by one or as a count."""
    counts: int = sum(hit.count for hit in stage.of(LimitHit) if hit.limit == "log_entries")
    counts += sum(entry.count for entry in stage.of(RefusedMany))
    return counts + len(stage.of(SessionOpened)) + len(stage.of(Refused)) + len(stage.of(Malformed))


def test_one_source_that_comes_and_goes_is_in_the_log_as_a_count() -> None:
    stage = Stage(limits=FREE)
    for _ in range(300):
        visit(stage, "127.0.0.1", REFUSED * 5)
    drafts = len(stage.audit_pipe.drafts)
    assert drafts <= 2 * ENTRIES, "each opening and closing, each refusal"
    rest(stage)
    assert len(stage.audit_pipe.drafts) <= drafts + 2
    assert told(stage) == 300 * (1 + 5)


def test_a_source_that_nobody_knows_is_no_dearer() -> None:
    stage = Stage(limits=FREE)
    for _ in range(130):  # 3,900 requests: below what one source may ask at once
        visit(stage, "10.66.6.6", REFUSED * 30)
    rest(stage)
    assert len(stage.audit_pipe.drafts) <= 2 * ENTRIES + 4
    assert told(stage) == 130 * (1 + 30)


def test_many_strangers_together_get_little() -> None:
    """Three thousand addresses, as one host with IPv6 has: refusals, counts at the end of each session, all of it."""
    stage = Stage(limits=FREE)
    for number in range(3000):
        visit(stage, f"10.{number >> 8}.{number & 255}.1", REFUSED * 25)
    rest(stage)
    assert len(stage.audit_pipe.drafts) <= 2 * ALL_ENTRIES + TOLD + 2
    assert told(stage) == 3000 * (1 + 25)
    assert all(source.count(".") == 3 or source == "others" for source in {hit.source for hit in stage.of(LimitHit)})


def test_many_strangers_do_not_use_up_what_known_sources_have() -> None:
    stage = Stage(limits=FREE)
    for number in range(1000):
        visit(stage, f"10.{number >> 8}.{number & 255}.1", REFUSED)
    visit(stage, "127.0.0.1", REFUSED)
    mine = [entry for entry in stage.of(Refused) if entry.source == "127.0.0.1"]
    assert len(mine) == 1


def test_connections_that_are_turned_away_are_bounded_too() -> None:
    stage = Stage(limits=FREE + "stranger_connections: 1")
    stage.client("10.66.6.6")
    for number in range(3000):
        visit(stage, f"10.{number >> 8}.{number & 255}.1", REFUSED)
    for turn in range(20):  # half seconds of one interval
        stage.reactor.advance(0.4)
        stage.outer.tick()
        for number in range(2 * NOTES):
            visit(stage, f"10.77.{turn}.{number}", REFUSED)
    assert len(stage.audit_pipe.drafts) <= 3 * NOTES


def test_frames_of_another_protocol_are_bounded() -> None:
    stage = Stage(limits=FREE)
    for number in range(1000):
        assert visit(stage, f"10.{number % 5}.0.1", BROKEN).closed
    rest(stage)
    assert len(stage.audit_pipe.drafts) <= 2 * ALL_ENTRIES + TOLD
    assert told(stage) == 2000


def test_refusals_of_the_inner_half_are_bounded_though_each_comes_in_a_session_of_its_own() -> None:
    """A principal who may write a point twice a minute, and tries twenty times in each of many connections."""
    stage = Stage(limits=FREE)
    frames = b"".join(write(number + 1, PACE, number) for number in range(16))
    for _ in range(100):
        client = stage.client()
        client.on_data(frames)
        run_device(stage)
        stage.reactor.advance(0.01)  # counts are said some hundred times a second at most
        stage.cross()
        assert len(client.take()) == 16
        client.on_closed("closed by the client")
        stage.cross()
    assert len(stage.of(WriteAllowed)) == 2
    assert len(stage.of(Refused)) + len(stage.of(RefusedMany)) <= ENTRIES
    rest(stage)
    counted = sum(hit.count for hit in stage.of(LimitHit) if hit.limit == "log_entries")
    assert counted + sum(entry.count for entry in stage.of(RefusedMany)) + len(stage.of(Refused)) >= 100 * 16 - 2


def held(stage: Stage) -> int:
    """Refused writes that the auditor knows of: by their entries, or by a count that it would write down at our end."""
    counting = stage.audit_pipe.counting.values()
    counts = sum(entry.count for entry in (*stage.of(RefusedMany), *counting) if isinstance(entry, RefusedMany))
    return counts + len(stage.of(Refused))


def exceptions(client: Wire) -> int:
    return sum(frame[7] == 0x86 for frame in client.take())


def test_no_refused_write_is_answered_that_the_auditor_has_not_heard_of() -> None:
    """A half that is killed has forgotten nothing that it answered."""
    stage = Stage(limits=KNOWN)
    clients = [stage.client(f"10.1.0.{number}") for number in range(70)]  # more than are counted apart
    answered = 0
    for turn in range(3):
        for number, client in enumerate(clients):
            client.on_data(b"".join(write(one, 300 + number, one) for one in range(1, 41)))
            assert not exceptions(client), "before the turn is over"
        stage.reactor.settle()
        answered += sum(exceptions(client) for client in clients)
        assert answered <= held(stage)
        stage.reactor.advance(0.05)  # counts that were said a moment ago are not said again at once
        answered += sum(exceptions(client) for client in clients)
        assert answered == held(stage) == 40 * len(clients) * (turn + 1)


def test_a_refused_write_waits_for_the_auditors_pipe_to_have_room() -> None:
    stage = Stage()
    client = stage.client()
    stage.audit_pipe.backlog = 1
    client.on_data(write(1, 300, 7) + write(2, 300, 9) + read(3, 300, 1))
    stage.reactor.settle()
    assert [frame[7] for frame in client.take()] == [0x83], "refused reads do not wait"
    assert [one.is_write for one in stage.of(Refused)] == [False], "it is counted, and not dropped"
    stage.reactor.advance(0.1)
    assert not client.take()
    stage.audit_pipe.backlog = 0
    stage.reactor.advance(0.1)
    assert exceptions(client) == 2 == held(stage) - 1
    [count] = stage.audit_pipe.counting.values()
    assert isinstance(count, RefusedMany) and (count.least, count.greatest, count.principals) == (7, 9, ("tester",))


def test_a_refused_write_does_not_wait_for_ever() -> None:
    stage = Stage()
    client = stage.client()
    stage.audit_pipe.backlog = 1
    client.on_data(write(1, 300, 7))
    stage.reactor.advance(stage.policy.limits.audit_wait_seconds + 0.1)
    assert exceptions(client) == 1


def test_what_is_refused_in_the_same_breath_as_a_broken_frame_is_answered_first() -> None:
    stage = Stage()
    client = stage.client()
    client.on_data(write(1, 300, 7) + BROKEN)
    assert client.closed and exceptions(client) == 1 == held(stage)
    [end] = stage.of(SessionClosed)
    assert end.refused == 1


def test_counts_of_many_sources_and_assets_take_so_much_of_the_auditors_time_and_no_more() -> None:
    """All that grew was said each 2 ms, however much it was: with cells and items of 64, 30 MiB a second."""
    reactor, said = ManualReactor(), [0]

    class Weighed(AuditPipe):
        def send(self, record: ToAuditor) -> None:
            said[0] += len(self._codec.encode(record))

    client = AuditClient(reactor, Weighed(), wait_seconds=1)
    budget = LogBudget(client)
    texts = [Assign(Item("tag", f"{number}"), Text(("v" * 900,))) for number in range(16)]
    many = Operation(function=1, sub=0, unit=1, is_write=True, writes=tuple(texts))
    answered: list[int] = []
    for _ in range(200):
        for number in range(TOLD):
            budget.count(f"10.0.0.{number}", "plc", "value", many, ("erp",), "s", WALL)
        client.when_sent(lambda: answered.append(reactor.now))
        reactor.advance(0.005)
    assert said[0] < 2 * COUNT_BYTES_A_SECOND and len(answered) > 100


def test_another_auditor_is_told_what_the_last_one_knew() -> None:
    """Counts as they are, and single entries that it had not confirmed."""
    stage = Stage(auto=False, limits=KNOWN)
    client = stage.client()
    client.on_data(b"".join(write(one, 300, one) for one in range(1, 81)))
    stage.reactor.settle()
    assert exceptions(client) == 80 == held(stage)
    stage.audit_pipe.drafts.clear()
    stage.audit_pipe.counting.clear()
    stage.audit.on_record(Hello(True))
    stage.reactor.advance(0.01)
    assert held(stage) == 80
    for number in stage.audit_pipe.unanswered:
        stage.audit.on_record(Ack(number, True))
    stage.audit_pipe.drafts.clear()
    stage.audit.on_record(Hello(True))
    stage.reactor.settle()
    assert not stage.of(Refused), "what is confirmed is not said again"
    rest(stage)
    [count] = stage.of(RefusedMany)
    for confirmed in (False, True):
        stage.audit_pipe.drafts.clear()
        stage.audit.on_record(Hello(True))
        stage.reactor.settle()
        assert stage.of(RefusedMany) == ([] if confirmed else [count]), "nor is a count that is over"
        for number in stage.audit_pipe.unanswered:
            stage.audit.on_record(Ack(number, True))


def test_many_sources_of_refused_writes_make_few_entries() -> None:
    stage = Stage(limits=KNOWN)
    clients = [stage.client(f"10.0.0.{number}") for number in range(64)]
    for _ in range(10):
        for client in clients:
            client.on_data(b"".join(write(one, 300, one) for one in range(1, 21)))
        stage.reactor.advance(1.0)
        stage.outer.tick()
        stage.outer.tick()
    rest(stage)
    assert held(stage) == 64 * 20 * 10
    assert len(stage.of(RefusedMany)) <= TOLD + 8


@pytest.mark.parametrize("sessions", [1, 4])
def test_a_count_of_refused_writes_is_an_entry_after_a_second(sessions: int) -> None:
    """So that whoever looks at the log sees what goes on, and little is lost where all is killed."""
    stage = Stage(limits=FREE)
    for number in range(sessions):
        stage.client(f"10.1.0.{20 + number % 2}").on_data(b"".join(write(one, 300, one) for one in range(80)))
        stage.cross()
    stage.reactor.advance(1.5)
    stage.outer.tick()
    stage.outer.tick()
    stage.reactor.settle()
    assert sum(entry.count for entry in stage.of(RefusedMany)) + len(stage.of(Refused)) == 80 * sessions


def test_a_session_that_changed_something_is_in_the_log_whatever_the_budget() -> None:
    stage = Stage(limits=FREE)
    for _ in range(200):
        visit(stage, "127.0.0.1", REFUSED)
    client = stage.client()
    client.on_data(read(1, 0, 1) + write(2, 200, 7))
    run_device(stage)
    client.on_closed("closed by the client")
    stage.cross()
    [reads], [done] = stage.of(ReadsCounted), stage.of(WriteAllowed)
    assert reads.session == done.session and reads.source == "127.0.0.1" and reads.principals == ("tester",)
    assert done.session in {entry.session for entry in stage.of(SessionOpened)}
    assert done.session in {entry.session for entry in stage.of(SessionClosed)}


def test_sessions_that_read_once_and_leave_are_told_together_and_all_counted() -> None:
    """H9: connect, read, close, as fast as it goes, by one who may."""
    stage = Stage(limits=FREE)
    for number in range(1000):
        client = stage.client(port=number)
        client.on_data(read(1, 0, 1))
        run_device(stage)
        client.on_closed("closed by the client")
        stage.cross()
    rest(stage)
    assert sum(entry.reads for entry in stage.of(ReadsCounted)) == 1000
    assert len(stage.audit_pipe.drafts) <= 3 * ENTRIES + 10


def test_what_was_counted_is_told_when_the_half_ends() -> None:
    stage = Stage(limits=FREE + "client_connections: 1")
    for _ in range(200):
        visit(stage, "127.0.0.1", REFUSED)
    stage.client()
    stage.client()
    stage.client()
    stage.outer.stop()
    stage.outer.end()
    stage.reactor.settle()
    assert told(stage) == 200 * 2 + 1
    assert sum(hit.count for hit in stage.of(LimitHit) if hit.limit == "client_connections") == 2


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["known", "10.0.0.1", "10.0.0.2", "10.0.0.3"]),
        st.integers(1, 40),
        st.sampled_from([0, 0, 0, INTERVAL_NS // 3, 2 * INTERVAL_NS, -INTERVAL_NS]),
    ),
    max_size=60,
)


@examples(100)
@given(EVENTS)
def test_every_event_is_written_or_counted_and_an_interval_holds_no_more_than_it_may(
    events: list[tuple[str, int, int]],
) -> None:
    reactor, pipe = ManualReactor(), AuditPipe()
    audit = AuditClient(reactor, pipe, wait_seconds=1)
    audit.on_record(Hello(True))
    budget = LogBudget(audit)
    wall, written = WALL, 0
    asked: Counter[str] = Counter()
    in_interval: Counter[str] = Counter()
    began = wall
    for source, count, pause in events:
        wall += pause
        budget.tick(wall)
        if not 0 <= wall - began <= INTERVAL_NS or not asked:
            in_interval, began = Counter(), wall
        for _ in range(count):
            asked[source] += 1
            if budget.spend(source, source != "known", wall):
                written += 1
                in_interval[source] += 1
        assert max(in_interval.values()) <= ENTRIES
        assert sum(number for name, number in in_interval.items() if name != "known") <= ALL_ENTRIES
    budget.tell(wall)
    reactor.settle()
    hits = [draft for draft in pipe.drafts if isinstance(draft, LimitHit)]
    assert written + sum(hit.count for hit in hits) == sum(asked.values())


def test_two_people_with_long_names_do_not_share() -> None:
    """Of who comes by a conduit of the jump server with a long name ten letters of the person's were left."""
    source, person = "jump:" + "c" * 63, "northwind-technician-"
    first, second = share_of(source, person + "1"), share_of(source, person + "2")
    assert first != second and max(len(first), len(second)) <= ADDRESS and first == share_of(source, person + "1")
    assert share_of("jump:night", "ada") == "jump:night ada"
