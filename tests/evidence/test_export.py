"""Entries on their way: forms parsed back by others, ways with real peers, and collectors that misbehave."""

from __future__ import annotations

import contextlib
import datetime
import errno
import http.server
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hypothesis
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from cofferdam.audit.entry import DRAFTS, encode_event
from cofferdam.audit.events.gate import Alarm, GateStopped
from cofferdam.audit.files import LogReader
from cofferdam.errors import PolicyError
from cofferdam.evidence.export import forms, ocsf, ways
from cofferdam.evidence.export.forms import FORMS, Item, framed, item, syslog
from cofferdam.evidence.export.meaning import KINDS
from cofferdam.evidence.export.sending import Cursor, Sending, Stood
from cofferdam.evidence.gather import log_key
from cofferdam.gate.secrets import load_secrets
from cofferdam.gate.watch.exports import SECRETS
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import load
from cofferdam.policy.rows import Collector
from tests.audit.test_entry import strategy
from tests.evidence.ledger import Ledger
from tests.gate.plant import cli
from tests.ports import held_port
from tests.waiting import PATIENT, eventually

PLAIN = serialization.NoEncryption()
WHOLE = rb'\[cofferdam@32473 index="(\d+)" kind="[^"]*" maker="[^"]*"\] \{.*?Z"\}'
NASTY = 'a]b"c\\d|e=f\ng\rh\x00i\u2028j\U0001f600]" \\'


def entry_of(event: Any, index: int = 7, site: str = "riverside") -> Item:
    body = encode_event(event)
    data = b'{"event":%s,"index":%d,"maker":"gate","policy":"%s","site":%s,"time":"2026-11-26T10:00:00.123456789Z"}' % (
        body, index, b"a" * 64, json.dumps(site).encode(),
    )  # fmt: skip
    return item(index, data)


# --- forms ------------------------------------------------------------------------------------------------------

REQUIRED = {
    4001: {"dst_endpoint"}, 6005: {"actor", "src_endpoint"}, 2004: {"finding_info"}, 5019: {"device"},
    2003: {"compliance", "finding_info"}, 6002: {"app"}, 1008: set(), 3005: {"user", "privileges"}, 3001: {"user"},
}  # fmt: skip
"""What OCSF 1.3.0 requires of each class beyond the base."""
BASE = {"activity_id", "category_uid", "class_uid", "type_uid", "severity_id", "time", "metadata"}


@pytest.mark.parametrize("draft", DRAFTS, ids=lambda draft: draft.__name__)
@hypothesis.settings(max_examples=2)
@given(data=st.data())
def test_every_kind_in_every_form(draft: type, data: st.DataObject) -> None:
    one = entry_of(data.draw(strategy(draft)))
    made = json.loads(forms.as_ocsf(one))
    assert made == json.loads(forms._dumps(ocsf.event(one.entry, one.what, forms.sentence(one.entry))))
    assert set(made) >= BASE | REQUIRED[made["class_uid"]]
    assert made["type_uid"] == made["class_uid"] * 100 + made["activity_id"]
    assert made["category_uid"] == made["class_uid"] // 1000
    assert made["metadata"]["product"]["vendor_name"]
    assert made["metadata"]["version"] == "1.3.0"
    if "finding_info" in made:
        assert made["finding_info"].keys() >= {"title", "uid"}
    if "compliance" in made:
        assert made["compliance"]["standards"]
    if "user" in made:
        assert made["user"]["name"]
    if "actor" in made:
        assert made["actor"]
    for end in ("src_endpoint", "dst_endpoint"):
        if end in made:
            assert made[end].get("ip") or made[end].get("name")
    assert made["unmapped"]["event"] == one.entry.event
    ecs = json.loads(forms.as_ecs(one))
    assert ecs.keys() >= {"@timestamp", "ecs", "event", "message"}
    assert ecs["event"]["sequence"] == 7
    head, extension = cef_parsed(forms.as_cef(one).decode())
    assert head[4] == one.entry.kind
    assert extension["cn1"] == "7"
    assert json.loads(forms.as_json(one))["index"] == 7


def test_every_line_of_the_table_is_a_kind() -> None:
    assert set(KINDS) <= set(one.__struct_config__.tag for one in DRAFTS)
    assert set(ocsf.CLASSES) == {one.family for one in KINDS.values()}


def cef_parsed(text: str) -> tuple[list[str], dict[str, str]]:
    """A parser of our own for CEF, by its specification and not by the encoder."""
    head: list[str] = []
    at, part = 0, ""
    while len(head) < 7:
        letter = text[at]
        if letter == "\\":
            part += text[at + 1]
            at += 1
        elif letter == "|":
            head.append(part)
            part = ""
        else:
            part += letter
        at += 1
    found: dict[str, str] = {}
    pieces = list(re.finditer(r"(?:^| )([A-Za-z0-9]+)=", re.sub(r"\\.", "__", text[at:])))
    for one, following in zip(pieces, [*pieces[1:], None], strict=True):
        raw = text[at + one.end() : at + (following.start() if following else len(text) - at)]
        found[one[1]] = re.sub(r"\\(.)", lambda m: {"n": "\n", "r": "\r"}.get(m[1], m[1]), raw)
    return head, found


SYSLOG = re.compile(
    rb"<(\d{1,3})>1 (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z) ([!-~]{1,255}) cofferdam - ([!-~]{1,32}) "
    rb'\[cofferdam@32473 index="(\d+)" kind="((?:[^"\\\]]|\\["\\\]])*)" maker="((?:[^"\\\]]|\\["\\\]])*)"\] (.*)',
    re.DOTALL,
)


@given(st.text(max_size=300))
def test_words_of_strangers_stay_in_their_place(text: str) -> None:
    """Whatever stands in an entry: each form is parsed back to the same."""
    text = text.encode("utf-8", "replace").decode()
    one = entry_of(GateStopped(reason=text), site=text[:40] or "s")
    match = SYSLOG.fullmatch(syslog(one, FORMS["json"]))
    assert match is not None
    assert json.loads(match[8])["event"]["reason"] == text
    _, extension = cef_parsed(forms.as_cef(one).decode())
    assert extension["dvchost"] == (text[:40] or "s")
    for form in (forms.as_ocsf, forms.as_ecs):
        made = form(one)
        assert b"\n" not in made
        assert json.loads(made)
    assert json.loads(forms.as_ocsf(one))["unmapped"]["event"]["reason"] == text
    assert framed(b"xyz") == b"3 xyz"


def test_the_largest_entry() -> None:
    from cofferdam.audit.events.evidence import SIGNATURE, STATEMENT, AttestationMade

    big = AttestationMade(check="c", person="p", statement=NASTY * (STATEMENT // len(NASTY)), signature="s" * SIGNATURE,
                          until_ns=1)  # fmt: skip
    one = entry_of(big)
    for form in FORMS.values():
        assert form(one)
    assert json.loads(SYSLOG.fullmatch(syslog(one, FORMS["json"]))[8])["event"]["statement"] == big.statement  # type: ignore[index]


# --- settings ---------------------------------------------------------------------------------------------------


HEAD = """\
site: riverside
zones: {enterprise: {side: it}, control: {side: ot}}
audit:
  collectors:
"""


def test_the_policy_names_collectors(tmp_path: Path, certificates: Certificates) -> None:
    path = tmp_path / "policy.yaml"
    shutil.copy(certificates.ca, tmp_path / "soc-ca.pem")
    path.write_text(
        f"{HEAD}"
        "    soc: {to: 'tls://10.1.0.50', authority: soc-ca.pem, name: soc.example, form: ocsf, kinds: alarm,\n"
        "          enterprise: 4711}\n"
        "    lake: {to: 'https://[fd00::1]:8443/in', authority: soc-ca.pem, header: Authorization}\n"
        "    here: {to: 'udp://127.0.0.1'}\n"
        "    disk: {to: folder}\n"
    )
    found = {one.name: one for one in compile_policy(load(path), now_ns=0).audit.collectors}
    assert {name: one.where for name, one in found.items()} == {
        "soc": "tls://10.1.0.50:6514", "lake": "https://[fd00::1]:8443/in", "here": "udp://127.0.0.1:514",
        "disk": "folder export-disk",
    }  # fmt: skip
    assert (found["soc"].enterprise, found["soc"].kinds, found["soc"].host) == (4711, ("alarm",), "soc.example")
    assert found["soc"].authority == certificates.ca.read_bytes()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("soc: {to: 'udp://10.0.0.1:514'}", "loopback"), ("soc: {to: 'smtp://x'}", "no names are resolved"),
        ("soc: {to: 'tls://[::ffff:10.1.0.50]'}", "10.1.0.50, which"), ("soc: {to: 'tls://0.0.0.0'}", "of one machine"),
        ("soc: {to: 'tls://[fe80::1%eth0]'}", "no interface"), ("soc: {to: 'tls://224.0.0.1'}", "of one machine"),
        ("soc: {to: 'tls://soc.example'}", "no names are resolved"), ("soc: {to: 'tls://u:p@10.0.0.1'}", "an address"),
        ("soc: {to: 'tls://10.0.0.1/x'}", "an address"), ("soc: {to: 'file:///x'}", "folder"),
        ("soc: {to: 'tls://10.0.0.1'}", "authority: FILE"), ("soc: {}", "without to"), ("soc: 7", "a map"),
        ("Soc: {to: folder}", "small letters"), ("soc: {to: folder, form: cfe}", "cef"),
        ("soc: {to: folder, kinds: [allarm]}", "did you mean alarm"), ("soc: {to: folder, name: a.b}", "tls or https"),
        ("soc: {to: 'tls://10.0.0.1:99999'}", "an address"), ("soc: {to: folder, enterprise: many}", "a whole number"),
        ("soc: {tu: folder}", "the field"), ("soc: {to: 'udp://127.0.0.1', header: X-Y}", "one with https"),
        ("soc: {to: 'https://10.0.0.1', authority: gone.pem, header: Host}", "carries a token"),
        ("soc: {to: 'tls://10.0.0.1', authority: policy.yaml}", "no certificate"),
        ("soc: {to: 'tls://10.0.0.1', authority: /etc/x.pem}", "beside the policy"),
        ("\n".join(f"    c{n}: {{to: folder}}" for n in range(9)).strip(), "at most 8"),
    ],
)  # fmt: skip
def test_collectors_that_are_wrong(tmp_path: Path, body: str, words: str) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(f"{HEAD}    {body}\n")
    with pytest.raises(PolicyError) as raised:
        load(path)
    assert words in "\n".join(map(str, raised.value.problems))


def test_secrets_are_for_collectors_of_the_policy(tmp_path: Path, certificates: Certificates) -> None:
    """A name that the policy does not have, and a kind that its way has no use for, are refused; nothing is kept."""
    path, state, token = tmp_path / "policy.yaml", tmp_path / "state", tmp_path / "token"
    shutil.copy(certificates.ca, tmp_path / "ca.pem")
    token.write_text("Bearer 0123")
    path.write_text(
        f"{HEAD}    soc: {{to: 'tls://10.1.0.50', authority: ca.pem}}\n"
        "    lake: {to: 'https://10.1.0.51', authority: ca.pem, header: Authorization}\n"
        "    plain: {to: 'https://10.1.0.52', authority: ca.pem}\n    disk: {to: folder}\n"
    )
    pair = ("--certificate", certificates.cert, "--key", certificates.key)

    def secret(name: str, *words: str | Path) -> tuple[int, str]:
        code, _, said = cli("export", "secret", name, *words, "--policy", path, "--state", state)
        return code, said

    for name, words, why in (
        ("lakee", ("--token", token), "did you mean lake?"), ("../x", ("--token", token), "no collector"),
        ("soc", ("--token", token), "goes to a collector of https"), ("plain", ("--token", token), "header: Author"),
        ("disk", pair, "looks at no certificate"), ("soc", ("--key", certificates.key), "alone"),
        ("soc", (), "nothing to keep"), ("lake", ("--token", tmp_path / "none"), "cannot be read"),
        ("soc", ("--certificate", certificates.cert, "--key", certificates.other_key), "key"),
    ):  # fmt: skip
        code, said = secret(name, *words)
        assert code == 2 and why in said, (name, words, said)
    assert not (state / "secrets").exists()
    state.mkdir()
    assert secret("lake", "--token", token) == (0, "") and secret("soc", *pair) == (0, "")
    assert {one.name for one in load_secrets(state, "export", "soc", SECRETS)} == {"certificate", "key"}
    assert [one.value for one in load_secrets(state, "export", "lake", SECRETS)] == [b"Bearer 0123"]


# --- ways -------------------------------------------------------------------------------------------------------


class Certificates:
    """A CA, a certificate for 127.0.0.1 and soc.example by it, and one by nobody."""

    def __init__(self, folder: Path) -> None:
        self.ca, self.cert, self.key = folder / "ca.pem", folder / "cert.pem", folder / "key.pem"
        self.other, self.other_key = folder / "other.pem", folder / "other.key"
        ca_key = ec.generate_private_key(ec.SECP256R1())
        self._write(self.ca, None, ca_key, ca_key, "ca", ca=True)
        self._write(self.cert, self.key, ec.generate_private_key(ec.SECP256R1()), ca_key, "soc.example")
        stranger = ec.generate_private_key(ec.SECP256R1())
        self._write(self.other, self.other_key, stranger, stranger, "soc.example")

    @staticmethod
    def _write(path: Path, key_path: Path | None, key: Any, signer: Any, name: str, *, ca: bool = False) -> None:
        now = datetime.datetime.now(datetime.UTC)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name if signer is key else "ca")])
        import ipaddress

        made = (
            x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
            .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=2))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([
                x509.DNSName("soc.example"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
            .sign(signer, hashes.SHA256())
        )  # fmt: skip
        path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        if key_path is not None:
            key_path.write_bytes(
                key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, PLAIN)
            )


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    made = Ledger(tmp_path / "state")
    made.begin()
    yield made
    with contextlib.suppress(Exception):
        made.close()


def sending(
    ledger: Ledger,
    to: Collector,
    said: list[Stood],
    secrets: ways.Secrets = ways.NO_SECRETS,
    folder: Path | None = None,
) -> Sending:
    kept = ledger.state / "cursors"
    kept.mkdir(exist_ok=True)
    key = log_key(ledger.state)
    made = ways.way(to, secrets, folder)
    return Sending(made, LogReader(ledger.state / "audit", key), Cursor(kept, to.name, key.text), said.append)


def many(ledger: Ledger, count: int) -> None:
    ledger.say(*(Alarm(name=f"a-{number}", detail=NASTY) for number in range(count)))


def full(_: int) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_file_and_a_cursor(ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / ways.FILE
    to = Collector("disk", "folder", "", 0, "")
    said: list[Stood] = []
    many(ledger, 1200)
    one = sending(ledger, to, said, folder=tmp_path)
    while one.turn() == 0.0:
        pass
    many(ledger, 3)
    again = sending(ledger, to, said, folder=tmp_path)  # as after a restart
    assert again.at == one.cursor.next == ledger.log.size - 3
    again.turn()
    lines = path.read_text().split("\n")[:-1]
    assert [json.loads(line)["index"] for line in lines] == list(range(ledger.log.size))
    assert said[-1].working

    # The disk is full, or somebody of the site's put something else there: an alarm's words, and nothing is left out
    # afterwards, nor written where it leads.
    many(ledger, 2)
    monkeypatch.setattr(os, "fsync", full)
    assert again.turn() > 0
    assert "No space left" in said[-1].detail
    monkeypatch.undo()
    for what in ("link", "pipe", "folder"):
        path.unlink(missing_ok=True)
        if what == "link":
            path.symlink_to(tmp_path / "elsewhere")
        elif what == "pipe":
            os.mkfifo(path)
        else:
            path.mkdir()
        assert again.turn() > 0
        assert "cannot be written" in said[-1].detail
    assert not (tmp_path / "elsewhere").exists()
    path.rmdir()
    again.turn()
    last = [json.loads(line)["index"] for line in path.read_text().split("\n")[:-1]]
    assert last == [ledger.log.size - 2, ledger.log.size - 1]


def test_a_log_that_stands_still_is_not_read_again(ledger: Ledger, tmp_path: Path) -> None:
    """A look at times, and no more; what is written then is sent at once."""
    many(ledger, 3)
    one = sending(ledger, Collector("disk", "folder", "", 0, ""), [], folder=tmp_path)
    path, reads = tmp_path / ways.FILE, [0]
    entries = one.reader.entries

    def counted(start: int = 0) -> Iterator[tuple[int, bytes]]:
        reads[0] += 1
        return entries(start)

    one.reader.entries = counted  # type: ignore[method-assign]
    eventually(lambda: (one.turn(), bool(one._mark))[1])
    assert one.cursor.next == ledger.log.size
    before = reads[0]
    for _ in range(20):
        one.turn()
    assert reads[0] == before
    for size in range(1, 6):
        many(ledger, 1)
        one.turn()
        assert len(path.read_bytes().splitlines()) == ledger.log.size
        assert reads[0] >= before + size


def test_kinds_and_a_cursor_that_is_damaged_or_of_another_log(ledger: Ledger, tmp_path: Path) -> None:
    path = tmp_path / ways.FILE
    to = Collector("disk", "folder", "", 0, "", kinds=("alarm",))
    many(ledger, 2)
    one = sending(ledger, to, [], folder=tmp_path)
    one.turn()
    assert [json.loads(line)["event"]["kind"] for line in path.read_text().split("\n")[:-1]] == ["alarm", "alarm"]
    assert one.cursor.next == ledger.log.size
    kept = ledger.state / "cursors" / "disk.json"
    for text in ("", "{}", '{"log": "other", "next": 5}', '{"log": 1, "next": "x"}'):
        kept.write_text(text)
        assert sending(ledger, to, [], folder=tmp_path).at == 0


class Peer:
    """A TLS server that keeps what it gets; `how` makes it misbehave."""

    def __init__(self, certificates: Certificates, how: str = "", port: int = 0) -> None:
        self.got = b""
        self.how = how
        self.connections = 0
        secured = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        stranger = how == "stranger"
        secured.load_cert_chain(
            certificates.other if stranger else certificates.cert,
            certificates.other_key if stranger else certificates.key,
        )
        self._secured = secured
        self._listener = socket.create_server(("127.0.0.1", port or held_port()))
        if how in ("slow", "mute"):
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.talks = threading.Event()
        """For "slow" and "mute": from then on it reads like any other."""
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            with contextlib.suppress(OSError, ssl.SSLError):
                self._one(plain)

    def _one(self, plain: socket.socket) -> None:
        if self.how == "plain":
            plain.sendall(b"220 hello\r\n")
            plain.close()
            return
        with self._secured.wrap_socket(plain, server_side=True) as secured:
            if self.how == "cuts" and self.connections == 1:
                self.got += secured.recv(700)
                secured.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                return
            if self.how == "mute":
                self.talks.wait(PATIENT)
            while data := secured.recv(2048 if self.how == "slow" else 65536):
                self.got += data
                if self.how == "slow":
                    self.talks.wait(0.01)

    def messages(self) -> list[int]:
        """Indexes of the whole messages, in order of arrival. What was cut off by a broken connection is left out."""
        return [int(one) for one in re.findall(WHOLE, self.got)]

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread, which would take one more connection
        self._listener.close()


def to_peer(peer: Peer, certificates: Certificates) -> Collector:
    return Collector(
        "soc", "tls", "127.0.0.1", peer.port, "", authority=certificates.ca.read_bytes(), host="soc.example"
    )


@pytest.mark.parametrize(
    ("how", "words"), [("stranger", "certificate verify failed"), ("plain", "no TLS"), ("nobody", "does not answer")]
)
def test_collectors_that_are_not_who_they_should_be(
    ledger: Ledger, certificates: Certificates, how: str, words: str
) -> None:
    peer = Peer(certificates, how)
    if how == "nobody":
        peer.port = held_port()
    said: list[Stood] = []
    one = sending(ledger, to_peer(peer, certificates), said)
    first, second = one.turn(), one.turn()
    assert 0 < first < second
    assert words in said[0].detail
    assert not said[0].working
    assert peer.got == b""
    assert one.cursor.next == 0
    for authority, secrets in ((b"no PEM", ways.NO_SECRETS), (certificates.ca.read_bytes(), ways.Secrets(b"x", b"y"))):
        wrong = Collector("soc", "tls", "127.0.0.1", peer.port, "", authority=authority)
        with pytest.raises(ways.WayError, match="certificate"):
            ways.way(wrong, secrets)
    one.way.close()
    peer.close()


def test_a_connection_cut_in_the_middle(
    ledger: Ledger, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ways, "SETTLE_SECONDS", 0.05)
    peer = Peer(certificates, "cuts")
    many(ledger, 1500)
    said: list[Stood] = []
    one = sending(ledger, to_peer(peer, certificates), said)

    def done() -> bool:
        one.turn()
        return one.cursor.next == ledger.log.size

    eventually(done)
    one.way.close()
    eventually(lambda: set(peer.messages()) == set(range(ledger.log.size)))
    order = list(dict.fromkeys(peer.messages()))
    assert order == sorted(order)  # nothing is left out; what came twice, came twice in order
    assert [stood.working for stood in said].count(False) >= 1
    peer.close()


def test_slow_is_only_slow(ledger: Ledger, certificates: Certificates, monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes a little all the time keeps its connection for longer than one that takes nothing at all. The time is
    the test's: it goes on by most of what a black hole has whenever something was taken, however long that was."""
    monkeypatch.setattr(ways, "SETTLE_SECONDS", 0.05)
    went = [0.0]
    monkeypatch.setattr(ways, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + went[0]))
    peer = Peer(certificates, "slow")
    many(ledger, 600)
    said: list[Stood] = []
    one = sending(ledger, to_peer(peer, certificates), said)
    way = one.way
    assert isinstance(way, ways.Syslog)

    def done() -> bool:
        before = way._waiting
        one.turn()
        if way._waiting < before:
            went[0] += 0.5 * ways.STALL_SECONDS
        if went[0] > 3 * ways.STALL_SECONDS:
            peer.talks.set()  # that was slow for long enough
        return one.cursor.next == ledger.log.size

    eventually(done)
    one.way.close()
    eventually(lambda: set(peer.messages()) == set(range(ledger.log.size)))
    assert went[0] > 3 * ways.STALL_SECONDS
    assert peer.connections == 1
    assert all(stood.working for stood in said)
    peer.close()


def test_a_black_hole_is_an_alarm(ledger: Ledger, certificates: Certificates, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ways, "SETTLE_SECONDS", 0.05)
    monkeypatch.setattr(ways, "STALL_SECONDS", 0.5)
    peer = Peer(certificates, "mute")
    many(ledger, 600)
    said: list[Stood] = []
    one = sending(ledger, to_peer(peer, certificates), said)

    def done() -> bool:
        one.turn()
        if any(not stood.working for stood in said):
            peer.how = ""
            peer.talks.set()
        return one.cursor.next == ledger.log.size

    eventually(done)
    one.way.close()
    eventually(lambda: set(peer.messages()) == set(range(ledger.log.size)))
    assert any("nothing" in stood.detail or "broke" in stood.detail for stood in said)
    peer.talks.set()
    peer.close()


def test_a_collector_that_is_away_for_long_costs_nothing_but_delay(
    ledger: Ledger, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ways, "SETTLE_SECONDS", 0.05)
    peer = Peer(certificates)
    port = peer.port
    peer.close()
    one = sending(ledger, to_peer(peer, certificates), [])
    for _ in range(5):
        many(ledger, 300)
        assert one.turn() > 0
    back = Peer(certificates, port=port)

    def done() -> bool:
        one.turn()
        return one.cursor.next == ledger.log.size

    eventually(done)
    one.way.close()
    eventually(lambda: back.messages() == list(range(ledger.log.size)))
    back.close()


class Ingest(http.server.BaseHTTPRequestHandler):
    """An HTTP server that takes batches; fails twice at first."""

    protocol_version = "HTTP/1.1"
    got: list[Any] = []
    left = 2

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        cls = type(self)
        if cls.left:
            cls.left -= 1
            self.send_response(503)
        else:
            cls.got.append((self.headers["Authorization"], self.path, body))
            self.send_response(204)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


def test_https(ledger: Ledger, certificates: Certificates) -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Ingest)
    secured = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    secured.load_cert_chain(certificates.cert, certificates.key)
    server.socket = secured.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    to = Collector("lake", "https", "127.0.0.1", server.server_address[1], "/in", form="ecs",
                   authority=certificates.ca.read_bytes(), header="Authorization")  # fmt: skip
    many(ledger, 900)
    said: list[Stood] = []
    for token, words in ((b"", "no token"), (b"a\nb", "one line"), (b"\xff", "one line")):
        with pytest.raises(ways.WayError, match=words):
            ways.way(to, ways.Secrets(token=token))
    one = sending(ledger, to, said, ways.Secrets(token=b"Bearer x\n"))
    assert one.turn() > 0
    assert one.turn() > 0
    assert "503" in said[0].detail
    while one.turn() == 0.0:
        pass
    lines = [json.loads(line) for _, _, body in Ingest.got for line in body.decode().split("\n")[:-1]]
    assert [line["event"]["sequence"] for line in lines] == list(range(ledger.log.size))
    assert {(who, where) for who, where, _ in Ingest.got} == {("Bearer x", "/in")}
    one.way.close()
    server.shutdown()
    server.server_close()


# --- a real rsyslog ---------------------------------------------------------------------------------------------

RSYSLOG = """\
module(load="imtcp")
global(workDirectory="{folder}" maxMessageSize="128k" defaultNetstreamDriverCAFile="{ca}"
  defaultNetstreamDriverCertFile="{cert}" defaultNetstreamDriverKeyFile="{key}")
template(name="parts" type="list") {{
  property(name="hostname") constant(value=" ") property(name="msgid") constant(value=" ")
  property(name="structured-data") constant(value=" ") property(name="rawmsg-after-pri") constant(value="\\n")
}}
template(name="message" type="list") {{ property(name="msg") constant(value="\\n") }}
input(type="imtcp" port="{port}" address="127.0.0.1" streamDriver.Name="gtls" streamDriver.Mode="1"
  streamDriver.AuthMode="anon")
action(type="omfile" file="{folder}/parts" template="parts")
action(type="omfile" file="{folder}/messages" template="message")
"""
GTLS = list(Path("/usr/lib").glob("*/rsyslog/lmnsd_gtls.so"))


@contextlib.contextmanager
def rsyslog(folder: Path, certificates: Certificates, port: int) -> Iterator[subprocess.Popen[bytes]]:
    config = folder / "rsyslog.conf"
    config.write_text(
        RSYSLOG.format(folder=folder, ca=certificates.ca, cert=certificates.cert, key=certificates.key, port=port)
    )
    command = ["rsyslogd", "-n", "-f", str(config), "-i", str(folder / "pid")]
    with (folder / "said").open("wb") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said)
    try:

        def answers() -> bool:
            assert process.poll() is None, (folder / "said").read_text()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), PATIENT):
                return True
            return False

        eventually(answers)
        yield process
    finally:
        process.terminate()
        process.wait(PATIENT)


@pytest.mark.skipif(shutil.which("rsyslogd") is None or not GTLS, reason="no rsyslog with gtls (rsyslog-gnutls)")
def test_a_real_rsyslog(
    ledger: Ledger, certificates: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ways, "SETTLE_SECONDS", 0.2)
    port = held_port()
    many(ledger, 1000)
    to = Collector("soc", "tls", "127.0.0.1", port, "", authority=certificates.ca.read_bytes(), host="soc.example")
    one = sending(ledger, to, [])

    def done() -> bool:
        one.turn()
        return one.cursor.next == ledger.log.size

    def whole() -> bool:
        return len((tmp_path / "messages").read_text().split("\n")) > ledger.log.size

    with rsyslog(tmp_path, certificates, port):
        eventually(done)
        eventually(whole)  # what has come to its socket is lost with it
    many(ledger, 700)
    one.turn()
    with rsyslog(tmp_path, certificates, port):  # it was away, and is back
        eventually(done)
        one.way.close()
        eventually(whole)
    messages = [json.loads(line) for line in (tmp_path / "messages").read_text().split("\n")[:-1]]
    indexes = [message["index"] for message in messages]
    assert list(dict.fromkeys(indexes)) == list(range(ledger.log.size))
    assert messages[-1]["event"]["detail"] == NASTY
    parts = (tmp_path / "parts").read_text().split("\n")
    last = next(line for line in parts if f'index="{ledger.log.size - 1}"' in line)
    assert last.startswith(f'riverside alarm [cofferdam@32473 index="{ledger.log.size - 1}" kind="alarm" maker="gate"]')
