"""What a protocol is to the rest of Cofferdam: two sans-io machines, its messages, and their meaning as operations.

A protocol is one folder that fills in the three interfaces below, and one line in `registry`. Policy knows none of
it: a protocol says what a request means as a `model.Operation`, and policy judges that.

The machines are fed bytes and asked for events, in the manner of h11. They do no I/O and know no clock; a timeout is
something that the broker tells them (`forget`). The contract that the fuzz tests hold them to: bytes from the wire
raise `RemoteProtocolError` or nothing at all. Any other exception is a bug.

Not here: sockets, timers, queues, fairness (brokers.proxy), and any protocol's own bytes (protocols.<name>).
"""

from __future__ import annotations

import abc
import enum
from collections.abc import Hashable
from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar

import msgspec

from cofferdam.model import Deny, Failure, Item, Operation, Span

Req = TypeVar("Req")
Resp = TypeVar("Resp")


class Need(enum.Enum):
    """The event that is none."""

    DATA = "data"


NEED_DATA: Final = Need.DATA
"""What `next_event` returns when only more bytes can bring the next event. Compare with `is`."""


class RequestReceived(msgspec.Struct, Generic[Req], frozen=True, gc=False):
    """A client asks for something that the protocol allows. Answer it with `send(token, response)`, or give it up
    with `release(token)`."""

    token: int
    request: Req


class RequestRefused(msgspec.Struct, Generic[Resp], frozen=True, gc=False):
    """A client sent a whole frame whose content breaks the standard, and the standard has an answer for that.

    `reply` is that answer: pass it to `send(token, reply)` (or `release(token)` to stay silent). `section` names the
    document and section that is broken, `detail` is one sentence for the audit log, `function` the protocol's own
    code as it was received.
    """

    token: int
    reply: Resp
    section: str
    detail: str
    function: int


class ResponseReceived(msgspec.Struct, Generic[Resp], frozen=True, gc=False):
    """The asset answered the request that `token` stands for, and the answer fits it. Its request is over.
    A protocol's own error answer (a Modbus exception response) is such an answer too."""

    token: int
    response: Resp


class BadResponse(msgspec.Struct, frozen=True, gc=False):
    """The asset answered the request that `token` stands for with something that does not fit. Its request is over."""

    token: int
    section: str
    detail: str


class Unmatched(msgspec.Struct, frozen=True, gc=False):
    """A whole frame that answers nothing under way: late, twice, or never asked for. It was discarded."""

    detail: str


ServerEvent: TypeAlias = RequestReceived[Req] | RequestRefused[Resp] | Literal[Need.DATA]
ClientEvent: TypeAlias = ResponseReceived[Resp] | BadResponse | Unmatched | Literal[Need.DATA]


class ServerMachine(abc.ABC, Generic[Req, Resp]):
    """We are the server; one machine for each connection from a client."""

    __slots__ = ()

    @abc.abstractmethod
    def receive_data(self, data: bytes) -> None:
        """Takes bytes from the client. Call `next_event` until NEED_DATA before giving it more."""

    @abc.abstractmethod
    def next_event(self) -> ServerEvent[Req, Resp]:
        """The next thing that the received bytes mean.

        Raises: RemoteProtocolError when the connection has to be closed. From then on it raises that error again.
        """

    @abc.abstractmethod
    def send(self, token: int, response: Resp) -> bytes:
        """The bytes that answer the request of `token`. The client's own ids are in the token.

        Raises: LocalProtocolError for a token that is not open (answered already, released, never given), and for a
        response that no answer to that request can be.
        """

    @abc.abstractmethod
    def release(self, token: int) -> None:
        """The request of `token` gets no answer (a silent refusal). Unknown tokens are ignored."""

    @property
    @abc.abstractmethod
    def buffered(self) -> int:
        """Bytes of a frame that has begun and is not complete: the frame timeout runs while this is not 0."""

    @property
    @abc.abstractmethod
    def open(self) -> int:
        """Requests that are neither answered nor released."""


class ClientMachine(abc.ABC, Generic[Req, Resp]):
    """We are the client; one machine for each connection to an asset."""

    __slots__ = ()

    @abc.abstractmethod
    def send(self, request: Req) -> tuple[int, bytes]:
        """The token that the answer will carry, and the frame to send.

        Raises: LocalProtocolError above `outstanding`, after the machine raised RemoteProtocolError, after a
        `forget` where `drop_after_timeout` holds, and for a request that cannot be encoded.
        """

    @abc.abstractmethod
    def receive_data(self, data: bytes) -> None:
        """Takes bytes from the asset. Call `next_event` until NEED_DATA before giving it more."""

    @abc.abstractmethod
    def next_event(self) -> ClientEvent[Resp]:
        """The next thing that the received bytes mean.

        Raises: RemoteProtocolError when the connection has to be closed. From then on it raises that error again.
        """

    @abc.abstractmethod
    def forget(self, token: int) -> None:
        """The request of `token` timed out. Its late answer will be Unmatched. Unknown tokens are ignored."""

    @property
    @abc.abstractmethod
    def in_flight(self) -> int:
        """Requests sent, and neither answered nor forgotten."""

    @property
    @abc.abstractmethod
    def buffered(self) -> int:
        """Bytes of a frame that has begun and is not complete."""

    @property
    @abc.abstractmethod
    def drop_after_timeout(self) -> bool:
        """After a `forget` the connection must be closed: a late answer could not be told from the next one."""


class Protocol(abc.ABC, Generic[Req, Resp]):
    """All that a broker needs of a protocol. Stateless: one instance serves every connection."""

    name: str
    default_port: int
    request_type: Any
    """The union of request messages, to name in a crossing's record."""
    response_type: Any
    """The union of response messages, to name in a crossing's record."""
    quirks: frozenset[str]
    """Names of the deviations from the standard that an asset may be declared to have."""
    functions: dict[int, str]
    """The protocol's function codes and their names, for people and for policy's error messages."""

    @abc.abstractmethod
    def server(self) -> ServerMachine[Req, Resp]:
        """A machine for one connection from a client."""

    @abc.abstractmethod
    def client(self, *, quirks: frozenset[str] = frozenset(), outstanding: int = 1) -> ClientMachine[Req, Resp]:
        """A machine for one connection to an asset.

        Raises: LocalProtocolError for an unknown quirk, or one that does not go with `outstanding`.
        """

    @abc.abstractmethod
    def check(self, message: Req | Resp) -> None:
        """Whether a message that arrived over a crossing holds together: what its field types cannot say, such as
        address + count. A message that was decoded strictly and passed this can be encoded.

        Raises: CrossingError.
        """

    @abc.abstractmethod
    def mismatch(self, request: Req, response: Resp) -> str:
        """ "" if `response` can be an answer to `request`, else one sentence that says why not."""

    @abc.abstractmethod
    def operation(self, request: Req) -> Operation:
        """What the request means, for policy. `unit` is taken from the request."""

    @abc.abstractmethod
    def refusal(self, request: Req, deny: Deny) -> Resp:
        """The protocol's own words for a request that policy refused."""

    @abc.abstractmethod
    def failure(self, request: Req, failure: Failure) -> Resp:
        """The protocol's own words for a request that was allowed and got no answer."""

    @abc.abstractmethod
    def is_error(self, response: Resp) -> bool:
        """Whether the response says that the request was not carried out."""

    @abc.abstractmethod
    def error_code(self, response: Resp) -> int:
        """The protocol's own code of an error answer; 0 for any other answer."""

    @abc.abstractmethod
    def read_request(self, unit: int, place: Span | Item) -> Req:
        """The plain read of these cells, or this item, of that unit: what a broker asks for itself (a value that a step
        limit needs).

        Raises: LocalProtocolError for a space that no plain read reaches, or more cells than one read can ask for.
        """

    @abc.abstractmethod
    def values(self, request: Req, response: Resp) -> tuple[tuple[str, int, tuple[int, ...]], ...]:
        """What a good answer to a read taught us: (space, first cell, cells). Empty for errors and for writes."""

    @abc.abstractmethod
    def share_key(self, request: Req) -> Hashable | None:
        """Requests with an equal key may be answered from one another (`slice` tells); None: never shared."""

    @abc.abstractmethod
    def slice(self, request: Req, wider_request: Req, wider_response: Resp) -> Resp | None:
        """The answer to `request` cut out of the answer to `wider_request` (of equal share key), or None if that
        does not cover it."""
