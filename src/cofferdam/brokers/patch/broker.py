"""What the patch relay declares: an intake and a fetcher on the less trusted side, a keeper apart from both, an
installer on the more trusted side that decides, and two processes for one file each: an examiner, and a reader of
advisories."""

from __future__ import annotations

from typing import Final

from cofferdam.audit.entry import kinds
from cofferdam.audit.events import gate, http
from cofferdam.audit.events import patch as events
from cofferdam.brokers.broker import Broker
from cofferdam.brokers.kit.http.declared import FIGURES, LATE
from cofferdam.brokers.patch.figures import FETCHER, INSTALLER, INTAKE, KEEPER
from cofferdam.enforce.profile import GATE_VOUCHES, VOUCH, Can, Crew, Profile

EXAMINER_BYTES: Final = 1 << 30
FETCHER_BYTES: Final = 2 << 30
"""An index of a large Debian repository is held while it is read."""
EXAMINER_SECONDS: Final = 900.0
READER_BYTES: Final = 1 << 30
READER_SECONDS: Final = 120.0

SEEN: Final = ("intake", "fetcher", GATE_VOUCHES)
"""Whose word says who brought a file in, and who asked for its release (witnesses)."""

_TIMES: Final = ("_strptime",)
_TEXTS: Final = tuple(
    f"encodings.{name}" for name in ("cp437", "cp1252", "ascii", "latin_1", "utf_16", "utf_16_le", "utf_8_sig")
)
"""What names and texts in archives may be written in."""
_CURVES: Final = ("cryptography.hazmat.backends.openssl.backend",)
"""What cryptography loads when it is first asked about a signature by ECDSA."""
_POINTS: Final = ("cofferdam.protocols.modbus.operations",)
_SSH: Final = ("asyncssh", "encodings.idna", "encodings.ascii", "asyncio.streams")

PATCH: Final = Broker(
    name="patch",
    crew=Crew(
        kind="patch",
        parts={
            "intake": Profile(
                "patch/intake",
                stands="outer",
                can=Can.ACCEPT | Can.STREAM,
                runtime="asyncio",
                secrets=("patch", VOUCH),
                makes=(VOUCH,),
                preload=LATE,
                says=kinds((*events.INTAKE, *http.HTTP, *gate.PART)),
            ),
            "fetcher": Profile(
                "patch/fetcher",
                stands="outer",
                can=Can.DIAL_TCP | Can.STREAM,
                runtime="asyncio",
                memory=FETCHER_BYTES,
                secrets=(VOUCH,),
                makes=(VOUCH,),
                preload=(*LATE, "asyncio.streams", "encodings.ascii"),
                says=kinds(gate.PART),
            ),
            "keeper": Profile(
                "patch/keeper",
                stands="apart",
                can=Can.STORE | Can.FEED,
                store=True,
                folders=True,
                secrets=("online", "quarantine", "patch"),
                makes=("quarantine",),
                believes=SEEN,
                preload=(*LATE, *_TIMES),
                says=kinds((*events.KEEPER, http.KeysSet, *gate.PART)),
            ),
            "installer": Profile(
                "patch/installer",
                stands="inner",
                can=Can.ACCEPT
                | Can.DIAL_TCP
                | Can.STREAM
                | Can.KEEPALIVE
                | Can.STORE
                | Can.DIAL_UDP
                | Can.BIND_UDP
                | Can.DATAGRAMS
                | Can.PING,
                runtime="asyncio",
                store=True,
                folders=True,
                reads=("keeper",),
                secrets=("patch",),
                believes=SEEN,
                preload=(*LATE, *_TIMES, *_SSH, *_POINTS, "encodings.utf_16_le"),
                says=kinds((*events.INSTALLER, *http.HTTP, *gate.PART)),
            ),
        },
        pipes=(
            ("intake", "keeper"),
            ("keeper", "intake"),
            ("fetcher", "keeper"),
            ("keeper", "fetcher"),
            ("keeper", "installer"),
            ("installer", "keeper"),
        ),
        optional=frozenset({"fetcher"}),
        jobs={
            "examiner": Profile(
                "patch/examiner",
                stands="apart",
                can=Can.READ | Can.DIAL_LOCAL,
                program="cofferdam.brokers.job",
                preload=(*_TIMES, *_TEXTS, *_CURVES),
                reads=("keeper",),
                memory=EXAMINER_BYTES,
                ordered_by="keeper",
                seconds=EXAMINER_SECONDS,
                sockets=("clamd",),
            ),
            # The same for a product with YARA rules, which yara-x makes machine code of (ADR 57).
            "ruler": Profile(
                "patch/ruler",
                stands="apart",
                can=Can.READ | Can.DIAL_LOCAL | Can.CODE,
                program="cofferdam.brokers.job",
                preload=(*_TIMES, *_TEXTS, *_CURVES),
                reads=("keeper",),
                memory=EXAMINER_BYTES,
                ordered_by="keeper",
                seconds=EXAMINER_SECONDS,
                sockets=("clamd",),
            ),
            "reader": Profile(
                "patch/reader",
                stands="apart",
                can=Can.READ,
                program="cofferdam.brokers.job",
                preload=(*_TIMES, "encodings.utf_8_sig"),
                reads=("keeper",),
                memory=READER_BYTES,
                ordered_by="keeper",
                seconds=READER_SECONDS,
            ),
        },
    ),
    make={
        "intake": "cofferdam.brokers.patch.intake:Intake",
        "fetcher": "cofferdam.brokers.patch.fetcher:Fetcher",
        "keeper": "cofferdam.brokers.patch.keeper:Keeper",
        "installer": "cofferdam.brokers.patch.installer:Installer",
    },
    records={
        ("intake", "keeper"): "cofferdam.brokers.patch.records:intake_to_keeper",
        ("keeper", "intake"): "cofferdam.brokers.patch.records:keeper_to_intake",
        ("fetcher", "keeper"): "cofferdam.brokers.patch.records:fetcher_to_keeper",
        ("keeper", "fetcher"): "cofferdam.brokers.patch.records:keeper_to_fetcher",
        ("keeper", "installer"): "cofferdam.brokers.patch.records:keeper_to_installer",
        ("installer", "keeper"): "cofferdam.brokers.patch.records:installer_to_keeper",
    },
    jobs={
        "examiner": "cofferdam.brokers.patch.examiner:examine",
        "ruler": "cofferdam.brokers.patch.examiner:examine",
        "reader": "cofferdam.brokers.patch.advice.reader:read",
    },
    needs=("tuf", "pysequoia", "asyncssh", "h11"),
    vouched=frozenset({("keeper", "put"), ("keeper", "request")}),
    alarms=frozenset({"intake", "keeper", "installer"}),
    figures={"intake": (*FIGURES, *INTAKE), "fetcher": FETCHER, "keeper": KEEPER, "installer": (*FIGURES, *INSTALLER)},
)
