"""What keeps a gate from starting, and what it says then. Nothing half-started may be left (`refuses` looks)."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.gate.conftest import Site
from tests.gate.plant import Client, Gate, cli, events, log_of, policy_text, refuses, running, tried
from tests.gate.test_reload import refused
from tests.ports import held_port
from tests.waiting import PATIENT, eventually


def alarms(gate: Gate) -> set[str]:
    return {alarm["name"] for alarm in gate.status()["alarms"]}


def test_a_policy_with_an_error(site: Site) -> None:
    site.policy.write_text(site.text().replace("side: ot", "side: to"))
    code, said = refuses(site.state, site.policy)
    assert code == 2 and "policy.yaml:4:" in said and '"to"' in said and "Traceback" not in said
    assert "error" not in said.split("cofferdam up:")[0], "the reason comes first: nothing else went wrong"


def test_no_policy_file(site: Site) -> None:
    code, said = refuses(site.state, site.folder / "none.yaml")
    assert code == 2 and "none.yaml" in said


def test_an_address_in_use(site: Site) -> None:
    free = held_port()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        site.policy.write_text(policy_text({"a": (1, free), "b": (2, port)}))
        code, said = refuses(site.state, site.policy)
    assert code == 2
    assert f"asset b: cannot listen on 127.0.0.1:{port}: the address is in use" in said
    assert "another address in the policy" in said
    assert refused(free)


def test_a_management_address_in_use(site: Site) -> None:
    with socket.create_server(("127.0.0.1", site.management)):
        code, said = refuses(site.state, site.policy)
    assert code == 2 and f"management address: cannot listen on 127.0.0.1:{site.management}" in said
    assert refused(site.port)


def test_an_address_that_is_not_here(site: Site) -> None:
    site.policy.write_text(site.text().replace("127.0.0.1:" + str(site.port), "192.0.2.1:5020"))
    code, said = refuses(site.state, site.policy)
    assert code == 2 and "192.0.2.1:5020: this machine has no such address" in said


def test_no_permission(site: Site) -> None:
    if int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) <= 1:
        pytest.skip("here every user may listen on every port")
    prefix: tuple[str, ...] = ()
    if os.geteuid() == 0:
        prefix = ("setpriv", "--bounding-set", "-net_bind_service", "--inh-caps", "-net_bind_service")
    site.policy.write_text(site.text().replace("127.0.0.1:" + str(site.port), "127.0.0.1:1"))
    code, said = refuses(site.state, site.policy, prefix=prefix)
    assert code == 2 and "cannot listen on 127.0.0.1:1: no permission" in said and "CAP_NET_BIND_SERVICE" in said


def test_namespaces_that_can_not_be_had(site: Site) -> None:
    site.policy.write_text(site.text().replace("gate:", "gate:\n  require: namespaces"))
    prefix: tuple[str, ...] = ()
    if os.geteuid() == 0:
        prefix = ("setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin")
    code, said = refuses(site.state, site.policy, prefix=prefix)
    assert code == 2 and "requires network namespaces" in said


def test_a_second_gate_in_the_same_state_directory(site: Site) -> None:
    with running(site.state, site.policy) as gate:
        code, said = tried(site.state, site.policy)
        assert code == 2 and "another gate runs" in said and "--state" in said
        assert gate.process.poll() is None and gate.status()["pairs"][0]["working"]


def test_a_state_directory_that_can_not_be_made(site: Site) -> None:
    (site.folder / "file").write_text("")
    code, said = refuses(site.folder / "file" / "state", site.policy)
    assert code == 2 and "cannot use the state directory" in said


def written_log(site: Site) -> Path:
    """A log with some entries; the gate has stopped."""
    with running(site.state, site.policy) as gate:
        with Client(site.port) as client:
            for value in range(20):
                client.write(value)
        assert gate.stop() == 0
    return site.state / "audit"


def test_a_damaged_log_is_named_by_entry_and_file(site: Site) -> None:
    log = written_log(site)
    path = max((log / "tile" / "entries").rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    code, said = refuses(site.state, site.policy)
    assert code == 2
    assert str(path.relative_to(log)) in said and "entry" in said and "Traceback" not in said
    assert refused(site.port)


def test_a_log_that_was_put_back_is_noticed(site: Site) -> None:
    """An old copy of the folder, whole and genuine."""
    written_log(site)
    shutil.copytree(site.state / "audit", site.state.parent / "old")
    with running(site.state, site.policy) as gate, Client(site.port) as client:
        assert client.write(9)
        assert gate.stop() == 0
    opened = events(site.state, "log-opened")
    assert [entry["anchor"] == entry["size"] for entry in opened] == [True, True]
    shutil.rmtree(site.state / "audit")
    (site.state.parent / "old").rename(site.state / "audit")
    code, said = refuses(site.state, site.policy)
    assert code == 2 and "put back to an earlier state" in said and "anchor.json" in said
    (site.state / "anchor.json").write_bytes(b'{"format": 1, "size": ')
    code, said = refuses(site.state, site.policy)
    assert code == 2 and "anchor.json cannot be understood" in said and "move that file away" in said
    assert "Traceback" not in said
    (site.state / "anchor.json").unlink()  # the way out, with what it leaves behind
    with running(site.state, site.policy) as gate:
        assert gate.stop() == 0
    assert [entry["anchor"] for entry in events(site.state, "log-opened")][-1] == 0


def test_a_key_that_others_can_read(site: Site) -> None:
    written_log(site)
    (site.state / "keys" / "audit.key").chmod(0o640)
    code, said = refuses(site.state, site.policy)
    assert code == 2 and "audit.key" in said and "chmod 600" in said


def test_a_missing_key(site: Site) -> None:
    written_log(site)
    (site.state / "keys" / "audit.key").unlink()
    code, said = refuses(site.state, site.policy)
    assert code == 2 and "audit.key" in said


def test_a_full_disk_stops_writes_to_the_plant_until_there_is_room(site: Site) -> None:
    """The log's folder is a small file system of its own."""
    if os.geteuid() != 0:
        pytest.skip("mounting a file system needs root")
    audit = site.state / "audit"
    audit.mkdir(parents=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", audit], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        with running(site.state, site.policy) as gate, contextlib.ExitStack() as stack:
            client = stack.enter_context(Client(site.port, timeout=PATIENT))
            assert client.write(1)
            ballast = audit / "ballast.new"
            with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while file.write(b"x" * 4096):
                    pass
            assert client.write(2)
            # The reserve: writes, sever and restore are recorded though no checkpoint can be signed any more.
            eventually(lambda: client.write(2) and "log-reserve" in alarms(gate))
            assert cli("sever", "ot", "--state", site.state)[0] == 0
            assert cli("restore", "ot", "--state", site.state)[0] == 0
            gate.wait_ready()
            client = stack.enter_context(Client(site.port, timeout=PATIENT))
            value = 3
            while client.write(value):  # what is allocated ahead is used up, and its part of the reserve
                value += 1
                assert value < 100_000
            assert value > 10
            said = "writes of modbus/enterprise-control/inner are refused"
            eventually(lambda: any(said in one["detail"] for one in gate.status()["alarms"]))
            assert cli("sever", "it", "--state", site.state)[0] == 0, "what is left is for others"
            assert cli("restore", "it", "--state", site.state)[0] == 0
            gate.wait_ready()
            client = stack.enter_context(Client(site.port, timeout=PATIENT))
            assert not client.write(value)
            ballast.unlink()
            eventually(lambda: client.write(value + 1))
            # (Checks of the evidence, which have alarms as well, come back in their own time.)
            eventually(lambda: not [name for name in alarms(gate) if not name.startswith("check-")])
            assert gate.stop() == 0
        assert {"severed", "restored"} <= {entry["event"]["kind"] for entry in log_of(site.state)}
        assert value not in site.device.writes and value + 1 in site.device.writes
        recorded = [event["writes"][0][2] for event in events(site.state, "write-allowed")]
        assert [0, value] not in recorded and [0, value + 1] in recorded
    finally:
        subprocess.run(["umount", "-l", audit], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may look into a part")
def test_under_systemd_no_half_holds_the_socket_of_the_journal(site: Site) -> None:
    """systemd gives a service a Unix socket for its messages: both halves would share it."""
    ours, theirs = socket.socketpair()
    ours.settimeout(PATIENT)
    command = [sys.executable, "-m", "cofferdam.cli.main", "up", str(site.policy), "--state", str(site.state)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=theirs.fileno(), stderr=theirs.fileno()) as process:
        theirs.close()
        try:
            deadline = time.monotonic() + PATIENT
            status: dict[str, Any] = {"pairs": []}
            # A crew is listed as it is born, one half after the other.
            while sum(half["ready"] for pair in status["pairs"] for half in pair["halves"]) < 2:
                assert time.monotonic() < deadline and process.poll() is None
                code, out, _ = cli("status", "--state", site.state, "--json")
                status = json.loads(out) if code != 2 else status  # 1: it runs, and has an alarm
            halves = {half["role"]: half["pid"] for pair in status["pairs"] for half in pair["halves"]}
            assert set(halves) == {"outer", "inner"}
            for pid in halves.values():
                assert all(str(Path(f"/proc/{pid}/fd/{fd}").readlink()).startswith("pipe:[") for fd in (1, 2))
            assert str(Path(f"/proc/{status['pid']}/fd/2").readlink()).startswith("socket:[")
            # What a half says there comes out all the same.
            Path(f"/proc/{halves['inner']}/fd/2").write_bytes(b"last words\n")
            heard = b""
            while b"last words\n" not in heard:
                heard += ours.recv(4096)
            process.terminate()
            assert process.wait(PATIENT) == 0
            while ours.recv(4096):  # until everyone has closed it
                pass
        finally:
            process.kill()
            ours.close()
