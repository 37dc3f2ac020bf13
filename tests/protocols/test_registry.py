"""What holds for every protocol: its dialect states facts of it without importing it, and they are the same facts."""

from __future__ import annotations

import re
from typing import Any

import pytest

from cofferdam.errors import LocalProtocolError
from cofferdam.protocols.base import Protocol
from cofferdam.protocols.dialects import DIALECTS
from cofferdam.protocols.registry import PROTOCOLS
from tests.protocols.toy.site import TOYS


def test_both_tables_name_the_same() -> None:
    assert {name: protocol.dialect for name, protocol in PROTOCOLS.items()} == dict(DIALECTS)


@pytest.mark.parametrize("name", sorted(TOYS))
def test_dialect_and_protocol_say_the_same(name: str) -> None:
    protocol, dialect = TOYS[name], TOYS[name].dialect
    assert protocol.name == dialect.name == name
    assert set(dialect.codes) | dialect.place_codes == set(protocol.functions)
    assert not set(dialect.codes) & dialect.place_codes
    low, high = dialect.code_range
    assert all(low <= code <= high for code in protocol.functions)
    assert {code for code, _ in dialect.changing} <= set(dialect.codes)
    said = {code for space in dialect.spaces for code in (space.read, space.write_one, space.write_many)}
    said |= {code for kind in dialect.kinds for code in (kind.read, kind.write, kind.watch, kind.call, kind.open)}
    assert said - {0} <= dialect.place_codes
    assert (protocol.notice_type is not None) == any(kind.watch for kind in dialect.kinds)
    assert (protocol.frame_type is not None) == any(kind.open for kind in dialect.kinds)


@pytest.mark.parametrize("name", sorted(TOYS))
def test_quirks_are_known(name: str) -> None:
    protocol, dialect = TOYS[name], TOYS[name].dialect
    assert dialect.lone_quirks <= dialect.quirks
    for quirk in dialect.quirks:
        protocol.client(quirks=frozenset({quirk}))
        if quirk in dialect.lone_quirks:
            with pytest.raises(LocalProtocolError):
                protocol.client(quirks=frozenset({quirk}), outstanding=2)
        else:
            protocol.client(quirks=frozenset({quirk}), outstanding=2)
    with pytest.raises(LocalProtocolError):
        protocol.client(quirks=frozenset({"no such quirk"}))


@pytest.mark.parametrize("name", sorted(TOYS))
def test_the_notation_reads_what_it_shows(name: str) -> None:
    dialect = TOYS[name].dialect
    assert dialect.notation.examples
    for text in dialect.notation.examples:
        assert re.fullmatch(dialect.notation.pattern, text)
        place = dialect.notation.parse(text)
        assert dialect.found(place) is not None
        assert dialect.notation.parse(dialect.notation.show(place)) == place


@pytest.mark.parametrize("name", sorted(TOYS))
def test_a_machine_that_does_not_speak_says_so(name: str) -> None:
    protocol: Protocol[Any, Any] = TOYS[name]
    for machine in (protocol.server(), protocol.client()):
        if not protocol.speaks:
            assert machine.take_output() == b"" and machine.deadline == 0
        machine.on_time(1)
