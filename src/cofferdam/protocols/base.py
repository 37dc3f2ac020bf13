"""What a protocol is to the rest of Cofferdam: two sans-io machines, its messages, and their meaning as operations.

A protocol is one folder that fills in the three interfaces below, one line in `registry`, and its dialect's in
`dialects`. Policy knows none of it: a protocol says what a request means as a `model.Operation`, and policy judges
that.

The machines are fed bytes and asked for events, in the manner of h11. They do no I/O and know no clock; a timeout is
something that the broker tells them (`forget`). The contract that the fuzz tests hold them to: bytes from the wire
raise `RemoteProtocolError` or nothing at all. Any other exception is a bug.

Three shapes of exchange:

- **call**: a request and its answer. All protocols have it, and many no other.
- **watch**: a request whose good answer leaves something *standing*: notices come by themselves from then on, until
  either end gives it up. It needs `Protocol.notice_type`.
- **stream**: the same with frames both ways, each of which is lost or not, and none of which is answered. It needs
  `Protocol.frame_type`.

What stands is known by the token of the request that made it, on each side by that side's own.

A machine that has something to say by itself (a hello, a handshake, a keep-alive, a last word) belongs to a protocol
that says `speaks`. Such a machine is told the time by `on_time`: when the connection is up, before each `receive_data`,
and when its `deadline` has come, once all datagrams that wait were read; after each of these, and after each method
that returns no bytes, its `take_output` is sent. A client's machine of such a protocol takes no requests before its
event `Established`. Without `speaks`, nobody calls any of these.

Not here: sockets, timers, queues, fairness (brokers.proxy), and any protocol's own bytes (protocols.<name>).
"""

from __future__ import annotations

import abc
import enum
from collections.abc import Callable, Hashable, Mapping
from typing import Any, ClassVar, Final, Generic, Literal, TypeAlias, TypeVar

import msgspec

from cofferdam.errors import CrossingError, GateError, LocalProtocolError
from cofferdam.model import Asset, Assign, Change, Deny, Failure, Item, Operation, Span
from cofferdam.protocols.dialect import Dialect
from cofferdam.protocols.view import Bystander, View

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


class Repeated(msgspec.Struct, frozen=True, gc=False):
    """A client asks again, word for word, what it asked by the request `token`, which is still under way: the answer to
    that one is the answer to both. There is nothing to answer."""

    token: int


class Waits(msgspec.Struct, frozen=True, gc=False):
    """What comes next cannot be told apart from a request that is under way, and has to wait until that was answered or
    released. Nothing was taken; ask for the next event then."""


WAITS: Final = Waits()


class KeptBack(msgspec.Struct, frozen=True, gc=False):
    """A frame of the stream `standing` came faster than agreed, and is the newest: it may go once all that waits was
    read, if none that is newer has come by then. Ask `newest` for it."""

    standing: int


class ResponseReceived(msgspec.Struct, Generic[Resp], frozen=True, gc=False):
    """The asset answered the request that `token` stands for, and the answer fits it. Its request is over.
    A protocol's own error answer (a Modbus exception response) is such an answer too."""

    token: int
    response: Resp


class BadResponse(msgspec.Struct, frozen=True, gc=False):
    """The asset answered the request that `token` stands for with something that does not fit. Its request is over.
    `alone`: it is known for that request's answer, and what is in it cannot be read: whoever asks the same again gets
    the same, and nothing else on the connection is in doubt."""

    token: int
    section: str
    detail: str
    alone: bool = False


class Unmatched(msgspec.Struct, frozen=True, gc=False):
    """A whole frame that answers nothing under way: late, twice, or never asked for. It was discarded."""

    detail: str


class Continues(msgspec.Struct, frozen=True, gc=False):
    """The asset has answered a part of the request that `token` stands for, and the machine asks for the next by
    itself: the asset is given its time anew. `aside`: it takes no place from now on, and lets others go between its
    parts."""

    token: int
    aside: bool = False


class Established(msgspec.Struct, frozen=True, gc=False):
    """The peers have agreed on how they speak: requests may come, or be sent."""


class LocalAnswer(msgspec.Struct, Generic[Resp], frozen=True, gc=False):
    """A client asked for what this side answers by itself: nothing of it crosses, and policy is not asked. Pass `reply`
    to `send(token, reply)`."""

    token: int
    reply: Resp


class Released(msgspec.Struct, Generic[Resp], frozen=True, gc=False):
    """A client gives up what stands by its request `standing`. Pass `reply` to `send(token, reply)`."""

    token: int
    standing: int
    reply: Resp


class NoticeReceived(msgspec.Struct, frozen=True, gc=False):
    """The asset has news for the watch that stands by our request `standing`, and they fit it. `also`: further watches
    for which these are the same."""

    standing: int
    message: Any
    also: tuple[int, ...] = ()


class FrameReceived(msgspec.Struct, frozen=True, gc=False):
    """A frame of the stream that stands by the request `standing`. `lost`: by its number, so many before it have not
    come, less than 2^31."""

    standing: int
    message: Any
    lost: int = 0


class Identified(msgspec.Struct, frozen=True, gc=False):
    """Who the client has shown to be, beyond its address: a user, an application, a certificate (thumbprint); "" for
    what it has not. Policy's principals may name them."""

    user: str
    application: str
    certificate: str


class Goodbye(msgspec.Struct, frozen=True, gc=False):
    """The client ends the connection in the protocol's own words: it is to be closed."""


class Over(msgspec.Struct, frozen=True, gc=False):
    """The asset has ended what stands by our request `standing`; or, on the server's side, the client of it has fallen
    silent, and nobody is told. `silent`: it is over since nothing came."""

    standing: int
    detail: str
    silent: bool = False


class Cadence(msgspec.Struct, frozen=True, gc=False):
    """How often frames of an open stream come: ns between two to the asset, and from it; `silence`: after so many
    intervals without one a side is taken for silent."""

    out_ns: int
    in_ns: int
    silence: int


def _any_pace(_item: Item) -> tuple[int, int]:
    return 0, 0


class Facing(msgspec.Struct, frozen=True):  # it holds what holds it: the collector has to see that
    """What a machine may know of where it stands, in a protocol whose machines need to know (`Protocol.common`).

    `common` is shared by all machines of the part. `may` says whether policy would allow this client an operation just
    now: for what a machine tells of what there is; whether something is done is decided elsewhere. `reach`: whether
    some rule lets it "write" or "call" an item, whatever the value. `random` gives so many unpredictable bytes, `wall`
    UTC in ns. `local`: where the client has connected; "" and 0 on the other side. `alone`: there is no connection, but
    a single question by UDP (`Dialect.discovery`), whose sender may be somebody else than its address says. `dialled`:
    who serves has opened the connection: we to the client, or the asset to us (`Dialect.reverse`). `pace`: the shortest
    and the longest interval (µs) at which rules let it watch an item, 0 for no limit.
    """

    common: Any
    asset: Asset
    random: Callable[[int], bytes]
    wall: Callable[[], int]
    may: Callable[[Operation], bool]
    reach: Callable[[str, Item], bool]
    source: str = ""
    local: tuple[str, int] = ("", 0)
    alone: bool = False
    dialled: bool = False
    pace: Callable[[Item], tuple[int, int]] = _any_pace


ServerCallEvent: TypeAlias = RequestReceived[Req] | RequestRefused[Resp] | Repeated | Waits | Literal[Need.DATA]
ClientCallEvent: TypeAlias = ResponseReceived[Resp] | BadResponse | Unmatched | Literal[Need.DATA]
"""What a machine has that knows calls alone."""
ServerEvent: TypeAlias = (
    ServerCallEvent[Req, Resp]
    | Established
    | LocalAnswer[Resp]
    | Released[Resp]
    | FrameReceived
    | Over
    | Identified
    | Goodbye
)
ClientEvent: TypeAlias = ClientCallEvent[Resp] | Established | Continues | NoticeReceived | FrameReceived | Over


class Machine(abc.ABC):  # noqa: B024 - its two ends have the abstract methods
    """What both sides have in common: what a machine says by itself, and when. See the top; the defaults are those of
    a machine that only ever answers."""

    __slots__ = ()

    def take_asset(self, asset: Asset) -> None:  # noqa: B027 - most need nothing of it
        """The policy in force says this of the asset from now on (see `Facing`)."""

    def take_output(self) -> bytes:
        """What it has to say by itself, once."""
        return b""

    @property
    def deadline(self) -> int:
        """When it wants to be told the time (monotonic ns); 0 for never."""
        return 0

    def datagram(self, port: int, data: bytes, now: int) -> FrameReceived | KeptBack | None:
        """A datagram of the peer, from this port: the frame that it is; None if it belongs to nothing that stands here,
        or takes the place of one that was kept back, which is dropped.
        `now`: when it was read (monotonic ns). For protocols with `Dialect.datagrams`. It ends nothing for having been
        silent: who reads late finds here what came in time."""
        return None

    def newest(self, standing: int, now: int) -> FrameReceived | None:
        """All that waited was read: the frame of a stream that was kept back. None: there is none any more."""
        return None

    def take_datagrams(self) -> list[tuple[int, bytes, str]]:
        """Datagrams that it has to send, once: to which port, what, and to which group of the policy's streams; "": to
        the peer."""
        return []

    def on_time(self, now: int) -> None:  # noqa: B027 - most have no use for it
        """It is `now` (monotonic ns). What follows from it shows in `next_event` and `take_output`."""


class ServerMachine(Machine, Generic[Req, Resp]):
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

    def answer(self, token: int, row: bytes) -> bytes:
        """As `send`, for an answer that is a row of values (`Protocol.rows`), where the machine knows from the request
        what else stands in it, and the row has the right length; b"" elsewhere: nothing was answered then."""
        return b""

    @abc.abstractmethod
    def release(self, token: int) -> None:
        """The request of `token` gets no answer (a silent refusal). Unknown tokens are ignored."""

    def divide(self, token: int) -> bool:
        """Policy refuses the request of `token` as a whole, which changes nothing at the asset. Whether it consists of
        several: each then follows as a request of its own, and the client gets one answer when all have theirs."""
        return False

    @property
    @abc.abstractmethod
    def buffered(self) -> int:
        """Bytes of a frame that has begun and is not complete: the frame timeout runs while this is not 0."""

    @property
    @abc.abstractmethod
    def open(self) -> int:
        """Requests that are neither answered nor released."""

    def notice(self, standing: int, message: Any) -> bytes:
        """The bytes that bring news to the watch of the request `standing`; b"" where they have to wait.

        Raises: LocalProtocolError for news that this watch cannot have.
        """
        raise LocalProtocolError("this protocol has no watches")

    def frame(self, standing: int, message: Any) -> bytes:
        """The bytes of a frame of the stream of the request `standing`. Raises: LocalProtocolError."""
        raise LocalProtocolError("this protocol has no streams")

    def gone(self) -> None:
        """The connection has ended. Nothing is asked of the machine afterwards."""

    def over(self, standing: int, deny: Deny | None) -> bytes:
        """What stood by the request `standing` has ended on this side, by policy (`deny`) or since the asset is away
        (None). Returns what is to be said of it; b"" where the protocol has no word for that."""
        return b""


class ClientMachine(Machine, Generic[Req, Resp]):
    """We are the client; one machine for each connection to an asset. `gathers`: requests that leave a watch standing
    are asked of the asset many at a time, so that none takes a place of `outstanding`."""

    __slots__ = ()
    gathers: ClassVar[bool] = False

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

    def frame(self, standing: int, message: Any) -> bytes:
        """The bytes of a frame of the stream that stands by our request `standing`. Raises: LocalProtocolError."""
        raise LocalProtocolError("this protocol has no streams")

    def give_up(self, standing: int) -> bytes:
        """The bytes that tell the asset that what stands by our request `standing` is not wanted any more. What still
        comes of it is Unmatched."""
        return b""


class Protocol(abc.ABC, Generic[Req, Resp]):
    """All that a broker needs of a protocol. Stateless: one instance serves every connection."""

    dialect: Dialect
    """What a policy may say of it: also its name, its port, its quirks."""
    request_type: Any
    """The union of request messages, to name in a crossing's record."""
    response_type: Any
    """The union of response messages, to name in a crossing's record."""
    notice_type: Any = None
    """The union of messages that watches bring; None: the protocol has no watches, and none can cross."""
    frame_type: Any = None
    """The union of streams' frames, of both directions; None: the protocol has no streams, and none can cross."""
    browses: bool = False
    """It has requests that ask for a list of what there is (`Operation.browse`), whose answers `filtered` cuts."""
    repeats: bool = False
    """Its clients ask the same reads again and again: they cross whole once, and then by a number."""
    rows: ClassVar[frozenset[type]] = frozenset()
    """Classes of good answers to reads that are nothing but a row of values, which is their field `words`: all the rest
    follows from the request. They cross as that (`spelled`)."""
    speaks: bool = False
    """Its machines say things by themselves, or have deadlines."""
    functions: dict[int, str]
    """The protocol's function codes and their names, for people and for policy's error messages."""
    view: View | None = None
    """How its frames look to a bystander; None: its captures cannot be followed."""

    @property
    def name(self) -> str:
        """The name by which it is known everywhere."""
        return self.dialect.name

    @abc.abstractmethod
    def server(self, *, midway: bool = False) -> ServerMachine[Req, Resp]:
        """A machine for one connection from a client. `midway`: for a bystander, who may have missed the beginning; the
        peers are taken to have agreed on how they speak, and whatever else they say of that is passed over."""

    @abc.abstractmethod
    def client(
        self, *, quirks: frozenset[str] = frozenset(), outstanding: int = 1, midway: bool = False
    ) -> ClientMachine[Req, Resp]:
        """A machine for one connection to an asset. `midway`: see `server`.

        Raises: LocalProtocolError for an unknown quirk, or one that does not go with `outstanding`.
        """

    def bystander(self, known: dict[str, Any]) -> Bystander | None:
        """Who follows both directions of a connection in a capture; None: its machines do, each its own direction.
        `known`: kept for all connections of one server."""
        return None

    def common(self, secrets: Mapping[str, bytes]) -> Any:
        """What all machines of a part share: keys, whom they trust. `secrets`: those that the dialect names, as far as
        there are any. Called before the part's filter is on. Raises: GateError where they are damaged."""
        return None

    def server_facing(self, facing: Facing) -> ServerMachine[Req, Resp]:
        """As `server`, for a real connection. For protocols whose machines need to know where they stand."""
        return self.server()

    def as_units(self, machine: ClientMachine[Req, Resp], units: Mapping[int, int]) -> ClientMachine[Req, Resp]:
        """The machine, for devices that have other units than requests say: by the request's, the device's. Only where
        the dialect has units."""
        raise GateError("this protocol has no units")

    def client_facing(
        self, facing: Facing, *, quirks: frozenset[str] = frozenset(), outstanding: int = 1
    ) -> ClientMachine[Req, Resp]:
        """As `client`, for a real connection."""
        return self.client(quirks=quirks, outstanding=outstanding)

    def command(self, common: Any, verb: str, arguments: bytes) -> Any:
        """An operator's question to what the machines share: see `brokers.broker.Asked`. Returns what can be JSON.
        Raises: GateError, which is the answer."""
        raise GateError(f"there is no {verb!r} here")

    def alarms(self, common: Any, wall: int) -> dict[str, str]:
        """What needs a person in what the machines share: a sentence each, by a stable name. `wall`: UTC ns."""
        return {}

    @abc.abstractmethod
    def check(self, message: Req | Resp) -> None:
        """Whether a message that arrived over a crossing holds together: what its field types cannot say, such as
        address + count. A message that was decoded strictly and passed this can be encoded.

        Raises: CrossingError.
        """

    @abc.abstractmethod
    def mismatch(self, request: Req, response: Resp) -> str:
        """ "" if `response` can be an answer to `request`, else one sentence that says why not."""

    def spelled(self, request: Req, row: bytes) -> Resp:
        """The answer to `request` that is this row of values (`rows`). Whether it fits, `mismatch` says.

        Raises: CrossingError for a request that no row answers.
        """
        raise CrossingError("an answer that is a row of values, where there are none")

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

    unreached: ClassVar[frozenset[int]] = frozenset()
    """Error codes by which a gateway says that the unit behind it has not answered."""

    @abc.abstractmethod
    def read_request(self, unit: int, place: Span | Item) -> Req:
        """The plain read of these cells, or this item, of that unit: what a broker asks for itself (a value that a step
        limit needs).

        Raises: LocalProtocolError for a space that no plain read reaches, or more cells than one read can ask for.
        """

    def bits_request(self, request: Req, change: Change, held: int) -> Req:
        """What is asked of the asset in place of `request`, which writes one word, so that only these bits of it
        change (`change`, as `model.Change` has them). `held`: what the word holds, where the asset knows no such
        writes; -1 where it does.

        Raises: LocalProtocolError where the protocol has no words of bits.
        """
        raise LocalProtocolError("this protocol has no words of bits")

    def in_place(self, request: Req, response: Resp) -> Resp:
        """The answer to `request`, where `bits_request` was asked in its place and was answered so."""
        return response

    @abc.abstractmethod
    def values(self, request: Req, response: Resp) -> tuple[tuple[str, int, tuple[int, ...]], ...]:
        """What a good answer to a read taught us: (space, first cell, cells). Empty for errors and for writes."""

    identifies: ClassVar[frozenset[type]] = frozenset()
    """Classes of answers that say which device they are of: of those, `identity` is asked."""

    def identity(self, response: Resp) -> dict[str, str]:
        """What an answer says of the device that it is of: what stays as long as the device does, by name."""
        return {}

    def legible(self, response: Resp) -> Resp:
        """An answer that says which device it is of, without characters that would make a screen or a log which shows
        it do something. Asked of classes in `identifies` only."""
        return response

    def item_values(self, request: Req, message: Any) -> tuple[Assign, ...]:
        """What items hold by a good answer to a read, by a notice of the watch, or by a frame from the asset of the
        stream, that `request` made."""
        return ()

    def frame_operation(self, request: Req, frame: Any, asset: Asset) -> Operation:
        """What a client's frame of the stream that `request` opened would write. All its items are parts of the
        stream's. `asset`: what the policy says of it."""
        raise LocalProtocolError("this protocol has no streams")

    def owned(self, request: Req, asset: Asset) -> bool:
        """Whether the stream that `request` opens tells the device something, so that it is one client's at a time."""
        return False

    def cadence(self, request: Req, response: Resp) -> Cadence | None:
        """How often frames of the stream come that `request` opened, by this answer; None where they have no times."""
        return None

    def misfit(self, request: Req, message: Any) -> str:
        """ "" if a notice or frame belongs to what `request` left standing, else one sentence that says why not."""
        return "this protocol has neither watches nor streams"

    def filtered(self, request: Req, response: Resp, sees: Callable[[Item], bool]) -> Resp:
        """The answer to a request for a list, without the items that the client may do nothing with (`sees`)."""
        return response

    @abc.abstractmethod
    def share_key(self, request: Req) -> Hashable | None:
        """Requests with an equal key may be answered from one another (`slice` tells); None: never shared."""

    @abc.abstractmethod
    def slice(self, request: Req, wider_request: Req, wider_response: Resp) -> Resp | None:
        """The answer to `request` cut out of the answer to `wider_request` (of equal share key), or None if that
        does not cover it."""
