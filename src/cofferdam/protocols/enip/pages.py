"""Conversations with a device that go page by page: its list of tags, and its structures' descriptions.

Not here: a conversation's frames (client), the list as clients are shown it (lists).
"""

from __future__ import annotations

import struct
from collections.abc import Generator
from typing import Final

from cofferdam.protocols.enip import messages as m
from cofferdam.protocols.enip import paths, replies, requests
from cofferdam.protocols.enip.replies import Misfit

TEMPLATE: Final = 65_536
"""Bytes of a structure's definition, at most."""

Answer = tuple[int, tuple[int, ...], bytes]
Talk = Generator[tuple[int, bytes], Answer, m.EnipResponse]


def tags(request: m.ListTags, none: bool) -> Talk:
    """The controller's tags, or a program's. `none`: the device is not asked, and has none."""
    if none:
        return m.TagList(())
    found: dict[int, m.Symbol] = {}
    start, size = 0, 0
    while True:
        path = paths.of_program(request.program) + paths.of_object(paths.SYMBOL, start)
        body = struct.pack("<4H", 3, 1, 2, 8)
        status, more, body = yield requests.LIST, requests.made(requests.LIST, path, body)
        if status not in (0, requests.MORE):
            return replies.error(status, more)
        for symbol in replies.symbols(body):
            found[symbol.instance] = symbol
        if len(found) > m.SYMBOLS:
            raise Misfit(f"more than {m.SYMBOLS} tags")
        if not status:
            return m.TagList(tuple(found[number] for number in sorted(found)))
        last = max(found, default=0)
        # Some begin with the number that is asked, some after it: asking for the last one again serves both.
        if len(found) == size:
            if start == last + 1:
                raise Misfit("pages without an end")
            start = last + 1
        else:
            start = last
        size = len(found)


def structure(request: m.DescribeStructure) -> Talk:
    """A structure's template: first how long it is."""
    path = paths.of_object(paths.TEMPLATE, request.instance)
    body = struct.pack("<5H", 4, 4, 5, 2, 1)
    status, more, body = yield requests.GET_LIST, requests.made(requests.GET_LIST, path, body)
    if status:
        return replies.error(status, more)
    words, size, count, handle = replies.template(body)
    whole = min(words * 4 - 23, TEMPLATE)
    data = b""
    while True:
        left = struct.pack("<IH", len(data), max(1, min(whole - len(data), 0xFFFF)))
        status, more, body = yield requests.READ, requests.made(requests.READ, path, left)
        if status not in (0, requests.MORE):
            return replies.error(status, more)
        data += body
        if not status or len(data) > TEMPLATE or not body:
            break
    return replies.structure(handle, size, count, data)
