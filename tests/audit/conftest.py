"""Logs to try things on: clocks that a test moves, and entries of every kind."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cofferdam.audit.entry import Draft
from cofferdam.audit.events.access import PointValue, WriteAllowed, Written
from cofferdam.audit.log import AuditLog
from cofferdam.audit.recovery import open_log


class Clock:
    """A wall clock and a monotonic clock that stand still until moved."""

    def __init__(self) -> None:
        self.wall = 1_795_404_737_123_456_789
        self.mono = 1_000_000_000

    def move(self, nanoseconds: int) -> None:
        self.wall += nanoseconds
        self.mono += nanoseconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


Opener = Callable[..., AuditLog]


def opener_in(home: Path, clock: Clock) -> Opener:
    """Opens the log in home/audit with its key in home/keys."""

    def opened(**options: object) -> AuditLog:
        arguments: dict[str, object] = {
            "site": "riverside",
            "wall_ns": lambda: clock.wall,
            "mono_ns": lambda: clock.mono,
            "retry_ns": 0,
            "background": False,
        } | options
        return open_log(home / "audit", home / "keys/audit.key", **arguments)  # type: ignore[arg-type]

    return opened


@pytest.fixture
def opener(tmp_path: Path, clock: Clock) -> Opener:
    """Opens the test's log, in tmp_path/audit with its key in tmp_path/keys."""
    return opener_in(tmp_path, clock)


SMALL = 600
"""Entries: two full tiles and an edge at two levels."""


@pytest.fixture(scope="session")
def small_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log with everything, in `audit`, with its key: full tiles, narrower partial ones beside the last, a journal of
    several appends; and in `copy` as a crash before its orderly end would have left it. Not to be changed."""
    home, clock = tmp_path_factory.mktemp("small"), Clock()
    log = opener_in(home, clock)()
    for number in range(SMALL):
        if number in (100, 300, 550, 590):
            log.publish()
        clock.move(1000)
        log.append([write(number)], maker="modbus/it-ot/inner", policy="ab" * 32)
    shutil.copytree(home / "audit", home / "copy")
    for path in (home / "copy/journal").iterdir():  # of megabytes that were allocated ahead, some zeros will do
        os.truncate(path, len(path.read_bytes().rstrip(b"\0")) + 8192)
    log.close()
    return home


def write(number: int = 0) -> Draft:
    return WriteAllowed(
        wall_ns=1_795_404_737_123_456_789 + number,
        session="outer-3:17",
        write=f"w{number}",
        principals=("operators",),
        source="10.1.5.9",
        asset="plc-7",
        conduit="pump-setpoint",
        rule="pump-setpoint/0",
        function=6,
        unit=1,
        writes=(Written("holding", 200, (number % 1500,)),),
        points=(PointValue("pump_speed", str(number % 1500), "rpm"),),
    )
