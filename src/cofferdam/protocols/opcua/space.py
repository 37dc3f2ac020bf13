"""What a client sees: the nodes that it may do anything with, the objects on the way to them, and the standard's own
nodes of a server. Made of a description (messages.Described) in the namespaces that our side shows. Browse,
TranslateBrowsePaths and all attributes but Value are answered from it.

Not here: values (the asset's), what may be done (policy; the two bits of it that are shown come by `rights`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cofferdam.model import Argument, Method
from cofferdam.protocols.opcua import messages as m
from cofferdam.protocols.opcua import services as s
from cofferdam.protocols.opcua import wire
from cofferdam.protocols.opcua.builtin_types import (
    Data,
    Extension,
    LocalizedText,
    NodeId,
    QualifiedName,
    Variant,
)
from cofferdam.protocols.opcua.dialect import ARROW, BUILTIN, FORMS
from cofferdam.protocols.opcua.names import Namespaces, Unnamed

HAS_SUBTYPE = NodeId(0, 45)
ORGANIZES, HAS_COMPONENT, HAS_PROPERTY, HAS_TYPE = NodeId(0, 35), NodeId(0, 47), NodeId(0, 46), NodeId(0, 40)
REFERENCES, HIERARCHICAL = 31, 33
_SUPER = {
    33: 31, 32: 31, 34: 33, 35: 33, 36: 33, 44: 34, 46: 44, 47: 44, 45: 34, 49: 47, 40: 32, 37: 32, 38: 32, 39: 32,
    41: 32, 48: 36, 51: 32, 14476: 33,
}  # fmt: skip
"""Reference types of the standard and what each is a kind of (OPC 10000-5, 11)."""
BAD_ATTRIBUTE, BAD_NODE = 0x80350000, 0x80340000
BAD_NO_MATCH, BAD_BROWSE_NAME = 0x806F0000, 0x80600000
PATH = 20
"""Elements of one browse path."""


class Entry:
    """One node."""

    __slots__ = ("children", "facts", "id", "name", "parents", "type")

    def __init__(self, node: NodeId, name: QualifiedName, type: NodeId | None, facts: m.Node) -> None:
        self.id = node
        self.name = name
        self.type = type
        self.facts = facts
        self.children: list[tuple[NodeId, Entry]] = []
        self.parents: list[tuple[NodeId, Entry]] = []


def _own(number: int, name: str, klass: int, type: int, data_type: int = 0, rank: int = -1) -> Entry:
    facts = m.Node(
        f"i={number}", klass, ("", name), m.Localized("", name), f"i={type}" if type else "",
        f"i={data_type}" if data_type else "", rank, 1,
    )  # fmt: skip
    return Entry(NodeId(0, number), QualifiedName(0, name), NodeId(0, type) if type else None, facts)


_TREE = (
    # number, name, class, type, data type, rank, parent, reference
    (84, "Root", 1, 61, 0, -1, 0, 0),
    (85, "Objects", 1, 61, 0, -1, 84, 35),
    (86, "Types", 1, 61, 0, -1, 84, 35),
    (87, "Views", 1, 61, 0, -1, 84, 35),
    (2253, "Server", 1, 2004, 0, -1, 85, 35),
    (2254, "ServerArray", 2, 68, 12, 1, 2253, 46),
    (2255, "NamespaceArray", 2, 68, 12, 1, 2253, 46),
    (2267, "ServiceLevel", 2, 68, 3, -1, 2253, 46),
    (2256, "ServerStatus", 2, 2138, 862, -1, 2253, 47),
    (2257, "StartTime", 2, 63, 294, -1, 2256, 47),
    (2258, "CurrentTime", 2, 63, 294, -1, 2256, 47),
    (2259, "State", 2, 63, 852, -1, 2256, 47),
    (2268, "ServerCapabilities", 1, 2013, 0, -1, 2253, 47),
    (11704, "OperationLimits", 1, 11564, 0, -1, 2268, 47),
    (11705, "MaxNodesPerRead", 2, 68, 7, -1, 11704, 46),
    (11707, "MaxNodesPerWrite", 2, 68, 7, -1, 11704, 46),
    (11709, "MaxNodesPerMethodCall", 2, 68, 7, -1, 11704, 46),
    (11710, "MaxNodesPerBrowse", 2, 68, 7, -1, 11704, 46),
    (11712, "MaxNodesPerTranslateBrowsePathsToNodeIds", 2, 68, 7, -1, 11704, 46),
    (11714, "MaxMonitoredItemsPerCall", 2, 68, 7, -1, 11704, 46),
    (58, "BaseObjectType", 8, 0, 0, -1, 86, 35),
    (61, "FolderType", 8, 0, 0, -1, 86, 35),
    (2004, "ServerType", 8, 0, 0, -1, 86, 35),
    (63, "BaseDataVariableType", 16, 0, 24, -2, 86, 35),
    (68, "PropertyType", 16, 0, 24, -2, 86, 35),
    (1, "Boolean", 64, 0, 0, -1, 86, 35), (2, "SByte", 64, 0, 0, -1, 86, 35), (3, "Byte", 64, 0, 0, -1, 86, 35),
    (4, "Int16", 64, 0, 0, -1, 86, 35), (5, "UInt16", 64, 0, 0, -1, 86, 35), (6, "Int32", 64, 0, 0, -1, 86, 35),
    (7, "UInt32", 64, 0, 0, -1, 86, 35), (8, "Int64", 64, 0, 0, -1, 86, 35), (9, "UInt64", 64, 0, 0, -1, 86, 35),
    (10, "Float", 64, 0, 0, -1, 86, 35), (11, "Double", 64, 0, 0, -1, 86, 35), (12, "String", 64, 0, 0, -1, 86, 35),
    (13, "DateTime", 64, 0, 0, -1, 86, 35), (14, "Guid", 64, 0, 0, -1, 86, 35),
    (15, "ByteString", 64, 0, 0, -1, 86, 35), (24, "BaseDataType", 64, 0, 0, -1, 86, 35),
)  # fmt: skip
"""The standard's own nodes that are shown (OPC 10000-5)."""
OPERATION_LIMITS = {11705: 1000, 11707: 100, 11709: 1, 11710: 100, 11712: 100, 11714: 1000}

_EVENTS = (
    # As above: the types of events and of conditions that clients ask for, and their fields (OPC 10000-5, 6.4; -9, 5).
    (3048, "EventTypes", 1, 61, 0, -1, 86, 35), (2041, "BaseEventType", 8, 0, 0, -1, 3048, 35),
    (2042, "EventId", 2, 68, 15, -1, 2041, 46), (2043, "EventType", 2, 68, 17, -1, 2041, 46),
    (2044, "SourceNode", 2, 68, 17, -1, 2041, 46), (2045, "SourceName", 2, 68, 12, -1, 2041, 46),
    (2046, "Time", 2, 68, 294, -1, 2041, 46), (2047, "ReceiveTime", 2, 68, 294, -1, 2041, 46),
    (2050, "Message", 2, 68, 21, -1, 2041, 46), (2051, "Severity", 2, 68, 5, -1, 2041, 46),
    (2130, "SystemEventType", 8, 0, 0, -1, 2041, 45), (2131, "DeviceFailureEventType", 8, 0, 0, -1, 2130, 45),
    (2787, "RefreshStartEventType", 8, 0, 0, -1, 2130, 45), (2788, "RefreshEndEventType", 8, 0, 0, -1, 2130, 45),
    (2789, "RefreshRequiredEventType", 8, 0, 0, -1, 2130, 45),
    (3035, "EventQueueOverflowEventType", 8, 0, 0, -1, 2041, 45),
    (2782, "ConditionType", 8, 0, 0, -1, 2041, 45), (11112, "ConditionClassId", 2, 68, 17, -1, 2782, 46),
    (11113, "ConditionClassName", 2, 68, 21, -1, 2782, 46), (9009, "ConditionName", 2, 68, 12, -1, 2782, 46),
    (9010, "BranchId", 2, 68, 17, -1, 2782, 46), (3874, "Retain", 2, 68, 1, -1, 2782, 46),
    (9011, "EnabledState", 2, 8995, 21, -1, 2782, 47), (9012, "Id", 2, 68, 1, -1, 9011, 46),
    (9020, "Quality", 2, 9002, 19, -1, 2782, 47), (9022, "LastSeverity", 2, 9002, 5, -1, 2782, 47),
    (9024, "Comment", 2, 9002, 21, -1, 2782, 47), (9026, "ClientUserId", 2, 68, 12, -1, 2782, 46),
    (2881, "AcknowledgeableConditionType", 8, 0, 0, -1, 2782, 45), (9093, "AckedState", 2, 8995, 21, -1, 2881, 47),
    (9094, "Id", 2, 68, 1, -1, 9093, 46), (9098, "TransitionTime", 2, 68, 294, -1, 9093, 46),
    (9102, "ConfirmedState", 2, 8995, 21, -1, 2881, 47), (9103, "Id", 2, 68, 1, -1, 9102, 46),
    (2915, "AlarmConditionType", 8, 0, 0, -1, 2881, 45), (9160, "ActiveState", 2, 8995, 21, -1, 2915, 47),
    (9161, "Id", 2, 68, 1, -1, 9160, 46), (9164, "EffectiveDisplayName", 2, 68, 21, -1, 9160, 46),
    (9165, "TransitionTime", 2, 68, 294, -1, 9160, 46), (11120, "InputNode", 2, 68, 17, -1, 2915, 46),
    (9169, "SuppressedState", 2, 8995, 21, -1, 2915, 47), (9170, "Id", 2, 68, 1, -1, 9169, 46),
    (16371, "OutOfServiceState", 2, 8995, 21, -1, 2915, 47), (16372, "Id", 2, 68, 1, -1, 16371, 46),
    (9215, "SuppressedOrShelved", 2, 68, 1, -1, 2915, 46),
    (2955, "LimitAlarmType", 8, 0, 0, -1, 2915, 45), (11124, "HighHighLimit", 2, 68, 11, -1, 2955, 46),
    (11125, "HighLimit", 2, 68, 11, -1, 2955, 46), (11126, "LowLimit", 2, 68, 11, -1, 2955, 46),
    (11127, "LowLowLimit", 2, 68, 11, -1, 2955, 46), (9341, "ExclusiveLimitAlarmType", 8, 0, 0, -1, 2955, 45),
    (9482, "ExclusiveLevelAlarmType", 8, 0, 0, -1, 9341, 45),
    (9906, "NonExclusiveLimitAlarmType", 8, 0, 0, -1, 2955, 45),
    (10020, "HighHighState", 2, 8995, 21, -1, 9906, 47), (10021, "Id", 2, 68, 1, -1, 10020, 46),
    (10029, "HighState", 2, 8995, 21, -1, 9906, 47), (10030, "Id", 2, 68, 1, -1, 10029, 46),
    (10038, "LowState", 2, 8995, 21, -1, 9906, 47), (10039, "Id", 2, 68, 1, -1, 10038, 46),
    (10047, "LowLowState", 2, 8995, 21, -1, 9906, 47), (10048, "Id", 2, 68, 1, -1, 10047, 46),
    (10060, "NonExclusiveLevelAlarmType", 8, 0, 0, -1, 9906, 45),
    (10523, "DiscreteAlarmType", 8, 0, 0, -1, 2915, 45), (10637, "OffNormalAlarmType", 8, 0, 0, -1, 10523, 45),
)  # fmt: skip
SERVER = NodeId(0, 2253)

ARGUMENTS = "cofferdam:"
"""How the names of nodes begin that say what a method takes and gives back: in our own namespace, and made of the
policy."""


def is_arguments(node: NodeId) -> bool:
    """Whether it is one of them."""
    return node.ns == 1 and isinstance(node.id, str) and node.id.startswith(ARGUMENTS)


Rights = Callable[[str, int], tuple[int, bool]]
"""Of a node's name and class: the bits of UserAccessLevel, for an object those of its EventNotifier, and whether it may
be called."""


class Space:
    """The nodes. `shown`: the namespaces of our side; `methods`: what the policy says of those."""

    def __init__(
        self, shown: Namespaces, described: tuple[m.Node, ...], rights: Rights, methods: tuple[Method, ...] = ()
    ) -> None:
        self._shown = shown
        self._rights = rights
        self.nodes: dict[NodeId, Entry] = {}
        for number, title, klass, kind, data_type, rank, above_it, by in _TREE:
            own = _own(number, title, klass, kind, data_type, rank)
            self.nodes[own.id] = own
            if above_it:
                _join(self.nodes[NodeId(0, above_it)], NodeId(0, by), own)
        self.nodes.update(EVENT_TYPES)
        self.nodes[NodeId(0, 86)].children.append((ORGANIZES, EVENT_TYPES[NodeId(0, 3048)]))
        places: list[Entry | None] = []
        for facts in described:
            places.append(self._add(facts))
        objects = self.nodes[NodeId(0, 85)]
        for entry, facts in zip(places, described, strict=True):
            if entry is None:
                continue
            for place, reference in facts.parents:
                above = objects if place < 0 else places[place] if place < len(places) else None
                if above is not None and above is not entry:
                    _join(above, self._reference(reference), entry)
            if not entry.parents:  # nothing that may be shown leads to it
                _join(objects, ORGANIZES, entry)
        self._arguments: dict[NodeId, Variant] = {}
        for method in methods:
            self._add_arguments(method)

    def _add_arguments(self, method: Method) -> None:
        """The properties by which clients learn what a method takes, and gives back as far as policy says it (OPC
        10000-3, 5.7)."""
        own = method.at.name.rpartition(ARROW)[2]
        try:
            above = self.nodes.get(self._shown.node(own))
        except Unnamed:
            return
        if above is None or above.facts.klass != 4:
            return
        for title, some in (("InputArguments", method.arguments), ("OutputArguments", method.returns)):
            node = NodeId(1, f"{ARGUMENTS}{title}:{method.name}", "s")
            if not some or node in self._arguments:
                continue
            facts = m.Node(own, 2, ("", title), m.Localized("", title), "i=68", "i=296", 1, 1)
            entry = self.nodes[node] = Entry(node, QualifiedName(0, title), NodeId(0, 68), facts)
            _join(above, HAS_PROPERTY, entry)
            self._arguments[node] = Variant(22, [_argument(one) for one in some], True)

    def _add(self, facts: m.Node) -> Entry | None:
        try:
            node = self._shown.node(facts.id)
            name = QualifiedName(self._shown.index(facts.name[0]), facts.name[1])
        except Unnamed:
            try:
                node, name = self._shown.node(facts.id), QualifiedName(node_ns(self._shown, facts.id), facts.name[1])
            except Unnamed:
                return None
        if node.ns == 0:
            return None
        type: NodeId | None = NodeId(0, {1: 58, 2: 63}.get(facts.klass, 0))
        if facts.type.startswith("i="):
            type = NodeId(0, int(facts.type[2:]))
        if facts.klass == 4:
            type = None
        entry = self.nodes[node] = Entry(node, name, type, facts)
        return entry

    def _reference(self, name: str) -> NodeId:
        if name.startswith("i=") and int(name[2:]) in _SUPER:
            return NodeId(0, int(name[2:]))
        return ORGANIZES

    # --- browsing

    def browse(self, asked: s.BrowseDescription) -> tuple[int, list[s.ReferenceDescription]]:
        """(status, references) of one node."""
        entry = self.nodes.get(asked.node)
        if entry is None:
            return BAD_NODE, []
        if asked.direction > 2:
            return 0x804D0000, []
        found: list[s.ReferenceDescription] = []
        for forward, there in ((True, entry.children), (False, entry.parents)):
            if asked.direction == (1 if forward else 0):
                continue
            for reference, other in there:
                if self._wanted(reference, asked.reference, asked.subtypes) and (
                    not asked.classes or asked.classes & other.facts.klass
                ):
                    found.append(_reference(reference, forward, other, asked.mask))
        if asked.direction != 1 and entry.type is not None and self._wanted(HAS_TYPE, asked.reference, asked.subtypes):
            kind = self.nodes.get(entry.type)
            if kind is not None and (not asked.classes or asked.classes & kind.facts.klass):
                found.append(_reference(HAS_TYPE, True, kind, asked.mask))
        return 0, found

    def _wanted(self, reference: NodeId, asked: NodeId, subtypes: bool) -> bool:
        if asked == NodeId(0, 0) or reference == asked:
            return True
        if not subtypes or asked.ns:
            return False
        kind: Any = reference.id
        while kind in _SUPER:
            kind = _SUPER[kind]
            if kind == asked.id:
                return True
        return False

    def translate(self, path: s.BrowsePath) -> s.PathResult:
        """Where a browse path leads."""
        entry = self.nodes.get(path.start)
        if entry is None:
            return s.PathResult(BAD_NODE, [])
        if not path.elements:
            return s.PathResult(0x800F0000, [])
        here = [entry]
        for element in path.elements:
            if element.name.name is None:
                return s.PathResult(BAD_BROWSE_NAME, [])
            here = [
                other
                for one in here
                for reference, other in (one.parents if element.inverse else one.children)
                if other.name == element.name and self._wanted(reference, element.reference, element.subtypes)
            ][:1000]
        if not here:
            return s.PathResult(BAD_NO_MATCH, [])
        return s.PathResult(0, [s.PathTarget(one.id, 0xFFFFFFFF) for one in here])

    # --- attributes

    def attribute(self, node: NodeId, attribute: int) -> Data:
        """All but Value (13), which only the nodes have that say what a method takes."""
        entry = self.nodes.get(node)
        if entry is None:
            return Data(None, BAD_NODE)
        facts = entry.facts
        klass = facts.klass
        arguments = self._arguments.get(node)
        level, callable_ = (1, False) if node.ns == 0 or arguments is not None else self._rights(facts.id, klass)
        variant: Variant | None = None
        if attribute == 13 and arguments is not None:
            return Data(arguments)
        if attribute == 1:
            variant = Variant(17, entry.id)
        elif attribute == 2:
            variant = Variant(6, klass)
        elif attribute == 3:
            variant = Variant(20, entry.name)
        elif attribute in (4, 5):
            text = facts.display.text if attribute == 4 else ""
            variant = Variant(21, LocalizedText(facts.display.locale or None, text))
        elif attribute in (6, 7):
            variant = Variant(7, 0)
        elif attribute == 8 and klass in (8, 16, 64):
            variant = Variant(1, False)
        elif attribute == 12 and klass == 1:
            if entry.id == SERVER:
                level, _ = self._rights(facts.id, klass)
            elif node.ns == 0:
                level = 0
            variant = Variant(3, level & 1)
        elif klass in (2, 16) and attribute == 14:
            variant = Variant(17, self._data_type(facts))
        elif klass in (2, 16) and attribute == 15:
            variant = Variant(6, facts.rank)
        elif klass in (2, 16) and attribute == 16:
            variant = Variant(7, [0] * max(facts.rank, 0), True) if facts.rank > 0 else Variant(0, None)
        elif klass == 2 and attribute == 17:
            variant = Variant(3, facts.access | level)
        elif klass == 2 and attribute == 18:
            variant = Variant(3, level)
        elif klass == 2 and attribute == 19:
            variant = Variant(11, 0.0)
        elif klass == 2 and attribute == 20:
            variant = Variant(1, facts.historizing and bool(level & 4))
        elif klass == 4 and attribute in (21, 22):
            variant = Variant(1, callable_)
        return Data(None, BAD_ATTRIBUTE) if variant is None else Data(variant)

    def _data_type(self, facts: m.Node) -> NodeId:
        try:
            return self._shown.node(facts.data_type) if facts.data_type else NodeId(0, 24)
        except (Unnamed, ValueError):
            return NodeId(0, 24)


def _argument(one: Argument) -> Extension:
    several = one.elements > 1
    kind, unit = NodeId(0, FORMS.get(one.form) or BUILTIN[one.type]), LocalizedText(None, one.unit or None)
    return wire.pack(s.Argument(one.name, kind, 1 if several else -1, [one.elements] if several else [], unit))


def _event_types() -> dict[NodeId, Entry]:
    """The types of events, joined among themselves; the same in every space, and never changed."""
    types = _own(86, "Types", 1, 61)
    found: dict[NodeId, Entry] = {}
    for number, title, klass, kind, data_type, rank, above_it, by in _EVENTS:
        own = found[NodeId(0, number)] = _own(number, title, klass, kind, data_type, rank)
        _join(types if above_it == 86 else found[NodeId(0, above_it)], NodeId(0, by), own)
    return found


def node_ns(shown: Namespaces, name: str) -> int:
    """The index of a node's own namespace, for a browse name in one that is not shown."""
    return shown.node(name).ns


def _join(above: Entry, reference: NodeId, below: Entry) -> None:
    if (reference, below) not in above.children:
        above.children.append((reference, below))
        below.parents.append((reference, above))


def _reference(reference: NodeId, forward: bool, other: Entry, mask: int) -> s.ReferenceDescription:
    """`mask` (BrowseResultMask): which fields are wanted."""
    return s.ReferenceDescription(
        reference if mask & 1 else NodeId(0, 0),
        forward if mask & 2 else False,
        other.id,
        other.name if mask & 8 else QualifiedName(0, None),
        LocalizedText(other.facts.display.locale or None, other.facts.display.text)
        if mask & 16
        else LocalizedText(None, None),
        other.facts.klass if mask & 4 else 0,
        other.type if mask & 32 and other.type is not None else NodeId(0, 0),
    )


EVENT_TYPES = _event_types()


def subtypes(node: NodeId) -> list[NodeId]:
    """The types of events below one, as far as they are shown."""
    found: list[NodeId] = []
    line = [EVENT_TYPES[node]]
    while line:
        below = [other for reference, other in line.pop().children if reference == HAS_SUBTYPE]
        found += [one.id for one in below]
        line += below
    return found
