"""Packets that are dropped unseen are counted where people look; the counters are the kernel's own."""

from __future__ import annotations

import re
import subprocess
from typing import Any

import pytest

from cofferdam.enforce import firewall, kernel
from cofferdam.enforce.counters import Counters
from cofferdam.enforce.inside import inside
from tests.enforce.conftest import Live
from tests.enforce.site import ERP, STRANGER, ip, netns
from tests.gate.plant import cli
from tests.waiting import eventually

pytestmark = netns
RULES = """
table inet cofferdam {
  counter dropped-input { packets 12345678901 bytes 7 }
  counter dropped-output { }
  chain input { type filter hook input priority 0; policy accept; counter name dropped-input; }
}
"""


def read_counters(rules: str) -> list[Any]:
    """In a child with a fresh namespace: before there are rules, with some, and as nft sees them."""
    kernel.unshare(kernel.CLONE_NEWNET)
    counters = Counters()
    names = ("dropped-input", "dropped-output", "dropped-nowhere")
    before = counters.packets(names)
    subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)
    kernel_says = counters.packets(names)
    listed = [entry["counter"] for entry in firewall.live(firewall.find_nft())["nftables"] if "counter" in entry]
    counters.close()
    return [before, kernel_says, {entry["name"]: entry["packets"] for entry in listed}]


def test_counters_are_read_as_nft_shows_them() -> None:
    before, says, nft = inside(None, read_counters, RULES)
    assert before == {}
    assert says == nft == {"dropped-input": 12345678901, "dropped-output": 0}


def test_a_host_that_no_conduit_names_shows_in_status_metrics_and_log(live: Live) -> None:
    def dropped() -> dict[str, int]:
        (it,) = [side for side in live.gate.status()["dropped"] if side["side"] == "it"]
        found: dict[str, int] = it["packets"]
        return found

    before = dropped()
    with pytest.raises(TimeoutError):
        live.site.client(source=STRANGER, timeout=0.7)
    # Status says what it knows where the launcher has other work.
    eventually(lambda: dropped()["input"] > before["input"])
    after = dropped()
    assert set(after) == {"input", "output", "forward", "openings"}
    _, said, _ = cli("status", "--state", live.site.state)
    (line,) = re.findall(r"firewall\s+of\s+side\s+it:\s+packets\s+dropped\s+without\s+an\s+answer: ([\d,]+)", said)
    assert int(line.replace(",", "")) >= after["input"]

    def recorded() -> bool:
        code, log, _ = cli("audit", "show", "--kind", "packets-dropped", "--state", live.site.state)
        return code == 0 and bool(re.search(r"packets-dropped +it: [\d,]+ coming in", log))

    eventually(recorded)


def test_the_count_goes_on_over_a_reload_which_makes_the_counters_anew(live: Live) -> None:
    """And who knocked is still named, until a policy lets them in."""

    def dropped() -> int:
        total: int = live.gate.status()["dropped"][0]["packets"]["input"]
        return total

    def knocked() -> int:
        return sum(one["times"] for one in live.gate.status()["strangers"] if one["source"] == STRANGER)

    with pytest.raises(TimeoutError):
        live.site.client(source=STRANGER, timeout=0.7)
    eventually(knocked)
    before, times = dropped(), knocked()
    live.site.policy.write_text(live.site.text(gate="leak_probe: 10 min"))
    try:
        assert cli("reload", "--state", live.site.state)[0] == 0
        after = dropped()
        assert after >= before
        assert knocked() >= times
        with pytest.raises(TimeoutError):
            live.site.client(source=STRANGER, timeout=0.7)
        eventually(lambda: dropped() > after and knocked() > times)
        it = next(name for name in live.site.gates() if name.endswith("-it"))
        listed = ip("netns", "exec", it, "nft", "list", "counter", "inet", "cofferdam", "dropped-input")
        assert int(re.findall(r"packets (\d+)", listed)[0]) < dropped(), "the kernel's own began anew"
        live.site.policy.write_text(live.site.text().replace(f"[{ERP}]", f"[{ERP}, {STRANGER}]"))
        assert cli("reload", "--state", live.site.state)[0] == 0
        assert not knocked()
    finally:
        live.site.policy.write_text(live.site.text())
        assert cli("reload", "--state", live.site.state)[0] == 0


def test_who_was_dropped_and_a_cable_that_is_out_are_alarms(live: Live) -> None:
    """The commonest first-site mistake is a client with another address than the policy says."""
    with pytest.raises(TimeoutError):
        live.site.client(source=STRANGER, timeout=0.7)

    def alarms() -> dict[str, str]:
        return {one["name"]: one["detail"] for one in live.gate.status()["alarms"]}

    eventually(lambda: "strangers" in alarms())
    status = live.gate.status()
    (seen,) = [one for one in status["strangers"] if one["source"] == STRANGER and one["asset"] == "plc"]
    assert seen["near"] == ["erp"] and seen["times"] >= 1 and seen["port"] == 502
    assert f"{STRANGER} knocked at plc" in alarms()["strangers"] and "near" in alarms()["strangers"]
    wires = {one["zone"]: one for one in status["wires"]}
    assert wires["office"]["carrier"] and wires["plant"]["addresses"] == 1
    ip("-n", live.site.plant, "link", "set", "net0", "down")
    try:
        eventually(lambda: "zone-link-plant" in alarms())
        assert "no link" in alarms()["zone-link-plant"]
        assert live.gate.status()["verdict"].startswith("NOT OK")
    finally:
        ip("-n", live.site.plant, "link", "set", "net0", "up")
    eventually(lambda: "zone-link-plant" not in alarms())


def test_reload_reads_the_policy_as_the_caller_does(live: Live) -> None:
    """From a folder that the gate does not see, and a file that its user could not open."""
    before = live.site.policy.read_text()
    elsewhere = live.site.folder / "elsewhere" / "new.yaml"
    elsewhere.parent.mkdir(mode=0o700)
    elsewhere.write_text(before.replace("reason: tests", "reason: another"))
    elsewhere.chmod(0o600)
    code, out, err = cli("reload", elsewhere, "--state", live.site.state)
    assert code == 0 and "is in force" in out, err
    elsewhere.write_text(before.replace("zone: plant", "zone: plnt", 1))
    code, _, err = cli("reload", elsewhere, "--state", live.site.state)
    assert code == 2 and "did you mean plant" in err
    code, _, err = cli("reload", live.site.policy, "--state", live.site.state)
    assert code == 0, err
