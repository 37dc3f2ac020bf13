"""EtherNet/IP's peers, each in a process of its own: every client through the gate to every server, and direct.

They do not go into one environment (two have the same package name, one is GPL), so a folder has one for each, and the
test is left out where COFFERDAM_ENIP_PEERS names none:

    python -m venv F/ciplink && F/ciplink/bin/pip install ciplink==0.3.4
    python -m venv F/cpppo && F/cpppo/bin/pip install cpppo==5.2.5
    python -m venv F/ethernetip && F/ethernetip/bin/pip install ethernetip==1.2.0
    npm install --prefix F/node st-ethernet-ip@2.7.5

Where a client and a server cannot speak directly, that is what is expected here, and the docs say so. Not here: limits
and refusals (test_enip), structures (test_enip_structures).
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ethernetip")

from tests.gate.plant import Gate, events
from tests.protocols.logix import Controller
from tests.waiting import PATIENT, eventually

PEERS = Path(os.environ.get("COFFERDAM_ENIP_PEERS", "/nonexistent"))
pytestmark = [
    pytest.mark.skipif(not PEERS.is_dir(), reason="COFFERDAM_ENIP_PEERS names no folder of peers"),
    # cm-ethernetip's loops leave sockets to the collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]
CM, CPPPO, CM_GATE, CPPPO_GATE = "127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4"
"""Most clients know no other port than 44818, so that each stands at an address of its own."""

POLICY = """\
site: works
zones:
  office: {side: it}
  plant: {side: ot}
assets:
  cm: {zone: plant, address: 127.0.0.1, protocol: enip, listen: "127.0.0.3:44818", route: backplane 0,
       points: POINTS, timeout: 20 s}
  cpppo: {zone: plant, address: 127.0.0.2, protocol: enip, timeout: 20 s, listen: "127.0.0.4:44818", route: backplane 0,
          points: POINTS, quirks: [no_list]}
principals:
  scada: {zone: office, addresses: [127.0.0.0/8]}
conduits:
  road:
    from: office
    to: plant
    broker: enip
    owner: production
    reason: a test
    allow:
      - {who: scada, asset: [cm, cpppo], read: all, write: all, registers: ["tag More_*"]}
""".replace(
    "POINTS", '{pump: {at: tag Pump, type: dint, min: 0, max: 1500}, counts: {at: "tag Counts[0-99]", type: dint}}'
)

PYLOGIX = """
import json, sys
from pylogix import PLC
with PLC(sys.argv[1]) as plc:
    first = plc.Read("Pump").Value
    wrote = plc.Write("Pump", int(sys.argv[2]), 0xC4).Status
    print(json.dumps([first, plc.Read("Pump").Value, plc.Read("Counts[0]", 5).Value, wrote == "Success"]))
"""
PYCOMM3 = """
import json, sys
from pycomm3 import LogixDriver
with LogixDriver(sys.argv[1]) as plc:
    first = plc.read("Pump").value
    wrote = plc.write(("Pump", int(sys.argv[2])))
    many = plc.read(*["Pump"] * 25, *[f"Counts[{n}]" for n in range(25)])
    assert all(one.error is None for one in many)
    print(json.dumps([first, plc.read("Pump").value, plc.read("Counts{5}").value, wrote.error is None]))
"""
CIPLINK = """
import json, sys
from ciplink import LogixDriver
with LogixDriver(sys.argv[1]) as plc:
    first = plc.read("Pump").value
    wrote = plc.write(("Pump", int(sys.argv[2])))
    print(json.dumps([first, plc.read("Pump").value, plc.read("Counts{5}").value, wrote.error is None]))
"""
NODE = """
const { Controller, Tag, TagGroup } = require("st-ethernet-ip");
(async () => {
  const plc = new Controller(true);
  await plc.connect(process.argv[1], 0, false);
  const tag = new Tag("Pump");
  await plc.readTag(tag);
  const first = tag.value;
  tag.value = parseInt(process.argv[2]);
  let wrote = true;
  await plc.writeTag(tag).catch(() => { wrote = false; });
  await plc.readTag(tag);
  const counts = new Tag("Counts", null, null, 0, 1, 5);
  await plc.readTag(counts, 5);
  console.log(JSON.stringify([first, tag.value, counts.value, wrote]));
  process.exit(0);
})();
"""


def _enip_client(host: str, value: int) -> list[Any]:
    """cpppo's client, whose words are lines such as "Pump == [5]: 'OK'". One thing at a time: it sends all at once, and
    stops where an answer comes before another one (a refusal comes before what the device is asked for)."""

    def told(*words: str) -> list[Any]:
        command = [str(PEERS / "cpppo" / "bin" / "enip_client"), "--print", "-a", f"{host}:44818", *words]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=PATIENT, check=False
        )
        lines = [line for line in done.stdout.splitlines() if "'OK'" in line]
        return [json.loads(line[line.index("[", line.index("=")) :].rpartition(":")[0]) for line in lines]

    [[first]] = told("Pump")
    wrote = told(f"Pump=(DINT){value}")
    [now], counts = told("Pump", "Counts[0-4]")
    return [first, now, counts, bool(wrote)]


def ask(client: str, host: str, value: int) -> list[Any] | None:
    """[value of Pump, its value after this one was written, five of Counts, whether the write was good]; None where the
    client cannot speak with that server."""
    if client == "cpppo":
        return _enip_client(host, value)
    node = client == "st-ethernet-ip"
    if node:
        command = ["node", "-e", NODE, "--", host, str(value)]
    else:
        python = str(PEERS / "ciplink" / "bin" / "python") if client == "ciplink" else sys.executable
        code = {"pylogix": PYLOGIX, "pycomm3": PYCOMM3, "ciplink": CIPLINK}[client]
        command = [python, "-W", "ignore", "-c", code, host, str(value)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENT, check=False, cwd=PEERS / "node" if node else None
    )
    lines = done.stdout.splitlines()
    return None if done.returncode or not lines else json.loads(lines[-1])


class Works:
    def __init__(self, folder: Path) -> None:
        self.controller = Controller(more=193, port=44818).start()
        server = [str(PEERS / "cpppo" / "bin" / "enip_server"), "--no-print", "-a", f"{CPPPO}:44818"]
        self.cpppo = subprocess.Popen(
            [*server, "Pump=DINT", "Counts=DINT[100]"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.state = folder / "state"
        policy = folder / "policy.yaml"
        policy.write_text(POLICY)
        self.gate = Gate(self.state, policy)
        eventually(self._serves)

    def _serves(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection((CPPPO, 44818), 1):
            return True
        return False

    def stop(self) -> None:
        self.gate.close()
        self.controller.stop()
        self.cpppo.terminate()
        self.cpppo.wait(PATIENT)


@pytest.fixture(scope="module")
def works(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Works]:
    one = Works(tmp_path_factory.mktemp("peers"))
    try:
        one.gate.wait_ready()
        yield one
    finally:
        one.stop()


LIST = "asks for the tag list before all else, which cpppo's server has not"
CANNOT = {("pycomm3", "cpppo"): LIST, ("ciplink", "cpppo"): LIST}
"""Who cannot speak with whom directly, and why."""


@pytest.mark.parametrize("server", ["cm", "cpppo"])
@pytest.mark.parametrize("client", ["pylogix", "pycomm3", "ciplink", "cpppo", "st-ethernet-ip"])
def test_each_client_reads_and_writes_through_the_gate_as_it_does_directly(
    works: Works, client: str, server: str
) -> None:
    direct, gate = {"cm": (CM, CM_GATE), "cpppo": (CPPPO, CPPPO_GATE)}[server]
    straight = ask(client, direct, 71)
    if (client, server) in CANNOT:
        assert straight is None, f"it can after all: {straight}"
        pytest.skip(CANNOT[client, server])
    assert straight is not None and straight[1:] == [71, [0] * 5, True], "direct"
    assert ask(client, gate, 72) == [71, 72, [0] * 5, True], "through the gate"
    refused = ask(client, gate, 1501)
    assert refused is not None and refused[:2] == [72, 72] and not refused[3], "above the limit: not written"
    written = events(works.state, "write-allowed")[-1]
    assert (written["asset"], written["items"][0][3]) == (server, ["72"])


def test_a_list_of_many_tags_is_whole(works: Works) -> None:
    """The server's own pages lose some for pycomm3; the gate asks in a way that loses none."""
    from pycomm3 import LogixDriver

    with LogixDriver(CM_GATE) as plc:
        assert len(plc.tags) == 195, "of 200: the five that no rule names are not there"
