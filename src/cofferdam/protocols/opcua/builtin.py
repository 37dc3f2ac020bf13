"""Builtin types on the wire (OPC 10000-6, 5.2.2), by hand: what limits and depth have to be counted in.

`Reader` goes through one whole body and raises `Malformed` for anything that is not there as it should be; every count
is held against what is left, every structure against a budget, nesting against DEPTH. Lengths below -1 are errors, text
is UTF-8 without NUL.

Not here: the types (builtin_types), services (services, which is generated), framing (channel).
"""

from __future__ import annotations

import struct
import uuid
from typing import Any

from cofferdam.protocols.opcua.builtin_types import (
    BAD_LIMITS,
    DEPTH,
    EMPTY,
    NULL,
    OBJECTS,
    TEXT_BYTES,
    Data,
    Encoded,
    Extension,
    LocalizedText,
    Malformed,
    NodeId,
    QualifiedName,
    Variant,
)

_I8, _U16, _I16 = struct.Struct("<b"), struct.Struct("<H"), struct.Struct("<h")
_U32, _I32, _U64, _I64 = struct.Struct("<I"), struct.Struct("<i"), struct.Struct("<Q"), struct.Struct("<q")
_F32, _F64 = struct.Struct("<f"), struct.Struct("<d")
_SIMPLE: dict[int, tuple[str, int]] = {
    2: ("b", 1), 3: ("B", 1), 4: ("h", 2), 5: ("H", 2), 6: ("i", 4), 7: ("I", 4), 8: ("q", 8), 9: ("Q", 8),
    10: ("f", 4), 11: ("d", 8), 13: ("q", 8), 19: ("I", 4),
}  # fmt: skip
_ONE = {kind: struct.Struct("<" + letter) for kind, (letter, _) in _SIMPLE.items()}


_BYTES = [bytes((number,)) for number in range(256)]


class Reader:
    """One body, from its beginning to its end."""

    __slots__ = ("budget", "data", "depth", "end", "pos")

    def __init__(self, data: bytes, pos: int = 0, objects: int = OBJECTS) -> None:
        self.data = data
        self.pos = pos
        self.end = len(data)
        self.budget = objects
        self.depth = 0

    def done(self) -> None:
        """Raises: Malformed where something is left over."""
        if self.pos != self.end:
            raise Malformed(f"{self.end - self.pos} bytes are left over")

    def take(self, count: int) -> bytes:
        """So many bytes."""
        pos = self.pos
        stop = pos + count
        if stop > self.end:
            raise Malformed("the message ends within a field")
        self.pos = stop
        return self.data[pos:stop]

    def spend(self, count: int = 1) -> None:
        """Counts structures."""
        self.budget -= count
        if self.budget < 0:
            raise Malformed(f"more than {OBJECTS} structures in one message", BAD_LIMITS)

    def _nest(self) -> None:
        self.depth += 1
        if self.depth > DEPTH:
            raise Malformed(f"structures are nested more than {DEPTH} deep")

    def unpack(self, form: struct.Struct) -> tuple[Any, ...]:
        """Several fields of a fixed size."""
        pos = self.pos
        stop = pos + form.size
        if stop > self.end:
            raise Malformed("the message ends within a field")
        self.pos = stop
        return form.unpack_from(self.data, pos)

    # Each of these is `take` written out: they are most of what is done for a message.

    def boolean(self) -> bool:
        return self.byte() != 0

    def byte(self) -> int:
        pos = self.pos
        if pos >= self.end:
            raise Malformed("the message ends within a field")
        self.pos = pos + 1
        return self.data[pos]

    def u16(self) -> int:
        return int.from_bytes(self.take(2), "little")

    def u32(self) -> int:
        pos = self.pos
        stop = pos + 4
        if stop > self.end:
            raise Malformed("the message ends within a field")
        self.pos = stop
        return int.from_bytes(self.data[pos:stop], "little")

    def i32(self) -> int:
        pos = self.pos
        stop = pos + 4
        if stop > self.end:
            raise Malformed("the message ends within a field")
        self.pos = stop
        return int.from_bytes(self.data[pos:stop], "little", signed=True)

    def i64(self) -> int:
        return int.from_bytes(self.take(8), "little", signed=True)

    def f64(self) -> float:
        found: float = _F64.unpack(self.take(8))[0]
        return found

    def octets(self) -> bytes | None:
        """A ByteString."""
        length = self.i32()
        if length < 0:
            if length != -1:
                raise Malformed(f"a length of {length}")
            return None
        if length > TEXT_BYTES:
            raise Malformed(f"a string of {length} bytes; at most {TEXT_BYTES} are taken", BAD_LIMITS)
        return self.take(length)

    def string(self) -> str | None:
        found = self.octets()
        if found is None:
            return None
        try:
            text = found.decode()
        except UnicodeDecodeError:
            raise Malformed("a string that is not UTF-8") from None
        if "\0" in text:
            raise Malformed("a string with a NUL")
        return text

    def count(self, least: int = 1) -> int:
        """The length of an array whose elements have at least so many bytes; a null array is an empty one."""
        length = self.i32()
        if length < 0:
            if length != -1:
                raise Malformed(f"an array of {length} elements")
            return 0
        if length * least > self.end - self.pos:
            raise Malformed(f"an array of {length} elements, which the message is too short for")
        self.spend(length)
        return length

    def guid(self) -> str:
        return str(uuid.UUID(bytes_le=self.take(16)))

    def node(self, expanded: bool = False) -> NodeId:
        self.spend()
        form = self.byte()
        if form & 0xC0 and not expanded:
            raise Malformed("a NodeId with the flags of an ExpandedNodeId")
        kind = form & 0x3F
        if kind == 0:
            found = NodeId(0, self.byte())
        elif kind == 1:
            found = NodeId(self.byte(), self.u16())
        elif kind == 2:
            found = NodeId(self.u16(), self.u32())
        elif kind == 3:
            ns = self.u16()
            found = NodeId(ns, self.string() or "", "s")
        elif kind == 4:
            ns = self.u16()
            found = NodeId(ns, self.take(16), "g")
        elif kind == 5:
            ns = self.u16()
            found = NodeId(ns, self.octets() or b"", "b")
        else:
            raise Malformed(f"a NodeId of form {kind}")
        if kind in (3, 5) and len(found.id) > 4096:  # type: ignore[arg-type]
            raise Malformed("an identifier of more than 4,096 characters", BAD_LIMITS)
        if form & 0xC0:
            uri = self.string() or "" if form & 0x80 else ""
            server = self.u32() if form & 0x40 else 0
            found = NodeId(found.ns, found.id, found.kind, uri, server)
        return found

    def expanded(self) -> NodeId:
        return self.node(True)

    def qualified(self) -> QualifiedName:
        self.spend()
        ns = self.u16()
        return QualifiedName(ns, self.string())

    def localized(self) -> LocalizedText:
        self.spend()
        mask = self.byte()
        if mask & ~3:
            raise Malformed(f"a LocalizedText with the mask {mask}")
        locale = self.string() if mask & 1 else None
        return LocalizedText(locale, self.string() if mask & 2 else None)

    def extension(self) -> Extension:
        if self.data.startswith(b"\0\0\0", self.pos):  # most are empty
            self.pos += 3
            self.spend(2)
            return EMPTY
        self.spend()
        kind = self.node()
        form = self.byte()
        if form == 0:
            return Extension(kind, None)
        if form not in (1, 2):
            raise Malformed(f"an ExtensionObject of form {form}")
        length = self.i32()
        if length < 0:
            return Extension(kind, b"" if length == -1 and form == 1 else None)
        return Extension(kind, self.take(length))

    def diagnostic(self) -> int:
        """A DiagnosticInfo, which is read and left out: its mask."""
        self.spend()
        self._nest()
        mask = self.byte()
        if mask & 0x80:
            raise Malformed(f"a DiagnosticInfo with the mask {mask}")
        for bit in (1, 2, 8, 4):
            if mask & bit:
                self.i32()
        if mask & 16:
            self.string()
        if mask & 32:
            self.u32()
        if mask & 64:
            self.diagnostic()
        self.depth -= 1
        return mask

    def variant(self) -> Variant:
        self.spend()
        mask = self.byte()
        kind = mask & 0x3F
        if kind > 25:
            raise Malformed(f"a Variant of type {kind}")
        if not mask & 0x80:
            if mask & 0x40:
                raise Malformed("dimensions of a Variant that is no array")
            if kind == 0:
                return NULL
            if kind == 24:
                raise Malformed("a Variant that is a Variant")
            self._nest()
            found = self._one(kind)
            self.depth -= 1
            return Variant(kind, found)
        if kind == 0:
            raise Malformed("an array of nothing")
        self._nest()
        length = self.i32()
        if length < -1:
            raise Malformed(f"an array of {length} elements")
        values: list[Any] = []
        if length > 0:
            simple = _SIMPLE.get(kind)
            self.spend(length)
            if simple is not None:
                values = list(struct.unpack(f"<{length}{simple[0]}", self.take(length * simple[1])))
            elif kind == 1:
                values = [one != 0 for one in self.take(length)]
            else:
                if length > self.end - self.pos:
                    raise Malformed(f"an array of {length} elements, which the message is too short for")
                values = [self._one(kind) for _ in range(length)]
        self.depth -= 1
        dimensions: tuple[int, ...] = ()
        if mask & 0x40:
            dimensions = tuple([self.i32() for _ in range(self.count(4))])
            product = 1
            for size in dimensions:
                product *= max(size, 0)
            if any(size < 0 for size in dimensions) or (dimensions and product != len(values)):
                raise Malformed(f"dimensions {dimensions} of an array of {len(values)} elements")
        return Variant(kind, values, True, dimensions)

    def _one(self, kind: int) -> Any:
        one = _ONE.get(kind)
        if one is not None:
            return one.unpack(self.take(one.size))[0]
        if kind == 1:
            return self.boolean()
        if kind == 12:
            return self.string()
        if kind in (15, 16):
            return self.octets()
        if kind == 14:
            return self.guid()
        if kind == 17:
            return self.node()
        if kind == 18:
            return self.node(True)
        if kind == 20:
            return self.qualified()
        if kind == 21:
            return self.localized()
        if kind == 22:
            return self.extension()
        if kind == 23:
            return self.value()
        if kind == 24:
            self._nest()
            found = self.variant()
            self.depth -= 1
            return found
        self.diagnostic()
        return None

    def value(self) -> Data:
        """A DataValue."""
        self.spend()
        mask = self.byte()
        if mask & 0xC0:
            raise Malformed(f"a DataValue with the mask {mask}")
        self._nest()
        variant = self.variant() if mask & 1 else None
        self.depth -= 1
        status = self.u32() if mask & 2 else 0
        source = self.i64() if mask & 4 else 0
        if mask & 16:
            self.u16()
        server = self.i64() if mask & 8 else 0
        if mask & 32:
            self.u16()
        return Data(variant, status, source, server)


class Writer:
    """Builds one body."""

    __slots__ = ("parts",)

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def made(self) -> bytes:
        """All of it."""
        return b"".join(self.parts)

    def raw(self, data: bytes) -> None:
        self.parts.append(data)

    def boolean(self, value: bool) -> None:
        self.parts.append(b"\1" if value else b"\0")

    def byte(self, value: int) -> None:
        self.parts.append(_BYTES[value])

    def u16(self, value: int) -> None:
        self.parts.append(value.to_bytes(2, "little"))

    def u32(self, value: int) -> None:
        self.parts.append(value.to_bytes(4, "little"))

    def i32(self, value: int) -> None:
        self.parts.append(value.to_bytes(4, "little", signed=True))

    def i64(self, value: int) -> None:
        self.parts.append(value.to_bytes(8, "little", signed=True))

    def f64(self, value: float) -> None:
        self.parts.append(_F64.pack(value))

    def octets(self, value: bytes | None) -> None:
        if value is None:
            self.parts.append(b"\xff\xff\xff\xff")
        else:
            self.parts.append(len(value).to_bytes(4, "little"))
            self.parts.append(value)

    def string(self, value: str | None) -> None:
        self.octets(None if value is None else value.encode())

    def count(self, value: int) -> None:
        self.i32(value)

    def guid(self, value: str) -> None:
        self.parts.append(uuid.UUID(value).bytes_le)

    def node(self, value: NodeId) -> None:
        kind, ident, ns = value.kind, value.id, value.ns
        if kind == "i" and isinstance(ident, int):
            if ns == 0 and ident < 256:
                self.parts.append(bytes((0, ident)))
            elif ns < 256 and ident < 65536:
                self.parts.append(bytes((1, ns, ident & 255, ident >> 8)))
            else:
                self.parts.append(b"\2" + ns.to_bytes(2, "little") + ident.to_bytes(4, "little"))
        elif kind == "s" and isinstance(ident, str):
            self.parts.append(b"\3" + ns.to_bytes(2, "little"))
            self.string(ident)
        elif isinstance(ident, bytes):
            self.parts.append((b"\4" if kind == "g" else b"\5") + ns.to_bytes(2, "little"))
            if kind == "g":
                self.raw(ident)
            else:
                self.octets(ident)

    def expanded(self, value: NodeId) -> None:
        self.node(value)  # ours have neither a URI nor a server

    def qualified(self, value: QualifiedName) -> None:
        self.u16(value.ns)
        self.string(value.name)

    def localized(self, value: LocalizedText) -> None:
        self.byte((value.locale is not None) | (value.text is not None) << 1)
        if value.locale is not None:
            self.string(value.locale)
        if value.text is not None:
            self.string(value.text)

    def extension(self, value: Extension) -> None:
        if value is EMPTY:
            self.parts.append(b"\0\0\0")
            return
        self.node(value.type)
        if value.body is None:
            self.byte(0)
        else:
            self.byte(1)
            self.octets(value.body)

    def diagnostic(self, value: int) -> None:
        """An empty one: none of ours says more."""
        self.byte(0)

    def variant(self, value: Variant) -> None:
        kind = value.type
        if not value.array:
            self.byte(kind)
            if kind:
                self._one(kind, value.value)
            return
        self.byte(kind | 0x80 | (0x40 if value.dimensions else 0))
        self.i32(len(value.value))
        simple = _SIMPLE.get(kind)
        if simple is not None:
            self.raw(struct.pack(f"<{len(value.value)}{simple[0]}", *value.value))
        else:
            for one in value.value:
                self._one(kind, one)
        if value.dimensions:
            self.i32(len(value.dimensions))
            for size in value.dimensions:
                self.i32(size)

    def _one(self, kind: int, value: Any) -> None:
        one = _ONE.get(kind)
        if one is not None:
            self.parts.append(one.pack(value))
        elif kind == 1:
            self.boolean(value)
        elif kind == 12:
            self.string(value)
        elif kind in (15, 16):
            self.octets(value)
        elif kind == 14:
            self.guid(value)
        elif kind in (17, 18):
            self.node(value)
        elif kind == 20:
            self.qualified(value)
        elif kind == 21:
            self.localized(value)
        elif kind == 22:
            self.extension(value)
        elif kind == 23:
            self.value(value)
        elif kind == 24:
            self.variant(value)
        else:
            self.byte(0)

    def value(self, value: Data) -> None:
        """A DataValue."""
        if type(value) is Encoded:
            self.parts.append(value.wire)
            return
        variant = value.value
        self.byte(
            (variant is not None)
            | (value.status != 0) << 1
            | (value.source_time != 0) << 2
            | (value.server_time != 0) << 3
        )
        if variant is not None:
            self.variant(variant)
        if value.status:
            self.u32(value.status)
        if value.source_time:
            self.i64(value.source_time)
        if value.server_time:
            self.i64(value.server_time)
