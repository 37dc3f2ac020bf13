"""What the jump server declares: a part that faces people, one that faces assets, and two without any network: the
keeper, which knows and decides, and the archivist, which keeps what was shown."""

from __future__ import annotations

from typing import Final

from cofferdam.audit.entry import kinds
from cofferdam.audit.events import gate, jump
from cofferdam.audit.events.access import LimitHit
from cofferdam.brokers.broker import Broker
from cofferdam.brokers.kit.figures import counter, gauge
from cofferdam.enforce.profile import Can, Crew, Profile

STORE_KEY: Final = "store"
"""The kind of secret by which the keeper seals what is secret in its store; it does not lie there."""
_RECORDS: Final = "cofferdam.brokers.jump.records"
SCAN_SECONDS: Final = 900
_LATE: Final = (
    "asyncio.streams",
    "encodings.ascii",
    "encodings.idna",
    "stringprep",
    "cryptography.hazmat.backends.openssl.backend",
)
"""What libraries import when they first need it, which is too late once the filter is on."""
_SCANS: Final = ("_strptime", "encodings.ascii", "encodings.cp437", "encodings.latin_1")
"""What is imported for a scanner's date, and for names in archives."""

JUMP: Final = Broker(
    name="jump",
    crew=Crew(
        kind="jump",
        parts={
            "outer": Profile(
                "jump/outer",
                stands="outer",
                can=Can.ACCEPT | Can.STREAM | Can.KEEPALIVE,
                runtime="asyncio",
                preload=_LATE,
                says=kinds((*jump.OUTER, LimitHit, *gate.PART)),
                seam="front",
            ),
            "keeper": Profile(
                "jump/keeper",
                stands="apart",
                can=Can.STORE,
                store=True,
                secrets=(STORE_KEY,),
                makes=(STORE_KEY,),
                preload=_LATE,
                says=kinds((*jump.KEEPER, *gate.PART)),
            ),
            "archivist": Profile(
                "jump/archivist",
                stands="apart",
                can=Can.STORE,
                store=True,
                says=kinds((*jump.ARCHIVIST, *gate.PART)),
            ),
            "inner": Profile(
                "jump/inner",
                stands="inner",
                can=Can.DIAL_TCP | Can.STREAM | Can.KEEPALIVE,
                runtime="asyncio",
                preload=_LATE,
                says=kinds((*jump.INNER, *gate.PART)),
                seam="front",
            ),
        },
        pipes=(
            ("outer", "keeper"),
            ("keeper", "outer"),
            ("keeper", "inner"),
            ("inner", "keeper"),
            ("outer", "inner"),
            ("inner", "outer"),
            ("inner", "archivist"),
            ("archivist", "inner"),
        ),
        returns=frozenset({"keeper"}),
        jobs={
            "scan": Profile(
                "jump/scan",
                stands="apart",
                can=Can.READ | Can.DIAL_LOCAL,
                program="cofferdam.brokers.job",
                preload=_SCANS,
                reads=("archivist",),
                ordered_by="archivist",
                seconds=SCAN_SECONDS,
                sockets=("clamd",),
            )
        },
    ),
    make={
        "outer": "cofferdam.brokers.jump.outer_part:Outer",
        "keeper": "cofferdam.brokers.jump.keeper_part:Keeper",
        "archivist": "cofferdam.brokers.jump.archivist_part:Archivist",
        "inner": "cofferdam.brokers.jump.inner_part:Inner",
    },
    records={
        ("outer", "keeper"): f"{_RECORDS}:to_keeper",
        ("keeper", "outer"): f"{_RECORDS}:from_keeper",
        ("keeper", "inner"): f"{_RECORDS}:to_inner",
        ("inner", "keeper"): f"{_RECORDS}:from_inner",
        ("outer", "inner"): f"{_RECORDS}:outer_to_inner",
        ("inner", "outer"): f"{_RECORDS}:inner_to_outer",
        ("inner", "archivist"): f"{_RECORDS}:to_archivist",
        ("archivist", "inner"): f"{_RECORDS}:from_archivist",
    },
    stands_in={("keeper", "sessions"): "inner", ("keeper", "kill"): "inner"},
    jobs={"scan": "cofferdam.brokers.jump.quarantine:look"},
    needs=("asyncssh", "pyotp"),
    alarms=frozenset({"keeper", "archivist", "inner"}),
    figures={
        "outer": (
            gauge("connections", "SSH connections of people"),
            counter("tunnels_refused", "forwarded ports, agents, X11 and tunnels that were asked for"),
        ),
        "keeper": (
            gauge("people_in", "connections whose person has signed in"),
            gauge("sessions", "sessions at assets"),
            gauge("requests_waiting", "requests that wait for an approval"),
            counter("signed_in", "times that somebody signed in"),
            counter("sign_in_refused", "times that somebody did not get in"),
            counter("sessions_opened", "sessions that were granted"),
            counter("sessions_refused", "sessions that were refused"),
        ),
        "archivist": (
            gauge("recordings", "recordings that there are"),
            gauge("recordings_live", "recordings that grow"),
            counter("recorded_bytes", "bytes of recordings that were written", unit="bytes"),
            gauge("files_in_quarantine", "files that the scanner did not call clean, kept for people to look at"),
            counter("recordings_failed", "recordings that could not be written"),
        ),
        "inner": (
            counter("bytes_to_assets", "bytes of people to assets", unit="bytes"),
            counter("bytes_from_assets", "bytes of assets to people", unit="bytes"),
        ),
    },
)
