"""What people decide at the keeper and the installer: recorded, then done; one decision about a file at a time."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from msgspec.structs import replace

from cofferdam.brokers.broker import Asked
from cofferdam.brokers.patch import trustkeys
from cofferdam.brokers.patch.apt_tree import AptTree
from cofferdam.brokers.patch.book import Book, Table
from cofferdam.brokers.patch.catalogue import FileRow, Pending, Seen
from cofferdam.brokers.patch.installer import Installer
from cofferdam.brokers.patch.keeper_verbs import Verbs
from cofferdam.brokers.patch.plan import Held, Step
from cofferdam.brokers.patch.records import Looked
from cofferdam.brokers.patch.releases import SIGNATURES_BYTES, Releases
from cofferdam.brokers.patch.reports import Report
from cofferdam.brokers.patch.repository import Repository
from cofferdam.brokers.patch.sealing import Sealing
from cofferdam.brokers.patch.sources import Fetching
from cofferdam.brokers.patch.witnesses import Witnesses
from cofferdam.cli.main import main
from cofferdam.cli.patch import _to_sign, compared
from cofferdam.cli.patch_shown import goes_to, next_window, shown
from cofferdam.cli.ssh_signing import ssh_sign
from cofferdam.errors import GateError, StoreFull
from cofferdam.policy.terms.patch_rows import Origin, PatchRows, Product
from tests.brokers.patch.makers import ssh_key
from tests.brokers.patch.vouching import WITNESSES, word

PEOPLE = ("alice", "bob", "h1")
REPORT = Report(sha256="ab" * 32, size=3, origin="o", refused="", facts={}, kind="k", archive="", scan="clean",
                scan_detail="", base="")  # fmt: skip


class Log:
    """An audit log that writes when a test says so."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Any, Callable[[bool, str], None]]] = []
        self.written: list[Any] = []

    def record(self, draft: Any, done: Callable[[bool, str], None]) -> None:
        self.waiting.append((draft, done))

    def note(self, draft: Any, **_: Any) -> None:
        self.written.append(draft)

    def write(self, ok: bool = True) -> None:
        while self.waiting:
            draft, done = self.waiting.pop(0)
            if ok:
                self.written.append(draft)
            done(ok, "" if ok else "the disk is full")


class Desk:
    """A keeper's verbs, and what they work on."""

    def __init__(self, folder: Path, keys: dict[str, Path]) -> None:
        self.keys = keys
        private = Ed25519PrivateKey.generate()
        pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

        def person(name: str) -> trustkeys.OpenSshKey:
            return trustkeys.person_key(keys[name].with_suffix(".pub").read_text(), name)

        root = trustkeys.make_root(
            [person("alice"), person("bob")], [person("h1")], trustkeys.SSlibKey.from_crypto(private.public_key()),
            signatures=2, root_signatures=1,
        )  # fmt: skip
        self.log = Log()
        book = Book(folder / "book.db")
        self.files: Table[FileRow] = Table(book, "file", FileRow)
        self.pending: Table[Pending] = Table(book, "pending", Pending)
        self.repository = Repository(folder / "tuf", trustkeys.encode(root), pem)
        self.asked_for = True
        (folder / "quarantine").mkdir()
        self.keeper: Any = SimpleNamespace(
            setting=SimpleNamespace(audit=self.log, reactor=SimpleNamespace(call_in=lambda _, call: call())),
            store=folder, sealing=Sealing(None, encrypt=False), drop_files=lambda _number: None,
            files=self.files, pending=self.pending,
            looked=Looked(0), rows=PatchRows(separate=True, signatures=2), repository=self.repository, now=10**18,
            witnesses=WITNESSES, as_asked=lambda _row: self.asked_for, keep=lambda row: self.files.put(row.number, row),
            tell_installer=lambda: None, fetching=SimpleNamespace(forget=lambda _row: None),
            desk=SimpleNamespace(verbs={}, is_document=lambda _row: False),
        )  # fmt: skip
        self.releases = Releases(self.keeper)
        self.verbs = Verbs(self.keeper, self.releases)
        for number in (1, 2):
            (folder / "quarantine" / str(number)).write_bytes(b"abc")
            vouches = (word("put", "stage", f"fw/{number}.0/fw.bin", "ab" * 32),)
            self.files.put(
                number,
                FileRow(number=number, product="fw", version=f"{number}.0", file="fw.bin", size=3, sha256="ab" * 32,
                        by="stage", how="put", at=1, state="passed", report=REPORT, vouches=vouches),
            )  # fmt: skip

    def ask(self, verb: str, **said: Any) -> list[tuple[str, str]]:
        """What it is answered, now or later: (answer, error)."""
        answers: list[tuple[str, str]] = []
        if verb == "request":
            said = {"vouch": word("request", "planner", f"fw/{said['number']}.0/fw.bin", "ab" * 32), **said}
        data = msgspec.json.encode({"by": "planner", **said})
        asked = Asked(verb, data, lambda result, error, _hint: answers.append((result.decode(), error)))
        try:
            self.verbs.command(asked)
        except GateError as error:
            answers.append(("", str(error)))
        return answers

    def signature(self, who: str, number: int) -> str:
        metadata = trustkeys.decode(self.pending.rows[str(number)].metadata.encode(), trustkeys.Targets)
        return ssh_sign(self.keys[who], trustkeys.to_sign(metadata.signed)).decode()


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("keys")
    return {name: ssh_key(folder, name) for name in PEOPLE}


@pytest.fixture
def desk(tmp_path: Path, keys: dict[str, Path]) -> Desk:
    return Desk(tmp_path, keys)


def test_two_who_sign_at_once_are_both_counted(desk: Desk) -> None:
    desk.ask("request", number=1)
    desk.log.write()
    first = desk.ask("approve", number=1, signature=desk.signature("alice", 1))
    second = desk.ask("approve", number=1, signature=desk.signature("bob", 1))
    desk.log.write()
    assert first[0][1] == ""
    assert "being decided" in second[0][1]  # it is told so, and not lost
    again = desk.ask("approve", number=1, signature=desk.signature("bob", 1))
    desk.log.write()
    assert '"released":true' in again[0][0]
    assert desk.files.rows["1"].state == "released"


def test_a_signature_is_of_what_is_asked_now(desk: Desk) -> None:
    """What was signed and then asked for anew, with another reason, has to be signed anew."""
    desk.ask("request", number=1, reason="one")
    desk.log.write()
    before = {who: desk.signature(who, 1) for who in ("alice", "bob")}
    desk.ask("reject", number=1)
    desk.log.write()
    desk.files.put(1, replace(desk.files.rows["1"], state="passed"))
    desk.ask("request", number=1, reason="another")
    desk.log.write()
    for who, signature in before.items():
        assert "the signature does not hold" in desk.ask("approve", number=1, signature=signature)[0][1], who
        desk.log.write()
    assert desk.pending.rows["1"].signatures == {}
    assert desk.files.rows["1"].state == "requested"


def test_what_is_rejected_while_it_is_signed_is_one_of_both(desk: Desk) -> None:
    desk.ask("request", number=1)
    desk.log.write()
    desk.ask("approve", number=1, signature=desk.signature("alice", 1))
    desk.log.write()
    desk.ask("approve", number=1, signature=desk.signature("bob", 1))
    refused = desk.ask("reject", number=1)
    desk.log.write()
    assert "being decided" in refused[0][1]
    assert desk.files.rows["1"].state == "released"


def test_a_request_that_a_crash_halved_stands(desk: Desk) -> None:
    """What is asked for was in the book, and the file's own row not yet."""
    desk.ask("request", number=1)
    desk.log.write()
    desk.files.put(1, replace(desk.files.rows["1"], state="passed"))
    desk.releases.mend()
    assert desk.files.rows["1"].state == "requested"
    (_, error), *_ = desk.ask("request", number=1)
    assert "asked for already" in error


def test_what_was_rejected_stays_so_after_a_crash_and_stands_in_nobodys_way(desk: Desk) -> None:
    desk.ask("request", number=1)
    desk.log.write()
    desk.ask("approve", number=1, signature=desk.signature("alice", 1))
    desk.log.write()
    pending = desk.pending.rows["1"]
    signed = desk.signature("bob", 1)
    desk.ask("reject", number=1)
    desk.log.write()
    desk.pending.put(1, pending)  # the crash came before this row was gone
    desk.releases.mend()
    assert desk.files.rows["1"].state == "rejected" and not desk.pending.rows
    (_, error), *_ = desk.ask("approve", number=1, signature=signed)
    assert "nothing is asked for file 1" in error
    desk.ask("request", number=2)
    desk.log.write()
    assert set(desk.pending.rows) == {"2"}
    # And the other way round: what is asked for is gone, and the file's row still says that something is.
    desk.pending.drop(2)
    desk.releases.mend()
    assert desk.files.rows["2"].state == "passed"


def test_what_a_full_disk_halves_is_rejected_again(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.ask("request", number=1)
    desk.log.write()

    def full(*_: Any) -> None:
        raise StoreFull("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(desk.files, "put", full)
        answers = desk.ask("reject", number=1)
        desk.log.write()
    assert "disk" in answers[0][1]
    assert not desk.pending.rows
    desk.ask("reject", number=1)
    desk.log.write()
    assert desk.files.rows["1"].state == "rejected"


def test_two_requests_at_once_are_one(desk: Desk) -> None:
    desk.ask("request", number=1)
    second = desk.ask("request", number=2)
    desk.log.write()
    assert "one release stands at a time" in second[0][1]
    assert list(desk.pending.rows) == ["1"]


def test_what_nobody_saw_come_is_not_released(desk: Desk) -> None:
    """A file of an earlier version, or under keys that are gone; and one that was asked for, and signed, by then."""
    desk.ask("request", number=1)
    desk.log.write()
    desk.ask("approve", number=1, signature=desk.signature("alice", 1))
    desk.log.write()
    signature = desk.signature("bob", 1)
    desk.keeper.witnesses = Witnesses({})
    assert "is not the gate's" in desk.ask("approve", number=1, signature=signature)[0][1]
    signed = desk.pending.rows["1"]
    full = msgspec.structs.replace(signed, signatures={**signed.signatures, "bob": "x"})
    assert not desk.releases.finish_if_signed(full, "the keeper")
    desk.ask("reject", number=1)
    desk.log.write()
    assert "is not the gate's" in desk.ask("request", number=2)[0][1]
    desk.files.put(2, msgspec.structs.replace(desk.files.rows["2"], vouches=()))
    desk.keeper.witnesses = WITNESSES
    assert "nobody saw stage bring it in" in desk.ask("request", number=2)[0][1]
    desk.keeper.rows = PatchRows(separate=False, signatures=2)
    desk.ask("request", number=2)
    desk.log.write()
    assert list(desk.pending.rows) == ["2"]


def test_who_asked_is_shown_and_is_no_approver(desk: Desk) -> None:
    """Whoever asks is who the gate saw, for the file that they meant."""
    other = word("request", "planner", "fw/2.0/fw.bin", "ab" * 32)
    assert "is not the gate's" in desk.ask("request", number=1, vouch=other)[0][1]
    own = word("request", "Alice", "fw/1.0/fw.bin", "ab" * 32)
    desk.ask("request", number=1, by="Alice", vouch=own)
    desk.log.write()
    assert "alice asked for its release" in desk.ask("approve", number=1, signature=desk.signature("alice", 1))[0][1]
    signed = trustkeys.decode(desk.pending.rows["1"].metadata.encode(), trustkeys.Targets).signed
    assert "  brought in  by stage (put, 2027-01-15 08:00 UTC)" in list(shown(signed, 1, {}))
    assert "  asked for   by Alice, 2027-01-15 08:00 UTC" in list(shown(signed, 1, {}))
    custom = signed.targets["fw/1.0/fw.bin"].unrecognized_fields["custom"]
    custom["uploaded_by"] = "stick"  # left in a folder first
    rows = " ".join(row.strip() for row in shown(signed, 1, {}))
    assert "by stage (put, 2027-01-15 08:00 UTC) and by stick; nobody saw who that was" in rows


def test_what_was_fetched_and_nobody_saw_come_comes_again_once_it_is_rejected(desk: Desk) -> None:
    """Its source had it for good otherwise: "it is known"."""
    fetching = Fetching(desk.keeper, Book(desk.keeper.store / "seen.db"))
    desk.keeper.fetching = fetching
    for number, vouches in ((1, ()), (2, (word("fetch", "mirror", "fw/2.0/fw.bin", "ab" * 32),))):
        row = desk.files.rows[str(number)]
        desk.files.put(number, msgspec.structs.replace(row, by="mirror", how="fetch", vouches=vouches))
        seen = Seen(source="mirror", product="fw", version=row.version, file="fw.bin", size=3, mark="", sha256="", at=1)
        fetching.seen.put(f"mirror/fw/{row.version}/fw.bin", seen)
        desk.ask("reject", number=number)
        desk.log.write()
    assert list(fetching.seen.rows) == ["mirror/fw/2.0/fw.bin"]


def test_a_long_list_is_signed_in_pieces(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for signatures is the whole list, of which an answer has a piece."""
    desk.ask("request", number=1)
    desk.log.write()
    pending = desk.pending.rows["1"]
    whole = '{"a":"\n"}' * 100_000
    desk.pending.put(1, msgspec.structs.replace(pending, metadata=whole))

    def keeper(_args: object, verb: str, **said: object) -> Any:
        ((answer, error),) = desk.ask(verb, **said)
        assert not error, error
        return msgspec.json.decode(answer)

    monkeypatch.setattr("cofferdam.cli.patch._keeper", keeper)
    assert _to_sign(argparse.Namespace(number=1)) == whole
    assert keeper(None, "to-sign", number=1, offset=len(whole))["metadata"] == ""


def test_a_list_that_is_full_is_said_so_before_it_is_signed(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trustkeys, "METADATA_BYTES", SIGNATURES_BYTES + 500)
    assert "is full: it would have" in desk.ask("request", number=1)[0][1]
    assert not desk.log.waiting


@pytest.mark.parametrize("reason", ["", "  \t"])
def test_an_emergency_has_a_reason(desk: Desk, reason: str) -> None:
    assert "has a reason" in desk.ask("request", number=1, emergency=True, reason=reason)[0][1]
    assert not desk.log.waiting


def test_a_file_that_another_policy_passed_is_looked_at_again(desk: Desk) -> None:
    desk.asked_for = False
    assert "another policy" in desk.ask("request", number=1)[0][1]


def test_a_root_is_taken_when_the_log_has_it(desk: Desk) -> None:
    old = desk.repository.root.signed
    fresh = trustkeys.Metadata(trustkeys.Root.from_dict({**old.to_dict(), "version": 2}))
    fresh.signatures.clear()
    found = trustkeys.signature(ssh_sign(desk.keys["h1"], trustkeys.to_sign(fresh.signed)))
    fresh.signatures[found.keyid] = found
    answers = desk.ask("root", metadata=trustkeys.encode(fresh).decode())
    assert desk.repository.root.signed.version == 1
    desk.log.write(ok=False)
    assert "nothing can be recorded" in answers[0][1]
    assert desk.repository.root.signed.version == 1
    desk.ask("root", metadata=trustkeys.encode(fresh).decode())
    desk.log.write()
    assert desk.repository.root.signed.version == 2


def test_an_approver_is_shown_all_that_is_new(desk: Desk) -> None:
    """An owned keeper puts a second file into the list that people sign."""
    desk.ask("request", number=1)
    desk.log.write()
    signed = trustkeys.decode(desk.pending.rows["1"].metadata.encode(), trustkeys.Targets).signed
    assert list(shown(signed, 1, {}))
    desk.ask("reject", number=1)
    desk.log.write()
    desk.ask("request", number=2)
    desk.log.write()
    other = trustkeys.decode(desk.pending.rows["2"].metadata.encode(), trustkeys.Targets).signed
    signed.targets.update(other.targets)
    with pytest.raises(GateError, match="releases more than file 1"):
        list(shown(signed, 1, {}))
    assert [line for line in shown(signed, 1, {}, besides=True) if "AND ALSO    fw/2.0/fw.bin" in line]
    signed.targets["fw/2.0/fw.bin"].hashes["sha256"] = "../book.db".rjust(64, "/")
    with pytest.raises(GateError, match="not what a keeper writes"):
        list(shown(signed, 1, {}))


def test_who_signs_is_shown_where_it_goes_and_when(desk: Desk) -> None:
    desk.ask("request", number=1)
    desk.log.write()
    signed = trustkeys.decode(desk.pending.rows["1"].metadata.encode(), trustkeys.Targets).signed
    product = next(iter(signed.targets)).partition("/")[0]
    hour = 3600 * 10**9
    night, none = [[hour, 2 * hour], [25 * hour, 26 * hour]], list[list[int]]()
    plan = {
        "assets": [
            {"asset": asset, "product": of, "ring": "test", "windows": when}
            for asset, of, when in (
                ("a", product, night),
                ("b", product, night),
                ("c", product, none),
                ("d", "x", night),
            )
        ]
    }
    clocks = [{"clock": "evaluate", "due": "2027-01-31", "overdue": True, "assets": ["z", "d"]},
              {"clock": "plan", "due": "2027-02-28", "overdue": False, "assets": ["c", "a", "z"]}]  # fmt: skip
    advisories = [{"advisory": "VEN-1", "title": "Port 80", "clocks": clocks}]
    assert list(goes_to(signed, 1, plan, advisories)) == [
        "By the policy it goes to", "  ring test: a, b", "    window 1970-01-01 01:00 UTC to 1970-01-01 02:00 UTC",
        "    window 1970-01-02 01:00 UTC to 1970-01-02 02:00 UTC", "  ring test: c", "    no window within four weeks",
        "  advisory VEN-1 (Port 80) plan by 2027-02-28 for a, c",
    ]  # fmt: skip
    assert list(goes_to(signed, 1, {"assets": []})) == ["By the policy it goes to no asset"]
    mimic = f"x{' ' * 60}  SHA-256     {'0' * 64} "
    many = [{**advisories[0], "advisory": f"VEN-{number}", "title": mimic} for number in range(50)]
    lines = list(goes_to(signed, 1, plan, many))
    assert len(lines) == 6 + 8 + 1
    assert lines[-1] == "  and 42 more that are due later: `cofferdam patch advisories`"
    assert "  SHA-256" not in "".join(lines)


@pytest.mark.parametrize("filler", [" ", "a", "\u3042", "\u200b", "\n"])
def test_no_row_of_what_others_wrote_looks_like_one_of_ours(desk: Desk, filler: str) -> None:
    """As wide as a terminal is, what it breaks begins at its left."""
    desk.ask("request", number=1, reason=f"{filler * 66} SHA-256     {'0' * 64}")
    desk.log.write()
    signed = trustkeys.decode(desk.pending.rows["1"].metadata.encode(), trustkeys.Targets).signed
    lines = list(shown(signed, 1, {}))
    assert sum(line.startswith("  SHA-256") for line in lines) == 1
    written = lines[next(at for at, line in enumerate(lines) if line.startswith("  reason")) :]
    assert all(sum(1 + (letter > "\u1100") for letter in line) <= 79 for line in written[:-1]), lines


@pytest.mark.parametrize(
    ("state", "has", "windows", "says"),
    [
        ("", "", [[0, 3600 * 10**9]], "next window 1970-01-01 00:00 UTC to 1970-01-01 01:00 UTC"),
        ("done", "1.0", [[0, 3600 * 10**9]], "next window 1970-01-01 00:00 UTC to 1970-01-01 01:00 UTC"),
        ("done", "2.0", [[0, 3600 * 10**9]], ""),
        ("", "", [[0, 4 * 7 * 86_400 * 10**9]], ""),
        ("", "", [], "no window within four weeks"),
    ],
)
def test_the_next_window_of_who_waits(state: str, has: str, windows: list[list[int]], says: str) -> None:
    row = {"release": "2.0", "number": 2, "state": state, "has": has, "windows": windows}
    assert next_window(row, {1}) == says
    assert not next_window(row, {2})  # an emergency waits for none
    assert not next_window({**row, "release": ""})


def test_pause_holds_once_the_log_has_it(tmp_path: Path) -> None:
    log = Log()
    installer: Any = object.__new__(Installer)
    installer.rows = PatchRows(products=(Product(name="fw", origin=Origin(proof="pgp", keys=()), most=1),))
    installer.setting = SimpleNamespace(audit=log, wall=lambda: 1)
    book = Book(tmp_path / "book.db")
    installer._held, installer.steps = Table(book, "held", Held), Table(book, "step", Step)
    installer._trust, installer._lacking, installer._running = None, {}, {}
    installer._cut, installer._why, installer._full, installer.stopping = False, "", "", False
    installer._guards = SimpleNamespace(why=lambda _: "")
    installer.api = AptTree(installer)
    installer.policy = SimpleNamespace(conduits={}, table=SimpleNamespace(clocks={}))
    answers: list[str] = []
    data = msgspec.json.encode({"by": "bob", "product": "fw"})
    for ok, paused, said in ((False, (), "nothing can be recorded: the disk is full"), (True, ("fw",), "")):
        installer.command(Asked("pause", data, lambda _result, error, _hint: answers.append(error)))
        assert (installer.held.paused, answers) == ((), [])
        log.write(ok)
        assert installer.held.paused == paused
        assert answers.pop() == said


def test_a_key_that_is_no_holders_signs_no_first_root(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    root = desk.keeper.store / "root.json"
    root.write_bytes(trustkeys.encode(desk.repository.root))
    assert main(["patch", "root", "sign", str(root), "--key", str(desk.keys["alice"])]) == 2
    assert "no holder's key" in capsys.readouterr().err
    assert main(["patch", "root", "sign", str(root), "--key", str(desk.keys["h1"])]) == 0
    assert "signed by h1" in capsys.readouterr().out


def test_what_was_thrown_away_is_not_missed() -> None:
    log = [{"kind": "file-taken", "number": number, "sha256": "a"} for number in (1, 2, 3, 4)]
    log += [{"kind": "file-examined", "number": 2, "verdict": "refused"},
            {"kind": "release-decided", "number": 3, "decision": "rejected"}]  # fmt: skip
    assert compared({4: "a"}, log, 0) == (4, ["file 1: the audit log knows it, and the keeper does not"])
    assert compared({4: "a"}, log, 4) == (4, [])
    assert compared({4: "b"}, log, 4) == (4, ["file 4: the audit log has another hash, or does not know it"])
