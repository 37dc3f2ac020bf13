"""Connections to databases of the site's (PostgreSQL, by psycopg, in a part on asyncio): how they are dialled, and that
whoever is at the other end answers in time.

Not here: what is asked (each broker).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any, Final, Protocol

import psycopg
from psycopg import AsyncConnection

CONNECT_SECONDS: Final = 10


class Place(Protocol):
    """Where a database is, and who one is there. `plain`: without TLS."""

    @property
    def address(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def database(self) -> str: ...
    @property
    def role(self) -> str: ...
    @property
    def plain(self) -> bool: ...


class Answering(AsyncConnection[Any]):
    """A connection whose other end has to answer in time: psycopg by itself waits without end, also for the rest of a
    COPY whose reading is over, and then for a database that is not there to end it. Raises: TimeoutError."""

    silent = 60.0
    """Seconds without an answer: more than its own limit for a statement, so that a database that is well has said so
    before."""

    async def wait(self, *said: Any, **more: Any) -> Any:
        over: list[bool] = []

        def late() -> None:
            over.append(True)
            self.shut()

        timer = asyncio.get_running_loop().call_later(self.silent, late)
        try:
            return await super().wait(*said, **more)
        except psycopg.OperationalError:
            if over:
                raise TimeoutError(f"it has not answered within {self.silent:g} s") from None
            raise
        finally:
            timer.cancel()

    def shut(self) -> None:
        """Whatever waits for the database sees its end, and goes the way of any lost connection."""
        beneath = socket.socket(fileno=self.fileno())
        with contextlib.suppress(OSError):
            beneath.shutdown(socket.SHUT_RDWR)
        beneath.detach()


async def dial(place: Place, password: str, *, silent: float, name: str, options: str = "") -> Answering:
    """With TLS, both ends show by the password that they know it, bound to this very connection (SCRAM with channel
    binding): that takes no certificate of anybody's, for which the part would have to open a file. Raises:
    psycopg.Error."""
    tls: dict[str, Any] = {"sslmode": "disable"}
    if not place.plain:
        tls = {"sslmode": "require", "channel_binding": "require", "sslcertmode": "disable"}
    found = await Answering.connect(
        hostaddr=place.address, port=place.port, dbname=place.database, user=place.role, password=password,
        autocommit=True, prepare_threshold=None, connect_timeout=CONNECT_SECONDS, gssencmode="disable",
        application_name=name, client_encoding="utf8", options=options, require_auth="scram-sha-256",
        keepalives_idle=15, keepalives_interval=5, keepalives_count=3, tcp_user_timeout=30_000, **tls,
    )  # fmt: skip
    found.silent = silent
    return found


def words(error: Exception) -> str:
    """What a database says, in one line."""
    if isinstance(error, psycopg.Error) and error.sqlstate and error.diag.message_primary:
        return f"{error.diag.message_primary} ({error.sqlstate})"
    return " ".join(str(error).split()) or type(error).__name__
