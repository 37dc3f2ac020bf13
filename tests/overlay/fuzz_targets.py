"""Fuzz targets: questions to the name server."""

from __future__ import annotations

from collections.abc import Hashable

from dnslib import EDNS0, DNSRecord

from cofferdam.enforce.overlay.answers import UDP_BYTES, Answers
from cofferdam.enforce.plans.overlay import name_zone
from cofferdam.errors import RemoteProtocolError
from tests.fuzz.engine import Target
from tests.overlay.works import compiled, text

_ZONE = name_zone(compiled(text({"plc-7": "overlay: 10.64.7.17", "plc-8": ""})), 42)
assert _ZONE is not None
_ANSWERS = Answers(_ZONE)
_NAMES = ("plc-7.riverside-water.internal", "riverside-water.internal", "17.7.64.10.in-addr.arpa", "example.com", ".")


def _seeds() -> list[bytes]:
    found = []
    for name in _NAMES:
        for kind in ("A", "AAAA", "TXT", "SOA", "PTR", "ANY", "AXFR"):
            plain = DNSRecord.question(name, kind)
            found.append(bytes(plain.pack()))
            plain.add_ar(EDNS0(udp_len=1232))
            found.append(bytes(plain.pack()))
    return found


def _ask(data: bytes) -> Hashable:
    """An answer is small, reads back, and is one to this question; or there is none."""
    try:
        short, whole = _ANSWERS.answer(data), _ANSWERS.answer(data, stream=True)
    except RemoteProtocolError as error:
        return error.section, str(error).translate({ord(c): None for c in "0123456789"})[:24]
    if len(short) > UDP_BYTES or short[:2] != data[:2] or not short[2] & 0x80:
        raise ValueError("no answer to this question")
    reply = DNSRecord.parse(whole)
    return reply.header.rcode, len(reply.rr), len(reply.auth), len(reply.ar), reply.header.tc


_TOKENS = (b"\xc0\x0c", b"\0\0\x29", b"\x05plc-7", b"\x08internal")
TARGETS = [Target("dns-question", _seeds, _ask, _TOKENS, max_bytes=1500)]
