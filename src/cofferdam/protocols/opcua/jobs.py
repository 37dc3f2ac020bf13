"""Requests on the wire at the side towards a client, until all their parts are answered. Not here: what they ask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Ready:
    """A response that was made here, for the event that it answers."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data


class Waiting:
    """One request on the wire, of which so many parts are not answered yet."""

    __slots__ = ("_left", "_server")

    def __init__(self, server: Any, parts: int) -> None:
        self._server = server
        self._left = parts
        if server is not None:
            server.jobs += 1

    def answer(self, slot: int, token: int, response: Any) -> None:
        """One part is answered."""
        raise NotImplementedError

    def abandon(self) -> None:
        """One part gets no answer: neither does the whole."""
        if self._left > 0:
            self._left = -1
            self._server.jobs -= 1


class Job(Waiting):
    """`finish(answers)` is called once all parts are answered."""

    __slots__ = ("_answers", "_finish", "tokens")

    def __init__(self, server: Any, parts: int, finish: Callable[[list[Any]], None]) -> None:
        super().__init__(server, parts)
        self._answers: list[Any] = [None] * parts
        self._finish = finish
        self.tokens = [0] * parts

    def answer(self, slot: int, token: int, response: Any) -> None:
        self._answers[slot], self.tokens[slot] = response, token
        self._left -= 1
        if not self._left:
            self._server.jobs -= 1
            self._finish(self._answers)


NO_JOB = Job(None, 0, lambda _answers: None)
