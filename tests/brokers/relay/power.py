"""A keeper's bench whose power can fail: then the store is what its files were when they were last synced, and the log
has what the auditor has made of what it was sent. What the system would have written by itself by then is not there:
nobody may rely on that."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.brokers.relay.keeping import Bench


class PowerCut(Exception):
    """It fails now."""


class Killed(Exception):
    """The keeper is killed now."""


class PoweredBench(Bench):
    """`in_sync`: what is done before the disk has what the keeper waits for."""

    in_sync: Callable[[], None] | None = None
    before: Callable[[str], None] = staticmethod(lambda _: None)
    """Called with each statement before the store runs it, and with "" before it syncs."""

    def __init__(self, folder: Path, *args: Any, **named: Any) -> None:
        self.durable = folder / "durable"
        super().__init__(folder, *args, **named)

    def start(self, *, works: bool = True) -> None:
        super().start(works=works)  # which has opened the store and synced what it found
        store = self.keeper._work.store
        sync = store.sync

        def synced() -> None:
            self.before("")
            if self.in_sync is not None:
                self.in_sync()
            sync()
            self.keep()

        def ran(sql: str, *values: Any) -> Any:
            self.before(sql)
            return run(sql, *values)

        def ran_each(sql: str, values: Any) -> None:
            self.before(sql)
            run_each(sql, values)

        run, run_each = store.run, store.run_each
        store.sync, store.run, store.run_each = synced, ran, ran_each  # type: ignore[method-assign]
        self.keep()

    def keep(self) -> None:
        """The disk has the store as it is now."""
        shutil.rmtree(self.durable, ignore_errors=True)
        shutil.copytree(self.store, self.durable)

    def cut_in_sync(self, cause: Callable[[], object]) -> bool:
        """Lets the power fail when the keeper next waits for the disk, after `cause`. False: it did not wait."""

        def cut() -> None:
            raise PowerCut

        self.in_sync = cut
        cause()
        try:
            self.run()
        except PowerCut:
            return True
        finally:
            self.in_sync = None
        return False

    def power_fails(self, *, lost: bool = False) -> None:
        """`lost`: the log has nothing of what was under way either."""
        copy = self.folder / f"store-{next(self._lives) + 1}"
        shutil.copytree(self.durable, copy)
        self.keeper.halt()
        with contextlib.suppress(PowerCut):
            self.reactor.turn(0)  # what has left arrives
        self.log.held = False
        self.log.record(lost=lost)
        self.store = copy
