"""What somebody says who owns the gate, a collector, the folder of a witness, or a name on a screen: nothing turns good
by it, nothing is passed over, and nobody's terminal, memory or file is theirs."""

from __future__ import annotations

import base64
import json
import os
import resource
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from cofferdam.audit.events.evidence import (
    AttestationMade,
    AttestationWithdrawn,
    BaselineTaken,
    CheckDone,
    DrillDone,
    ExportStood,
    SignerAdded,
    SignerRemoved,
)
from cofferdam.audit.events.gate import HalfDied
from cofferdam.audit.events.proof import ProofDone
from cofferdam.audit.files import LogReader
from cofferdam.audit.keys import write_beside
from cofferdam.cli import console
from cofferdam.crossing.framing import pack
from cofferdam.crossing.pipe import make_pipe
from cofferdam.crossing.reactor import Reactor
from cofferdam.enforce.overlay.records import NamesStatus
from cofferdam.errors import CofferdamError, CrossingError, GateError, PolicyError
from cofferdam.evidence import attest, gather, history, reports, sshsig, witness
from cofferdam.evidence import pack as pack_room
from cofferdam.evidence.catalogue import OWN, catalogue, with_own
from cofferdam.evidence.checks.logs import witnessed
from cofferdam.evidence.checks.tables import CHECKS, run_checks
from cofferdam.evidence.export.records import FROM_EXPORT, Standing
from cofferdam.evidence.export.sending import Cursor
from cofferdam.evidence.inputs import Inputs
from cofferdam.evidence.pack import make
from cofferdam.evidence.witness_records import Alive
from cofferdam.evidence.workbench import Bench
from cofferdam.gate import client
from cofferdam.gate.crew.hearing import RECORDS_AT_ONCE, Bounded
from cofferdam.gate.overlay.names import NameServer
from cofferdam.gate.state import control_socket
from cofferdam.gate.watch.exports import ExportPart
from cofferdam.gate.watch.witness import WitnessPart
from cofferdam.policy.rows import Collector
from tests.evidence.ledger import SITE, Ledger, make_key, signature, statement
from tests.evidence.test_export import Certificates, many, sending
from tests.evidence.test_pack import tool
from tests.steps import steps
from tests.verbs import cli
from tests.waiting import eventually

ESC = "\x1b]0;mine\x07\x1b[2J\u202e"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"
CHECK = "proof.nothing-forwarded"
MANY = 2_000_000
"""Steps: a thousand attestations by a thousand keys are a million looks, of many steps each."""


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    made = Ledger(tmp_path / "state")
    made.begin()
    yield made
    made.close()


def stands(ledger: Ledger, check: str) -> Any:
    ledger.log.publish()
    bench = Bench.read(ledger.state, None)
    bench.wall_ns = ledger.now
    return bench.standing().checks[check]


def verdict(ledger: Ledger, capsys: pytest.CaptureFixture[str], data: bytes) -> tuple[int, str]:
    path = ledger.state.parent / "pack.zip"
    path.write_bytes(data)
    capsys.readouterr()
    code = tool.main([str(path), "--key", str(ledger.state / "keys/audit.pub")])
    said = capsys.readouterr()
    return code, said.out + said.err


def packed(ledger: Ledger) -> bytes:
    ledger.log.publish()
    return make(ledger.state, lambda bench: bench.catalogue.frameworks["iec62443-3-3"]).data


# --- an owned gate ----------------------------------------------------------------------------------------------


def test_a_proof_that_the_gate_keeps_to_itself(ledger: Ledger) -> None:
    """Root has its report."""
    ledger.prove()
    bench = Bench.read(ledger.state, None)
    assert not any("knows nothing" in line for line in bench.lately())
    path = gather.keep_report(ledger.state, "{}", "c" * 64)
    os.utime(path, ns=(ledger.now + 1, ledger.now + 1))
    [one] = [path for path in path.parent.iterdir() if path.stem != "c" * 64]
    os.utime(one, ns=(ledger.now, ledger.now))
    assert any(f"knows nothing: cofferdam prove --verify {path}" in line for line in bench.lately())
    os.utime(path, ns=(bench.history.first_ns - 1, bench.history.first_ns - 1))
    os.utime(one, ns=(bench.history.first_ns - 2, bench.history.first_ns - 2))
    assert not any("knows nothing" in line for line in bench.lately())


def test_a_proof_that_nobody_made(ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    """The gate can write any entry. What a proof establishes counts with a report that is signed with the log's key."""
    ledger.found(CHECK, "proved")
    ledger.say(ProofDone(report="b" * 64, result="proved"))
    found = stands(ledger, CHECK)
    assert found.status == "not covered" and "nothing signed does" in found.says
    assert any("the gate's word alone" in line for line in Bench.read(ledger.state, None).lately())

    ledger.prove()
    assert stands(ledger, CHECK).status == "proved"
    assert not any("word alone" in line for line in Bench.read(ledger.state, None).lately())
    code, said = verdict(ledger, capsys, packed(ledger))
    assert code == 0 and f"missing, as it says itself: proofs/{'b' * 64}.json" in said
    ledger.day(0.5)
    ledger.found(CHECK, "proved")  # the report of then, for a claim of today
    assert "nothing signed does" in stands(ledger, CHECK).says
    ledger.prove(failed=True)
    assert "the report says failed of it" in stands(ledger, CHECK).says
    # A person may sign for what nothing signed shows.
    key = make_key(ledger.state.parent)
    ledger.say(SignerAdded(person="Ada Berg", key=sshsig.key_line(Path(f"{key}.pub").read_text()), role="owner"))
    said, until = statement(ledger, CHECK)
    ledger.say(AttestationMade(check=CHECK, person="Ada Berg", statement=said, until_ns=until,
                               signature=signature(key, said)))  # fmt: skip
    assert stands(ledger, CHECK).status == "attested"


def test_a_report_that_was_changed_or_is_of_another_key(ledger: Ledger) -> None:
    ledger.found(CHECK, "proved")
    digest = ledger.prove()
    path = gather.folder(ledger.state, gather.PROOFS) / f"{digest}.json"
    whole = path.read_bytes()
    for change in (
        lambda data: data.replace(b"nothing is forwarded", b"nothing is forwardeD"), lambda data: b"{}",
        lambda data: data.replace(POLICY_A, POLICY_B),
    ):  # fmt: skip
        path.write_bytes(change(whole))
        assert stands(ledger, CHECK).status == "not covered"
    path.unlink()
    assert stands(ledger, CHECK).status == "not covered"
    path.write_bytes(whole)
    assert stands(ledger, CHECK).status == "proved"


POLICY_A, POLICY_B = b"a" * 64, b"b" * 64


def test_the_verifier_asks_for_the_report(ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    """Somebody with the log's key shows as proved what an entry says, and no report."""
    from tests.evidence.test_pack import Made

    made = Made.__new__(Made)
    index = ledger.found(CHECK, "proved")
    ledger.found("log.whole", "tested")
    data = packed(ledger)
    assert verdict(ledger, capsys, data)[0] == 0
    with zipfile.ZipFile(BytesIO(data)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    results = json.loads(files["results.json"])
    results["now"][CHECK].update(status="proved", index=index, says=f"{CHECK}: said so", facts=[])
    files["results.json"] = json.dumps(results).encode()
    from cofferdam.audit.checkpoint import SignerKey

    made.key = SignerKey.parse((ledger.state / "keys/audit.key").read_text())
    out = BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, one in made.signed_anew(files).items():
            archive.writestr(name, one)
    code, said = verdict(ledger, capsys, out.getvalue())
    assert code == 1
    assert "and no report signed with the log's key is of that proof" in said


def test_what_was_withdrawn_stays_so(ledger: Ledger, tmp_path: Path) -> None:
    """Thousands of withdrawals of nothing push none out that is good."""
    key = make_key(tmp_path)
    ledger.say(SignerAdded(person="Ada Berg", key=sshsig.key_line(Path(f"{key}.pub").read_text()), role="owner"))
    said, until = statement(ledger, "paper.training")
    index = ledger.say(AttestationMade(check="paper.training", person="Ada Berg", statement=said, until_ns=until,
                                       signature=signature(key, said)))  # fmt: skip
    assert stands(ledger, "paper.training").status == "attested"
    text = attest.withdrawal(site=SITE, attestation=index, text="", person="Ada Berg", made_ns=ledger.now)
    ledger.say(AttestationWithdrawn(attestation=index, person="Ada Berg", statement=text,
                                    signature=signature(key, text)))  # fmt: skip
    ledger.say(*(AttestationWithdrawn(attestation=0, person="x", statement="", signature="") for _ in range(4100)))
    assert stands(ledger, "paper.training").status == "not covered"


def test_nothing_is_taken_back_before_it_is_there(
    ledger: Ledger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever may sign for a day could take back whatever others would sign for years."""
    key = make_key(tmp_path)
    ledger.say(SignerAdded(person="Ada Berg", key=sshsig.key_line(Path(f"{key}.pub").read_text()), role="owner"))
    ahead = ledger.log.size + 1
    text = attest.withdrawal(site=SITE, attestation=ahead, text="", person="Ada Berg", made_ns=ledger.now)
    ledger.say(AttestationWithdrawn(attestation=ahead, person="Ada Berg", statement=text,
                                    signature=signature(key, text)))  # fmt: skip
    said, until = statement(ledger, "paper.training")
    made = AttestationMade(check="paper.training", person="Ada Berg", statement=said, until_ns=until,
                           signature=signature(key, said))  # fmt: skip
    assert ledger.say(made) == ahead
    assert stands(ledger, "paper.training").status == "attested"
    assert verdict(ledger, capsys, packed(ledger))[0] == 0


ARMOUR = "-----BEGIN SSH SIGNATURE-----\nAAAA\n-----END SSH SIGNATURE-----\n"


@pytest.mark.parametrize("key", ["k", "ssh-ed25519 AAA", KEY])
@pytest.mark.parametrize("text", ["[" * 4000, "{", "7", '{"person": "\\ud800"}', ""])
def test_statements_and_keys_that_are_none_stop_nothing(
    ledger: Ledger, tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str, text: str
) -> None:
    """One such entry, and what root does each night, each report and each pack would end in a traceback for ever."""
    mine = make_key(tmp_path)
    ledger.say(SignerAdded(person="Ada Berg", key=sshsig.key_line(Path(f"{mine}.pub").read_text())))
    said, until = statement(ledger, "paper.training")
    good = ledger.say(AttestationMade(check="paper.training", person="Ada Berg", statement=said, until_ns=until,
                                      signature=signature(mine, said)))  # fmt: skip
    for signed in (statement(ledger, "paper.plan")[0], text):
        ledger.say(
            SignerAdded(person="Eve", key=key),
            AttestationMade(check="paper.plan", person="Eve", statement=signed, signature=ARMOUR, until_ns=until),
            AttestationWithdrawn(attestation=good, person="Eve", statement=text, signature=ARMOUR),
            BaselineTaken(baseline="a" * 64, approved=True, person="Eve", statement=signed, signature=ARMOUR),
        )
    assert stands(ledger, "paper.training").status == "attested"
    bench = Bench.read(ledger.state, None)
    assert all(one.trouble for one in attest.approvals(bench.history))
    assert [bool(one.trouble) for one in bench.attestations] == [False, True, True]
    bench.run(list(CHECKS), verify=False)
    code, told = verdict(ledger, capsys, packed(ledger))
    assert (code, f"attestation of entry {good}:" in told) == (1, False), told
    assert cli("evidence", "signer", "list", "--state", ledger.state)[0] == 0


def test_keys_without_end_hold_nobody_up(ledger: Ledger, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With a thousand keys and a thousand signatures by none of them each look would take a million verifications."""
    mine = make_key(tmp_path)
    said, until = statement(ledger, "paper.training")
    signed = signature(mine, said)
    pub = sshsig.key_line(Path(f"{mine}.pub").read_text())
    others = [sshsig.key_line(f"ssh-ed25519 {base64.b64encode(blob).decode()}") for blob in (
        b"\0\0\0\x0bssh-ed25519\0\0\0 " + number.to_bytes(32, "big") for number in range(1000))]  # fmt: skip
    ledger.say(*(SignerAdded(person="Ada Berg", key=key) for key in others))
    doc = json.loads(said)
    ledger.say(*(
        AttestationMade(check="paper.training", person="Ada Berg", signature=signed, until_ns=until,
                        statement=attest.canonical(doc | {"text": str(number)})) for number in range(1000)
    ))  # fmt: skip
    found: list[Any] = []
    assert steps(lambda: found.append(stands(ledger, "paper.training"))) < MANY
    assert found[0].says.endswith("a signature by another key")
    ledger.say(SignerAdded(person="Ada Berg", key=pub))
    ledger.say(AttestationMade(check="paper.training", person="Ada Berg", statement=said, signature=signed,
                               until_ns=until))  # fmt: skip
    assert stands(ledger, "paper.training").status == "attested"
    data = packed(ledger)
    verdicts: list[tuple[int, str]] = []
    assert steps(lambda: verdicts.append(verdict(ledger, capsys, data))) < MANY
    ((code, told),) = verdicts
    assert (code, "WRONG: 1000 findings" in told) == (1, True), told[-200:]


def test_what_is_signed_after_a_clock_was_put_right_counts(ledger: Ledger, tmp_path: Path) -> None:
    """The log's own time stays ahead after a jump; a person's signature of today is of today."""
    key = make_key(tmp_path)
    ledger.day(365)
    ledger.say(SignerAdded(person="Ada Berg", key=sshsig.key_line(Path(f"{key}.pub").read_text()), role="owner"))
    said, until = statement(ledger, "paper.training")
    ledger.say(AttestationMade(check="paper.training", person="Ada Berg", statement=said, until_ns=until,
                               signature=signature(key, said)))  # fmt: skip
    ledger.day(1)
    assert stands(ledger, "paper.training").status == "stale"  # of a time that is still to come
    said, until = statement(ledger, "paper.training")
    ledger.say(AttestationMade(check="paper.training", person="Ada Berg", statement=said, until_ns=until,
                               signature=signature(key, said)))  # fmt: skip
    assert stands(ledger, "paper.training").status == "attested"


def test_subjects_without_end_hide_no_failure(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    from cofferdam.evidence import history

    monkeypatch.setattr(history, "MAX_SUBJECTS", 50)
    for number in range(60):
        ledger.found("leak.silent", "tested", subject=f"made-up {number}")
    ledger.found("log.whole", "failed")
    assert stands(ledger, "log.whole").status == "failed"
    assert any("too many subjects" in one for one in gather.history(ledger.state)[1].problems)


def test_checks_without_end_that_nobody_knows_fill_no_memory(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MAX_UNKNOWN", 50)
    made_up = [CheckDone(check=f"made.up-{one}", outcome="tested", says="so", result="a" * 64, valid_seconds=9)
               for one in range(60)]  # fmt: skip
    ledger.say(*made_up)
    ledger.found("log.whole", "failed")
    bench = Bench.read(ledger.state, None)
    assert len(bench.history.results) == 51 and len(bench.standing().unknown) == 50
    assert bench.standing().checks["log.whole"].status == "failed"
    [found], _ = run_checks(Inputs(ledger.now, history=bench.history), ["log.content"])
    assert found.outcome == "failed" and "too many checks that this version does not know" in found.facts[0]


def test_fat_results_without_end_fill_no_memory_and_hide_no_outcome(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each result of 20,000 subjects was held whole, with all that had been before it."""
    monkeypatch.setattr(history, "MAX_RESULT_BYTES", 200_000)
    fat = CheckDone(check="log.whole", outcome="tested", says="s" * 500, facts=("f" * 500,) * 12, result="a" * 64,
                    valid_seconds=9)  # fmt: skip
    ledger.say(*[msgspec.structs.replace(fat, subject=f"made up {one % 40}") for one in range(100)])
    ledger.say(*[fat] * 50)
    middle = ledger.now
    ledger.day(1)
    ledger.found("log.whole", "failed", "of the gate as a whole")
    ledger.found("log.whole", "failed", "of one", subject="made up 39")
    ledger.found("log.writable", "failed", "of another check")
    bench = Bench.read(ledger.state, None)
    assert sum(len(msgspec.json.encode(one)) for found in bench.history.results.values() for one in found) < 300_000
    assert bench.history.results["log.whole", "made up 39"][-1].outcome == "failed"
    assert bench.standing().checks["log.whole"].status == bench.standing().checks["log.writable"].status == "failed"
    assert any("results of log.whole take more" in one for one in bench.history.problems)
    assert bench.then(middle).results["log.whole", ""][-1].outcome == "tested"


def test_withdrawals_without_end_fill_no_memory_and_nothing_counts_by_them(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those of nothing are not kept; a true one that comes after all the others still takes back what it is about."""
    monkeypatch.setattr(history, "MAX_WITHDRAWN", 20)
    key = make_key(tmp_path)
    ledger.say(SignerAdded(person="Ada Berg", key=sshsig.key_line(Path(f"{key}.pub").read_text()), role="owner"))
    there = {}
    for check in ("paper.training", "paper.incident"):
        said, until = statement(ledger, check)
        there[check] = ledger.say(AttestationMade(check=check, person="Ada Berg", statement=said, until_ns=until,
                                                  signature=signature(key, said)))  # fmt: skip
    noise = AttestationWithdrawn(attestation=10**6, person="Eve", statement="no", signature="none")
    ledger.say(*[noise] * 30)
    assert not gather.history(ledger.state)[1].problems
    ledger.say(*[msgspec.structs.replace(noise, attestation=there["paper.incident"])] * 20)
    assert stands(ledger, "paper.training").status == stands(ledger, "paper.incident").status == "attested"
    text = attest.withdrawal(site=SITE, attestation=there["paper.training"], text="", person="Ada Berg",
                             made_ns=ledger.now)  # fmt: skip
    ledger.say(AttestationWithdrawn(attestation=there["paper.training"], person="Ada Berg", statement=text,
                                    signature=signature(key, text)))  # fmt: skip
    assert len(gather.history(ledger.state)[1].of("attestation-withdrawn")) == 20
    assert stands(ledger, "paper.training").status == "failed"
    assert stands(ledger, "paper.incident").status == "attested"
    assert verdict(ledger, capsys, packed(ledger))[0] == 0


def test_signers_come_and_go(ledger: Ledger) -> None:
    """Each removal is of that person's key, of all times that it was let before, and of nobody else's."""
    for person, key in (("a", "k1"), ("a", "k2"), ("b", "k1"), ("a", "k1")):
        ledger.say(SignerAdded(person=person, key=key))
    ended = ledger.say(SignerRemoved(person="a", key="k1"))
    ledger.say(SignerRemoved(person="c", key="k1"), SignerAdded(person="a", key="k1"))
    ledger.log.publish()
    found = gather.history(ledger.state)[1].signers
    assert [(one.person, one.key, one.removed) for one in found] == [
        ("a", "k1", ended), ("a", "k2", -1), ("b", "k1", -1), ("a", "k1", ended), ("a", "k1", -1),
    ]  # fmt: skip


def answering(state: Path, answer: Callable[[socket.socket], None]) -> None:
    """Something at the place of the gate's control socket."""
    state.mkdir(exist_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(control_socket(state)))
    listener.listen()

    def serve() -> None:
        peer, _ = listener.accept()
        with peer, listener:
            peer.recv(65536)
            try:
                answer(peer)
            except OSError:
                pass

    threading.Thread(target=serve, daemon=True).start()


@pytest.mark.parametrize("said", [b"[1", b"7\n", b'{"ok":false}\n', b"[" * 200_000 + b"\n", b"\xff\n"])
def test_an_answer_that_is_none(tmp_path: Path, said: bytes) -> None:
    answering(tmp_path / "s", lambda peer: peer.sendall(said))
    with pytest.raises(GateError, match="is no answer"):
        client.ask(tmp_path / "s", "status")


def test_an_answer_without_end_fills_nobodys_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "ANSWER_BYTES", 1 << 20)
    sent: list[int] = []

    def endless(peer: socket.socket) -> None:
        for _ in range(64):
            sent.append(peer.send(b"x" * (1 << 20)))

    answering(tmp_path / "s", endless)
    with pytest.raises(GateError, match="is no answer"):
        client.ask(tmp_path / "s", "status")
    assert sum(sent) < 8 << 20


def test_a_status_that_is_none(ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    """A gate that says of itself what no gate says: the log alone is looked at, and that is said."""
    from cofferdam.cli.main import main

    ledger.log.publish()
    said = {"ok": True, "result": {"policy": {}, "version": "\x1b[2J"}, "error": "", "hint": "", "problems": []}
    answering(ledger.state, lambda peer: peer.sendall(json.dumps(said).encode() + b"\n"))
    assert main(["evidence", "list", "--state", str(ledger.state)]) == 0
    assert "the log alone is looked at" in (heard := capsys.readouterr()).err and "\x1b" not in heard.err


@pytest.mark.parametrize(("records", "said"), [(RECORDS_AT_ONCE, False), (RECORDS_AT_ONCE + 60, True)])
def test_a_part_of_the_house_that_says_too_much(records: int, said: bool) -> None:
    """It ends before the gate has no turn left for anything else."""
    codec = Bounded(FROM_EXPORT)
    words = codec.encode(Standing(5, 0, True, ""))
    broke = False
    try:
        for _ in range(records):
            codec.decode(words)
    except CrossingError:
        broke = True
    assert broke is said
    with pytest.raises(CrossingError):
        codec.decode_many(words)


@pytest.mark.parametrize("kind", ["export", "witness", "names"])
def test_one_that_floods_the_gate_is_a_violation(kind: str) -> None:
    """By the pipe that it has: the gate reads so much of it and no more, whatever kind it is."""
    reactor = Reactor()
    theirs, ours = make_pipe(), make_pipe()
    wrong: list[str] = []
    born: Any = SimpleNamespace(
        read_fd=theirs[0], write_fd=ours[1], ended=SimpleNamespace(add_done_callback=lambda _: None, done=lambda: False)
    )
    owner: Any = SimpleNamespace(
        name=kind, violation=lambda _, detail: wrong.append(detail), stands=lambda *_: None, heard=lambda *_: None,
        _gate=SimpleNamespace(reactor=reactor), _violation=lambda _, detail: wrong.append(detail),
    )  # fmt: skip
    record: Any
    if kind == "export":
        ExportPart(owner, owner._gate, born)
        record = Standing(5, 0, True, "")
    elif kind == "witness":
        WitnessPart(owner, owner._gate, born)
        record = Alive()
    else:
        NameServer.adopt(owner, born)
        record = NamesStatus(0, 0, 0, 0, 0, 0)
    packets = pack([msgspec.msgpack.encode(record)] * 200)
    for _ in range(40):
        for packet in packets:
            try:
                os.write(theirs[1], packet)
            except BrokenPipeError:
                break
        for _ in range(4):
            reactor.turn(0)
    assert wrong and "things a second" in wrong[0]
    os.close(theirs[1])
    os.close(ours[0])


# --- a hostile collector ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


def collector(certificates: Certificates, script: Callable[[ssl.SSLSocket], None]) -> Collector:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.cert, certificates.key)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listener:
            peer, _ = listener.accept()
            try:
                with context.wrap_socket(peer, server_side=True) as secured:
                    secured.recv(65536)
                    script(secured)
            except OSError:
                pass

    threading.Thread(target=serve, daemon=True).start()
    port = listener.getsockname()[1]
    return Collector("lake", "https", "127.0.0.1", port, "127.0.0.1", authority=certificates.ca.read_bytes())


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", b"x" * 65536),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"a: b\r\n" * 9000),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 2000),
        (b"HTTP/1.1 200 OK\r\n", b"a: b\r\n" * 9000),
    ],
    ids=["a chunk of -1", "a trailer without end", "100 without end", "headers without end"],
)
def test_an_https_answer_without_end(ledger: Ledger, certificates: Certificates, head: bytes, piece: bytes) -> None:
    """So much of it is read and no more, whatever it says of its own length."""
    many(ledger, 3)
    sent: list[int] = []

    def script(peer: ssl.SSLSocket) -> None:
        peer.sendall(head)
        for _ in range(1500):
            peer.sendall(piece)
            sent.append(len(piece))

    said: list[Any] = []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    one = sending(ledger, collector(certificates, script), said)
    one.turn()
    one.way.close()
    assert said[-1].working is False
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 40 << 10
    eventually(lambda: threading.active_count() < 20)
    assert sum(sent) < 60 << 20


def test_the_words_of_a_collector_drive_nobodys_terminal(ledger: Ledger, certificates: Certificates) -> None:
    many(ledger, 3)
    said: list[Any] = []

    def script(peer: ssl.SSLSocket) -> None:
        peer.sendall(b"HTTP/1.1 500 \x1b]0;mine\x07\r\nContent-Length: 0\r\n\r\n")
        while peer.recv(65536):
            pass

    to = collector(certificates, script)
    sending(ledger, to, said).turn()
    assert "answers 500" in said[-1].detail and said[-1].detail.isprintable()


def test_a_log_that_was_put_back_is_sent_again(ledger: Ledger, tmp_path: Path) -> None:
    """The collector has had more than the log has: what is written from there on is not left out, and it is said."""
    path, said = tmp_path / "cofferdam.jsonl", list[Any]()
    to = Collector("disk", "folder", "", 0, "")
    many(ledger, 10)
    ledger.close()
    shutil.copytree(ledger.state, tmp_path / "backup")
    grown = Ledger(ledger.state)
    many(grown, 100)
    one = sending(grown, to, said, folder=tmp_path)
    while one.cursor.next < grown.log.size:
        one.turn()
    cursor = (grown.state / "cursors/disk.json").read_bytes()
    grown.close()
    shutil.rmtree(ledger.state)
    shutil.copytree(tmp_path / "backup", ledger.state)
    (ledger.state / "cursors").mkdir()
    (ledger.state / "cursors/disk.json").write_bytes(cursor)
    path.unlink()
    again = Ledger(ledger.state)
    many(again, 20)
    said.clear()
    two = sending(again, to, said, folder=tmp_path)
    for _ in range(4):
        two.turn()
    assert any(not one.working and "put back" in one.detail for one in said)
    assert [json.loads(line)["index"] for line in path.read_text().split("\n")[:-1]] == list(range(again.log.size))
    again.close()


def test_a_collector_that_takes_a_byte_now_and_then(ledger: Ledger, tmp_path: Path) -> None:
    """It is no broken connection, and no export that works either."""
    many(ledger, 3)
    ledger.log.publish()
    said, now = list[Any](), [1000.0]
    one = sending(ledger, Collector("disk", "folder", "", 0, ""), said, folder=tmp_path)
    one._clock = lambda: now[0]
    one.way.arrived = lambda: 0  # type: ignore[method-assign]
    for wait in (0, 20, 800):
        now[0] += wait
        one.turn()
        assert said[-1].working
    now[0] += 200
    one.turn()
    assert not said[-1].working and "too slowly" in said[-1].detail
    del one.way.arrived
    one.turn()
    now[0] += 20
    one.turn()
    assert said[-1].working


def test_a_witness_of_which_nothing_is_heard(ledger: Ledger) -> None:
    """Another that is well does not speak for it; one that is visited by hand may be quiet."""
    known: dict[str, str] = {}
    head = ledger.head().decode()
    ledger.say(*(ExportStood(collector=f"witness:{name}", next=1, working=True, note=note)
                 for name, note in (("quiet", head), ("well", head), ("stick", ""))))  # fmt: skip
    for day, outcome in ((0.05, "observed"), (0.2, "failed")):
        ledger.day(day)
        ledger.say(ExportStood(collector="witness:well", next=1, working=True, note=head))
        ledger.log.publish()
        history = gather.history(ledger.state)[1]
        found = witnessed(Inputs(ledger.now, history=history))
        assert found.outcome == outcome
        known[outcome] = " ".join(found.facts)
    assert "quiet" in known["failed"] and "well" not in known["failed"] and "stick" not in known["failed"]


@pytest.mark.parametrize("left", [b"{}," * 400_000, b"[" * 900, b'{"log":1}', b"7", b'{"log":"%s","next":true}'])
def test_a_cursor_that_an_owned_export_left(ledger: Ledger, tmp_path: Path, left: bytes) -> None:
    """Root reads it: `export status`."""
    key = gather.log_key(ledger.state).text
    (tmp_path / "soc.json").write_bytes(left.replace(b"%s", key.encode()))
    assert Cursor(tmp_path, "soc", key).next == 0


def test_a_collector_that_breaks_again_and_again_hides_no_witness(
    ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger.found("log.whole", "tested")
    head = ledger.head()
    ledger.say(ExportStood(collector="witness:w1", next=int(head.split(b"\n")[1]), working=True, note=head.decode()))
    ledger.say(*(ExportStood(collector="soc", next=1, working=False, detail=f"{n}") for n in range(4100)))
    ledger.log.publish()
    ledger.say(*(ExportStood(collector="well", next=1, working=True) for _ in range(3)))
    ledger.say(*(ExportStood(collector=f"n{n % 7}", next=1, working=False, detail=f"{n}") for n in range(4100)))
    ledger.log.publish()
    stood = Bench.read(ledger.state, None).history.of("export-stood")
    assert [one.event["collector"] for one in stood].count("well") == 3 and len(stood) < 2000
    assert [one.event["collector"] for one in stood].count("witness:w1") == 1
    assert [one.index for one in stood] == sorted(one.index for one in stood)
    with zipfile.ZipFile(BytesIO(packed(ledger))) as archive:
        assert "witnesses/w1.note" in archive.namelist()


def test_noise_costs_the_noise_and_not_the_pack(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Keys, attestations and whatever else, beyond all that a site has: what was there before goes on counting, a pack
    is made and is good, and says what it has not; a check fails."""
    monkeypatch.setattr(history, "MAX_SIGNED", 30)
    monkeypatch.setattr(pack_room, "MOST_ENTRIES", 100)
    ada = make_key(tmp_path)
    ledger.say(SignerAdded(person="Ada", key=sshsig.key_line(Path(f"{ada}.pub").read_text()), role="owner"))
    said, until = statement(ledger, "paper.training", "Ada")
    hers = AttestationMade(
        check="paper.training", person="Ada", statement=said, until_ns=until, signature=signature(ada, said)
    )
    signed = ledger.say(hers)
    first = ledger.say(*(DrillDone(drill="kill", says=f"{number}") for number in range(90))) - 89
    ledger.say(*(SignerAdded(person=f"p{number}", key=sshsig.key_line(KEY), role="") for number in range(40)))
    monkeypatch.setattr(pack_room, "MOST_CITED", 5)
    ledger.found("log.whole", "tested", " ".join(f"entry {number}" for number in range(first, first + 60)))
    ledger.log.publish()
    bench = Bench.read(ledger.state, None)
    assert len(bench.history.signers) == 30
    [found], _ = run_checks(Inputs(ledger.now, history=bench.history), ["log.content"])
    assert found.outcome == "failed" and "more than 30 keys may sign" in found.facts[0]
    made = make(ledger.state, lambda one: one.catalogue.frameworks["nis2"])
    assert (made.entries, made.left_out > 0) == (100, True)
    with zipfile.ZipFile(BytesIO(made.data)) as archive:
        there = {int(name[8:-5]) for name in archive.namelist() if name.startswith("entries/")}
    assert signed in there
    assert {one for one in range(first, made.below) if one in there} == set(range(first, first + 5))
    code, text = verdict(ledger, capsys, made.data)
    assert code == 0, text
    assert f"left out, as it says itself: {made.left_out} entries of its period, all before entry {made.below}" in text
    assert f"left out, as it says itself: {made.uncited} entries that its report names" in text
    ledger.say(*[msgspec.structs.replace(hers, person=f"p{number}") for number in range(40)])
    ledger.log.publish()
    bench = Bench.read(ledger.state, None)
    assert len(bench.attestations) == 30 and bench.attestations[0].index == signed
    assert bench.standing().checks["paper.training"].status == "attested"


def test_fat_entries_make_no_pack_that_nobody_can_verify(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As many as count, each as large as one may be: a file of the pack would be larger than a verifier takes, and each
    later pack."""
    monkeypatch.setattr(history, "MAX_SIGNED_BYTES", 2 << 20)
    monkeypatch.setattr(pack_room, "MOST_BYTES", 1 << 20)
    monkeypatch.setattr(tool, "MAX_FILE", 4 << 20)
    ada = make_key(tmp_path)
    ledger.say(SignerAdded(person="Ada", key=sshsig.key_line(Path(f"{ada}.pub").read_text())))
    said, until = statement(ledger, "paper.training", "Ada")
    signed = ledger.say(AttestationMade(check="paper.training", person="Ada", statement=said, until_ns=until,
                                        signature=signature(ada, said)))  # fmt: skip
    fat = "\1" * 4096
    hers = AttestationMade(check="paper.plan", person="Eve", statement=fat, signature=fat, until_ns=until)
    ledger.say(*[hers] * 100)
    ledger.say(*[CheckDone(check="log.whole", outcome="tested", says="\1" * 500, facts=("\1" * 500,) * 12,
                           result="a" * 64, valid_seconds=9, subject=f"{one}") for one in range(100)])  # fmt: skip
    bench = Bench.read(ledger.state, None)
    assert bench.attestations[0].index == signed and 20 < len(bench.attestations) < 50
    assert bench.standing().checks["paper.training"].status == "attested"
    [found], _ = run_checks(Inputs(ledger.now, history=bench.history), ["log.content"])
    assert found.outcome == "failed" and "take more than 2,097,152 bytes" in found.facts[0]
    ledger.log.publish()
    made = make(ledger.state, lambda one: one.catalogue.frameworks["nis2"])
    assert 0 < made.left_out < 100
    code, text = verdict(ledger, capsys, made.data)
    assert code == 1 and "attestation of entry" in text.splitlines()[0], text


def test_what_words_name_is_bounded_by_its_bytes(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pack_room, "CITED_BYTES", 30_000)
    last = ledger.say(*[HalfDied(half="modbus/x/inner", pid=7, status=-9, reason="\1" * 500)] * 30)
    ledger.found("log.whole", "tested", " ".join(f"entry {number}" for number in range(last - 29, last + 1)))
    ledger.log.publish()
    made = make(ledger.state, lambda one: one.catalogue.frameworks["nis2"])
    with zipfile.ZipFile(BytesIO(made.data)) as archive:
        there = {int(name[8:-5]) for name in archive.namelist() if name.startswith("entries/")}
    few = there & set(range(last - 29, last + 1))
    assert 5 < len(few) < 10 and made.uncited == 30 - len(few)
    code, text = verdict(ledger, capsys, made.data)
    assert (code, f"as it says itself: {made.uncited} entries that its report names" in text) == (0, True), text


def test_one_key_again_and_again_holds_nobody_up(ledger: Ledger, tmp_path: Path) -> None:
    """Let and taken back, thousands of times: each look at a signature would go through all of them."""
    mine = make_key(tmp_path)
    pub = sshsig.key_line(Path(f"{mine}.pub").read_text())
    said = attest.withdrawal(site=SITE, attestation=3, text="", person="Ada Berg", made_ns=ledger.now)
    back = AttestationWithdrawn(attestation=3, person="Ada Berg", statement=said, signature=signature(mine, "other"))
    ledger.say(*[SignerAdded(person="Ada Berg", key=pub), SignerRemoved(person="Ada Berg", key=pub)] * 9000)
    ledger.say(*[back] * 9000)
    assert steps(lambda: Bench.read(ledger.state, None)) < 5_000_000  # 36,000 entries, and not 81,000,000 looks


def test_a_key_that_was_let_twice_is_taken_back_once(
    ledger: Ledger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = make_key(tmp_path)
    pub = sshsig.key_line(Path(f"{mine}.pub").read_text())
    ledger.say(*[SignerAdded(person="Ada Berg", key=pub)] * 2, SignerRemoved(person="Ada Berg", key=pub))
    said, until = statement(ledger, "paper.training")
    ledger.say(AttestationMade(check="paper.training", person="Ada Berg", statement=said, until_ns=until,
                               signature=signature(mine, said)))  # fmt: skip
    assert stands(ledger, "paper.training").says.endswith("its key had been removed")
    code, text = verdict(ledger, capsys, packed(ledger))
    assert code == 1 and "was nobody who might sign then" in text


def test_a_console_that_has_not_all_letters_shows_all_findings(ledger: Ledger, tmp_path: Path) -> None:
    """Of a Windows machine. The first name of a stranger in other letters would end the telling, or a good verdict."""
    ledger.found("\u65e5\U0001f600.x", "tested", valid=99)
    for text, code, says in ((None, 0, "check \\u65e5"), ("\u65e5", 1, "WRONG: 2 findings")):
        if text is not None:
            ledger.say(*[AttestationMade(check="paper.plan", person=text + name, statement=json.dumps({
                "format": attest.FORMAT, "check": "paper.plan", "person": text + name, "site": SITE,
                "until": "2026-12-18T10:06:40Z"}), signature="x", until_ns=1_797_588_400 * 10**9)
                for name in ("a", "b")])  # fmt: skip
        (tmp_path / "pack.zip").write_bytes(packed(ledger))
        command = [sys.executable, str(tool.__file__), str(tmp_path / "pack.zip"), "--key",
                   str(ledger.state / "keys/audit.pub")]  # fmt: skip
        done = subprocess.run(command, capture_output=True, env={"PYTHONIOENCODING": "cp1252"}, check=False)
        assert (done.returncode, says in done.stdout.decode("cp1252")) == (code, True), done


# --- somebody else's folders and files --------------------------------------------------------------------------


def test_a_folder_of_somebody_elses(ledger: Ledger, tmp_path: Path) -> None:
    """Root leaves a head in it: no pipe is waited for, no link followed, no file opened that somebody laid there."""
    away, mine = tmp_path / "away", tmp_path / "mine"
    away.mkdir()
    mine.write_text("mine")
    ledger.head()
    reader = LogReader(ledger.state / "audit", gather.log_key(ledger.state))
    for name in ("checkpoint.new", f"{reader.checkpoint().size}.new"):
        os.mkfifo(away / name)
    assert witness.keep(reader, away).before == -1
    (away / "checkpoint").unlink()
    os.mkfifo(away / "checkpoint")
    with pytest.raises(CofferdamError, match="cannot be read"):
        witness.keep(reader, away)
    (away / "checkpoint").unlink()
    (away / "checkpoint").symlink_to(mine)
    with pytest.raises(CofferdamError, match="cannot be read"):
        witness.keep(reader, away)
    assert mine.read_text() == "mine"


def test_a_file_is_written_whole_or_not(tmp_path: Path) -> None:
    """Two who write the same file at once; a link, a pipe, a device and a folder in its place."""
    out, wrong = tmp_path / "out.zip", list[str]()

    def write(number: int) -> None:
        for _ in range(40):
            write_beside(out, bytes([number]) * (200_000 + number))
            if len(set(out.read_bytes())) != 1:
                wrong.append("mixed")

    both = [threading.Thread(target=write, args=(number,)) for number in (1, 2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert not wrong and [path.name for path in tmp_path.iterdir()] == ["out.zip"]
    target = tmp_path / "target"
    target.write_text("kept")
    link = tmp_path / "link"
    link.symlink_to(target)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("link", "pipe", "folder", "/dev/null", "/dev/stdout"):
        with pytest.raises(OSError, match="no file, is there"):
            write_beside(tmp_path / name, b"x")
    assert target.read_text() == "kept"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


# --- words of strangers -----------------------------------------------------------------------------------------


def test_a_name_of_a_stranger_on_screen_and_paper(ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    """Anybody who can reach the jump server chooses the name of a sign-in that fails."""
    from cofferdam.cli.main import main

    ledger.found("access.lockout", "observed", f"entry 7: {ESC}<b>=x")
    ledger.found("access.mfa", "failed", f"entry 7: {ESC}")
    ledger.say(SignerAdded(person=ESC, role=ESC, key=sshsig.key_line(KEY)))
    ledger.log.publish()
    state = str(ledger.state)
    for words in (["show", "access.lockout"], ["list"], ["report", "--framework", "nis2"], ["signer", "list"]):
        main(["evidence", *words, "--state", state])
        said = capsys.readouterr().out
        assert all(line.isprintable() for line in said.splitlines()), words
    bench = Bench.read(ledger.state, None)
    made = bench.report(bench.catalogue.frameworks["iec62443-3-3"])
    page = reports.as_html(made)
    assert "\x1b" not in page and "\u202e" not in page and "<b>=x" not in page
    row = msgspec.structs.replace(made.rows[0].control, why=f"  =HYPERLINK(1)\r{ESC}")
    table = reports.as_csv(msgspec.structs.replace(made, rows=(msgspec.structs.replace(made.rows[0], control=row),)))
    assert "'  =HYPERLINK" in table and "\x1b" not in table
    shown = console.table("a")
    shown.add_row(ESC)
    console.terminal().print(shown)
    console.terminal().print(ESC)
    assert all(line.isprintable() for line in capsys.readouterr().out.splitlines())


def test_the_verifier_repeats_nothing_raw_and_reads_no_bomb(ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    ledger.found("log.whole", "tested")
    good = packed(ledger)
    assert verdict(ledger, capsys, good)[0] == 0
    for data in (b"<html>all is well</html>" + good, good + b"x"):
        assert verdict(ledger, capsys, data)[0] == 1
    out = BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("manifest.json", json.dumps({"format": ESC, "site": ESC, "files": {ESC: {}}}))
    code, said = verdict(ledger, capsys, out.getvalue())
    assert code == 1 and all(line.isprintable() for line in said.splitlines())
    out = BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("manifest.json", b"[" + b"{}," * (4 << 20) + b"{}]")
        archive.writestr("results.json", b"[" + b"{}," * (4 << 20) + b"{}]")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    code, said = verdict(ledger, capsys, out.getvalue())
    assert code == 1 and said.count("is not looked at: it is large") == 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 150 << 10
    strange = bytearray(good)
    strange[good.index(b"PK\x01\x02") + 6] = 99  # a version of the format that nobody has
    assert verdict(ledger, capsys, bytes(strange))[0] == 2


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("framework: house-rules", "framework: NERC-CIP", "small letters"),
        ("framework: house-rules", "framework: nerc‑cip", "small letters"),
        ("  A-1:", "  =A1:", "begins with none of"),
        ("  A-1:", '  "A\\u202e1":', "begins with none of"),
    ],
)
def test_a_framework_that_is_named_like_another(tmp_path: Path, old: str, new: str, words: str) -> None:
    control = "  A-1: {by: gate, theme: [log], says: x, checks: [log.whole]}"
    text = f"framework: house-rules\ntitle: NERC CIP\ncontrols:\n{control}\n"
    path = tmp_path / "own.yaml"
    path.write_text(text)
    assert with_own(catalogue(), [path]).frameworks["house-rules"].note == OWN
    path.write_text(text.replace(old, new))
    with pytest.raises(PolicyError) as raised:
        with_own(catalogue(), [path])
    assert words in "\n".join(map(str, raised.value.problems))
