"""A scanner of I/O of other hands (ethernetip 1.2.0) drives a drive of others through the gate, at 10 and at 50 ms.

It is in a network of its own, since it wants UDP 2222 on all addresses. Where it comes from: see test_enip_peers. Not
here: limits and refusals (test_enip_io).
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("ethernetip")

from tests.gate.plant import Gate, events
from tests.gate.test_enip_peers import PEERS
from tests.protocols.scanner import Drive
from tests.waiting import PATIENT, eventually

pytestmark = [
    pytest.mark.skipif(not PEERS.is_dir(), reason="COFFERDAM_ENIP_PEERS names no folder of peers"),
    # cm-ethernetip's loops leave sockets to the collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]

SCANNER = """
import sys, time, json
import ethernetip as e
host, rpi = sys.argv[1], int(sys.argv[2])
net = e.EtherNetIP(host)
found = net.listIDUDP(host)
link = net.explicit_conn(host)
identity = link.listID()
inputs = net.registerAssembly(e.EtherNetIP.ENIP_IO_TYPE_INPUT, 8, 100, link)
outputs = net.registerAssembly(e.EtherNetIP.ENIP_IO_TYPE_OUTPUT, 4, 150, link)
net.startIO()
link.registerSession()
opened = link.sendFwdOpenReq(100, 150, 151, torpi=rpi, otrpi=rpi,
                             priority=e.ForwardOpenReq.FORWARD_OPEN_CONN_PRIO_HIGH)
for bit in range(32):
    outputs[bit] = bool(700 >> bit & 1)
link.produce()
time.sleep(float(sys.argv[3]))
heard = sum(int(bit) << place for place, bit in enumerate(inputs[:32]))
link.stopProduce()
closed = link.sendFwdCloseReq(100, 150, 151)
net.stopIO()
print(json.dumps([opened, heard, closed]))
"""
IO_POLICY = """\
site: works
zones:
  office: {side: it}
  plant: {side: ot}
assets:
  drive:
    zone: plant
    address: 127.0.0.2
    port: PORT
    protocol: enip
    listen: "10.99.7.1:44818"
    points: {reference: {at: io Drive.0, type: dint, unit: rpm, min: 0, max: 1500}}
    streams: {drive: {at: io Drive, form: "outputs 150 of 4 bytes, inputs 100 of 8 bytes, config 151"}}
principals:
  scanner: {zone: office, addresses: [10.99.7.2]}
conduits:
  road:
    {from: office, to: plant, broker: enip, owner: me, reason: a test,
     allow: [{who: scanner, asset: drive, stream: drive}]}
"""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture(scope="module")
def network() -> Iterator[str]:
    name = f"enip-{os.getpid()}"
    try:
        ip("netns", "add", name)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no network namespace can be made")
    try:
        ip("link", "add", "enip0", "type", "veth", "peer", "name", "enip1", "netns", name)
        ip("addr", "add", "10.99.7.1/24", "dev", "enip0")
        ip("link", "set", "enip0", "up")
        ip("-n", name, "addr", "add", "10.99.7.2/24", "dev", "enip1")
        ip("-n", name, "link", "set", "enip1", "up")
        ip("-n", name, "link", "set", "lo", "up")
        yield name
    finally:
        ip("netns", "del", name)


@pytest.mark.parametrize("rpi", [10, 50])
def test_a_scanner_of_other_hands_drives_the_drive(network: str, tmp_path: Path, rpi: int) -> None:
    drive = Drive().start()
    policy = tmp_path / "policy.yaml"
    policy.write_text(IO_POLICY.replace("PORT", str(drive.port)))
    gate = Gate(tmp_path / "state", policy)
    try:
        gate.wait_ready()
        drive.say((4321).to_bytes(8, "little"))
        python = str(PEERS / "ethernetip" / "bin" / "python")
        command = ["ip", "netns", "exec", network, python, "-c", SCANNER, "10.99.7.1", str(rpi), "2"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENT, check=False)
        assert json.loads(done.stdout.splitlines()[-1]) == [0, 4321, 0], done.stderr
        assert drive.references[-1] == 700
        eventually(lambda: drive.connections == 0)
        [ended] = events(tmp_path / "state", "stream-ended")
        assert ended["sent"] > 1500 / rpi / 2 and ended["received"] > 1500 / rpi / 2 and not ended["refused"]
    finally:
        gate.close()
        drive.stop()
