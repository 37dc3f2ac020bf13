"""What a flood from one host does to another host's conduit: `python bench/flood.py [SECONDS]`, as root.

The same scene as tests/prove/test_attack.py: the ERP host floods the gate with connections, with SYNs from made-up
addresses and with requests, while the operator reads. Printed: the operator's round trip before, during and after.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.enforce.site import ERP, NEAR, OVERLAY, at
from tests.gate.plant import Gate
from tests.prove.attacked import OPERATOR, Scene, attacked

from cofferdam.enforce.plans import frames
from cofferdam.lab.intruder import adu

FLOODS = ("connections", "forged", "requests")


def measure(scene: Scene, seconds: float) -> dict[str, float]:
    """The operator's reads one after the other, in µs."""
    found: list[float] = []
    lost = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError), scene.site.client(NEAR, source=OPERATOR, timeout=5) as client:
            while time.monotonic() < end:
                start = time.perf_counter()
                client.read()
                found.append((time.perf_counter() - start) * 1e6)
            break
        lost += 1
    found.sort()
    at_rank = {name: found[min(len(found) - 1, int(len(found) * q))] for name, q in
               (("median", 0.5), ("p99", 0.99), ("p99.9", 0.999))}  # fmt: skip
    return {"reads": len(found), "connections lost": lost, **{name: round(v, 1) for name, v in at_rank.items()}}


def flood(kind: str, namespace: str, gate: str) -> None:
    """Until it is ended; a process of its own. It yields the processor to the gate, as a host elsewhere would."""
    os.nice(19)
    with at(namespace):
        if kind == "connections":
            held: list[socket.socket] = []
            while True:
                sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
                with contextlib.suppress(OSError):
                    sock.bind((ERP, 0))
                    sock.connect_ex((OVERLAY, 502))
                held.append(sock)
                if len(held) > 400:
                    held.pop(0).close()
        if kind == "forged":
            rng = random.Random(1)
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
                raw.bind(("net0", 0))
                own = raw.getsockname()[4].hex(":")
                while True:
                    source = f"10.81.0.{rng.randrange(100, 250)}"
                    target = frames.Target(own, (gate,), source, (OVERLAY,), "fd00::1", (), 502)
                    for family in ("ipv4-tcp", "ipv4-udp", "ipv4-icmp"):
                        with contextlib.suppress(OSError):
                            raw.send(frames.frames(family, target, b"flood-flood-")[0])
        while True:
            with contextlib.suppress(OSError), socket.create_connection((OVERLAY, 502), 3, (ERP, 0)) as sock:
                while True:
                    sock.sendall(adu(b"\x03\0\0\0\x01") * 50)
                    sock.recv(65536)


@contextlib.contextmanager
def flooding(scene: Scene, kinds: tuple[str, ...]) -> Iterator[None]:
    with scene.raw() as (_, _, gate):
        pass
    command = [sys.executable, __file__, "--flood"]
    made = [subprocess.Popen([*command, kind, scene.site.office, gate]) for kind in kinds]
    try:
        time.sleep(1)
        yield
    finally:
        for process in made:
            process.kill()
            process.wait()


def main() -> None:
    if sys.argv[1:2] == ["--flood"]:
        flood(*sys.argv[2:5])
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 5.0
    results: dict[str, dict[str, float]] = {}
    with attacked(lambda site: Gate(site.state, site.policy)) as scene:
        measure(scene, 1)
        results["before"] = measure(scene, seconds)
        for kind in FLOODS:
            with flooding(scene, (kind,)):
                results[kind] = measure(scene, seconds)
        with flooding(scene, FLOODS):
            results["all at once"] = measure(scene, seconds)
        results["after"] = measure(scene, seconds)
    for name, figures in results.items():
        factor = figures["p99"] / results["before"]["p99"]
        print(f"{name:12} {figures}  p99 {factor:.1f} times that before")
    print(json.dumps({"cores": os.cpu_count(), "results": results}))


if __name__ == "__main__":
    main()
