"""The gate as a user runs it: real processes on loopback."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from cofferdam.brokers.registry import BROKERS
from cofferdam.gate.client import ask
from cofferdam.gate.watch.metrics import OWN, described
from tests.folders import others_get_into
from tests.gate.conftest import Site
from tests.gate.plant import (
    SPEED,
    Client,
    Device,
    Gate,
    cli,
    events,
    links,
    log_of,
    policy_text,
    read_text,
    running,
)
from tests.ports import held_ports
from tests.waiting import PATIENT, eventually, gone, kill

HELD = {
    "cofferdam_requests_total", "cofferdam_refused_total", "cofferdam_failed_total", "cofferdam_shared_reads_total",
    "cofferdam_added_latency_seconds", "cofferdam_waited_seconds", "cofferdam_device_seconds",
    "cofferdam_asset_connections", "cofferdam_asset_queued", "cofferdam_asset_in_flight",
    "cofferdam_asset_failures_total", "cofferdam_asset_late_total", "cofferdam_sessions",
    "cofferdam_refused_by_fault_total", "cofferdam_malformed_total", "cofferdam_limit_hits_total",
}  # fmt: skip
"""Somebody's dashboard asks for these by name."""


def test_a_read_and_a_write_go_through_and_stand_in_the_log(site: Site) -> None:
    with running(site.state, site.policy) as gate:
        with Client(site.port) as client:
            assert client.read() == b"\x03\x02\x00\x2a"
            assert client.write(0x10002)
        status = gate.status()
        assert status["separation"] == "processes"
        facts = {fact["name"]: fact for fact in status["facts"]}
        assert facts["processes"]["in_force"]
        assert not facts["network namespaces"]["in_force"]
        assert "share the host's network" in facts["network namespaces"]["detail"]
        assert gate.stop() == 0
    assert site.device.writes == [0x10002]
    kinds = [entry["event"]["kind"] for entry in log_of(site.state)]
    # The outer half tells of the session, the inner half of the write; each of them in order.
    for order in (
        ["gate-started", "policy-loaded", "half-started", "session-opened", "session-closed", "half-died"],
        ["gate-started", "policy-loaded", "half-started", "write-allowed", "write-outcome", "half-died"],
    ):
        assert [kind for kind in dict.fromkeys(kinds) if kind in order] == order
    assert kinds[-1] == "gate-stopped"
    assert all(event["expected"] and event["status"] == 0 for event in events(site.state, "half-died"))
    assert not (site.state / "gate.sock").exists()


def test_refusals_are_answered_counted_and_recorded(live: Site) -> None:
    with Client(live.port) as client:
        assert client.ask(struct.pack(">BHH", 3, 1000, 1))[:2] == b"\x83\x02"
        assert client.ask(struct.pack(">BHH", 6, 0, 1))[0] == 0x86
    status = live.up.status()
    assert sum(conduit["refused"] for conduit in status["conduits"]) + status["unmatched"] == 2
    assert not live.device.writes
    live.up.stop()
    assert len(events(live.state, "refused")) == 2


def test_status_says_everything_and_metrics_agree(live: Site) -> None:
    with Client(live.port) as client:
        for _ in range(10):
            client.read()
        client.write(7)
        code, out, _ = cli("status", "--state", live.state, "--json")
        status = json.loads(out)
        assert code == 0
        (session,) = status["sessions"]
        assert (session["source"], session["asset"], session["principals"]) == ("127.0.0.1", "plc", ["erp"])
        (conduit,) = status["conduits"]
        assert (conduit["reads"], conduit["writes"], conduit["sessions"]) == (10, 1, 1)
        assert 0 < conduit["added"]["median"] <= conduit["added"]["p99"] <= conduit["added"]["max"]
        (pair,) = status["pairs"]
        assert {half["role"] for half in pair["halves"]} == {"outer", "inner"}
        assert status["audit"]["writable"] and status["audit"]["size"] > 5
        with urllib.request.urlopen(f"http://127.0.0.1:{live.management}/metrics", timeout=PATIENT) as page:
            text = page.read().decode()
    assert 'cofferdam_requests_total{conduit="plc-road",kind="read"} 10.0' in text
    assert 'cofferdam_sessions{asset="plc"} 1.0' in text
    assert f'hash="{status["policy"]["hash"]}"' in text
    shown = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    assert shown == {*OWN, *described([BROKERS["modbus"]])}
    assert shown >= HELD
    code, out, _ = cli("status", "--state", live.state)
    assert code == 0 and "plc-road" in out and "halves share the host's network" in " ".join(out.split())


@pytest.mark.parametrize(
    ("request_line", "status"),
    [("GET / HTTP/1.1", 404), ("POST /metrics HTTP/1.1", 405), ("nonsense", 400), ("GET /metrics HTTP/1.1", 200)],
)
def test_the_management_address_serves_one_page(calm: Site, request_line: str, status: int) -> None:
    with socket.create_connection(("127.0.0.1", calm.management), timeout=PATIENT) as peer:
        peer.sendall(request_line.encode() + b"\r\n\r\n")
        assert peer.makefile("rb").readline().split()[1] == str(status).encode()


def test_every_metric_is_documented() -> None:
    text = (Path(__file__).parent.parent.parent / "docs" / "metrics.md").read_text()
    for name in (*OWN, *described(BROKERS.values())):
        assert f"| `{name}` |" in text, name


def test_a_budget_that_is_not_kept_is_flagged(site: Site) -> None:
    site.policy.write_text(site.text().replace("reason: for the test", "reason: r\n    latency_budget: 1 us"))
    with running(site.state, site.policy) as gate, Client(site.port) as client:
        for _ in range(5):
            client.read()
        assert gate.status()["conduits"][0]["over_budget"]
        assert "OVER" in cli("status", "--state", site.state)[1]


# --- severing ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["it", "ot"])
def test_sever_ends_sessions_survives_a_restart_and_restore_undoes_it(site: Site, side: str) -> None:
    with running(site.state, site.policy) as gate:
        with Client(site.port) as client:
            assert client.write(1)
            code, out, _ = cli("sever", side, "--state", site.state, "--reason", "drill")
            assert (code, out) == (0, f"the {side} side is severed; 1 session was open\n")
            assert client.ended()  # the severed side's part is born anew, and its crew with it
            eventually(lambda: not site.device.open)
        if side == "ot":  # the client's side is told
            gate.wait_ready()
            with Client(site.port) as client:
                assert client.read()[0] & 0x80
        assert not served(site.port)
        assert cli("status", "--state", site.state)[0] == 1
        assert gate.stop() == 0
    with running(site.state, site.policy) as gate:
        assert not served(site.port)
        (cut,) = gate.status()["severed"]
        assert (cut["side"], cut["reason"]) == (side, "drill")
        # Also halves that are born while it is severed:
        kill(before := gate.pid("outer"))
        gate.reborn("outer", before)
        assert not served(site.port)
        assert cli("restore", side, "--state", site.state)[0] == 0
        assert served(site.port)
        assert cli("restore", side, "--state", site.state)[0] == 1
        assert gate.stop() == 0
    assert site.device.writes == [1]
    assert [event["side"] for event in events(site.state, "severed")] == [side]
    assert [event["side"] for event in events(site.state, "restored")] == [side]


def served(port: int) -> bool:
    """Whether a read is answered with a value."""
    try:
        with Client(port) as client:
            return client.read()[0] == 3
    except OSError:
        return False


def test_severing_works_when_it_cannot_be_made_durable_and_says_so(site: Site) -> None:
    with running(site.state, site.policy) as gate:
        (site.state / "severed.json").mkdir()  # what stands in for a disk that takes no file
        with Client(site.port) as client:
            assert client.read()
            code, _, err = cli("sever", "it", "--state", site.state)
            assert code == 2
            assert "is severed, but would not be after a restart" in err
            assert client.ended()
        assert [alarm["name"] for alarm in gate.status()["alarms"]] == ["severed-not-durable"]
        code, _, err = cli("restore", "it", "--state", site.state)
        assert code == 2 and "severed.json" in err
        assert [cut["side"] for cut in gate.status()["severed"]] == ["it"], "it stays"
        assert events(site.state, "restored") == []
        (site.state / "severed.json").rmdir()
        eventually(lambda: (site.state / "severed.json").is_file() and not gate.status()["alarms"])


def test_what_was_cut_off_without_the_gate_has_its_entry_in_its_next_life(site: Site) -> None:
    """As `cofferdam sever` writes it down where the gate hangs, until somebody kills it."""
    with running(site.state, site.policy) as gate:
        pid = gate.pids()["gate"]
        kill(pid, signal.SIGSTOP)
        code, _, err = cli("sever", "ot", "--state", site.state, "--reason", "drill")
        assert code == 2 and "ot is cut off and stays so" in err
        kill(pid)  # the launcher has missed it, too
        gate.process.wait(PATIENT)
    for _ in range(2):
        with running(site.state, site.policy) as gate:
            assert [cut["side"] for cut in gate.status()["severed"]] == ["ot"]
            assert gate.stop() == 0
    assert [(one["side"], one["by"], one["reason"]) for one in events(site.state, "severed")] == [
        ("ot", "the command line", "drill")
    ]


def test_a_damaged_severed_file_severs_both_sides_and_says_so(site: Site) -> None:
    site.state.mkdir()
    (site.state / "severed.json").write_text('{"format": 1, "sever')
    with running(site.state, site.policy) as gate:
        assert not served(site.port)
        status = gate.status()
        assert {cut["side"] for cut in status["severed"]} == {"it", "ot"}
        assert [alarm["name"] for alarm in status["alarms"]] == ["severed-state-damaged"]
        for side in ("it", "ot"):
            assert cli("restore", side, "--state", site.state)[0] == 0
        assert served(site.port)
        assert not gate.status()["alarms"]


# --- life and death ---------------------------------------------------------------------------------------------


def test_the_auditor_can_die_without_ending_a_session(live: Site) -> None:
    with Client(live.port, timeout=PATIENT) as client:
        assert client.write(1)
        kill(live.up.pid("auditor"))
        eventually(lambda: (audit := live.up.status()["audit"])["restarts"] == 1 and audit["running"])
        eventually(lambda: client.write(2))  # refused until the new auditor has said hello
    live.up.stop()
    assert live.device.writes == [1, 2]
    names = [event["name"] for event in events(live.state, "alarm")]
    assert names == ["auditor-down", "auditor-down"]


@pytest.mark.parametrize("victim", ["outer", "inner"])
def test_a_pair_dies_together_and_comes_back(live: Site, victim: str) -> None:
    before = live.up.pids()
    with Client(live.port) as client:
        client.read()
        kill(before[victim])
        assert client.ended()
    eventually(lambda: live.up.status()["pairs"][0]["restarts"] == 1)
    live.up.wait_ready()
    after = live.up.pids()
    assert after["outer"] != before["outer"] and after["inner"] != before["inner"]
    assert served(live.port)
    live.up.stop()
    died = [event for event in events(live.state, "half-died") if not event["expected"]]
    assert {event["half"].rsplit("/", 1)[1] for event in died} == {"outer", "inner"}
    assert next(event for event in died if event["half"].endswith(victim))["status"] == -signal.SIGKILL


@pytest.mark.parametrize("victim", ["launcher", "gate"])
def test_nothing_outlives_the_launcher_or_the_gate(live: Site, victim: str) -> None:
    pids = live.up.pids() | {"launcher": live.up.process.pid}
    kill(pids[victim])
    assert live.up.process.wait(PATIENT) != 0
    eventually(lambda: not any("cofferdam" in read_text(Path(f"/proc/{pid}/cmdline")) for pid in pids.values()))
    if victim == "gate":
        assert "ended unexpectedly (SIGKILL)" in live.up.said()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may look into a part")
def test_each_process_has_only_what_it_needs(calm: Site) -> None:
    with Client(calm.port) as client:
        client.read()
        pids = calm.up.pids()
        for role, pid in pids.items():
            status = Path(f"/proc/{pid}/status").read_text()
            assert "NoNewPrivs:\t1" in status, role
            sockets = links(pid)
            kinds = sorted(name.split(":")[0] for name in sockets)
            if role in ("outer", "inner"):
                # Six pipe ends, empty input, output and messages by one more pipe; the listener and the client, or the
                # asset; and no file at all.
                assert kinds.count("pipe") == 8, (role, sockets)
                assert kinds.count("socket") == (2 if role == "outer" else 1), (role, sockets)
                assert not [name for name in sockets if str(calm.state) in name or "stderr" in name]
    unix = Path(f"/proc/{pids['outer']}/net/unix")
    inodes = {line.split()[6] for line in unix.read_text().splitlines()[1:]}
    for role in ("outer", "inner"):
        assert not [link for link in links(pids[role]) if link.startswith("socket:") and link[8:-1] in inodes], (
            "a Unix socket"
        )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may look into a part")
def test_a_half_that_talks_nonsense_to_the_gate_is_ended(live: Site) -> None:
    pid = live.up.pids()["inner"]
    control_out = os.open(f"/proc/{pid}/fd/4", os.O_WRONLY)
    os.write(control_out, b"\x00\x00\x03abc")
    os.close(control_out)
    eventually(lambda: live.up.pids().get("inner", pid) != pid)
    live.up.wait_ready()
    assert served(live.port)
    live.up.stop()
    (violation,) = events(live.state, "record-violation")
    assert violation["half"] == "modbus/enterprise-control/inner"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may look into a part")
def test_a_half_that_talks_nonsense_to_the_auditor_is_ended_and_harms_nobody_else(live: Site) -> None:
    pids = live.up.pids()
    audit_out = os.open(f"/proc/{pids['outer']}/fd/6", os.O_WRONLY)
    os.write(audit_out, b"\x01\x00\x05" + (5000).to_bytes(4, "big") + b"x" + b"\x00\x00\x01y")
    os.close(audit_out)
    eventually(lambda: live.up.pids().get("outer", pids["outer"]) != pids["outer"])
    live.up.wait_ready()
    assert served(live.port)
    assert live.up.pids()["auditor"] == pids["auditor"]
    live.up.stop()
    (violation,) = events(live.state, "record-violation")
    assert violation["half"] == "modbus/enterprise-control/outer"


@pytest.mark.soak
def test_a_half_that_hangs_is_ended(live: Site) -> None:
    pid = live.up.pids()["inner"]
    kill(pid, signal.SIGSTOP)
    eventually(lambda: live.up.pids().get("inner", pid) != pid)
    live.up.wait_ready()
    assert served(live.port)


def test_a_second_signal_hurries(site: Site) -> None:
    with running(site.state, site.policy) as gate:
        kill(gate.pid("inner"), signal.SIGSTOP)  # so that an orderly stop takes its full time
        gate.process.send_signal(signal.SIGTERM)
        eventually(lambda: "gate-stops" in gate.said())
        gate.process.send_signal(signal.SIGINT)
        assert gate.process.wait(PATIENT) == 0


def test_the_service_manager_is_told(site: Site) -> None:
    path = site.folder / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.settimeout(PATIENT)
        gate = Gate(site.state, site.policy, environment={"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "200000"})
        try:
            heard = [manager.recv(100)]
            while heard.count(b"WATCHDOG=1") < 3:
                heard.append(manager.recv(100))
            gate.process.send_signal(signal.SIGTERM)
            while heard[-1] != b"STOPPING=1":
                heard.append(manager.recv(100))
            assert gate.process.wait(PATIENT) == 0
        finally:
            gate.close()
    assert heard[0] == b"READY=1"


def test_down_stops_the_gate_and_names_who_did_it(live: Site) -> None:
    assert cli("down", "--state", live.state) == (0, "the gate has stopped\n", "")
    assert live.up.process.wait(PATIENT) == 0
    assert events(live.state, "gate-stopped")[0]["reason"].startswith("stopped by ")


def test_down_for_programs(live: Site) -> None:
    code, out, err = cli("down", "--json", "--state", live.state)
    assert (code, json.loads(out), err) == (0, {"stopped": True, "cleared": False}, "")
    code, out, _ = cli("down", "--json", "--state", live.state)
    if os.geteuid():
        assert (code, out) == (2, "")
    else:  # a gate of root's may have left something to put back, and it is looked for
        assert (code, json.loads(out)) == (0, {"stopped": False, "cleared": False})


@pytest.mark.parametrize("verb", [("status",), ("reload",), ("down",), ("sever", "it"), ("restore", "ot")])
def test_without_a_gate_each_verb_says_so_and_the_way_out(tmp_path: Path, verb: tuple[str, ...]) -> None:
    code, out, err = cli(*verb, "--state", tmp_path)
    assert (code, out) == (2, "")
    assert "no gate runs" in err and "cofferdam up" in err and str(tmp_path) in err


def test_the_control_socket_is_for_the_owner() -> None:
    with others_get_into() as folder:
        site = Site(folder)
        try:
            with running(site.state, site.policy) as gate:
                for_the_owner(site.state, gate)
        finally:
            site.device.close()


def for_the_owner(state: Path, gate: Gate) -> None:
    assert (state / "gate.sock").stat().st_mode & 0o777 == 0o600
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(PATIENT)
        peer.connect(str(state / "gate.sock"))
        peer.sendall(b'{"type": "sever", "side": "all"}\n')
        answer = json.loads(peer.makefile("rb").readline())
    assert not answer["ok"] and "not understood" in answer["error"]
    if os.geteuid() == 0:
        state.chmod(0o755)
        (state / "gate.sock").chmod(0o666)
        script = (
            "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); "
            's.sendall(b\'{"type": "down"}\\n\'); print(s.makefile().readline())'
        )
        nobody = subprocess.run(
            ["/usr/bin/setpriv", "--reuid", "65534", "--clear-groups", "/usr/bin/python3", "-c", script,
             str(state / "gate.sock")],
            capture_output=True, text=True, timeout=PATIENT,
        )  # fmt: skip
        assert "only root and the user" in nobody.stdout, nobody.stderr
        assert gate.process.poll() is None


def test_a_real_client_and_a_real_server(tmp_path: Path) -> None:
    """pymodbus on both ends, by way of the water works of the lab."""
    import asyncio

    from pymodbus.client import AsyncModbusTcpClient
    from pymodbus.server import ModbusTcpServer
    from pymodbus.simulator import DataType, SimData, SimDevice

    async def play() -> None:
        device_port, port = held_ports(2)
        device = SimDevice(1, simdata=[SimData(0, count=300, values=17, datatype=DataType.REGISTERS)])
        server = ModbusTcpServer(device, address=("127.0.0.1", device_port))
        await server.listen()
        policy = tmp_path / "policy.yaml"
        policy.write_text(policy_text({"plc": (device_port, port)}))
        gate = await asyncio.to_thread(lambda: Gate(tmp_path / "state", policy).wait_ready())
        client = AsyncModbusTcpClient("127.0.0.1", port=port, retries=0, timeout=PATIENT)
        try:
            assert await client.connect()
            assert (await client.read_holding_registers(0, count=1, device_id=1)).registers == [17]
            assert not (await client.write_registers(SPEED, [3, 4], device_id=1)).isError()
            assert (await client.read_holding_registers(1, count=1, device_id=1)).exception_code == 2
        finally:
            client.close()
            assert await asyncio.to_thread(gate.stop) == 0
            await server.shutdown()  # type: ignore[no-untyped-call]
            await gone()

    asyncio.run(play())
    (write,) = events(tmp_path / "state", "write-allowed")
    assert write["writes"] == [["holding", SPEED, [3, 4]]]


def test_devices_can_be_spread_over_pairs(site: Site) -> None:
    count = 12  # which pair has a device follows from its port: all in one, once in four million runs
    others = [Device() for _ in range(count)]
    ports = held_ports(count)
    assets = {f"plc-{n}": (device.port, port) for n, (device, port) in enumerate(zip(others, ports, strict=True))}
    site.policy.write_text(policy_text(assets))
    try:
        with running(site.state, site.policy, "--pairs", "4") as gate:
            for number, port in enumerate(ports):
                with Client(port) as client:
                    assert client.write(number)
            assert len(gate.status()["pairs"]) > 1
            assert gate.stop() == 0
    finally:
        for device in others:
            device.close()
    assert [device.writes for device in others] == [[number] for number in range(count)]


def test_the_state_is_asked_over_one_line(calm: Site) -> None:
    assert ask(calm.state, "status", fresh=False)["site"] == "riverside"


def test_metrics_are_http(calm: Site) -> None:
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(f"http://127.0.0.1:{calm.management}/other", timeout=PATIENT)
