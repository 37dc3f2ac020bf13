"""Between NodeIds with an index and nodes by their URI, and between values on the wire and values that cross.

`Namespaces` is one server's array of URIs: the asset's as it was read in this session, or the one that our side shows
to clients. A NodeId in a namespace that is not among the known URIs has no name, and so does not cross.
"""

from __future__ import annotations

import base64
import uuid
from collections.abc import Sequence
from typing import Any

from cofferdam import model
from cofferdam import values as typed
from cofferdam.protocols.opcua import messages as m
from cofferdam.protocols.opcua.builtin_types import (
    Data,
    Extension,
    LocalizedText,
    NodeId,
    QualifiedName,
    Variant,
)
from cofferdam.protocols.opcua.dialect import (
    ARROW,
    BUILTIN,
    DIMENSIONS,
    FORMS,
    OPCUA,
    canonical,
    field_path,
    field_text,
    split,
)

UA = "http://opcfoundation.org/UA/"
MEMO = 4096
SHORT = 4096
"""Characters of a name or a locale."""
BAD_NOT_READABLE, BAD_NODE, BAD_RANGE = 0x803A0000, 0x80340000, 0x80360000
FOREIGN = (m.Times, m.Guids, m.Statuses, m.Texts, m.Names, m.Nodes, m.Markups, m.Structures)
"""Values that policy has no types for, but where a point says their form (`formless`)."""


class Unnamed(Exception):
    """Something that has no name on the other side."""


class Namespaces:
    """The URIs of a server, in its order."""

    def __init__(self, uris: Sequence[str]) -> None:
        self.uris = tuple(uris)
        self._index = {uri: number for number, uri in reversed(list(enumerate(self.uris)))}
        self._names: dict[NodeId, str] = {}
        self._nodes: dict[str, NodeId] = {}

    def name(self, node: NodeId) -> str:
        """The one spelling of a node. Raises: Unnamed."""
        found = self._names.get(node)
        if found is None:
            found = self._name(node)
            if len(self._names) >= MEMO:
                self._names.clear()
            self._names[node] = found
        return found

    def _name(self, node: NodeId) -> str:
        if node.server:
            raise Unnamed("a node of another server")
        if node.uri:
            uri = "" if node.uri == UA else node.uri
        else:
            uri = self.uri(node.ns)
        ident = node.id
        if isinstance(ident, bytes):
            ident = str(uuid.UUID(bytes_le=ident)) if node.kind == "g" else base64.b64encode(ident).decode()
        name = canonical(uri, node.kind, str(ident))
        try:
            split(name)
        except ValueError as error:
            raise Unnamed(str(error)) from None
        return name

    def node(self, name: str) -> NodeId:
        """The NodeId of a name. Raises: Unnamed where the server has no such namespace."""
        found = self._nodes.get(name)
        if found is None:
            uri, letter, text = split(name)
            ns = self._index.get(uri) if uri else 0
            if ns is None:
                raise Unnamed(f"the server has no namespace {uri}")
            ident: int | str | bytes = text
            if letter == "i":
                ident = int(text)
            elif letter == "g":
                ident = uuid.UUID(text).bytes_le
            elif letter == "b":
                ident = base64.b64decode(text)
            found = NodeId(ns, ident, letter)
            if len(self._nodes) >= MEMO:
                self._nodes.clear()
            self._nodes[name] = found
        return found

    def uri(self, index: int) -> str:
        """Raises: Unnamed."""
        if index == 0:
            return ""
        uri = self.uris[index] if index < len(self.uris) else ""
        # One without a name, or with that of another, is none: it would pass for the other.
        if not uri or uri == UA or self._index[uri] != index:
            raise Unnamed(f"namespace {index}, which has no name of its own")
        return uri

    def index(self, uri: str) -> int:
        """Raises: Unnamed."""
        found = self._index.get(uri) if uri else 0
        if found is None:
            raise Unnamed(f"the namespace {uri}")
        return found

    # --- values

    def crossing(self, variant: Variant | None, *, matrix: bool = False) -> Any:
        """The value of a variant, as it crosses; None for null. `matrix`: the elements of one as well. Raises: Unnamed
        for what has no form there."""
        if variant is None or variant.type == 0:
            return None
        kind = variant.type
        values = variant.value if variant.array else [variant.value]
        if len(variant.dimensions) > (DIMENSIONS if matrix else 1):
            raise Unnamed("a matrix")
        made = _PLAIN.get(kind)
        if made is not None:
            if kind in (12, 15):
                values = (
                    ["" if one is None else one for one in values] if kind == 12 else [one or b"" for one in values]
                )
            value = made(tuple(values), variant.array)
            fault = typed.value_fault(value) if kind in (9, 10) else ""
            if fault:
                raise Unnamed(fault)
            return value
        if kind == 13:
            return m.Times(tuple(values), variant.array)
        if kind == 14:
            return m.Guids(tuple(values), variant.array)
        if kind == 16:
            try:
                return m.Markups(tuple([(one or b"").decode() for one in values]), variant.array)
            except UnicodeDecodeError:
                raise Unnamed("an XmlElement that is not UTF-8") from None
        if kind == 19:
            return m.Statuses(tuple(values), variant.array)
        if kind in (20, 21) and any(len((one.name if kind == 20 else one.locale) or "") > SHORT for one in values):
            raise Unnamed("a name that is too long")
        if kind == 21:
            return m.Texts(tuple([m.Localized(one.locale or "", one.text or "") for one in values]), variant.array)
        if kind == 20:
            return m.Names(tuple([(self.uri(one.ns), one.name or "") for one in values]), variant.array)
        if kind in (17, 18):
            return m.Nodes(tuple([self.name(one) for one in values]), variant.array)
        raise Unnamed(f"a value of builtin type {kind}")

    def variant(self, value: Any) -> Variant:
        """The other way. Raises: Unnamed."""
        if value is None:
            return Variant(0, None)
        kind = _KINDS.get(type(value))
        if kind is not None:
            values: list[Any] = list(value.values)
        else:
            kind = value.builtin
            if kind == 21:
                values = [LocalizedText(one.locale or None, one.text) for one in value.values]
            elif kind == 20:
                values = [QualifiedName(self.index(uri), name) for uri, name in value.values]
            elif kind == 17:
                values = [self.node(name) for name in value.values]
            elif kind == 16:
                values = [one.encode() for one in value.values]
            elif kind == 22:
                node = self.node(value.encoding)
                values = [Extension(node, body) for body in value.values]
            else:
                values = list(value.values)
        return Variant(kind, values, True) if value.array else Variant(kind, values[0])

    def formed(self, value: Any, form: str) -> Variant:
        """What policy has judged, in the form that the point has at the server: the other way of `formless`. Raises:
        Unnamed where it has none."""
        builtin, values = FORMS[form], value.values
        try:
            if not isinstance(value, typed.VALUES[OPCUA.types[form]]):
                raise ValueError(f"no {form}")
            made: list[Any] = list(values)
            if builtin == 14:
                made = [str(uuid.UUID(one)) for one in values]
                if tuple(made) != values:
                    raise ValueError("no GUID in small letters")
            elif builtin == 16:
                made = [one.encode() for one in values]
            elif builtin == 17:
                made = [self.node(one) for one in values]
            elif builtin == 20:
                paths = [field_path(one) for one in values]
                if any(len(path) != 1 for path in paths):
                    raise ValueError("no single name")
                made = [QualifiedName(self.index(uri), name) for [(uri, name)] in paths]
            elif builtin == 21:
                made = [LocalizedText(None, one) for one in values]
        except ValueError as error:
            raise Unnamed(str(error)) from None
        return Variant(builtin, made, True) if value.array else Variant(builtin, made[0])

    def structures(self, variant: Variant, name: str, most: int) -> m.Structures:
        """Structures of one encoding, of so many bytes at most each. Raises: Unnamed for any other value."""
        wanted = self.node(name)
        values = variant.value if variant.array else [variant.value]
        if variant.type != 22 or len(values) > 1000 or len(variant.dimensions) > 1:
            raise Unnamed("no structure, or too many")
        if any(one.type != wanted or one.body is None or len(one.body) > most for one in values):
            raise Unnamed("a structure of another encoding, or a longer one")
        return m.Structures(tuple([one.body for one in values]), name, variant.array)

    def sample(self, data: Data, structure: tuple[str, int] | None = None) -> m.Sample:
        """A DataValue, as it crosses: what has no form there is a value that cannot be read. `structure`: the encoding
        and the most bytes of what may cross as it is."""
        variant = data.value
        if variant is not None and not variant.array and structure is None:  # most are a single number
            made = _SURE.get(variant.type)
            if made is not None:
                return m.Sample(made((variant.value,)), data.status, data.source_time, data.server_time)
        try:
            if structure is not None and variant is not None and variant.type:
                value = self.structures(variant, *structure)
                return m.Sample(value, data.status, data.source_time, data.server_time)
            if variant is not None and len(variant.dimensions) > 1:
                value = self.crossing(variant, matrix=True)
                return m.Sample(value, data.status, data.source_time, data.server_time, variant.dimensions)
            return m.Sample(self.crossing(variant), data.status, data.source_time, data.server_time)
        except Unnamed:
            return m.Sample(None, BAD_NOT_READABLE, data.source_time, data.server_time)

    def data(self, sample: m.Sample, stamps: int = 2) -> Data:
        """The other way. `stamps` (TimestampsToReturn): 0 source, 1 server, 2 both, 3 none."""
        source = sample.source if stamps in (0, 2) else 0
        server = sample.server if stamps in (1, 2) else 0
        try:
            value = None if sample.value is None else self.variant(sample.value)
        except Unnamed:
            return Data(None, BAD_NOT_READABLE, source, server)
        if sample.dimensions and value is not None:
            value = Variant(value.type, value.value, True, sample.dimensions)
        return Data(value, sample.status, source, server)


def formless(value: Any, form: str) -> Any:
    """What a value is to policy where a point says its form; None for a value of another type."""
    if not isinstance(value, FOREIGN) or value.builtin != FORMS[form]:
        return None
    values: tuple[Any, ...] = value.values
    if isinstance(value, m.Texts):
        values = tuple([one.text for one in value.values])
    elif isinstance(value, m.Names):
        try:
            values = tuple([field_text([one]) for one in value.values])
        except ValueError:
            return None
    return typed.VALUES[OPCUA.types[form]](values, value.array)


def forms_of(asset: model.Asset | None) -> dict[str, str]:
    """The forms of points, by node."""
    points = () if asset is None else asset.points
    return {point.at.name: point.form for point in points if point.form and isinstance(point.at, model.Item)}


def dimensions_of(asset: model.Asset | None) -> dict[str, tuple[int, ...]]:
    """The dimensions of points that are matrices, by node."""
    points = () if asset is None else asset.points
    return {one.at.name: one.dimensions for one in points if one.dimensions and isinstance(one.at, model.Item)}


def argument_forms(asset: model.Asset | None, item: model.Item, count: int) -> list[str]:
    """The forms of so many arguments of a method."""
    said = () if asset is None else next((one.arguments for one in asset.methods if one.at == item), ())
    forms = [one.form for one in said[:count]]
    return forms + [""] * (count - len(forms))


def too_much(item: model.Item, sample: m.Sample) -> bool:
    """Whether a value has more elements than the range of its item."""
    return item.first >= 0 and sample.value is not None and len(sample.value.values) > item.count


def within(item: model.Item, sample: m.Sample) -> m.Sample:
    """A value of no more elements than were asked for: some servers pass over ranges, and send the whole."""
    value = sample.value
    if item.first < 0 or value is None or len(value.values) <= item.count:
        return sample
    return m.Sample(None, BAD_RANGE, sample.source, sample.server)


def item_of(names: Namespaces, node: NodeId, index_range: str | None, kind: str = "node") -> model.Item | int:
    """What a NodeId names, or some elements of it (OPC 10000-4, 7.27); or a status."""
    try:
        name = names.name(node)
    except Unnamed:
        return BAD_NODE
    if not index_range:
        return model.Item(kind, name)
    first, _, last = index_range.partition(":")
    if not (first.isascii() and first.isdigit() and len(first) < 10):
        return BAD_RANGE
    if not last:
        return model.Item(kind, name, int(first), 1) if ":" not in index_range else BAD_RANGE
    if not (last.isascii() and last.isdigit() and len(last) < 10) or int(last) <= int(first):
        return BAD_RANGE
    return model.Item(kind, name, int(first), int(last) - int(first) + 1)


def weight(sample: m.Sample) -> int:
    """About how many bytes a sample has in a record, and no fewer."""
    return value_weight(sample.value)


def value_weight(value: Any) -> int:
    """The same of a value."""
    if value is None:
        return 40
    if type(value) in _NUMBERS:
        return 40 + 9 * len(value.values)
    if isinstance(value, typed.Text):
        return 40 + sum([len(one.encode()) + 5 for one in value.values])
    if isinstance(value, (typed.Octets, m.Structures)):
        return 40 + sum([len(one) + 5 for one in value.values])
    if isinstance(value, m.Texts):
        return 40 + sum([len(one.locale.encode()) + len(one.text.encode()) + 12 for one in value.values])
    if isinstance(value, m.Names):
        return 40 + sum([len(uri.encode()) + len(name.encode()) + 12 for uri, name in value.values])
    if isinstance(value, (m.Nodes, m.Guids, m.Markups)):
        return 40 + sum([len(one.encode()) + 5 for one in value.values])
    return 40 + 9 * len(value.values)


def is_of(value: Any, kind: typed.ValueType, form: str = "") -> bool:
    """Whether a value that crosses is of a type that policy has, or of a form."""
    if form:
        return isinstance(value, FOREIGN) and value.builtin == FORMS[form]
    return value is not None and _KINDS.get(type(value)) == BUILTIN[kind]


def method(item: model.Item) -> tuple[str, str]:
    """(object, method) of a method's name."""
    owner, _, own = item.name.rpartition(ARROW)
    return owner, own


_PLAIN: dict[int, Any] = {
    1: typed.Bool, 2: typed.Int8, 3: typed.UInt8, 4: typed.Int16, 5: typed.UInt16, 6: typed.Int32, 7: typed.UInt32,
    8: typed.Int64, 9: typed.UInt64, 10: typed.Float32, 11: typed.Float64, 12: typed.Text, 15: typed.Octets,
}  # fmt: skip
_SURE = {kind: made for kind, made in _PLAIN.items() if kind < 12 and kind not in (9, 10)}
"""What is in its range as soon as it is decoded."""
_KINDS: dict[type, int] = {made: kind for kind, made in _PLAIN.items()}
_NUMBERS = frozenset({made for kind, made in _PLAIN.items() if kind < 12})
"""What has no length of its own."""
