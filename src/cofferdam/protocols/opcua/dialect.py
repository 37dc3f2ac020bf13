"""What a policy may say about OPC UA: nodes and methods by namespace URI, and the standard's names of builtin types.

A node is written as the standard's portable form has it (OPC 10000-6, 5.1.12): "nsu=URI;s=Line1.Speed", with "i=",
"s=", "g=" or "b=" for the four kinds of identifiers. "ns=2;..." is refused: a server may number its namespaces anew
when it starts, and then such a text names something else. A method is its object and itself: "nsu=URI;s=Line1 ->
nsu=URI;s=Reset".

Not here: NodeIds on the wire (builtin).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence

from cofferdam.model import Argument, Item, Method, Span
from cofferdam.protocols.dialect import Dialect, Kind, Misread, Notation
from cofferdam.values import DATE_TIME, ValueType

READ, WRITE, CALL, BROWSE, HISTORY, WATCH = 631, 673, 712, 527, 664, 751
"""Function codes: the encoding ids of the requests (OPC 10000-6, A.3)."""
PKI = "pki-"
PKI_SECRETS, PKI_REJECTED = f"{PKI}secrets", f"{PKI}rejected"
"""What verbs about keys are called at a part that has verbs of its own beside them."""
ARROW = " -> "
IDENTIFIER = 4096
PATH = 20
"""Elements of a browse path."""
_NODE = re.compile(r"(?:nsu=([^;\s]{1,1024});)?([isgb])=(.+)\Z", re.DOTALL)
_RANGE = re.compile(r"(.*) \[(\d{1,9})(?:-(\d{1,9}))?\]\Z", re.DOTALL)
_GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
_FORM = '"nsu=URI;s=NAME" (or i=, g=, b=), such as "nsu=urn:plant:line;s=Line1.Speed"'


def canonical(uri: str, letter: str, identifier: str) -> str:
    """The one spelling of a node. `uri` "" is namespace 0; `identifier` as it stands after the letter."""
    return f"nsu={_escaped(uri)};{letter}={identifier}" if uri else f"{letter}={identifier}"


def _escaped(uri: str) -> str:
    return uri.replace("%", "%25").replace(";", "%3B")


def split(name: str) -> tuple[str, str, str]:
    """(URI, letter, identifier) of a node in its one spelling. Raises: ValueError for any other text."""
    found = _NODE.match(name)
    if found is None:
        raise ValueError(f"{name!r} is no node")
    uri = (found[1] or "").replace("%3B", ";").replace("%25", "%")
    letter, text = found[2], found[3]
    if letter == "i":
        if not (text.isascii() and text.isdigit() and int(text) < 1 << 32):
            raise ValueError(f"{text!r} is no number")
        text = str(int(text))
    elif letter == "g":
        text = text.lower()
        if not _GUID.match(text):
            raise ValueError(f"{text!r} is no GUID")
    elif letter == "b":
        try:
            text = base64.b64encode(base64.b64decode(text, validate=True)).decode()
        except (binascii.Error, ValueError):
            raise ValueError(f"{text!r} is not base64") from None
    if len(text) > IDENTIFIER or "\0" in text or ARROW in text:
        raise ValueError("an identifier that is too long, or has a NUL or an arrow in it")
    if canonical(uri, letter, text) != name:
        raise ValueError(f"{name!r} is spelt {canonical(uri, letter, text)!r}")
    return uri, letter, text


CONDITION = "ConditionId"
"""The field that is no browse path: the NodeId of the condition that an event tells of (OPC 10000-9, 5.5.2)."""
EVENT_ID = "EventId"
TELLS = {"acknowledge": 9111, "confirm": 9113, "comment": 9029}
"""The standard's methods of conditions (OPC 10000-9, 5.5.6 and 5.7.3), by our words."""
EVENT_BYTES, COMMENT_LENGTH, CONDITION_LENGTH = 64, 250, 512
"""Of an event's id; characters of a comment, and of a condition's name."""
FIELD = 1024
"""Characters of a field's name."""
_ELEMENT = re.compile(r"(?:nsu=([^;\s]{1,1024});)?([^/]+)(/(?=.)|\Z)", re.DOTALL)


def field_text(path: Sequence[tuple[str, str]]) -> str:
    """The one spelling of a browse path of (URI, name), "" for the standard's URI: "ActiveState/Id". Raises: ValueError
    where there is none, as for a name with a "/" in it."""
    found = [(f"nsu={_escaped(uri)};" if uri else "") + name for uri, name in path]
    text = "/".join(found)
    if field_path(text) != tuple(path):
        raise ValueError(f"{text!r} is no field")
    return text


def field_path(text: str) -> tuple[tuple[str, str], ...]:
    """The path of a field in its one spelling; none for the condition's NodeId. Raises: ValueError for any other
    text."""
    if text == CONDITION:
        return ()
    found: list[tuple[str, str]] = []
    at = 0
    while at < len(text) and len(found) < PATH:
        element = _ELEMENT.match(text, at)
        if element is None:
            break
        uri = element[1] or ""
        plain = uri.replace("%3B", ";").replace("%25", "%")
        if element[2].startswith("nsu=") or _escaped(plain) != uri:
            break
        found.append((plain, element[2]))
        at = element.end()
    if not found or at < len(text) or len(text) > FIELD or "\0" in text or ARROW in text:
        raise ValueError(f"{text!r} is no field")
    return tuple(found)


_SHORT = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*):([isgb]=.*)\Z", re.DOTALL)


_SHORT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")


def _no_short(shorts: Mapping[str, str], instead: str) -> Misread:
    known = ", ".join(sorted(shorts)) or "none are said"
    return Misread(f"a short name of the asset's namespaces ({known}), or {instead}")


def written_out(text: str, shorts: Mapping[str, str]) -> str:
    """The text with "line:s=Speed" as "nsu=urn:plant:line;s=Speed". Raises: Misread for a short name that is none."""
    made = []
    for part in text.split(ARROW):
        found = _SHORT.match(part.strip())
        if found is None:
            made.append(part)
        elif found[1] not in shorts:
            raise _no_short(shorts, f"nsu=URI;{found[2]}")
        else:
            made.append(canonical(shorts[found[1]], *found[2].split("=", 1)))
    return ARROW.join(made)


class OpcUaNotation(Notation):
    """See the top."""

    pattern = r"^(nsu=[^;\s]+;)?[isgb]=.+$"
    examples = ("nsu=urn:plant:line;s=Line1.Speed", "nsu=urn:plant:line;i=1042 [0-9]")

    def parse(self, text: str) -> Item:
        owner, arrow, own = text.rpartition(ARROW)
        if arrow:
            return Item("method", f"{self._node(owner)}{ARROW}{self._node(own)}")
        found = _RANGE.match(text)
        if found is None:
            return Item("node", self._node(text))
        first, last = int(found[2]), int(found[3] or found[2])
        if last < first:
            raise Misread("the first element before the last", f"{found[1]} [{last}-{first}]")
        if last >= 1 << 31:
            raise Misread("elements below 2147483648")
        return Item("node", self._node(found[1]), first, last - first + 1)

    def _node(self, text: str) -> str:
        text = text.strip()
        if text.startswith("ns="):
            raise Misread(
                f"{_FORM}: the server may number its namespaces anew when it starts, and ns=... then means another node"
            )
        found = _NODE.match(text)
        if found is None:
            raise Misread(_FORM, f"nsu=URI;{text}" if text[1:2] == "=" else "")
        letter, identifier = found[2], found[3]
        if not found[1] and not (letter == "i" and identifier.isascii() and identifier.isdigit()):
            raise Misread(f"{_FORM}: nodes of the standard itself alone have no URI, and numbers", f"nsu=URI;{text}")
        if letter == "g":
            identifier = identifier.lower()
        elif letter == "i" and identifier.isascii() and identifier.isdigit():
            identifier = str(int(identifier))
        name = (f"nsu={found[1]};" if found[1] else "") + f"{letter}={identifier}"
        try:
            split(name)
        except ValueError as error:
            raise Misread(f"{_FORM}; {error}") from None
        return name

    def field(self, text: str) -> str:
        try:
            field_path(text)
        except ValueError as error:
            form = "a browse path, such as Severity, ActiveState/Id or nsu=urn:plant:line;Batch, or ConditionId"
            raise Misread(f"{form}; {error}") from None
        return text

    def field_written_out(self, text: str, shorts: Mapping[str, str]) -> str:
        made, at = [], 0
        while (element := _ELEMENT.match(text, at)) is not None:
            short, colon, name = element[2].partition(":")
            # The standard's own names have no colon in them.
            if element[1] or not colon or not _SHORT_NAME.match(short):
                made.append(text[at : element.end()])
            elif short not in shorts:
                raise _no_short(shorts, f"nsu=URI;{name}")
            else:
                made.append(f"nsu={_escaped(shorts[short])};{name}{element[3]}")
            at = element.end()
        return "".join(made) + text[at:]

    def of_event(self, notifier: Item, field: str) -> Item:
        return Item(notifier.kind, f"{notifier.name}{ARROW}{field}")

    def field_of(self, notifier: Item, item: Item) -> str:
        return item.name.removeprefix(f"{notifier.name}{ARROW}")

    def owned(self, item: Item) -> bool:
        return item.name.startswith("nsu=")

    def title(self, item: Item) -> str:
        return split(item.name.rpartition(ARROW)[2])[2]

    def show(self, place: Span | Item) -> str:
        if not isinstance(place, Item) or place.first < 0:
            return place.name if isinstance(place, Item) else place.space
        last = f"{place.first}" if place.count == 1 else f"{place.first}-{place.stop - 1}"
        return f"{place.name} [{last}]"


BUILTIN = {
    ValueType.BOOL: 1, ValueType.INT8: 2, ValueType.UINT8: 3, ValueType.INT16: 4, ValueType.UINT16: 5,
    ValueType.INT32: 6, ValueType.UINT32: 7, ValueType.INT64: 8, ValueType.UINT64: 9, ValueType.FLOAT32: 10,
    ValueType.FLOAT64: 11, ValueType.TEXT: 12, ValueType.BYTES: 15,
}  # fmt: skip
"""The standard's numbers of the types (OPC 10000-6, 5.1.2), which are the numbers of their nodes as well."""

FORMS = {
    DATE_TIME: 13, "Guid": 14, "XmlElement": 16, "NodeId": 17, "StatusCode": 19, "QualifiedName": 20,
    "LocalizedText": 21,
}  # fmt: skip
"""The numbers of those that are of another type to policy: a Guid, a NodeId and a QualifiedName are their texts in the
portable form, a LocalizedText its text, an XmlElement its characters."""

DIMENSIONS = 10
"""Of a matrix."""

OPCUA = Dialect(
    name="opcua",
    default_port=4840,
    notation=OpcUaNotation(),
    types={
        "Boolean": ValueType.BOOL, "SByte": ValueType.INT8, "Byte": ValueType.UINT8, "Int16": ValueType.INT16,
        "UInt16": ValueType.UINT16, "Int32": ValueType.INT32, "UInt32": ValueType.UINT32, "Int64": ValueType.INT64,
        "UInt64": ValueType.UINT64, "Float": ValueType.FLOAT32, "Double": ValueType.FLOAT64, "String": ValueType.TEXT,
        "ByteString": ValueType.BYTES, DATE_TIME: ValueType.INT64, "StatusCode": ValueType.UINT32,
        **dict.fromkeys(("Guid", "NodeId", "QualifiedName", "LocalizedText", "XmlElement"), ValueType.TEXT),
    },
    value_forms={form: 36 if form == "Guid" else 0 for form in FORMS},
    kinds=(
        Kind("node", "a variable", read=READ, write=WRITE, watch=WATCH, elements=True),
        Kind("method", "a method", call=CALL),
        Kind("about", "what a node is", read=BROWSE),
        Kind("tree", "what stands below a node", read=BROWSE),
        Kind("history", "a variable's recorded values", read=HISTORY),
        Kind("event", "a notifier of events, or a field of these", read=WATCH, watch=WATCH),
        Kind("condition", "what conditions of a notifier are told", call=CALL),
    ),
    codes={},
    code_range=(1, 65535),
    code_examples="none",
    place_codes=frozenset({READ, WRITE, CALL, BROWSE, HISTORY, WATCH}),
    about="about",
    trees="tree",
    history="history",
    events="event",
    conditions=tuple(
        Method(
            verb,
            Item("condition", verb),
            (
                Argument("condition", ValueType.TEXT, max_length=CONDITION_LENGTH),
                Argument("event", ValueType.BYTES, max_length=EVENT_BYTES),
                Argument("comment", ValueType.TEXT, max_length=COMMENT_LENGTH),
            ),
        )
        for verb in TELLS
    ),
    condition_fields=(EVENT_ID, CONDITION),
    event_fields=(
        "EventId", "EventType", "SourceNode", "SourceName", "Time", "ReceiveTime", "Message", "Severity",
    ),
    security=(
        "Basic256Sha256", "Aes256_Sha256_RsaPss", "Aes128_Sha256_RsaOaep", "Basic256Sha256 sign",
        "Aes256_Sha256_RsaPss sign", "Aes128_Sha256_RsaOaep sign", "none",
    ),
    dimensions=DIMENSIONS,
    structures=True,
    shorts=written_out,
    reverse=True,
    secrets=("opcua",),
    preload=("cryptography.hazmat.backends.openssl.backend", "encodings.idna"),
)  # fmt: skip
