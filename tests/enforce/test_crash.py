"""What a gate takes from the host comes back: after a stop, after a crash, twice; and nothing else is touched."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cofferdam.enforce import journal
from cofferdam.enforce.fence import tag
from cofferdam.enforce.plans.records import namespace_name
from tests.enforce.site import DEVICE, GATE_IT, GATE_OT, PlantDevice, Site, ip, netns
from tests.gate.plant import QuickGate, cli, refuses
from tests.waiting import PATIENT, eventually

pytestmark = netns


def test_after_a_crash_down_puts_everything_back_and_touches_nothing_else(site: Site) -> None:
    before = site.host()
    foreign = f"{site.office}x"
    ip("netns", "add", foreign)
    try:
        gate = QuickGate(site.state, site.policy)
        try:
            gate.wait_ready()
            halves = gate.pids()
            gate.process.send_signal(signal.SIGKILL)
            gate.process.wait(PATIENT)
        finally:
            gate.close()
        assert len(site.gates()) == 2, "a killed launcher cannot have cleared up"
        code, said, _ = cli("down", "--state", site.state)
        assert code == 0 and "back in place" in said
        assert site.gates() == [] and site.host() == before
        assert foreign in ip("netns", "list")
        eventually(lambda: not [pid for pid in halves.values() if Path(f"/proc/{pid}").exists() and _ours(pid)])
        code, said, _ = cli("down", "--state", site.state)
        assert code == 0 and "nothing to clear up" in said
        code, said, _ = cli("down", "--json", "--state", site.state)
        assert code == 0 and json.loads(said) == {"stopped": False, "cleared": False}
        assert site.host() == before
    finally:
        ip("netns", "del", foreign)


def _ours(pid: int) -> bool:
    try:
        return b"cofferdam" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def test_a_clearing_up_is_told_to_programs(site: Site) -> None:
    gate = QuickGate(site.state, site.policy)
    try:
        gate.wait_ready()
        gate.process.send_signal(signal.SIGKILL)
        gate.process.wait(PATIENT)
    finally:
        gate.close()
    code, said, _ = cli("down", "--json", "--state", site.state)
    assert code == 0 and json.loads(said) == {"stopped": False, "cleared": True}


def test_after_a_crash_the_next_start_clears_up_by_itself(site: Site) -> None:
    before = site.host()
    gate = QuickGate(site.state, site.policy)
    gate.wait_ready()
    gate.process.send_signal(signal.SIGKILL)
    gate.process.wait(PATIENT)
    gate = QuickGate(site.state, site.policy)
    try:
        gate.wait_ready()
        assert gate.stop() == 0
    finally:
        gate.close()
    assert site.host() == before


def test_an_interface_that_is_gone_does_not_keep_the_rest_from_coming_back(site: Site) -> None:
    gate = QuickGate(site.state, site.policy)
    gate.wait_ready()
    gate.process.send_signal(signal.SIGKILL)
    gate.process.wait(PATIENT)
    subprocess.run(["ip", "-n", site.office, "link", "del", "net0"], check=True)
    code, _, said = cli("down", "--state", site.state)
    assert code == 0 and f"interface {site.it} is gone" in said
    assert site.gates() == [] and GATE_OT in site.host()[site.ot]


def test_a_namespace_of_somebody_else_with_our_name_is_left_alone(site: Site) -> None:
    name = namespace_name(site.name, "it", tag(site.state))
    ip("netns", "add", name)
    try:
        code, said = refuses(site.state, site.policy)
        assert code == 2 and name in said and "has not made it" in said
        code, _, said = cli("down", "--state", site.state)
        assert code == 2 and "no gate runs" in said, "nothing of the failed start is left to clear up"
        assert name in ip("netns", "list")
    finally:
        ip("netns", "del", name)


def test_an_interface_that_is_not_there_ends_the_start_and_moves_nothing(site: Site) -> None:
    before = site.host()
    site.policy.write_text(site.text(plant="interface: nosuch0"))
    code, said = refuses(site.state, site.policy)
    assert code == 2 and "nosuch0" in said
    assert "auditor-does-not-close" not in said  # it was only on its way
    assert site.gates() == [] and site.host() == before
    assert "auditor-does-not-close" not in said
    left = {path.name for path in site.state.iterdir()}
    assert {name for name in left if not name.startswith("spare")} <= {"lock"}, "a failed start leaves no empty folders"


def test_a_failed_start_leaves_what_an_earlier_gate_left(site: Site) -> None:
    gate = QuickGate(site.state, site.policy)
    try:
        gate.wait_ready()
        assert gate.stop() == 0
    finally:
        gate.close()
    before = sorted(site.state.rglob("*"))
    good = site.policy.read_text()
    site.policy.write_text(site.text(plant="interface: nosuch0"))
    assert refuses(site.state, site.policy)[0] == 2
    assert sorted(site.state.rglob("*")) == before
    assert cli("down", "--state", site.state)[0] == 0, "there is nothing to clear up, and that is said"
    site.policy.write_text(good)
    gate = QuickGate(site.state, site.policy)
    try:
        gate.wait_ready()
        assert gate.stop() == 0
    finally:
        gate.close()


@pytest.mark.heavy
def test_a_stop_puts_everything_back_and_addresses_are_kept_where_the_policy_gives_none(site: Site) -> None:
    site.policy.write_text(site.text(office=f"interface: {site.it}", plant=f"interface: {site.ot}"))
    # A host has both versions of IP, also where the policy has one only.
    ip("addr", "add", "fd82::1/64", "dev", site.ot, "nodad")
    ip("route", "add", "fd99::/64", "via", "fd82::254", "dev", site.ot)
    before = site.host()
    device = PlantDevice(site.plant)
    gate = QuickGate(site.state, site.policy)
    try:
        gate.wait_ready()
        with site.client() as client:
            assert client.read() == b"\x03\x02\x00\x2a"
        ot = next(name for name in site.gates() if name.endswith("-ot"))
        assert "10.99.0.0/16 via 10.82.0.254" in ip("-n", ot, "route")
        assert "fd82" not in ip("-n", ot, "addr")
        code, out, err = cli("prove", "--no-probes", "--json", "--state", site.state)
        assert code == 0, out[-3000:] + err
        assert gate.stop() == 0
    finally:
        gate.close()
        device.close()
    assert site.gates() == [] and site.host() == before
    assert "fd99::/64 via fd82::254" in ip("-6", "route", "show", "dev", site.ot)
    assert journal.load(site.state) is None


def test_a_router_that_is_in_no_network_of_the_zone_is_named(site: Site) -> None:
    office = f"interface: {site.it}, addresses: [{GATE_IT}/24], routes: [10.50.0.0/16 via 10.9.9.9]"
    site.policy.write_text(site.text(office=office))
    before = site.host()
    code, said = refuses(site.state, site.policy)
    assert code == 2 and "10.50.0.0/16 via 10.9.9.9" in said and site.it in said
    assert site.gates() == [] and site.host() == before


def kernel_has(site: Site, kind: str) -> bool:
    """Whether interfaces of this kind can be made, by making one."""
    more = ["id", "7"] if kind == "vlan" else []
    words = ["link", "add", "link", "net0", "name", "probe0", "type", kind, *more]
    if subprocess.run(["ip", "-n", site.office, *words], capture_output=True, check=False).returncode != 0:
        return False
    ip("-n", site.office, "link", "del", "probe0")
    return True


@pytest.mark.parametrize("kind", ["vlan: 20", "attach: macvlan"])
def test_an_interface_is_made_on_another_which_stays(site: Site, kind: str) -> None:
    if not kernel_has(site, kind.split(": ")[0].replace("attach", "macvlan")):
        pytest.skip(f"this kernel has no interfaces of the kind that {kind} asks for")
    site.policy.write_text(site.text(plant=f"interface: {site.ot}, {kind}, addresses: [{GATE_OT}/24]"))
    before = site.host()
    ip("addr", "del", f"{GATE_OT}/24", "dev", site.ot)
    if "vlan:" in kind:
        ip("-n", site.plant, "addr", "del", f"{DEVICE}/24", "dev", "net0")
        ip("-n", site.plant, "link", "add", "link", "net0", "name", "v20", "type", "vlan", "id", "20")
        ip("-n", site.plant, "link", "set", "v20", "up")
        ip("-n", site.plant, "addr", "add", f"{DEVICE}/24", "dev", "v20")
    links = ip("-br", "link")
    device = PlantDevice(site.plant)
    gate = QuickGate(site.state, site.policy)
    try:
        gate.wait_ready()
        with site.client() as client:
            assert client.read() == b"\x03\x02\x00\x2a"
        assert f"{site.ot}@" in ip("-br", "link"), "the interface that it is made on stays"
        assert gate.stop() == 0
    finally:
        gate.close()
        device.close()
    names = {line.split("@")[0].split()[0] for line in ip("-br", "link").splitlines()}
    assert names == {line.split("@")[0].split()[0] for line in links.splitlines()}
    assert before.keys() == site.host().keys()


def test_a_macvlan_has_the_same_hardware_address_after_a_crash(site: Site) -> None:
    """Else clients would send to the old one, until they forget it."""
    if not kernel_has(site, "macvlan"):
        pytest.skip("this kernel has no macvlan")
    office = f"interface: {site.it}, attach: macvlan, addresses: [{GATE_IT}/24]"
    site.policy.write_text(site.text(office=office))
    ip("addr", "del", f"{GATE_IT}/24", "dev", site.it)
    device = PlantDevice(site.plant)
    seen = []
    try:
        for ending in (signal.SIGKILL, signal.SIGTERM):
            gate = QuickGate(site.state, site.policy)
            try:
                gate.wait_ready()
                with site.client() as client:
                    assert client.read() == b"\x03\x02\x00\x2a"
                seen.append(ip("-n", site.office, "neigh", "show", GATE_IT).split("lladdr ")[1].split()[0])
                gate.process.send_signal(ending)
                gate.process.wait(PATIENT)
            finally:
                gate.close()
    finally:
        device.close()
    assert seen[0] == seen[1] and int(seen[0][:2], 16) & 3 == 2


CAPSH = ("capsh", "--drop=cap_net_admin", "--", "-c", 'exec "$0" "$@"')


@pytest.mark.skipif(shutil.which("capsh") is None, reason="the program capsh is missing")
def test_a_missing_capability_is_a_refusal_where_the_policy_requires_namespaces(site: Site) -> None:
    site.policy.write_text(site.text(gate="require: namespaces"))
    code, said = refuses(site.state, site.policy, prefix=CAPSH)
    assert code == 2 and "requires network namespaces" in said and "CAP_NET_ADMIN" in said
    assert site.gates() == []


@pytest.mark.skipif(shutil.which("capsh") is None, reason="the program capsh is missing")
def test_and_is_said_at_start_and_in_status_where_it_does_not(site: Site) -> None:
    """The same gate goes on with processes only, at addresses of the host."""
    text = site.text().replace("overlay: 100.65.7.17", f'listen: "{GATE_IT}:5020"')
    site.policy.write_text(text.replace("overlay: 10.81.0.77", f'listen: "{GATE_IT}:5021"'))
    command = [*CAPSH, sys.executable, "-m", "cofferdam.cli.main", "up", str(site.policy), "--state", str(site.state)]
    with (site.folder / "said").open("wb") as errors:
        process = subprocess.Popen(command, stderr=errors)
    try:
        done: list[tuple[int, str, str]] = []

        def answers() -> bool:
            assert process.poll() is None, (site.folder / "said").read_text()
            done[:] = [cli("status", "--state", site.state, "--json")]
            return done[0][0] == 0

        eventually(answers)
        status = json.loads(done[0][1])
    finally:
        process.terminate()
        process.wait(PATIENT)
    assert status["separation"] == "processes"
    fact = next(fact for fact in status["facts"] if fact["name"] == "network namespaces")
    assert not fact["in_force"] and "CAP_NET_ADMIN" in fact["detail"]
    assert "separation-lacks" in (site.folder / "said").read_text()


def test_a_policy_that_the_gate_may_not_read_is_named(site: Site) -> None:
    site.policy.chmod(0o600)
    code, said = refuses(site.state, site.policy)
    assert code == 2 and "may not read the policy" in said and "chmod o+r" in said
