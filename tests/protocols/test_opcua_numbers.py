"""Single numbers: read and written in one call as the decoder and the encoder do it, and left to them otherwise."""

from __future__ import annotations

import struct
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cofferdam.model import Item
from cofferdam.protocols.base import BadResponse, ResponseReceived
from cofferdam.protocols.opcua import messages as m
from cofferdam.protocols.opcua import numbers, wire
from cofferdam.protocols.opcua import services as s
from cofferdam.protocols.opcua.builtin_types import Data, Malformed, Variant
from cofferdam.protocols.opcua.names import Namespaces
from cofferdam.protocols.opcua.rendered import plainly
from cofferdam.values import Float64
from tests.protocols.opcua.pair import LEVEL, SPEED, Pair, plain, samples

NAMES = Namespaces(("http://opcfoundation.org/UA/", "urn:us"))
TICKS = st.sampled_from([0, 1, -1, 1 << 62, 133_000_000_000_000_000])
STATUS = st.sampled_from([0, 0, 0, 0x40000000, 0x80310000])
REALS = st.floats(width=32, allow_nan=False)
SINGLE = st.one_of(
    st.builds(Variant, st.just(1), st.booleans()),
    st.builds(Variant, st.just(2), st.integers(-128, 127)), st.builds(Variant, st.just(3), st.integers(0, 255)),
    st.builds(Variant, st.just(4), st.integers(-(1 << 15), (1 << 15) - 1)),
    st.builds(Variant, st.just(5), st.integers(0, (1 << 16) - 1)),
    st.builds(Variant, st.just(6), st.integers(-(1 << 31), (1 << 31) - 1)),
    st.builds(Variant, st.just(7), st.integers(0, (1 << 32) - 1)),
    st.builds(Variant, st.just(8), st.integers(-(1 << 63), (1 << 63) - 1)),
    st.builds(Variant, st.just(9), st.integers(0, (1 << 64) - 1)),
    st.builds(Variant, st.just(10), REALS), st.builds(Variant, st.just(11), st.floats(allow_nan=False)),
)  # fmt: skip
OTHER = st.one_of(
    st.none(), st.just(Variant(0, None)), st.builds(Variant, st.just(12), st.sampled_from(["", "full"])),
    st.builds(Variant, st.just(11), st.lists(st.just(1.0), max_size=3), st.just(True)),
    st.builds(Variant, st.just(13), TICKS),
)  # fmt: skip
PLAIN = st.builds(Data, SINGLE, STATUS, TICKS, TICKS)
ANY = st.one_of(PLAIN, PLAIN, PLAIN, st.builds(Data, OTHER, STATUS, TICKS, TICKS))


def body(values: list[Data], handle: int = 7, result: int = 0) -> bytes:
    return wire.encode(s.ReadResponse(s.ResponseHeader(5, handle, result, 0, [], wire.NO_EXTENSION), values, []))


def plainly_read(data: bytes) -> tuple[m.Sample, ...] | None:
    """By the decoder; None for what is no good answer."""
    try:
        found = wire.decode(data, request=False)
    except Malformed:
        return None
    good = isinstance(found, s.ReadResponse) and not found.header.result
    return tuple(NAMES.sample(one) for one in found.results) if good else None


@given(st.lists(PLAIN, max_size=20))
def test_numbers_are_read_as_the_decoder_reads_them(values: list[Data]) -> None:
    data = body(values)
    found = numbers.samples_of(data, len(values))
    assert found is not None and found == plainly_read(data)
    assert numbers.samples_of(data, len(values) + 1) is None, "another number of values"


@given(st.lists(ANY, min_size=1, max_size=6), st.integers(0, 400), st.integers(0, 255), st.integers(0, 3))
def test_what_is_read_at_once_is_what_the_decoder_reads(values: list[Data], at: int, byte: int, how: int) -> None:
    data = body(values, result=0x80000000 if how == 3 else 0)
    at %= len(data)
    if how == 1:
        data = data[:at] + bytes([byte]) + data[at + 1 :]
    elif how == 2:
        data = data[:at] if byte & 1 else data + bytes([byte])
    found = numbers.samples_of(data, len(values))
    if found is not None:
        # A number that is none equals none, itself included.
        assert repr(found) == repr(plainly_read(data))


@given(st.lists(ANY, max_size=6), st.integers(0, 3), st.integers(0, (1 << 32) - 1))
def test_what_is_written_at_once_is_what_the_encoder_writes(values: list[Data], stamps: int, handle: int) -> None:
    samples = [NAMES.sample(one) for one in values]
    written = [numbers.written(one, stamps) or plainly(NAMES.data(one, stamps)) for one in samples]
    header = s.ResponseHeader(5, handle, 0, 0, [], wire.NO_EXTENSION)
    told = [NAMES.data(one, stamps) for one in samples]
    assert numbers.answer(5, handle, len(written), written) == wire.encode(s.ReadResponse(header, told, []))


# --- a client machine that asks the same again ------------------------------------------------------------------------

ASKED = m.Read((Item("node", LEVEL), Item("node", SPEED)))


def asked_again() -> Pair:
    """A pair whose client has asked once, and asks the same again."""
    pair = plain()
    pair.to_server(pair.client.send(ASKED)[1])
    pair.answer(m.Values((m.Sample(Float64((1.0,))),) * 2))
    token, data = pair.client.send(ASKED)
    pair.to_server(data)
    assert pair.client.said.body(ASKED, 0, 0) and pair.client._reads == {token: ASKED}
    return pair


def answered(pair: Pair, data: bytes) -> Any:
    """What comes of an answer of the server's own making."""
    (token,) = pair.client._reads
    pair.heard.clear()
    pair.to_client(pair.server.channel.send(token, data))
    return pair.heard[-1] if pair.heard else pair.client_error


def test_an_answer_to_what_is_asked_again_is_held_to_the_same_as_the_first() -> None:
    good = Data(Variant(11, 1.5), 0, 3, 4)
    values = answered(asked_again(), body([good, Data(Variant(12, "x"))]))
    assert isinstance(values, ResponseReceived)
    assert [one.value and one.value.values for one in samples(values.response)] == [(1.5,), ("x",)]
    refused = answered(asked_again(), body([], result=0x80310000))
    assert isinstance(refused, ResponseReceived) and refused.response == m.Refused(0x80310000)
    for wrong in (body([good]), body([good] * 3), body([good, good])[:-1], b"\x01\x00\xff\xff", b""):
        assert isinstance(answered(asked_again(), wrong), BadResponse)
    assert "ended the session" in str(answered(asked_again(), body([], result=0x80250000)))


def test_an_answer_that_nobody_waits_for_any_more_goes_to_nobody() -> None:
    pair = asked_again()
    (token,) = pair.client._reads
    pair.client.forget(token)
    pair.heard.clear()
    pair.answer(m.Values((m.Sample(Float64((2.0,))),) * 2))
    assert not any(isinstance(one, ResponseReceived) for one in pair.heard) and pair.client.in_flight == 0
    assert pair.client_error is None


def test_what_may_be_a_structure_from_now_on_is_written_and_read_anew() -> None:
    pair = asked_again()
    assert pair.client.asset is not None
    pair.client.take_asset(pair.client.asset)
    assert not pair.client.said.body(ASKED, 0, 0)
    found = answered(pair, body([Data(Variant(11, struct.unpack("<d", bytes(8))[0])), Data(Variant(11, 1.0))]))
    assert isinstance(found, ResponseReceived) and len(samples(found.response)) == 2
