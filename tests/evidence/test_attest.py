"""Signatures of people: real ssh-keygen and real keys; who might sign when; what is no signature."""

from __future__ import annotations

import json
import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cofferdam.audit.events.evidence import (
    AttestationMade,
    AttestationWithdrawn,
    BaselineTaken,
    SignerAdded,
    SignerRemoved,
)
from cofferdam.audit.events.gate import PolicyLoaded
from cofferdam.cli.main import main
from cofferdam.errors import CofferdamError
from cofferdam.evidence import attest, baseline, drifting, gather, sshsig
from cofferdam.evidence.workbench import Bench
from tests.evidence.ledger import NS, Ledger, make_key, signature, statement

pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="there is no ssh-keygen (openssh-client)")
TEXT, ADA = "a text", "Ada Berg"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys")


@pytest.mark.parametrize(
    ("kind", "more"), [("ed25519", ()), ("ecdsa", ("-b", "256")), ("ecdsa", ("-b", "521")), ("rsa", ("-b", "2048"))]
)
def test_signatures_of_every_kind(folder: Path, kind: str, more: tuple[str, ...]) -> None:
    path = make_key(folder, f"k-{kind}-{''.join(more)}", kind, *more)
    key = sshsig.key_line(Path(f"{path}.pub").read_text())
    made = signature(path, TEXT)
    sshsig.verify(made, TEXT.encode(), key)
    for message in (b"another", b"", TEXT.encode() + b"\n"):
        with pytest.raises(sshsig.SignatureError, match="does not fit"):
            sshsig.verify(made, message, key)
    with pytest.raises(sshsig.SignatureError, match="is for 'git'"):
        sshsig.verify(signature(path, TEXT, "git"), TEXT.encode(), key)


def test_another_key_and_keys_that_may_not_sign(folder: Path) -> None:
    one, other = make_key(folder, "one"), make_key(folder, "other")
    key = sshsig.key_line(Path(f"{other}.pub").read_text())
    with pytest.raises(sshsig.SignatureError, match="another key"):
        sshsig.verify(signature(one, TEXT), TEXT.encode(), key)
    short = make_key(folder, "short", "rsa", "-b", "1024")
    with pytest.raises(sshsig.SignatureError, match="too short"):
        sshsig.key_line(Path(f"{short}.pub").read_text())
    for wrong in (
        "",
        "ssh-ed25519",
        "ssh-dss AAAA",
        "ssh-ed25519 !!!!",
        "ssh-ed25519 AAAA",
        "ssh-rsa AAAAB3NzaC1kc3M=",
    ):
        with pytest.raises(sshsig.SignatureError):
            sshsig.key_line(wrong)


@given(st.data())
def test_whatever_is_done_to_a_signature(data: st.DataObject) -> None:
    """Changed, cut or lengthened: an error of ours, and never a yes. (One key and signature for all examples.)"""
    made, key = _one()
    at = data.draw(st.integers(0, len(made) - 1))
    letter = data.draw(st.sampled_from("AZaz09+/=\n -"))
    changed = data.draw(st.sampled_from([made[:at], made[:at] + letter + made[at + 1 :], made + letter, letter + made]))
    try:
        sshsig.verify(changed, TEXT.encode(), key)
    except sshsig.SignatureError:
        return
    assert "".join(changed.split()) == "".join(made.split())


_MADE: list[tuple[str, str]] = []


def _one() -> tuple[str, str]:
    if not _MADE:
        with tempfile.TemporaryDirectory() as name:
            path = make_key(Path(name))
            _MADE.append((signature(path, TEXT), sshsig.key_line(Path(f"{path}.pub").read_text())))
    return _MADE[0]


def test_who_might_sign_when(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ada, eve = make_key(folder, "ada"), make_key(folder, "eve")
    key = sshsig.key_line(Path(f"{ada}.pub").read_text())
    ledger = Ledger(tmp_path)
    ledger.begin()

    def sign(by: Path = ada, check: str = "log.reviewed", **changes: object) -> int:
        said, until = statement(ledger, check, **changes)  # type: ignore[arg-type]
        return ledger.say(
            AttestationMade(
                check=check, person="Ada Berg", statement=said, signature=signature(by, said), until_ns=until
            )
        )

    early = sign()
    ledger.say(SignerAdded(person="Ada Berg", key=key, role="owner"))
    good = sign()
    forged = sign(eve)
    other_site, other_check = sign(site="elsewhere"), sign(check="paper.policy", format="x")
    longer = sign(until="2099-01-01T00:00:00Z")
    taken_back = sign(check="paper.training")
    said = attest.withdrawal(site=ledger.site, attestation=taken_back, text="no", person="Ada Berg", made_ns=ledger.now)
    ledger.say(AttestationWithdrawn(attestation=taken_back, person=ADA, statement=said, signature=signature(ada, said)))
    kept = sign(check="paper.supplier")
    bad = attest.withdrawal(site=ledger.site, attestation=kept, text="no", person="Ada Berg", made_ns=ledger.now)
    ledger.say(AttestationWithdrawn(attestation=kept, person="Ada Berg", statement=bad, signature=signature(eve, bad)))
    ledger.say(SignerRemoved(person="Ada Berg", key=key))
    late = sign(check="paper.incident")
    ledger.close()

    bench = Bench.under_checkpoint(tmp_path)
    trouble = {one.index: one.trouble for one in bench.attestations}
    assert trouble[early] == "Ada Berg is nobody who may sign"
    assert trouble[good] == ""
    assert "another key" in trouble[forged]
    assert "site" in trouble[other_site]
    assert "format" in trouble[other_check]
    assert "until" in trouble[longer]
    assert trouble[late] == "its key had been removed"
    withdrawn = {one.index: one.withdrawn for one in bench.attestations}
    assert withdrawn[taken_back] > 0 > withdrawn[kept]
    words = ["evidence", "withdraw", str(taken_back), "--text", "again", "--as", "Ada Berg", "--state", str(tmp_path)]
    assert main(words) == 2
    assert f"was withdrawn before, by entry {withdrawn[taken_back]}" in capsys.readouterr().err
    now = bench.standing().checks
    assert now["log.reviewed"].status == "attested"
    assert now["paper.training"].status == "not covered"
    assert now["paper.supplier"].status == "attested"
    assert now["paper.incident"].status == "failed"  # somebody signed who might not: that is no mere gap
    assert bench.at(ledger.now + 16 * 86_400 * NS).checks["log.reviewed"].status == "failed"  # the newest one is bad


def test_a_review_is_of_one_policy(folder: Path, tmp_path: Path) -> None:
    ada = make_key(folder, "grace")
    ledger = Ledger(tmp_path)
    ledger.begin()
    ledger.say(SignerAdded(person="Ada Berg", key=sshsig.key_line(Path(f"{ada}.pub").read_text())))
    bound = ("policy.reviewed", "policy.change-approved", "policy.fits-traffic", "policy.owner-reason")
    for check in (*bound, "paper.policy"):
        said, until = statement(ledger, check)
        ledger.say(
            AttestationMade(
                check=check, person="Ada Berg", statement=said, signature=signature(ada, said), until_ns=until
            )
        )
    before = Bench.read(tmp_path, None).at(ledger.now).checks
    assert {before[check].status for check in (*bound, "paper.policy")} == {"attested"}
    assert any("up to its entry" in fact and "a" * 64 in fact for fact in before["policy.reviewed"].facts)
    ledger.say(PolicyLoaded(policy="c" * 64, previous="a" * 64))
    now = Bench.read(tmp_path, None).at(ledger.now).checks
    assert {now[check].status for check in bound} == {"stale"}  # who approved one change has approved no later one
    assert now["paper.policy"].status == "attested"
    ledger.close()


def test_statements_that_nobody_signs() -> None:
    given_ = {"site": "s", "check": "log.reviewed", "person": "p", "role": "", "policy": "", "entries": 0}
    for text, until in (("", 2), (" \n", 2), ("x" * 1501, 2), ("x", 1)):
        with pytest.raises(CofferdamError):
            attest.statement(text=text, made_ns=1, until_ns=until, **given_)  # type: ignore[arg-type]


def test_a_statement_that_was_signed_elsewhere_is_brought_later(tmp_path: Path) -> None:
    """The log has grown meanwhile. What is not the printed text, of another site, or for something else is refused."""
    ledger = Ledger(tmp_path)
    ledger.begin()
    said, until = statement(ledger, "log.reviewed", paper={"name": "list", "sha256": "e" * 64})
    policy, _ = statement(ledger, "paper.policy")
    ledger.found("log.whole", "tested")
    history = Bench.read(tmp_path, None).history
    assert attest.brought(said, "log.reviewed", history) == ("Ada Berg", "e" * 64, until)
    refused: dict[str, str] = {
        "7": "no record", "{": "no JSON", said + "\n": "not as it was printed", said.replace("Z", "z"): "until when",
        attest.canonical(json.loads(said) | {"site": "elsewhere"}): "site is 'elsewhere'",
        attest.canonical(json.loads(said) | {"entries": 99}): "another log",
        attest.canonical(json.loads(said) | {"check": "paper.policy"}): "check is 'paper.policy'",
    }  # fmt: skip
    index = ledger.say(AttestationMade(check="paper.policy", person="Ada Berg", statement=policy, signature="",
                                       until_ns=until))  # fmt: skip
    history = Bench.read(tmp_path, None).history
    with pytest.raises(CofferdamError, match=f"entry {index} has it already"):
        attest.brought(policy, "paper.policy", history)
    for text, words in refused.items():
        with pytest.raises(CofferdamError, match=words):
            attest.brought(text, "log.reviewed", history)
    back = attest.withdrawal(site=ledger.site, attestation=4, text="", person="Ada Berg", made_ns=1)
    attest.brought_back(back, 4, "Ada Berg", history)
    for number, person in ((5, "Ada Berg"), (4, "Eve")):
        with pytest.raises(CofferdamError, match="something else"):
            attest.brought_back(back, number, person, history)
    ledger.close()


def test_a_baseline_is_approved_by_signature_and_what_differs_has_a_time(folder: Path, tmp_path: Path) -> None:
    """Only a signature of somebody who may sign counts; a difference is dated by the baselines on record."""
    ada, eve = make_key(folder, "ada-b"), make_key(folder, "eve-b")
    ledger = Ledger(tmp_path / "state")
    ledger.begin()
    ledger.say(SignerAdded(person="Ada Berg", key=sshsig.key_line(Path(f"{ada}.pub").read_text())))
    where = gather.folder(ledger.state, gather.BASELINES, make=True)

    def taken(**document: Any) -> str:
        digest = baseline.digest(document)
        (where / f"{digest}.json").write_bytes(baseline.canonical(document))
        return digest

    first = taken(kernel="6.1", ports=["tcp 502"])
    said = attest.approval(site=ledger.site, baseline=first, text="", person="Ada Berg", role="", made_ns=ledger.now)
    cases = {
        "nobody has signed it": BaselineTaken(baseline=first, approved=True),
        "by another key": BaselineTaken(
            baseline=first, approved=True, person="Ada Berg", statement=said, signature=signature(eve, said)
        ),
        "differ in baseline": BaselineTaken(
            baseline="b" * 64, approved=True, person="Ada Berg", statement=said, signature=signature(ada, said)
        ),
        "nobody who may sign": BaselineTaken(
            baseline=first, approved=True, person="Eve", statement=said.replace("Ada Berg", "Eve"),
            signature=signature(eve, said.replace("Ada Berg", "Eve")),
        ),
    }  # fmt: skip
    for event in cases.values():
        ledger.say(event)
    ledger.say(
        BaselineTaken(baseline=first, approved=True, person="Ada Berg", statement=said, signature=signature(ada, said))
    )
    times = {}
    for day, document in (
        (1, {"kernel": "6.1", "ports": ["tcp 502", "tcp 9"]}),
        (2, {"kernel": "6.9", "ports": ["tcp 502"]}),
        (3, {"kernel": "6.9", "ports": ["tcp 502", "tcp 9"]}),
        (4, {"kernel": "6.9", "ports": ["tcp 502", "tcp 9", "tcp 10"]}),
    ):
        ledger.day(day)
        ledger.say(BaselineTaken(baseline=taken(**document)))
        times[day] = ledger.now
    ledger.close()
    _, history = gather.history(ledger.state)
    found = attest.approvals(history)
    for words, one in zip(cases, found, strict=False):
        assert words in one.trouble, one
    assert [one.trouble for one in found[4:]] == [""]
    since = drifting._since(ledger.state, history, found[4].entry, {"kernel": "6.1", "ports": ["tcp 502"]})
    when = {day: datetime.fromtimestamp(ns // NS, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") for day, ns in times.items()}
    assert since == {
        ("kernel", "6.1", "6.9"): when[2],
        ("ports", "", "tcp 9"): when[3],  # it had gone in between
        ("ports", "", "tcp 10"): when[4],
    }
    assert str(baseline.Difference("kernel", "6.1", "6.9", when[2])) == f"kernel: 6.1 → 6.9 (since {when[2]})"
    # A document that somebody changed is no baseline.
    (where / f"{first}.json").write_bytes(b"{}")
    assert drifting.kept(ledger.state, first) is None
