"""OPC UA through the gate beside HAProxy, which passes the bytes: Reads without security by a load generator, answered
by the device of load.c (opcua.c). The three ways take turns.

Started by opcua.py (`--only peers`). Not here: clients and servers by others (opcua).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.processes import LOAD, BenchError, Process, build_load, haproxy, held_port, timed_reads
from tests.gate.plant import Gate, running

HERE, NODES = "127.0.0.1", 100
READS = {
    "read of one node": ["--clients=1"], "read of 100 nodes": ["--clients=1", "--nodes=100"],
    "32 clients": ["--clients=32"],
}  # fmt: skip
"""What is asked of the device, as the load generator is told."""
RATIOS = {"median": "median_us", "per_second": "per_second", "cpu": "cpu_us"}


def policy(device: int, listen: int) -> str:
    """All that the device has may be read."""
    points = {f"n{one}": {"at": f"nsu=urn:bench;s=Line1.N{one}", "type": "Double"} for one in range(NODES)}
    line = {
        "zone": "plant", "address": HERE, "port": device, "protocol": "opcua", "listen": f"{HERE}:{listen}",
        "outstanding": 16, "security": {"clients": "none", "asset": "none"}, "points": points,
    }  # fmt: skip
    conduit = {
        "from": "office", "to": "plant", "broker": "opcua", "owner": "bench", "reason": "bench",
        "allow": [{"who": "bench", "asset": "line", "read": "all"}],
    }  # fmt: skip
    return json.dumps({
        "site": "bench", "zones": {"office": {"side": "it"}, "plant": {"side": "ot"}}, "assets": {"line": line},
        "principals": {"bench": {"zone": "office", "addresses": [HERE]}}, "conduits": {"road": conduit},
        "limits": {"client_requests_per_second": 100_000},
    })  # fmt: skip


@contextlib.contextmanager
def ways() -> Iterator[dict[str, tuple[int, list[int]]]]:
    """The ways to the device: where each answers, and the processes that it is made of. Raises: BenchError."""
    with tempfile.TemporaryDirectory(prefix="cofferdam-bench-") as name, contextlib.ExitStack() as ends:
        folder = Path(name)
        device_port, port, between = (held_port(HERE) for _ in range(3))
        device = Process("device", [str(LOAD), "server", "--opcua", "--listen", f"{HERE}:{device_port}"], pipe=True)
        ends.callback(device.stop)
        device.first_line()
        found = {"direct": (device_port, [device.pid])}
        if shutil.which("haproxy"):
            proxy = Process("haproxy", haproxy(folder, f"{HERE}:{between}", f"{HERE}:{device_port}"))
            ends.callback(proxy.stop)
            found["haproxy"] = (between, [proxy.pid])
        file = folder / "policy.yaml"
        file.write_text(policy(device_port, port))
        pids = ends.enter_context(running(folder / "state", file, kind=Gate)).pids()
        found["gate"] = (port, [pids["outer"], pids["inner"]])
        yield found


def main(rounds: int, seconds: float) -> int:
    """Prints a JSON line for each kind of load: medians of the rounds, and the gate's in ratio to HAProxy's, or to
    direct where there is none."""
    try:
        build_load()
        with ways() as there:
            for what, words in READS.items():
                found: dict[str, list[dict[str, float]]] = {way: [] for way in there}
                for number in range(rounds):
                    for way in list(there)[:: -1 if number % 2 else 1]:
                        port, pids = there[way]
                        found[way].append(timed_reads((HERE, port), seconds, ["--opcua", *words], *pids))
                medians = {
                    way: {name: round(statistics.median([one[name] for one in each]), 1) for name in each[0]}
                    for way, each in found.items()
                }
                base = "haproxy" if "haproxy" in medians else "direct"
                ratios = {
                    f"{name}_ratio": round(medians["gate"][figure] / medians[base][figure], 2)
                    for name, figure in RATIOS.items()
                }
                print(json.dumps({"peers": what, **medians, "beside": base, **ratios}), flush=True)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    args = parser.parse_args()
    sys.exit(main(args.rounds, args.seconds))
