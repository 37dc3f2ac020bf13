"""The audit log: durable entries a second by size of a group, latency of a commit, time to verify.

    python -m bench.audit [--folder DIR] [--json FILE] [--verify ENTRIES]

The folder should be on the disk that the gate will use: what is measured is mostly that disk.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from cofferdam.audit.entry import Draft
from cofferdam.audit.events.access import PointValue, WriteAllowed, Written
from cofferdam.audit.files import DirFiles
from cofferdam.audit.log import AuditLog
from cofferdam.audit.recovery import open_log
from cofferdam.audit.verify import verify_log

TOOL = Path(__file__).resolve().parent.parent / "tools" / "verify_audit.py"
SECONDS = 4.0


def draft(number: int) -> Draft:
    """A write as the proxy records it."""
    return WriteAllowed(
        wall_ns=time.time_ns(),
        session=f"modbus/enterprise-control:{number % 50}",
        write=f"w{number}",
        principals=("operators",),
        source="10.1.5.9",
        asset="plc-7",
        conduit="pump-setpoint",
        rule="pump-setpoint/0",
        function=6,
        unit=1,
        writes=(Written("holding", 200, (number % 1500,)),),
        points=(PointValue("pump_speed", str(number % 1500), "rpm"),),
    )


def opened(folder: Path) -> AuditLog:
    return open_log(folder / "audit", folder / "keys" / "audit.key", site="bench")


def group_size(folder: Path, size: int, seconds: float) -> dict[str, float]:
    """Append groups of one size for a while, publishing as a gate does."""
    log = opened(folder)
    policy = "ab" * 32
    decoder = msgspec.msgpack.Decoder(tuple[Draft, ...])
    record = msgspec.msgpack.encode([draft(n) for n in range(size)])
    begun, count = time.perf_counter(), 0
    while (spent := time.perf_counter() - begun) < seconds:
        batch = decoder.decode(record)  # as they come from a half, over a pipe
        log.append(batch, maker="modbus/enterprise-control/inner", policy=policy)
        log.tick()
        count += size
    commits = log.commits
    result: dict[str, float] = {
        "group": size,
        "entries_per_second": round(count / spent),
        "commits": commits.count,
        "median_us": round(commits.quantile(0.5) / 1e3),
        "p99_us": round(commits.quantile(0.99) / 1e3),
        "p999_us": round(commits.quantile(0.999) / 1e3),
        "max_us": round(commits.max / 1e3),
    }
    log.close()
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--folder", type=Path, help="where to write (default: a new folder in /var/tmp)")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--verify", type=int, default=1_000_000, metavar="ENTRIES")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for each size of a group")
    args = parser.parse_args()
    base = Path(tempfile.mkdtemp(prefix="cofferdam-bench-", dir=args.folder or "/var/tmp"))
    try:
        groups = []
        for size in (1, 8, 32, 128, 256, 512, 1024, 4096):
            groups.append(group_size(base / str(size), size, args.seconds))
            line = "group {group:>5}: {entries_per_second:>8,} entries/s   commit median {median_us:>6,} us"
            print((line + "  p99 {p99_us:>6,}  p99.9 {p999_us:>6,}  max {max_us:>6,}").format(**groups[-1]), flush=True)
            shutil.rmtree(base / str(size))
        folder = base / "large"
        log = opened(folder)
        while log.size < args.verify:
            log.append([draft(log.size + n) for n in range(min(4096, args.verify - log.size))], maker="inner")
        log.close()
        begun = time.perf_counter()
        report = verify_log(DirFiles(folder / "audit"), log.key.verifier)
        product = time.perf_counter() - begun
        begun = time.perf_counter()
        subprocess.run(
            [sys.executable, str(TOOL), str(folder / "audit"), "--key", str(folder / "keys" / "audit.pub")], check=True
        )
        alone = time.perf_counter() - begun
        begun = time.perf_counter()
        opened(folder).close()
        reopened = time.perf_counter() - begun
        print(f"verify {report.checked:,} entries: {product:.2f} s, stand-alone {alone:.2f} s")
        print(f"open and close: {reopened:.2f} s")
        if not report.good:
            print(report.findings)
            return 1
        if args.json:
            args.json.write_text(
                json.dumps(
                    {
                        "groups": groups,
                        "verify": {"entries": report.checked, "seconds": product, "alone_seconds": alone},
                        "open_seconds": reopened,
                    },
                    indent=2,
                )
            )
    finally:
        shutil.rmtree(base, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
