"""What the diode declares: inside, a spool that keeps and a sender that sends, and a teller where the gate itself is
told of; outside, a receiver that hears and a keeper that keeps. On one machine all are there, for a look at it."""

from __future__ import annotations

from typing import Final

from cofferdam.audit.entry import kinds
from cofferdam.audit.events import diode as events
from cofferdam.audit.events import gate
from cofferdam.brokers.broker import Broker
from cofferdam.brokers.diode import figures
from cofferdam.enforce.profile import Can, Crew, Profile

_LATE: Final = ("cryptography.hazmat.backends.openssl.backend", "reed_solomon_leopard", "encodings.idna")
SCAN_SECONDS: Final = 700.0
"""clamd is waited for ten minutes."""
_SIDE: Final = kinds(gate.PART)

DIODE: Final = Broker(
    name="diode",
    crew=Crew(
        kind="diode",
        parts={
            "receiver": Profile(
                "diode/receiver", stands="outer", can=Can.COLLECT, secrets=("strand",), preload=_LATE, says=_SIDE
            ),
            "keeper": Profile(
                "diode/keeper", stands="apart", can=Can.STORE, store=True, folders=True, secrets=("strand",),
                preload=_LATE,
                says=kinds((*events.KEEPER, *gate.PART)),
            ),
            "spool": Profile(
                "diode/spool", stands="apart", can=Can.STORE, store=True, folders=True, secrets=("strand",),
                preload=_LATE,
                says=kinds((*events.SPOOL, *gate.PART)),
            ),
            "teller": Profile(
                "diode/teller", stands="apart", can=Can.READ, log=True, told=True, says=_SIDE, yields="low",
            ),
            "sender": Profile(
                "diode/sender", stands="inner", can=Can.EMIT, secrets=("strand",), preload=_LATE, says=_SIDE
            ),
        },
        pipes=(
            ("spool", "sender"), ("sender", "spool"), ("receiver", "keeper"), ("keeper", "receiver"),
            ("teller", "spool"), ("spool", "teller"),
        ),
        jobs={
            "scan": Profile(
                "diode/scan", stands="apart", can=Can.READ | Can.DIAL_LOCAL, program="cofferdam.brokers.job",
                preload=("_strptime", "encodings.ascii", "encodings.cp437", "encodings.latin_1"), reads=("keeper",),
                ordered_by="keeper", seconds=SCAN_SECONDS, sockets=("clamd",),
            )
        },
        optional=frozenset({"receiver", "keeper", "spool", "sender", "teller"}),
    ),
    make={
        "receiver": "cofferdam.brokers.diode.receiver:Receiver",
        "keeper": "cofferdam.brokers.diode.keeper:Keeper",
        "spool": "cofferdam.brokers.diode.spool:Spool",
        "sender": "cofferdam.brokers.diode.sender:Sender",
        "teller": "cofferdam.brokers.diode.teller:Teller",
    },
    jobs={"scan": "cofferdam.brokers.diode.scan:look"},
    records={
        ("spool", "sender"): "cofferdam.brokers.diode.records:to_sender",
        ("sender", "spool"): "cofferdam.brokers.diode.records:from_sender",
        ("teller", "spool"): "cofferdam.brokers.diode.records:from_teller",
        ("spool", "teller"): "cofferdam.brokers.diode.records:to_teller",
        ("receiver", "keeper"): "cofferdam.brokers.diode.records:to_keeper",
        ("keeper", "receiver"): "cofferdam.brokers.diode.records:from_keeper",
    },
    rekeys=frozenset({"receiver", "keeper", "spool", "sender"}),
    alarms=frozenset({"receiver", "keeper", "spool", "sender", "teller"}),
    figures={
        "receiver": figures.RECEIVER, "keeper": figures.KEEPER, "spool": figures.SPOOL, "sender": figures.SENDER,
    },
    needs=("reed_solomon_leopard",),
)  # fmt: skip
