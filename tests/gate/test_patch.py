"""The patch relay in a gate that was started as a user starts it: real gpg, ssh-keygen, clamd and OpenSSH around it."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import signal
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from cofferdam.brokers.patch import trustkeys
from cofferdam.brokers.patch.repository import Repository
from cofferdam.cli.ssh_signing import ssh_sign
from cofferdam.errors import GateError
from cofferdam.gate.client import ask
from tests.brokers.patch.advisory import BOM, LIST, csaf, dumped
from tests.gate.patching import ME, Works
from tests.waiting import PATIENT, eventually, kill


@pytest.fixture(scope="module")
def works(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Works]:
    made = Works(tmp_path_factory.mktemp("works"))
    yield made
    made.close()


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Works]:
    """A gate of which nobody has asked anything."""
    made = Works(tmp_path / "works")
    yield made
    made.close()


def table(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as opened:
        return list(csv.DictReader(opened))


def test_a_genuine_file_goes_to_the_assets_once_two_have_signed(fresh: Works) -> None:
    works = fresh
    data = b"firmware 1.0 " * 50_000
    number = works.put("fw.bin", data, "1.0")
    found = works.examined(number)
    assert found["state"] == "passed", (found["reason"], works.gate.said()[-3000:])
    assert found["report"]["facts"]["name"].startswith("Vendor")
    works.patch("request", str(number), "--reason", "CVE-2026-1")
    works.approve(number, "alice")
    assert "signed already" in works.approve(number, "alice", code=2)
    assert "no approver" in works.patch("approve", str(number), "--key", str(works.keys["h1"]), "--yes", code=2)
    assert works.asset("plc-1")["why"] == "nothing is released"
    works.approve(number, "bob")
    eventually(lambda: works.asset("plc-2")["state"] == "done")
    assert (works.sshd.files / "fw.bin").read_bytes() == data
    assert (works.sshd.files / "two" / "fw.bin").read_bytes() == data
    works.patch("export", str(works.folder / "evidence.json"), "--tables", str(works.folder / "tables"))
    log = json.loads((works.folder / "evidence.json").read_text())["log"]
    kinds = [entry["kind"] for entry in log]
    order = ["file-taken", "file-examined", "release-requested", "release-signed", "release-decided",
             "releases-believed", "install-started", "install-ended"]  # fmt: skip
    assert [kinds.index(kind) for kind in order] == sorted(kinds.index(kind) for kind in order)
    started = {entry["sha256"] for entry in log if entry["kind"] == "install-started"}
    assert started == {hashlib.sha256(data).hexdigest()}
    changes = table(works.folder / "tables" / "cip-010-4-r1-6.csv")
    assert [(row["asset"], row["file"], row["approved by"], row["became"]) for row in changes] == [
        ("plc-1", "fw.bin", "alice bob", "done"), ("plc-2", "fw.bin", "alice bob", "done"),
    ]  # fmt: skip
    assert {row["sha256"] for row in changes} == started and all("Vendor" in row["origin"] for row in changes)
    assert all(row["verified"] < row["released"] < row["begun"] < row["ended"] for row in changes)
    assert "new folder" in works.patch(
        "export", str(works.folder / "a"), "--tables", str(works.folder / "tables"), code=2
    )
    assert not (works.folder / "a").exists()
    said = works.patch("export", str(works.folder / "evidence.json"), "--tables", str(works.folder / "b"), code=2)
    assert "new file" in said and not (works.folder / "b").exists()
    works.patch("verify")


def test_a_file_is_read_once_out_of_the_quarantine_to_be_examined(works: Works) -> None:
    size = 8 << 20
    number = works.put("large.bin", os.urandom(size), "9.0")
    assert works.examined(number)["state"] == "passed"
    halves = [half for pair in works.gate.status()["pairs"] for half in pair["halves"]]
    keeper = next(int(half["pid"]) for half in halves if half["name"].endswith("keeper"))

    def moved() -> dict[str, int]:
        rows = (row.split(": ") for row in Path(f"/proc/{keeper}/io").read_text().splitlines())
        return {name: int(count) for name, count in rows}

    before = moved()
    works.patch("examine", str(number))
    assert works.examined(number)["state"] == "passed"
    after = moved()
    for way in ("rchar", "wchar"):  # verbs and ticks are in it
        assert size <= after[way] - before[way] < 1.25 * size, way
    assert after["write_bytes"] - before["write_bytes"] < size // 4  # it goes to the examiner, and to no disk
    works.patch("reject", str(number))


def test_a_large_file_that_is_another_or_damaged(works: Works) -> None:
    """One that is fed to what checks its signature, since it opens no seal (feeding)."""
    data = os.urandom(9 << 20)
    other = works.examined(works.put("large.bin", data, "9.1", signature=works.vendor.sign(data + b"!")))
    assert (other["state"], "signature does not hold" in other["reason"]) == ("refused", True), other
    file = works.folder / "later.bin"
    file.write_bytes(data)
    words = ("--product", "plc-firmware", "--version", "9.2")
    number = int(works.told("put", str(file), *words)["number"])
    with (next(works.state.rglob("quarantine")) / str(number)).open("r+b") as opened:
        opened.seek(5 << 20)
        opened.write(bytes(64))
    beside = file.with_name("later.bin.asc")
    beside.write_bytes(works.vendor.sign(data))
    works.patch("put", str(beside), *words)
    found = works.examined(number)
    assert (found["state"], "is damaged" in found["reason"]) == ("failed", True), found
    assert not list(next(works.state.rglob("fed")).iterdir())
    whole = works.put("whole.bin", data, "9.3")
    assert works.examined(whole)["state"] == "passed"
    for each in (number, whole):
        works.patch("reject", str(each))


def test_what_is_not_the_vendors_is_refused(works: Works) -> None:
    data = b"firmware 6.6 " * 1000
    tampered = works.put("bad.bin", data + b"!", "6.6", signature=works.vendor.sign(data))
    found = works.examined(tampered)
    assert found["state"] == "refused"
    assert "does not hold" in found["reason"]
    assert "cannot be released" in works.patch("request", str(tampered), code=2)
    nested = io.BytesIO()
    with zipfile.ZipFile(nested, "w") as archive:
        archive.writestr("../../etc/passwd", "x")
    found = works.examined(works.put("slip.zip", nested.getvalue(), "6.7"))
    assert found["state"] == "refused"
    assert "leads out" in found["reason"]


def test_what_makes_no_sense_is_told_with_the_way_out(works: Works) -> None:
    file = works.folder / "odd one.bin"
    file.write_bytes(b"odd")
    there = ("--product", "plc-firmware", "--version")
    assert "'odd one.bin' cannot be a file's name" in works.patch("put", str(file), *there, "1.0", code=2)
    plain = works.folder / "plain.bin"
    plain.write_bytes(b"plain")
    assert "'1 0' cannot be a version" in works.patch("put", str(plain), *there, "1 0", code=2)
    odd = works.patch("put", str(plain), "--product", "../x", "--version", "1.0", code=2)
    assert "there is no product '../x'" in odd and "`products:` names them" in odd
    assert "there is no source '../x'" in works.patch("fetch", "../x", code=2)
    gone = str(works.folder / "gone.asc")
    assert f"{gone} is no file\n" in works.patch("put", str(plain), *there, "1.0", "--signature", gone, code=2)
    number = works.put("plain.bin", b"plain", "0.1")
    assert works.examined(number)["state"] == "passed"
    works.patch("request", str(number))
    assert "was asked for already" in works.patch("request", str(number), code=2)
    assert works.patch("approve", str(number), "--key", gone, "--yes", code=2).startswith("cofferdam patch: ")
    assert "assets get plc-firmware" in works.patch("pause", "nope", code=2)
    assert "    at any time\n" in works.patch("plan")
    works.patch("reject", str(number))


def test_whoever_brought_it_in_or_asked_is_none_of_the_two(works: Works) -> None:
    """The gate sees all as one user here, and that user is an approver."""
    number = works.put("own.bin", b"own", "3.0")
    assert works.examined(number)["state"] == "passed"
    works.patch("request", str(number))
    works.approve(number, "carol")
    said = works.approve(number, ME, code=2)
    assert "cannot be one of those who approve it" in said
    works.patch("reject", str(number), "--reason", "nobody needs it")
    assert works.state_of(number) == "rejected"


def test_uploads_by_https_and_assets_that_fetch(works: Works) -> None:
    upload = works.patch("key", "new", "stage").split()[0]
    panel = works.patch("key", "new", "panel").split()[0]
    data = b"panel firmware " * 100_000
    at = f"http://127.0.0.1:{works.office}/v1/products"
    with httpx.Client(headers={"authorization": f"Bearer {upload}"}, timeout=PATIENT) as client:
        assert client.get(at).json()["products"][0]["product"] == "plc-firmware"
        assert client.put(f"{at}/plc-firmware/4.0/p.bin", content=data).json()["waits"].startswith("its signature")
        done = client.put(f"{at}/plc-firmware/4.0/p.bin.asc", content=works.vendor.sign(data))
        assert done.status_code == 201
        assert client.put(f"{at}/plc-firmware/4.0/p.bin", content=data).status_code == 409
        assert client.put(f"{at}/other/4.0/p.bin", content=data).status_code == 404
        assert client.put(f"{at}/plc-firmware/4.0/..%2fp", content=data).status_code == 400
        assert client.put(f"{at}/plc-firmware/4.1/big", content=b"x" * 20_000_001).status_code == 413
    assert httpx.put(f"{at}/plc-firmware/4.2/q", content=data, timeout=PATIENT).status_code == 401
    number = int(done.json()["file"])
    assert works.examined(number)["state"] == "passed"
    works.patch("request", str(number))
    works.approve(number, "alice")
    works.approve(number, "bob")
    with httpx.Client(headers={"authorization": f"Bearer {panel}"}, timeout=PATIENT) as client:
        at = f"http://127.0.0.1:{works.plant}"
        eventually(lambda: "4.0" in client.get(f"{at}/v1/files").text)
        found = client.get(f"{at}/v1/files").json()["files"][0]
        got = client.get(f"{at}{found['at']}")
        assert hashlib.sha256(got.content).hexdigest() == found["sha256"]
        assert got.content == data
        eventually(lambda: works.asset("panel")["state"] == "sent")
        assert client.get(f"{at}{found['at']}").status_code == 403
        told = client.post(f"{at}/v1/results", json={"product": "plc-firmware", "says": "done"})
        assert told.json() == {"taken": True}
    assert works.asset("panel")["state"] == "done"


def test_an_installer_that_is_killed_while_it_sends_never_sends_again_by_itself(works: Works) -> None:
    def pid() -> int:
        halves = [half for pair in works.gate.status()["pairs"] for half in pair["halves"]]
        return next((int(half["pid"]) for half in halves if half["name"].endswith("installer") and half["ready"]), 0)

    def sent() -> int:
        works.patch("export", str(works.folder / "sent.json"))
        log = json.loads((works.folder / "sent.json").read_text())["log"]
        (works.folder / "sent.json").unlink()
        installs = [each for each in log if each["kind"].startswith("install-") and each["version"] == "8.0"]
        mine = [each for each in installs if each["asset"] == "plc-1"]  # once it is done, the next ring begins
        started = sum(1 for each in mine if each["kind"] == "install-started")
        # What is recorded as begun, and whose turn was over by then: the asset has not been touched.
        return started - sum(1 for each in mine if "not begun after all" in str(each.get("detail")))

    def has() -> bytes:
        path = works.sshd.files / "fw.bin"
        return path.read_bytes() if path.exists() else b""

    before = has()
    assert works.sshd.process is not None
    works.sshd.process.send_signal(signal.SIGSTOP)  # it takes connections and says nothing
    try:
        works.release("fw.bin", b"firmware 8.0 " * 1000, "8.0")
        eventually(lambda: works.asset("plc-1")["state"] == "sending")
        eventually(pid)
        kill(killed := pid())
        eventually(lambda: pid() not in (0, killed))
    finally:
        works.sshd.process.send_signal(signal.SIGCONT)
    works.gate.wait_ready()
    eventually(lambda: works.asset("plc-1")["state"] == "unknown")
    assert "a person has to say" in works.asset("plc-1")["why"]
    assert has() == before
    assert sent() == 1
    works.patch("result", "plc-1", "plc-firmware", "again", "--detail", "it has the old one")
    eventually(lambda: works.asset("plc-1")["state"] == "done")
    assert sent() == 2


@pytest.mark.parametrize("part", ["keeper", "installer", "intake"])
def test_what_is_known_outlives_any_part(works: Works, part: str) -> None:
    before, known = works.told("list"), works.asset("plc-1")

    def pid() -> int:
        halves = [half for pair in works.gate.status()["pairs"] for half in pair["halves"]]
        return next((int(half["pid"]) for half in halves if half["name"].endswith(part) and half["ready"]), 0)

    eventually(pid)
    kill(killed := pid())
    eventually(lambda: pid() not in (0, killed))
    works.gate.wait_ready()
    assert works.told("list") == before
    eventually(lambda: works.asset("plc-1")["release"] == known["release"])
    assert works.asset("plc-1")["has"] == known["has"]
    works.patch("verify")


def test_an_advisory_is_matched_answered_and_planned_for(works: Works) -> None:
    data = dumped(csaf("VEN-2026-7"))
    number = works.put("ven-2026-7.json", data, "1", product="advisories")
    eventually(lambda: works.state_of(number) == "read")
    found = works.told("advisories", "VEN-2026-7")
    assert [(one["asset"], one["verdict"], one["named"]) for one in found["assets"]] == [
        ("panel", "unknown", False), ("plc-1", "affected", True), ("plc-2", "not affected", True),
    ]  # fmt: skip
    assert found["clocks"][0]["clock"] == "evaluate"
    due = found["clocks"][0]["due"]
    assert f"advisories: 1 open; first due: VEN-2026-7, evaluate by {due} for plc-1, plc-2\n" in works.patch("status")
    assert "--rest" in works.patch("evaluate", "VEN-2026-7", "--note", "as it says", code=2)
    done = works.told("evaluate", "VEN-2026-7", "--rest", "--note", "no other asset has it")
    assert [clock["clock"] for clock in done["clocks"]] == ["plan"]
    assert done["clocks"][0]["assets"] == ["plc-1"]
    words = ("--owner", "maintenance", "--text", "port 80 is shut at the switch", "--until", "2199-01-01")
    assert works.told("plan", "VEN-2026-7", *words)["plans"][0]["approver"] == ""
    assert "somebody else" in works.patch("plan", "VEN-2026-7", "--approve", "1", code=2)  # all are one user here
    works.patch("evaluate", "VEN-2026-7", "--asset", "plc-1", "--patch-state", "installed")
    assert works.told("advisories", "VEN-2026-7")["standing"] == "done"
    assert works.told("status")["keeper"]["soonest"] is None
    assert "advisories: 1 done\n" in works.patch("status")
    assert "not released" in works.patch("request", str(number), code=2)
    lists = works.put("patches.csv", LIST, "1", product="advisories")
    bom = works.put("plc-9.cdx.json", dumped(BOM), "3.1", product="advisories")
    foreign = works.put("other.json", dumped(csaf("X-1", namespace="https://else.example")), "1", product="advisories")
    eventually(
        lambda: (works.state_of(lists), works.state_of(bom), works.state_of(foreign)) == ("read", "read", "refused")
    )
    assert "published by" in works.told("show", str(foreign))["reason"]
    assert works.told("advisories")["counts"]["open"] == 2
    works.patch("export", str(works.folder / "advisories.json"), "--tables", str(works.folder / "answers"))
    states = table(works.folder / "answers" / "iec-62443-2-3.csv")
    assert {(row["advisory"], row["asset"], row["whose"], row["state"], row["who"]) for row in states} == {
        ("KB1", "", "vendor", "approved", "https://vendor.example"),
        ("KB2", "", "vendor", "in-test", "https://vendor.example"),
        ("VEN-2026-7", "plc-1", "owner", "installed", ME),
    }
    assert all(row["when"].startswith("20") for row in states)
    answers = {
        row["asset"]: row
        for row in table(works.folder / "answers" / "cip-007-6-r2.csv")
        if row["advisory"] == "VEN-2026-7"
    }
    assert [(name, row["document says"], row["concerns it"], row["answered by"]) for name, row in answers.items()] == [
        ("plc-1", "affected", "yes", ME), ("plc-2", "not affected", "no", ME), ("(all others)", "unknown", "no", ME),
    ]  # fmt: skip
    assert (answers["plc-1"]["owner"], answers["plc-1"]["until"]) == ("maintenance", "2199-01-01T23:59:59Z")
    assert (answers["plc-1"]["approved by"], answers["plc-1"]["state"]) == ("", "installed")
    works.patch("advisories")
    works.patch("verify")


def test_a_key_of_the_gates_word_that_is_gone_is_said_so(works: Works) -> None:
    """It made another one, which keeper and installer did not know: each file "was another one", for good."""
    (key,) = works.state.glob("secrets/*/gate/vouch")
    data = key.read_bytes()
    key.unlink()
    plain = works.folder / "keyless.bin"
    plain.write_bytes(b"plain")
    said = works.patch("put", str(plain), "--product", "plc-firmware", "--version", "8.8", code=2)
    assert "by which the gate says who asks, is gone" in said and not key.exists()
    key.touch(0o600)
    key.write_bytes(data)
    works.patch("reject", str(works.told("put", str(plain), "--product", "plc-firmware", "--version", "8.8")["number"]))


def test_who_brought_a_file_in_is_not_the_keepers_word(fresh: Works) -> None:
    """An owned keeper has the one who uploaded and asked approve: it says that it was somebody else. Its installer
    believes nothing from then on."""
    works = fresh
    number = works.put("owned.bin", b"owned", "9.0")
    assert works.examined(number)["state"] == "passed"
    state = works.state

    def asks(verb: str, **said: object) -> Any:
        found = ask(state, "ask-part", broker="patch", part="keeper", verb=verb, arguments=said, crew="")
        return found[0]["result"]

    with pytest.raises(GateError, match="which file is meant is not said"):
        asks("request", number=number, vouch={"did": "request", "who": "stage", "at": 1, "signature": "00" * 64})
    (store,) = state.glob("stores/*/keeper")
    (store / "drop" / "abcdefgh").write_bytes(b"another")
    said = {"product": "plc-firmware", "version": "9.1", "file": "x.bin"}
    with pytest.raises(GateError, match="another file than was to be brought in"):
        asks("put", staged="abcdefgh", **said, claim={"what": "plc-firmware/9.1/x.bin", "sha256": "ab" * 32})
    works.patch("request", str(number))
    metadata = trustkeys.decode(asks("to-sign", number=number)["metadata"].encode(), trustkeys.Targets)
    mine = metadata.signed.targets["plc-firmware/9.0/owned.bin"].unrecognized_fields["custom"]
    assert (mine["uploaded_by"], mine["requested_by"]) == (ME, ME)
    assert [(each["did"], each["who"]) for each in (*mine["brought"], mine["asked"])] == [("put", ME), ("request", ME)]
    mine["uploaded_by"] = mine["requested_by"] = mine["brought"][0]["who"] = mine["asked"]["who"] = "stage"
    for who in (ME, "carol"):
        signature = trustkeys.signature(ssh_sign(works.keys[who], trustkeys.to_sign(metadata.signed)))
        metadata.signatures[signature.keyid] = signature
    (online,) = state.glob("secrets/*/keeper/online")
    Repository(store / "tuf", works.root.read_bytes(), online.read_bytes()).publish(metadata)
    for path in (store / "tuf" / "metadata").iterdir():
        path.chmod(0o644)
    eventually(lambda: "the word that stage did it (put) is not the gate's" in works.told("plan")["refused"])
    assert not (works.sshd.files / "owned.bin").exists()
