"""The crews of the house itself, of one part each: the auditor, the name server, the leak probe, the witness, exports,
the nightly proof. And the gate, which is no crew and is declared all the same.

Not here: brokers' crews (brokers.registry, which has these too).
"""

from __future__ import annotations

from typing import Final

from cofferdam.audit.entry import kinds, said_by
from cofferdam.enforce.profile import Can, Crew, Profile

GATE: Final = Profile(
    name="gate",
    stands="host",
    program="cofferdam.gate.process",
    says=kinds(said_by("GATE")),
    confined=False,
)
"""The first child of the launcher. It can order no second one."""
AUDITOR: Final = Crew(
    "auditor",
    {
        "auditor": Profile(
            name="auditor",
            stands="apart",
            program="cofferdam.audit.process",
            confined=False,
            writes=("audit", "keys", "archive"),
            producers=True,
        )
    },
)
NAMES: Final = Crew(
    "names",
    {
        "names": Profile(
            name="names",
            stands="outer",
            can=Can.ACCEPT | Can.DATAGRAMS,
            program="cofferdam.enforce.overlay.names",
        )
    },
)
LEAKS: Final = Crew(
    "leaks",
    {
        "probe": Profile(
            name="leaks/probe",
            stands="outer",
            can=Can.DATAGRAMS,
            program="cofferdam.proof.leak_part",
            wires=True,
        )
    },
)
"""Lives for one round. It gets the packet sockets that it asks by, and may make none."""
WITNESS: Final = Crew(
    "witness",
    {
        "witness": Profile(
            name="witness",
            stands="host",
            can=Can.DIAL_TCP | Can.STREAM | Can.KEEPALIVE,
            runtime="asyncio",
            program="cofferdam.evidence.witness_part",
        )
    },
)
"""Gives the log's heads to those who keep them. It stands in the host's network, where management is, and sees no
file."""
EXPORTER: Final = "exporter"
EXPORT: Final = Crew(
    "export",
    {
        EXPORTER: Profile(
            name="export/exporter",
            stands="host",
            can=Can.DIAL_TCP | Can.DIAL_UDP | Can.STREAM | Can.STORE,
            program="cofferdam.evidence.export.part",
            store=True,
            quota=1 << 30,
            folders=True,
            log=True,
            yields="idle",
        )
    },
)
"""Takes the log's entries to one collector. It reads the log's files, and its store is a cursor."""


def export_crew(collector: str) -> str:
    """The name of the crew that takes the log's entries to a collector of the policy."""
    return f"{EXPORT.kind}/{collector}"


NIGHTLY: Final = Crew(
    "nightly",
    {
        "prover": Profile(
            name="nightly/prover",
            stands="host",
            program="cofferdam.cli.nightly",
            confined=False,
            root=True,
            yields="low",
        )
    },
)
"""Proves the gate and tries it, once a day, beside the launcher and with its rights: what it looks at are the others'
namespaces. It lives for that long, and tells the gate what it found as an operator's verbs do."""
