"""What the bell declares."""

from __future__ import annotations

from typing import Final

from cofferdam.audit.entry import kinds
from cofferdam.audit.events import gate
from cofferdam.brokers.broker import Broker
from cofferdam.brokers.kit.figures import counter
from cofferdam.enforce.profile import Can, Crew, Profile
from tests.gate.bell import events

BELL: Final = Broker(
    name="bell",
    crew=Crew(
        kind="bell",
        parts={
            "outer": Profile("bell/outer", stands="outer", can=Can.ACCEPT, says=kinds(gate.PART)),
            "inner": Profile("bell/inner", stands="inner", says=kinds((*events.INNER, *gate.PART))),
        },
        pipes=(("outer", "inner"), ("inner", "outer")),
    ),
    make={"outer": "tests.gate.bell.outer:Outer", "inner": "tests.gate.bell.inner:Inner"},
    records={
        ("outer", "inner"): "tests.gate.bell.records:to_inner",
        ("inner", "outer"): "tests.gate.bell.records:to_outer",
    },
    answers=frozenset({"inner"}),
    figures={"inner": (counter("rung", "how often a bell was rung", by="bell"),)},
)
