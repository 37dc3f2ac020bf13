"""A policy for the plant (plant), and the plant's process, for tests with a real gate."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

RULES = (
    "{who: mes, asset: filler, read: [speed, level, counts], subscribe: [level], write: [speed], call: [reset], "
    "history: [level]}"
)
MES = "mes: {zone: office, addresses: [127.0.0.1]}"


def policy(
    plant: int, listen: int, *rules: str, security: str = "{clients: none, asset: none}", who: tuple[str, ...] = (MES,)
) -> str:
    """The text; `plant` and `listen` are ports."""
    lines = [
        "site: riverside", "zones:", "  office: {side: it}", "  plant: {side: ot}", "assets:", "  filler:",
        "    zone: plant", "    address: 127.0.0.1", f"    port: {plant}", "    protocol: opcua",
        f'    listen: "127.0.0.1:{listen}"', f"    security: {security}", "    outstanding: 8", "    timeout: 5 s",
        "    points:",
        '      speed: {at: "nsu=urn:plant:line;s=Line1.Speed", type: Double, min: 0, max: 1500, max_step: 500}',
        '      level: {at: "nsu=urn:plant:line;s=Line1.Level", type: Double, fastest: 50 ms}',
        '      recipe: {at: "nsu=urn:plant:line;s=Line1.Recipe", type: String, max_length: 8}',
        '      counts: {at: "nsu=urn:plant:line;s=Line1.Counts", type: Int32, elements: 4}',
        "    methods:",
        "      reset:",
        '        at: "nsu=urn:plant:line;s=Line1 -> nsu=urn:plant:line;s=Line1.Reset"',
        "        arguments: [{name: count, type: Int32, min: 0, max: 10}]",
        "principals:", *(f"  {one}" for one in who),
        "conduits:", "  mes-sees-line:", "    from: office", "    to: plant", "    broker: opcua",
        "    owner: production", "    reason: OEE", "    allow:", *(f"      - {rule}" for rule in rules or (RULES,)),
    ]  # fmt: skip
    return "\n".join([*lines, ""])


@contextlib.contextmanager
def plant(port: int, *options: str | Path) -> Iterator[subprocess.Popen[str]]:
    """The plant's server, ready; ended afterwards."""
    command = [sys.executable, str(Path(__file__).with_name("plant.py")), str(port), *map(str, options)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
