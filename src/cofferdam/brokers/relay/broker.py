"""What the relay declares: a side on each side, and a keeper apart from both that decides and keeps."""

from __future__ import annotations

from typing import Final

from cofferdam.audit.entry import kinds
from cofferdam.audit.events import gate
from cofferdam.audit.events import relay as events
from cofferdam.brokers.broker import Broker
from cofferdam.brokers.kit.figures import counter, gauge
from cofferdam.brokers.kit.http import doors
from cofferdam.brokers.relay.figures import FIGURES
from cofferdam.enforce.profile import Can, Crew, Profile

_SIDES: Final = ("outer", "outer-nats", "outer-tables", "outer-folders", "inner-folders", "inner-tables", "inner")
_XML: Final = ("cofferdam.policy.messages.xml_checking",)
"""A later policy may bring the first channel of XML."""
_LATE: Final = (*_XML, *doors.LATE)
SIDE: Final = doors.FIGURES
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
            "keeper": Profile(
                "relay/keeper",
                stands="apart",
                can=Can.STORE,
                store=True,
                preload=_XML,
                says=kinds((*events.KEEPER, *gate.PART)),
            ),
            "inner-folders": _folders("inner"),
            "inner-tables": _tables("inner"),
            "inner": _side("inner"),
        },
        pipes=tuple(pipe for side in _SIDES for pipe in ((side, "keeper"), ("keeper", side))),
        optional=frozenset(_SIDES) - {"outer", "inner"},
    ),
    make={
        "outer": "cofferdam.brokers.relay.http_side:Side",
        "outer-nats": "cofferdam.brokers.relay.nats:NatsWay",
        "outer-tables": "cofferdam.brokers.relay.tables:Tables",
        "outer-folders": "cofferdam.brokers.relay.folders:Folders",
        "inner-folders": "cofferdam.brokers.relay.folders:Folders",
        "keeper": "cofferdam.brokers.relay.keeper_part:Keeper",
        "inner-tables": "cofferdam.brokers.relay.tables:Tables",
        "inner": "cofferdam.brokers.relay.http_side:Side",
    },
    records={
        pipe: place
        for side in _SIDES
        for pipe, place in (
            ((side, "keeper"), "cofferdam.brokers.relay.records:to_keeper"),
            (("keeper", side), "cofferdam.brokers.relay.records:from_keeper"),
        )
    },
    answers=frozenset({"keeper"}),
    needs=("lxml",),
    alarms=frozenset({"keeper", *_SIDES}),
    figures={
        "outer": SIDE,
        "outer-nats": NATS,
        "outer-tables": TABLES,
        "outer-folders": FOLDERS,
        "keeper": FIGURES,
        "inner-folders": FOLDERS,
        "inner-tables": TABLES,
        "inner": SIDE,
    },
)
