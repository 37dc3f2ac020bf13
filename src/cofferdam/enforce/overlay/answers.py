"""One DNS question to its answer, from one zone and from nothing else (RFC 1035, RFC 2308, RFC 6891, RFC 8482).

Authoritative only: no recursion, no cache, no forwarding, no transfer. What is outside the zone is refused. What is
no well-formed question gets no answer at all, so that nothing here can be made to talk to a forged address more than
it was talked to.

Not here: sockets, pace (names, process). dnslib makes and reads the records; the frame around them is checked first,
since a library made for every kind of message takes more than a question.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable

from dnslib import (
    AAAA,
    EDNS0,
    NS,
    PTR,
    QTYPE,
    RCODE,
    RR,
    SOA,
    TXT,
    A,
    DNSHeader,
    DNSLabel,
    DNSQuestion,
    DNSRecord,
)  # fmt: skip
from dnslib.dns import DNSError

from cofferdam.enforce.plans.overlay import NEGATIVE_TTL, TTL, Host, NameZone
from cofferdam.errors import RemoteProtocolError
from cofferdam.policy.addressing import NAME_SERVER

UDP_BYTES = 1232
"""The largest answer by UDP: never fragmented on an IPv6 path."""
PLAIN_UDP_BYTES = 512
QUERY_BYTES = 1232
"""The largest question: a name has at most 255 bytes, and a resolver's options come besides."""
_HEADER, _OPT, _IN, _ANY_CLASS = 12, 41, 1, 255
_A, _NS, _SOA, _PTR, _TXT, _AAAA, _IXFR, _AXFR, _ANY = 1, 2, 6, 12, 16, 28, 251, 252, 255


class Question:
    """A question that is well-formed. `size`: the largest answer that the asker takes by UDP; 0: it has no EDNS."""

    __slots__ = ("edns_version", "id", "kind", "klass", "name", "opcode", "recursion", "size", "wire_name")

    def __init__(self, data: bytes) -> None:
        """Raises: RemoteProtocolError for anything else."""
        if len(data) < _HEADER + 5:
            raise _malformed(f"{len(data)} bytes", "4.1.1", len(data))
        if len(data) > QUERY_BYTES:
            raise _malformed(f"{len(data)} bytes, more than {QUERY_BYTES}", "4.1.1", QUERY_BYTES)
        self.id, flags, questions, answers, authority, extra = struct.unpack_from(">6H", data)
        if flags & 0x8000:
            raise _malformed("an answer, where a question is expected", "4.1.1", 2)
        self.opcode, self.recursion = flags >> 11 & 15, bool(flags & 0x0100)
        if (questions, answers, authority) != (1, 0, 0) or extra > 1:
            raise _malformed(f"{questions}, {answers}, {authority} and {extra} records in its sections", "4.1.2", 4)
        labels, at = _labels(data)
        # A dot within a label would make two names one. No name of ours has any, so such a name is not in the zone.
        strange = any(b"." in label for label in labels)
        self.name = "" if strange else b".".join(labels).lower().decode("ascii", "replace")
        self.wire_name = tuple(labels)
        self.kind, self.klass = struct.unpack_from(">2H", data, at)
        at += 4
        self.size = self.edns_version = 0
        if extra:
            at = self._options(data, at)
        if at != len(data):
            raise _malformed(f"{len(data) - at} bytes behind its end", "4.1", at)

    def _options(self, data: bytes, at: int) -> int:
        """The OPT pseudo-record (RFC 6891, 6.1.2)."""
        if len(data) < at + 11 or data[at] != 0:
            raise _malformed("an additional record that is no OPT of the root", "RFC 6891, 6.1.2", at)
        kind, self.size, ttl, length = struct.unpack_from(">HHIH", data, at + 1)
        if kind != _OPT:
            raise _malformed(f"an additional record of type {kind}", "RFC 6891, 6.1.2", at)
        self.edns_version = ttl >> 16 & 255
        self.size = max(self.size, PLAIN_UDP_BYTES)
        end = at + 11 + int(length)
        if end > len(data):
            raise _malformed("options that end behind the message", "RFC 6891, 6.1.2", at)
        return end


def _labels(data: bytes) -> tuple[list[bytes], int]:
    """The name in the question, and where it ends. Compression points backwards, and before it is no name."""
    labels: list[bytes] = []
    at = _HEADER
    while True:
        if at >= len(data):
            raise _malformed("a name without an end", "4.1.2", at)
        length = data[at]
        if length == 0:
            break
        if length > 63 or at + 1 + length >= len(data):
            raise _malformed(f"a label of length byte {length}", "4.1.4", at)
        label = data[at + 1 : at + 1 + length]
        if not label.isascii() or not label.decode("ascii").isprintable() or b" " in label:
            raise _malformed("a label of letters that no host name has", "2.3.1", at)
        labels.append(label)
        at += 1 + length
        if at - _HEADER > 254:
            raise _malformed("a name of more than 255 bytes", "2.3.4", at)
    if at + 5 > len(data):
        raise _malformed("a question without type and class", "4.1.2", at)
    return labels, at + 1


def _malformed(what: str, section: str, offset: int) -> RemoteProtocolError:
    where = section if section.startswith("RFC") else f"RFC 1035, {section}"
    return RemoteProtocolError(f"no DNS question: {what}", section=where, offset=offset)


class Answers:
    """The answers of one zone, ready to be looked up."""

    def __init__(self, zone: NameZone) -> None:
        self.zone = zone
        self._apexes = (zone.domain, *zone.reverse)
        self._soa = SOA(zone.name_server, f"hostmaster.{zone.domain}", (zone.serial, 3600, 600, 604800, NEGATIVE_TTL))
        self._records: dict[str, dict[int, list[RR]]] = {}
        for apex in self._apexes:
            self._add(apex, _SOA, [self._soa])
            self._add(apex, _NS, [NS(zone.name_server)])
        for host in (Host(NAME_SERVER, zone.servers), *zone.hosts):
            self._add_host(host)
        # A name that has nothing but names below it exists, without records (RFC 8020).
        for name in list(self._records):
            apex = self._apex(name)
            while name != apex:
                name = name.partition(".")[2]
                self._records.setdefault(name, {})

    def _add_host(self, host: Host) -> None:
        name = f"{host.label}.{self.zone.domain}"
        self._add(name, _A, [A(text) for text in host.addresses if ":" not in text])
        self._add(name, _AAAA, [AAAA(_groups(text)) for text in host.addresses if ":" in text])
        if host.texts:
            self._add(name, _TXT, [TXT([text.encode() for text in host.texts])])
        for text in host.addresses:
            pointer = ipaddress.ip_address(text).reverse_pointer
            if self._apex(pointer):
                self._add(pointer, _PTR, [PTR(name)])

    def _add(self, name: str, kind: int, data: Iterable[object]) -> None:
        kinds = self._records.setdefault(name, {})
        kinds.setdefault(kind, []).extend(RR(name, kind, _IN, TTL, piece) for piece in data)

    def _apex(self, name: str) -> str:
        """The zone that a name belongs to, or ""."""
        return next((apex for apex in self._apexes if name == apex or name.endswith(f".{apex}")), "")

    def answer(self, data: bytes, *, stream: bool = False) -> bytes:
        """The answer to a question. `stream`: it came by TCP, so its answer may have any size.

        Raises:
            RemoteProtocolError: it is no question; there is nothing to answer.
        """
        question = Question(bytes(data))
        reply = self._reply(question)
        wire: bytes = self._pack(reply)
        limit = 65535 if stream else min(question.size or PLAIN_UDP_BYTES, UDP_BYTES)
        return wire if len(wire) <= limit else self.truncated(question)

    def truncated(self, question: Question) -> bytes:
        """The answer that says: ask again by TCP (RFC 2181, section 9)."""
        reply = self._empty(question)
        reply.header.tc = 1
        return self._pack(reply)

    @staticmethod
    def _pack(reply: DNSRecord) -> bytes:
        try:
            wire: bytes = reply.pack()
        except (DNSError, UnicodeError) as error:  # every name of ours fits; a client's was measured
            raise RemoteProtocolError(f"no answer can be made: {error}", section="RFC 1035, 4.1") from None
        return wire

    def _empty(self, question: Question) -> DNSRecord:
        header = DNSHeader(id=question.id, qr=1, aa=1, rd=int(question.recursion), ra=0)
        header.opcode = question.opcode
        # In the letters that it was asked in: resolvers compare them against forgers.
        asked = DNSQuestion(DNSLabel(question.wire_name), question.kind, question.klass)
        reply = DNSRecord(header, q=asked)
        if question.size:
            reply.add_ar(EDNS0(udp_len=UDP_BYTES, ext_rcode=int(question.edns_version > 0)))
        return reply

    def _reply(self, question: Question) -> DNSRecord:
        reply = self._empty(question)
        if question.edns_version > 0:
            return reply  # BADVERS: its upper bits stand in the OPT record
        if question.opcode != 0:
            reply.header.rcode, reply.header.aa = RCODE.NOTIMP, 0
            return reply
        apex = self._apex(question.name)
        if not apex or question.klass not in (_IN, _ANY_CLASS) or question.kind in (_AXFR, _IXFR, _OPT):
            reply.header.rcode, reply.header.aa = RCODE.REFUSED, 0
            return reply
        kinds = self._records.get(question.name)
        if kinds is None:
            reply.header.rcode = RCODE.NXDOMAIN
        elif question.kind == _ANY and kinds:
            # One set is enough for such a question (RFC 8482, 4.1).
            reply.add_answer(*next(iter(kinds.values())))
        else:
            reply.add_answer(*kinds.get(question.kind, ()))
        if not reply.rr:
            reply.add_auth(RR(apex, QTYPE.SOA, _IN, NEGATIVE_TTL, self._soa))
        return reply


def _groups(text: str) -> tuple[int, ...]:
    return tuple(ipaddress.IPv6Address(text).packed)
