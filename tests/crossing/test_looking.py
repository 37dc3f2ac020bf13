"""Looking before sleeping: a loop finds out whether it pays."""

from __future__ import annotations

import os

import pytest

from cofferdam.crossing.looking import KEPT, LONGEST, SCARCE, TRIED, Looking
from cofferdam.crossing.reactor import READ, Reactor

SPIN_NS = 100_000


def does(looking: Looking) -> tuple[bool, bool]:
    """Whether the next wait begins with looking, and whether its time is wanted."""
    return looking.on, looking.trying


def tried(looking: Looking, looked_ns: int, asleep_ns: int) -> None:
    """Goes through both kinds of waits, which take so long each."""
    for _ in range(2 * TRIED):
        assert looking.trying
        looking.waited(looked_ns if looking.on else asleep_ns)
    assert not looking.trying


@pytest.mark.parametrize(
    ("looked_ns", "asleep_ns", "pays"),
    [
        (20_000, 90_000, True),  # waking leaves a virtual machine
        (20_000, 26_000, True),  # waking is quick, and looking still quicker
        (20_000, 20_500, False),  # no shorter than chance makes it
        (60_000, 60_000, False),  # the core is shared
        (1_000_000_000, 1_000_100_000, False),  # a poll a second: nothing comes while it looks
        (10_000, 1_000_000_000, True),  # a pause between polls fell into the second trial
    ],
)
def test_it_looks_only_where_that_shortens_the_wait(looked_ns: int, asleep_ns: int, pays: bool) -> None:
    looking = Looking(SPIN_NS)
    tried(looking, looked_ns, asleep_ns)
    assert does(looking) == (pays, False)


def test_a_pause_counts_no_more_than_its_bound() -> None:
    looking = Looking(SPIN_NS)
    tried(looking, 20_000, 26_000)
    for _ in range(KEPT):
        looking.passed()
    assert does(looking) == (True, True)  # it tries again, since the machine may be another by now
    for at in range(TRIED):
        looking.waited(1 << 60 if at == 0 else 20_000)  # one pause among short waits
    assert does(looking) == (False, True)
    for _ in range(TRIED):
        looking.waited(20_000 * 3 + SPIN_NS * LONGEST // TRIED * 2)
    assert does(looking) == (True, False)


def test_waits_in_which_somebody_else_had_the_core_decide_nothing() -> None:
    looking = Looking(SPIN_NS)
    for at in range(2 * TRIED):
        long = looking.on and at % 3 == 0
        looking.waited(SPIN_NS * LONGEST if long else 20_000 if looking.on else 26_000)
    assert does(looking) == (True, False)


def test_it_changes_its_mind_when_the_machine_does() -> None:
    looking = Looking(SPIN_NS)
    tried(looking, 20_000, 90_000)
    for _ in range(KEPT):
        assert looking.on
        looking.passed()
    tried(looking, 60_000, 60_000)
    assert not looking.on


@pytest.mark.parametrize(("asleep_ns", "pays"), [(20_600, True), (20_100, False)])
def test_what_it_has_found_to_pay_it_gives_up_only_where_it_pays_no_longer(asleep_ns: int, pays: bool) -> None:
    looking = Looking(SPIN_NS)
    tried(looking, 20_000, 26_000)
    for _ in range(KEPT):
        looking.passed()
    tried(looking, 20_000, asleep_ns)
    assert looking.on == pays


def asleep(looking: Looking) -> int:
    """For how many waits it sleeps before it looks again."""
    waits = 0
    while not looking.on:
        looking.passed()
        waits += 1
    return waits


def test_it_sleeps_at_once_where_the_core_is_wanted_and_goes_on_looking_when_it_is_not() -> None:
    looking = Looking(SPIN_NS)
    tried(looking, 20_000, 90_000)
    for _ in range(100):
        looking.passed()
    looking.scarce()
    assert not looking.on
    assert asleep(looking) == SCARCE
    for _ in range(KEPT - 100):
        assert does(looking) == (True, False)  # what had been found still holds
        looking.passed()
    assert does(looking) == (True, True)


def test_where_the_core_is_wanted_again_and_again_it_sleeps_longer_each_time() -> None:
    looking = Looking(SPIN_NS)
    pauses = []
    for _ in range(12):  # it never comes to an end of its first trial
        looking.scarce()
        pauses.append(asleep(looking))
    assert pauses == [min(SCARCE << n, KEPT) for n in range(12)]
    tried(looking, 20_000, 90_000)
    looking.scarce()
    assert asleep(looking) == SCARCE


def test_zero_never_looks() -> None:
    looking = Looking(0)
    for _ in range(2 * KEPT):
        assert does(looking) == (False, False)
        looking.passed()


@pytest.mark.parametrize(
    ("burst_ns", "scarce"),
    [
        (60_000, False),  # the client whose next request is waited for
        (1_000_000, True),  # somebody who has as much of the core as he is given
    ],
)
def test_who_gives_the_core_back_by_himself_does_not_end_the_looking(
    monkeypatch: pytest.MonkeyPatch, burst_ns: int, scarce: bool
) -> None:
    """The clock is the test's: others have the core for so long whenever the loop gives way."""
    now = [0]

    def give_way() -> None:
        now[0] += burst_ns

    monkeypatch.setattr("cofferdam.crossing.reactor.time.monotonic_ns", lambda: now[0])
    monkeypatch.setattr("cofferdam.crossing.reactor.os.sched_yield", give_way)
    reactor = Reactor(SPIN_NS)
    read, write = os.pipe()
    reactor.add(read, READ, lambda _: None)
    os.write(write, b"!")
    reactor.turn(0.001)  # work, after which it looks for more
    os.read(read, 1)
    reactor.turn(0.001)
    assert does(reactor._looking) == (not scarce, not scarce)
    reactor.close()
    for fd in (read, write):
        os.close(fd)


@pytest.mark.parametrize("spin_ns", [0, SPIN_NS])
def test_whatever_it_does_all_that_comes_is_taken(spin_ns: int) -> None:
    reactor = Reactor()
    reactor.look_for(spin_ns)
    read_end, write_end = os.pipe()
    taken: list[bytes] = []
    reactor.add(read_end, READ, lambda _events: taken.append(os.read(read_end, 1)))
    try:
        for number in range(2 * TRIED + 8):
            os.write(write_end, bytes((number,)))
            before = len(taken)
            while len(taken) == before:
                reactor.turn(5)
        assert taken == [bytes((number,)) for number in range(2 * TRIED + 8)]
        fired: list[int] = []
        reactor.call_in(0.001, lambda: fired.append(1))
        while not fired:
            reactor.turn(5)
    finally:
        reactor.remove(read_end)
        reactor.close()
        os.close(read_end)
        os.close(write_end)
