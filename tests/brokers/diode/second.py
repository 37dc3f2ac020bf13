"""The code of a strand once more, from its definition and by no library: slow, and by another way.

A symbol is 16 bits: of each 64 bytes of a shard the first 32 have the low halves, the rest the high ones. Symbols are
elements of GF(2^16) by x^16 + x^12 + x^3 + x + 1, written in a Cantor basis, and so are the places of a shard. With
more data than parity (by powers of two) parity stands in places 0 to m - 1 and data from the next power of two on, else
data from 0 on and parity from the next power of two on. Places of data that there is none for hold zeros, up to a power
of two of places in all. Parity is what has the polynomial through all of them a degree below the places of data.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Final

_POLYNOMIAL: Final = 0x1002D
_BASIS: Final = (
    0x0001, 0xACCA, 0x3C0E, 0x163E, 0xC582, 0xED2E, 0x914C, 0x4012,
    0x6C98, 0x10D8, 0x6A72, 0xB900, 0xFDB8, 0xFB34, 0xFF38, 0x991E,
)  # fmt: skip
_ORDER: Final = (1 << 16) - 1


@functools.cache
def _tables() -> tuple[list[int], list[int]]:
    """Of numbers in the Cantor basis: powers of the generator, and logarithms."""
    elements = [0]
    for base in _BASIS:
        elements += [one ^ base for one in elements]
    number = {element: at for at, element in enumerate(elements)}
    powers, logs, element = [], [0] * (_ORDER + 1), 1
    for exponent in range(_ORDER):
        powers.append(number[element])
        logs[number[element]] = exponent
        element <<= 1
        if element > _ORDER:
            element ^= _POLYNOMIAL
    return powers, logs


def _words(shard: bytes) -> list[int]:
    return [shard[at + low] | shard[at + low + 32] << 8 for at in range(0, len(shard), 64) for low in range(32)]


def _shard(words: Sequence[int]) -> bytes:
    parts = [words[at : at + 32] for at in range(0, len(words), 32)]
    return b"".join(bytes(word & 255 for word in part) + bytes(word >> 8 for word in part) for part in parts)


def _value(known: Mapping[int, list[int]], wanted: int) -> list[int]:
    """At a place, of the polynomials through what is known (Lagrange)."""
    powers, logs = _tables()
    found = [0] * max(map(len, known.values()))
    for place, words in known.items():
        if any(words):
            others = [other for other in known if other != place]
            log = sum(logs[wanted ^ other] - logs[place ^ other] for other in others)
            found = [
                one ^ (powers[(log + logs[word]) % _ORDER] if word else 0)
                for one, word in zip(found, words, strict=True)
            ]
    return found


def _power(count: int) -> int:
    return 1 << (count - 1).bit_length()


def _places(k: int, m: int) -> tuple[range, range, list[int]]:
    """Of data, of parity, and those that hold zeros."""
    if _power(k) > _power(m) or (_power(k) == _power(m) and k <= m):
        first = _power(m)
        return range(first, first + k), range(m), list(range(first + k, _power(first + k)))
    first = _power(k)
    return range(k), range(first, first + m), list(range(k, first))


def encode(shards: Sequence[bytes], m: int) -> list[bytes]:
    k = len(shards)
    data, parity, zeros = _places(k, m)
    known = {
        **{place: [0] * (len(shards[0]) // 2) for place in zeros},
        **dict(zip(data, map(_words, shards), strict=True)),
    }
    return [_shard(_value(known, place)) for place in parity]


def decode(k: int, m: int, found: Mapping[int, bytes]) -> list[bytes]:
    """The data from exactly k shards, by their index (parity from k on)."""
    data, parity, zeros = _places(k, m)
    every = [*data, *parity]
    known = {place: [0] * (len(next(iter(found.values()))) // 2) for place in zeros}
    known |= {every[index]: _words(shard) for index, shard in found.items()}
    return [found.get(index) or _shard(_value(known, place)) for index, place in enumerate(data)]
