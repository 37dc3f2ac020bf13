"""A body of many messages of which each fails: what it costs to say so, and where."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from cofferdam.brokers.relay.http_messages import Outcome, event_values, line_outcomes
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
    assert steps(lambda: outcomes.extend(event_values(checks, "counts", body))) < MANY
    assert all(each.item is not None and each.item.doubtful for each in outcomes)
    assert spent(body, outcomes) < MANY


def test_what_the_keeper_finds_in_a_batch_is_located_in_each_event_alone(checks: Checks) -> None:
    body = json.dumps([event(number, 1) for number in range(1000)]).encode()
    outcomes = list(event_values(checks, "counts", body))
    assert all(each.item is not None and not each.item.doubtful for each in outcomes)
    assert spent(body, outcomes) < MANY


@pytest.mark.parametrize("indent", [None, 0, 2])
def test_an_event_that_fails_is_told_by_its_place_in_the_whole_batch(checks: Checks, indent: int | None) -> None:
    text = " \n " * bool(indent) + json.dumps([event(number, f"wrong-{number}") for number in range(3)], indent=indent)
    for number, outcome in enumerate(event_values(checks, "counts", text.encode())):
        at = text.index(f'"wrong-{number}"')
        place = (text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at))
        assert outcome.problem is not None
        assert outcome.problem.place == "/n"
        assert (outcome.problem.line, outcome.problem.column) == place
        found = outcome.located(Problem("limit", "too many", "/n"), text.encode())
        assert (found.line, found.column) == place


def test_lines_that_fail_are_told_by_their_line(checks: Checks) -> None:
    body = b"\n".join(json.dumps({"id": str(n), "data": {"line": "a", "n": -n}}).encode() for n in range(1, 4))
    told = [each.problem.line for each in line_outcomes(checks, "counts", body) if each.problem is not None]
    assert told == [1, 2, 3]
