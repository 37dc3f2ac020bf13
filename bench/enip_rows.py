"""`make bench ARGS="--enip --only io --io-seconds 600"`: what is printed of each row, and what the gate says of it.

Not here: the rows (enip), scanner and adapter (enip_io).
"""

from __future__ import annotations

import json
import statistics
import subprocess
import time
from typing import Any

from enip_io import Pauses, Row
from processes import BenchError

SHOWN = 8
"""Pauses of one kind that are printed."""
TRIES = 60
"""Times a second that the log is asked for a stream's end."""


class Told:
    """What a gate says of the time since `begin`."""

    def __init__(self, cofferdam: list[str], state: str) -> None:
        self._cofferdam = cofferdam
        self._state = state
        self._ends = 0
        self._held: dict[str, int] = {}

    def begin(self) -> None:
        """What comes from now on is new."""
        self._ends = len(self._log())
        self._held = {half: one["count"] for half, one in self._figure("held").items()}

    def since_then(self) -> list[str]:
        """Why streams ended, and for how long the halves were held up. The log may take a moment for the last one."""
        ends: list[dict[str, Any]] = []
        for _ in range(TRIES):
            ends = self._log()[self._ends :]
            if ends:
                break
            time.sleep(1)
        found = [f"{one['asset']} {one['sent']} sent, {one['received']} received: {one['reason']}" for one in ends]
        reasons = dict.fromkeys(found) if ends else {"no stream's end is in the log": None}
        for half, one in sorted(self._figure("held").items()):
            often = one["count"] - self._held.get(half, 0)
            reasons[f"{half} half held up {often} times, longest since it began {one['max'] / 1000:.1f} ms"] = None
        return list(reasons)

    def _figure(self, name: str) -> dict[str, Any]:
        found = json.loads(self._said("status"))
        return next((one["values"] for one in found["figures"] if (one["broker"], one["name"]) == ("enip", name)), {})

    def _log(self) -> list[dict[str, Any]]:
        said = self._said("audit", "show", "--kind", "stream-ended")
        return [json.loads(line)["event"] for line in said.splitlines()]

    def _said(self, *words: str) -> str:
        command = [*self._cofferdam, *words, "--json", "--state", self._state]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        if ran.returncode > 1:  # 1 is an alarm, as of a stream whose packets are old
            raise BenchError(f"{' '.join(words)}: {ran.stderr.strip()}")
        return ran.stdout


def lines(what: str, way: str, seconds: float, row: Row, told: list[str]) -> list[str]:
    """One row, in words."""
    ages = row.ages
    figures = "nothing came"
    if ages:
        p999 = ages[int(len(ages) * 0.999)]
        figures = f"age median {statistics.median(ages):.3f} ms, p99.9 {p999:.3f}, most {ages[-1]:.3f}"
    found = [f"{what}, {way}, {seconds:g} s: {len(ages)} of {row.due} came; {figures}"]
    for name, pauses in (
        ("nothing at the device for", row.at_device), ("nothing at the scanner for", row.at_scanner),
        ("the scanner itself was late by", row.late),
    ):  # fmt: skip
        if pauses:
            found.append(f"  {len(pauses)} times {name}: {_shown(pauses, row.began)}")
    return [*found, *(f"  {one}" for one in told)]


def _shown(pauses: Pauses, began: int) -> str:
    longest = sorted(pauses, key=lambda one: -one[1])[:SHOWN]
    said = ", ".join(f"{ms:.1f} ms at {(at - began) / 1e9:.3f} s" for at, ms in sorted(longest))
    return said if len(pauses) <= SHOWN else f"{said} (the longest)"
