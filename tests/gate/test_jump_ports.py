"""Ports that people forward through the jump server (`ssh -L`): they lead to the broker of the asset's own protocol,
which judges what is asked there, and to nothing else; and they end with the session."""

from __future__ import annotations

import contextlib
import gc
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.brokers.jump.site import THERE, JumpSite, ends, stops
from tests.gate.plant import SPEED, Client, Device, events, settle
from tests.ports import held_ports
from tests.protocols.logix import Controller
from tests.waiting import PATIENT, eventually, kill

pytestmark = pytest.mark.skipif(not THERE, reason="there is no OpenSSH (Debian: openssh-server, openssh-client)")
ASSETS = """plc: {{zone: plant, address: 127.0.0.1, port: {device}, protocol: modbus, listen: "127.0.0.1:{listen}",
          timeout: 20 s,
          points: {{level: {{at: holding 0, type: uint16}}, speed: {{at: holding {speed}, type: uint32}}}}}}
  packer: {{zone: plant, address: 127.0.0.1, port: {controller}, protocol: enip, listen: "127.0.0.1:{tags}",
          timeout: 20 s, route: backplane 0,
          points: {{pump: {{at: tag Pump, type: dint, min: 0, max: 1500}}, status: {{at: tag Status, type: dint}}}}}}"""
PRINCIPALS = """own: {zone: office, jump: free}
  helpers: {zone: office, jump: vendor-helps, user: vendor}"""
CONDUITS = """asks:
    from: office
    to: plant
    broker: modbus
    owner: maintenance
    reason: those who come by the jump server
    allow:
      - {who: own, asset: plc, read: level}
      - {who: helpers, asset: plc, read: level, write: speed}
  asks-tags:
    from: office
    to: plant
    broker: enip
    owner: maintenance
    reason: those who come by the jump server
    allow:
      - {who: own, asset: packer, read: [pump, status], write: pump}"""


class Ported(JumpSite):
    """With a PLC behind a Modbus proxy, at which nobody may ask but who comes by a port."""

    def __init__(self, folder: Path) -> None:
        self.device = Device()
        self.controller = Controller().start()
        self.listen, tags = held_ports(2)
        said = ASSETS.format(
            device=self.device.port, listen=self.listen, speed=SPEED, controller=self.controller.port, tags=tags
        )
        super().__init__(
            folder, assets=said, principals=PRINCIPALS, conduits=CONDUITS,
            rules="- {who: {group: staff}, asset: [plc, packer], do: port}",
            vendors="- {who: {group: vendors}, asset: plc, do: port}",
        )  # fmt: skip

    @contextlib.contextmanager
    def port(self, name: str, target: str = "plc:502", *more: str) -> Iterator[int]:
        """`ssh -N -L PORT:TARGET gate`, once those of before have ended."""
        eventually(lambda: not self.sessions())
        (at,) = held_ports(1)
        process = self.start(name, name, "-N", "-L", f"{at}:{target}", *more)
        try:
            eventually(lambda: _listens(at) or process.poll() is not None)
            assert process.poll() is None, ends(process)
            yield at
        finally:
            stops(process)

    def start(self, name: str, user: str, *words: str, more: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
        options = [*self.options(name), *more, *words, "-p", str(self.door), f"{user}@127.0.0.1"]
        return subprocess.Popen(
            ["ssh", *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=self.environment(name),
        )  # fmt: skip

    def pids(self) -> dict[str, int]:
        """Process ids by broker and part."""
        pairs = self.gate.status()["pairs"]
        return {f"{pair['broker']}/{half['role']}": half["pid"] for pair in pairs for half in pair["halves"]}

    def close(self) -> None:
        super().close()
        self.device.close()
        self.controller.stop()


def _listens(port: int) -> bool:
    """Whether somebody listens there; asked of the kernel, since a connection would be a session."""
    return f"0100007F:{port:04X} 00000000:0000 0A" in Path("/proc/net/tcp").read_text()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ported]:
    made = Ported(tmp_path_factory.mktemp("ports"))
    try:
        made.set_up()
        yield made
        made.gate.wait_ready()
        assert made.gate.stop() == 0, made.gate.said()
        assert "Traceback" not in made.gate.said()
        assert events(made.state, "access-opened")
    finally:
        made.close()


def test_what_is_asked_by_a_port_is_judged_by_the_broker_of_the_asset(site: Ported) -> None:
    settle(site.state)
    written, known = list(site.device.writes), len(events(site.state, "access-opened"))
    sessions = len(events(site.state, "session-opened"))
    with site.port("tech") as port, Client(port) as client:
        assert client.read() == bytes([3, 2, 0, 42])
        assert client.write(7) is False
        assert site.device.writes == written
        (session,) = site.sessions()
        assert (session["person"], session["asset"]) == ("tech", "plc")
    eventually(lambda: not site.sessions())
    (opened,) = [each for each in events(site.state, "access-opened")[known:] if each["what"] == "port"]
    assert (opened["person"], opened["asset"], opened["recorded"]) == ("tech", "plc", False)
    (asked,) = events(site.state, "session-opened")[sessions:]
    assert (asked["source"], asked["principals"], asked["asset"]) == ("jump:free", ["own"], "plc")


@pytest.mark.parametrize(
    ("name", "target", "why"),
    [
        ("tech", "plc:503", b"ask for port 502 of it"),
        ("tech", "127.0.0.1:502", b"there is no asset"),
        ("tech", "station:502", b"no rule lets you have a port"),
        ("tech", "plc\u202e:502", b"ports are not forwarded"),
        ("vendor", "plc:502", b"it takes an approval"),
        ("lead", "plc:502", b"no rule lets you have a port"),
    ],
)
def test_what_is_no_port_of_a_rule_is_refused_and_recorded(site: Ported, name: str, target: str, why: bytes) -> None:
    before = len(events(site.state, "tunnel-refused"))
    connections = site.device.connections
    said = [option.replace("LogLevel=ERROR", "LogLevel=INFO") for option in site.options(name)]
    done = subprocess.run(
        ["ssh", *said, "-W", target, "-p", str(site.door), f"{name}@127.0.0.1"], capture_output=True,
        env=site.environment(name), timeout=PATIENT, check=False,
    )  # fmt: skip
    assert (done.returncode, why in done.stderr) == (255, True), done.stderr
    eventually(lambda: len(events(site.state, "tunnel-refused")) > before)
    refused = events(site.state, "tunnel-refused")[before:]
    assert [(each["person"], each["what"], each["target"]) for each in refused] == [(name, "direct-tcpip", target)]
    assert (site.sessions(), site.device.connections) == ([], connections)


def test_who_came_to_an_asset_has_no_port_to_another(site: Ported) -> None:
    """It is not asked of the keeper, which takes it for a lie of the part that faces people, and ends."""
    pids = site.pids()
    done = site.ssh("lead", "station", more=("-W", "plc:502"))
    assert done.returncode == 255
    assert site.pids() == pids
    assert events(site.state, "tunnel-refused")[-1]["target"] == "plc:502"


def test_nobody_comes_there_by_an_address(site: Ported) -> None:
    """No rule of the proxy names anybody with one, so that it does not even listen."""
    with pytest.raises(ConnectionRefusedError):
        Client(site.listen)


def test_a_grant_that_ends_ends_its_port(site: Ported) -> None:
    site.ssh("vendor", "vendor", "request plc 2h pump trips")
    (request,) = [one for one in site.ask("requests") if one["state"] == "waiting"]
    site.ssh("lead", "lead", f"approve {request['id']}")
    before = len(events(site.state, "write-allowed"))
    with site.port("vendor") as port, Client(port) as client:
        assert client.write(1400)
        assert site.device.writes[-1] == 1400
        site.jump("revoke", str(request["id"]))
        assert client.ended()
        with pytest.raises(OSError), Client(port) as again:
            again.read()
    (written,) = events(site.state, "write-allowed")[before:]
    session = next(each for each in events(site.state, "session-opened") if each["session"] == written["session"])
    assert (session["source"], session["principals"]) == ("jump:vendor-helps", ["helpers"])
    shown = [each for each in events(site.state, "client-identified") if each["session"] == written["session"]]
    assert [each["user"] for each in shown] == ["vendor"]
    eventually(lambda: [each for each in events(site.state, "session-closed") if each["session"] == written["session"]])


def test_killed_with_its_client_at_work(site: Ported) -> None:
    with site.port("tech") as port, Client(port) as client:
        client.read()
        (session,) = site.sessions()
        site.jump("kill", str(session["number"]), "--reason", "wrong machine")
        assert client.ended()
    site.jump("unblock", "tech", "plc")


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_controllers_tags_by_a_port(site: Ported) -> None:
    """By EtherNet/IP, with a client of other hands."""
    pylogix = pytest.importorskip("pylogix")
    site.controller.put("Pump", 1200)
    with site.port("tech", "packer:44818") as port:
        with pylogix.PLC("127.0.0.1", port=port) as plc:
            plc.SocketTimeout = PATIENT
            assert plc.Read("Pump").Value == 1200
            assert plc.Write("Pump", 1250).Status == "Success"
            assert plc.Write("Pump", 1600).Status == "Invalid Parameter"
            assert plc.Write("Status", 1).Status != "Success"
        del plc
        gc.collect()  # what pylogix has left open is nobody else's
    assert (site.controller.dint("Pump"), site.controller.dint("Status")) == (1250, 0)
    (written,) = [one for one in events(site.state, "write-allowed") if one["asset"] == "packer"]
    assert (written["source"], written["principals"]) == ("jump:free", ["own"])
    eventually(lambda: not site.sessions())


@pytest.mark.parametrize("part", ["jump/outer", "jump/inner", "modbus/outer", "modbus/inner"])
def test_kill_9_of_a_part_ends_the_port_and_the_next_one_works(site: Ported, part: str) -> None:
    with site.port("tech") as port, Client(port) as client:
        client.read()
        pid = site.pids()[part]
        kill(pid)
        assert client.ended()
    eventually(lambda: site.pids().get(part, pid) != pid)
    site.gate.wait_ready()
    eventually(lambda: not site.sessions())
    with site.port("tech") as port, Client(port) as client:
        assert client.read() == bytes([3, 2, 0, 42])


def test_a_port_goes_on_without_a_keeper(site: Ported) -> None:
    with site.port("tech") as port, Client(port) as client:
        client.read()
        kill(pid := site.pids()["jump/keeper"])
        assert client.read() == bytes([3, 2, 0, 42])
        site.gate.reborn("keeper", pid)
        assert len(site.sessions()) == 1
        assert client.read() == bytes([3, 2, 0, 42])
    eventually(lambda: not site.sessions())


def test_one_that_does_not_read_is_held_back(site: Ported) -> None:
    """And others go on."""
    with site.port("tech") as port, Client(port, 1) as deaf, Client(port) as client:
        request = b"\0\1\0\0\0\6\1\3\0\0\0\1" * 4096
        with pytest.raises(TimeoutError):
            for _ in range(400):
                deaf._socket.sendall(request)
        for _ in range(3):
            assert client.read() == bytes([3, 2, 0, 42])


@pytest.mark.skipif(os.geteuid() != 0, reason="writing into another process's pipe takes root")
def test_an_end_that_breaks_the_rules_loses_the_seam_and_nothing_else(site: Ported) -> None:
    """A part of the jump server that was taken over does not end the proxy, which others use as well."""
    pids = site.pids()
    with written_by(pids["jump/outer"], pids["modbus/outer"]) as pipe:
        os.write(pipe, b"\0\0\1\xc1")
    eventually(lambda: events(site.state, "record-violation"))
    (told,) = events(site.state, "record-violation")
    assert "the seam to" in told["half"]
    eventually(lambda: "seam-closed" in str(site.gate.status()["alarms"]))
    done = site.ssh("tech", "tech", more=("-W", "plc:502"))
    assert done.returncode == 255
    assert site.pids() == pids
    kill(pids["modbus/outer"])
    eventually(lambda: site.pids().get("modbus/outer", 0) not in (0, pids["modbus/outer"]))
    site.gate.wait_ready()
    eventually(lambda: "seam-closed" not in str(site.gate.status()["alarms"]))
    with site.port("tech") as port, Client(port) as client:
        assert client.read() == bytes([3, 2, 0, 42])


@contextlib.contextmanager
def written_by(writer: int, reader: int) -> Iterator[int]:
    """The pipe by which one part says something to the other."""
    ends: dict[int, dict[str, int]] = {}
    for pid in (writer, reader):
        ends[pid] = {}
        for path in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # a connection that ended just now
                if int(path.name) > 2:
                    ends[pid][str(path.readlink())] = int(path.name)
    shared = [name for name in ends[writer].keys() & ends[reader].keys() if name.startswith("pipe:")]
    (fd,) = [
        ends[writer][name] for name in shared
        if int(Path(f"/proc/{writer}/fdinfo/{ends[writer][name]}").read_text().split()[3], 8) & os.O_ACCMODE
    ]  # fmt: skip
    pipe = os.open(f"/proc/{writer}/fd/{fd}", os.O_WRONLY)
    try:
        yield pipe
    finally:
        os.close(pipe)
