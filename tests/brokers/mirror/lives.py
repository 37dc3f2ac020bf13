"""`python -m tests.brokers.mirror.lives`: lives of a spooler and a keeper on a disk that fails or kills.

Each line of the input is a case: a folder, a part, and what its disk does (`disk.c`). A life is a fork of this process,
so that it costs no start. It says what the spooler has acknowledged, the keeper's alarms, and how it ended. Not here:
what has to be there afterwards (test_disk).
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from cofferdam.brokers.mirror.columns import HOUR_NS
from cofferdam.errors import StoreError
from tests.brokers.mirror.pairing import NOW, Pair, batch

BATCHES, ROWS = 6, 4
TAGS = ("tank_a", "flow_b")


def rows(number: int) -> list[tuple[str, int, float]]:
    """Of batch `number`: some hours of two tags."""
    return [(tag, NOW - HOUR_NS * (number % 3) + number * 100 + n, number + n / 7) for n in range(ROWS) for tag in TAGS]


def live(folder: Path) -> None:
    """Batches come, cross and are sealed; each word is said once it holds."""
    pair = Pair(folder)
    pair.back()
    for number in range(BATCHES):
        before = pair.stored
        pair.offer(batch("backfill" if number == 3 else "live", rows(number)))
        if pair.stored > before:
            print("stored", number, flush=True)
        pair.forth()
        pair.back()
        if number in (2, 4):
            pair.seal()
        for part in (pair.spooler, pair.keeper):
            part.tick()
            for name in part.alarms():
                print("alarm", name, flush=True)
        pair.turn()
    print("end", flush=True)


def main() -> None:
    for line in sys.stdin:
        case = json.loads(line)
        reads, says = os.pipe()
        child = os.fork()
        if not child:
            os.dup2(says, 1)
            folder = Path(case["folder"])
            calls = os.open(folder / "calls", os.O_WRONLY | os.O_CREAT)
            disk = {"file": f"{folder}/{case['part']}/", "tell": str(calls), **case["disk"]}
            os.environ.update({f"DISK_{name.upper()}": value for name, value in disk.items()})
            try:
                live(folder)
            except StoreError as error:
                print("ended", error, flush=True)
                os._exit(3)
            os._exit(0)
        os.close(says)
        with os.fdopen(reads) as said:
            words = said.read().splitlines()
        _, status = os.waitpid(child, 0)
        print(json.dumps({"code": os.waitstatus_to_exitcode(status), "said": words}), flush=True)


if __name__ == "__main__":
    main()
