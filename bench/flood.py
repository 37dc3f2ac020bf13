"""What a flood from one host does to another host's conduit: `make bench ARGS=--flood`, as root.

The scene of tests/prove/test_attack.py: the ERP host, which may read the device, floods the gate; the operator in the
same office, on another conduit, polls the same device. Printed: the operator's round trip before, during and
after each kind of flood, and how long a new connection takes.

The flooder is another machine. So it gets a core of its own (its packets are received there as well, as by the
interrupt of a network card), and gate, device and operator share the others, before the flood as during it.
`--together` leaves all of that to the kernel. Not here: other loads, other paths (run.py).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from processes import HERE, LOAD, BenchError, Process, build, build_load
from tests.enforce.site import DEVICE, ERP, NEAR, OVERLAY, Site, at, ip
from tests.gate.plant import Client, Gate
from tests.prove.attacked import OPERATOR

from cofferdam.enforce.putback import clean

FLOODER = HERE / "bin" / "flooder"
POLLS = 500
"""The operator's reads a second: a quick poller."""
NEW_EVERY = 0.02
"""Seconds from one new connection of the operator to the next."""
QUIET = "no flood"
FLOODS = {
    "made-up senders": ("forged any",),
    "operator's address": (f"forged {OPERATOR}",),
    "connections": ("connections",),
    "requests": ("requests",),
    "all at once": ("forged any", "connections", "requests"),
}


def policy(site: Site, limits: str = "") -> str:
    allow = "      - {{who: {who}, asset: [plc, near], registers: [holding 0-999]}}\n"
    text = site.text(
        rules=f"""  other:
    from: office
    to: plant
    broker: modbus
    owner: benchmark
    reason: another road, which must go on working
    allow:
{allow.format(who="operator")}"""
    )
    text = text.replace("      - {who: erp, asset: [plc, near], read: all, write: [speed]}\n", allow.format(who="erp"))
    text += f"limits: {{{limits}}}\n"
    return text.replace(
        f"  erp: {{zone: office, addresses: [{ERP}]}}\n",
        f"  erp: {{zone: office, addresses: [{ERP}]}}\n  operator: {{zone: office, addresses: [{OPERATOR}]}}\n",
    )


class Scene:
    """Office, gate and plant."""

    def __init__(self, site: Site, operator: str, cores: Sequence[int] | None, flooder_core: int) -> None:
        self.site = site
        self.operator = operator
        self._cores = cores
        self._flooder_core = flooder_core

    def inside(self, namespace: str) -> list[str]:
        return ["ip", "netns", "exec", namespace]

    def station(self) -> str:
        """The gate's MAC address on the office's wire."""
        self.site.client(NEAR, source=ERP).close()
        words = ip("-n", self.site.office, "neigh", "show", NEAR).split()
        return words[words.index("lladdr") + 1]

    @contextlib.contextmanager
    def flooding(self, kinds: Sequence[str]) -> Iterator[None]:
        station = self.station()
        made = []
        try:
            for kind in kinds:
                name, _, source = kind.partition(" ")
                how = ["net0", station, OVERLAY, source] if name == "forged" else [ERP, OVERLAY, NEAR]
                pin = ["taskset", "-c", str(self._flooder_core)] if self._cores else []
                command = [*pin, str(FLOODER), name, *how]
                made.append(Process(f"flooder {kind}", command, prefix=self.inside(self.site.office)))
            time.sleep(1)
            yield
            for process in made:
                if not process.running():
                    raise BenchError(f"{process.name} ended: {process.said()}")
        finally:
            for process in made:
                process.stop()

    def polling(self, seconds: float) -> dict[str, float]:
        """The operator's reads at a steady pace, in µs from when each was due."""
        command = [*self.inside(self.operator), str(LOAD), "client", "--connect", f"{NEAR}:502", "--clients", "1"]
        command += ["--rate", str(POLLS), "--seconds", str(seconds), "--warmup", "0.5", "--timeout", "5"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        try:
            found = json.loads(done.stdout)
        except ValueError:
            raise BenchError(f"the operator got no answer: {done.stderr.strip()}") from None
        latency = found["latency_us"]
        figures = {name: latency[key] for name, key in (("median", "median"), ("p99", "p99"), ("p99.9", "p99_9"))}
        return {"reads": found["transactions"], "errors": found["errors"], **figures}

    def arriving(self, seconds: float) -> dict[str, float]:
        """How long the operator takes to connect anew and read once, in µs."""
        found: list[float] = []
        failed = 0
        end = time.monotonic() + seconds
        while (now := time.monotonic()) < end:
            start = time.perf_counter()
            try:
                with at(self.operator):
                    client = Client(502, 5, address=NEAR)
                with client:
                    client.read()
                found.append((time.perf_counter() - start) * 1e6)
            except OSError:
                failed += 1
            time.sleep(max(0.0, now + NEW_EVERY - time.monotonic()))
        found.sort()
        at_rank = {name: round(found[min(len(found) - 1, int(len(found) * q))], 1) if found else float("inf")
                   for name, q in (("median", 0.5), ("p99", 0.99))}  # fmt: skip
        return {"connections": len(found), "failed": failed, **at_rank}


@contextlib.contextmanager
def scene(cores: Sequence[int] | None, flooder_core: int, limits: str = "") -> Iterator[Scene]:
    with tempfile.TemporaryDirectory(prefix="cofferdam-bench-") as folder, Site(Path(folder)) as site:
        Path(folder).chmod(0o755)
        # A station of its own on the same wire.
        operator = f"{site.office}-operator"
        ip("netns", "add", operator)
        ip("-n", site.office, "link", "add", "op0", "link", "net0", "type", "macvlan", "mode", "bridge")
        ip("-n", site.office, "link", "set", "op0", "netns", operator)
        ip("-n", operator, "addr", "add", f"{OPERATOR}/24", "dev", "op0")
        ip("-n", operator, "link", "set", "op0", "up")
        site.policy.write_text(policy(site, limits))
        listen = ["server", "--listen", f"{DEVICE}:502"]
        device = Process("device", [str(LOAD), *listen], prefix=["ip", "netns", "exec", site.plant], pipe=True)
        gate = Gate(site.state, site.policy)
        try:
            device.first_line()
            gate.wait_ready()
            yield Scene(site, operator, cores, flooder_core)
        finally:
            gate.stop()
            gate.close()
            clean(site.state)
            device.stop()
            ip("netns", "del", operator)


Row = dict[str, dict[str, float]]
"""One kind of flood in one round: what polling and arriving found."""


def rounds(made: Scene, args: argparse.Namespace) -> list[dict[str, Row]]:
    """In each round once without a flood, then once under each."""
    found: list[dict[str, Row]] = []
    made.polling(1)
    for number in range(args.rounds):
        found.append({})

        def measure(name: str, rows: dict[str, Row] = found[-1], number: int = number) -> None:
            print(f"round {number + 1} of {args.rounds}: {name} ...", file=sys.stderr)
            rows[name] = {"polling": made.polling(args.seconds), "arriving": made.arriving(args.seconds / 2)}

        measure(QUIET)
        for name, kinds in FLOODS.items():
            if args.only in (None, name):
                with made.flooding(kinds):
                    measure(name)
                time.sleep(1)
    return found


def show(found: list[dict[str, Row]]) -> None:
    """Medians of the rounds; ratios to the same round without a flood, with the lowest and the highest."""

    def median(name: str, what: str, figure: str) -> float:
        return statistics.median(rows[name][what][figure] for rows in found)

    def ratio(name: str, what: str) -> str:
        all_of = sorted(rows[name][what]["p99"] / rows[QUIET][what]["p99"] for rows in found)
        return f"{statistics.median(all_of):.2f} ({all_of[0]:.2f}-{all_of[-1]:.2f})"

    print(f"\n{'':20} {'polls, µs: median':>18} {'p99':>7} {'p99.9':>7} {'p99, times quiet':>20} "
          f"{'new connections: p99':>21} {'times quiet':>18} {'failed':>7}")  # fmt: skip
    for name in found[0]:
        failed = sum(rows[name]["arriving"]["failed"] + rows[name]["polling"]["errors"] for rows in found)
        print(f"{name:20} {median(name, 'polling', 'median'):18.0f} {median(name, 'polling', 'p99'):7.0f} "
              f"{median(name, 'polling', 'p99.9'):7.0f} {ratio(name, 'polling'):>20} "
              f"{median(name, 'arriving', 'p99'):21.0f} {ratio(name, 'arriving'):>18} {failed:7.0f}")  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=4.0, help="for each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--together", action="store_true", help="leave the choice of cores to the kernel")
    parser.add_argument("--only", choices=list(FLOODS), help="one kind of flood")
    parser.add_argument("--limits", default="", help='other limits than the default ones, as in a policy: "a: 1, b: 2"')
    args = parser.parse_args()
    if os.geteuid() != 0:
        print("flood: makes network namespaces, which needs root: sudo make bench ARGS=--flood", file=sys.stderr)
        return 1
    cores = sorted(os.sched_getaffinity(0))
    apart = not args.together and len(cores) > 1
    load_before = os.getloadavg()[0]
    try:
        build_load()
        build(FLOODER, [HERE / "flooder.c"])
        if apart:
            os.sched_setaffinity(0, cores[1:])  # inherited by gate, device and operator
        with scene(cores[1:] if apart else None, cores[0], args.limits) as made:
            found = rounds(made, args)
    except BenchError as error:
        print(f"flood: {error}{': ' + error.hint if error.hint else ''}", file=sys.stderr)
        return 1
    show(found)
    print(f"{len(cores)} cores, flooder {'on one of its own' if apart else 'anywhere'}; load before {load_before:.2f}")
    print(json.dumps({"cores": len(cores), "apart": apart, "load_before": load_before, "rounds": found}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
