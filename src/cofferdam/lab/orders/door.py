"""A client of the relay's doors, as anybody would write one: plain HTTP/1.1, a key, JSON.

Not here: what the people of the play do with it (people).
"""

from __future__ import annotations

import contextlib
import http.client
import json
import uuid
from typing import Any, NamedTuple

PATIENCE_SECONDS = 60.0
"""How long one request may take."""


class Answer(NamedTuple):
    """What came back: the status (0: nobody answered) and the JSON."""

    status: int
    said: dict[str, Any]

    @property
    def detail(self) -> str:
        """The door's own words for a refusal."""
        return str(self.said.get("detail") or self.said.get("title") or "")


class Door:
    """One door, one key. A lost connection is made anew; what was asked is asked again only by whoever asked."""

    def __init__(self, address: str, port: int, key: str, source: str = "") -> None:
        self.where = (address, port)
        self._key = key
        self._source = (source, 0) if source else None
        self._connection: http.client.HTTPConnection | None = None

    def ask(self, method: str, path: str, body: Any = None, *, raw: bytes | None = None) -> Answer:
        """One request. `raw` is sent as it is, where JSON would not do."""
        data = raw if raw is not None else json.dumps(body).encode() if body is not None else None
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
        try:
            if self._connection is None:
                self._connection = http.client.HTTPConnection(
                    *self.where, timeout=PATIENCE_SECONDS, source_address=self._source
                )
            self._connection.request(method, f"/v1/channels/{path}", data, headers)
            response = self._connection.getresponse()
            content = response.read()
            if response.getheader("connection") == "close":
                self.close()
            found = json.loads(content) if content else {}
            return Answer(response.status, found if isinstance(found, dict) else {})
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.close()
            return Answer(0, {"detail": str(error) or type(error).__name__})

    def push(self, channel: str, key: str, message: Any) -> Answer:
        """Puts a message under the producer's own id."""
        return self.ask("PUT", f"{channel}/messages/{key}", message)

    def lease(self, channel: str, most: int, wait: float = 0.0) -> tuple[str, list[dict[str, Any]]]:
        """Up to `most` messages, and the lease that settles them."""
        answer = self.ask("POST", f"{channel}/lease", {"max": most, "seconds": 30, "wait": wait})
        return str(answer.said.get("lease", "")), list(answer.said.get("messages", ()))

    def done(self, channel: str, lease: str, numbers: list[int]) -> Answer:
        """Settles messages of a lease as done."""
        return self.ask("POST", f"{channel}/settle", {"lease": lease, "done": numbers})

    def close(self) -> None:
        """Ends the connection, if there is one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.close()


def new_key() -> str:
    """An id for a message, as a producer makes one."""
    return uuid.uuid4().hex
