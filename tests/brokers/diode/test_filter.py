"""What the filter says of a strand's socket: one way, by the descriptor's number."""

from __future__ import annotations

import errno

import pytest

from cofferdam.brokers.diode.broker import DIODE
from cofferdam.enforce import bpf, sandbox
from cofferdam.enforce.syscalls import NUMBERS

REFUSED = bpf.fail_with(errno.EPERM)


@pytest.mark.parametrize("machine", sorted(NUMBERS))
@pytest.mark.parametrize("part,deaf,mute", [("sender", (9,), ()), ("receiver", (), (9,))])
def test_a_strand_goes_one_way(machine: str, part: str, deaf: tuple[int, ...], mute: tuple[int, ...]) -> None:
    profile = DIODE.crew.parts[part]
    program = sandbox.program(profile.can, machine, 77, deaf, mute)

    def said(call: str, *arguments: int) -> int:
        return bpf.run(program, bpf.AUDIT_ARCH[machine], NUMBERS[machine][call], arguments)

    comes, goes = ("read", "readv", "recvmmsg", "recvfrom"), ("write", "writev", "sendto", "sendmsg", "sendmmsg")
    for call in comes:
        assert (said(call, 9) == bpf.ALLOW) == (part == "receiver" and call != "recvfrom"), call
    for call in goes:
        assert (said(call, 9) == bpf.ALLOW) == (part == "sender" and call in ("write", "writev")), call
    assert said("read", 8) == said("write", 8) == bpf.ALLOW  # pipes
    assert said("write", 9) == (REFUSED if part == "receiver" else bpf.ALLOW)
    for call in ("recvmsg", "connect", "bind", "accept4", "sendmmsg"):
        assert said(call, 8) != bpf.ALLOW
    assert said("socket", 2, 2, 17) != bpf.ALLOW and said("dup", 9) != bpf.ALLOW
    assert said("fcntl", 9, 0) != bpf.ALLOW  # F_DUPFD
