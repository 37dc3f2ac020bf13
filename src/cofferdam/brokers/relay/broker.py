"""What the relay declares: a side on each side, and a keeper apart from both that decides and keeps. Where a strand
carries its messages there are two keepers: one inside, and one outside ("far"), from whom nothing comes back."""

from __future__ import annotations

from typing import Final

from cofferdam.audit.entry import kinds
from cofferdam.audit.events import gate
from cofferdam.audit.events import relay as events
from cofferdam.brokers.broker import Broker
from cofferdam.brokers.kit.figures import counter, gauge
from cofferdam.brokers.kit.http import declared as http
from cofferdam.brokers.relay.figures import FIGURES
from cofferdam.enforce.profile import Can, Crew, Profile

_SIDES: Final = ("outer", "outer-nats", "outer-tables", "outer-folders", "inner-folders", "inner-tables", "inner")
_OUTER: Final = tuple(side for side in _SIDES if side.startswith("outer"))
_XML: Final = ("cofferdam.policy.messages.xml_checking",)
"""A later policy may bring the first channel of XML."""
_LATE: Final = (*_XML, *http.LATE)
SIDE: Final = http.FIGURES
TABLES: Final = (
    gauge("table_connections_away", "connections to databases that do not work just now"),
    counter("table_rows_taken", "rows of outbox tables that the relay is done with"),
    counter("table_rows_booked", "messages written into inbox tables"),
    gauge("table_changes_behind", "how much of a database's log was not read yet", unit="bytes"),
)


FOLDERS: Final = (
    gauge("folders_troubled", "folders that do not work just now"),
    counter("folder_files_taken", "files that came and were dealt with"),
    counter("folder_messages_taken", "messages of files that the relay has taken"),
    counter("folder_files_written", "files that messages were written into"),
)


NATS: Final = (
    gauge("nats_away", "channels that cannot be published to NATS just now"),
    counter("nats_published", "messages that were published to NATS"),
)


def _pipes(sides: tuple[str, ...], keeper: str) -> tuple[tuple[str, str], ...]:
    return tuple(pipe for side in sides for pipe in ((side, keeper), (keeper, side)))


def _folders(side: str) -> Profile:
    return Profile(
        f"relay/{side}-folders",
        stands="apart",
        can=Can.STORE,
        folders=True,
        runtime="asyncio",
        preload=_LATE,
        says=kinds((*events.SIDE, *gate.PART)),
    )


def _tables(side: str) -> Profile:
    return Profile(
        f"relay/{side}-tables",
        stands="outer" if side == "outer" else "inner",
        can=Can.DIAL_TCP | Can.STREAM | Can.KEEPALIVE,
        runtime="asyncio",
        secrets=("relay",),
        preload=_LATE,
        says=kinds((*events.SIDE, *gate.PART)),
    )


def _keeper(name: str) -> Profile:
    return Profile(
        f"relay/{name}",
        stands="apart",
        can=Can.STORE,
        store=True,
        folders=True,
        preload=_XML,
        says=kinds((*events.KEEPER, *gate.PART)),
    )


def _side(name: str) -> Profile:
    return Profile(
        f"relay/{name}",
        stands="outer" if name == "outer" else "inner",
        can=Can.ACCEPT | Can.STREAM,
        runtime="asyncio",
        secrets=("relay",),
        preload=_LATE,
        says=kinds((*events.SIDE, *gate.PART)),
    )


RELAY: Final = Broker(
    name="relay",
    crew=Crew(
        kind="relay",
        parts={
            "outer": _side("outer"),
            "outer-nats": Profile(
                "relay/outer-nats",
                stands="outer",
                can=Can.DIAL_TCP | Can.STREAM,
                runtime="asyncio",
                secrets=("relay",),
                preload=_LATE,
                says=kinds((*events.SIDE, *gate.PART)),
            ),
            "outer-tables": _tables("outer"),
            "outer-folders": _folders("outer"),
            "far": _keeper("far"),
            "keeper": _keeper("keeper"),
            "inner-folders": _folders("inner"),
            "inner-tables": _tables("inner"),
            "inner": _side("inner"),
        },
        pipes=(*_pipes(_SIDES, "keeper"), *_pipes(_OUTER, "far")),
        # With a strand, each machine has one side and its keeper.
        optional=frozenset({*_SIDES, "keeper", "far"}),
        rides=(("keeper", "far"),),
        instead={"far": _pipes(_OUTER, "keeper")},
    ),
    make={
        "outer": "cofferdam.brokers.relay.http_side:Side",
        "outer-nats": "cofferdam.brokers.relay.nats:NatsWay",
        "outer-tables": "cofferdam.brokers.relay.tables:Tables",
        "outer-folders": "cofferdam.brokers.relay.folders:Folders",
        "inner-folders": "cofferdam.brokers.relay.folders:Folders",
        "far": "cofferdam.brokers.relay.far:FarKeeper",
        "keeper": "cofferdam.brokers.relay.keeper_part:Keeper",
        "inner-tables": "cofferdam.brokers.relay.tables:Tables",
        "inner": "cofferdam.brokers.relay.http_side:Side",
    },
    records={
        ("keeper", "far"): "cofferdam.brokers.relay.records:to_far",
        **{
            pipe: f"cofferdam.brokers.relay.records:{'to' if pipe[1] == keeper else 'from'}_keeper"
            for sides, keeper in ((_SIDES, "keeper"), (_OUTER, "far"))
            for pipe in _pipes(sides, keeper)
        },
    },
    answers=frozenset({"keeper", "far"}),
    needs=("lxml",),
    alarms=frozenset({"keeper", "far", *_SIDES}),
    figures={
        "outer": SIDE,
        "outer-nats": NATS,
        "outer-tables": TABLES,
        "outer-folders": FOLDERS,
        "far": FIGURES,
        "keeper": FIGURES,
        "inner-folders": FOLDERS,
        "inner-tables": TABLES,
        "inner": SIDE,
    },
)
