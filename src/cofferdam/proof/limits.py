"""What the proof rests on and does not establish, in so many words.

Not here: anything that is established.
"""

from __future__ import annotations

from cofferdam.proof.statements import Statements
from cofferdam.proof.subject import Subject

PART = "limits"


def state(subject: Subject, out: Statements) -> None:
    for name, says in (
        ("kernel", "the kernel keeps namespaces, pipes, users and system-call filters apart as it documents"),
        ("hardware", "interfaces do nothing by themselves: no second road in a card's firmware or a management board"),
        ("root on this host", "whoever is root in the host's namespace is trusted: that one can join both sides"),
        ("moment", "what was observed held when it was read; the gate's own changes come only with a new policy"),
        ("connections", "the solver reasons on packets of no connection; answers within one are held to TCP's flags"),
        ("covert channels", "back-pressure and timing carry bits from side to side; a pipe is no hardware diode"),
        ("wires", "no other device joins the two wires; the leak probe only tries the addresses of the policy"),
    ):
        out.say(PART, name, "assumed", says)
    out.say(PART, "BPF", "assumed", "no BPF program is attached to a control group or to sockets")
