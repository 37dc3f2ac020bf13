"""Several may ask for a process at once, as a test with two gates does."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from tests.nursery import bear
from tests.waiting import PATIENT

THREADS = 4


def test_several_threads_bear_and_wait() -> None:
    together = Barrier(THREADS)

    def one(number: int) -> int:
        together.wait(PATIENT)
        child = bear(("-c", f"raise SystemExit({number})", "CHECK = 1\n"), ["--kind", "x", "--part", "y"], [], 2)
        assert child is not None
        return child.wait(PATIENT)

    with ThreadPoolExecutor(THREADS) as pool:
        assert list(pool.map(one, range(THREADS))) == list(range(THREADS))
