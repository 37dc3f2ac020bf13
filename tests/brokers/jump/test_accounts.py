"""The keeper's store: what somebody's name leaves behind, and what a look at one of many costs."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cofferdam.brokers.jump.accounts import DAY_NS, FILE, Accounts
from tests.brokers.jump.site import KEY


def test_who_has_the_name_of_one_who_is_gone_has_approved_nothing(tmp_path: Path) -> None:
    accounts = Accounts(tmp_path, KEY)
    accounts.add_person("ex", "", "")
    waits, granted = (accounts.ask("anna", "plc", "c", 60, "why", "", 0) for _ in range(2))
    for number in (waits, granted):
        accounts.approve(number, "ex", "at the gate", 0)
    accounts.settle(granted, "granted", 1)
    accounts.remove_person("ex")
    accounts.add_person("ex", "", "")
    assert accounts.approvals(waits) == []
    assert accounts.approvals(granted) == ["ex"]  # who it was
    accounts.close()


def counted(accounts: Accounts, look: Callable[[], Any]) -> int:
    """The steps that the store takes for it."""
    count = 0

    def tick() -> int:
        nonlocal count
        count += 1
        return 0

    accounts._db.set_progress_handler(tick, 1)
    look()
    accounts._db.set_progress_handler(None, 1)
    return count


def test_what_was_withdrawn_costs_nothing(tmp_path: Path) -> None:
    """Who asks and withdraws again and again does not hold up others, for whom the keeper looks at what waits."""
    accounts = Accounts(tmp_path, KEY)
    accounts.ask("anna", "plc", "c", 60, "why", "", 5)

    def steps() -> list[int]:
        looks = (accounts.waiting, accounts.requests, lambda: accounts.asked("anna", 10))
        return [counted(accounts, look) for look in looks]

    before = steps()
    accounts.run("BEGIN")
    for _ in range(2_000):
        accounts.settle(accounts.ask("mallory", "plc", "c", 60, "why", "", 5), "withdrawn", 0)
    accounts.run("COMMIT")
    assert [one.person for one in accounts.requests()] == ["anna"] and accounts.waiting() == 1
    assert max(after - earlier for earlier, after in zip(before, steps(), strict=True)) <= 20
    assert (accounts.asked("mallory", 10), accounts.asked("mallory", 10 + DAY_NS)) == (2_000, 0)
    accounts.close()


def test_a_look_at_one_persons_keys_costs_the_same_among_many(tmp_path: Path) -> None:
    """The list of people looks at each of them, and the keeper does nothing else meanwhile."""

    def steps(accounts: Accounts) -> int:
        assert len(accounts.keys("anna")) == 1
        return counted(accounts, lambda: accounts.keys("anna"))

    accounts = Accounts(tmp_path, KEY)
    accounts.add_person("anna", "", "")
    accounts.add_key("anna", b"anna's", "", 0)
    alone = steps(accounts)
    accounts.run("BEGIN")
    for number in range(2_000):
        accounts.run("INSERT INTO ssh_key VALUES(?, ?, '', 0, 0)", number.to_bytes(4, "big"), f"p{number}")
    accounts.run("COMMIT")
    assert steps(accounts) <= alone + 10
    accounts.close()
    with sqlite3.connect(tmp_path / FILE) as base:  # a store of before gets it, too
        base.execute("DROP INDEX key_of")
    base.close()
    accounts = Accounts(tmp_path, KEY)
    assert steps(accounts) <= alone + 10
    accounts.close()
