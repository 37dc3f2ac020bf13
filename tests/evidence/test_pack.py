"""A pack says the same to the byte when it is made again, and the verifier, which shares no code with it, names
whatever is done to one, also by somebody who holds the log's key."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import io
import json
import shutil
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cofferdam.audit.checkpoint import Checkpoint, SignerKey, sign_checkpoint, sign_note
from cofferdam.audit.events.evidence import (
    AttestationMade,
    AttestationWithdrawn,
    DrillDone,
    ExportStood,
    NightDone,
    SignerAdded,
    SignerRemoved,
)
from cofferdam.audit.events.gate import GateStarted, HalfDied, HalfStarted, PolicyLoaded
from cofferdam.audit.events.jump import RecordingMarked
from cofferdam.audit.files import LogReader
from cofferdam.cli.main import main
from cofferdam.errors import AuditError, CofferdamError
from cofferdam.evidence import attest, gather, sshsig
from cofferdam.evidence.pack import make
from cofferdam.evidence.workbench import Bench
from tests.evidence.ledger import NS, SITE, Ledger, make_key, signature, statement
from tests.evidence.witness_stranger import cosignature, vkey

pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="there is no ssh-keygen (openssh-client)")
TOOL = Path(__file__).parent.parent.parent / "tools" / "verify_evidence.py"
_spec = importlib.util.spec_from_file_location("verify_evidence", TOOL)
assert _spec is not None
assert _spec.loader is not None
tool: Any = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tool)

Files = dict[str, bytes]
Change = Callable[[Files, "Made"], object]


def test_what_an_earlier_version_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It had a check that is gone, and let another one count for longer: page, list and verifier say so, and the pack
    is good. What this version lets count too long is wrong, whoever says so."""
    ledger = Ledger(tmp_path / "state")
    ledger.say(GateStarted(version="0.0.9", separation="namespaces"))
    ledger.found("leak.heard", "tested", valid=86_400)
    ledger.found("log.whole", "tested", valid=10**8)
    ledger.begin()
    ledger.found("log.whole", "tested")
    ledger.log.publish()
    path, key = tmp_path / "pack.zip", str(ledger.state / "keys/audit.pub")

    def verdict() -> tuple[int, str]:
        path.write_bytes(make(ledger.state, lambda bench: bench.catalogue.frameworks["nis2"]).data)
        capsys.readouterr()
        return tool.main([str(path), "--key", key]), capsys.readouterr().out

    code, said = verdict()
    assert code == 0, said
    assert "check leak.heard has results here, and the version that made the pack does not know it" in said
    assert "log.whole counted for longer by version 0.0.9" in said
    with zipfile.ZipFile(path) as archive:
        assert "does not know, which another has written: leak.heard" in archive.read("report.html").decode()
    main(["evidence", "list", "--state", str(ledger.state)])
    assert "another has written: leak.heard" in capsys.readouterr().out
    ledger.found("leak.silent", "tested", valid=10**8)
    ledger.log.publish()
    code, said = verdict()
    assert code == 1 and "is said to count longer than its check allows" in said
    ledger.close()


def test_a_pack_of_a_period_has_the_clocks_of_its_end(tmp_path: Path) -> None:
    """What was done after it was not done yet, and is not held against what was due later."""
    ledger = Ledger(tmp_path / "state")
    ledger.begin()
    ledger.say(DrillDone(drill="island", says="held"))
    ledger.day(3)
    ledger.say(NightDone())
    end = datetime.fromtimestamp(ledger.now // NS, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    ledger.day(700)
    ledger.say(DrillDone(drill="restore", says="held"))
    ledger.log.publish()
    made = make(ledger.state, lambda bench: bench.catalogue.frameworks["nis2"], until=end)
    with zipfile.ZipFile(io.BytesIO(made.data)) as archive:
        clocks = {one["clock"]: one for one in json.loads(archive.read("clocks.json"))}
    assert (clocks["island-drill"]["state"], clocks["restore-drill"]["state"]) == ("on time", "never done")
    assert clocks["restore-drill"]["times"] == 0
    ledger.close()


class Made:
    """A state with a bit of everything, its pack, and what an attacker with the log's key could make of it."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / "state"
        ledger = Ledger(self.state)
        ledger.begin()
        self.ada, self.bob = make_key(folder), make_key(folder, "bob")
        for person, key in (("Ada Berg", self.ada), ("Bob Stein", self.bob)):
            ledger.say(SignerAdded(person=person, key=sshsig.key_line(Path(f"{key}.pub").read_text()), role="owner"))
        self.forwarded = ledger.found("proof.nothing-forwarded", "proved", "no packet breaks it")
        self.leak = ledger.found("leak.silent", "tested")
        self.earlier = ledger.found("log.whole", "tested")
        self.kept = ledger.head()
        self.kept_size = int(self.kept.split(b"\n")[1])
        ledger.say(ExportStood(collector="witness:safe", next=self.kept_size, working=True))
        text = self.kept.decode().rpartition("\n\n")[0] + "\n"
        self.head = self.kept.decode() + cosignature(
            {"name": "w.example", "seed": "11" * 32, "at": ledger.now // NS}, text
        )
        ledger.say(ExportStood(collector="witness:w1", next=self.kept_size, working=True, note=self.head))
        ledger.found("log.whole", "tested")
        self.held = ledger.found("config.drift", "tested")
        ledger.found("config.drift", "failed")
        self.denials = ledger.found("monitor.denials", "observed")
        self.proof = ledger.prove()
        paper = b"the plan"
        (gather.folder(self.state, gather.PAPERS, make=True) / attest.digest(paper)).write_bytes(paper)
        said, until = statement(ledger, "paper.incident", paper={"name": "plan", "sha256": attest.digest(paper)})
        self.paper = attest.digest(paper)
        self.signed = ledger.say(
            AttestationMade(check="paper.incident", person="Ada Berg", statement=said, until_ns=until, paper=self.paper,
                            signature=signature(self.ada, said))
        )  # fmt: skip
        said, until = statement(ledger, "paper.training")
        self.taken_back = ledger.say(
            AttestationMade(check="paper.training", person="Ada Berg", statement=said, until_ns=until,
                            signature=signature(self.ada, said))
        )  # fmt: skip
        said = attest.withdrawal(site=SITE, attestation=self.taken_back, text="", person="Ada Berg", made_ns=ledger.now)
        ledger.say(AttestationWithdrawn(attestation=self.taken_back, person="Ada Berg", statement=said,
                                        signature=signature(self.ada, said)))  # fmt: skip
        ledger.day(60 / 86_400)
        ledger.say(SignerRemoved(person="Bob Stein", key=sshsig.key_line(Path(f"{self.bob}.pub").read_text())))
        said, until = statement(ledger, "paper.supplier", "Bob Stein")
        self.late = ledger.say(
            AttestationMade(check="paper.supplier", person="Bob Stein", statement=said, until_ns=until,
                            signature=signature(self.bob, said))
        )  # fmt: skip
        ledger.close()
        self.key = SignerKey.parse((self.state / "keys/audit.key").read_text())
        self.pack = make(self.state, lambda bench: bench.catalogue.frameworks["iec62443-3-3"]).data
        with zipfile.ZipFile(io.BytesIO(self.pack)) as archive:
            self.files = {name: archive.read(name) for name in archive.namelist()}

    def signed_anew(self, files: Files) -> Files:
        """As somebody would who holds the log's key: manifest and note fit again."""
        manifest = json.loads(files["manifest.json"])
        manifest["files"] = {
            name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
            for name, data in sorted(files.items()) if name not in ("manifest.json", "manifest.note")
        }  # fmt: skip
        files["manifest.json"] = json.dumps(manifest).encode()
        digest = hashlib.sha256(files["manifest.json"]).hexdigest()
        text = f"cofferdam evidence pack of {SITE}\n{digest}\n{manifest['framework']}\n{manifest['entries']} entries\n"
        files["manifest.note"] = sign_note(text, self.key)
        return files


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("pack"))


def zipped(files: Files) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def verdict(made: Made, data: bytes, folder: Path, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, str]:
    path, key = folder / "pack.zip", folder / "log.vkey"
    path.write_bytes(data)
    key.write_text(made.key.verifier.text)
    code = tool.main([str(path), "--key", str(key), *more])
    said = capsys.readouterr()
    return code, said.out + said.err


def test_a_manifest_that_does_not_say_what_is_missing(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said: tuple[object, ...] = (None, "all", [{}])
    for missing in said:
        files = dict(made.files)
        manifest = json.loads(files["manifest.json"])
        manifest["missing"] = missing
        files["manifest.json"] = json.dumps({name: of for name, of in manifest.items() if of is not None}).encode()
        code, out = verdict(made, zipped(made.signed_anew(files)), tmp_path, capsys)
        assert code == 1 and "does not say as we do what is missing" in out, out


def test_an_attestation_comes_with_what_took_it_back(made: Made) -> None:
    """Also into the pack of a later period."""
    history = Bench.under_checkpoint(made.state).history
    [taken] = history.of("attestation-withdrawn")
    assert taken.time_ns < history.last_ns
    since = datetime.fromtimestamp(history.last_ns / 1e9, UTC).isoformat()
    later = make(made.state, lambda bench: bench.catalogue.frameworks["iec62443-3-3"], since=since)
    with zipfile.ZipFile(io.BytesIO(later.data)) as archive:
        assert {f"entries/{made.taken_back}.json", f"entries/{taken.index}.json"} <= set(archive.namelist())


def test_good_and_the_same_to_the_byte(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    again = make(made.state, lambda bench: bench.catalogue.frameworks["iec62443-3-3"])
    assert again.data == made.pack
    assert again.signed
    code, said = verdict(made, made.pack, tmp_path, capsys)
    # The one who signed when his key was removed: the pack says it failed, and the verifier says why.
    assert code == 1
    assert said.splitlines()[0] == (
        f"attestation of entry {made.late}: Bob Stein was nobody who might sign then: never let, or removed before"
    )
    assert said.splitlines()[1:] == ["WRONG: 1 findings in the pack"]
    kept = tmp_path / "kept"
    kept.write_bytes(made.files["checkpoint"])
    assert "kept" not in verdict(made, made.pack, tmp_path, capsys, "--checkpoint", str(kept))[1]
    older = tmp_path / "older"
    older.write_bytes(made.kept)
    said = verdict(made, made.pack, tmp_path, capsys, "--checkpoint", str(older))[1]
    assert said.splitlines()[1:] == ["WRONG: 1 findings in the pack"]
    older.write_bytes(sign_checkpoint(Checkpoint(made.key.name, made.kept_size, b"\0" * 32), made.key))
    assert "was written anew" in verdict(made, made.pack, tmp_path, capsys, "--checkpoint", str(older))[1]
    older.write_bytes(sign_checkpoint(Checkpoint(made.key.name, made.kept_size - 1, b"\0" * 32), made.key))
    assert "cannot be compared" in verdict(made, made.pack, tmp_path, capsys, "--checkpoint", str(older))[1]
    later = tmp_path / "later"
    later.write_bytes(sign_checkpoint(Checkpoint(made.key.name, 10_000, b"\0" * 32), made.key))
    assert "cut back" in verdict(made, made.pack, tmp_path, capsys, "--checkpoint", str(later))[1]


def test_a_head_that_no_witness_has_on_record(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An auditor has copied any head: the site makes the pack with it, and the verifier sees the log go on from it."""
    head = sign_checkpoint(Checkpoint(made.key.name, 3, _root(made.state, 3)), made.key)
    kept = tmp_path / "kept"
    kept.write_bytes(head)
    assert "cannot be compared" in verdict(made, made.pack, tmp_path, capsys, "--checkpoint", str(kept))[1]
    framework = lambda bench: bench.catalogue.frameworks["iec62443-3-3"]  # noqa: E731
    pack = make(made.state, framework, kept=(head,)).data
    said = verdict(made, pack, tmp_path, capsys, "--checkpoint", str(kept))[1]
    assert said.splitlines()[1:] == ["WRONG: 1 findings in the pack"]  # the one who signed late, as ever
    forked = sign_checkpoint(Checkpoint(made.key.name, 3, b"\0" * 32), made.key)
    for wrong, words in (
        (forked, "written anew"),
        (sign_checkpoint(Checkpoint(made.key.name, 10_000, b"\0" * 32), made.key), "put back or cut"),
        (sign_checkpoint(Checkpoint(SITE, 3, b"\0" * 32), STRANGER), "has not signed this"),
        (b"no note", "note"),
    ):
        with pytest.raises(AuditError, match=words):
            make(made.state, framework, kept=(wrong,))
    kept.write_bytes(forked)
    assert "written anew" in verdict(made, pack, tmp_path, capsys, "--checkpoint", str(kept))[1]


def test_what_is_no_checkpoint_is_named(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "plan.pdf").write_bytes(b"%PDF" + b"x" * 100_000)
    words = ["evidence", "pack", "--framework", "nis2", str(tmp_path / "p.zip"), "--state", str(made.state), "--kept"]
    for name, said in (("plan.pdf", "plan.pdf is no checkpoint"), ("none", "none cannot be read")):
        assert main([*words, str(tmp_path / name)]) != 0
        assert said in capsys.readouterr().err
    assert not (tmp_path / "p.zip").exists()


def _root(state: Path, size: int) -> bytes:
    """Of the log's first entries."""
    reader = LogReader(state / "audit", gather.log_key(state))
    return tree_hash([entry for _, entry in reader.some(range(size), reader.checkpoint().size)])


def tree_hash(entries: list[bytes]) -> bytes:
    """RFC 6962, 2.1."""
    if len(entries) == 1:
        return hashlib.sha256(b"\0" + entries[0]).digest()
    half = 1 << (len(entries) - 1).bit_length() - 1
    return hashlib.sha256(b"\1" + tree_hash(entries[:half]) + tree_hash(entries[half:])).digest()


def test_a_pack_of_good_things_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ledger = Ledger(tmp_path / "state")
    ledger.begin()
    ledger.found("log.whole", "tested")
    recorded = ledger.say(RecordingMarked(recording="r", session="s1", size=9, sha256="d" * 64, ended=True))
    ledger.prove()
    ledger.close()
    for framework in ("nerc-cip", "nis2", "nist-800-53r5", "iec62443-3-2"):
        pack = make(tmp_path / "state", lambda bench, name=framework: bench.catalogue.frameworks[name])
        (tmp_path / "pack.zip").write_bytes(pack.data)
        with zipfile.ZipFile(tmp_path / "pack.zip") as archive:  # the digest of each recording, and not the recording
            assert "d" * 64 in archive.read(f"entries/{recorded}.json").decode()
        key = tmp_path / "state/keys/audit.pub"
        assert tool.main([str(tmp_path / "pack.zip"), "--key", str(key), "--at", "2027-01-01"]) == 0
        assert "good" in capsys.readouterr().out


def test_entries_that_are_cited_are_in_the_pack(tmp_path: Path) -> None:
    """What a report names by its number can be looked at; and the nights are there."""
    ledger = Ledger(tmp_path / "state")
    ledger.begin()
    died = ledger.say(HalfDied(half="modbus/enterprise-control/inner", pid=7, status=-9))
    back = ledger.say(HalfStarted(half="modbus/enterprise-control/inner", pid=8))
    other = ledger.say(HalfDied(half="modbus/enterprise-control/outer", pid=9, status=0))
    night = ledger.say(NightDone(done=("prove: nothing wrong",)))
    ledger.found("recovery.known-state", "tested", f"entry {died}: it died, back by entry {back}", "entry 99999")
    ledger.close()
    pack = make(tmp_path / "state", lambda bench: bench.catalogue.frameworks["nist-800-53r5"])
    with zipfile.ZipFile(io.BytesIO(pack.data)) as archive:
        names = set(archive.namelist())
    assert {f"entries/{index}.json" for index in (died, back, night)} <= names
    assert f"entries/{other}.json" not in names


def edit(name: str, work: Callable[[Any, Made], None]) -> Change:
    """A change of a JSON file."""

    def change(files: Files, made: Made) -> None:
        document = json.loads(files[name])
        work(document, made)
        files[name] = json.dumps(document).encode()

    return change


def of_entry(attribute: str, work: Callable[[Any], None]) -> Change:
    def change(files: Files, made: Made) -> None:
        name = f"entries/{getattr(made, attribute)}.json"
        document = json.loads(files[name])
        work(document)
        files[name] = json.dumps(document).encode()

    return change


def now_of(check: str, **changes: Any) -> Change:
    return edit("results.json", lambda document, _: document["now"][check].update(changes))


def row_of(**changes: Any) -> Change:
    return edit("results.json", lambda document, _: document["history"][0].update(changes))


def _rename(files: Files, made: Made) -> None:
    files["papers/other"] = files.pop(f"papers/{made.paper}")


def _newer(files: Files, made: Made) -> None:
    files["checkpoint"] = sign_checkpoint(Checkpoint(made.key.name, 3, b"\0" * 32), made.key)


def _control(document: Any, _: Made) -> None:
    row = next(row for row in document["report"]["rows"] if row["control"]["id"] == "SR 2.9")
    row["control"]["status"] = "tested"


def _status(document: Any, control: str, status: str) -> None:
    row = next(row for row in document["report"]["rows"] if row["control"]["id"] == control)
    row["control"]["status"] = status


def _swap(name: str, before: bytes, after: bytes) -> Change:
    def change(files: Files, made: Made) -> None:
        assert before in files[name]
        files[name] = files[name].replace(before, after, 1)

    return change


def _script(files: Files, _: Made) -> None:
    files["report.html"] += b"<script>1</script>"


def _into_the_title(files: Files, _: Made) -> None:
    """What a browser does not show."""
    begin, _tag, rest = files["report.html"].partition(b"<table>")
    table, _tag, end = rest.rpartition(b"</table>")
    shown = table.replace(b"class='id'", b"class='no'").replace(b" not covered<", b" tested<")
    hidden = b"<table>" + table + b"</table></title>"
    files["report.html"] = begin.replace(b"</title>", hidden) + b"<table>" + shown + b"</table>" + end


def _closed_title(files: Files, _: Made) -> None:
    """Which to a browser is an open one."""
    begin, _tag, table = files["report.html"].partition(b"<h2>Controls</h2>")
    shown = table.replace(b"class='id'", b"class='no'").replace(b" not covered<", b" tested<")
    files["report.html"] = begin + b"<title/>" + table + b"</title>" + shown


def _twice(document: bytes, before: bytes, first: bytes) -> bytes:
    return document.replace(before, first + b", " + before, 1)


def _columns(files: Files, _: Made) -> None:
    rows = files["report.csv"].replace(b"framework,", b"status,", 1).replace(b"iec62443-3-3,", b"proved,")
    files["report.csv"] = rows


def _proof(document: Any, _: Made) -> None:
    document["report"]["statements"][0]["says"] = "other"


def _other_proof(files: Files, made: Made) -> None:
    files[f"proofs/{'c' * 64}.json"] = files[f"proofs/{made.proof}.json"]


def _withdrawn(document: Any, made: Made) -> None:
    document["now"]["paper.training"].update(status="attested", index=made.taken_back)


PLAIN: list[tuple[str, Change, str]] = [
    (
        "a byte of a file",
        lambda f, _: f.update({"report.html": f["report.html"][:-1] + b"X"}),
        "report.html: was changed",
    ),
    ("a file removed", lambda f, _: f.pop("clocks.json"), "clocks.json: is in the manifest and not in the pack"),
    ("a file added", lambda f, _: f.update({"extra.txt": b""}), "extra.txt: is not in the manifest"),
    ("a file renamed", _rename, "papers/other: is not in the manifest"),
    ("no note", lambda f, _: f.pop("manifest.note"), "manifest.note: is missing"),
    ("no manifest", lambda f, _: f.pop("manifest.json"), "manifest.json: is missing"),
    ("a manifest of another pack", edit("manifest.json", lambda d, _: d.update(level=4)), "another manifest"),
    (
        "a manifest that is none",
        lambda f, _: f.update({"manifest.json": b"[" * 100_000}),
        "manifest.json: is not understood",
    ),
    ("a note that is none", lambda f, _: f.update({"manifest.note": b"\xff"}), "is no text"),
]
STRANGER = SignerKey(SITE, b"x" * 32)
SIGNED: list[tuple[str, Change, str]] = [
    ("a checkpoint of another key", lambda f, _: f.update({"checkpoint": sign_checkpoint(Checkpoint(SITE, 3, bytes(32)),
     STRANGER)}), "the checkpoint is not signed by"),
    ("a checkpoint of another log", lambda f, m: f.update({"checkpoint": sign_note("other\n3\n" + base64.b64encode(
     b"\0" * 32).decode() + "\n", m.key)}), "the checkpoint is of another log"),
    ("a checkpoint older than an entry", _newer, "is newer than the checkpoint"),
    ("an entry changed", of_entry("leak", lambda d: d.update(entry=d["entry"].replace("tested", "proved"))),
     "is not in the log"),
    ("a proof of another place", of_entry("leak", lambda d: d.update(hashes=d["hashes"][::-1])), "is not in the log"),
    ("a proof cut short", of_entry("leak", lambda d: d.update(hashes=d["hashes"][:-1])), "is not in the log"),
    ("an entry under another number", of_entry("leak", lambda d: d.update(index=1)), "is the entry of another number"),
    ("an entry that is none", of_entry("leak", lambda d: d.pop("entry")), "is not understood"),
    ("an entry left out", lambda f, m: f.pop(f"entries/{m.leak}.json"), "is not in the pack, or not proven"),
    ("a result with another outcome", row_of(outcome="tested"), "another outcome than its entry"),
    ("a result with other facts", row_of(facts=["no"]), "other facts than its entry"),
    ("a result longer valid than its check", row_of(valid=10**9), "another valid than its entry"),
    ("a result of another time", row_of(time_ns=1), "another time than its entry"),
    ("a check stronger than its entry", now_of("monitor.denials", status="proved"), "more than its entry"),
    ("a check that rests on another's entry", edit("results.json", lambda d, m: d["now"]["log.writable"].update(
     status="observed", index=m.signed)), "is a attestation-made, not a check-done"),
    ("a check that nothing carries", now_of("log.writable", status="observed"), "is not in the pack, or not proven"),
    ("a check without age", edit("results.json", lambda d, _: d["report"].update(made="2028-01-01T00:00:00Z")),
     "s old: it counts for"),
    ("a check that is unknown", edit("results.json", lambda d, _: d["now"].update(x={"status": "fine", "index": 0})),
     "no such check or status"),
    ("a control better than its checks", edit("results.json", _control), "its weakest check is not covered"),
    ("other counts", edit("results.json", lambda d, _: d["report"]["coverage"].update(proved=99)), "its counts by"),
    ("an attestation that was withdrawn", edit("results.json", _withdrawn), "withdrew it"),
    ("another statement", edit("results.json", lambda d, _: d["attestations"][0].update(statement="{}")),
     "another statement than its entry"),
    ("another signer", edit("signers.json", lambda d, _: d[0].update(person="Eve")), "let somebody else sign"),
    ("another report of a proof", lambda f, m: edit(f"proofs/{m.proof}.json", _proof)(f, m),
     "is not the report that the log names"),
    ("a proof that no entry names", _other_proof, "is named by no entry"),
    ("a proof left out", lambda f, m: f.pop(f"proofs/{m.proof}.json"), "neither in the pack nor said to be missing"),
    ("another paper", lambda f, m: f.update({f"papers/{m.paper}": b"another plan"}), "is not the document"),
    ("a paper left out", lambda f, m: f.pop(f"papers/{m.paper}"), "neither in the pack nor said to be missing"),
    ("a witness's head left out", lambda f, _: f.pop("witnesses/w1.note"), "is missing: entry"),
    ("another head of a witness", lambda f, m: f.update({"witnesses/w1.note": f["checkpoint"]}), "is not the newest"),
    ("a witness that no entry names", lambda f, m: f.update({"witnesses/x.note": m.head.encode()}),
     "is not the newest"),
    ("a head that leads nowhere", lambda f, m: edit(f"consistency/{m.kept_size}.json", lambda d, _: d.update(
     hashes=d["hashes"][::-1]))(f, m), "there were two logs"),
    ("a script in the page", _script, "holds a script"),
    ("a page that hides a status", _swap("report.html", b"</style>", b".failed{display:none}</style>"),
     "hides or adds"),
    ("a page on which nobody sees it", _swap("report.html", b"</style>", b".failed{font-size:0}</style>"),
     "a style that is none of ours"),
    ("a page with a style that never ends", _swap("report.html", b"</html>", b"<style>td{font-size:0}"),
     "a style that is none of ours"),
    ("a page that a browser reads otherwise", _swap("report.html", b"<meta http-equiv='",
     b"<meta http-equiv='refresh' http-equiv='"), "the same attribute twice"),
    ("a page with a style from elsewhere", _swap("report.html", b"<body>", b"<body><?xml-stylesheet href='x'?>"),
     "ours has: an instruction"),
    ("a page that leads elsewhere", _swap("report.html", b"<h1>", b"<a href='x'></a><h1>"),
     "no page of ours has: <a href>"),
    ("a page that runs something", _swap("report.html", b"<body>", b"<body onload='x'>"), "ours has: <body onload>"),
    ("a page that goes away", _swap("report.html", b"<title>", b"<meta http-equiv='Refresh' content='0'><title>"),
     "ours has: <meta content http-equiv>"),
    ("a page of two readings: another alphabet", _swap("report.html", b"charset='utf-8'", b"charset='iso-2022-jp'"),
     "does not begin as"),
    ("a page of two readings: no alphabet", _swap("report.html", b"<meta charset='utf-8'>", b""), "does not begin as"),
    ("a page of two readings: another one first", lambda f, _: f.update({"report.html": "\ufeff<p>all is well</p><!--"
     .encode("utf-16-le") + f["report.html"]}), "does not begin as"),
    ("a page whose table is its title", _into_the_title, "report.html: "),
    ("a page whose title is closed", _closed_title, "ours has: <title/>"),
    ("a page of small letters", _swap("report.html", b"</h1>", b"</h1>" + b"<span class='age'>" * 20), "in 10 others"),
    ("a page whose tags are open", _swap("report.html", b"</h1>", b"</b></h1>"), "ends something else"),
    ("a page in the dark", _swap("report.html", b"<meta name='viewport' content='width=device-width'>",
     b"<meta name='color-scheme' content='dark'>"), "a tag written like <meta name='color-scheme'"),
    ("a page with other letters beside a status", _swap("report.html", b"</span> not covered</span></td>",
     "</span> ｐｒｏｖｅｄ／not covered</span></td>".encode()), "and the results"),
    ("a page with more beside a status", _swap("report.html", b"</span> not covered</span></td>",
     b"</span> not covered</span> or proved</td>"), "with more than its status"),
    ("a page with the colour of another status", _swap("report.html",
     "<td><span class='s not-covered'><span aria-hidden='true'>–</span> not covered</span></td>".encode(),
     "<td><span class='s proved'><span aria-hidden='true'>–</span> not covered</span></td>".encode()),
     "with more than its status"),
    ("a table with two columns of a name", _columns, "has a column twice"),
    ("results of two readings", lambda f, _: f.update({"results.json": _twice(
     f["results.json"], b'"coverage": {', b'"coverage": {}')}), "has a name twice"),
    ("OSCAL of two results", edit("oscal/assessment-results.json", lambda d, _: d["assessment-results"][
     "results"].insert(1, {})), "another status of a control"),
    ("OSCAL that is content", edit("oscal/assessment-results.json", lambda d, _: d["assessment-results"]["results"][0][
     "findings"][0]["target"]["status"].update(state="satisfied")), "says satisfied of a control otherwise"),
    ("other words than were signed", now_of("paper.incident", facts=["all of it"]), "other words than were signed"),
    ("somebody else who signed", now_of("paper.incident", says="Eve signed for it"), "other words than were signed"),
    ("a signer who was removed", edit("signers.json", lambda d, _: d[1].update(removed=-1)), "when Bob Stein ceased"),
    ("facts that its entry has not", now_of("monitor.denials", facts=["none"]), "other facts than its entry's"),
    ("results that are none", lambda f, _: f.update({"results.json": b"7"}), "is no record"),
    ("a failure passed over", edit("results.json", lambda d, m: d["now"]["config.drift"].update(
     status="tested", index=m.held)), "is shown as tested, and failed by entry"),
    ("a failure that is left out", now_of("config.drift", status="not covered", counts=False), "and failed by entry"),
    ("a result that is left out", now_of("monitor.denials", status="not covered", counts=False), "and has results"),
    ("a check that is not shown", edit("results.json", lambda d, _: d["now"].pop("config.drift")), "and is not shown"),
    ("an older result", edit("results.json", lambda d, m: d["now"]["log.whole"].update(index=m.earlier)),
     "which is not the newest of this check"),
    ("a control said to be coming", edit("results.json", lambda d, _: _status(d, "SR 2.9", "coming")),
     "is shown as coming, and is in force"),
    ("a control without one of its checks", edit("results.json", lambda d, _: d["report"]["rows"][0]["checks"].pop()),
     "shows other checks than it rests on"),
    ("an attestation that is not shown", edit("results.json", lambda d, _: d.update(attestations=[])),
     "which is not shown"),
    ("an attestation that had ended", edit("results.json", lambda d, _: d["report"].update(
     made="2028-01-01T00:00:00Z")), "rests on an attestation that ended on"),
    ("a page that says more", _swap("report.html", b"</span> not covered</span></td>",
     b"</span> tested</span></td>"), "as tested, and the results"),
    ("a page that leaves one out", _swap("report.html", b"<td class='id'>SR 2.9<", b"<td class='no'>SR 2.9<"),
     "report.html: shows"),
    ("a table that says more", _swap("report.csv", b",not covered,", b",tested,"), "report.csv: shows"),
    ("a table that is none", lambda f, _: f.update({"report.csv": b"control,status\n" + b"x" * 200_000}),
     "report.csv: is not understood"),
    ("a table that is no text", lambda f, _: f.update({"report.csv": b"\xff"}), "report.csv: is not understood"),
    ("a page that is none", lambda f, _: f.update({"report.html": b"<![foo[x"}), "report.html: "),
    ("a time that is none", edit("results.json", lambda d, _: d["report"].update(made="9" * 400)), "is not understood"),
    ("an end without measure", edit("results.json", lambda d, _: d["history"][0].update(index=1e400)),
     "not in the pack"),
    ("OSCAL that says more", _swap("oscal/assessment-results.json", b'"value": "not covered"', b'"value": "tested"'),
     "another status of a control"),
    ("results of another policy", edit("results.json", lambda d, _: d["report"].update(policy="d" * 64)),
     "is of another policy than entry"),
    ("results of another site", edit("results.json", lambda d, _: d["report"].update(site="elsewhere")),
     "another site"),
    ("results of another log's size", edit("results.json", lambda d, _: d["report"].update(entries=7)),
     "another entries"),
    ("results of another shape", lambda f, _: f.update({"results.json": b"{}"}), "results.json: is not understood"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "words"), [case[1:] for case in PLAIN], ids=[case[0] for case in PLAIN])
def test_what_anybody_can_do(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Change, words: str
) -> None:
    files = dict(made.files)
    change(files, made)
    code, said = verdict(made, zipped(files), tmp_path, capsys)
    assert code == 1
    assert words in said


def test_a_signature_of_blanks_costs_no_time() -> None:
    """Of an attestation that a gate in an intruder's hands has recorded, a hundred times as long as one may be: what
    looks at each of them for each of them never ends."""
    with pytest.raises(tool.Wrong, match="it is no SSH signature"):
        tool.check_ssh("-----BEGIN SSH SIGNATURE-----" + " " * 400_000 + "!", b"", "ssh-ed25519 AAAA")


@pytest.mark.parametrize(("change", "words"), [case[1:] for case in SIGNED], ids=[case[0] for case in SIGNED])
def test_what_the_key_does_not_help_with(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Change, words: str
) -> None:
    """The manifest fits again and is signed: what is wrong is found all the same."""
    files = dict(made.files)
    change(files, made)
    code, said = verdict(made, zipped(made.signed_anew(files)), tmp_path, capsys)
    assert code == 1
    assert words in said, said


def test_a_witness_that_must_have_signed(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The co-signature of the witness whose key an auditor has; another key, and a key that is none."""
    path = tmp_path / "pack.zip"
    path.write_bytes(made.pack)
    said: list[str] = []
    pack = tool.Pack(
        str(path), tool.Key(made.key.verifier.text), None, None, said.append, tool.Witness(vkey("w.example", "11" * 32))
    )
    pack.check()
    assert pack.cosigned[0] == made.kept_size
    assert not any("witness" in one for one in said), said
    pack = tool.Pack(
        str(path), tool.Key(made.key.verifier.text), None, None, said.append, tool.Witness(vkey("w.example", "11" * 32))
    )
    files = dict(made.files)
    pack.read = lambda: files
    results = json.loads(files["results.json"])
    results["report"]["made"] = "2020-01-01T00:00:00Z"
    files["results.json"] = json.dumps(results).encode()
    pack.check()
    assert any("co-signed at a time that was still to come" in one for one in said)
    key = tmp_path / "w.vkey"
    key.write_text(vkey("w.example", "22" * 32))
    code, words = verdict(made, made.pack, tmp_path, capsys, "--witness", str(key))
    assert code == 1
    assert "no head in the pack has a co-signature of w.example" in words
    key.write_text(made.key.verifier.text)
    assert verdict(made, made.pack, tmp_path, capsys, "--witness", str(key))[0] == 2


def test_what_was_found_or_signed_under_another_policy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A finding and an approval of the policy before: the pack says stale, and whoever says more is named."""
    ledger = Ledger(tmp_path / "state")
    ledger.begin()
    ada = make_key(tmp_path)
    ledger.say(SignerAdded(person="Ada Berg", key=sshsig.key_line(Path(f"{ada}.pub").read_text())))
    ledger.found("policy.least", "observed")
    said, until = statement(ledger, "policy.change-approved")
    ledger.say(
        AttestationMade(check="policy.change-approved", person="Ada Berg", statement=said, until_ns=until,
                        signature=signature(ada, said))
    )  # fmt: skip
    ledger.say(PolicyLoaded(policy="c" * 64, previous="a" * 64))
    ledger.close()
    pack = make(tmp_path / "state", lambda bench: bench.catalogue.frameworks["nerc-cip"]).data
    with zipfile.ZipFile(io.BytesIO(pack)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    path, key = tmp_path / "pack.zip", tmp_path / "state/keys/audit.pub"
    path.write_bytes(pack)
    assert tool.main([str(path), "--key", str(key)]) == 0
    now = json.loads(files["results.json"])["now"]
    for check, better in (("policy.least", "observed"), ("policy.change-approved", "attested")):
        assert now[check]["status"] == "stale"
        now[check].update(status=better, says=now[check]["says"].partition(": ")[2])
    files["results.json"] = json.dumps(json.loads(files["results.json"]) | {"now": now}).encode()
    path.write_bytes(zipped(files))
    capsys.readouterr()
    assert tool.main([str(path), "--key", str(key)]) == 1
    out = capsys.readouterr().out
    for check in ("policy.least", "policy.change-approved"):
        assert f"check {check}: rests on what was found or signed under another policy" in out


def test_archives_that_are_none(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verdict(made, b"", tmp_path, capsys)[0] == 2
    assert verdict(made, made.pack[:-100], tmp_path, capsys)[0] == 2
    for name in ("../evil", "/etc/passwd", "a/../../b", "a\\b", "", "C:/x", "a//b", ".hidden", "a\nb"):
        files = dict(made.files) | {name or " ": b"x"}
        code, said = verdict(made, zipped(files), tmp_path, capsys)
        assert code == 1, name
        assert "is no name of a file of a pack" in said
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in made.files.items():
            archive.writestr(name, data)
        archive.writestr("bomb", b"\0" * (20 << 20))
    assert "is a bomb" in verdict(made, out.getvalue(), tmp_path, capsys)[1]
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(link, "/etc/passwd")
    assert "is no plain file" in verdict(made, out.getvalue(), tmp_path, capsys)[1]
    with pytest.warns(UserWarning, match="Duplicate"):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr("report.html", b"1")
            archive.writestr("report.html", b"2")
    assert "stands twice" in verdict(made, out.getvalue(), tmp_path, capsys)[1]


def test_every_byte_counts(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Bytes all over the archive, each changed alone: never "good", and never a traceback."""
    for at in range(7, len(made.pack), len(made.pack) // 60):
        changed = bytearray(made.pack)
        changed[at] ^= 0x55
        code, said = verdict(made, bytes(changed), tmp_path, capsys)
        only_bob = said.splitlines() == [
            line for line in said.splitlines() if "Bob Stein" in line or "WRONG: 1" in line
        ]
        # Dates and attributes in the archive's own headers are nobody's concern: they change nothing of a file.
        assert code in (1, 2), at
        if only_bob:
            with zipfile.ZipFile(io.BytesIO(bytes(changed))) as archive:
                assert {name: archive.read(name) for name in archive.namelist()} == made.files


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("report.html", b"<a" * 150_000), ("report.html", b"<!--" * 150_000), ("report.html", b"</" * 150_000),
        ("report.html", b"<?" * 150_000), ("report.html", b"<div>" * 150_000),
        ("report.html", tool.BEGINS + b"<b>" * 4_000_000),
        ("report.csv", b"control,status\n" + b"a,b\n" * 2_000_000),
    ],
    ids=["tags", "comments", "ends", "instructions", "one in the other", "a large page", "a large table"],
)  # fmt: skip
def test_a_page_without_end_holds_no_verifier_up(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, data: bytes
) -> None:
    """Anybody can lay one into a pack: what does not end is looked for again from each of thousands, and a table of
    two letters a row takes a hundred times as much memory."""
    code, said = verdict(made, zipped(made.files | {name: data}), tmp_path, capsys)
    assert code == 1 and f"{name}: was changed" in said
    if name == "report.html" and len(data) < 1 << 20:  # by who holds the key as well
        files = made.signed_anew(made.files | {name: data})
        assert f"{name}: has what no page of ours has" in verdict(made, zipped(files), tmp_path, capsys)[1]


def test_what_is_compressed_is_named_and_not_unpacked(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Below the ratio of a bomb, five megabytes make a gigabyte."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in made.files.items():
            archive.writestr(name, data)
    code, said = verdict(made, out.getvalue(), tmp_path, capsys)
    assert code == 1 and "report.html: is compressed" in said and "removed" not in said


def test_words_without_end_are_cut(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = made.files | {"manifest.json": json.dumps({"format": "x" * 1_000_000}).encode()}
    assert max(map(len, verdict(made, zipped(files), tmp_path, capsys)[1].splitlines())) < 1100


def test_a_file_that_cannot_be_read_is_not_told_as_removed(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One byte inside a file's packed data: that file is named, by what is wrong with it."""
    changed = bytearray(zipped(made.files))
    with zipfile.ZipFile(io.BytesIO(bytes(changed))) as archive:
        info = archive.getinfo("results.json")
    changed[info.header_offset + 30 + len(info.filename) + 9] ^= 1
    code, said = verdict(made, bytes(changed), tmp_path, capsys)
    assert code == 1
    assert "results.json: cannot be read: Bad CRC-32" in said
    assert "missing" not in said and "removed" not in said


def test_a_statement_counts_once_and_nobody_takes_it_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A withdrawal by a stranger withdraws nothing; a statement that was withdrawn is not brought again."""
    ledger = Ledger(tmp_path / "state")
    ledger.begin()
    ada, eve = make_key(tmp_path), make_key(tmp_path, "eve")
    ledger.say(SignerAdded(person="Ada Berg", key=sshsig.key_line(Path(f"{ada}.pub").read_text()), role="owner"))
    made: dict[str, Any] = {}
    for check in ("paper.incident", "paper.training"):
        said, until = statement(ledger, check)
        made[check] = AttestationMade(check=check, person="Ada Berg", statement=said, until_ns=until,
                                      signature=signature(ada, said))  # fmt: skip
        index = ledger.say(made[check])
        key = eve if check == "paper.incident" else ada
        text = attest.withdrawal(site=SITE, attestation=index, text="", person="Ada Berg", made_ns=ledger.now)
        ledger.say(AttestationWithdrawn(attestation=index, person="Ada Berg", statement=text,
                                        signature=signature(key, text)))  # fmt: skip
    again = ledger.say(made["paper.training"])
    ledger.close()
    pack = make(tmp_path / "state", lambda bench: bench.catalogue.frameworks["nist-800-53r5"])
    (tmp_path / "pack.zip").write_bytes(pack.data)
    with zipfile.ZipFile(tmp_path / "pack.zip") as archive:
        now = json.loads(archive.read("results.json"))["now"]
    assert now["paper.incident"]["status"] == "attested"
    assert now["paper.training"]["status"] == "failed"
    assert tool.main([str(tmp_path / "pack.zip"), "--key", str(tmp_path / "state/keys/audit.pub")]) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"attestation of entry {again}: repeats the statement of entry {again - 2}", "WRONG: 1 findings in the pack",
    ]  # fmt: skip


def test_keys_and_periods_that_are_wrong(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pack.zip").write_bytes(made.pack)
    for text in ("", "x", "a+b+c", SignerKey("other", b"y" * 32).verifier.text):
        (tmp_path / "key").write_text(text)
        assert tool.main([str(tmp_path / "pack.zip"), "--key", str(tmp_path / "key")]) in (1, 2)
        capsys.readouterr()
    assert tool.main([str(tmp_path / "key"), "--key", str(tmp_path / "pack.zip")]) == 2  # the one for the other
    assert "the key is not in vkey form" in capsys.readouterr().err
    with pytest.raises(CofferdamError, match="is not a time"):
        make(made.state, lambda bench: bench.catalogue.frameworks["nis2"], since="yesterday week")


def test_a_period(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "state")
    ledger.begin()
    for day in (0, 1, 2, 3):
        ledger.day(day)
        ledger.found("log.whole", "tested" if day != 2 else "failed")
    ledger.close()
    day = 86_400 * NS

    def at(days: float) -> str:
        from cofferdam.evidence.reports import when

        return when(int(1_795_000_000 * NS + days * day))

    pack = make(
        tmp_path / "state", lambda bench: bench.catalogue.frameworks["nist-800-53r5"], since=at(0.5), until=at(2.5)
    )
    with zipfile.ZipFile(io.BytesIO(pack.data)) as archive:
        results = json.loads(archive.read("results.json"))
    assert [one["outcome"] for one in results["history"]] == ["tested", "failed"]
    assert results["now"]["log.whole"]["status"] == "failed"
    changed = {one["control"]: (one["before"], one["now"]) for one in results["report"]["changed"]}
    assert changed["au-9.3"] == ("tested", "failed")
    for wrong in ({"since": "2099-01-01"}, {"until": "2020-01-01"}, {"since": at(2.5), "until": at(1)}):
        with pytest.raises(CofferdamError, match="the log has no entry from"):
            make(tmp_path / "state", lambda bench: bench.catalogue.frameworks["nis2"], **wrong)
    # A day at the end is meant with all its hours.
    day_of_third = at(2)[:10]
    pack = make(tmp_path / "state", lambda bench: bench.catalogue.frameworks["nis2"], since=at(0.5), until=day_of_third)
    with zipfile.ZipFile(io.BytesIO(pack.data)) as archive:
        results = json.loads(archive.read("results.json"))
    assert [one["outcome"] for one in results["history"]] == ["tested", "failed"]
