"""What comes out of quarantine for somebody who downloads is what was scanned."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from cofferdam.brokers.jump import records
from cofferdam.brokers.jump.inner_held import STRETCH, No, Pieces, Quarantine


class Archivist:
    """Hands out what it has, whatever it was given."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.half = Quarantine(self.take, self.take)

    def take(self, record: Any) -> None:
        assert isinstance(record, records.Give)
        piece = self.data[record.offset : record.offset + records.FILE_PIECE]
        self.half.on_record(records.Given(record.file, record.offset, piece))


def kept(data: bytes, *sizes: int) -> Pieces:
    """Came in pieces of these sizes, and the rest in one."""
    pieces = Pieces()
    for size in sizes:
        pieces.add(data[:size])
        data = data[size:]
    pieces.add(data)
    return pieces


def read(archivist: Archivist, pieces: Pieces, offset: int, count: int) -> bytes:
    return asyncio.run(archivist.half.read(1, pieces, offset, count))


@pytest.mark.parametrize("size", [1, STRETCH - 1, STRETCH, STRETCH + 1, records.FILE_PIECE, records.FILE_PIECE + 5])
def test_what_went_in_comes_out_from_wherever_somebody_reads(size: int) -> None:
    data = random.Random(size).randbytes(size)
    archivist, pieces = Archivist(data), kept(data, 7, 3 * STRETCH)
    for offset in {0, 1, STRETCH - 1, STRETCH, size // 2, size - 1} - set(range(size, size + STRETCH + 1)):
        found = read(archivist, pieces, offset, 32_768)
        assert found and data[offset:].startswith(found)
        assert len(found) == min(32_768, size - offset)
    assert read(archivist, pieces, size, 10) == b""
    whole = b""
    while piece := read(archivist, pieces, len(whole), records.FILE_PIECE):
        whole += piece
    assert whole == data


@pytest.mark.parametrize("at", [0, STRETCH, 3 * STRETCH])
def test_a_byte_that_was_changed_does_not_come_out_nor_anything_after_it(at: int) -> None:
    data = bytes(3 * STRETCH + 5)
    archivist, pieces = Archivist(data[:at] + b"x" + data[at + 1 :]), kept(data)
    with pytest.raises(No, match="is not what came"):
        read(archivist, pieces, at, 1)
    archivist.data = data
    with pytest.raises(No, match="is not what came"):
        read(archivist, pieces, 0, 1)


@pytest.mark.parametrize("change", [-1, 1, -STRETCH])
def test_more_or_less_than_went_in_does_not_come_out(change: int) -> None:
    data = bytes(2 * STRETCH)
    archivist, pieces = Archivist(bytes(len(data) + change)), kept(data)
    with pytest.raises(No, match="is not what came"):
        read(archivist, pieces, STRETCH, 10)


def test_other_stretches_of_the_same_file_do_not_take_its_place() -> None:
    data = random.Random(1).randbytes(3 * STRETCH)
    archivist, pieces = Archivist(data[STRETCH:] + data[:STRETCH]), kept(data)
    with pytest.raises(No):
        read(archivist, pieces, 0, 10)
