"""Filters of events: what a client's means (messages.Events), and ours for the asset's server, made anew of that.

Of select clauses, fields by their browse path and the condition's NodeId are known. Of where clauses, what narrows by
type (OfType; EventType equal to a type or in a list of them) and by severity (at least, above), joined by And and, for
types, Or: all else is refused by name. So a filter can ask nothing of a field that its events do not show (Severity and
EventType count as asked for where a filter asks for them).

Not here: which fields somebody may have (policy), monitored items (server_items, watches).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cofferdam.model import NAME_LENGTH, Item
from cofferdam.protocols.opcua import messages as m
from cofferdam.protocols.opcua import services as s
from cofferdam.protocols.opcua import wire
from cofferdam.protocols.opcua.builtin_types import Extension, Malformed, NodeId, QualifiedName, Variant
from cofferdam.protocols.opcua.dialect import ARROW, CONDITION, field_path, field_text
from cofferdam.protocols.opcua.names import Namespaces, Unnamed, value_weight
from cofferdam.protocols.opcua.space import EVENT_TYPES, subtypes

NODE_ID, VALUE, NOTIFIER = 1, 13, 12
ELEMENTS, OPERANDS = 50, 400
"""Of one where clause."""
EQUALS, GREATER, AT_LEAST, IN_LIST, AND, OR, OF_TYPE = 0, 2, 4, 9, 10, 11, 14
OPERATORS = (
    "Equals", "IsNull", "GreaterThan", "LessThan", "GreaterThanOrEqual", "LessThanOrEqual", "Like", "Not", "Between",
    "InList", "And", "Or", "Cast", "InView", "OfType", "RelatedTo", "BitwiseAnd", "BitwiseOr",
)  # fmt: skip
BAD_TYPE, BAD_BROWSE_NAME, BAD_ATTRIBUTE, BAD_RANGE = 0x80630000, 0x80600000, 0x80350000, 0x80360000
BAD_FILTER, BAD_UNSUPPORTED, BAD_OPERAND = 0x80470000, 0x80C20000, 0x80490000
EVENT_BYTES, FIELD_BYTES = 100_000, 1000
"""Of one event: of a larger one, fields above FIELD_BYTES are null."""
BASE = NodeId(0, 2041)
TYPE_FIELD, SEVERITY_FIELD = "EventType", "Severity"


class Where:
    """What a where clause narrows to."""

    __slots__ = ("exactly", "of", "severity")

    def __init__(self, severity: int = 0, of: tuple[str, ...] = (), exactly: tuple[str, ...] = ()) -> None:
        self.severity = severity
        self.of = of
        self.exactly = exactly


def selected(clause: s.SimpleOperand, names: Namespaces) -> tuple[str, str] | int:
    """(type, field) of a select clause; or the status that says what is wrong with it."""
    if clause.range:
        return BAD_RANGE
    try:
        kind = names.name(clause.type if clause.type != NodeId(0, 0) else BASE)
    except Unnamed:
        return BAD_TYPE
    if clause.attribute == NODE_ID and not clause.path:
        return kind, CONDITION
    if clause.attribute != VALUE or not clause.path:
        return BAD_ATTRIBUTE
    try:
        return kind, field_text([(names.uri(one.ns), one.name or "") for one in clause.path])
    except (Unnamed, ValueError):
        return BAD_BROWSE_NAME


def narrowed(elements: list[s.FilterElement], names: Namespaces) -> Where:
    """What a where clause means. Raises: Malformed, with the status of what is wrong."""
    if not elements:
        return Where()
    if len(elements) > ELEMENTS or sum(len(one.operands) for one in elements) > OPERANDS:
        raise Malformed(f"a filter of more than {ELEMENTS} elements or {OPERANDS} operands", BAD_FILTER)
    found = _element(elements, 0, names, set())
    if "i=2041" in found.of:  # all events are of that type
        return Where(found.severity)
    return found


def _element(elements: list[s.FilterElement], at: int, names: Namespaces, seen: set[int]) -> Where:
    element = elements[at]
    seen.add(at)
    operands = [wire.unpack(one) for one in element.operands]
    operator = element.operator
    if operator in (AND, OR):
        sides = []
        if len(operands) != 2:
            raise Malformed(f"{OPERATORS[operator]} of {len(operands)} operands", BAD_OPERAND)
        for one in operands:
            # Elements lead on to later ones, each once: so there is no circle, and no more work than there are of them.
            if not isinstance(one, s.ElementOperand) or not at < one.index < len(elements) or one.index in seen:
                raise Malformed("an operand that leads to no element of its own", BAD_OPERAND)
            sides.append(_element(elements, one.index, names, seen))
        return _joined(operator, sides[0], sides[1])
    if operator == OF_TYPE:
        return Where(of=tuple([_type(one, names) for one in operands[:1]]) or _nothing())
    if operator in (EQUALS, IN_LIST) and len(operands) > 1 and _field(operands[0], names) == TYPE_FIELD:
        return _listed(dict.fromkeys([_type(one, names) for one in operands[1:]]))
    if operator in (GREATER, AT_LEAST) and len(operands) == 2 and _field(operands[0], names) == SEVERITY_FIELD:
        value = operands[1].value if isinstance(operands[1], s.LiteralOperand) else None
        if value is None or value.array or value.type not in range(2, 10) or not isinstance(value.value, int):
            raise Malformed("a severity that is no number", BAD_OPERAND)
        return Where(severity=min(max(value.value + (operator == GREATER), 0), 1000))
    word = OPERATORS[operator] if operator < len(OPERATORS) else f"operator {operator}"
    raise Malformed(f"a filter with {word}, other than by type or least severity", BAD_UNSUPPORTED)


def _listed(types: dict[str, None]) -> Where:
    """A list of types. Whoever lists a type and all of its subtypes that we show means all events of that type: of a
    server's own types a client knows nothing here."""
    whole = []
    for node in EVENT_TYPES:
        below = subtypes(node)
        if below and all(f"i={one.id!s}" in types for one in (node, *below)):
            whole.append(f"i={node.id!s}")
    return Where(of=tuple(whole), exactly=tuple(types))


def _nothing() -> tuple[str, ...]:
    raise Malformed("OfType of nothing", BAD_OPERAND)


def _joined(operator: int, one: Where, other: Where) -> Where:
    by_type = (one.of or one.exactly) and (other.of or other.exactly)
    if operator == OR:
        if not by_type or one.severity or other.severity:
            raise Malformed("a filter with Or, other than between types", BAD_UNSUPPORTED)
    elif by_type:
        raise Malformed("a filter with And between types", BAD_UNSUPPORTED)
    return Where(
        max(one.severity, other.severity), tuple(dict.fromkeys(one.of + other.of)),
        tuple(dict.fromkeys(one.exactly + other.exactly)),
    )  # fmt: skip


def _type(operand: Any, names: Namespaces) -> str:
    value = operand.value if isinstance(operand, s.LiteralOperand) else None
    if value is None or value.array or value.type not in (17, 18):
        raise Malformed("a type that is no NodeId", BAD_OPERAND)
    try:
        return names.name(value.value)
    except Unnamed as error:
        raise Malformed(f"a type in {error}", BAD_OPERAND) from None


def _field(operand: Any, names: Namespaces) -> str:
    found = selected(operand, names) if isinstance(operand, s.SimpleOperand) else 0
    return "" if isinstance(found, int) else found[1]


def asked_fields(request: m.Events) -> tuple[str, ...]:
    """The fields of which a request learns something, also by its filter."""
    found = dict.fromkeys([field for _, field in request.fields])
    if request.severity:
        found[SEVERITY_FIELD] = None
    if request.of or request.exactly:
        found[TYPE_FIELD] = None
    return tuple(found)


def overheard(
    asked: Extension, notifier: Item, interval_us: int, names: Namespaces
) -> tuple[m.Events, tuple[int, ...]] | None:
    """What a client's filter of events asks for, as a bystander hears it: the fields that can be named, and the place
    of each in the news. A narrowing that is not understood narrows to less; None for what is no filter of events, or
    names no such field."""
    try:
        chosen = wire.unpack(asked)
    except Malformed:
        return None
    if not isinstance(chosen, s.EventFilter):
        return None
    try:
        where = narrowed(chosen.where, names)
    except Malformed:
        where = Where()
    room = NAME_LENGTH - len(notifier.name) - len(ARROW)
    places: dict[tuple[str, str], int] = {}
    for place, one in enumerate(chosen.select):
        clause = selected(one, names)
        if not isinstance(clause, int) and len(clause[1]) <= room and len(places) < m.FIELDS:
            places.setdefault(clause, place)
    if not places:
        return None
    made = m.Events(
        notifier, interval_us, tuple(places), severity=where.severity, of=where.of, exactly=where.exactly
    )  # fmt: skip
    return made, tuple(places.values())


def field_item(notifier: Item, field: str) -> Item:
    """A field of a notifier's events, as policy judges it."""
    return Item(notifier.kind, f"{notifier.name}{ARROW}{field}")


# --- ours ---------------------------------------------------------------------------------------------------------


def filter_of(request: m.Events, names: Namespaces) -> Extension:
    """The filter for the asset's server. Raises: Unnamed where it has no such namespace."""
    return wire.pack(s.EventFilter([_clause(kind, field, names) for kind, field in request.fields],
                                   _where(request, names)))  # fmt: skip


def _clause(kind: str, field: str, names: Namespaces) -> s.SimpleOperand:
    path = [QualifiedName(names.index(uri), name) for uri, name in field_path(field)]
    return s.SimpleOperand(names.node(kind), path, VALUE if path else NODE_ID, None)


def _where(request: m.Events, names: Namespaces) -> list[s.FilterElement]:
    tests: list[s.FilterElement] = []
    if request.exactly:
        tests.append(_test(IN_LIST, _clause("i=2041", TYPE_FIELD, names), [names.node(one) for one in request.exactly]))
    tests += [_test(OF_TYPE, None, [names.node(one)]) for one in request.of]
    joints = [OR] * (len(tests) - 1)
    if request.severity:
        severity = wire.pack(s.LiteralOperand(Variant(5, request.severity)))
        field = wire.pack(_clause("i=2041", SEVERITY_FIELD, names))
        joints = [AND] * bool(tests) + joints
        tests.insert(0, s.FilterElement(AT_LEAST, [field, severity]))
    # Each joint has a test and the next joint, or the last test: And(severity, Or(type, Or(type, type))).
    first = len(joints)
    made = [
        s.FilterElement(joint, [_to(first + at), _to(at + 1 if at + 1 < first else first + at + 1)])
        for at, joint in enumerate(joints)
    ]
    return made + tests


def _to(index: int) -> Extension:
    return wire.pack(s.ElementOperand(index))


def _test(operator: int, left: s.SimpleOperand | None, types: list[NodeId]) -> s.FilterElement:
    operands = [] if left is None else [wire.pack(left)]
    return s.FilterElement(operator, operands + [wire.pack(s.LiteralOperand(Variant(17, one))) for one in types])


def event_of(fields: list[Variant], request: m.Events, names: Namespaces) -> m.Happening:
    """An event of the server's, as it crosses: of as many fields as were asked for, those without a form there null."""
    found: list[Any] = []
    for one in fields[: len(request.fields)]:
        try:
            found.append(names.crossing(one))
        except Unnamed:
            found.append(None)
    found += [None] * (len(request.fields) - len(found))
    if event_weight(found) > EVENT_BYTES:
        found = [None if value_weight(one) > FIELD_BYTES else one for one in found]
    return tuple(found)


def event_weight(event: Iterable[Any]) -> int:
    """About how many bytes an event has in a record, and no fewer."""
    return sum([value_weight(one) for one in event])
