"""Playbooks: bytes in, events and bytes out, in order; the first difference is printed with what led to it.

    Playbook(machine) << recv(data) >> event >> NEED_DATA

`<<` is what is done to the machine, `>>` what must come of it. An expected event may leave fields open with `ANY`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

from cofferdam.errors import CofferdamError
from cofferdam.protocols.base import ClientMachine, ServerMachine

Machine = ServerMachine[Any, Any] | ClientMachine[Any, Any]
Step = Callable[[Machine], object]


class Anything:
    """Equal to everything: a field that the playbook leaves open."""

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0

    def __repr__(self) -> str:
        return "…"


ANY: Any = Anything()


def recv(data: bytes) -> Step:
    """The peer sent these bytes."""

    def step(machine: Machine) -> object:
        machine.receive_data(data)
        return None

    return step


class Playbook:
    """Runs as it is written, so a failure points at its line."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.script: list[str] = []

    def __lshift__(self, step: Step) -> Playbook:
        name = getattr(step, "__name__", "step")
        self.script.append(f"<< {name}")
        step(self.machine)
        return self

    def __rshift__(self, expected: object) -> Playbook:
        """The next event, or the error that `next_event` raises (given as a (type, word) pair)."""
        try:
            found: object = self.machine.next_event()
        except CofferdamError as error:
            found = error
        if isinstance(expected, tuple):
            kind, word = expected
            if not isinstance(found, kind) or word not in str(found):
                self._fail(f"{kind.__name__} with {word!r}", repr(found))
        elif type(found) is not type(expected) or expected != found:
            self._fail(repr(expected), repr(found))
        self.script.append(f">> {found!r}")
        return self

    def _fail(self, expected: str, found: str) -> None:
        difference = "\n".join(difflib.ndiff([expected], [found]))
        raise AssertionError("\n".join(["after:", *self.script, "expected (-), found (+):", difference]))
