"""A machine that boots with both systemd units."""

from __future__ import annotations

import collections
import json
import time
from typing import Any

from tests.vm import wire
from tests.vm.checks import (
    DEVICE,
    ERP,
    GATE_IT,
    GATE_OT,
    LISTENER,
    MGMT,
    OVERLAY,
    PEERS,
    STRANGER,
    WORKS,
    Checks,
    cards,
    exchange,
    from_card,
    guest,
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
from tests.vm.image import NICS
from tests.vm.machine import Machine
from tests.vm.wire import Frame, syn, who_has

OUTSIDE_IT, OUTSIDE_OT, OUTSIDE_MGMT = "10.81.0.99", "10.82.0.99", "192.0.2.99"


def knock(machine: Machine) -> None:
    """From outside, ten times a second from now on: who are you, let me in, and let me through."""
    mgmt, it, ot = machine.wires
    for hub, card, own, asker, beyond in (
        (mgmt, "mgmt0", MGMT, OUTSIDE_MGMT, ERP), (it, "it0", GATE_IT, OUTSIDE_IT, DEVICE),
        (ot, "ot0", GATE_OT, OUTSIDE_OT, ERP),
    ):  # fmt: skip
        hub.keep_asking([
            who_has(own, asker), syn(NICS[card], own, asker, 2222), syn(NICS[card], beyond, asker, 502, 40001),
        ])  # fmt: skip


def quiet(machine: Machine) -> None:
    for end in machine.wires:
        end.keep_asking([])


def kinds(frames: list[Frame]) -> str:
    counted = collections.Counter(f"{frame.kind:04x}{f' tag {frame.tag}' if frame.tag else ''}" for frame in frames)
    return ", ".join(f"{count} x {kind}" for kind, count in sorted(counted.items())) or "none"


def tcp_from(frames: list[Frame], port: int) -> int:
    """How many TCP packets over IPv4 came from this port."""
    return sum(
        frame.kind == wire.IPV4 and not frame.tag and frame.data[23] == 6 and frame.data[34:36] == port.to_bytes(2)
        for frame in frames
    )


def furnish(machine: Machine) -> None:
    """A machine as an administrator may have it, who knows nothing of the gate: addresses on all cards, something that
    listens on all of them, forwarding, and the distribution's own firewall unit."""
    unpack(machine)
    for card, address in (("mgmt0", MGMT), ("it0", GATE_IT), ("ot0", GATE_OT)):
        put(machine, f"/etc/systemd/network/20-{card}.network", network(card, address))
    put(machine, "/etc/systemd/system/vm-listener.service", LISTENER)
    put(machine, "/etc/sysctl.d/50-forward.conf", "net.ipv4.ip_forward=1")
    machine.must("systemctl daemon-reload; systemctl enable -q vm-listener nftables")


def leave(machine: Machine) -> None:
    """What the first boot, in which nothing is closed yet, says on its way down is none of the second one's."""
    machine.must("systemctl stop systemd-networkd.socket systemd-networkd; ip link set it0 down; ip link set ot0 down")
    time.sleep(0.5)
    for end in machine.wires:
        end.forget()


def closed(machine: Machine, checks: Checks) -> None:
    """Only the closing unit: from power-on no frame leaves by the gate's cards, and none gets through."""
    machine.boot()
    furnish(machine)
    install(machine, policy())
    machine.must("systemctl enable -q cofferdam-shut")
    knock(machine)
    leave(machine)
    machine.reboot()
    machine.must("systemctl is-system-running --wait; true", seconds=120)
    time.sleep(3)
    checks.check("the machine boots without a failed unit", machine.run("systemctl is-system-running").ok,
                 machine.run("systemctl --failed --no-pager").out)  # fmt: skip
    shown = machine.must("ip -br addr")
    checks.check("the network gave the gate's cards their addresses", f"{GATE_IT}/24" in shown and GATE_OT in shown,
                 shown)  # fmt: skip
    own = from_card(machine, 0, "mgmt0")
    checks.check("control: the machine's own card answered from outside", tcp_from(own, 2222) > 0, kinds(own))
    for hub, card in ((1, "it0"), (2, "ot0")):
        seen = from_card(machine, hub, card)
        checks.check(f"from power-on no frame left by {card}", not seen, kinds(seen))
    times = {
        unit: int(next(iter(show(machine, unit, what).values())))
        for unit, what in (("cofferdam-shut", "ActiveEnterTimestampMonotonic"),
                           ("network-pre.target", "ActiveEnterTimestampMonotonic"),
                           ("systemd-networkd", "ExecMainStartTimestampMonotonic"))
    }  # fmt: skip
    checks.check(
        "order: closed, then network-pre.target, then the network",
        0 < times["cofferdam-shut"] <= times["network-pre.target"] <= times["systemd-networkd"], times,
    )  # fmt: skip
    for doing in ("restart nftables", "reload nftables", "stop nftables", "stop cofferdam-shut"):
        for end in machine.wires:
            end.forget()
        machine.run(f"systemctl {doing}")
        time.sleep(1.5)
        seen = from_card(machine, 1, "it0") + from_card(machine, 2, "ot0")
        checks.check(f"still closed after systemctl {doing}", not seen, kinds(seen))
    for end in machine.wires:
        end.forget()
    machine.must("nft flush ruleset")
    time.sleep(1.5)
    seen = from_card(machine, 1, "it0")
    checks.check("control: without the rules the same card answers", tcp_from(seen, 2222) > 0, kinds(seen))
    quiet(machine)


def booted(machine: Machine, checks: Checks) -> None:
    """Both units: order, readiness, what goes through, and reload."""
    machine.boot()
    furnish(machine)
    install(machine, policy())
    machine.must("systemctl enable -q cofferdam-shut cofferdam")
    knock(machine)
    leave(machine)
    machine.reboot()
    ready = wait_ready(machine)
    checks.check("the gate is ready after a boot", ready >= 0, said(machine))
    machine.must("systemctl is-system-running --wait; true", seconds=120)
    now, up = time.monotonic(), float(machine.must("cut -d' ' -f1 /proc/uptime"))
    checks.check("the machine boots without a failed unit", machine.run("systemctl is-system-running").ok,
                 machine.run("systemctl --failed --no-pager").out)  # fmt: skip
    names = ("cofferdam-shut", "cofferdam", "network-pre.target")
    times = {u: int(show(machine, u, "ActiveEnterTimestampMonotonic")["ActiveEnterTimestampMonotonic"]) for u in names}
    begun = {u: int(show(machine, u, "ExecMainStartTimestampMonotonic")["ExecMainStartTimestampMonotonic"])
             for u in ("cofferdam", "systemd-networkd")}  # fmt: skip
    checks.check(
        "order: closed, the gate starts, READY, network-pre.target, the network",
        0 < times["cofferdam-shut"] <= begun["cofferdam"] < times["cofferdam"] <= times["network-pre.target"]
        <= begun["systemd-networkd"], (times, begun),
    )  # fmt: skip
    checks.note(
        f"gate: started {begun['cofferdam'] / 1e6:.1f} s after the kernel, READY at {times['cofferdam'] / 1e6:.1f} s"
    )
    checks.check("it did not need a second start", show(machine, "cofferdam", "NRestarts")["NRestarts"] == "0",
                 said(machine))  # fmt: skip
    for hub, card in ((1, "it0"), (2, "ot0")):
        seen = from_card(machine, hub, card)
        first = min((frame.at for frame in seen), default=now) - now + up
        checks.check(f"no frame left by {card} before the gate had started", first > begun["cofferdam"] / 1e6,
                     (first, begun, kinds(seen)))  # fmt: skip
        checks.check(
            f"nothing that listens on the machine was reached by {card}", tcp_from(seen, 2222) == 0, kinds(seen)
        )
        plain = all(frame.kind in (wire.ARP, wire.IPV4) and not frame.tag for frame in seen)
        checks.check(f"nothing but ARP and IPv4 left by {card}", plain, kinds(seen))
    own = from_card(machine, 0, "mgmt0")
    checks.check("control: the machine's own card answered from outside", tcp_from(own, 2222) > 0, kinds(own))
    quiet(machine)
    machine.must(PEERS)
    done = exchange(machine)
    checks.check("a read and a write are brokered between the physical cards", done == WORKS, done)
    done = exchange(machine, source=STRANGER)
    checks.check("a stranger gets no answer", "timed out" in done or "TimeoutError" in done, done)
    found = status(machine)
    facts = {fact["name"]: fact for fact in found.get("facts", [])}
    lacking = [name for name, fact in facts.items() if not fact["in_force"]]
    checks.check("status: namespaces, and every fact in force", found.get("separation") == "namespaces" and not lacking,
                 [facts[name] for name in lacking] or found)  # fmt: skip
    checks.note("; ".join(f"{name}: {facts[name]['detail']}" for name in facts if "landlock" in name))
    ids = 'ps -eo pid=,uid= | awk \'$2 >= 64002 && $2 <= 64999 {print "/proc/" $1 "/status"}\''
    halves = machine.must(f"{ids} | xargs grep -hE '^(Seccomp|NoNewPrivs|CapBnd):' | sort | uniq -c")
    bare = all(line in halves for line in ("2 Seccomp:\t2", "2 NoNewPrivs:\t1", "2 CapBnd:\t0000000000000000"))
    checks.check("both halves have a filter, no privileges to gain and no capability",
                 bare and len(halves.splitlines()) == 3, halves)  # fmt: skip
    put(machine, "/root/reloaded.yaml", policy(write=""))
    done = machine.run(guest("over-a-reload", "office", ERP, OVERLAY, "/root/reloaded.yaml"), seconds=90).out
    checks.check("systemctl reload: the session goes on, and the write is now refused",
                 "before: 0302002a True" in done and "after: 0302002a False" in done, done + said(machine))  # fmt: skip
    put(machine, "/root/broken.yaml", policy().replace("site: vm", "site: [vm"))
    machine.must("cp /root/broken.yaml /etc/cofferdam/policy.yaml")
    checks.check(
        "systemctl reload of a broken policy fails", not machine.run("systemctl reload cofferdam").ok, said(machine)
    )
    checks.check("a reload with a broken policy changes nothing", "read 0302002a" in exchange(machine), said(machine))
    code = machine.run("cofferdam audit verify", seconds=60)
    checks.check("the audit log verifies", code.ok, code.out)
    loud = machine.run("journalctl -b -k --no-pager | grep -E 'type=1326|segfault|BUG: |WARNING: CPU'").out
    checks.check("the kernel had nothing to say about it", not loud, loud)


def _started_later(machine: Machine) -> str:
    """A gate that is started on a machine whose network is up already. How the cards looked before."""
    machine.boot()
    furnish(machine)
    machine.must("systemctl restart systemd-networkd; sleep 2")
    install(machine, policy())
    before = cards(machine)
    start(machine)
    machine.must(PEERS)
    return before


def supervised(machine: Machine, checks: Checks) -> None:
    """What systemd does when a part of the gate dies or hangs."""
    _started_later(machine)
    done = exchange(machine)
    checks.check("a gate that is started later takes the cards", done == WORKS, done + said(machine))

    def dies(what: str, script: str, seconds: float) -> None:
        old = show(machine, "cofferdam", "MainPID", "NRestarts")
        pids = machine.must(
            "systemctl show -P ControlGroup cofferdam | xargs -I@ cat /sys/fs/cgroup@/cgroup.procs"
        ).split()
        machine.must(script.replace("MAIN", old["MainPID"]).replace("GATE", str(status(machine)["pid"])))
        started = time.monotonic()
        wait_ready(machine, other_than=old["MainPID"])
        took = time.monotonic() - started
        new = show(machine, "cofferdam", "MainPID", "NRestarts", "ActiveState")
        ok = new["ActiveState"] == "active" and int(new["NRestarts"]) == int(old["NRestarts"]) + 1 and took < seconds
        checks.check(f"{what}: systemd starts the gate again", ok, (old, new, took, said(machine)))
        checks.note(f"ready again after {took:.0f} s")
        left = machine.run(f"cat {' '.join(f'/proc/{pid}/cmdline' for pid in pids)} 2>/dev/null | tr '\\0' ' '").out
        checks.check(f"{what}: no process of the old gate is left", "cofferdam" not in left, left)
        done = exchange(machine)
        checks.check(f"{what}: the new gate works", done == WORKS, done + said(machine))

    dies("kill -9 of the launcher", "kill -9 MAIN", 60)
    dies("kill -9 of the gate's process", "kill -9 GATE", 60)
    dies("the gate's process hangs (SIGSTOP)", "kill -STOP GATE", 90)
    dies("the launcher hangs (SIGSTOP)", "kill -STOP MAIN", 120)
    checks.check("the last was systemd's watchdog", "Watchdog timeout" in said(machine, lines=60), said(machine))


def stopped(machine: Machine, checks: Checks) -> None:
    """What is left after a stop, after down, and after kill -9 where nobody starts the gate again."""
    before = _started_later(machine)
    knock(machine)
    machine.must("systemctl stop cofferdam", seconds=60)
    for end in machine.wires:
        end.forget()
    time.sleep(2)
    after, spaces = cards(machine), machine.must("ip netns list")
    checks.check("after a stop the cards are back as they were", after == before, f"{before}\n{after}")
    checks.check("after a stop no namespace of the gate is left", "cofferdam-vm" not in spaces, spaces)
    state = show(machine, "cofferdam", "ActiveState", "Result", "ExecMainStatus")
    orderly = {"ActiveState": "inactive", "Result": "success", "ExecMainStatus": "0"}
    checks.check("the stop was an orderly one", state == orderly, (state, said(machine)))
    seen = from_card(machine, 1, "it0") + from_card(machine, 2, "ot0")
    checks.check("after a stop the cards lead nowhere", not seen, kinds(seen))
    done = machine.run("cofferdam down")
    checks.check("down after a stop finds nothing to do", done.ok and "nothing to clear up" in done.out, done.out)
    quiet(machine)

    machine.must("systemctl start cofferdam", seconds=180)
    checks.check("it starts again", exchange(machine) == WORKS, said(machine))
    done = machine.run("cofferdam down", seconds=60)
    time.sleep(3)
    state = show(machine, "cofferdam", "ActiveState", "SubState")
    checks.check("cofferdam down ends it, and systemd leaves it so", done.ok and state["ActiveState"] == "inactive",
                 (done.out, state, said(machine)))  # fmt: skip
    checks.check("after down the cards are back as they were", cards(machine) == before, cards(machine))

    # A card that appears only after the gate was to start, as with a slow driver.
    machine.must("ip link set it0 down; ip link set it0 name late0; systemctl start --no-block cofferdam; sleep 6")
    early = show(machine, "cofferdam", "ActiveState")["ActiveState"]
    machine.must("ip link set late0 name it0")
    checks.check(
        "a card that appears late is waited for", early != "active" and wait_ready(machine) >= 0, said(machine)
    )
    checks.check("and is brokered from", exchange(machine) == WORKS, said(machine))
    machine.must("systemctl stop cofferdam; systemctl restart systemd-networkd; sleep 2", seconds=60)
    before = cards(machine)

    # Without systemd to start it anew: what a killed gate leaves, and what puts it right.
    machine.must("systemctl stop cofferdam; systemd-run --quiet --unit=bare -p OOMScoreAdjust=0 "
                 "/opt/venv/bin/cofferdam up /etc/cofferdam/policy.yaml")  # fmt: skip
    machine.run("for i in $(seq 120); do cofferdam status >/dev/null && break; sleep 0.5; done", seconds=120)
    checks.check("a gate without systemd's notice works too", exchange(machine) == WORKS, said(machine, "bare"))
    machine.must("kill -9 $(systemctl show -P MainPID bare); sleep 1")
    gone = "it0" not in machine.must("ip -br link")
    done = machine.run("cofferdam down")
    checks.check("after kill -9, down puts the cards back as they were",
                 gone and done.ok and cards(machine) == before and "cofferdam-vm" not in machine.must("ip netns list"),
                 (gone, done.out, cards(machine)))  # fmt: skip
    code = machine.run("cofferdam audit verify", seconds=60)
    checks.check("the audit log verifies after all of it", code.ok, code.out)


def power(machine: Machine, checks: Checks) -> None:
    """The power goes while writes are under way; the machine boots again."""
    machine.boot()
    furnish(machine)
    install(machine, policy())
    start(machine)
    machine.must("sync")
    machine.must(PEERS)
    machine.must(f"systemd-run --quiet --unit=writer --working-directory=/opt/cofferdam /opt/venv/bin/python"
                 f" -m tests.vm.guest write-on office {ERP} {OVERLAY}")  # fmt: skip
    deadline = time.monotonic() + 60
    while (not machine.heard.exists() or machine.heard.stat().st_size < 600) and time.monotonic() < deadline:
        time.sleep(0.05)
    machine.cut_power()
    acknowledged = {int(line) for line in machine.heard.read_text().split("\n")[:-1]}
    checks.check("writes were acknowledged until the power went", len(acknowledged) > 50, len(acknowledged))
    machine.boot()
    ready = wait_ready(machine)
    checks.check("the gate is ready after the second boot", ready >= 0, said(machine))
    code = machine.run("cofferdam audit verify", seconds=60)
    checks.check("the audit log verifies", code.ok, code.out)
    out = machine.must("cofferdam audit show --json --kind write-allowed", seconds=90)
    logged = {value for line in out.splitlines() if line.startswith("{") for value in _written(json.loads(line))}
    lost = sorted(acknowledged - logged)
    checks.check(f"none of {len(acknowledged)} acknowledged writes is lost to the log", logged and not lost,
                 (lost[:20], out[-1500:]))  # fmt: skip
    code = machine.run(
        "cofferdam audit show --kind torn-tail --last 1; cofferdam audit show --kind log-opened --last 1"
    )
    checks.note(" ".join(code.out.split()))
    machine.must(PEERS)
    done = exchange(machine)
    checks.check("and it brokers again", done == WORKS, done)


def _written(entry: dict[str, Any]) -> list[int]:
    """The numbers that a write-allowed entry is about: two registers as one number."""
    writes = entry.get("event", entry)["writes"]
    return [(values[0] << 16) | values[1] for _, _, values in writes if len(values) == 2]
