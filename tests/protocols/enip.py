"""Messages of EtherNet/IP for tests: an asset, frames around CIP, strategies for all messages, fuzz targets."""

from __future__ import annotations

import struct
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import strategies as st

from cofferdam.errors import CrossingError, RemoteProtocolError
from cofferdam.model import Asset, Deny, Failure, Fault, Item, Point, Stream
from cofferdam.protocols.base import NEED_DATA, Facing, LocalAnswer, Released, RequestReceived, RequestRefused
from cofferdam.protocols.enip import messages as m
from cofferdam.protocols.enip import paths, requests, wire
from cofferdam.protocols.enip.client import EnipClient
from cofferdam.protocols.enip.operations import Enip
from cofferdam.protocols.enip.server import EnipServer
from cofferdam.protocols.enip.values import ATOMIC
from cofferdam.values import Bool, Float32, Int16, Int32, Octets, Text, UInt8, UInt32, UInt64, ValueType
from tests.fuzz.engine import Target

ENIP = Enip()
CAPTURES = Path(__file__).parent.parent.parent.parent / "shared" / "captures" / "enip"
ASSET = Asset(
    name="packer", zone="plant", address="10.0.0.9", port=44818, protocol="enip", unit=-1, listen=None,
    route="backplane 0", kinds=(("tag", ".["), ("cip", ""), ("io", ".")),
    points=(
        Point("counts", Item("tag", "counts", 0, 100), ValueType.INT32, elements=100),
        Point("serial", Item("cip", "1/1/6"), ValueType.UINT32),
        Point("label", Item("cip", "1/1/7"), ValueType.TEXT),
        Point("reference", Item("io", "drive.0"), ValueType.INT32, max=1500),
    ),
    streams=(Stream("drive", Item("io", "drive"), 0, "outputs 150 of 4 bytes, inputs 100 of 8 bytes, config 151"),),
)  # fmt: skip
REGISTER = wire.frame(wire.REGISTER, 0, b"12345678", b"\1\0\0\0")
SESSION = 1 + int.from_bytes(b"12345678", "little") % 0x7FFF_FFFF


def facing(asset: Asset = ASSET, common: Any = None) -> Facing:
    """Where a machine stands, with numbers that are no surprise."""
    local = ("10.2.0.1", 44818)
    return Facing(
        common, asset, lambda count: bytes(range(7, 7 + count)), lambda: 0, lambda _: True, lambda _verb, _item: True,
        source="10.1.0.1", local=local,
    )  # fmt: skip


def server(asset: Asset = ASSET) -> EnipServer:
    """A machine whose client has registered."""
    machine = EnipServer(facing(asset))
    machine.on_time(1)
    machine.receive_data(REGISTER)
    while (event := machine.next_event()) is not NEED_DATA:
        if isinstance(event, LocalAnswer):
            machine.send(event.token, event.reply)
    return machine


def client(asset: Asset = ASSET, common: Any = None) -> EnipClient:
    """A machine that is established. `common`: what it shares with others."""
    machine = EnipClient(facing(asset, common))
    machine.take_output()
    machine.receive_data(wire.frame(wire.REGISTER, 9, bytes(8), b"\1\0\0\0"))
    machine.next_event()
    return machine


def rr(cip: bytes, session: int = SESSION, context: bytes = b"abcdefgh") -> bytes:
    """A CIP request, or an answer, in a SendRRData."""
    return wire.frame(wire.SEND_RR, session, context, wire.packet(((wire.NULL_ADDRESS, b""), (wire.UNCONNECTED, cip))))


def cip_of(frame: bytes) -> bytes:
    """The CIP in a SendRRData."""
    return wire.items_of(frame[wire.SIZE :])[1][1]


def tag(name: str, *, service: int = requests.READ, body: bytes = b"\1\0") -> bytes:
    """A request on a tag."""
    return requests.made(service, paths.of_tag(Item("tag", name)), body)


# ---- strategies -------------------------------------------------------------------------------------------------

_part = st.from_regex(r"[a-z_][a-z0-9_]{0,7}(:[a-z0-9_]{1,3})?(\[(0|[1-9][0-9]{0,3})\])?", fullmatch=True)
_last = st.from_regex(r"[a-z_][a-z0-9_]{0,7}", fullmatch=True)
tags = st.builds(
    lambda parts, last, first, count: Item("tag", ".".join([*parts, last]), first, count if first >= 0 else 1),
    st.lists(_part, max_size=3), _last, st.integers(-1, 300), st.integers(1, 20),
)  # fmt: skip
bits = st.builds(lambda item, bit: Item("tag", f"{item.name}.{bit}"), tags, st.integers(0, 7))
attributes = st.builds(lambda c, i, a: Item("cip", f"{c}/{i}/{a}"), st.integers(0, 65535), st.integers(0, 1 << 20),
                       st.integers(0, 65535))  # fmt: skip
_KINDS: list[tuple[int, Any, st.SearchStrategy[Any]]] = [
    (0xC1, Bool, st.booleans()),
    (0xC3, Int16, st.integers(-(1 << 15), (1 << 15) - 1)),
    (0xC4, Int32, st.integers(-(1 << 31), (1 << 31) - 1)),
    (0xC9, UInt64, st.integers(0, (1 << 64) - 1)),
    (0xD1, UInt8, st.integers(0, 255)),
    (0xD3, UInt32, st.integers(0, (1 << 32) - 1)),
    (0xCA, Float32, st.floats(width=32, allow_nan=False)),
]


@st.composite
def written(draw: Callable[..., Any]) -> m.WriteTag:
    item = draw(tags)
    if draw(st.booleans()) and item.count == 1:
        text = draw(st.text(st.characters(max_codepoint=255), max_size=82))
        return m.WriteTag(item, 0x02A0, 0x0FCE, Text((text,), item.first >= 0))
    if draw(st.integers(0, 5)) == 0:
        return m.WriteTag(Item("tag", item.name), 0x02A0, 0x1234, Octets((draw(st.binary(min_size=1, max_size=60)),)))
    code, kind, one = draw(st.sampled_from(_KINDS))
    ones = draw(st.lists(one, min_size=item.count, max_size=item.count))
    return m.WriteTag(item, code, 0, kind(tuple(ones), item.first >= 0))


single = st.one_of(
    st.builds(m.ReadTag, tags),
    written(),
    st.builds(m.WriteBit, bits, st.sampled_from((1, 2, 4, 8)), st.booleans()),
    st.builds(
        m.SetAttribute, st.just(Item("cip", "1/1/6")), st.builds(lambda n: UInt32((n,)), st.integers(0, 1 << 31))
    ),
    st.builds(m.GetAttribute, st.just(Item("cip", "1/1/7"))),
)


# ---- fuzz targets -----------------------------------------------------------------------------------------------

PACKER = msgspec.msgpack.Encoder()
REQUESTS = msgspec.msgpack.Decoder(m.EnipRequest)
RESPONSES = msgspec.msgpack.Decoder(m.EnipResponse)
DENIALS = [Deny("c", "c/0", fault, "") for fault in Fault]
NO_DIGITS = str.maketrans("0123456789abcdef", "0" * 16)


def _events(machine: Any, pieces: list[bytes]) -> list[Any]:
    found: list[Any] = []
    try:
        for piece in pieces:
            machine.receive_data(piece)
            while (event := machine.next_event()) is not NEED_DATA:
                found.append(event)
    except RemoteProtocolError as error:
        found.append((str(error), error.section))
    return found


def run_server(data: bytes) -> Hashable:
    """A registered client says anything: in any pieces the same; all can be judged, sent over a crossing, answered."""
    machine = server()
    events = _events(machine, [data])
    size = 1 + sum(data[:8]) % 23
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    if events != _events(server(), pieces):
        raise AssertionError(f"other events in pieces of {size}")
    shape: list[Hashable] = []
    for event in events:
        if isinstance(event, RequestReceived):
            request = event.request
            operation = ENIP.operation(request)
            if not isinstance(request, m.Unserved):
                ENIP.check(request)
            if REQUESTS.decode(PACKER.encode(request)) != request:
                raise AssertionError(f"{request} does not survive a crossing")
            if operation.writes and not operation.is_write:
                raise AssertionError(f"{request} writes as a read")
            reply = ENIP.refusal(request, DENIALS[len(data) % len(DENIALS)])
            if ENIP.mismatch(request, ENIP.failure(request, Failure.TIMEOUT)):
                raise AssertionError(f"our refusal does not answer {request}")
            machine.send(event.token, reply)
            shape.append((type(request).__name__, operation.function, len(operation.reads), len(operation.writes)))
        elif isinstance(event, (RequestRefused, LocalAnswer, Released)):
            machine.send(event.token, event.reply)
            detail = event.detail.translate(NO_DIGITS) if isinstance(event, RequestRefused) else ""
            shape.append((type(event).__name__, detail))
        else:
            shape.append(str(event).translate(NO_DIGITS))
    return frozenset(shape)


ASKED: list[m.EnipRequest] = [
    m.ReadTag(Item("tag", "counts", 0, 10)), m.WriteTag(Item("tag", "pump"), 0xC4, 0, Int32((5,))), m.Identify(),
    m.ListTags(), m.DescribeStructure(257), m.Packet((m.ReadTag(Item("tag", "a")), m.ReadTag(Item("tag", "b", 1, 2)))),
    m.GetAttribute(Item("cip", "1/1/6")), m.OpenIo(Item("io", "drive"), 10_000, 10_000, 2, 1),
    m.OpenIo(Item("io", "drive"), 10_000, 10_000, 2, 1, m.Key(1, 2, 3, 4, 5, compatible=True)),
    m.GetAttributes((Item("cip", "1/1/6"), Item("cip", "1/1/7"))),
]  # fmt: skip


def run_client(data: bytes) -> Hashable:
    """A device answers anything to each request: an answer that fits, or none, and nothing else."""
    shape: list[Hashable] = []
    for request in ASKED:
        machine = client()
        _, sent = machine.send(request)
        for at in range(0, min(len(data), 2000), 200):
            # The frame is right, so that what is in it is looked at; each answer is to the step before.
            for event in _events(machine, [rr(data[at : at + 200], 9, sent[12:20])]):
                response = getattr(event, "response", None)
                if response is not None:
                    if fault := ENIP.mismatch(request, response):
                        raise AssertionError(f"{response}: {fault}")
                    ENIP.check(response)
                    ENIP.item_values(request, response)
                detail = str(getattr(event, "detail", "")).translate(NO_DIGITS)[:60]
                shape.append((type(request).__name__, type(event).__name__, type(response).__name__, detail))
            sent = machine.take_output() or sent
    return frozenset(shape)


def run_single(data: bytes) -> Hashable:
    """A device answers anything to a read whose answer was of a form before, or was not: the same comes of it. The
    first two bytes say which type that had, and how many elements are asked."""
    codes = sorted(ATOMIC)
    code, count, cip = codes[data[0] % len(codes)] if data else 0xC4, data[1] % 4 if len(data) > 1 else 0, data[2:]
    read = m.ReadTag(Item("tag", "counts", 0, count) if count else Item("tag", "pump"))
    good = b"\xcc\0\0\0" + bytes((code, 0)) + bytes(ATOMIC[code][3] * read.item.count)
    seen: list[str] = []
    for machine in (client(), client()):
        if seen:
            _, sent = machine.send(read)
            _events(machine, [rr(good, 9, sent[12:20])])
        token, sent = machine.send(read)
        said: list[Any] = []
        for event in _events(machine, [rr(cip, 9, sent[12:20])]):
            response = getattr(event, "response", None)
            if response is not None and (fault := ENIP.mismatch(read, response)):
                raise AssertionError(f"{response}: {fault}")
            if getattr(event, "token", token) != token:
                raise AssertionError(f"{event} for {token}")
            said.append(response if response is None else ENIP.item_values(read, response) or response)
            said.append(getattr(event, "detail", type(event).__name__))
        seen.append(repr(said))
    if seen[0] != seen[1]:
        raise AssertionError(f"without a form {seen[0]}, with one {seen[1]}")
    return seen[0].translate(NO_DIGITS)[:60]


CONNECTED = msgspec.structs.replace(ASSET, connected=True)


def run_connected(data: bytes) -> Hashable:
    """The same within a connection of class 3, and to what opens it (where the first byte is odd)."""
    shape: list[Hashable] = []
    opening, data = bool(data[:1]) and bool(data[0] & 1), data[1:]
    for request in (ASKED[0], m.ReadTag(Item("tag", "counts", 0, 3))):
        machine = client(CONNECTED)
        machine.on_time(1)
        _, sent = machine.send(request)
        cip = cip_of(sent)
        if not opening:
            good = b"\x99\0\0\0" + cip[12:16] + cip[16:24] + struct.pack("<IIBx", 2_000_000, 2_000_000, 0)
            _events(machine, [rr(b"\xdb\0\0\0" + good, 9, sent[12:20])])
            sent = machine.take_output()
        for at in range(0, min(len(data), 1000), 200):
            piece = data[at : at + 200]
            if sent[:1] == b"\x70":
                items = ((wire.CONNECTED_ADDRESS, cip[12:16]), (wire.CONNECTED, sent[44:46] + piece))
                frame = wire.frame(wire.SEND_UNIT, 9, bytes(8), wire.packet(items))
            else:
                frame = rr(piece, 9, sent[12:20])
            for event in _events(machine, [frame]):
                response = getattr(event, "response", None)
                if response is not None:
                    ENIP.check(response)
                detail = str(getattr(event, "detail", "")).translate(NO_DIGITS)[:60]
                shape.append((opening, type(event).__name__, type(response).__name__, detail))
            sent = machine.take_output() or sent
    return frozenset(shape)


def run_messages(data: bytes) -> Hashable:
    """What a hostile half could put into a record: its types stop it, or `check`, or it can be put on the wire."""
    shape: list[Hashable] = []
    for decoder in (REQUESTS, RESPONSES):
        try:
            message: Any = decoder.decode(data)
            ENIP.check(message)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            shape.append(str(error).partition(" - at")[0].translate(NO_DIGITS))
            continue
        except CrossingError as error:
            shape.append(str(error).translate(NO_DIGITS)[:60])
            continue
        if decoder is REQUESTS:
            ENIP.operation(message)
            if not isinstance(message, m.OpenIo) or message.item.name == "drive":
                client().send(message)
        shape.append(type(message).__name__)
    return frozenset(shape)


KEY = b"\x34\x04" + struct.pack("<HHHBB", 1, 2, 3, 4, 5)


def seeds() -> list[bytes]:
    """Frames from a client: one of each kind."""
    opening = struct.pack("<BBIIHHIB3xIHIHBB", 10, 14, 0, 5, 1, 77, 4711, 2, 10_000, 0x480A, 10_000, 0x480A, 1, 4)
    parts = [tag("a"), tag("counts", body=b"\5\0"), tag("b", service=requests.WRITE, body=b"\xc4\0\1\0\1\0\0\0")]
    router, manager = paths.of_object(2, 1), paths.of_object(6, 1)
    inner = tag("pump")
    cip = [
        *parts,
        requests.made(requests.PACKET, router, requests.packet(parts)),
        requests.made(requests.PACKET, router, requests.packet(parts[:2])),
        requests.made(0x52, manager, b"\7\x28" + len(inner).to_bytes(2, "little") + inner + b"\1\0\1\0"),
        tag("big", service=requests.READ_PIECE, body=struct.pack("<HI", 600, 0)),
        tag("big", service=requests.WRITE_PIECE, body=struct.pack("<HHI", 0xC4, 2, 0) + bytes(4)),
        tag("status", service=requests.MODIFY, body=b"\4\0" + b"\x08\0\0\0" + b"\xff" * 4),
        requests.made(requests.LIST, paths.of_object(0x6B, 0), struct.pack("<4H", 3, 1, 2, 8)),
        requests.made(0x54, manager, opening + b"\x20\x04\x24\x97\x2c\x96\x2c\x64"),
        requests.made(0x54, manager, opening[:-2] + b"\xa3\x02\x20\x02\x24\x01"),
        requests.made(0x54, manager, opening[:-2] + b"\x01\x09" + KEY + b"\x20\x04\x24\x97\x2c\x96\x2c\x64"),
        requests.made(0x54, manager, opening[:-2] + b"\xa3\x07" + KEY + b"\x20\x02\x24\x01"),
        requests.made(0x4E, manager, struct.pack("<BBHHIBx", 10, 14, 1, 77, 4711, 0)),
        requests.made(0x0E, paths.of_object(1, 1, 6), b""),
        requests.made(0x03, paths.of_object(1, 1), struct.pack("<3H", 2, 6, 7)),
        requests.made(0x07, paths.of_object(0x8E, 1), b""),
    ]
    return [rr(one) for one in cip] + [wire.frame(wire.LIST_IDENTITY, 0, bytes(8)), REGISTER]


def message_seeds() -> list[bytes]:
    answers = [
        m.Held(0xC4, 0, Int32((1, 2), True)),
        m.Done(),
        m.CipError(5),
        m.TagList((m.Symbol(1, "a", 0xC4, (0, 0, 0)),)),
    ]
    return [PACKER.encode(one) for one in [*ASKED, *answers]]


PACKET = b"\x8a\0\0\0\2\0\6\0\n\0"
TARGETS = [
    Target("enip-server", seeds, run_server,
           tokens=(b"\x20\x6b\x24\x01", b"\x91\x01a\0", b"\x4d\x02", b"\xa0\2\xce\x0f")),
    Target("enip-client", lambda: [b"\xcc\0\0\0\xc4\0" + bytes(40), b"\x81\0\0\0" + bytes(20), PACKET],
           run_client, tokens=(b"\xcc\0\6\0", b"\xd2\0\0\0", b"\xd5\0\6\0", b"\xff\1\5\x21")),
    Target("enip-connected",
           lambda: [b"\0\xcc\0\0\0\xc4\0" + bytes(40), b"\1\xdb\0\x08\0" + bytes(196) + b"\xd4\0\0\0" + bytes(26)],
           run_connected, tokens=(b"\xcc\0\6\0", b"\xd2\0\0\0", b"\xdb\0\0\0", b"\xd4\0\1\1")),
    Target("enip-single", lambda: [bytes((at, at)) + b"\xcc\0\0\0" + bytes((code, 0)) + bytes(24)
                                   for at, code in enumerate(sorted(ATOMIC))],
           run_single, tokens=(b"\xcc\0\6\0", b"\xcc\0\0\0\xc1\0", b"\xcc\0\0\0\xc4\0"), max_bytes=64),
    Target("enip-messages", message_seeds, run_messages),
]  # fmt: skip
