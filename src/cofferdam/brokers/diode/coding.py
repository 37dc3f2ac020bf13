"""Repair of lost packets: Reed-Solomon over shards, behind two functions, so that the library can be replaced.

The library is leopard (FF8 and FF16, systematic). Its maker has been silent since 2024; tests hold what any successor
must meet: parity in fixed words, which both ends of a strand have to agree on while one of them is new and the other is
not, and every choice of what is lost of small blocks.

An erasure code repairs what is missing, and not what is false: a false shard spoils its block, and the seal says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import reed_solomon_leopard as leopard  # type: ignore[import-untyped]

from cofferdam.errors import RemoteProtocolError


def parity(shards: Sequence[bytes], count: int) -> list[bytes]:
    """So many parity shards for data shards of one size, a multiple of 64 bytes."""
    return list(leopard.encode(list(shards), count)) if count else []


def repair(k: int, m: int, found: Mapping[int, bytes]) -> list[bytes]:
    """The data shards of a block from any k of its k + m shards, by their index (parity from k on).

    Raises:
        RemoteProtocolError: there are fewer than k, or they do not fit together.
    """
    data = {index: shard for index, shard in found.items() if index < k}
    if len(data) < k:
        if len(found) < k:
            raise RemoteProtocolError(f"{len(found)} shards of {k}", section="diode")
        more = {index - k: shard for index, shard in found.items() if index >= k}
        try:
            data |= leopard.decode(k, m, data, more)
        except ValueError as error:
            raise RemoteProtocolError(f"no repair: {error}", section="diode") from None
    return [data[index] for index in range(k)]
