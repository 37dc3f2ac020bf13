"""Repair of lost packets: Reed-Solomon over shards, behind two functions and their steps, so that the library can be
replaced.

The code is Leopard's in the field of 2^16 (systematic). The library's maker has been silent since 2024; tests hold what
any successor must meet: parity in fixed words, which both ends of a strand have to agree on while one of them is new
and the other is not, every choice of what is lost of small blocks, and an implementation without the library.

An erasure code repairs what is missing, and not what is false: a false shard spoils its block, and the seal says so.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Final, TypeVar

import reed_solomon_leopard as leopard  # type: ignore[import-untyped]

from cofferdam.errors import RemoteProtocolError

T = TypeVar("T")

COLUMN: Final = 1408
"""Bytes of each shard that are worked on in one step: shards of an MTU of 1,500 are one column. A multiple of 64."""


def parity(shards: Sequence[bytes], count: int) -> list[bytes]:
    """So many parity shards for data shards of one size, a multiple of 64 bytes."""
    return finish(encoding(shards, count))


def encoding(shards: Sequence[bytes], count: int) -> Generator[None, None, list[bytes]]:
    """`parity` in steps of less than a millisecond, a column of all shards at a time. The library copies what it is
    given: so that is never a whole block of large shards."""
    if not count:
        return []
    columns = []
    for at in range(0, len(shards[0]), COLUMN):
        columns.append(leopard.encode([shard[at : at + COLUMN] for shard in shards], count))
        yield
    return [b"".join(column) for column in zip(*columns, strict=True)]


def repair(k: int, m: int, found: Mapping[int, bytes]) -> list[bytes]:
    """The data shards of a block from any k of its k + m shards, by their index (parity from k on).

    Raises:
        RemoteProtocolError: there are fewer than k, or they do not fit together.
    """
    return finish(repairing(k, m, found))


def repairing(k: int, m: int, found: Mapping[int, bytes]) -> Generator[None, None, list[bytes]]:
    """`repair` in steps of a millisecond or two, a column of all shards at a time."""
    data = {index: shard for index, shard in found.items() if index < k}
    if len(data) < k:
        if len(found) < k:
            raise RemoteProtocolError(f"{len(found)} shards of {k}", section="diode")
        more = {index - k: shard for index, shard in found.items() if index >= k}
        columns = []
        for at in range(0, len(next(iter(found.values()))), COLUMN):
            cut = slice(at, at + COLUMN)
            try:
                columns.append(leopard.decode(k, m, _column(data, cut), _column(more, cut)))
            except ValueError as error:
                raise RemoteProtocolError(f"no repair: {error}", section="diode") from None
            yield
        data |= {index: b"".join(column[index] for column in columns) for index in columns[0]}
    return [data[index] for index in range(k)]


def finish(steps: Generator[None, None, T]) -> T:
    """All steps at once: what comes of them."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: T = end.value
            return found


def _column(shards: Mapping[int, bytes], cut: slice) -> dict[int, bytes]:
    return {index: shard[cut] for index, shard in shards.items()}
