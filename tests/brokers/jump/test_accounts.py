"""The keeper's store: what somebody's name leaves behind, and what a look at one of many costs."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from cofferdam.brokers.jump.accounts import FILE, Accounts
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


def test_a_look_at_one_persons_keys_costs_the_same_among_many(tmp_path: Path) -> None:
    """The list of people looks at each of them, and the keeper does nothing else meanwhile."""

    def steps(accounts: Accounts) -> int:
        count = 0

        def tick() -> int:
            nonlocal count
            count += 1
            return 0

        accounts._db.set_progress_handler(tick, 1)
        assert len(accounts.keys("anna")) == 1
        accounts._db.set_progress_handler(None, 1)
        return count

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
