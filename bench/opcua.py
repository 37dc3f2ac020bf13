"""OPC UA: reads of one node and of a hundred, through the gate and direct, by the same client and server (asyncua).

    python -m bench.opcua [--rounds N] [--reads N]

Prints a JSON line for each: medians in µs and their ratio. The two ways take turns, so that what else the machine does
falls on both. Not here: what others put between (HAProxy), several clients, security.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from asyncua import ua as types
from asyncua.client.client import Client
from tests.gate.plant import running
from tests.ports import held_ports
from tests.protocols.opcua.site import plant, policy

ua: Any = types
LINE = "urn:plant:line"


async def one_round(port: int, count: int, reads: int) -> float:
    """The median of so many reads of `count` nodes (µs)."""
    async with Client(f"opc.tcp://127.0.0.1:{port}", timeout=30) as client:
        index = (await client.get_namespace_array()).index(LINE)
        node = ua.ReadValueId(ua.NodeId("Line1.Speed", index), ua.AttributeIds.Value)
        asked = ua.ReadParameters(NodesToRead=[node] * count)
        taken: list[int] = []
        answer: Any = ()
        for number in range(reads + reads // 10):
            begin = time.perf_counter_ns()
            answer = await client.uaclient.read(asked)
            if number >= reads // 10:
                taken.append(time.perf_counter_ns() - begin)
        if len(answer) != count or not all(one.StatusCode.is_good() for one in answer):
            raise SystemExit("a read was not answered well")
        return statistics.median(taken) / 1000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--reads", type=int, default=300)
    args = parser.parse_args()
    logging.getLogger("asyncua").setLevel(logging.CRITICAL)
    plant_port, port = held_ports(2)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "policy.yaml"
        file.write_text(policy(plant_port, port))
        with plant(plant_port), running(Path(folder) / "state", file):
            for count in (1, 100):
                found: dict[str, list[float]] = {"direct": [], "gate": []}
                for _ in range(args.rounds):
                    for way, where in (("direct", plant_port), ("gate", port)):
                        found[way].append(asyncio.run(one_round(where, count, args.reads)))
                direct, gate = (statistics.median(found[way]) for way in ("direct", "gate"))
                print(json.dumps({"nodes": count, "direct_us": round(direct), "gate_us": round(gate),
                                  "ratio": round(gate / direct, 2)}), flush=True)  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
