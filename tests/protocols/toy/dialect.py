"""What a policy may say about the toy protocol."""

from __future__ import annotations

import re

from cofferdam.model import Item, Span
from cofferdam.protocols.dialect import Dialect, Kind, Misread, Notation, show_range
from cofferdam.values import ValueType

PATH = re.compile(r"[a-z_][a-z0-9_]*(\.[a-z0-9_]+)*\Z")
"""A name as it is spelt everywhere but in what people write: capitals mean nothing."""
_PLACE = re.compile(r"([a-z]+)\s+([A-Za-z0-9_.]+)(?:\[(\d{1,9})(?:-(\d{1,9}))?\])?\Z")


class ToyNotation(Notation):
    """A kind and a path: "tag Pump.Speed", "tag Counts[0-9]", "method Line.Reset", "io Drive"."""

    pattern = r"^[a-z]+\s+[A-Za-z0-9_.]+(\[\d+(-\d+)?\])?$"
    examples = ("tag Pump.Speed", "tag Counts[0-9]")

    def parse(self, text: str) -> Item:
        found = _PLACE.match(text)
        if not found or not PATH.match(found[2].lower()):
            near = f"tag {text}" if PATH.match(text.lower()) else ""
            raise Misread('a kind and a path, such as "tag Pump.Speed" or "tag Counts[0-9]"', near)
        kind, name = found[1], found[2].lower()
        if found[3] is None:
            return Item(kind, name)
        first, last = int(found[3]), int(found[4] or found[3])
        if last < first:
            raise Misread("the first element before the last", f"{kind} {found[2]}[{last}-{first}]")
        return Item(kind, name, first, last - first + 1)

    def prefix(self, text: str) -> Item:
        found = re.fullmatch(r"tag\s+([A-Za-z0-9_.]+)\*", text)
        if not found:
            raise Misread('the beginning of tags, such as "tag Pump.*"')
        return Item("tag", found[1].lower())

    def show(self, place: Span | Item) -> str:
        return show_range(place, place.start, place.stop)


TOY = Dialect(
    name="toy",
    default_port=7007,
    notation=ToyNotation(),
    types={
        "flag": ValueType.BOOL, "small": ValueType.INT8, "int": ValueType.INT32, "long": ValueType.INT64,
        "big": ValueType.UINT64, "real": ValueType.FLOAT32, "double": ValueType.FLOAT64, "text": ValueType.TEXT,
        "bytes": ValueType.BYTES,
    },
    kinds=(
        Kind("tag", "a tag", read=1, write=2, watch=4, separators=".", elements=True, prefix=True),
        Kind("method", "a method", call=3),
        Kind("io", "an I/O connection", open=5, separators="."),
    ),
    codes={7: "uptime", 8: "restart"},
    code_range=(1, 99),
    code_examples="7",
    changing=frozenset({(8, -1)}),
    place_codes=frozenset({1, 2, 3, 4, 5}),
    quirks=frozenset({"mute"}),
)  # fmt: skip
