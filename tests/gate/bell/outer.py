"""The part that clients ring at: a line names a bell, and is answered by `ok` or `no`."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any, Final

from cofferdam.brokers.broker import Part, Setting
from cofferdam.brokers.kit.transport import Transport
from cofferdam.errors import CrossingError
from cofferdam.policy.table import CompiledPolicy
from tests.gate.bell.records import Ring, Rung

LINE_BYTES: Final = 41
CONNECTIONS: Final = 64
_LINE: Final = re.compile(rb"([a-z]{1,40})\n")


class Outer(Part):
    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._inner = setting.senders["inner"]
        self._number = 0
        self._waiting: dict[int, Transport] = {}
        self._open: set[Transport] = set()

    def accept(self, transport: Transport, source: str, port: int, local: tuple[str, int]) -> None:
        if len(self._open) >= CONNECTIONS:
            transport.close()
            return
        self._open.add(transport)
        line = bytearray()

        def on_data(data: bytes) -> None:
            line.extend(data)
            if found := _LINE.fullmatch(line):
                transport.pause()
                self._number += 1
                self._waiting[self._number] = transport
                self._inner.send(Ring(self._number, source, found[1].decode()))
            elif len(line) >= LINE_BYTES or b"\n" in line:
                self.malformed += 1
                self._close(transport)

        transport.on_data = on_data
        transport.on_closed = lambda _: self._open.discard(transport)

    def on_record(self, source: str, record: Any) -> None:
        transport = self._waiting.pop(record.number, None) if isinstance(record, Rung) else None
        if transport is None:
            raise CrossingError("an answer to no question")
        if transport in self._open:
            transport.write(b"ok\n" if record.done else b"no\n")
            self._close(transport)

    def take_policy(self, policy: CompiledPolicy, assets: tuple[str, ...]) -> int:
        return 0

    def set_severed(self, sides: Collection[str]) -> None:
        for transport in list(self._open) if sides else ():
            self._close(transport)

    def _close(self, transport: Transport) -> None:
        self._open.discard(transport)
        transport.close()
