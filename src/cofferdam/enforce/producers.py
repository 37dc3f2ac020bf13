"""The pipes between those who tell the audit log and the auditor, as the launcher keeps them.

It holds both ends of each, so that a part sees nothing of an auditor's restart, and hands the auditor's ends to the
next one. This is one of two places where descriptors are passed on: to the auditor, never to a part.

Not here: what is told (audit), who the auditor is (launcher).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass

from cofferdam.crossing.introduction import INTRODUCTIONS, Introduction
from cofferdam.crossing.pipe import make_pipe


@dataclass
class Producer:
    """One that hands entries to the auditor, with both ends of both pipes; the producer has copies of two of them."""

    name: str
    says: tuple[str, ...]
    batches: tuple[int, int]  # (read, write) of the pipe towards the auditor
    answers: tuple[int, int]
    seen: bool = False  # an auditor has read from it


class Producers:
    """All of them, and the auditor's end, while there is one."""

    def __init__(self, on_stuck: Callable[[], None]) -> None:
        """`on_stuck` ends the auditor that runs: it takes nothing any more. Its successor gets all producers."""
        self._on_stuck = on_stuck
        self._all: list[Producer] = []
        self._auditor: socket.socket | None = None

    @property
    def taken(self) -> bool:
        """Whether there is an auditor."""
        return self._auditor is not None

    def new(self, name: str, says: tuple[str, ...]) -> Producer:
        """Makes a producer's pipes and introduces it."""
        producer = Producer(name, says, make_pipe(), make_pipe())
        self._all.append(producer)
        self._introduce(producer)
        return producer

    def end(self, producer: Producer) -> None:
        """It has ended: the auditor reads what is left, then the end."""
        self._all.remove(producer)
        for fd in (*producer.batches, *producer.answers):
            os.close(fd)

    def attach(self) -> socket.socket:
        """A new auditor: its end of the socket, which the caller hands to it and closes. It gets all that live."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self._auditor = ours
        return theirs

    def introduce_all(self) -> None:
        for producer in self._all:
            self._introduce(producer)

    def detach(self) -> None:
        """The auditor has ended."""
        if self._auditor is not None:
            self._auditor.close()
            self._auditor = None

    def _introduce(self, producer: Producer) -> None:
        if self._auditor is None:
            return
        message = INTRODUCTIONS.encode(Introduction(producer.name, producer.seen, producer.says))
        try:
            socket.send_fds(self._auditor, [message], [producer.batches[0], producer.answers[1]])
            producer.seen = True
        except OSError:  # dead or stuck
            self._on_stuck()

    def close(self) -> None:
        for producer in list(self._all):
            self.end(producer)
        self.detach()
