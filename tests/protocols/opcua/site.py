"""A policy for the plant (plant), and the plant's process, for tests with a real gate."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cofferdam.cli.main import main

RULES = (
    "{who: mes, asset: filler, read: [speed, level, counts], subscribe: [level], write: [speed], call: [reset], "
    "history: [level], events: [alarms]}"
)
MES = "mes: {zone: office, addresses: [127.0.0.1]}"


def policy(
    plant: int,
    listen: int,
    *rules: str,
    security: str = "{clients: none, asset: none}",
    who: tuple[str, ...] = (MES,),
    reverse: str = "",
) -> str:
    """The text; `plant` and `listen` are ports. `reverse`: the asset's, where the plant's port is 0."""
    lines = [
        "site: riverside", "limits: {asset_connect_seconds: 60, audit_wait_seconds: 60, client_wait_seconds: 60}",
        "zones:", "  office: {side: it}", "  plant: {side: ot}", "assets:", "  filler:",
        "    zone: plant", "    address: 127.0.0.1", *([f"    port: {plant}"] if plant else []),
        *([f"    reverse: {reverse}"] if reverse else []), "    protocol: opcua",
        f'    listen: "127.0.0.1:{listen}"', f"    security: {security}", "    outstanding: 8", "    timeout: 20 s",
        "    points:",
        '      speed: {at: "nsu=urn:plant:line;s=Line1.Speed", type: Double, min: 0, max: 1500, max_step: 500}',
        '      level: {at: "nsu=urn:plant:line;s=Line1.Level", type: Double, fastest: 50 ms}',
        '      recipe: {at: "nsu=urn:plant:line;s=Line1.Recipe", type: String, max_length: 8}',
        '      counts: {at: "nsu=urn:plant:line;s=Line1.Counts", type: Int32, elements: 4}',
        '      limits: {at: "nsu=urn:plant:line;s=Line1.Limits", type: ByteString, structure: "i=886", max_length: 64}',
        '      title: {at: "nsu=urn:plant:line;s=Line1.Title", type: String, max_length: 8}',
        '      due: {at: "nsu=urn:plant:line;s=Line1.Due", type: DateTime, min: 2027-01-01,',
        '            max: "2027-12-31T23:59:59Z"}',
        '      order: {at: "nsu=urn:plant:line;s=Line1.Order", type: Guid}',
        '      target: {at: "nsu=urn:plant:line;s=Line1.Target", type: NodeId, max_length: 40}',
        '      verdict: {at: "nsu=urn:plant:line;s=Line1.Verdict", type: StatusCode}',
        '      topic: {at: "nsu=urn:plant:line;s=Line1.Topic", type: QualifiedName, max_length: 30}',
        '      grid: {at: "nsu=urn:plant:line;s=Line1.Grid", type: Double, dimensions: [2, 3], min: 0, max: 9}',
        "    methods:",
        "      reset:",
        '        at: "nsu=urn:plant:line;s=Line1 -> nsu=urn:plant:line;s=Line1.Reset"',
        "        arguments: [{name: count, type: Int32, min: 0, max: 10}]",
        "        returns: [{name: calls, type: Int32}]",
        "      rinse:",
        '        at: "nsu=urn:plant:line;s=Line1 -> nsu=urn:plant:line;s=Line1.Rinse"',
        "        arguments: [{name: count, type: Int32, min: 0, max: 10}]",
        "        returns: [{name: note, type: String}]",
        "    notifiers:",
        '      alarms: {at: "nsu=urn:plant:line;s=Line1", fields: [default, "nsu=urn:plant:line;Batch"]}',
        '      brief: {at: "nsu=urn:plant:line;s=Line1", fields: [Message, Severity]}',
        "principals:", *(f"  {one}" for one in who),
        "conduits:", "  mes-sees-line:", "    from: office", "    to: plant", "    broker: opcua",
        "    owner: production", "    reason: OEE", "    allow:", *(f"      - {rule}" for rule in rules or (RULES,)),
    ]  # fmt: skip
    return "\n".join([*lines, ""])


NODE = Path(__file__).with_name("node")
"""Peers by others, in another language: `npm ci` in this folder brings what they need."""


def node_missing() -> str:
    """Why there are no such peers here; "" if there are."""
    if shutil.which("node") is None:
        return "there is no node"
    return "" if (NODE / "node_modules" / "node-opcua").is_dir() else f"`npm ci` was not said in {NODE.name}"


def plant(port: int, *options: str | Path | float) -> contextlib.AbstractContextManager[subprocess.Popen[str]]:
    """The plant's server (asyncua), ready; ended afterwards."""
    return _server(sys.executable, str(Path(__file__).with_name("plant.py")), str(port), *map(str, options))


def node_plant(port: int, *options: Path | str) -> contextlib.AbstractContextManager[subprocess.Popen[str]]:
    """The same by node-opcua."""
    return _server("node", str(NODE / "server.js"), str(port), *map(str, options))


def node_client(*runs: dict[str, Any]) -> list[dict[str, Any]]:
    """What a client by node-opcua finds out in each run (node/client.js)."""
    command = ["node", str(NODE / "client.js"), json.dumps(runs)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def pki(*words: str | Path) -> tuple[int, str, str]:
    """Runs `cofferdam pki ...` in this process: exit code, stdout, stderr."""
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        code = main(["pki", *map(str, words)])
    return code, out.getvalue(), error.getvalue()


@contextlib.contextmanager
def _server(*command: str) -> Iterator[subprocess.Popen[str]]:
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
