"""The intruder has taken over an export, or the witness: code of its own runs in that process, in the host's network.
It reaches its collector, and nothing else that this host reaches. See docs/siem.md.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cofferdam.enforce import firewall, journal, users
from cofferdam.enforce.fence import Fence, tag
from cofferdam.enforce.isolation import PlainIsolation
from cofferdam.enforce.plans.fence import NAME as NAMED
from cofferdam.enforce.plans.fence import fence, table_name
from cofferdam.enforce.plans.network import network_plan
from cofferdam.enforce.plans.records import Hosted, NetworkPlan, SidePlan
from cofferdam.enforce.putback import clean
from cofferdam.errors import GateError
from cofferdam.gate.client import ask
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import load
from cofferdam.proof import fenced
from cofferdam.proof.ids import identify
from cofferdam.proof.statements import Statement, Statements
from tests.enforce.site import Site, at, ip
from tests.evidence.test_export import Certificates
from tests.evidence.test_witnessing import NAME, SEED
from tests.evidence.witness_stranger import vkey
from tests.gate.conftest import Site as PlainSite
from tests.gate.plant import Gate, events, running
from tests.ports import held_ports
from tests.verbs import cli
from tests.waiting import PATIENT, eventually

pytestmark = [
    pytest.mark.netns,
    pytest.mark.heavy,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
]

HOST, FAR, OTHER = "10.99.0.1", "10.99.0.2", "10.99.0.3"
HOST6, FAR6 = "fd00:99::1", "fd00:99::2"
SOC, SSH, DNS = 6514, 22, 53
UNFENCED = "nothing holds exports and witness to their collectors"


class Neighbour:
    """Another machine in the host's network: it has the collector, and much else. `said`: what came to each address and
    port, those of UDP as negative numbers. By the tap's word (`strange`): where the host sent datagrams to, or asked
    for connections, besides the collector."""

    def __init__(self, number: int) -> None:
        self.name, self.near, self.far = f"cdf{os.getpid()}-{number}", f"cdf{number}h", f"cdf{number}f"
        self.said: dict[tuple[str, int], bytes] = {}
        self.seen: list[tuple[bytes, int]] = []
        self._sockets: list[socket.socket] = []
        ip("netns", "add", self.name)
        ip("link", "add", self.near, "type", "veth", "peer", "name", self.far, "netns", self.name)
        for where, link, addresses in ((None, self.near, (HOST, HOST6)), (self.name, self.far, (FAR, OTHER, FAR6))):
            inside = ["-n", where] if where else []
            for address in addresses:
                more = ["/64", "nodad"] if ":" in address else ["/24"]
                ip(*inside, "address", "add", address + more[0], "dev", link, *more[1:])
            ip(*inside, "link", "set", link, "up")
        ip("-n", self.name, "link", "set", "lo", "up")
        ip("route", "add", "224.0.0.0/4", "dev", self.near)
        with at(self.name):
            for address in (FAR, OTHER, FAR6):
                for port in (SOC, SSH):
                    self.listen(address, port)
                self.hear(address, DNS)
                self.hear(address, SOC)
            tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            tap.bind((self.far, 0))
        self._sockets.append(tap)
        threading.Thread(target=self._watch, args=(tap,), daemon=True).start()

    def listen(self, address: str, port: int) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        server = socket.create_server((address, port), family=family)
        self._sockets.append(server)
        threading.Thread(target=self._accept, args=(server, (address, port)), daemon=True).start()

    def hear(self, address: str, port: int) -> None:
        heard = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
        heard.bind((address, port))
        self._sockets.append(heard)
        threading.Thread(target=self._take, args=(heard, (address, -port)), daemon=True).start()

    def _accept(self, server: socket.socket, where: tuple[str, int]) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = server.accept()
                threading.Thread(target=self._take, args=(client, where), daemon=True).start()

    def _take(self, client: socket.socket, where: tuple[str, int]) -> None:
        with contextlib.suppress(OSError), client:
            while data := client.recv(4096):
                self.said[where] = self.said.get(where, b"") + data
                if data[:1] == b"\x16":
                    return  # the export itself, whom nobody here answers: it shall not wait for that

    def _watch(self, tap: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while frame := tap.recv(2048):
                if frame[12:14] == b"\x08\x00" and frame[26:30] == socket.inet_aton(HOST):
                    where, protocol = (frame[30:34], int.from_bytes(frame[36:38])), frame[23]
                    asks = protocol != 6 or frame[47] & 0x12 == 2  # a connection that ends does so when it likes
                    if asks and where != (socket.inet_aton(FAR), SOC if protocol == 6 else -1):
                        self.seen.append(where)
                elif (
                    frame[12:14] == b"\x86\xdd"
                    and frame[22:38] == socket.inet_pton(socket.AF_INET6, HOST6)
                    and (frame[20] == 17 or (frame[20] == 6 and frame[67] & 0x12 == 2))
                ):
                    self.seen.append((frame[38:54], int.from_bytes(frame[56:58])))

    def strange(self) -> list[tuple[bytes, int]]:
        """All until now: this host itself knocks last, and the tap has seen it."""
        control = (socket.inet_aton(OTHER), DNS)
        self.said.pop((OTHER, -DNS), None)
        connects((OTHER, DNS), socket.SOCK_DGRAM)
        eventually(lambda: control in self.seen and self.said.pop((OTHER, -DNS), None))
        found, self.seen = [one for one in self.seen if one != control], []
        return found

    def close(self) -> None:
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        ip("netns", "del", self.name)


class Scene:
    """The site, its neighbour, and a gate with a hole in its exports or its witness."""

    def __init__(self, folder: Path, part: str, neighbour: Neighbour | None) -> None:
        self.site = Site(folder)
        folder.chmod(0o711)
        self.neighbour = neighbour or Neighbour(self.site.number)
        self._own = neighbour is None
        Certificates(folder)
        self.pipes = folder / "pipes"
        self.pipes.mkdir()
        for name in ("in", "out"):
            os.mkfifo(self.pipes / name)
        self.to, self.mouth = (os.open(self.pipes / name, os.O_RDWR | os.O_CLOEXEC) for name in ("in", "out"))
        self.part = part
        self.table = table_name(tag(self.site.state))
        self.gate: Gate

    def say(self, soc: str = f"tls://{FAR}:{SOC}", witness: str = "", more: str = "") -> None:
        body = f"  collectors:\n    soc: {{to: '{soc}', authority: ca.pem}}\n{more}"
        if witness:
            body = f"  witnesses:\n    w1: {witness}\n"
        self.site.policy.write_text(f"{self.site.text()}\naudit:\n{body}")

    def start(self) -> None:
        gate = OwnedGate.__new__(OwnedGate)
        gate.begin(self)
        self.gate = gate
        gate.wait_ready()

    def owned(self, code: str) -> str:
        """Runs it in the part; what it said."""
        assert not select.select([self.mouth], [], [], 0)[0], os.read(self.mouth, 4096)
        os.write(self.to, code.encode())
        assert select.select([self.mouth], [], [], PATIENT)[0], self.gate.said()
        return os.read(self.mouth, 4096).decode().strip()

    def reach(self, to: tuple[str, int], kind: str = "STREAM", data: str = "OWNED") -> str:
        return self.owned(f"say(reach({to!r}, socket.SOCK_{kind}, data={data.encode()!r}))")

    def rules(self) -> list[Any]:
        """The table, without handles and what was counted; [] where it is not there."""
        done = subprocess.run(["nft", "-j", "list", "table", "inet", self.table], capture_output=True, check=False)
        if done.returncode:
            return []
        rows = json.loads(done.stdout)["nftables"][1:]
        return [{key: {name: value for name, value in one.items() if name not in ("handle", "packets", "bytes")}}
                for row in rows for key, one in row.items()]  # fmt: skip

    def alarms(self) -> dict[str, str]:
        return {one["name"]: one["detail"] for one in ask(self.site.state, "status")["alarms"]}

    def close(self) -> None:
        os.close(self.to)
        os.close(self.mouth)
        if self._own:
            self.neighbour.close()


class OwnedGate(Gate):
    def begin(self, scene: Scene) -> None:
        self.state = scene.site.state
        self.errors = scene.site.folder / "owned.stderr"
        words = [str(scene.site.policy), str(self.state), str(scene.pipes), scene.part]
        env = {name: value for name, value in os.environ.items() if name != "JOURNAL_STREAM"}
        with self.errors.open("ab") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.prove.owned_export", *words], stdin=subprocess.DEVNULL, stderr=errors,
                env=env,
            )  # fmt: skip


@contextlib.contextmanager
def scene_of(folder: Path, part: str, neighbour: Neighbour | None = None) -> Iterator[Scene]:
    scene = Scene(folder, part, neighbour)
    try:
        with scene.site:
            yield scene
            scene.gate.close()
            clean(scene.site.state)
    finally:
        scene.close()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with scene_of(tmp_path_factory.mktemp("fence"), "exporter") as made:
        made.say()
        made.start()
        yield made
        assert made.neighbour.strange() == []


def test_its_collector_is_reached(scene: Scene) -> None:
    assert scene.owned("say(os.getuid() >= 64000 and os.getpid() == 1)") == "True"
    assert scene.reach((FAR, SOC)) == "reached"
    eventually(lambda: b"OWNED" in scene.neighbour.said.get((FAR, SOC), b""))
    facts = {one["name"]: one for one in scene.gate.status()["facts"]}
    assert facts["fence"]["in_force"] and scene.table in facts["fence"]["detail"]


def connects(to: tuple[str, int], kind: socket.SocketKind = socket.SOCK_STREAM) -> bool:
    """Whether this host reaches it: the control."""
    with socket.socket(socket.AF_INET6 if ":" in to[0] else socket.AF_INET, kind) as sock:
        sock.settimeout(PATIENT)
        sock.connect(to)
        return sock.send(b"x" if kind == socket.SOCK_DGRAM else b"") >= 0


@pytest.mark.parametrize("to", [(FAR, SSH), (OTHER, SOC), (FAR6, SOC), (HOST, SSH), ("127.0.0.1", 0), ("::1", 0)])
def test_no_other_by_tcp(scene: Scene, to: tuple[str, int]) -> None:
    """Another port, another host, the other version of IP, this host's own services."""
    with contextlib.ExitStack() as stack:
        if to[0] not in (FAR, OTHER, FAR6):
            family = socket.AF_INET6 if ":" in to[0] else socket.AF_INET
            server = stack.enter_context(socket.create_server(to, family=family))
            to = server.getsockname()[:2]
        scene.neighbour.said.pop(to, None)
        assert scene.reach(to) == "ECONNREFUSED"
        assert scene.neighbour.strange() == []
        assert connects(to), "this host does reach it"
    scene.neighbour.strange()


@pytest.mark.parametrize(
    "code",
    [
        "socket.socket(socket.AF_UNIX).connect('\\0cofferdam-test')",
        "socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)",
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",  # anybody could send to it
        "socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)",
        "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)",
        "socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)",
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)",
        "socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)",  # MPTCP: its subflows have no user
        "socket.socket(socket.AF_INET, socket.SOCK_SEQPACKET, 132)",  # SCTP
        "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
        "socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)",
        "last.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 1)",
        "last.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, bytes(8))",  # the kernel would tell the group
    ],
)
def test_no_other_kind_of_socket(scene: Scene, code: str) -> None:
    scene.reach((FAR, SOC))
    with socket.socket(socket.AF_UNIX) as abstract:
        abstract.bind("\0cofferdam-test")
        abstract.listen()
        assert scene.owned(f"{code}; say('it worked')") == "EPERM"


def test_what_was_tried_is_counted_and_in_the_log(scene: Scene) -> None:
    scene.reach((FAR, SSH))

    def counted() -> bool:
        sides = {one["side"]: one["packets"] for one in scene.gate.status()["dropped"]}
        return bool(sides.get("host", {}).get("export/soc/exporter", 0))

    eventually(counted)
    eventually(lambda: any(one["side"] == "host" for one in events(scene.site.state, "packets-dropped")))


def test_who_goes_on_trying_is_an_alarm_and_fails_the_check(scene: Scene) -> None:
    assert "fence-tried" not in scene.alarms()
    scene.owned(f"[reach({(FAR, SSH)!r}, socket.SOCK_STREAM) for _ in range(40)]; say('done')")
    eventually(lambda: "export/soc/exporter tried to reach" in scene.alarms().get("fence-tried", ""))
    assert check_says(scene) == ("failed", "an export or the witness tries to reach something else")


def check_says(scene: Scene) -> tuple[str, str]:
    _, out, err = cli("evidence", "run", "log.fenced", "--json", "--state", scene.site.state)
    assert out, err
    (found,) = json.loads(out)["checks"]
    return found["outcome"], found["says"]


def proof_says(scene: Scene) -> tuple[str, str]:
    """The statement about it, by the whole verb: how it is known, and on what."""
    _, out, err = cli("prove", "--json", "--no-probes", "--state", scene.site.state)
    assert out, err
    (said,) = [one for one in json.loads(out)["report"]["statements"] if "way out" in one["name"]]
    assert identify(msgspec.convert(said, Statement)) == ("structure.way-out", "export/soc/exporter")
    return said["status"], " ".join(said["evidence"])


def test_a_proof_tries_it(scene: Scene) -> None:
    status, evidence = proof_says(scene)
    assert status == "tested", evidence
    assert "TCP to 127.0.0.1: refused" in evidence and "UDP to ::1: refused" in evidence
    user = str(users.read(journal.folder(scene.site.state))["export/soc/exporter"])
    launcher = scene.gate.process
    launcher.send_signal(signal.SIGSTOP)  # or it would be put back meanwhile
    try:
        for done, found in (
            ("insert rule inet TABLE parts ip daddr 10.99.0.3 accept", "a rule that the policy does not have"),
            ("insert rule inet TABLE parts return", "a rule that the policy does not have"),
            ("add rule inet TABLE output accept", "a rule that we have not made"),
            (
                "add chain inet TABLE aside { ip daddr 10.99.0.3 accept; }; "
                "insert rule inet TABLE output meta skuid USER jump aside",
                "a rule that we have not made",
            ),
            ("add table inet TABLE { flags dormant; }", "asleep"),
            ("delete table inet TABLE", "there is no table"),
        ):
            by_site(done.replace("TABLE", scene.table).replace("USER", user))
            out = Statements()
            plan = network_plan(compile_policy(load(scene.site.policy), now_ns=time.time_ns()))
            fenced.state(scene.site.state, plan.hosted, launcher.pid, out)
            (said,) = out.found
            # nft 1.0.6 may not get to the end of a listing with such a flag.
            why = " ".join(said.evidence) or ("asleep" if "dormant" in done else "") * ("cannot be read" in said.says)
            assert said.status == "failed" and found in why, (done, said)
    finally:
        launcher.send_signal(signal.SIGCONT)
    eventually(lambda: scene.reach((FAR, SSH)) == "ECONNREFUSED")
    scene.neighbour.strange()


def by_site(text: str) -> None:
    done = subprocess.run(["nft", "-f", "-"], input=text, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_sites_own_rules_go_on(scene: Scene) -> None:
    """Ours lets nothing pass that theirs drops, whichever comes first, and theirs nothing that ours refuses; nobody
    else's traffic is asked about."""
    for priority in (-600, 0):
        try:
            by_site(f"""table inet site {{ chain out {{ type filter hook output priority {priority}; policy drop;
                oifname lo accept
                ip daddr {FAR} tcp dport {SSH} accept
            }}
            }}""")
            assert scene.reach((FAR, SOC)) in ("nothing", "EPERM", "EHOSTUNREACH")
            assert scene.reach((FAR, SSH)) == "ECONNREFUSED"
            assert connects((FAR, SSH))
        finally:
            by_site("delete table inet site")
    assert scene.reach((FAR, SOC)) == "reached"
    assert connects((OTHER, SOC))
    scene.neighbour.strange()


DONE_TO_IT = [
    "flush ruleset",
    "delete table inet TABLE",
    "insert rule inet TABLE parts accept",
    "insert rule inet TABLE output accept",
    "flush chain inet TABLE parts",
    "add table inet TABLE { flags dormant; }",
]


@pytest.mark.parametrize("done", DONE_TO_IT)
def test_what_is_done_to_it_is_put_right(scene: Scene, done: str) -> None:
    """Also for what was connected meanwhile."""
    before, launcher = scene.rules(), scene.gate.process
    assert before
    launcher.send_signal(signal.SIGSTOP)  # so there is a meanwhile
    try:
        by_site(done.replace("TABLE", scene.table))
        assert scene.reach((FAR, SSH), data="BETWEEN") == "reached"
    finally:
        launcher.send_signal(signal.SIGCONT)
    eventually(lambda: scene.rules() == before)
    eventually(lambda: b"BETWEEN" in scene.neighbour.said.get((FAR, SSH), b""))
    scene.neighbour.said.clear()
    scene.owned("last.send(b'AFTER')")
    assert scene.reach((FAR, SSH)) == "ECONNREFUSED"
    assert (FAR, SSH) not in scene.neighbour.said
    eventually(lambda: "fence-changed" in scene.alarms())
    assert scene.reach((FAR, SOC)) == "reached"
    scene.neighbour.strange()


def test_where_it_cannot_be_put_back_nobody_stands_there(scene: Scene) -> None:
    """A table of that name that is another process's own: nobody may change it as long as that one lives."""
    before = scene.rules()
    text = f"delete table inet {scene.table}; add table inet {scene.table} {{ flags owner; }}\n"
    with subprocess.Popen(["nft", "-i"], stdin=subprocess.PIPE, text=True) as owner:
        assert owner.stdin is not None
        owner.stdin.write(text)
        owner.stdin.flush()
        try:
            eventually(lambda: "fence-down" in scene.alarms())
            eventually(lambda: "no fence" in scene.alarms().get("export-soc", ""))
            facts = {one["name"]: one for one in scene.gate.status()["facts"]}
            assert not facts["fence"]["in_force"]
            assert check_says(scene) == ("failed", UNFENCED)
            assert not [one for one in facts if one.startswith("export/soc")]
        finally:
            owner.stdin.close()
    eventually(lambda: scene.rules() == before)
    eventually(lambda: "fence-down" not in scene.alarms())
    eventually(lambda: scene.reach((FAR, SOC)) == "reached")
    assert scene.reach((FAR, SSH)) == "ECONNREFUSED"
    eventually(lambda: check_says(scene)[1] != UNFENCED)
    tried = "fence-tried" in scene.alarms()  # by a test before: it stands for an hour
    assert (check_says(scene)[0] == "observed", "check-log.fenced" in scene.alarms()) == (not tried, tried)


def test_it_follows_the_policy(scene: Scene) -> None:
    """A collector that moves: the old one is reached no more, by what is open neither; one that is added, and gone."""
    (port,) = held_ports(1)
    scene.say(f"tls://{OTHER}:{SOC}", more=f"    near: {{to: 'udp://127.0.0.1:{port}'}}\n")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as near:
        near.bind(("127.0.0.1", port))
        near.settimeout(60)
        ask(scene.site.state, "reload", path="")
        text = json.dumps(scene.rules())
        assert FAR not in text and OTHER in text and str(port) in text
        assert b"cofferdam@" in near.recv(65536)
    scene.say()
    ask(scene.site.state, "reload", path="")
    text = json.dumps(scene.rules())
    assert FAR in text and OTHER not in text and f'"right": {port}' not in text
    assert "export/near" in text, "its user is held as long as the gate lives"
    scene.neighbour.strange()


def test_it_goes_with_the_gate_and_outlasts_one_that_is_killed(scene: Scene) -> None:
    scene.gate.process.kill()
    scene.gate.process.wait()
    assert scene.rules(), "whoever outlived the launcher is held"
    assert clean(scene.site.state) == []
    assert not scene.rules()
    by_site(f"table inet {scene.table} {{ chain parts {{ accept\n }}\n }}")  # what an older gate may have left
    plan = network_plan(compile_policy(load(scene.site.policy), now_ns=time.time_ns()))
    short = table_name(tag(scene.site.state)[:4])  # as an older build named it, with this gate's users
    left = fence(short, plan.hosted, {one.who: 64002 for one in plan.hosted})
    assert firewall.apply(firewall.find_nft(), left) == ""
    scene.start()
    eventually(lambda: scene.reach((FAR, SOC)) == "reached")
    assert scene.reach((FAR, SSH)) == "ECONNREFUSED"
    assert not firewall.table(firewall.find_nft(), short)
    assert scene.gate.stop() == 0
    assert not scene.rules()


def test_two_gates_are_not_taken_for_one_another(scene: Scene, tmp_path: Path) -> None:
    """The table goes by users: a second gate in the same network needs others."""
    if scene.gate.process.poll() is not None:
        scene.start()
    eventually(lambda: scene.reach((FAR, SOC)) == "reached")
    held = {one["name"]: one for one in scene.gate.status()["facts"]}["fence"]
    assert held["in_force"]
    user = users.read(journal.folder(scene.site.state))["export/soc/exporter"]
    with pytest.raises(GateError, match=f"user {user}, by whom") as refused:
        Fence(tmp_path).put((), {"export/x/exporter": user})
    assert "--users" in refused.value.hint
    with pytest.raises(GateError, match=f"table inet {scene.table}, knows its own parts by user {user}"):
        Fence(tmp_path).put((), {}, range(64002, 64999))
    by_site(f"""table inet {NAMED}-of-another {{ chain output {{
        ip daddr {{ 192.0.2.1, 192.0.2.2 }} accept
        meta skuid 64002-64999 drop
    }}
    }}""")  # it only has such a name
    try:
        Fence(tmp_path).put((), {}, range(65002, 65999))
    finally:
        by_site(f"delete table inet {NAMED}-of-another")
    assert not firewall.table(firewall.find_nft(), table_name(tag(tmp_path)))


def test_the_witness_as_well(scene: Scene, tmp_path: Path) -> None:
    scene.gate.stop()
    with scene_of(tmp_path, "witness", scene.neighbour) as other:
        other.say(witness=f'{{to: "https://[{FAR6}]:{SOC}/w", key: "{vkey(NAME, SEED)}"}}')
        other.start()
        scene.neighbour.strange()
        assert other.reach((FAR6, SOC)) == "reached"
        eventually(lambda: b"OWNED" in scene.neighbour.said.get((FAR6, SOC), b""))
        scene.neighbour.strange()
        for to in ((FAR, SOC), (FAR6, SSH), (HOST6, SOC)):
            assert other.reach(to) == "ECONNREFUSED"
        assert other.owned("say(reach(('127.0.0.53', 53), socket.SOCK_DGRAM))") == "EPERM"
    strange = scene.neighbour.strange()
    assert {where for where, port in strange if port != SOC} == set()


def test_an_export_by_datagrams_as_well(scene: Scene, tmp_path: Path) -> None:
    """No other address, DNS, the collector's port elsewhere, a group of listeners; and no port of its own choice."""
    scene.gate.stop()
    (port,) = held_ports(1)
    with scene_of(tmp_path, "exporter", scene.neighbour) as other, contextlib.ExitStack() as stack:
        other.site.policy.write_text(
            f"{other.site.text()}\naudit: {{collectors: {{soc: {{to: 'udp://127.0.0.1:{port}'}}}}}}\n"
        )
        near, stub = (stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(2))
        near.bind(("127.0.0.1", port))
        near.settimeout(60)
        stub.bind(("127.0.0.53", DNS))
        stub.setblocking(False)
        other.start()
        scene.neighbour.strange()
        scene.neighbour.said.clear()
        assert other.reach(("127.0.0.1", port), "DGRAM") == "reached"
        while near.recv(65536) != b"OWNED":
            pass
        for to in ((FAR, DNS), (FAR, port), (FAR6, DNS), ("127.0.0.53", DNS), ("224.0.0.251", 5353)):
            assert other.reach(to, "DGRAM") in ("EPERM", "EACCES", "EHOSTUNREACH", "ECONNREFUSED")
        assert other.owned("socket.socket(socket.AF_INET, socket.SOCK_STREAM); say('it worked')") == "EPERM"
        assert not select.select([stub], [], [], 0)[0]
        assert not scene.neighbour.said
        assert scene.neighbour.strange() == []


def test_root_without_interfaces_has_it_too(scene: Scene, tmp_path: Path) -> None:
    """And a gate of no namespaces takes it away as well."""
    scene.gate.stop()
    (port,) = held_ports(1)
    site = PlainSite(tmp_path)
    site.policy.write_text(
        f"{site.policy.read_text()}\naudit: {{collectors: {{near: {{to: 'udp://127.0.0.1:{port}'}}}}}}\n"
    )
    table = table_name(tag(site.state))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as near:
        near.bind(("127.0.0.1", port))
        near.settimeout(60)
        with running(site.state, site.policy) as gate:
            assert b"cofferdam@" in near.recv(65536)
            facts = {one["name"]: one for one in gate.status()["facts"]}
            assert facts["fence"]["in_force"] and not facts["firewall"]["in_force"]
            rows = firewall.table(firewall.find_nft(), table)
            assert f"'right': {port}" in str(rows)
            _, out, _ = cli("prove", "--json", "--no-probes", "--state", site.state)
            (said,) = [one for one in json.loads(out)["report"]["statements"] if "way out" in one["name"]]
            assert said["status"] == "tested", said
            assert gate.stop() == 0
        assert not firewall.table(firewall.find_nft(), table)
        with running(site.state, site.policy) as gate:
            gate.process.kill()
            gate.process.wait()
            assert firewall.table(firewall.find_nft(), table)
            link = tmp_path / "link"
            link.symlink_to(site.state)
            code, said, _ = cli("down", "--state", link)  # by another name, and no interface was taken
            assert code == 0 and "back in place" in said
    assert not firewall.table(firewall.find_nft(), table)


def test_who_has_none_says_so() -> None:
    """Nothing is held where no user tells an export from anything else; and where the policy has none, nothing is
    said."""
    plan = NetworkPlan("t", False, False, (SidePlan("it"), SidePlan("ot")))
    isolation = PlainIsolation(("only root can make them", "start as root"))
    isolation.prepare(plan)
    assert "fence" not in {name for name, _, _ in isolation.describe()}
    isolation.prepare(msgspec.structs.replace(plan, hosted=(Hosted("export/soc", "exporter"),)))
    (said,) = [(held, text) for name, held, text in isolation.describe() if name == "fence"]
    assert not said[0] and "reaches all that this host reaches" in said[1]
    isolation.admit("export/soc/exporter")


def test_a_collector_behind_a_tunnel_of_this_host_is_named(scene: Scene, tmp_path: Path) -> None:
    """The host reaches it, its export does not, since what goes around its packets counts as the export's as well: who
    asks why is told so, with the way out."""
    with scene_of(tmp_path, "exporter", scene.neighbour) as made:
        there = scene.neighbour
        for number, (inside, ours, theirs, link) in enumerate(
            (((), HOST, FAR, there.near), (("-n", there.name), FAR, HOST, there.far)), start=1
        ):
            words = ("vx0", "type", "vxlan", "id", "7", "remote", theirs, "local", ours, "dstport", "4789", "dev", link)
            if subprocess.run(["ip", *inside, "link", "add", *words], capture_output=True).returncode:
                pytest.skip("this kernel has no VXLAN")
            ip(*inside, "address", "add", f"10.77.0.{number}/24", "dev", "vx0")
            ip(*inside, "link", "set", "vx0", "up")
        with at(there.name):
            there.listen("10.77.0.2", SOC)
        made.say(f"tls://10.77.0.2:{SOC}")
        made.start()
        assert connects(("10.77.0.2", SOC))
        eventually(lambda: "export-soc" in made.alarms())
        eventually(
            lambda: json.loads(cli("export", "status", "--json", "--state", made.site.state)[1])[0]["refused"] > 0
        )
        code, out, _ = cli("export", "status", "--state", made.site.state)
        assert code == 1
        assert "let the tunnel end at another machine" in " ".join(out.split())
        ip("link", "del", "vx0")
        ip("-n", there.name, "link", "del", "vx0")
        there.strange()
