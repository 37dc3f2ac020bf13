"""What a gate takes from the host comes back: after a stop, after a crash, twice; and nothing else is touched."""

from __future__ import annotations

import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from cofferdam.enforce import journal
from tests.enforce.site import DEVICE, GATE_OT, PORT, PlantDevice, Site, ip, netns
from tests.gate.plant import Gate, cli, refuses

pytestmark = netns


def test_a_stop_puts_everything_back(site: Site) -> None:
    before = site.host()
    gate = Gate(site.state, site.policy)
    try:
        gate.wait_ready()
        assert len(site.gates()) == 2 and site.host() != before
        assert gate.stop() == 0
    finally:
        gate.close()
    assert site.gates() == [] and site.host() == before
    assert journal.load(site.state) is None


def test_after_a_crash_down_puts_everything_back_and_touches_nothing_else(site: Site) -> None:
    before = site.host()
    foreign = f"{site.office}x"
    ip("netns", "add", foreign)
    try:
        gate = Gate(site.state, site.policy)
        try:
            gate.wait_ready()
            halves = gate.pids()
            gate.process.send_signal(signal.SIGKILL)
            gate.process.wait(10)
        finally:
            gate.close()
        assert len(site.gates()) == 2, "a killed launcher can not have cleared up"
        code, said, _ = cli("down", "--state", site.state)
        assert code == 0 and "back in place" in said
        assert site.gates() == [] and site.host() == before
        assert foreign in ip("netns", "list")
        assert not [pid for pid in halves.values() if Path(f"/proc/{pid}").exists() and _ours(pid)]
        code, said, _ = cli("down", "--state", site.state)
        assert code == 0 and "nothing to clear up" in said
        assert site.host() == before
    finally:
        ip("netns", "del", foreign)


def _ours(pid: int) -> bool:
    try:
        return b"cofferdam" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def test_after_a_crash_the_next_start_clears_up_by_itself(site: Site) -> None:
    before = site.host()
    gate = Gate(site.state, site.policy)
    gate.wait_ready()
    gate.process.send_signal(signal.SIGKILL)
    gate.process.wait(10)
    gate = Gate(site.state, site.policy)
    try:
        gate.wait_ready()
        assert gate.stop() == 0
    finally:
        gate.close()
    assert site.host() == before


def test_an_interface_that_is_gone_does_not_keep_the_rest_from_coming_back(site: Site) -> None:
    gate = Gate(site.state, site.policy)
    gate.wait_ready()
    gate.process.send_signal(signal.SIGKILL)
    gate.process.wait(10)
    subprocess.run(["ip", "-n", site.office, "link", "del", "net0"], check=True)
    code, _, said = cli("down", "--state", site.state)
    assert code == 0 and f"interface {site.it} is gone" in said
    assert site.gates() == [] and GATE_OT in site.host()[site.ot]


def test_a_namespace_of_somebody_else_with_our_name_is_left_alone(site: Site) -> None:
    gate = Gate(site.state, site.policy)
    gate.wait_ready()
    names = site.gates()
    assert gate.stop() == 0
    ip("netns", "add", names[0])
    try:
        code, said = refuses(site.state, site.policy)
        assert code == 2 and names[0] in said and "has not made it" in said
        assert cli("down", "--state", site.state)[0] == 0
        assert names[0] in ip("netns", "list")
    finally:
        ip("netns", "del", names[0])


def test_an_interface_that_is_not_there_ends_the_start_and_moves_nothing(site: Site) -> None:
    before = site.host()
    site.policy.write_text(site.text(plant="interface: nosuch0"))
    code, said = refuses(site.state, site.policy)
    assert code == 2 and "nosuch0" in said
    assert site.gates() == [] and site.host() == before


def test_an_interface_keeps_its_own_addresses_where_the_policy_gives_none(site: Site) -> None:
    site.policy.write_text(site.text(office=f"interface: {site.it}", plant=f"interface: {site.ot}"))
    before = site.host()
    device = PlantDevice(site.plant)
    gate = Gate(site.state, site.policy)
    try:
        gate.wait_ready()
        with site.client() as client:
            assert client.read() == b"\x03\x02\x00\x2a"
        ot = next(name for name in site.gates() if name.endswith("-ot"))
        assert "10.99.0.0/16 via 10.82.0.254" in ip("-n", ot, "route")
        assert gate.stop() == 0
    finally:
        gate.close()
        device.close()
    assert site.host() == before


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
    gate = Gate(site.state, site.policy)
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


def test_what_can_not_be_had_is_said(site: Site) -> None:
    """Without the privilege: refused where the policy requires namespaces, said in `status` where it does not."""
    prefix = ("capsh", "--drop=cap_net_admin", "--", "-c", 'exec "$0" "$@"')
    if shutil.which("capsh"):
        site.policy.write_text(site.text(gate="require: namespaces"))
        code, said = refuses(site.state, site.policy, prefix=prefix)
        assert code == 2 and "CAP_NET_ADMIN" in said
    code, said = refuses(site.state, site.policy, "--one-process")
    assert code == 2 and ("one process" in said or "address" in said)
    assert PORT


def test_a_policy_that_the_gate_may_not_read_is_named(site: Site) -> None:
    site.policy.chmod(0o600)
    code, said = refuses(site.state, site.policy)
    assert code == 2 and "may not read the policy" in said and "chmod o+r" in said
