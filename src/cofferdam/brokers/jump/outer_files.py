"""SFTP towards a client: the machine of a session, between its channel and the inner part.

Not here: the machine (protocols.sftp), what may be done with files (inner_files).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cofferdam.brokers.jump import records
from cofferdam.brokers.jump.outer_session import AssetSession
from cofferdam.errors import CrossingError, RemoteProtocolError
from cofferdam.protocols.sftp.machine import UNDER_WAY_MOST, Server


class Front:
    """One client's files. A client that does not take its answers is asked for no more requests."""

    def __init__(self, session: AssetSession, to_inner: Callable[[Any], None], failed: Callable[[str], None]) -> None:
        self._session = session
        self._to_inner = to_inner
        self._failed = failed
        self._machine = Server()
        self._broken = False

    def data(self, data: bytes) -> None:
        """Bytes of the client."""
        if not self._broken:
            self._machine.receive_data(data)
            self.go_on()

    def go_on(self) -> None:
        """Asks for what the client has asked for."""
        machine = self._machine
        try:
            while not self._broken and not self._session.is_full and (found := machine.next_operation()) is not None:
                self._to_inner(records.FileAsk(self._session.number, *found))
        except RemoteProtocolError as error:
            self._broken = True
            self._failed(str(error))
            self._session.refused(f"that is no SFTP: {error}")
            return
        self._session.write(machine.data_to_send())
        self._session.hold(machine.under_way >= UNDER_WAY_MOST or self._session.is_full)

    def told(self, record: records.FileTold) -> None:
        """An answer."""
        try:
            self._machine.answer(record.request, record.answer)
        except KeyError:
            raise CrossingError(f"an answer to request {record.request}, which was not made") from None
        self.go_on()
