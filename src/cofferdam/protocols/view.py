"""What a bystander needs to know of a protocol that its machines, which are ends of a connection, never tell.

A machine sees a stream from its first byte, and gives answers ids of its own. A capture starts anywhere, has holes, and
holds answers with the ids of the original client. So for each protocol a `View` says where a frame may start, how
long it is, and which of its bytes tie an answer to its request. Everything else is the machines' business.

Not here: parsing of requests and answers (the protocol's folder), finding the way back into a stream
(capture.conversation).
"""

from __future__ import annotations

import abc


class View(abc.ABC):
    """How frames of one protocol look from outside. Stateless."""

    header: int
    """Bytes from which a machine can tell a frame from something else."""

    @abc.abstractmethod
    def size(self, data: bytes | bytearray, at: int) -> int:
        """The length in bytes of the frame that starts at `at`; 0 if more bytes are needed to tell; -1 if no frame
        starts there."""

    @abc.abstractmethod
    def likely(self, frame: bytes, from_client: bool) -> bool:
        """Whether a whole frame that was found by searching looks like one of this direction."""

    @abc.abstractmethod
    def key(self, frame: bytes) -> bytes:
        """What an answer repeats of its request."""

    @abc.abstractmethod
    def unit(self, frame: bytes) -> int:
        """The unit that a frame addresses, -1 where the protocol has none."""

    @abc.abstractmethod
    def rekey(self, frame: bytes, key: bytes) -> bytes:
        """The frame with another key."""
