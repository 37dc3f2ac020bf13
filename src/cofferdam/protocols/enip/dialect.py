"""What a policy may say about EtherNet/IP: tags by their path, attributes by class, instance and number.

A tag's name means the same in any case; here it is in small letters, wherever it comes from. A last index is a range of
elements ("tag Counts[3]", "tag Counts[0-9]"), one before a further part belongs to the name ("tag Pump[3].Speed"), and
so do several ("tag Matrix[1,2]"). A number as the last part is a bit ("tag Status.3").

Not here: how a path is written on the wire (paths).
"""

from __future__ import annotations

import ipaddress
import re

from cofferdam.model import Item, Span
from cofferdam.protocols.dialect import Dialect, Kind, Misread, Notation, show_range
from cofferdam.values import ValueType

PARTS = 8
"""Parts of a tag's path, at most."""
INDEXES = 3
"""Indexes of one part, at most."""
PART_LENGTH = 40
"""Characters of one part, at most."""
ELEMENT = (1 << 31) - 1
"""The largest index."""

_NAME = r"[A-Za-z_][A-Za-z0-9_]*(?::[A-Za-z0-9_]+)*"
_INDEX = r"\[[0-9]{1,10}(?:,[0-9]{1,10}){0,2}\]"
_PART = rf"{_NAME}(?:{_INDEX})?"
NAME = re.compile(rf"{_NAME}\Z")
"""One part of a path, as a symbol segment has it."""
PATH = re.compile(rf"{_PART}(?:\.{_PART})*(?:\.[0-9]{{1,2}})?\Z")
"""A whole path but for the last range, as it is spelt everywhere but in what people write."""
_TAG = re.compile(rf"tag\s+({_PART}(?:\.{_PART})*(?:\.[0-9]{{1,2}})?)(?:\[([0-9]{{1,10}})-([0-9]{{1,10}})\])?\Z")
_ZEROS = re.compile(r"(?<=[\[,.])0+(?=[0-9])")
"""Zeros before a number: an index and a bit are spelt without."""
_LAST = re.compile(r"(.*)\[([0-9]{1,10})\]\Z")
_ATTRIBUTE = re.compile(r"cip\s+((?:0[xX][0-9A-Fa-f]{1,4})|[0-9]{1,5})/([0-9]{1,10})/([0-9]{1,5})\Z")
_IO = re.compile(r"io\s+([A-Za-z_][A-Za-z0-9_]{0,39}(?:\.[0-9]{1,4}(?:\.[0-7])?)?)\Z")
IO_NAME = re.compile(r"[a-z_][a-z0-9_]{0,39}(\.(0|[1-9][0-9]{0,3})(\.[0-7])?)?\Z")
"""An I/O connection, or a place in its outputs: the byte, and the bit of it."""
CIP_NAME = re.compile(r"(0|[1-9][0-9]{0,4})/(0|[1-9][0-9]{0,9})/(0|[1-9][0-9]{0,4})\Z")
"""An attribute's one spelling: class, instance, attribute, in decimals."""


def plain(item: Item) -> str:
    """Why an item is not spelt as everywhere, in words; "" if it is."""
    if item.fault:
        return item.fault
    if item.kind == "cip":
        found = CIP_NAME.match(item.name)
        right = found and int(found[1]) < 65536 and int(found[2]) < 1 << 32 and int(found[3]) < 65536
        return "" if right and item.first < 0 else f"{item.name!r} is no attribute"
    if item.kind == "io":
        return "" if IO_NAME.match(item.name) and item.first < 0 else f"{item.name!r} is no I/O connection"
    if item.kind != "tag" or item.name != item.name.lower() or not PATH.match(item.name) or _ZEROS.search(item.name):
        return f"{item.name!r} is no tag's path"
    return path_fault(item.name) or ("an index in the name" if item.first < 0 and _LAST.match(item.name) else "")


def path_fault(name: str) -> str:
    """What is too much in a path, in words; "" for nothing."""
    parts = name.split(".")
    if len(parts) > PARTS:
        return f"{len(parts)} parts in a path, at most {PARTS} are known"
    for part in parts:
        if len(part.partition("[")[0]) > PART_LENGTH:
            return f"a part of {len(part.partition('[')[0])} characters, at most {PART_LENGTH} are known"
        if any(int(index) > ELEMENT for index in re.findall(r"[\[,]([0-9]+)", part)):
            return f"an index above {ELEMENT}"
    return ""


_BYTES = {
    ValueType.INT8: 1, ValueType.UINT8: 1, ValueType.INT16: 2, ValueType.UINT16: 2, ValueType.INT32: 4,
    ValueType.UINT32: 4, ValueType.INT64: 8, ValueType.UINT64: 8, ValueType.FLOAT32: 4, ValueType.FLOAT64: 8,
}  # fmt: skip
"""Of types that a point in a stream's outputs may have."""


_LEARNED = re.compile(r"o([0-9]{1,5})x([0-9]{1,4})_i([0-9]{1,5})x([0-9]{1,4})(?:_c([0-9]{1,5}))?(_n)?\Z")


def learned_name(outputs: int, out_size: int, inputs: int, in_size: int, config: int, run: bool) -> str:
    """What an I/O connection is called where no policy has a name for it: by its assemblies and their sizes. `config`:
    -1 for none."""
    return f"o{outputs}x{out_size}_i{inputs}x{in_size}" + (f"_c{config}" if config >= 0 else "") + ("" if run else "_n")


def learned_form(item: Item) -> str:
    """The form of such a connection, as a policy writes it; "" for one that is called otherwise."""
    found = _LEARNED.match(item.name) if item.kind == "io" else None
    if found is None:
        return ""
    form = f"outputs {found[1]} of {found[2]} bytes, inputs {found[3]} of {found[4]} bytes"
    return form + (f", config {found[5]}" if found[5] else "") + (", no run" if found[6] else "")


def outputs_of(form: str) -> str:
    """The assembly of the outputs that a form has; "" where it has none."""
    found = re.match(r"outputs ([0-9]+) of ([0-9]+) bytes", form)
    return f"outputs {int(found[1])}" if found and int(found[2]) else ""


def bit_of(item: Item) -> str:
    """The tag by which a bit is read; "" for what is no bit."""
    name, _, bit = item.name.rpartition(".")
    return f"tag {name}" if item.kind == "tag" and item.first < 0 and bit.isdigit() and name else ""


def group_of(address: str) -> str:
    """The first of the groups that belong to a device with this address (CIP Volume 2, 3-5.3). Where no mask is known,
    as here, the address's class says what of it numbers hosts."""
    number = int(ipaddress.IPv4Address(address))
    hosts = next(bits for first, bits in ((1 << 31, 24), (3 << 30, 16), (1 << 32, 8)) if number < first)
    place = ((number & (1 << hosts) - 1) - 1) & 0x3FF
    return str(ipaddress.IPv4Address("239.192.1.0") + 32 * place)


BY_NUMBERS = frozenset({0x69, 0x72, 0x8E, 0xAC, 0xB2})
"""Classes that FactoryTalk, RSLinx and Studio use, with services that nobody has written down."""
PCCC = 0x67
_PLAIN = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 9, 14, 16, 21, 22})
"""Services that mean the same on any class."""


def unserved(service: int, cls: int) -> str:
    """Why nobody serves a service of a class; "" for what may be served."""
    if cls in BY_NUMBERS and service not in _PLAIN:
        return (
            f"service {service:02X} of class {cls:02X}: FactoryTalk, RSLinx and Studio ask so, by numbers, and are not "
            "served: such a program goes by OPC UA, or stays there"
        )
    return "PCCC in a service 4B, which is not served yet" if cls == PCCC else ""


class EnipNotation(Notation):
    """ "tag Pump.Speed", "tag Counts[0-99]", "tag Status.3", "tag Program:Main.Level", "cip 1/1/6", "io Drive", "io
    Drive.4.0"."""

    pattern = (
        r"^(tag\s+[A-Za-z_][A-Za-z0-9_:.,\[\]-]*|cip\s+(0x[0-9A-Fa-f]+|\d+)/\d+/\d+|io\s+[A-Za-z_][A-Za-z0-9_.]*)$"
    )
    examples = (
        "tag Pump.Speed", "tag Counts[0-99]", "tag Status.3", "tag Program:Main.Level", "cip 1/1/6", "io Drive",
        "io Drive.4.0",
    )  # fmt: skip

    def parse(self, text: str) -> Item:
        if found := _ATTRIBUTE.match(text):
            numbers = (int(found[1], 0), int(found[2]), int(found[3]))
            if numbers[0] > 65535 or numbers[1] >= 1 << 32 or numbers[2] > 65535:
                raise Misread("a class and an attribute up to 65535, and an instance of 32 bits")
            return Item("cip", "/".join(map(str, numbers)))
        if found := _IO.match(text):
            return Item("io", _ZEROS.sub("", found[1].lower()))
        tag = _TAG.match(text)
        if not tag:
            bare = re.sub(r"(?i)\Atag\b[\s:]*", "", text)
            near = f"tag {bare}" if PATH.match(bare) or _TAG.match(f"tag {bare}") else ""
            raise Misread('a tag or an attribute, such as "tag Pump.Speed", "tag Counts[0-9]" or "cip 1/1/6"', near)
        name = _ZEROS.sub("", tag[1].lower())
        if fault := path_fault(name):
            raise Misread(f"a shorter path ({fault})")
        if tag[2] is not None:
            first, last = int(tag[2]), int(tag[3])
            if last < first:
                raise Misread("the first element before the last", f"tag {tag[1]}[{last}-{first}]")
            if last > ELEMENT or last - first >= 65536:
                raise Misread("at most 65536 elements")
            return Item("tag", name, first, last - first + 1)
        if one := _LAST.match(name):
            return Item("tag", one[1], int(one[2]), 1)
        return Item("tag", name)

    def prefix(self, text: str) -> Item:
        found = re.fullmatch(rf"tag\s+({_PART}(?:\.{_PART})*\.?|)\*", text)
        if not found or not found[1]:
            raise Misread('the beginning of tags, such as "tag Pump.*"')
        return Item("tag", _ZEROS.sub("", found[1].lower()))

    def show(self, place: Span | Item) -> str:
        return show_range(place, place.start, place.stop)

    def misplaced(self, form: str, rest: str, kind: ValueType, elements: int) -> str:
        offset, _, bit = rest.partition(".")
        if (kind is ValueType.BOOL) != bool(bit):
            return "a bit such as io Drive.4.3 for a bool, and a byte such as io Drive.4 for a number"
        size = 1 if bit else _BYTES.get(kind, 0) * elements
        if not size:
            return "a number or a bool"
        outputs = re.match(r"outputs [0-9]+ of ([0-9]+) bytes", form)
        within = outputs is None or int(offset) + size <= int(outputs[1])
        return "" if within else f"a place within the stream's outputs, which have {outputs and outputs[1]} bytes"


ENIP = Dialect(
    name="enip",
    default_port=44818,
    notation=EnipNotation(),
    types={
        "bool": ValueType.BOOL, "sint": ValueType.INT8, "int": ValueType.INT16, "dint": ValueType.INT32,
        "lint": ValueType.INT64, "usint": ValueType.UINT8, "uint": ValueType.UINT16, "udint": ValueType.UINT32,
        "ulint": ValueType.UINT64, "real": ValueType.FLOAT32, "lreal": ValueType.FLOAT64, "byte": ValueType.UINT8,
        "word": ValueType.UINT16, "dword": ValueType.UINT32, "lword": ValueType.UINT64, "string": ValueType.TEXT,
        "structure": ValueType.BYTES,
    },
    kinds=(
        Kind("tag", "a tag", read=76, write=77, separators=".[", elements=True, prefix=True),
        Kind("cip", "an attribute", read=14, write=16),
        Kind("io", "an I/O connection", open=84, separators="."),
    ),
    codes={
        5: "reset", 6: "start", 7: "stop", 8: "create", 9: "delete", 21: "restore", 22: "save",
        75: "execute PCCC", 90: "get connection owner",
    },
    code_range=(1, 127),
    code_examples='"6/142" (service 6 of class 142)',
    changing=frozenset({(5, -1), (6, -1), (7, -1), (8, -1), (9, -1), (21, -1), (22, -1), (75, -1), (90, -1)}),
    others_change=True,
    alarming=frozenset({5, 6, 7, 8, 9, 21}),
    place_codes=frozenset({1, 2, 3, 4, 10, 14, 16, 76, 77, 78, 82, 83, 84, 85, 91}),
    quirks=frozenset({"no_list"}),
    forms=(
        r"outputs [0-9]{1,5} of ([0-9]{1,3}|1[0-3][0-9]{2}|1400) bytes, "
        r"inputs [0-9]{1,5} of ([0-9]{1,3}|1[0-3][0-9]{2}|1400) bytes(, config [0-9]{1,5})?(, no run)?"
    ),
    form_example='"outputs 150 of 4 bytes, inputs 100 of 8 bytes, config 151"',
    part_of=bit_of,
    unserved=unserved,
    learned_form=learned_form,
    tells=outputs_of,
    datagrams=2222,
    group_of=group_of,
    configuration=400,
    discovery=True,
    connected=True,
    route_example="backplane 0",
    routes=r"backplane ([0-9]|[1-9][0-9]|1[0-9][0-9]|2[0-4][0-9]|25[0-5])",
)  # fmt: skip
