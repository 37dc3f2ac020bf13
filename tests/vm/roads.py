"""Interfaces of every kind, peers by the kernel's WireGuard, and the proof; on a gate that systemd started."""

from __future__ import annotations

import json
import time

from tests.vm.checks import (
    DEVICE,
    GATE_IT,
    GATE_OT,
    LISTENS,
    MGMT,
    OVERLAY,
    PEERS,
    WORKS,
    Checks,
    cards,
    exchange,
    from_card,
    install,
    network,
    policy,
    put,
    said,
    show,
    start,
    status,
    unpack,
    wait_ready,
)
from tests.vm.machine import Machine
from tests.vm.units import kinds

ENDPOINT_PORT = 51820
TAG = 20
VLAN_OT = f"interface: ot0, vlan: {TAG}, addresses: [{GATE_OT}/24]"
MACVLAN_IT = f"interface: it0, attach: macvlan, addresses: [{GATE_IT}/24]"


def _started(machine: Machine, checks: Checks, name: str, text: str) -> bool:
    install(machine, text)
    machine.run("systemctl restart cofferdam-shut; systemctl restart cofferdam", seconds=180)
    ok = wait_ready(machine) >= 0
    checks.check(f"{name}: the gate starts", ok, said(machine))
    return ok


def interfaces(machine: Machine, checks: Checks) -> None:
    """The cards themselves, and a VLAN: end to end, and everything back after a stop and after kill -9."""
    _each(machine, checks, "cards", "vlan")


def shared(machine: Machine, checks: Checks) -> None:
    """The same with a macvlan, and with a macvlan on one side and a VLAN on the other."""
    _each(machine, checks, "macvlan", "vlan and macvlan")


def _each(machine: Machine, checks: Checks, *names: str) -> None:
    machine.boot()
    unpack(machine)
    machine.must(PEERS)
    machine.must(f"""
      ip addr add {GATE_IT}/24 dev it0; ip link set it0 up; ip addr add {GATE_OT}/24 dev ot0; ip link set ot0 up
      ip route add 10.99.0.0/16 via 10.82.0.254 dev ot0 metric 7""")
    again = f"systemctl restart device; sleep 1; {LISTENS}"
    tagged = f"""
      ip -n plant addr del {DEVICE}/24 dev plant0; ip -n plant link add link plant0 name tagged type vlan id {TAG}
      ip -n plant link set tagged up; ip -n plant addr add {DEVICE}/24 dev tagged; {again}"""
    plain = f"ip -n plant link del tagged; ip -n plant addr add {DEVICE}/24 dev plant0; {again}"
    before = cards(machine)
    links = "ip -br link | awk '{print $1, $2}' | sort"
    there = machine.must(links)
    for name, text, prepare, undo in (
        ("cards", policy(), "true", "true"),
        ("vlan", policy(ot=VLAN_OT), f"ip addr del {GATE_OT}/24 dev ot0; {tagged}", plain),
        ("macvlan", policy(it=MACVLAN_IT), f"ip addr del {GATE_IT}/24 dev it0", "true"),
        ("vlan and macvlan", policy(it=MACVLAN_IT, ot=VLAN_OT),
         f"ip addr del {GATE_IT}/24 dev it0; ip addr del {GATE_OT}/24 dev ot0; {tagged}", plain),
    ):  # fmt: skip
        if name not in names:
            continue
        machine.must(prepare + "; sleep 1")
        own, own_links = cards(machine), machine.must(links)
        for wire in machine.wires:
            wire.forget()
        if _started(machine, checks, name, text):
            done = exchange(machine)
            checks.check(f"{name}: a read and a write are brokered", done == WORKS, done + said(machine))
            seen = from_card(machine, 2, "ot0")
            if "vlan: " in text:
                tagged_only = seen and all(frame.tag == TAG for frame in seen if frame.data[12:14] != b"\x86\xdd")
                checks.check(f"{name}: on the OT wire the gate's frames carry tag {TAG}",
                             tagged_only and any(frame.tag == TAG for frame in seen), kinds(seen))  # fmt: skip
            shown = machine.must("ip -br link")
            stays = [
                card for card, kind in (("it0", "macvlan"), ("ot0", "vlan: ")) if (kind in text) != (card in shown)
            ]
            checks.check(f"{name}: what it is made on stays with the machine, the rest does not", not stays, shown)
            old = show(machine, "cofferdam", "MainPID")["MainPID"]
            alarms = status(machine).get("alarms", [])
            checks.check(f"{name}: no alarm stands", not alarms, alarms)
            machine.must(f"kill -9 {old}")
            restarted = wait_ready(machine, other_than=old) >= 0
            done = exchange(machine)
            checks.check(
                f"{name}: after kill -9 the next gate brokers", restarted and done == WORKS, done + said(machine)
            )
        machine.must("systemctl stop cofferdam", seconds=60)
        spaces = machine.must("ip netns list")
        checks.check(f"{name}: after a stop everything is back as it was",
                     cards(machine) == own and machine.must(links) == own_links and "cofferdam-vm" not in spaces,
                     f"{own}{own_links}\n{cards(machine)}{machine.must(links)}{spaces}")  # fmt: skip
        machine.must(
            f"nft delete table inet cofferdam-shut; nft delete table arp cofferdam-shut; {undo}; "
            f"ip addr replace {GATE_IT}/24 dev it0; ip addr replace {GATE_OT}/24 dev ot0; "
            f"ip route replace 10.99.0.0/16 via 10.82.0.254 dev ot0 metric 7"
        )
    checks.check("at the end the machine is as it was", (cards(machine), machine.must(links)) == (before, there),
                 (before, cards(machine)))  # fmt: skip


def peers(machine: Machine, checks: Checks) -> None:
    """The kernel's WireGuard at both ends: a peer comes, reaches an asset by its name, and is cut off at once."""
    machine.boot()
    unpack(machine)
    put(machine, "/etc/systemd/network/20-mgmt0.network", network("mgmt0", MGMT))
    machine.must("systemctl restart systemd-networkd; sleep 1")
    machine.must(PEERS)
    more = (
        f"""overlay: {{prefix: 10.91.7.0/24, wireguard: {{endpoint: "{MGMT}:{ENDPOINT_PORT}", peers: 10.91.8.0/24}}}}"""
    )
    install(machine, policy(more=more, who="erp, alice"))
    start(machine)
    checks.check("the gate has the kernel's WireGuard, without wireguard-go",
                 not machine.run("command -v wireguard-go").ok and "wireguard" in machine.must("lsmod"),
                 machine.must("lsmod") + said(machine))  # fmt: skip
    out = machine.must("cofferdam overlay add-peer alice --json", seconds=60)
    config = json.loads(out[out.index("{") :])["config"]
    fields = dict(line.split(" = ", 1) for line in config.splitlines() if " = " in line)
    kept = [line for line in config.splitlines() if line.split(" = ")[0] not in ("Address", "DNS", "MTU")]
    put(machine, "/root/peer.conf", "\n".join(kept))
    script = "set -e; ip -n away link add peer0 type wireguard; ip netns exec away wg setconf peer0 /root/peer.conf\n"
    for address in fields["Address"].split(", "):
        script += f"ip -n away addr add {address} dev peer0\n"
    script += f"ip -n away link set peer0 mtu {fields.get('MTU', '1420')} up\n"
    for to in fields["AllowedIPs"].split(", "):
        script += f"ip -n away route add {to} dev peer0\n"
    machine.must(script)
    mine = fields["Address"].split(", ")[0].split("/")[0]
    done = exchange(machine, "away", mine)
    checks.check("a peer reads and writes through the tunnel", done == WORKS, done + said(machine))
    checks.check("an ordinary client does so beside it", exchange(machine) == WORKS)
    shown = machine.run("cofferdam overlay peers --json", seconds=60).out
    entry: dict[str, int] = next(iter(json.loads(shown[shown.index("{") :])["peers"]), {})
    checks.check("overlay peers: a handshake, and bytes both ways",
                 entry.get("handshake", 0) > 0 and entry["received"] > 0 and entry["sent"] > 0, shown)  # fmt: skip
    proof = machine.run("cofferdam prove --json --wire-it office:office0 --wire-ot plant:plant0 > /root/proof.json; "
                        "echo code $?", seconds=240)  # fmt: skip
    _judge(machine, checks, proof.out, "with the tunnel")
    machine.must("systemd-run --quiet --unit=hold --working-directory=/opt/cofferdam /opt/venv/bin/python"
                 f" -m tests.vm.guest hold away {mine} {OVERLAY} /run/held")  # fmt: skip
    machine.must("for i in $(seq 100); do [ -e /run/held ] && exit 0; sleep 0.2; done; exit 1")
    # The time counts from the command's return: nothing may be answered after it.
    code = machine.run("cofferdam overlay revoke alice --json; date +%s.%N", seconds=60)
    told = code.out[: code.out.rindex("}") + 1]
    checks.check("revoke ends the peer's session", code.ok and json.loads(told[told.index("{") :])["sessions"] == 1,
                 code.out)  # fmt: skip
    left = status(machine).get("sessions", [])
    checks.check("no session of the peer is left", not [s for s in left if s["source"] == mine], left)
    reads = "journalctl -b -u hold --no-pager -o cat"
    time.sleep(7)
    checks.check("what the peer had open hears nothing any more", "ended:" in machine.run(reads).out,
                 machine.run(reads).out)  # fmt: skip
    done = exchange(machine, "away", mine)
    checks.check("and it does not come in again", "timed out" in done or "TimeoutError" in done, done)
    checks.check("the ordinary client goes on", exchange(machine) == WORKS)
    machine.must("systemctl stop cofferdam", seconds=60)
    shown = machine.must("ip -br link; ip netns list")
    checks.check("after a stop the tunnel is gone", "cd" not in shown.replace("cofferdam", ""), shown)


def _judge(machine: Machine, checks: Checks, out: str, name: str) -> None:
    try:
        report = json.loads(machine.run("cat /root/proof.json").out)["report"]
    except ValueError:
        checks.check(f"prove {name}", False, out + machine.run("cat /root/proof.json").out)
        return
    failed = [
        f"{s['part']}: {s['name']}: {s['says']} {s['evidence'][:3]}"
        for s in report["statements"]
        if s["status"] == "failed"
    ]
    counts = ", ".join(f"{count} {status}" for status, count in sorted(report["counts"].items()) if count)
    families = {s["name"] for s in report["statements"] if s["part"] == "canaries" and s["status"] == "tested"}
    canaries = [family for family in families if family.endswith(" canaries")]
    checks.check(f"prove {name}: nothing failed", "code 0" in out and not failed, "\n".join(failed) + out)
    checks.check(f"prove {name}: canaries of 21 families", len(canaries) == 21, sorted(families))
    checks.note(counts)


def proof(machine: Machine, checks: Checks) -> None:
    """`cofferdam prove` on the gate that systemd booted, with canaries on the physical wires; sabotage in the lab."""
    machine.boot()
    unpack(machine)
    install(machine, policy())
    start(machine)
    machine.must(PEERS)
    words = "--json --wire-it office:office0 --wire-ot plant:plant0 --output /root/signed.json"
    out = machine.run(f"cofferdam prove {words} > /root/proof.json; echo code $?", seconds=240)
    _judge(machine, checks, out.out, "under systemd")
    done = machine.run("cofferdam prove --verify /root/signed.json", seconds=60)
    checks.check("its signature verifies", done.ok, done.out)
    machine.must("systemctl stop cofferdam; systemctl stop device; rm /root/proof.json", seconds=60)
    script = """cd /opt/cofferdam && cat > /root/lab.py <<'END'
import json, pathlib, sys
from tests.prove.stage import staged
with staged() as stage:
    code, document = stage.prove("--sabotage")
    pathlib.Path("/root/proof.json").write_text(json.dumps(document))
    print("code", code)
END
COFFERDAM_TEST_PATIENCE=6 PYTHONPATH=. python /root/lab.py"""
    _judge(machine, checks, machine.run(script, seconds=280).out, "--sabotage in the lab")
    document = json.loads(machine.must("cat /root/proof.json"))
    tested = [s for s in document["report"]["statements"] if s["part"] == "sabotage" and s["status"] == "tested"]
    checks.check("sabotage: canaries of 21 families stay away", sum("canaries" in s["name"] for s in tested) == 21,
                 [s["name"] for s in tested])  # fmt: skip
