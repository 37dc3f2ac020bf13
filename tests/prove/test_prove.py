"""The proof of a running gate in real namespaces: that it holds, and that each thing that could be wrong is found."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import z3

from cofferdam.audit.checkpoint import VerifierKey, open_note
from cofferdam.brokers.registry import CREWS
from cofferdam.cli.main import main
from cofferdam.enforce import inside as worker
from cofferdam.enforce import journal, kernel, netns
from cofferdam.enforce.isolation import Berth
from cofferdam.enforce.orders import Place
from cofferdam.errors import GateError
from cofferdam.gate.client import ask
from cofferdam.proof import canaries, leaking, probes, processes, programs, reading, sabotage, solving, structure
from cofferdam.proof import run as proof
from cofferdam.proof.frames import FAMILIES, Target
from cofferdam.proof.statements import Statements
from tests.gate.conftest import Site as PlainSite
from tests.gate.conftest import site as site
from tests.gate.plant import running
from tests.prove.stage import Stage, run, staged
from tests.verbs import KERNEL, cli
from tests.waiting import PATIENT, alone, eventually


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with staged() as made:
        yield made


@pytest.mark.netns
@pytest.mark.heavy
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
class TestAll:
    def test_sabotage_and_all_else_and_the_report(self, stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
        page, file = stage.folder / "report.html", stage.folder / "report.json"
        questions = stage.folder / "smt"
        questions.mkdir()
        words = ["--sabotage", "--html", str(page), "--output", str(file), "--smt", str(questions)]
        code, document = stage.prove(*words)
        report = document["report"]
        failed = [s for s in report["statements"] if s["status"] == "failed"]
        assert (code, failed) == (0, [])
        for part in ("canaries", "sabotage"):
            tested = {s["name"] for s in report["statements"] if s["part"] == part and s["status"] == "tested"}
            assert {f"{family} canaries" for family in FAMILIES} <= tested
        # The solver's statements stand twice: before, and after all was put back.
        names = [s["name"] for s in report["statements"] if s["status"] == "proved"]
        assert len(names) >= 32 and all(names.count(name) == 2 for name in names)
        assert all(s["time_ns"] for s in report["statements"])
        # The signed note names the report's hash, and so does the audit log.
        key = VerifierKey.parse((stage.state / "keys" / "audit.pub").read_text())
        assert document["sha256"] in open_note(document["note"].encode(), key)
        log = cli("audit", "show", "--state", stage.state, "--json")[1]
        assert document["sha256"] in log and "proof-done" in log
        text = page.read_text()
        assert "<script" not in text and "http://" not in text and "https://" not in text
        assert document["sha256"] in text and all(family in text for family in FAMILIES)
        # Each question can be asked again, without us.
        asked = sorted(questions.iterdir())
        assert len(asked) == 16
        for path in asked:
            solver = z3.Solver()
            solver.from_file(str(path))
            assert solver.check() == z3.unsat
        # A report that was changed is told from the signed one.
        assert main(["prove", "--verify", str(file), "--state", str(stage.state)]) == 0
        file.write_text(file.read_text().replace('"status": "proved"', '"status": "tested"', 1))
        capsys.readouterr()
        assert main(["prove", "--verify", str(file), "--state", str(stage.state), "--json"]) == 1
        assert json.loads(capsys.readouterr().out) == {"signed": False}
        assert main(["prove", "--verify", str(file), "--key", str(stage.state / "keys" / "audit.pub")]) == 1
        whole = dict(document)
        flaws = [
            {**whole, "remark": "all is well"}, {**whole, "sha256": "0" * 64}, {**whole, "note": ""},
            {**whole, "report": {**whole["report"], "remark": "all is well"}},
        ]  # fmt: skip
        file.write_text(json.dumps(whole))
        assert main(["prove", "--verify", str(file), "--key", str(stage.state / "keys" / "audit.pub")]) == 0
        for flaw in flaws:
            file.write_text(json.dumps(flaw))
            assert main(["prove", "--verify", str(file), "--state", str(stage.state)]) in (1, 2)
        capsys.readouterr()
        assert main(["prove", "--verify", str(file) + "x", "--state", str(stage.state)]) == 2
        assert "cannot be read" in capsys.readouterr().err
        capsys.readouterr()


# --- what is wrong is found -------------------------------------------------------------------------------------------


def in_it(stage: Stage, *words: str) -> str:
    return run("ip", "netns", "exec", stage.namespace("it"), *words)


BREAKS: dict[str, tuple[str, str, list[str], str]] = {
    # name: (command, its undoing, statements that fail, what the evidence names)
    "forwarding": ("sysctl -qw net.ipv4.conf.all.forwarding=1",
                   "sysctl -qw net.ipv4.conf.all.forwarding=0 net.ipv4.conf.all.accept_redirects=0",
                   ["it: forwarding"], "forwarding = 1"),
    "IPv6 forwarding": ("sysctl -qw net.ipv6.conf.all.forwarding=1", "sysctl -qw net.ipv6.conf.all.forwarding=0",
                        ["it: forwarding"], "ipv6/conf/all/forwarding = 1"),
    "proxy ARP": ("sysctl -qw net.ipv4.conf.all.proxy_arp=1", "sysctl -qw net.ipv4.conf.all.proxy_arp=0",
                  ["it: forwarding"], "proxy_arp = 1"),
    "a rule that forwards": ("nft insert rule inet cofferdam forward tcp dport 502 accept", "", [
        "it: nothing is forwarded", "it: as in the policy: forward"], "dport 502"),
    "a rule that lets in": ("nft insert rule inet cofferdam input udp dport 161 accept", "", [
        "it: in comes only what the policy declares", "it: as in the policy: input"], "protocol udp"),
    "a rule that lets out": ("nft insert rule inet cofferdam output ip daddr 192.0.2.1 accept", "", [
        "it: out goes only what the policy declares", "it: as in the policy: output"], "192.0.2.1"),
    "a rule that is gone": ("nft flush chain inet cofferdam input", "", ["it: as in the policy: input"], ""),
    "another base chain": (
        "nft add table ip x ; add chain ip x y { type filter hook input priority -5 ; policy drop ; }",
        "nft delete table ip x", ["it: base chains", "it: as in the policy: input"], "ip x y"),
    "translation": (
        "nft add table ip x ; add chain ip x y { type nat hook prerouting priority -100 ; } ; "
        "add rule ip x y tcp dport 80 dnat to 10.20.0.17",
        "nft delete table ip x", ["it: statements of the rules", "it: rules"], "dnat"),
    "frames of another device": (
        "nft flush chain netdev cofferdam ingress-IFACE ; delete chain netdev cofferdam ingress-IFACE ; "
        "add chain netdev cofferdam ingress-IFACE { type filter hook ingress device lo priority -500 ; policy drop ; } ; "  # noqa: E501
        "add rule netdev cofferdam ingress-IFACE meta protocol { ip, arp } accept",
        "", ["it: frame filters"], "ingress"),
    "policy routing": ("ip rule add fwmark 7 table 77", "ip rule del fwmark 7 table 77", ["it: policy routing"], "77"),
    "traffic control": ("tc qdisc add dev lo clsact", "tc qdisc del dev lo clsact", ["it: traffic control"], "clsact"),
    "a filter": (
        "sh -c tc${IFS}qdisc${IFS}add${IFS}dev${IFS}IFACE${IFS}root${IFS}handle${IFS}7:${IFS}htb;"
        "tc${IFS}filter${IFS}add${IFS}dev${IFS}IFACE${IFS}parent${IFS}7:${IFS}u32${IFS}match${IFS}u32${IFS}0${IFS}0"
        "${IFS}classid${IFS}7:1",
        "tc qdisc del dev IFACE root", ["it: traffic control"], "filter u32 at htb"),
    "a neighbour": (
        "ip neigh add 10.20.0.17 lladdr 02:00:00:00:00:99 dev IFACE nud permanent",
        "ip neigh del 10.20.0.17 dev IFACE", ["it: neighbours"], "10.20.0.17 is at 02:00:00:00:00:99, permanent"),
    "a neighbour without ARP": (
        "ip neigh add 10.20.0.17 lladdr 02:00:00:00:00:99 dev IFACE nud noarp",
        "ip neigh del 10.20.0.17 dev IFACE", ["it: neighbours"], "fixed"),
    "a neighbour of a program": (
        "ip neigh add 10.20.0.17 lladdr 02:00:00:00:00:99 dev IFACE nud reachable extern_learn",
        "ip neigh del 10.20.0.17 dev IFACE", ["it: neighbours"], "program"),
    "an address that is answered for": (
        "ip neigh add proxy 10.20.0.17 dev IFACE", "ip neigh del proxy 10.20.0.17 dev IFACE",
        ["it: neighbours"], "proxy"),
    "a bridge": ("ip link add br7 up type bridge", "ip link del br7", ["it: interfaces", "it: bridges"], "br7"),
    "rules that sleep": (
        "nft add table inet cofferdam { flags dormant; }", "", ["it: statements of the rules", "it: rules"], "flags"),
    "frame rules that sleep": (
        "nft add table netdev cofferdam { flags dormant; }", "", ["it: statements of the rules", "it: rules"], "flags"),
    "another chain of our table": (
        "nft add chain inet cofferdam early { type nat hook prerouting priority -100 ; policy accept ; }", "",
        ["it: base chains"], "early"),
    "a chain of several devices": (
        "nft add chain netdev cofferdam more { type filter hook ingress devices = { lo, IFACE } priority -600 ; "
        "policy accept ; }", "", ["it: base chains"], "more"),
    "a rule on connections": (
        "nft insert rule inet cofferdam input ct state established,related accept", "", ["it: connections"], "input"),
    "a route": ("ip route add 192.0.2.0/24 via 10.1.0.99", "ip route del 192.0.2.0/24", ["it: routes"], "192.0.2.0/24"),
    "a route into a tunnel": (
        "ip route add 192.0.2.0/24 encap ip id 5 dst 10.1.0.99 dev IFACE", "ip route del 192.0.2.0/24",
        ["it: routes"], "tunnel"),
    "a device's address made local": (
        "ip route add local 10.20.0.17 dev lo", "ip route del local 10.20.0.17 dev lo", ["it: routes"], "10.20.0.17"),
    "an address": (
        "ip addr add 10.20.0.77/16 dev IFACE", "ip addr del 10.20.0.77/16 dev IFACE",
        ["it: addresses", "it: routes"], "10.20.0.77"),
    "source routes": (
        "sysctl -qw net.ipv4.conf.all.accept_source_route=1", "sysctl -qw net.ipv4.conf.all.accept_source_route=0",
        ["it: switches"], "accept_source_route"),
    "source routes of one interface": (
        "sysctl -qw net.ipv4.conf.IFACE.accept_source_route=1",
        "sysctl -qw net.ipv4.conf.IFACE.accept_source_route=0", ["it: switches"], "IFACE/accept_source_route"),
    "a routing rule in the place of the kernel's": (
        "ip rule add pref 32766 to 10.9.9.9 table main", "ip rule del pref 32766 to 10.9.9.9",
        ["it: policy routing"], "FRA_DST"),
    "IPsec": (
        "ip xfrm policy add src 10.1.0.0/16 dst 10.2.0.0/16 dir out tmpl src 10.1.0.1 dst 10.1.0.20 proto esp "
        "mode tunnel",
        "ip xfrm policy flush", ["it: IPsec"], "policies"),
    "an interface under a spare one's name": (
        "ip link add gre0 type veth peer name sit0", "ip link del gre0", ["it: interfaces"], "gre0"),
    "another interface": ("ip link add spare up type veth peer name other", "ip link del spare", ["it: interfaces"], "spare"),  # noqa: E501
}  # fmt: skip


@pytest.mark.netns
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("tc") is None, reason="needs root and tc")
@pytest.mark.parametrize("name", BREAKS)
def test_what_was_changed_is_found(stage: Stage, name: str) -> None:
    breaking, undoing, expected, evidence = BREAKS[name]
    breaking, undoing, evidence = (
        text.replace("IFACE", stage.lab.it_interface) for text in (breaking, undoing, evidence)
    )
    saved = in_it(stage, "nft", "list", "ruleset")
    in_it(stage, *(["nft", breaking[4:]] if breaking.startswith("nft ") else breaking.split()))
    out = Statements()
    try:
        with stage.subject() as subject:
            structure.state(subject, out)
            solving.state(subject, out)
    finally:
        if undoing:
            in_it(stage, *undoing.split())
        else:
            done = subprocess.run(
                ["ip", "netns", "exec", stage.namespace("it"), "nft", "-f", "-"],
                input="flush ruleset\n" + saved, text=True, capture_output=True, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
    failed = {s.name: s for s in out.found if s.status == "failed"}
    assert set(expected) <= set(failed), set(failed)
    assert any(evidence in line for line in (*failed[expected[0]].evidence, failed[expected[0]].says))


@pytest.mark.netns
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_stranger_in_the_namespace_and_its_socket_are_found(stage: Stage) -> None:
    code = "import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.bind(('', 161)); print(flush=True); input()"
    command = ["ip", "netns", "exec", stage.namespace("ot"), sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as stranger:
        try:
            assert stranger.stdout is not None
            stranger.stdout.readline()
            out = Statements()
            with stage.subject() as subject:
                structure.state(subject, out)
        finally:
            stranger.communicate(b"\n")
    failed = {s.name: s for s in out.found if s.status == "failed"}
    assert set(failed) == {"ot: inhabitants", "ot: sockets", "strangers"}
    assert "udp 0.0.0.0:161" in failed["ot: sockets"].evidence[0]


HOP = """
import ctypes, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
home = os.open("/proc/self/ns/net", os.O_RDONLY)
def go(name):
    assert libc.setns(os.open(f"/run/netns/{name}", os.O_RDONLY), 0x40000000) == 0
def back():
    assert libc.setns(home, 0x40000000) == 0
"""
"""A process that opens something in a namespace and stands in the host's again."""
STRANGERS: dict[str, tuple[str, str, str]] = {
    # name: (what the stranger does, the statement that fails, what its evidence names)
    "connections on both sides": (
        "go(OT); a = socket.socket(); a.setblocking(False); a.connect_ex(('10.20.0.17', 502)); "
        "go(IT); b = socket.socket(); b.setblocking(False); b.connect_ex(('10.1.0.20', 502)); back()",
        "strangers", "socket"),
    "a socket without an address": ("go(OT); a = socket.socket(type=socket.SOCK_DGRAM); back()", "strangers", "socket"),
    "a socket that no table lists": ("go(OT); a = socket.socket(40, 1); back()", "strangers", "socket"),
    "a pipe of the crossing": (
        "folder = f'/proc/{INNER}/fd'; held = [os.open(f'{folder}/{fd}', os.O_RDWR | os.O_NONBLOCK) for fd in "
        "os.listdir(folder) if int(fd) > 2 and os.readlink(f'{folder}/{fd}').startswith('pipe:')]",
        "strangers", "pipe"),
    "a half's memory": ("held = os.open(f'/proc/{INNER}/mem', os.O_RDWR)", "strangers", "memory"),
    "a debugger": (
        "libc.ptrace.argtypes = [ctypes.c_long] * 4; assert libc.ptrace(0x4206, INNER, 0, 0) == 0",
        "inner: filter", "traces"),
}  # fmt: skip


@pytest.mark.netns
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize("name", STRANGERS)
def test_a_stranger_outside_that_holds_something_of_the_gate_is_found(stage: Stage, name: str) -> None:
    code, statement, evidence = STRANGERS[name]
    halves = [half for pair in ask(stage.state, "status")["pairs"] for half in pair["halves"]]
    inner = next(half["pid"] for half in halves if half["role"] == "inner")
    head = f"IT, OT, INNER = {stage.namespace('it')!r}, {stage.namespace('ot')!r}, {inner}\n"
    command = [sys.executable, "-c", f"{HOP}{head}{code}\nprint('done', flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as stranger:
        try:
            assert stranger.stdout is not None
            if not stranger.stdout.readline():
                pytest.skip("this kernel has no such socket")
            out = Statements()
            with stage.subject() as subject:
                structure.state(subject, out)
        finally:
            stranger.communicate(b"\n")
    failed = {s.name: s for s in out.found if s.status == "failed"}
    (found,) = [s for s in failed.values() if s.name.endswith(statement)]
    assert set(failed) == {found.name} and evidence in found.evidence[0]


@pytest.mark.netns
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize("where", ["tcx", "netfilter", "xdp"])
def test_a_program_of_the_kernel_is_found(stage: Stage, where: str) -> None:
    interface = stage.lab.it_interface
    kind, hook, more = {
        "tcx": (3, 46, b""), "xdp": (6, 37, b""), "netfilter": (32, 45, struct.pack("<IIiI", 2, 1, -1000, 0)),
    }[where]  # fmt: skip
    out = Statements()
    with contextlib.ExitStack() as stack:
        if where == "netfilter":  # which is found from wherever it is looked for: by no other test's proof, please
            stack.enter_context(alone(KERNEL))
        fd = os.open(f"/run/netns/{stage.namespace('it')}", os.O_RDONLY)
        stack.callback(os.close, fd)
        link = -1
        with netns.entered(fd, netns.own()), contextlib.suppress(OSError):
            link = bpf_link(kind, hook, 0 if where == "netfilter" else socket.if_nametoindex(interface), more)
        if link < 0:
            pytest.skip("this kernel takes no such program")
        stack.callback(os.close, link)
        with stage.subject() as subject:
            structure.state(subject, out)
    failed = {s.name for s in out.found if s.status == "failed"}
    assert failed == {{"tcx": "it: programs", "xdp": "it: XDP", "netfilter": "host: packet filter programs"}[where]}


def bpf_link(kind: int, hook: int, target: int, more: bytes) -> int:
    """Loads the program "let it pass" and hangs it up; the descriptor of the link."""
    code = struct.pack("<BBhi", 0xB7, 0, 0, {3: -1, 6: 2, 32: 1}[kind]) + struct.pack("<BBhi", 0x95, 0, 0, 0)
    text, licence = ctypes.create_string_buffer(code, len(code)), ctypes.create_string_buffer(b"GPL")
    load = struct.pack("<IIQQIIQII16sII", kind, 2, ctypes.addressof(text), ctypes.addressof(licence), 0, 0, 0, 0, 0,
                       b"", 0, hook)  # fmt: skip
    program = programs._bpf(5, programs._attributes(load))
    try:
        return programs._bpf(28, programs._attributes(struct.pack("<IIII", program, target, hook, 0) + more))
    finally:
        os.close(program)


@pytest.mark.netns
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_cable_from_side_to_side_under_the_names_of_the_gates_interfaces_is_found() -> None:
    with staged() as stage, stage.subject() as subject:
        it, ot = subject.sides["it"].namespace, subject.sides["ot"].namespace
        names = {it: stage.lab.it_interface, ot: stage.lab.ot_interface}
        for space, name in names.items():
            run("ip", "-n", space, "link", "set", name, "down")
            run("ip", "-n", space, "link", "set", name, "name", "was", "netns", str(os.getpid()))
            run("ip", "link", "del", "was")
        run("ip", "link", "add", names[it], "netns", it, "type", "veth", "peer", "name", names[ot], "netns", ot)
        out = Statements()
        subject.read()
        structure.state(subject, out)
    evidence = [line for s in out.found if s.name == "it: interfaces" and s.status == "failed" for line in s.evidence]
    assert any("is another one" in line for line in evidence)
    assert any("other end" in line and "side ot" in line for line in evidence)


@pytest.mark.netns
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_capability_too_many_of_the_gate_or_the_launcher_is_found(stage: Stage) -> None:
    """This process, with all that root may, in the place of each."""
    out = Statements()
    with stage.subject() as subject:
        processes.others(subject, out)
        assert not [s for s in out.found if s.status == "failed"]
        processes.others(dataclasses.replace(subject, launcher=os.getpid(), gate=os.getpid()), out)
    failed = {s.name: s.evidence for s in out.found if s.status == "failed"}
    assert set(failed) == {"launcher: sockets", "gate: sockets"}
    assert all(any("CapBnd" in line for line in evidence) for evidence in failed.values())


def _joined_by_the_host(kind: str, how: str) -> list[str]:
    """What is said of a host that shares an interface with each side. In a namespace of its own."""
    from types import SimpleNamespace

    from cofferdam.enforce.plans.records import Link, SidePlan

    kernel.unshare(kernel.CLONE_NEWNET)
    run("ip", "link", "add", "left", "type", "veth", "peer", "name", "right")
    if how == "bridge":
        run("ip", "link", "add", "br0", "type", "bridge")
        for name in ("left", "right"):
            run("ip", "link", "set", name, "master", "br0")
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1" if how == "route" else "0")
    Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text("0")
    sides = {
        side: SimpleNamespace(name=side, plan=SidePlan(side, (Link("z", kind, parent, 7 if kind == "vlan" else 0),)))  # type: ignore[arg-type]
        for side, parent in (("it", "left"), ("ot", "right"))
    }
    out = Statements()
    structure._shared(SimpleNamespace(sides=sides), out)  # type: ignore[arg-type]
    return [f"{s.status}: {' '.join(s.evidence)}" for s in out.found]


@pytest.mark.netns
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize(
    ("kind", "how", "expected"),
    [("macvlan", "nothing", "observed"), ("macvlan", "bridge", "failed: left and right belong to the same bridge"),
     ("macvlan", "route", "failed: the host stands on both wires"), ("vlan", "route", "observed"),
     ("vlan", "bridge", "failed: left and right"), ("move", "route", "")],
)  # fmt: skip
def test_a_host_that_joins_what_it_shares_with_both_sides_is_found(kind: str, how: str, expected: str) -> None:
    said = worker.inside(None, _joined_by_the_host, kind, how)
    assert (said[0] if said else "").startswith(expected) and bool(said) == bool(expected)


@pytest.mark.netns
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_sabotage_leaves_no_switch_behind(stage: Stage) -> None:
    """The kernel takes redirects again when forwarding is switched off: that has to be put back as well."""
    _, document = stage.prove("--sabotage", "--no-probes")
    (said,) = [s for s in document["report"]["statements"] if s["part"] == "probes"]
    assert said["status"] == "assumed"  # what was left out is not passed over in silence
    with stage.subject() as subject:
        assert {name: side.unset for name, side in subject.sides.items()} == {"it": [], "ot": []}


@pytest.mark.netns
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize(
    ("breaking", "undoing", "evidence"),
    [("ip link set lo up", "ip link set lo down", "interface lo is up"),
     ("ip link add spare type veth peer name other", "ip link del spare", "interface other is there"),
     ("sleep 60", "", "(sleep) is there as well")],
)  # fmt: skip
def test_what_is_in_the_auditors_namespace_is_found(stage: Stage, breaking: str, undoing: str, evidence: str) -> None:
    def auditor() -> tuple[str, str]:
        out = Statements()
        with stage.subject() as subject:
            processes.others(subject, out)
        (said,) = [s for s in out.found if s.name == "auditor: sockets"]
        return said.status, " ".join((said.says, *said.evidence))

    enter = ["nsenter", "-t", str(ask(stage.state, "status")["audit"]["pid"]), "-n"]
    assert auditor()[0] == "observed", auditor()[1]
    with subprocess.Popen([*enter, *breaking.split()]) as process:
        try:
            if undoing:
                assert process.wait() == 0
            deadline = time.monotonic() + PATIENT
            while evidence not in auditor()[1] and time.monotonic() < deadline:
                time.sleep(0.05)  # it enters the namespace, then becomes the program
            status, said = auditor()
            assert status == "failed" and evidence in said
        finally:
            process.kill()
    if undoing:
        run(*enter, *undoing.split())
        run(*enter, "ip", "addr", "flush", "dev", "lo")  # it keeps its address when it goes down
    assert auditor()[0] == "observed"


@pytest.mark.netns
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_probe_says_when_a_call_is_not_refused(stage: Stage) -> None:
    """The inner half may make TCP sockets: the attempt that the outer half is refused works there."""
    attempt = next(attempt for attempt in probes.ATTEMPTS if attempt.name == "TCP socket")
    with stage.subject() as subject, probes._isolation(subject, stage.folder / "policy.yaml") as isolation:

        def berth(kind: str, part: str, place: Place) -> Berth:
            return Berth(CREWS[kind].parts[part], isolation.probe_user, place)

        assert probes._run(isolation, berth("modbus", "inner", Place("ot", "control")), attempt).startswith("it worked")
        here = Place("it", "enterprise")
        assert probes._run(isolation, berth("modbus", "outer", here), attempt).startswith("refused")
        by_name = {attempt.name: attempt for attempt in probes.ATTEMPTS}
        names = berth("names", "names", here)
        for one, allowed, shut in ((names, "send a datagram", "TCP socket"), (None, "fork", "Unix socket")):
            profile = one.profile if one is not None else None
            said = probes._run(isolation, one, by_name[allowed])
            assert said.startswith(("it worked", "it reached the kernel")), (profile, said)
            assert probes._run(isolation, one, by_name[shut]).startswith("refused")
            assert not by_name[allowed].asked_of(profile) and by_name[shut].asked_of(profile)


@pytest.mark.netns
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize(("more", "status"), [(0, "observed"), (1, "failed"), (-1, "failed")])
def test_the_number_of_a_halfs_filters_is_that_of_the_launcher_and_its_own(
    stage: Stage, more: int, status: str
) -> None:
    """As the kernel says it of a running half, and as it would of one with a filter more or less."""
    out = Statements()
    with stage.subject() as subject:
        half = subject.parts[0]
        facts = reading.process(half.pid)
        assert facts is not None
        facts["status"]["Seccomp_filters"] = str(int(facts["status"]["Seccomp_filters"]) + more)
        processes.powers(subject, half.name, facts, out)
    (said,) = [s for s in out.found if s.name == f"{half.name}: filter"]
    assert said.status == status and "not what is in them" in said.says


def _alarms(status: dict[str, Any]) -> list[str]:
    """The gate's own: what a check of the evidence found stays until it is looked at again, a minute later."""
    return [alarm["name"] for alarm in status["alarms"] if not alarm["name"].startswith("check-")]


@pytest.mark.netns
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_leak_is_an_alarm_an_entry_and_an_exit_code_and_ends(stage: Stage) -> None:
    """Somebody on the office's wire answers for the device's own address: the network is flat."""
    device = stage.lab.addresses.device
    run("ip", "-n", stage.lab.office, "addr", "add", f"{device}/32", "dev", "net0")
    try:
        code, document = stage.prove("--leaks")
        assert code == 1
        (leak,) = [s for s in document["report"]["statements"] if s["status"] == "failed"]
        assert leak["name"] == device and any("ARP" in line for line in leak["evidence"])
        assert any("TCP" in line or "ICMP" in line for line in leak["evidence"])
        status = ask(stage.state, "status")
        assert _alarms(status) == ["leak-plc-7"]
    finally:
        run("ip", "-n", stage.lab.office, "addr", "del", f"{device}/32", "dev", "net0")
    code, _ = stage.prove("--leaks")
    assert code == 0
    assert _alarms(ask(stage.state, "status")) == []
    log = cli("audit", "show", "--state", stage.state, "--json")[1]
    entries = [json.loads(line) for line in log.splitlines()] if log.startswith("{") else json.loads(log)
    assert any("leak-found" in json.dumps(entry) for entry in entries)


@pytest.mark.netns
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_at_intervals_the_gate_asks_by_a_crew_that_lives_for_one_round(stage: Stage) -> None:
    """As often as the policy says; a reload is enough to change that. What it finds is an alarm until it is over."""
    device = stage.lab.addresses.device

    def alarms() -> list[str]:
        return _alarms(ask(stage.state, "status"))

    seen: dict[str, str] = {}
    with _policy_of(stage, "leak_probe: 10 s"):
        before = ask(stage.state, "status")["leak_probe"]
        assert before["seconds"] == 10
        run("ip", "-n", stage.lab.office, "addr", "add", f"{device}/32", "dev", "net0")
        try:

            def both() -> bool:
                seen.update(seen or _probe_of(stage))
                return alarms() == ["leak-plc-7"] and bool(seen)

            eventually(both)
        finally:
            run("ip", "-n", stage.lab.office, "addr", "del", f"{device}/32", "dev", "net0")
        eventually(lambda: alarms() == [])
        after = ask(stage.state, "status")["leak_probe"]
        assert after["last_ns"] > before["last_ns"] and after["works"], after
    # It was nobody, could do nothing, and is gone.
    assert int(seen["CapEff"], 16) == int(seen["CapBnd"], 16) == 0 and seen["Seccomp"] == "2"
    assert "0" not in seen["Uid"].split() and seen["Threads"] == "1"
    eventually(lambda: not _probe_of(stage))


def _probe_of(stage: Stage) -> dict[str, str]:
    """What the kernel says of the leak probe's process, if it is there and under its filter."""
    launcher = stage.gate.process.pid
    for pid in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
        with contextlib.suppress(OSError):
            if b"cofferdam.proof.leak_part" in Path(f"/proc/{pid}/cmdline").read_bytes():
                lines = Path(f"/proc/{pid}/status").read_text().splitlines()
                found = {line.split(":")[0]: line.split(":")[1].strip() for line in lines if ":" in line}
                if found.get("Seccomp") == "2":
                    return found
    return {}


@pytest.mark.netns
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_round_waits_for_a_proof_and_a_proof_for_a_round(stage: Stage) -> None:
    with _policy_of(stage, "leak_probe: 10 s"):
        with stage.subject():
            before = ask(stage.state, "status")["leak_probe"]["last_ns"]
            time.sleep(11)
            held = ask(stage.state, "status")
            assert held["leak_probe"]["last_ns"] == before and not _alarms(held) and not _probe_of(stage)
        eventually(lambda: ask(stage.state, "status")["leak_probe"]["last_ns"] > before)
        eventually(lambda: bool(_probe_of(stage)))
        _, document = stage.prove("--no-probes")
        failed = [said["name"] for said in document["report"]["statements"] if said["status"] == "failed"]
        assert set(failed) <= {"host: packet filter programs"}, failed


@contextlib.contextmanager
def _policy_of(stage: Stage, more: str) -> Iterator[None]:
    """The stage's gate under its policy with something more in `gate:`, then under its own again."""
    path = stage.folder / "policy.yaml"
    text = path.read_text()
    with_gate = (
        text.replace("gate:\n", f"gate:\n  {more}\n", 1) if "\ngate:\n" in text else f"{text}\ngate: {{{more}}}\n"
    )
    path.write_text(with_gate)
    try:
        ask(stage.state, "reload")
        yield
    finally:
        path.write_text(text)
        ask(stage.state, "reload")


@pytest.mark.netns
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_probe_that_is_off_is_said_everywhere_and_asks_when_it_is_told_to(stage: Stage) -> None:
    with _policy_of(stage, "leak_probe: off"):
        status = ask(stage.state, "status")
        (fact,) = [fact for fact in status["facts"] if fact["name"] == "leak probe"]
        assert not fact["in_force"] and "OFF by the policy" in fact["detail"]
        assert status["leak_probe"]["seconds"] == 0 and not _alarms(status)
        code, document = stage.prove("--leaks")
        found = {s["name"]: s for s in document["report"]["statements"]}
        assert code == 0 and found[stage.lab.addresses.device]["status"] == "tested"
        assert found["between proofs"]["status"] == "assumed" and "OFF" in found["between proofs"]["says"]
    assert ask(stage.state, "status")["leak_probe"]["seconds"] == 300
    log = cli("audit", "show", "--state", stage.state, "--json")[1]
    said = [json.loads(line)["event"] for line in log.splitlines()]
    assert [event["seconds"] for event in said if event["kind"] == "leak-probe-set"][-2:] == [0, 300]
    _, document = stage.prove("--leaks")
    (between,) = [s for s in document["report"]["statements"] if s["name"] == "between proofs"]
    assert between["status"] == "observed" and "every 5 min" in between["says"]


def test_targets_are_the_real_addresses_of_devices() -> None:
    from cofferdam.enforce.plans.records import NetworkPlan, Reach, SidePlan

    by = ("modbus/y-z", "inner")
    both = (Reach("c", "z", ("10.0.0.2", "10.0.0.1"), 502, *by), Reach("d", "z", ("10.0.0.1",), 502, *by))
    ot = SidePlan("ot", reaches=both)
    assert leaking.targets(NetworkPlan("s", True, True, (SidePlan("it"), ot))) == [("10.0.0.1", 502), ("10.0.0.2", 502)]


# --- canaries: the listener does hear ---------------------------------------------------------------------------------


@contextlib.contextmanager
def router(tag: str) -> Iterator[tuple[canaries.Wire, canaries.Wire, Target]]:
    """One namespace with both interfaces and forwarding on: what a gate must never be."""
    names = [f"cdp{os.getpid()}-{tag}-{kind}" for kind in ("left", "middle", "right")]
    left, middle, right = names
    try:
        for name in names:
            run("ip", "netns", "add", name)
        for host, number in ((left, 1), (right, 2)):
            run("ip", "-n", middle, "link", "add", f"m{number}", "type", "veth", "peer", "name", "net0", "netns", host)
            run("ip", "netns", "exec", host, "sysctl", "-qw", "net.ipv6.conf.net0.accept_dad=0")
            run("ip", "netns", "exec", middle, "sysctl", "-qw", f"net.ipv6.conf.m{number}.accept_dad=0")
            for space, name, last in ((host, "net0", 17), (middle, f"m{number}", 1)):
                run("ip", "-n", space, "addr", "add", f"10.9.{number}.{last}/24", "dev", name)
                run("ip", "-n", space, "addr", "add", f"fd09:{number}::{last}/64", "dev", name)
                run("ip", "-n", space, "link", "set", name, "up")
        macs = [json.loads(run("ip", "-j", "-n", middle, "link", "show", "m1"))[0]["address"]]
        source = json.loads(run("ip", "-j", "-n", left, "link", "show", "net0"))[0]["address"]
        run("ip", "netns", "exec", middle, "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        target = Target(source, tuple(macs), "10.9.1.17", ("10.9.2.17",), "fd09:1::17", ("fd09:2::17",), 502)
        yield canaries.Wire(left, "net0"), canaries.Wire(right, "net0"), target
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


@pytest.mark.netns
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_on_a_router_the_canaries_of_both_versions_of_ip_arrive() -> None:
    with router("r") as (left, right, target):
        heard = canaries._crossing((left, right), canaries._plain(target))
        routed = {family for family in FAMILIES if family.startswith(("ipv4", "ipv6"))}
        assert routed <= set(heard["heard"])
        assert heard["lost"] == 0


@pytest.mark.netns
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_on_a_bridge_the_canaries_of_every_family_arrive() -> None:
    with router("b") as (left, right, target):
        middle = left.namespace.replace("-left", "-middle")
        run("ip", "-n", middle, "link", "add", "br0", "up", "type", "bridge", "group_fwd_mask", "0xfff8")
        for name in ("m1", "m2"):
            run("ip", "-n", middle, "link", "set", name, "master", "br0")
            run("ip", "-n", middle, "link", "set", name, "up")
        heard = canaries._crossing((left, right), canaries._plain(target))
        assert set(heard["heard"]) == set(FAMILIES)


@pytest.mark.netns
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_every_family_has_its_positive_control() -> None:
    target = Target(
        "02:00:00:00:00:01", ("02:00:00:00:00:02",), "10.0.0.1", ("10.0.0.2",), "fd00::1", ("fd00::2",), 502
    )
    heard = worker.inside(None, canaries._control, canaries._plain(target))
    assert heard["heard"] == heard["sent"]
    assert set(heard["sent"]) == set(FAMILIES)


@pytest.mark.netns
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize("wrong", ["it", "ot"])
def test_a_host_that_is_plugged_in_elsewhere_proves_nothing(stage: Stage, wrong: str) -> None:
    """Its silence would look like the gate's doing."""
    name = f"cdp{os.getpid()}-away"
    run("ip", "netns", "add", name)
    try:
        run("ip", "-n", name, "link", "add", "net0", "up", "type", "veth", "peer", "name", "end")
        run("ip", "-n", name, "link", "set", "end", "up")
        away = canaries.Wire(name, "net0")
        out = Statements()
        with stage.subject() as subject:
            right = canaries.find_wires(subject, None, None)
            assert right is not None
            canaries.state(subject, (away, right[1]) if wrong == "it" else (right[0], away), out)
        assert [s.name for s in out.found if s.status == "failed"] == ["wires"]
    finally:
        run("ip", "netns", "del", name)


@pytest.mark.netns
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_root_opens_no_policy_because_the_gate_names_it(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    ours, named = stage.folder / "policy.yaml", stage.folder / "named.yaml"
    named.write_text(ours.read_text())
    named.chmod(0o644)
    try:
        ask(stage.state, "reload", path=str(named))  # the gate names another file, and root has said nothing
        status = ask(stage.state, "status")
        assert status["policy"]["path"] == str(named)
        assert proof.policy_path(stage.state, status | {"separation": "processes"}) == ours, "whatever else it says"
        named.write_text("what only root may read\n")
        code, document = stage.prove("--leaks")
        assert (code, document["report"]["ok"]) == (0, True)
        named.write_text(ours.read_text() + "# moved\n")
        assert main(["reload", str(named), "--state", str(stage.state)]) == 0
        ours_kept = ours.read_text()
        ours.write_text("no policy\n")
        ours.write_text(ours_kept)
    finally:
        assert main(["reload", str(ours), "--state", str(stage.state)]) == 0
    assert journal.noted_policy(stage.state) == ours
    assert "did not run" not in capsys.readouterr().err


# --- where there is nothing to prove ----------------------------------------------------------------------------------


def test_without_namespaces_it_says_so_and_fails(site: PlainSite, capsys: pytest.CaptureFixture[str]) -> None:
    with running(site.state, site.policy):
        assert main(["prove", "--state", str(site.state)]) == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "without network namespaces" in shown and "share one network" in shown
    assert not re.search(r"failed\s+(compiled|leak probe|nightly proof)", shown)  # facts, and nobody's failures


def test_sabotage_is_refused_outside_the_lab() -> None:
    from types import SimpleNamespace

    subject = SimpleNamespace(moved=("eth1", "eth2"))
    with pytest.raises(GateError, match="not a lab"):
        sabotage.check_lab(subject, None)  # type: ignore[arg-type]


def test_no_gate_is_an_error_of_the_caller(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prove", "--state", str(tmp_path)]) == 2
    assert "no gate runs" in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["leak_probe", "dropped", "pairs.0.halves.0.role", "audit.pid"])
def test_a_gate_of_an_older_version_is_one_clear_error(
    site: PlainSite, missing: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A socket that answers as a gate did that had no such field: the rest is what a gate of today says."""
    with running(site.state, site.policy):
        status = ask(site.state, "status")
    *way, last = missing.split(".")
    place = status
    for word in way:
        place = place[int(word) if word.isdigit() else word]
    del place[last]
    with socket.socket(socket.AF_UNIX) as older:
        older.bind(str(tmp_path / "gate.sock"))
        older.listen()
        answers = threading.Thread(target=_answer_once, args=(older, {"ok": True, "result": status}))
        answers.start()
        assert main(["prove", "--state", str(tmp_path)]) == 2
        answers.join()
    said = capsys.readouterr().err
    assert "another version" in said and last in said and "cofferdam down" in said


def _answer_once(listener: socket.socket, answer: object) -> None:
    peer, _ = listener.accept()
    with peer:
        peer.makefile("rb").readline()
        peer.sendall(json.dumps(answer).encode() + b"\n")


@pytest.mark.parametrize("kind", ["generic", "cisco-ios", "hirschmann-hios", "siemens-scalance"])
def test_advice_denies_every_asset_to_every_host_and_lets_nobody_in_by_the_gates_address(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("""
site: two
zones: {office: {side: it}, plant: {side: ot, addresses: [10.20.0.1/24]}}
assets:
  one: {zone: plant, address: 10.20.0.17, protocol: modbus, unit: 1}
  two: {zone: plant, address: 10.20.0.18, protocol: modbus, unit: 1, port: 1502}
principals: {erp: {zone: office, addresses: [10.1.0.1]}}
conduits:
  main:
    {from: office, to: plant, broker: modbus, owner: a, reason: b,
     allow: [{who: erp, asset: [one, two], registers: holding 0-9}]}
""")
    for number in ("0", "1", "1001", "1003", "4094"):
        assert main(["advise", "switch", str(policy), "--kind", kind, "--vlan", number]) == 2
    assert main(["advise", "switch", str(policy), "--kind", kind, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == kind
    assert main(["advise", "switch", str(policy), "--kind", kind, "--gate-port", "Gi1/0/24"]) == 0
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert "Gi1/0/24" in text
    # The list is for ports on which the gate never is: a permit for its address there serves a spoofer alone.
    assert not any("10.20.0.1" in line.split() for line in lines)
    for address in ("10.20.0.17", "10.20.0.18"):
        named = [line for line in lines if address in line.split()]
        assert named and all("deny" in line and "permit" not in line for line in named)
