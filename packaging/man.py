"""Prints the man page cofferdam(1), from the command itself."""

from __future__ import annotations

import sys

import cofferdam
from cofferdam.cli.main import GROUPS


def roff(text: str) -> str:
    return text.replace("\\", r"\e").replace("-", r"\-")


def main() -> int:
    print(f'.TH COFFERDAM 1 "" "cofferdam {cofferdam.__version__}" "Cofferdam"')
    print(".SH NAME\ncofferdam \\- the gate between an office network and a plant network")
    print(".SH SYNOPSIS\n.B cofferdam\n.I VERB\n[\\fIARGUMENT\\fR ...]")
    print(
        ".SH DESCRIPTION\nBrokers every exchange between IT and OT, so that no session crosses. Each verb has its own"
    )
    print(".BR \\-\\-help ,\nwhich tells its arguments, its exit codes and an example.")
    print(".SH VERBS")
    for title, verbs in GROUPS.items():
        print(f".SS {roff(title)}")
        for verb, (_, summary) in verbs.items():
            print(f".TP\n.B {roff(verb)}\n{roff(summary)}")
    print(".SH FILES\n.TP\n.I /etc/cofferdam/policy.yaml\nthe policy\n.TP\n.I /var/lib/cofferdam")
    print("state: the audit log, its key, what is severed")
    print(".SH EXIT STATUS\n0: done, or yes. 1: the answer is no. 2: wrong input, or it could not be done.")
    print(".SH SEE ALSO\nThe pages in\n.I /usr/share/doc/cofferdam")
    return 0


if __name__ == "__main__":
    sys.exit(main())
