"""Tickets: what is missing, signed by the receiving gate, short enough to be typed or scanned. PURE but for the seal.

A ticket is a text of at most 200 letters: an alphabet without 0, 1, B and I (which are read wrong), four check letters
at the end. They find every single wrong letter and every two that changed places. It holds a serial number, until when
it is good, a channel, and ranges of numbers; what does not fit in is covered by wider ranges, since the receiver drops
what it has.

It can ask for nothing but numbers of channels that ride, is used once, and is good for one strand.

Not here: who carries it, what is sent for it (spool).
"""

from __future__ import annotations

import binascii
import hashlib
import itertools
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from cofferdam.brokers.diode.ledger import Gap, Ranges
from cofferdam.errors import GateError

ALPHABET: Final = "23456789ACDEFGHJKLMNOPQRSTUVWXYZ"
LETTERS_MOST: Final = 200
CHECK: Final = 4
NUMBERS_MOST: Final = 1 << 40
"""Numbers that one ticket asks for."""
_DOMAIN: Final = b"cofferdam diode ticket v1\0"
_BYTES_MOST: Final = (LETTERS_MOST - CHECK) * 5 // 8
_BODY_MOST: Final = _BYTES_MOST - 64
_VERSION: Final = 1


class Ticket(NamedTuple):
    """`channel` counts the strand's channels, sorted, from 0; `epoch` is the lower half of one; `until` in UTC s."""

    serial: int
    until: int
    channel: int
    ranges: tuple[Gap, ...]

    @property
    def total(self) -> int:
        return sum(one.total for one in self.ranges)


def site_tag(site: str, strand: str) -> bytes:
    """What tells strands apart in a signature."""
    return hashlib.sha256(f"{site}\0{strand}".encode()).digest()


def make(signer: bytes, tag: bytes, serial: int, until: int, channel: int, gaps: Sequence[Gap]) -> str:
    """The text. The gaps are of one epoch or several; those that are nearest are joined until it fits.

    Raises: GateError, where there is nothing to ask for.
    """
    if not gaps:
        raise GateError("nothing is missing, so there is nothing to ask for")
    ranges: list[Gap] = []
    for epoch in sorted({gap.epoch for gap in gaps})[-4:]:
        numbers = Ranges()
        for gap in gaps:
            if gap.epoch == epoch:
                numbers.add(gap.first, gap.last)
        ranges += [Gap(epoch, first, last) for first, last in numbers]
    ranges = _joined(ranges, _BODY_MOST)  # no more than a range a byte has room in any case
    while len(body := _body(Ticket(serial, until, channel, tuple(ranges)))) > _BODY_MOST:
        joins = [
            (two.first - one.last, at)
            for at, (one, two) in enumerate(itertools.pairwise(ranges))
            if one.epoch == two.epoch
        ]
        if not joins:  # several epochs, of one range each: the oldest may have another ticket
            ranges = ranges[1:]
            continue
        at = min(joins)[1]
        ranges[at : at + 2] = [Gap(ranges[at].epoch, ranges[at].first, ranges[at + 1].last)]
    signature = Ed25519PrivateKey.from_private_bytes(signer).sign(_DOMAIN + tag + body)
    return _letters(body + signature)


def _joined(ranges: list[Gap], most: int) -> list[Gap]:
    """No more than so many, if they are of one epoch: those that are nearest are one."""
    near = sorted(
        (two.first - one.last, at) for at, (one, two) in enumerate(itertools.pairwise(ranges)) if one.epoch == two.epoch
    )
    shut = {at for _, at in near[: max(0, len(ranges) - most)]}
    found: list[Gap] = []
    for at, gap in enumerate(ranges):
        found[-1:] = [Gap(gap.epoch, found[-1].first, gap.last)] if at - 1 in shut else [*found[-1:], gap]
    return found


def read(text: str, tag: bytes, signers: Mapping[bytes, int], now: int) -> Ticket:
    """A ticket that is good. `signers`: public keys, and until when each is (UTC s); `now` in UTC s.

    Raises:
        GateError: with the reason why it is not.
    """
    data = _bytes(text)
    body, signature = data[:-64], data[-64:]
    if len(data) <= 64 + 8:
        raise GateError("the ticket is too short", hint="it ends with four check letters; was all of it typed?")
    if not any(now < until and _signed(key, _DOMAIN + tag + body, signature) for key, until in signers.items()):
        raise GateError(
            "the ticket is not signed by this strand's receiving gate",
            hint="it may be for another strand or site, or the pair file of that gate is not here",
        )
    ticket = _parse(body)
    if ticket.until <= now:
        raise GateError("the ticket has expired", hint="have a new one made outside: cofferdam diode ticket")
    if ticket.total > NUMBERS_MOST:
        raise GateError(f"the ticket asks for {ticket.total} numbers, and at most {NUMBERS_MOST} can be asked for")
    return ticket


def _signed(key: bytes, what: bytes, signature: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, what)
    except (InvalidSignature, ValueError):
        return False
    return True


# --- bytes ------------------------------------------------------------------------------------------------------------


def _body(ticket: Ticket) -> bytes:
    found = bytearray([_VERSION])
    for number in (ticket.serial, ticket.until, ticket.channel, len({one.epoch for one in ticket.ranges})):
        _put(found, number)
    for epoch in sorted({one.epoch for one in ticket.ranges}):
        mine = [one for one in ticket.ranges if one.epoch == epoch]
        _put(found, epoch)
        _put(found, len(mine))
        at = 0
        for one in mine:
            _put(found, one.first - at)
            _put(found, one.last - one.first)
            at = one.last
    return bytes(found)


def _parse(body: bytes) -> Ticket:
    """Raises: GateError: signed, and still no ticket that this version reads."""
    if body[:1] != bytes([_VERSION]):
        raise GateError("the ticket is of another version")
    reader = _Reader(body, 1)
    serial, until, channel, epochs = (reader.number() for _ in range(4))
    ranges = []
    for _ in range(min(epochs, 16)):
        epoch, count = reader.number(), reader.number()
        at = 0
        for _ in range(min(count, 64)):
            first = at + reader.number()
            at = first + reader.number()
            ranges.append(Gap(epoch, first, at))
    reader.end()
    if not all(0 < one.first <= one.last for one in ranges) or not ranges:
        raise GateError("the ticket asks for numbers that there are not")
    return Ticket(serial, until, channel, tuple(ranges))


def _put(into: bytearray, number: int) -> None:
    while number > 0x7F:
        into.append(number & 0x7F | 0x80)
        number >>= 7
    into.append(number)


class _Reader:
    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at

    def number(self) -> int:
        value = shift = 0
        while True:
            if self._at >= len(self._data) or shift > 63:
                raise GateError("the ticket is damaged")
            byte = self._data[self._at]
            self._at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def end(self) -> None:
        if self._at != len(self._data):
            raise GateError("the ticket is damaged")


# --- letters ----------------------------------------------------------------------------------------------------------


def _letters(data: bytes) -> str:
    bits = len(data) * 8
    spare = -bits % 5
    number = int.from_bytes(data) << spare
    count = (bits + spare) // 5
    text = "".join(ALPHABET[number >> 5 * (count - 1 - at) & 31] for at in range(count))
    return text + _check(text)


def _check(text: str) -> str:
    """CRC-16 over the letters' own five bits, which finds any wrong letter and any two that changed places."""
    number = int("1" + "".join(f"{ALPHABET.index(letter):05b}" for letter in text), 2)
    value = binascii.crc_hqx(number.to_bytes((number.bit_length() + 7) // 8), 0xFFFF)
    return "".join(ALPHABET[value >> shift & 31] for shift in (15, 10, 5, 0))


def _bytes(text: str) -> bytes:
    """Raises: GateError, with what is wrong with the letters."""
    plain = "".join(text.split()).replace("-", "").upper()
    for other, meant in (("0", "O"), ("1", "L"), ("B", "8"), ("I", "L")):
        plain = plain.replace(other, meant)
    if len(plain) > LETTERS_MOST:
        raise GateError(f"the ticket has {len(plain)} letters, and at most {LETTERS_MOST}")
    wrong = next((letter for letter in plain if letter not in ALPHABET), "")
    if wrong or len(plain) <= CHECK:
        raise GateError(
            f"{wrong!r} is no letter of a ticket" if wrong else "the ticket is too short",
            hint="give all of it, as `cofferdam diode ticket` prints it, in quotes: some 140 to 200 letters",
        )
    if _check(plain[:-CHECK]) != plain[-CHECK:]:
        raise GateError("a letter of the ticket is mistyped: its check letters do not fit", hint="read it again")
    body = plain[:-CHECK]
    count = len(body) * 5 // 8
    number = 0
    for letter in body:
        number = number << 5 | ALPHABET.index(letter)
    spare = len(body) * 5 - count * 8
    if spare > 4 or number & ((1 << spare) - 1):
        raise GateError("the ticket is damaged")
    return (number >> spare).to_bytes(count)


def spaced(text: str) -> str:
    """For people: groups of five letters."""
    return " ".join(text[at : at + 5] for at in range(0, len(text), 5))
