"""Whether a conduit is open now, in words; and the latency of the last minutes out of counters of the whole run."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime, timedelta

import pytest

from cofferdam.gate.watch.recent import RECENT_SECONDS, STEP_SECONDS, Recent
from cofferdam.histogram import Histogram, upper
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import loads
from cofferdam.policy.standing import Standing, standing
from cofferdam.policy.zones import AHEAD
from tests.gate.conftest import Site
from tests.gate.plant import Client, cli, running
from tests.policy.plant import BASE, NOW, conduit, ns

RULE = "{who: ops, asset: plc, read: all}"
WORKDAYS = 'window: {days: mon-fri, from: "06:00", to: "18:00", zone: Europe/Paris}'
WEEKDAY = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def stands(extra: str, when: str | int) -> Standing:
    policy = compile_policy(loads(BASE + conduit(RULE, extra=extra)), now_ns=NOW)
    (one,) = policy.conduits.values()
    return standing(one, policy.table.clocks, ns(when) if isinstance(when, str) else when)


@pytest.mark.parametrize(
    ("extra", "when", "is_open", "changes", "says"),
    [
        ("", "2027-01-04T12:00+00:00", True, "", "open"),
        (WORKDAYS, "2027-01-04T12:00+01:00", True, "2027-01-04T18:00+01:00", "open until Mon 2027-01-04 17:00 UTC"),
        (WORKDAYS, "2027-01-08T18:00+01:00", False, "2027-01-11T06:00+01:00", "shut until Mon 2027-01-11 05:00 UTC"),
        (f"{WORKDAYS}\nexpires: 2027-01-05", "2027-01-04T12:00+01:00", True, "2027-01-04T18:00+01:00",
         "open until Mon 2027-01-04 17:00 UTC"),
        ('window: {from: "00:00", to: "24:00", zone: UTC}', "2027-01-04T12:00+00:00", True, "", "open"),
        ("expires: 2027-01-04", "2027-01-04T12:00+00:00", True, "2027-01-05T00:00+00:00", "open"),
        (f"{WORKDAYS}\nexpires: 2027-01-08", "2027-01-08T19:00+01:00", False, "", "shut, and expires before it opens"),
        (f"{WORKDAYS}\nexpires: 2027-01-04", "2027-01-05T12:00+01:00", False, "", "EXPIRED at the end of 2027-01-04"),
    ],
)  # fmt: skip
def test_a_conduit_says_how_it_stands(extra: str, when: str, is_open: bool, changes: str, says: str) -> None:
    found = stands(extra, when)
    assert (found.open, found.changes_ns, found.says[: len(says)]) == (is_open, ns(changes) if changes else 0, says)


def test_the_last_day_is_that_of_the_policy_wherever_its_zone_lies() -> None:
    found = stands("expires: 2027-01-04 America/Los_Angeles", "2027-01-04T12:00+00:00")
    assert (found.expires, found.expires_ns) == ("2027-01-04 America/Los_Angeles", ns("2027-01-05T00:00-08:00"))


def test_beyond_the_years_of_its_time_zones_a_window_is_shut_and_says_why() -> None:
    found = stands(WORKDAYS, NOW + (AHEAD + 86_400) * 10**9)
    assert not found.open and "loaded anew" in found.says


def test_what_stands_is_what_is_judged() -> None:
    """At any time, a conduit that is said to be open until then is open until then, and no longer."""
    chance = random.Random(7)
    policy = compile_policy(loads(BASE + conduit(RULE, extra=f"{WORKDAYS}\nexpires: 2027-03-29")), now_ns=NOW)
    (one,) = policy.conduits.values()
    for _ in range(200):
        when = ns("2027-03-20T00:00+00:00") + chance.randrange(10 * 86_400) * 10**9
        found = standing(one, policy.table.clocks, when)
        if found.changes_ns:
            assert standing(one, policy.table.clocks, found.changes_ns - 1).open is found.open
            assert standing(one, policy.table.clocks, found.changes_ns).open is not found.open


def test_status_says_which_conduits_are_open_now(site: Site) -> None:
    today = datetime.now(UTC)
    days = [WEEKDAY[(today + timedelta(days=ahead)).weekday()] for ahead in (-1, 0, 1, 3)]
    hours = '{days: [%s], from: "00:00", to: "24:00", zone: UTC}'
    text = site.text()
    window = f"expires: 2090-01-31\n    window: {hours % ', '.join(days[:3])}"
    site.policy.write_text(text.replace("reason: for the test", f"reason: r\n    {window}"))
    with running(site.state, site.policy) as gate:
        now = gate.status()["conduits"][0]["standing"]
        assert now["open"] and now["says"].startswith("open until") and now["expires"] == "2090-01-31 UTC"
        said = " ".join(cli("status", "--state", site.state)[1].split())
        assert "open until" in said
        site.policy.write_text(text.replace("reason: for the test", f"reason: r\n    window: {hours % days[3]}"))
        assert cli("reload", "--state", site.state)[0] == 0
        now = gate.status()["conduits"][0]["standing"]
        assert not now["open"] and now["says"].startswith("shut until") and now["changes_ns"] > today.timestamp() * 1e9


# --- the last minutes ------------------------------------------------------------------------------------------------


def test_the_last_minutes_are_what_was_added_in_them() -> None:
    """Against a list of all values with their times."""
    chance = random.Random(11)
    recent, whole = Recent(), Histogram()
    seen: list[tuple[float, int]] = []
    now = 1000.0
    for step in range(60):
        recent.keep(now, {"c": whole})
        kept_at = [1000.0 + n * STEP_SECONDS for n in range(step + 1)]
        for _ in range(chance.randrange(40)):
            value = chance.randrange(1000, 10**7) * (100 if step < 10 else 1)
            whole.add(value)
            seen.append((now, value))
        now += STEP_SECONDS
        found = recent.since(now, "c", whole)
        begins = max((at for at in kept_at if at <= now - RECENT_SECONDS), default=0.0)
        expected = [value for at, value in seen if at >= begins]
        assert (found.count, found.sum) == (len(expected), sum(expected))
        assert now - begins <= RECENT_SECONDS + STEP_SECONDS or begins == 0.0
        for q in (0.5, 0.99):
            if expected:
                exact = sorted(expected)[math.ceil(q * len(expected)) - 1]
                assert exact <= found.quantile(q) <= exact * 1.04
        assert max(expected, default=0) <= found.max <= upper(max(found.counts, default=0))
    assert len(recent._kept) <= RECENT_SECONDS / STEP_SECONDS + 2, "what is no longer needed is forgotten"


def test_a_moment_in_which_counts_are_missing_does_not_bring_the_past_back() -> None:
    recent, whole = Recent(), Histogram()
    for _ in range(100):
        whole.add(10**9)
    recent.keep(0.0, {"c": whole})
    recent.keep(30.0, {})  # its pair is just being ended
    for _ in range(3):
        whole.add(1000)
    recent.keep(60.0, {"c": whole})
    found = recent.since(331.0, "c", whole)
    assert found.count == 3 and found.max < 1100
    assert recent.since(500.0, "c", whole).count == 0
    assert recent.since(500.0, "new", whole).count == 103, "what was not there then is all new"


def test_status_has_the_last_minutes_beside_the_whole_run(site: Site) -> None:
    site.policy.write_text(site.text().replace("reason: for the test", "reason: r\n    latency_budget: 1 us"))
    with running(site.state, site.policy) as gate, Client(site.port) as client:
        for _ in range(7):
            client.read()
        status = gate.status()
        conduit = status["conduits"][0]
        assert status["recent_seconds"] == RECENT_SECONDS
        assert conduit["recent"] == conduit["added"] and conduit["recent"]["count"] == 7
        assert conduit["recent_over_budget"] and conduit["over_budget"]
        said = cli("status", "--state", site.state)[1]
        assert "5 min" in said and said.count("OVER") == 2


def test_severing_loses_no_counts(site: Site) -> None:
    with running(site.state, site.policy) as gate, Client(site.port) as client:
        for _ in range(5):
            client.read()
        assert gate.status()["conduits"][0]["reads"] == 5
        assert cli("sever", "it", "--state", site.state)[0] == 0
        assert gate.status()["conduits"][0]["reads"] == 5
        assert cli("restore", "it", "--state", site.state)[0] == 0
