"""Appends to a log as fast as it can and prints the last index that is durable. For the kill test."""

from __future__ import annotations

import random
import sys
from pathlib import Path

from cofferdam.audit.recovery import open_log
from tests.audit.conftest import write


def main() -> None:
    folder, seed = Path(sys.argv[1]), int(sys.argv[2])
    choose = random.Random(seed)
    log = open_log(folder / "audit", folder / "keys/audit.key", site="riverside", interval_ns=20_000_000)
    number = 0
    while True:
        count = choose.choice((1, 2, 7, 60, 300))
        done = log.append([write(number + n) for n in range(count)], maker="inner")
        number += count
        sys.stdout.write(f"{done.stop - 1} {number - 1}\n")
        sys.stdout.flush()
        log.tick()


if __name__ == "__main__":
    main()
