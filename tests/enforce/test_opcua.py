"""Reverse connect with network namespaces, firewall and users: what the policy names comes and goes, and the proof asks
for that and no more."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.enforce.site import DEVICE, ERP, GATE_IT, GATE_OT, Site, at, ip, netns
from tests.gate.plant import cli, running
from tests.waiting import PATIENT, eventually

pytestmark = netns
SERVER, CALLS_AT, SHOWN, CLIENT, NEAR = 24840, 24842, 24841, 24845, 24846
POLICY = """
site: {name}
zones:
  office: {{side: it, interface: {it}, addresses: [{gate_it}/24]}}
  plant: {{side: ot, interface: {ot}, addresses: [{gate_ot}/24]}}
assets:
  filler:
    {{zone: plant, address: {device}, protocol: opcua, listen: "{gate_it}:{shown}", timeout: 20 s,
     security: {{clients: none, asset: none}},
     reverse: {{listen: "{gate_ot}:{calls_at}", clients: "{erp}:{client}"}},
     points: {{speed: {{at: "nsu=urn:plant:line;s=Line1.Speed", type: Double}}}}}}
principals:
  mes: {{zone: office, addresses: [{erp}]}}
conduits:
  line: {{from: office, to: plant, broker: opcua, owner: a, reason: b,
         allow: [{{who: mes, asset: filler, read: [speed]}}]}}
"""
CALLS = """
import threading
from tests.protocols.opcua.reversed import Caller
Caller({server}, {calls_at}, host="{gate_ot}")
print("ready", flush=True)
threading.Event().wait()
"""
READS = """
import asyncio, time
from asyncua import ua
from asyncua.client.client import Client
from tests.protocols.opcua.reversed import Answerer

async def main():
    async with Client("opc.tcp://127.0.0.1:{near}", timeout={patient}) as client:
        index = (await client.get_namespace_array()).index("urn:plant:line")
        return await client.get_node(ua.NodeId("Line1.Speed", index)).read_value()

with Answerer({client}, {near}, host="{erp}"):
    while True:  # until the server has connected
        try:
            print(asyncio.run(main()))
            break
        except ua.UaStatusCodeError:
            time.sleep(0.05)
"""
NAMES = {
    "device": DEVICE, "erp": ERP, "gate_it": GATE_IT, "gate_ot": GATE_OT, "server": SERVER, "calls_at": CALLS_AT,
    "shown": SHOWN, "client": CLIENT, "near": NEAR, "patient": PATIENT,
}  # fmt: skip


@contextlib.contextmanager
def program(namespace: str, *words: str) -> Iterator[None]:
    """A program in a namespace, ready."""
    command = ["ip", "netns", "exec", namespace, sys.executable, *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        yield
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def test_a_server_connects_and_a_client_is_connected_to_through_the_walls(site: Site) -> None:
    for namespace in (site.office, site.plant):
        ip("-n", namespace, "link", "set", "lo", "up")
    ip("-n", site.plant, "addr", "add", "10.82.0.99/24", "dev", "net0")
    site.policy.write_text(POLICY.format(name=site.name, it=site.it, ot=site.ot, **NAMES))
    with contextlib.ExitStack() as stack:
        stack.enter_context(program(site.plant, "-m", "tests.protocols.opcua.plant", str(SERVER)))
        stack.enter_context(running(site.state, site.policy))
        stack.enter_context(program(site.plant, "-c", CALLS.format(**NAMES)))
        command = ["ip", "netns", "exec", site.office, sys.executable, "-c", READS.format(**NAMES)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=2 * PATIENT, check=False)
        assert done.stdout.strip() == "100.0", done.stderr[-2000:]
        with at(site.plant), socket.socket() as stranger:
            stranger.settimeout(1.5)
            stranger.bind(("10.82.0.99", 0))
            with pytest.raises(TimeoutError):
                stranger.connect((GATE_OT, CALLS_AT))

        def proved() -> bool:
            code, said, error = cli("prove", "--json", "--no-probes", "--state", site.state)
            found = json.loads(said)
            failed = [one for one in found["report"]["statements"] if one["status"] == "failed"]
            assert not failed and code == 0, (failed, error)
            return True

        eventually(proved)
