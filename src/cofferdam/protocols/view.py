"""What a bystander needs to know of a protocol that its machines, which are ends of a connection, never tell.

A machine sees a stream from its first byte, and gives answers ids of its own. A capture starts anywhere, has holes, and
holds answers with the ids of the original client. So for each protocol a `View` says where a frame may start, how
long it is, and which of its bytes tie an answer to its request. Everything else is the machines' business.

Not here: parsing of requests and answers (the protocol's folder), finding the way back into a stream
(capture.conversation).
"""

from __future__ import annotations

import abc
from typing import Any, TypeAlias

import msgspec

from cofferdam.model import Asset


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

    def foreign(self, segment: bytes) -> str:
        """What a client's segment is where it is plainly another protocol that is taken for this one, in words."""
        return ""

    def datagram(self, data: bytes) -> tuple[int, int] | None:
        """(id, bytes) of a frame of a stream that went as a datagram; None for what is none. For protocols with
        `Dialect.datagrams`, as are the next two."""
        return None

    def stream_ids(self, frame: bytes) -> tuple[int, ...]:
        """By which ids frames of a stream go to the server and to the client, which this good answer has opened."""
        return ()

    def frame_of(self, request: Any, asset: Asset | None, data: bytes) -> Any:
        """The message that a datagram to the server is, of the stream that `request` has opened; None for none.
        `asset`: what the policy says of it, if that is known."""
        return None

    @abc.abstractmethod
    def rekey(self, frame: bytes, key: bytes) -> bytes:
        """The frame with another key."""


At = tuple[int, int]
"""Packet and capture time (ns) of a frame."""


class Said(msgspec.Struct, frozen=True):
    """A client has asked for something; `number` is its own on this connection."""

    number: int
    request: Any
    at: At


class Answered(msgspec.Struct, frozen=True):
    """The server has answered the request of this number."""

    number: int
    response: Any


class News(msgspec.Struct, frozen=True):
    """The server has told something of what stands by the request of this number."""

    number: int
    message: Any


class Broken(msgspec.Struct, frozen=True):
    """A client has sent what breaks the standard, or what is not spoken here. `function`: -1 where none can be told."""

    section: str
    detail: str
    function: int
    at: At


class Remark(msgspec.Struct, frozen=True):
    """Something that a reader of a report must know."""

    text: str
    at: At


Heard: TypeAlias = Said | Answered | News | Broken | Remark


class Bystander(abc.ABC):
    """Who follows both directions of one connection, for protocols in which what a request means stands in what was
    answered before. Its events may come later than the frames that they are of."""

    @abc.abstractmethod
    def heard(self, from_client: bool, frame: bytes, at: At) -> list[Heard]:
        """One whole frame."""

    @abc.abstractmethod
    def end(self) -> list[Heard]:
        """The connection is over."""
