"""When a session may go on: windows by the wall clock, approvals by the monotonic one."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from cofferdam.brokers.jump import records
from cofferdam.brokers.jump.accounts import Accounts, Person
from cofferdam.brokers.jump.deciding import Deciding, Session, Yes, same_name
from cofferdam.brokers.jump.signin import Connection
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import loads
from tests.brokers.jump.site import KEY

POLICY = """
site: works
zones: {office: {side: it}, plant: {side: ot}}
assets:
  day: {zone: plant, address: 10.20.0.1, protocol: ssh}
  shift: {zone: plant, address: 10.20.0.2, protocol: ssh}
principals: {people: {zone: office, addresses: [10.1.0.0/24]}}
conduits:
  d:
    {from: office, to: plant, broker: jump, owner: o, reason: r, listen: "10.1.0.2:22", clients: people,
     sessions_at_asset: 3, window: {from: "01:30", to: "03:30", zone: Europe/Paris},
     allow: [{who: {person: tech}, asset: day, as: svc, do: shell}]}
  s:
    {from: office, to: plant, broker: jump, owner: o, reason: r, listen: "10.1.0.2:22", clients: people,
     approval: {by: leads, always: [{days: mon-fri, from: "06:00", to: "14:00", zone: Europe/Paris}]},
     allow: [{who: {person: tech}, asset: shift, as: svc, do: shell}]}
"""
HOUR = 3_600 * 10**9
MINUTE = 60 * 10**9


def at(text: str) -> int:
    """UTC ns of a time in Paris."""
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo("Europe/Paris")).timestamp()) * 10**9


NIGHT = at("2030-05-07T22:00")  # a Tuesday


@pytest.fixture
def accounts(tmp_path: Path) -> Iterator[Accounts]:
    made = Accounts(tmp_path, KEY)
    made.add_person("tech", "", "")
    for asset in ("day", "shift"):
        made.set_credential(asset, "svc", "password", b"x", "root", 0)
        made.set_asset_key(asset, b"key", "root")
    yield made
    made.close()


def deciding(accounts: Accounts) -> Deciding:
    return Deciding(accounts, compile_policy(loads(POLICY), now_ns=NIGHT))


def asks(judge: Deciding, asset: str, wall_ns: int, now_ns: int = 0, there: int = 0) -> Yes | str:
    connection = Connection(1, "c", "10.1.0.9", 1, person="tech", wants=asset, state="in")
    return judge.session(connection, records.Open(1, 1, asset, "shell"), 0, there, wall_ns, now_ns)


def approved(judge: Deciding, accounts: Accounts, wall_ns: int, now_ns: int, seconds: int = 7_200) -> int:
    number = accounts.ask("tech", "shift", "s", seconds, "pump trips", "", wall_ns)
    accounts.settle(number, "granted", wall_ns + seconds * 10**9)
    judge.granted(accounts.request(number), now_ns)
    return number


@pytest.mark.parametrize(
    ("when", "until"),
    [
        ("2030-05-07T05:59", None),  # a Tuesday
        ("2030-05-07T06:00", "2030-05-07T14:00"),
        ("2030-05-07T13:59", "2030-05-07T14:00"),
        ("2030-05-07T14:00", None),
        ("2030-05-11T10:00", None),  # a Saturday
        ("2030-12-03T06:30", "2030-12-03T14:00"),  # by winter time
    ],
)
def test_hours_in_which_it_takes_nobodys_word(accounts: Accounts, when: str, until: str | None) -> None:
    found = asks(deciding(accounts), "shift", at(when))
    if until is None:
        assert isinstance(found, str)
        assert "takes an approval" in found
    else:
        assert isinstance(found, Yes)
        assert (found.until_ns, found.request) == (at(until), 0)


def test_sessions_at_one_asset(accounts: Accounts) -> None:
    """62443-3-3 SR 2.7: concurrent sessions are bounded, here of whomever."""
    judge, wall = deciding(accounts), at("2030-05-07T02:00")
    assert isinstance(asks(judge, "day", wall, there=2), Yes)
    assert asks(judge, "day", wall, there=3) == "day has 3 sessions, and takes no more"


def test_an_approval_that_lasts_longer_than_the_hours(accounts: Accounts) -> None:
    judge, wall = deciding(accounts), at("2030-05-07T13:00")
    number = approved(judge, accounts, wall, 0)
    found = asks(judge, "shift", wall)
    assert isinstance(found, Yes)
    assert (found.until_ns, found.request) == (wall + 2 * HOUR, number)


@pytest.mark.parametrize("step", [-24 * HOUR, -HOUR, -1, 0, HOUR, 24 * HOUR * 400], ids=str)
def test_a_clock_that_is_set_changes_no_approval(accounts: Accounts, step: int) -> None:
    """Neither in this life of the keeper, nor once it is over."""
    judge = deciding(accounts)
    approved(judge, accounts, NIGHT, 100 * HOUR)
    for minutes, holds in ((119, True), (120, False), (121, False)):
        wall, now = NIGHT + step + minutes * MINUTE, 100 * HOUR + minutes * MINUTE
        judge.settle(wall, now)
        assert isinstance(asks(judge, "shift", wall, now), Yes) is holds, minutes
    # It was settled: no clock that is set back, and no new keeper, brings it back.
    assert isinstance(asks(deciding(accounts), "shift", NIGHT), str)


@pytest.mark.parametrize(("step", "left"), [(-24 * HOUR, 2 * HOUR), (0, 2 * HOUR), (HOUR, HOUR), (3 * HOUR, 0)])
def test_a_keeper_that_is_born_again(accounts: Accounts, step: int, left: int) -> None:
    """It goes by the wall clock once, for no longer than was approved, and by its own from then on."""
    approved(deciding(accounts), accounts, NIGHT, 100 * HOUR)
    again = deciding(accounts)
    found = asks(again, "shift", NIGHT + step, 5)
    assert isinstance(found, Yes) is bool(left)
    if isinstance(found, Yes):
        assert found.until_ns == NIGHT + step + left
        found = asks(again, "shift", NIGHT - 1000 * HOUR, 5 + left - 1)
        assert isinstance(found, Yes)
        assert isinstance(asks(again, "shift", NIGHT - 1000 * HOUR, 5 + left), str)


@pytest.mark.parametrize(
    ("begins", "wall", "until"),
    [
        # In March 02:00 to 03:00 is left out, in October it comes twice.
        ("2030-03-31T01:45", "2030-03-31T01:45", HOUR - 15 * MINUTE),
        ("2030-10-27T01:45", "2030-10-27T01:45", 3 * HOUR - 15 * MINUTE),
        ("2030-05-07T01:45", "2030-05-07T01:45", 2 * HOUR - 15 * MINUTE),
        # An hour forward and back: the window is where the wall clock says.
        ("2030-05-07T01:45", "2030-05-07T02:45", 45 * MINUTE),
        ("2030-05-07T01:45", "2030-05-07T00:45", None),
        ("2030-05-07T02:45", "2030-05-07T01:45", 2 * HOUR - 15 * MINUTE),
        ("2030-05-07T02:45", "2030-05-07T03:45", None),
    ],
)
def test_a_window_follows_the_wall_clock(accounts: Accounts, begins: str, wall: str, until: int | None) -> None:
    judge = deciding(accounts)
    found = asks(judge, "day", at(begins))
    assert isinstance(found, Yes)
    connection = Connection(1, "c", "10.1.0.9", 1, person="tech", wants="day", state="in")
    session = Session(1, "s", connection, records.Open(1, 1, "day", "shell"), found.right, 0, at(begins), 0)
    still = judge.still(session, at(wall), 5)
    if until is None:
        assert isinstance(still, str)
        assert "shut until" in still
    else:
        assert isinstance(still, Yes)
        assert still.until_ns - at(wall) == until


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Anna Vendor", "anna  VENDOR ", True), ("Anna Vendor", "Anna\u00a0Vendor", True),
        ("J\u00fcrgen", "Ju\u0308rgen", True), ("Anna\u200b Vendor", "\u202eAnna Vendor", True), ("", "", False),
        ("Anna Vendor", "Anna Vendors", False), ("\u200b", "\u200b", False),
    ],
)  # fmt: skip
def test_the_same_name_however_it_was_typed(one: str, other: str, same: bool) -> None:
    first, second = (
        Person(name, full, "", "local", True, "", 0, "", 0, "") for name, full in (("a", one), ("b", other))
    )
    assert same_name(first, second) is same
