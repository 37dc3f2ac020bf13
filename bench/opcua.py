"""OPC UA: reads through the gate and direct by the same client and server (asyncua), the codec beside asyncua's, and
the outer half's memory for sessions with items.

    python -m bench.opcua [--only peers|codec|reads|many] [--rounds N] [--reads N] [--sessions N] [--seconds N]

Prints a JSON line for each: medians in µs and their ratio, with the CPU time of each half for a request. The two ways
take turns, so that what else the machine does falls on both; its load is told first. Before comes what others put
between (HAProxy), with a client and a server in C (opcua_peers), afterwards come many of them (opcua_many).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from asyncua import ua as types
from asyncua.client.client import Client
from bench import opcua_many, opcua_peers
from tests.gate.plant import cli, running
from tests.ports import held_ports
from tests.protocols.opcua.certificates import make
from tests.protocols.opcua.site import plant, policy

from cofferdam.enforce import compiled

ua: Any = types
LINE = "urn:plant:line"
CODEC = Path(__file__).with_name("opcua_codec.py")


HERTZ = os.sysconf("SC_CLK_TCK")


def cpu_of(pid: int) -> float:
    """CPU time that a process has used (µs)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / HERTZ * 1e6


def memory_of(pid: int) -> int:
    """Memory of its own that a process has (bytes)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024


async def one_round(port: int, count: int, reads: int, keys: Path | None) -> float:
    """The median of so many reads of `count` nodes (µs). `keys`: a folder with what a secured client needs."""
    client = Client(f"opc.tcp://127.0.0.1:{port}", timeout=30)
    if keys is not None:
        client.application_uri = "urn:mes"
        own = f"{keys / 'mes' / 'own.der'},{keys / 'mes' / 'own.pem'}"
        await client.set_security_string(f"Basic256Sha256,SignAndEncrypt,{own}")
    async with client:
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


async def held(port: int, sessions: int, items: int, outer: int) -> float:
    """Memory of the outer half for each of so many sessions with so many items (bytes)."""
    async with contextlib.AsyncExitStack() as stack:
        found = []
        for number in range(2 * sessions):
            if number == sessions:  # the first ones have the half make what it needs once
                found.append(memory_of(outer))
            client = await stack.enter_async_context(Client(f"opc.tcp://127.0.0.1:{port}", timeout=30))
            subscription: Any = await client.create_subscription(10_000, Silent())
            index = (await client.get_namespace_array()).index(LINE)
            node = client.get_node(ua.NodeId("Line1.Level", index))
            made = await subscription.subscribe_data_change([node] * items, sampling_interval=10_000)
            if not all(isinstance(one, int) for one in made):
                raise SystemExit("an item was refused")
        return (memory_of(outer) - found[0]) / sessions


class Silent:
    """Whoever wants no news."""

    def datachange_notification(self, *_args: Any) -> None:
        return


def reads(args: argparse.Namespace, folder: Path, secured: bool) -> None:
    """Reads of one node and of a hundred, both ways."""
    folder.mkdir()
    plant_port, port = held_ports(2)
    file, state = folder / "policy.yaml", folder / "state"
    options: tuple[Any, ...] = ()
    if secured:
        make(folder / "mes", "urn:mes")
        options = ("secure", make(folder / "plant", "urn:plant:server"))
    words = "{clients: Basic256Sha256, asset: Basic256Sha256}" if secured else "{clients: none, asset: none}"
    file.write_text(policy(plant_port, port, security=words))
    if secured:
        said = ("--policy", file, "--state", state)
        for verb in (("new",), ("trust", "--side", "outer", "--file", folder / "mes" / "own.der"),
                     ("trust", "--side", "inner", "--file", folder / "plant" / "own.der")):  # fmt: skip
            code, _, error = cli("pki", *verb, *said)
            if code:
                raise SystemExit(error)
    with plant(plant_port, *options), running(state, file) as gate:
        pids = gate.pids()
        for count in (1, 100):
            found: dict[str, list[float]] = {"direct": [], "gate": []}
            used = {"outer": 0.0, "inner": 0.0}
            for _ in range(args.rounds):
                for way, where in (("direct", plant_port), ("gate", port)):
                    before = {half: cpu_of(pids[half]) for half in used}
                    keys = folder if secured else None
                    found[way].append(asyncio.run(one_round(where, count, args.reads, keys)))
                    if way == "gate":
                        used = {half: used[half] + cpu_of(pids[half]) - before[half] for half in used}
            direct, through = (statistics.median(found[way]) for way in ("direct", "gate"))
            each = args.rounds * (args.reads + args.reads // 10)
            cpu = {f"{half}_cpu_us": round(us / each) for half, us in used.items()}
            print(json.dumps({"nodes": count, "secured": secured, "direct_us": round(direct), "gate_us": round(through),
                              "ratio": round(through / direct, 2), **cpu}), flush=True)  # fmt: skip
        if not secured:
            each_session = asyncio.run(held(port, args.sessions, 100, pids["outer"]))
            print(
                json.dumps({"sessions": args.sessions, "items": 100, "kib_each": round(each_session / 1024)}),
                flush=True,
            )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--reads", type=int, default=300)
    parser.add_argument("--sessions", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=2.0, help="of one measurement with peers in C")
    parser.add_argument("--only", choices=("peers", "codec", "reads", "many"), help="one part alone")
    args = parser.parse_args()
    logging.getLogger("asyncua").setLevel(logging.CRITICAL)
    print(json.dumps({"load": round(os.getloadavg()[0], 1), "cores": os.cpu_count()}), flush=True)
    if args.only in (None, "peers") and (failed := opcua_peers.main(args.rounds, args.seconds)):
        return failed
    if args.only in (None, "codec"):
        build = compiled.find()
        how = [build.arguments[0], "--run"] if build.is_compiled else []
        subprocess.run([sys.executable, *(["-I"] if how else []), *how, str(CODEC)], check=True)
    if args.only in (None, "reads"):
        with tempfile.TemporaryDirectory() as name:
            for secured in (False, True):
                reads(args, Path(name) / ("secured" if secured else "plain"), secured)
    return opcua_many.main([]) if args.only in (None, "many") else 0


if __name__ == "__main__":
    sys.exit(main())
