"""The log's heads on their way to those who keep them: a real gate, a witness in a process of its own that was written
from the specification, a real sshd; and logs that were put back, written anew, signed by another key."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
import getpass
import json
import os
import random
import shutil
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from cofferdam.audit.checkpoint import VerifierKey
from cofferdam.audit.cosignature import WitnessKey, signed_at
from cofferdam.audit.files import LogReader
from cofferdam.cli.evidence_witness import public_key
from cofferdam.crossing.link import Link
from cofferdam.crossing.pipe import make_pipe
from cofferdam.crossing.reactor import Reactor
from cofferdam.errors import CofferdamError, PolicyError
from cofferdam.evidence.checks.logs import OUT
from cofferdam.evidence.gather import log_key
from cofferdam.evidence.witness_asking import Said, _asking, ask_all
from cofferdam.evidence.witness_records import (
    FROM_WITNESS,
    TO_WITNESS,
    Alive,
    Keepers,
    Kept,
    NotKept,
    StopWitness,
    Want,
    WitnessReady,
)
from cofferdam.evidence.witness_ways import SftpFolder
from cofferdam.gate.client import ask
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import load
from cofferdam.policy.rows import Witness
from tests.brokers.jump.site import THERE, Sshd
from tests.brokers.patch import test_hostile_sftp as hostile_sftp
from tests.evidence.ledger import Ledger
from tests.evidence.witness_stranger import held, vkey
from tests.gate.plant import Device, QuickGate, cli, events, policy_text
from tests.ports import held_ports
from tests.waiting import PATIENT, eventually

SEED, OTHER = "11" * 32, "22" * 32
NAME = "witness.example/w1"


class Stranger:
    """The witness, with one log known under several prefixes, each with a state of its own."""

    def __init__(self, folder: Path, port: int) -> None:
        folder.mkdir()
        self.folder, self.port = folder, port
        self.write({})
        program = Path(__file__).with_name("witness_stranger.py")
        self.process = subprocess.Popen([sys.executable, str(program), str(port), str(folder)], stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        self.process.stdout.readline()

    def write(self, logs: dict[str, Any]) -> None:
        (self.folder / "logs.json").write_text(json.dumps(logs))

    def knows(self, log: str, *prefixes: str, **state: Any) -> None:
        with held(self.folder):
            logs = self.state()
            for prefix in prefixes:
                logs[prefix] = {"log": log, "name": NAME, "seed": SEED, "size": 0, "root": "", **state}
            self.write(logs)

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "logs.json").read_text())
        return found

    def row(self, prefix: str, key: str = "") -> Witness:
        return Witness(prefix[1:], "http", "127.0.0.1", self.port, prefix, key or vkey(NAME, SEED))

    def close(self) -> None:
        self.process.kill()
        self.process.wait(PATIENT)
        if self.process.stdout is not None:
            self.process.stdout.close()


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stranger]:
    (port,) = held_ports(1)
    made = Stranger(tmp_path_factory.mktemp("witness") / "w", port)
    yield made
    made.close()


def grown(state: Path, size: int) -> VerifierKey:
    """A log with so many entries, some of them new; its key."""
    ledger = Ledger(state)
    while ledger.log.size < size:
        ledger.found("leak.silent", "tested" if ledger.log.size % 2 else "failed")
    ledger.close()
    return log_key(state)


def says(state: Path, *rows: Witness, secret: bytes = b"") -> dict[str, Said]:
    reader = LogReader(state / "audit", log_key(state))
    return {one.name: one for one in ask_all(rows, reader, secret)}


def test_what_a_witness_by_the_specification_finds(stranger: Stranger, tmp_path: Path) -> None:
    state = tmp_path / "state"
    key = grown(state, 3)
    stranger.knows(key.text, "/a", "/b")
    first = says(state, stranger.row("/a"))["a"]
    assert (first.size, first.wrong, first.trouble) == (3, "", "") and first.signed > 0
    assert says(state, stranger.row("/a"))["a"].size == 3  # the same head once more

    backup = tmp_path / "backup"
    shutil.copytree(state, backup)
    grown(state, 303)
    assert says(state, stranger.row("/a"))["a"].size == stranger.state()["/a"]["size"] == 303

    # An old backup put in its place; then other entries by the same key, fewer, as many and more of them.
    shutil.rmtree(state)
    shutil.copytree(backup, state)
    for count, words in ((0, "put back or cut"), (40, "put back"), (303, "written anew"), (600, "written anew")):
        if count:
            grown(state, count)
        said = says(state, stranger.row("/a"))["a"]
        assert words in said.wrong, said
    assert stranger.state()["/a"]["size"] == 303

    # Another key of the witness, a log that it does not know, a log that it knows by another key, nobody there.
    good = tmp_path / "good"
    other = grown(good, 4)
    stranger.knows(other.text, "/mine")
    stranger.knows(vkey("x", OTHER).replace("x+", f"{other.name}+"), "/wrongkey")
    (port,) = held_ports(1)
    found = says(
        good, stranger.row("/mine", vkey(NAME, OTHER)), stranger.row("/unknown"), stranger.row("/wrongkey"),
        Witness("nobody", "http", "127.0.0.1", port, "", vkey(NAME, SEED)),
    )  # fmt: skip
    assert "another key" in found["mine"].wrong
    assert "does not know the log" in found["unknown"].trouble
    assert "another key" in found["wrongkey"].wrong
    assert "cannot be reached" in found["nobody"].trouble


@pytest.mark.skipif(not THERE, reason="no OpenSSH server here")
def test_a_folder_behind_a_real_sshd(tmp_path: Path) -> None:
    state, folder = tmp_path / "state", tmp_path / "heads"
    folder.mkdir()
    grown(state, 3)
    (port,) = held_ports(1)
    server = Sshd(tmp_path / "sshd", port)
    try:
        line = public_key(state)
        secret = (state / "secrets/witness/witness/sftp-key").read_bytes()
        assert public_key(state) == line
        host = " ".join(server.public_key.split()[:2])
        row = Witness("safe", "sftp", "127.0.0.1", port, str(folder), host, getpass.getuser())

        def give(where: Path, to: Witness = row) -> int:
            reader = LogReader(where / "audit", log_key(where))
            return asyncio.run(SftpFolder(to, reader.key, _asking("safe", reader), secret).visit())[0]

        assert "does not let" in says(state, row, secret=secret)["safe"].trouble
        server.authorize(line)
        assert "no head is there" in says(state, row, secret=secret)["safe"].trouble
        assert give(state) == 3
        shutil.copytree(state, tmp_path / "backup")
        grown(state, 303)
        assert give(state) == 303
        assert len(list(folder.iterdir())) == 2  # the newest, and the last of this day
        kept = (folder / "checkpoint").read_bytes()
        assert says(state, row, secret=secret)["safe"].size == 303
        # put back; written anew; another log; another host key. Nothing there is touched.
        assert "put back or cut" in says(tmp_path / "backup", row, secret=secret)["safe"].wrong
        for size in (40, 303):
            grown(tmp_path / "backup", size)
        for _ in range(2):
            assert "written anew" in says(tmp_path / "backup", row, secret=secret)["safe"].wrong
            with pytest.raises(Exception, match="written anew"):
                give(tmp_path / "backup")
        grown(tmp_path / "stranger", 4)
        assert "has not signed this" in says(tmp_path / "stranger", row, secret=secret)["safe"].wrong
        assert (folder / "checkpoint").read_bytes() == kept
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "other")], check=True)
        liar = " ".join((tmp_path / "other.pub").read_text().split()[:2])
        false = Witness("safe", "sftp", "127.0.0.1", port, str(folder), liar, getpass.getuser())
        assert "another host key" in says(state, false, secret=secret)["safe"].wrong
        (folder / "checkpoint").write_text("not a note\n\n")
        assert says(state, row, secret=secret)["safe"].wrong
    finally:
        server.close()


class Site:
    """A gate whose policy names witnesses: one that is honest, one that has seen more of the log, one that has seen
    another, one that signs by another key, one that is not there, and a folder behind sshd."""

    def __init__(self, folder: Path, stranger: Stranger, stack: ExitStack) -> None:
        self.folder, self.stranger = folder, stranger
        self.device = Device()
        stack.callback(self.device.close)
        self.state, self.policy, self.heads = folder / "state", folder / "policy.yaml", folder / "heads"
        self.heads.mkdir()
        key = grown(self.state, 5)
        port, nobody, ssh = held_ports(3)
        stranger.knows(key.text, "/honest", "/otherkey")
        stranger.knows(key.text, "/ahead", size=1_000_000, root=base64.b64encode(b"\x01" * 32).decode())
        stranger.knows(key.text, "/forked", size=2, root=base64.b64encode(b"\x02" * 32).decode())
        keys = {"otherkey": vkey(NAME, OTHER)}
        lines = [
            f'    {name}: {{to: "http://127.0.0.1:{stranger.port}/{name}", key: "{keys.get(name, vkey(NAME, SEED))}"}}'
            for name in ("honest", "ahead", "forked", "otherkey")
        ]
        lines.append(f'    nobody: {{to: "http://127.0.0.1:{nobody}", key: "{vkey(NAME, SEED)}"}}')
        if THERE:
            server = Sshd(folder / "sshd", ssh)
            stack.callback(server.close)
            server.authorize(public_key(self.state))
            host = " ".join(server.public_key.split()[:2])
            lines.append(f'    safe: {{to: "sftp://{getpass.getuser()}@127.0.0.1:{ssh}{self.heads}", key: "{host}"}}')
        self.policy.write_text(
            policy_text({"plc": (self.device.port, port)}, extra="\n".join(["audit:", "  witnesses:", *lines]))
        )
        self.gate = QuickGate(self.state, self.policy)
        stack.callback(self.gate.close)
        self.gate.wait_ready()

    def stood(self) -> dict[str, dict[str, Any]]:
        return {
            one["collector"].removeprefix("witness:"): one
            for one in events(self.state, "export-stood")
            if one["collector"].startswith("witness:")
        }


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, stranger: Stranger) -> Iterator[Site]:
    with ExitStack() as stack:
        yield Site(tmp_path_factory.mktemp("witnessed"), stranger, stack)


def test_a_gate_gives_its_heads_by_itself_and_hears_who_says_no(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {"honest", "ahead", "forked", "otherkey", *(["safe"] if THERE else [])}
    said = {"ahead": "put back or cut", "forked": "written anew", "otherkey": "another key"}

    def heard() -> bool:
        """Whoever did not answer in time at first, on a busy machine, is asked again."""
        stood = site.stood()
        works = {name for name, one in stood.items() if one["working"]}
        return works == wanted - said.keys() and all(
            words in stood.get(name, {"detail": ""})["detail"] for name, words in said.items()
        )

    eventually(heard)
    wrong = {f"export-witness:{name}" for name in said}

    def called() -> bool:
        alarms = {one["name"] for one in ask(site.state, "status")["alarms"]}
        return wrong <= alarms and not {"export-witness:honest", "export-witness:safe"} & alarms

    eventually(called)
    stood = site.stood()
    note = stood["honest"]["note"].encode()
    assert signed_at(note, WitnessKey.parse(vkey(NAME, SEED))) > 0
    if THERE:
        eventually(lambda: (site.heads / "checkpoint").read_text() == site.stood()["safe"]["note"])

    # As somebody asks: the whole log, and each witness of the policy.
    code, out, err = cli("audit", "verify", "--state", site.state, "--witness", "honest", "--json")
    assert code == 0, out + err
    (said,) = json.loads(out)["witnesses"]
    assert said["size"] >= stood["honest"]["next"] and said["signed"] > 0
    code, out, _ = cli("audit", "verify", "--state", site.state, "--witness", "--json")
    found = {one["name"]: one for one in json.loads(out)["witnesses"]}
    assert code == 1 and found["ahead"]["wrong"] and found["nobody"]["trouble"] and not found["honest"]["wrong"]
    monkeypatch.chdir(tmp_path)
    Path("stick").mkdir()
    code, _, err = cli("audit", "verify", "--state", site.state, "--witness", "stick")
    assert code == 2 and "--witness ./stick" in err
    code, _, err = cli("audit", "verify", "--state", site.state, "--witness", "honst")
    assert code != 0 and "honest" in err

    # What runs: a part of its own, with its filter on, that holds no file.
    code, out, _ = cli("evidence", "list", "--state", site.state, "--json")
    assert code == 0
    code, out, _ = cli("evidence", "run", "log.witnessed", "--state", site.state, "--json")
    assert code == 1 and "a witness says no" in out
    # All that can be looked at: services that the policy does not use are counted, and not told one by one.
    code, out, _ = cli("evidence", "run", "--no-verify", "--state", site.state)
    assert code == 1 and "checks of what the policy does not use" in out and "failed   log.witnessed" in out
    assert "recording.complete" not in out and "patch.approved" not in out and "proof.probes" in out


def test_the_witnesses_are_the_policys(site: Site) -> None:
    """Who says no is out of the policy: his alarm goes; a gate without witnesses has no such part."""
    text = site.policy.read_text()
    kept = [
        line for line in text.splitlines() if not any(f" {name}:" in line for name in ("ahead", "forked", "nobody"))
    ]
    site.policy.write_text("\n".join(kept))
    before = (site.stranger.folder / "requests").read_text().count("/honest/")
    ask(site.state, "reload")
    eventually(lambda: (site.stranger.folder / "requests").read_text().count("/honest/") > before)
    alarms = {one["name"] for one in ask(site.state, "status")["alarms"]}
    assert not {"export-witness:ahead", "export-witness:forked"} & alarms
    eventually(lambda: site.stood()["ahead"]["detail"] == OUT)
    # Given the right key, the one that was wrong is asked again and counts at once.
    site.policy.write_text("\n".join(kept).replace(vkey(NAME, OTHER), vkey(NAME, SEED)))
    ask(site.state, "reload")
    eventually(lambda: site.stood()["otherkey"]["working"])
    code, out, _ = cli("evidence", "run", "log.witnessed", "--state", site.state, "--json")
    assert code == 0, out
    site.policy.write_text(text)


def test_visit_after_visit_and_a_log_that_is_another_in_between(stranger: Stranger, tmp_path: Path) -> None:
    """The part itself, told to visit ten times a second: it goes on by itself, asks from where the witness stands, and
    gives away no head that does not go on from the last one, though the witness would take it."""
    state, other = tmp_path / "state", tmp_path / "other"
    key = grown(state, 5)
    stranger.knows(key.text, "/visits")
    (to_read, to_write), (from_read, from_write) = make_pipe(), make_pipe()
    command = [sys.executable, "-m", "cofferdam.evidence.witness_part", "--control-in", str(to_read), "--control-out"]
    with subprocess.Popen([*command, str(from_write)], pass_fds=(to_read, from_write)) as process:
        os.close(to_read)
        os.close(from_write)
        reactor = Reactor()
        heard: list[Any] = []
        where = [state]

        def on_record(record: Any) -> None:
            if not isinstance(record, Alive):
                heard.append(record)
            if isinstance(record, Want):
                reader = LogReader(where[0] / "audit", key)
                link.send(asyncio.run(_asking("visits", reader)(record.old)))

        link: Link[Any, Any] = Link(reactor, from_read, to_write, FROM_WITNESS, TO_WITNESS, on_record, lambda _: None)
        link.send(Keepers(key.text, (stranger.row("/visits"),), b"", 0.1))

        def until(condition: Callable[[], object]) -> None:
            def turned() -> object:
                reactor.turn(0.05)
                return condition()

            eventually(turned)

        def of(kind: type) -> list[Any]:
            return [one for one in heard if isinstance(one, kind)]

        until(lambda: len(of(Kept)) >= 3)
        shutil.copytree(state, other)
        grown(state, 300)
        until(lambda: of(Kept)[-1].size == 300)
        # The same log, put back; then written anew, and the witness made to forget what it had signed.
        where[0] = other
        until(lambda: any("put back or cut" in one.detail for one in of(NotKept)))
        grown(other, 40)
        grown(other, 400)
        stranger.knows(key.text, "/visits")
        until(lambda: any("written anew" in one.detail and one.wrong for one in of(NotKept)))
        assert stranger.state()["/visits"]["size"] == 0
        where[0] = state
        before = len(of(Kept))
        until(lambda: len(of(Kept)) > before)
        link.send(StopWitness())
        assert process.wait(PATIENT) == 0
        link.close()
    assert len(of(WitnessReady)) == 1


HTTPS = "https://10.0.0.1/x"
CHANGED = "w+00000000+BBERERERERERERERERERERERERERERERERERERERERER"
OF_A_LOG = "w+00000000+AREREREREREREREREREREREREREREREREREREREREREREREREREQ=="
BAD = {
    "an address that no packet has": ('{to: "https://[::ffff:10.0.0.1]/x", key: "KEY"}', "10.0.0.1, which"),
    "a name": ('{to: "https://witness.example/x", key: "KEY"}', "no names are resolved"),
    "no key": (f'{{to: "{HTTPS}"}}', "key"),
    "a host key for https": (f'{{to: "{HTTPS}", key: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBER"}}', "NAME+ID"),
    "a vkey for sftp": ('{to: "sftp://a@10.0.0.1/x", key: "KEY"}', "host key"),
    "sftp without a user": ('{to: "sftp://10.0.0.1/x", key: "KEY"}', "sftp://USER@"),
    "another way": ('{to: "ftp://10.0.0.1/x", key: "KEY"}', "https://"),
    "a key that was changed": (f'{{to: "{HTTPS}", key: "{CHANGED}"}}', "does not belong to it"),
    "a log's key": (f'{{to: "{HTTPS}", key: "{OF_A_LOG}"}}', "type 04"),
    "an unknown field": (f'{{to: "{HTTPS}", key: "KEY", kye: 1}}', "kye"),
}


@pytest.mark.parametrize("case", BAD)
def test_policies_that_are_wrong(tmp_path: Path, case: str) -> None:
    row, words = BAD[case]
    policy = tmp_path / "policy.yaml"
    row = row.replace("KEY", vkey(NAME, SEED))
    policy.write_text(policy_text({"plc": (502, 1502)}, extra=f"audit:\n  witnesses:\n    w: {row}"))
    with pytest.raises(PolicyError) as found:
        load(policy)
    assert any(words in str(one) for one in found.value.problems), [str(one) for one in found.value.problems]


def test_a_policy_that_is_good(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    row = f'{{to: "https://[fd00::60]:8443/heads/", key: "{vkey(NAME, SEED)}", name: witness.example}}'
    policy.write_text(policy_text({"plc": (502, 1502)}, extra=f"audit:\n  witnesses:\n    w: {row}"))
    (made,) = compile_policy(load(policy), now_ns=0).audit.witnesses
    assert made.where == "https://[fd00::60]:8443/heads" and made.host == "witness.example"


class Hostile:
    """Answers every connection with these bytes, and then does what `after` says."""

    def __init__(self, said: bytes, hold: bool = False) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._said, self._hold, self._open = said, hold, list[socket.socket]()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self._listener.accept()
                self._open.append(peer)
                with contextlib.suppress(OSError):
                    peer.recv(1 << 16)
                    peer.sendall(self._said)
                    if not self._hold:
                        peer.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for peer in self._open:
            peer.close()


def _http(status: int, body: bytes, more: bytes = b"") -> bytes:
    return b"HTTP/1.1 %d x\r\nContent-Length: %d\r\n%s\r\n%s" % (status, len(body), more, body)


UNSIGNED = f"\u2014 {NAME} ".encode() + base64.b64encode(bytes.fromhex(vkey(NAME, SEED).split("+")[1]) + b"\0" * 72)
HOSTILE = {
    "nothing": (b"", "no HTTP"),
    "no http": (b"SSH-2.0-x\r\n", "no HTTP"),
    "too much": (b"HTTP/1.1 200 x\r\n\r\n" + b"x" * (1 << 17), "more than 64 KiB"),
    "endless head": (b"HTTP/1.1 200 x\r\n" + b"a: b\r\n" * 5000, "no HTTP"),
    "cut short": (b"HTTP/1.1 200 x\r\nContent-Length: 99\r\n\r\nx", "no HTTP"),
    "bad chunks": (b"HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "no HTTP"),
    "no co-signature": (_http(200, b""), "no co-signature"),
    "words": (_http(200, "\u2014 witness.example/w1 @@@\n\u2014\n".encode()), "no co-signature"),
    "not utf-8": (_http(200, b"\xff\xfe\n"), "no co-signature"),
    "a co-signature of nothing": (_http(200, UNSIGNED), "no co-signature"),
    "a size that is none": (_http(409, b"many\n"), "does not say what it has"),
    "an endless size": (_http(409, b"9" * 400), "does not say what it has"),
    "a larger size": (_http(409, b"999999999999999999\n"), "put back or cut"),
    "a size below nothing": (_http(409, b"-4\n"), "does not say what it has"),
    "an error of its own": (_http(500, b""), "answers 500"),
    "somewhere else": (_http(302, b"", b"Location: http://10.0.0.1/\r\n"), "answers 302"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_witnesses_that_answer_what_nobody_should(tmp_path_factory: pytest.TempPathFactory, case: str) -> None:
    said, words = HOSTILE[case]
    state = tmp_path_factory.getbasetemp() / "hostile"
    if not state.exists():
        grown(state, 4)
    peer = Hostile(said)
    try:
        row = Witness("w", "http", "127.0.0.1", peer.port, "", vkey(NAME, SEED))
        found = says(state, row)["w"]
        assert words in found.wrong + found.trouble, found
        assert not found.size
        # As SSH it is no better, and no worse.
        ssh = Witness("w", "sftp", "127.0.0.1", peer.port, "/x", f"ssh-ed25519 {OPENSSH}", "root")
        assert says(state, ssh, secret=_secret(state))["w"].trouble
    finally:
        peer.close()


class EmptyFolder(hostile_sftp.Session):
    """Each file there is empty, so that a head is written."""

    @staticmethod
    def _answer(kind: int, number: bytes) -> bytes:
        if kind == hostile_sftp.READ:
            return bytes([hostile_sftp.STATUS]) + number + struct.pack(">I", 1) + hostile_sftp.text(b"end") * 2
        return hostile_sftp.Session._answer(kind, number)


@pytest.mark.parametrize("count", [24, pytest.param(400, marks=pytest.mark.soak)])
def test_a_folder_that_speaks_sftp_badly_ends_nothing(tmp_path: Path, count: int) -> None:
    """SSH is well spoken, SFTP is not: each visit has an outcome, and leaves nothing behind that would end the part."""
    grown(tmp_path / "state", 4)
    reader, secret = LogReader(tmp_path / "state/audit", log_key(tmp_path / "state")), _secret(tmp_path / "state")
    left: list[object] = []

    async def visits() -> list[str]:
        dice, key = random.Random(3), asyncssh.generate_private_key("ssh-ed25519")

        class Server(asyncssh.SSHServer):
            def begin_auth(self, username: str) -> bool:
                return False

            def session_requested(self) -> hostile_sftp.Session:
                return dice.choice((hostile_sftp.Session, EmptyFolder))(dice)

        asyncio.get_running_loop().set_exception_handler(lambda _, context: left.append(context))
        server = await asyncssh.create_server(Server, "127.0.0.1", 0, server_host_keys=[key], encoding=None)
        row = Witness("w", "sftp", "127.0.0.1", server.get_port(), "/x", key.export_public_key().decode().strip(), "u")
        found = []
        for _ in range(count):
            try:
                size, _ = await SftpFolder(row, reader.key, _asking("w", reader), secret).visit()
                found.append(f"kept {size}")
            except CofferdamError as error:
                found.append(str(error))
        server.close()
        await server.wait_closed()
        return found

    found = asyncio.run(visits())
    gc.collect()
    assert not left, left
    assert len(found) == count and any("SFTP" in one for one in found), found
    assert {one for one in found if one.startswith("kept")} == {"kept 4"}, found


OPENSSH = "AAAAC3NzaC1lZDI1NTE5AAAAIE4bn4ilS7jXZbUZ1GWVKMBpqRgAYUSFmFzY3RmK5n4o"


def _secret(state: Path) -> bytes:
    public_key(state)
    return (state / "secrets/witness/witness/sftp-key").read_bytes()


def test_keys_that_are_none_end_nothing(tmp_path: Path) -> None:
    """A host key that the policy's spelling lets through, and a secret that somebody damaged."""
    grown(tmp_path / "state", 4)
    cut = Witness("w", "sftp", "127.0.0.1", 1, "/x", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBER", "root")
    good = Witness("w", "sftp", "127.0.0.1", 1, "/x", f"ssh-ed25519 {OPENSSH}", "root")
    for row, secret in ((cut, _secret(tmp_path / "state")), (good, b"no key"), (good, b"")):
        assert "key" in says(tmp_path / "state", row, secret=secret)["w"].trouble
