"""The table of checks: which function finds what the catalogue's id says, and what it looks at.

A check that breaks, or does not come to an end, is a failed check with its words, and no other is harmed.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from cofferdam.evidence.inputs import Gone, Inputs, Unknown
from cofferdam.evidence.model import Finding, Missing

Run = Callable[[Inputs], Finding]
CHECK_SECONDS = 2.0
"""Of processor time, for one check: it looks at what was gathered, and waits for nothing."""


class Endless(BaseException):
    """A check has used its time up. No Exception, which a check may catch."""


class Made(NamedTuple):
    """A check's function. `looks`: which of the inputs it needs: "status", "policy", "exports", "proof", "history",
    "files"."""

    id: str
    looks: tuple[str, ...]
    run: Run


class Table:
    """Checks by id. Each module of this folder has one, and `checks` joins them."""

    def __init__(self) -> None:
        self.made: dict[str, Made] = {}

    def check(self, name: str, *looks: str) -> Callable[[Run], Run]:
        """Enters a function."""

        def enter(run: Run) -> Run:
            if name in self.made:
                raise ValueError(f"two functions for {name}")
            self.made[name] = Made(name, looks, run)
            return run

        return enter


@contextlib.contextmanager
def _bounded() -> Iterator[None]:
    """Raises: Endless, out of what goes on for too long; in the main thread, where alone a signal is heard."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def over(*_: object) -> None:
        raise Endless

    before = signal.signal(signal.SIGVTALRM, over)
    try:
        signal.setitimer(signal.ITIMER_VIRTUAL, CHECK_SECONDS)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    finally:
        signal.signal(signal.SIGVTALRM, before)


def run(made: Iterable[Made], known: Inputs) -> tuple[list[Finding], list[Missing]]:
    """What each of them finds, and which could say nothing."""
    found: list[Finding] = []
    missing: list[Missing] = []
    for one in made:
        try:
            with _bounded():
                finding = one.run(known)
        except Endless:
            found.append(Finding(one.id, "failed", f"the check itself came to no end within {CHECK_SECONDS:g} s"))
        except Unknown as why:
            missing.append(Missing(one.id, str(why), isinstance(why, Gone)))
        except Exception as error:  # a bug in one check must not hide what the others find
            found.append(Finding(one.id, "failed", f"the check itself broke: {error!r}"[:500]))
        else:
            found.append(finding)
    return found, missing
