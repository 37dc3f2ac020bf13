"""A body of many messages of which each fails: what it costs to say so, and where."""

from __future__ import annotations

import json
import time
from itertools import chain
from typing import Any

import pytest

from cofferdam.brokers.relay.http_messages import LINES_AT_ONCE, Outcome, event_values, line_outcomes
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import loads
from cofferdam.policy.messages.checked import Problem
from cofferdam.policy.messages.checking import Checks
from cofferdam.policy.terms.relay_rows import Relay
from tests.brokers.relay.crew import FILES, policy_text
from tests.steps import steps

MANY = 1_000_000
"""Steps. A side that reads the whole body for each message goes through a million messages, of several each."""


@pytest.fixture(scope="module")
def checks() -> Checks:
    text = policy_text({}, outer=4001, inner=4002)
    policy = compile_policy(loads(text, files=FILES), now_ns=time.time_ns())
    return Checks(Relay((name, conduit.terms) for name, conduit in policy.conduits.items()))  # type: ignore[misc]


def event(number: int, n: Any) -> dict[str, Any]:
    data = {"line": "filler", "note": "x" * 900, "n": n}
    return {"specversion": "1.0", "type": "count", "source": "/line", "id": str(number), "data": data}


def spent(body: bytes, outcomes: list[Outcome]) -> int:
    """What a side does to say where the keeper's problems stand."""

    def says() -> None:
        for outcome in outcomes:
            assert outcome.located(Problem("limit", "too many", "/n"), body).line

    return steps(says)


def test_a_batch_of_failing_events_is_read_a_few_times_and_not_once_for_each(checks: Checks) -> None:
    body = json.dumps([event(number, -1) for number in range(1000)]).encode()
    assert len(body) > 1_000_000
    outcomes: list[Outcome] = []
    assert steps(lambda: outcomes.extend(chain.from_iterable(event_values(checks, "counts", body)))) < MANY
    assert all(each.item is not None and each.item.doubtful for each in outcomes)
    assert spent(body, outcomes) < MANY


def test_what_the_keeper_finds_in_a_batch_is_located_in_each_event_alone(checks: Checks) -> None:
    body = json.dumps([event(number, 1) for number in range(1000)]).encode()
    outcomes = list(chain.from_iterable(event_values(checks, "counts", body)))
    assert all(each.item is not None and not each.item.doubtful for each in outcomes)
    assert spent(body, outcomes) < MANY


@pytest.mark.parametrize("indent", [None, 0, 2])
def test_an_event_that_fails_is_told_by_its_place_in_the_whole_batch(checks: Checks, indent: int | None) -> None:
    text = " \n " * bool(indent) + json.dumps([event(number, f"wrong-{number}") for number in range(3)], indent=indent)
    for number, outcome in enumerate(chain.from_iterable(event_values(checks, "counts", text.encode()))):
        at = text.index(f'"wrong-{number}"')
        place = (text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at))
        assert outcome.problem is not None
        assert outcome.problem.place == "/n"
        assert (outcome.problem.line, outcome.problem.column) == place
        found = outcome.located(Problem("limit", "too many", "/n"), text.encode())
        assert (found.line, found.column) == place


def test_lines_that_fail_are_told_by_their_line(checks: Checks) -> None:
    body = b"\n".join(json.dumps({"id": str(n), "data": {"line": "a", "n": -n}}).encode() for n in range(1, 4))
    told = [
        each.problem.line
        for each in chain.from_iterable(line_outcomes(checks, "counts", body))
        if each.problem is not None
    ]
    assert told == [1, 2, 3]


def test_lines_that_are_read_together_are_what_each_is_alone(checks: Checks) -> None:
    """Good ones, such that pass in another form, such that fail, and such that cannot be read, wherever they stand."""
    kinds = [
        '{"id":"%d","data":{"line":"a","n":%d}}',
        ' {"data": {"n": %d, "line": "\\u0061"} , "id": "%d"}\r',
        '{"id":"%d","data":{"line":"a","n":-%d}}',
        '{"id":"%d","data":{"line":"a","n":1,"n":%d}}',
        '{"id":"%d","data":{"line":"a","n":%d.0}}',
        '{"id":"%d","data":{"line":"a","n":1e400},"x":%d}',
        '{"id":"%d","data":{"line":"a","n":%d},"more":1}',
        '{"id":"","data":{"line":"a%d","n":%d}}',
        '["%d", %d]',
        "",
    ]
    rows = [
        (kind % (n, n) if kind else kind).encode()
        for n in range(3 * LINES_AT_ONCE)
        for kind in kinds[n % 7 : n % 7 + 4]
    ]
    rows[:0] = [(kinds[0] % (n, n)).encode() for n in range(2 * LINES_AT_ONCE)]

    def told(outcome: Outcome) -> tuple[Any, ...]:
        return outcome.key, outcome.item, outcome.problem and (outcome.problem.fault, outcome.problem.detail)

    together = list(chain.from_iterable(line_outcomes(checks, "counts", b"\n".join(rows))))
    alone = [next(chain.from_iterable(line_outcomes(checks, "counts", row + b"\n"))) for row in rows]
    assert list(map(told, together)) == list(map(told, alone))
    assert [outcome.above for outcome in together] == list(range(len(rows)))
    assert sum(outcome.problem is None for outcome in together) > 3 * LINES_AT_ONCE
