"""A read that is remembered is what a decoder would make of it, and nothing else is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cofferdam.protocols.opcua import remembered, wire
from cofferdam.protocols.opcua import services as s
from cofferdam.protocols.opcua.builtin_types import Malformed, NodeId, QualifiedName
from cofferdam.protocols.opcua.remembered import Heard

TOKENS = st.sampled_from(
    [NodeId(0, b"t" * 32, "b"), NodeId(0, b"u" * 32, "b"), NodeId(0, b"t" * 31, "b"), NodeId(0, 5)]
)
TIMES = st.sampled_from([0, 1, -1, 1 << 62, 133_000_000_000_000_000])
HANDLES = st.integers(0, (1 << 32) - 1)


def read(token: NodeId, time: int, handle: int, names: list[str], audit: str | None = None) -> bytes:
    header = s.RequestHeader(token, time, handle, 0, audit, 10_000, wire.NO_EXTENSION)
    nodes = [s.ReadValueId(NodeId(2, name, "s"), 13, None, QualifiedName(0, None)) for name in names]
    return wire.encode(s.ReadRequest(header, 0.0, 2, nodes))


def meant(decode: object, data: bytes) -> object:
    try:
        return decode(data)  # type: ignore[operator]
    except Malformed as error:
        return str(error)


def plainly(data: bytes) -> object:
    return wire.decode(data, request=True)


@given(st.lists(st.builds(read, TOKENS, TIMES, HANDLES, st.lists(st.sampled_from(["a", "b"]), max_size=2),
                          st.sampled_from([None, "x"])), min_size=1, max_size=30))  # fmt: skip
def test_whatever_was_heard_before_a_request_means_the_same(said: list[bytes]) -> None:
    heard = Heard()
    for data in said:
        assert heard.decode(data) == plainly(data)


@given(st.integers(0, 200), st.integers(1, 255), st.booleans())
def test_a_byte_that_differs_is_another_request(at: int, change: int, cut: bool) -> None:
    heard = Heard()
    data = read(NodeId(0, b"t" * 32, "b"), 7, 9, ["Line1.Level"])
    heard.decode(data)
    at %= len(data)
    other = data[:at] if cut else data[:at] + bytes([data[at] ^ change]) + data[at + 1 :]
    assert meant(heard.decode, other) == meant(plainly, other)


def test_few_and_short_ones_are_remembered() -> None:
    heard = Heard()
    for number in range(100):
        heard.decode(read(NodeId(0, b"t" * 32, "b"), 0, 0, [str(number)]))
    assert 0 < len(heard._known) <= remembered.MOST
    before = len(heard._known)
    heard.decode(read(NodeId(0, b"t" * 32, "b"), 0, 0, ["x" * 2000]))
    heard.decode(read(NodeId(0, 5), 0, 0, ["x"]))
    assert len(heard._known) == before
