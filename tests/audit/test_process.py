"""The auditor process in this one: producers that come and go under one name."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from cofferdam.audit.events.access import LimitHit
from cofferdam.audit.process import Process
from cofferdam.audit.records import Ack, Batch, FromAuditor, Hello, ToAuditor
from cofferdam.audit.supervision import Open, ToAuditorControl
from cofferdam.crossing.framing import PACKET, Assembler, pack
from cofferdam.crossing.introduction import INTRODUCTIONS, Introduction
from cofferdam.crossing.pipe import make_pipe
from cofferdam.crossing.records import RecordCodec

NAME = "modbus/it-ot/inner"


def send(fd: int, data: bytes) -> None:
    for packet in pack([data]):
        os.write(fd, packet)


def received(fd: int) -> list[FromAuditor]:
    """All that waits in a pipe from the auditor."""
    codec: RecordCodec[FromAuditor] = RecordCodec(FromAuditor)
    assembler = Assembler(codec.limit)
    found: list[FromAuditor] = []
    while True:
        try:
            found += [codec.decode(data) for data in assembler.feed(os.read(fd, PACKET))]
        except BlockingIOError:
            return found


def test_a_half_is_not_told_what_became_of_its_predecessors_batches(tmp_path: Path) -> None:
    """Both number their batches from 1 up: an answer to the dead one would count as the living one's confirmation."""
    launcher, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    control_in, control = make_pipe()
    reports, control_out = make_pipe()
    process = Process(tmp_path, control_in, control_out, theirs.detach())
    reactor = process._reactor
    orders: RecordCodec[ToAuditorControl] = RecordCodec(ToAuditorControl)
    batches: RecordCodec[ToAuditor] = RecordCodec(ToAuditor)

    def settle() -> None:
        for _ in range(4):
            reactor.turn(0.02)

    def introduce() -> tuple[int, int]:
        """A half comes; its ends of the pipes: (to write batches to, to read answers from)."""
        (batches_in, batches_out), (answers_in, answers_out) = make_pipe(), make_pipe()
        said = INTRODUCTIONS.encode(Introduction(NAME, False, ("limit-hit",)))
        socket.send_fds(launcher, [said], [batches_in, answers_out])
        os.close(batches_in)
        os.close(answers_out)
        return batches_out, answers_in

    send(control, orders.encode(Open("site")))
    settle()
    old_out, old_in = introduce()
    settle()
    assert received(old_in) == [Hello(True)]
    # The half dies with a batch in its pipe, and the next one comes, before the auditor looks again.
    send(old_out, batches.encode(Batch(7, "", (LimitHit(limit="x", source="", detail=""),))))
    new_out, new_in = introduce()
    settle()
    assert received(new_in) == [Hello(True)]
    send(new_out, batches.encode(Batch(7, "", (LimitHit(limit="y", source="", detail=""),))))
    settle()
    assert received(new_in) == [Ack(7, True)]
    for fd in (old_out, old_in, new_out, new_in, control, reports):
        os.close(fd)
    launcher.close()
    process._launcher.close()
    reactor.close()
