"""What is wrong with a message beyond what its fields' types hold.

Not here: the messages themselves (messages: what defines records is not compiled).
"""

from __future__ import annotations

from typing import Final, cast, get_args

from cofferdam.model import Item
from cofferdam.protocols.enip.dialect import plain
from cofferdam.protocols.enip.messages import (
    PROGRAM,
    Answers,
    CipError,
    Done,
    EnipRequest,
    EnipResponse,
    GetAttribute,
    GetAttributes,
    Held,
    HeldAll,
    HeldList,
    Identity,
    IoData,
    ListTags,
    ModifyTag,
    OpenIo,
    Packet,
    ReadTag,
    SetAttribute,
    Structure,
    TagList,
    Unserved,
    WriteBit,
    WriteTag,
)
from cofferdam.protocols.enip.values import ATOMIC, DATA, attribute_fault, fault

_CODES: Final = bytes(ATOMIC)
_RESPONSES: Final = frozenset(get_args(EnipResponse))


def request_fault(request: EnipRequest) -> str:
    """What is wrong with a request beyond what its fields' types hold, in words; "" for nothing. What passes can be
    put on the wire."""
    if type(request) is Packet:
        return next((found for part in request.parts if (found := request_fault(part))), "")
    match request:
        case ReadTag(item):
            return _tag(item)
        case WriteTag(item, code, handle, value):
            return _tag(item) or fault(code, handle, value, item.first, item.count)
        case WriteBit(item, size, _):
            return _bit(item, size)
        case ModifyTag(item, size, or_mask, and_mask):
            if max(or_mask, and_mask) >> 8 * size:
                return f"masks of more than {size} bytes"
            return _tag(item) or ("several elements at once" if item.count != 1 else "")
        case GetAttribute(item):
            return _attribute(item)
        case SetAttribute(item, value):
            return _attribute(item) or attribute_fault(value)
        case GetAttributes(items):
            if len({item.name.rpartition("/")[0] for item in items}) != 1:
                return "attributes of several instances"
            return next((found for item in items if (found := _attribute(item))), "")
        case ListTags(program):
            return "" if not program or program_right(program) else f"the program {program!r}"
        case OpenIo(item):
            return plain(item) if item.kind == "io" and "." not in item.name else f"{item.name!r} is no I/O connection"
        case Unserved():
            return "a request that nobody serves"
    return ""


def response_fault(response: EnipResponse) -> str:
    """The same for a response."""
    # By its exact type, since most are: to match classes one by one takes a thousand instructions each.
    if type(response) is Held:
        code, handle, value = response.code, response.handle, response.value
        if not code:
            return ("a handle of an attribute" if handle else "") or attribute_fault(value)
        array = value.array
        return fault(code, handle, value, 0 if array else -1, len(value.values) if array else 1)
    if type(response) is HeldAll:
        return "a type that is none of numbers" if response.codes.translate(None, _CODES) else ""
    if type(response) is CipError or type(response) is Done:
        return ""
    match response:
        case Answers(parts):
            return next((found for part in parts if (found := response_fault(part))), "")
        case HeldList(values):
            return next((found for one in values if not isinstance(one, int) and (found := attribute_fault(one))), "")
        case TagList(symbols):
            if any(not _shown(one.name) for one in symbols):
                return "a name that is no ASCII"
            numbers = [one.instance for one in symbols]
            return "" if numbers == sorted(set(numbers)) else "tags out of order"
        case Structure(name=name, members=members):
            return "" if _shown(name) and all(_shown(one.name) for one in members) else "a name that is no ASCII"
        case Identity(name=name):
            return "" if all(ord(one) < 256 for one in name) else "a name that no SHORT_STRING holds"
    return ""


def fault_of(message: EnipRequest | EnipResponse | IoData) -> str:
    """The same for any message."""
    kind = type(message)  # isinstance takes a thousand instructions for each of the classes that a message is not of
    if kind is IoData:
        return ""
    if kind in _RESPONSES:
        return response_fault(cast(EnipResponse, message))
    return request_fault(cast(EnipRequest, message))


def program_right(text: str) -> bool:
    """Whether a text names a program, as "Program:Main" does."""
    head, colon, name = text.partition(":")
    if len(text) > PROGRAM:
        return False
    return head.lower() == "program" and bool(colon) and name.replace("_", "a").isalnum() and name.isascii()


def _shown(text: str) -> bool:
    return text.isascii() and "\0" not in text


def _tag(item: Item) -> str:
    if item.kind != "tag":
        return f"{item.kind} as a tag"
    if item.count > DATA:
        return f"{item.count} elements at once"
    last = item.name.rpartition(".")[2]
    return plain(item) or ("a bit as a tag" if last.isdigit() else "")


def _bit(item: Item, size: int) -> str:
    last = item.name.rpartition(".")[2]
    if item.kind != "tag" or not last.isdigit() or item.first >= 0 or last != str(int(last)):
        return f"{item.name!r} is no bit"
    return plain(item) or ("" if int(last) < 8 * size else f"bit {last} of {size} bytes")


def _attribute(item: Item) -> str:
    return plain(item) if item.kind == "cip" else f"{item.kind} as an attribute"
