"""Advisories: what documents say, which are refused, what of an asset is known; and the clocks, to the second."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cofferdam.brokers.broker import Asked, Job
from cofferdam.brokers.patch.advice import desk, ledger, reader
from cofferdam.brokers.patch.advice.desk import Desk
from cofferdam.brokers.patch.advice.matching import Stated, matches
from cofferdam.brokers.patch.advice.records import Reading, ReadOrder
from cofferdam.brokers.patch.advice.versions import covers
from cofferdam.brokers.patch.book import Book, Table
from cofferdam.brokers.patch.catalogue import FileRow
from cofferdam.brokers.patch.sealing import Sealing
from cofferdam.cli.patch_advice import left_out, listed
from cofferdam.errors import GateError
from cofferdam.policy.terms.patch_rows import Duties, Origin, PatchRows, Product, Software
from tests.brokers.patch.advisory import BOM, LIST, VENDOR, csaf, dumped

DAY = 86_400 * 10**9
T0 = 1_793_500_000 * 10**9
"""2026-11-01, about."""


def plc(version: str = "2.9.4", **more: Any) -> Software:
    return Software(asset="plc", vendor=("Vendor",), product=("PLC 9", "6ES7-9"), version=version, **more)


def read(
    folder: Path, data: bytes, name: str = "a.json", *inventory: Software, boms: tuple[bytes, ...] = ()
) -> Reading:
    (folder / name).write_bytes(data)
    for index, bom in enumerate(boms):
        (folder / f"bom{index}").write_bytes(bom)
    order = ReadOrder(
        file=name, name=name, provider=VENDOR, inventory=inventory or (plc(),),
        boms=tuple(f"bom{index}" for index in range(len(boms))),
    )  # fmt: skip
    return msgspec.json.decode(reader.read(Job(msgspec.json.encode(order), {"keeper": folder})), type=Reading)


@pytest.mark.parametrize(
    ("said", "version", "scheme", "holds"),
    [
        ("vers:intdot/<3.0", "2.9.4", "intdot", True), ("vers:intdot/<3.0", "3.0", "intdot", False),
        ("vers:intdot/<=3.0", "3.0.0", "intdot", True), ("vers:intdot/>=2|<2.5|>=3|<3.1", "3.0", "intdot", True),
        ("vers:intdot/>=2|<2.5|>=3|<3.1", "2.7", "intdot", False),
        ("vers:intdot/>=3|<3.1|>=2|<2.5", "2.4", "intdot", True),
        ("vers:intdot/!=2.9.4", "2.9.4", "intdot", False), ("<V2.10", "2.9", "intdot", True),
        ("*", "x", "intdot", True),
        ("All versions < V3.0", "2.9.4", "intdot", True), (">= 2.0, < 2.9.4", "2.9.4", "intdot", False),
        ("all versions", "1", "intdot", True), ("vers:deb/<3.0", "2.0", "intdot", None),
        ("<3.0", "2.9 SP1", "intdot", None),
        ("<3.0 SP2", "2.9", "intdot", None), ("versions before spring", "2", "intdot", None),
        ("<", "2", "intdot", None),
        ("vers:deb/<1:2.0-1", "3.0-1", "deb", True), ("vers:semver/<1.0.0", "1.0.0-rc.1", "semver", True),
        ("vers:rpm/<2.0~beta", "2.0", "rpm", False), ("vers:pypi/<2.0", "2.0rc1", "pypi", True),
        ("", "1", "intdot", None),
        ("<" + "9" * 200, "1", "intdot", None), ("vers:intdot/" + "|".join(["<1"] * 500), "1", "intdot", None),
    ],
)  # fmt: skip
def test_ranges_hold_a_version_or_do_not_or_do_not_compare(said: str, version: str, scheme: str, holds: Any) -> None:
    assert covers(said, version, scheme) is holds


@given(st.lists(st.integers(0, 30), min_size=1, max_size=4), st.integers(0, 30))
def test_ranges_are_as_a_slow_model_has_them(bounds: list[int], own: int) -> None:
    """Pairs >=a|<b, in any order, against a list of what is in them."""
    edges = sorted(set(bounds))
    pairs = list(zip(edges[::2], edges[1::2], strict=False))
    parts = [part for low, high in pairs for part in (f">={low}.0", f"<{high}")]
    random.Random(own).shuffle(parts)
    if parts:
        assert covers("vers:intdot/" + "|".join(parts), str(own), "intdot") is any(a <= own < b for a, b in pairs)


R = "product_version_range"
V = "product_version"


@pytest.mark.parametrize(
    ("versions", "own", "verdict"),
    [
        (((R, "vers:intdot/<3.0", "known_affected"),), "2.9.4", "affected"),
        (((R, "vers:intdot/<3.0", "known_affected"),), "3.0", "not affected"),
        (((R, "vers:intdot/<3.0", "known_affected"),), "2.9 SP1", "unknown"),
        (((R, "vers:deb/<3.0", "known_affected"),), "2.9.4", "unknown"),
        (((V, "2.9.4", "known_affected"),), "2.9.4", "affected"),
        (((V, "2.9.3", "known_affected"),), "2.9.4", "unknown"),
        (((V, "2.9.4", "known_not_affected"),), "2.9.4", "not affected"),
        (((V, "2.9.4", "under_investigation"),), "2.9.4", "unknown"),
        (((R, "<3.0", "known_affected"), (V, "2.9.4", "known_not_affected")), "2.9.4", "affected"),
        (((V, "2.9 SP1", "known_affected"),), "2.9 sp1", "affected"), (((V, "9.9", "recommended"),), "2.9.4", None),
        (((R, "vers:intdot/*", "known_affected"),), "odd", "affected"),
    ],
)  # fmt: skip
def test_a_verdict_is_affected_not_affected_or_unknown(
    tmp_path: Path, versions: Any, own: str, verdict: str | None
) -> None:
    found = read(tmp_path, dumped(csaf(versions=versions)), "a.json", plc(own))
    assert (found.refused, found.kind) == ("", "csaf")
    assert [match.verdict for match in found.advice[0].matches] == ([verdict] if verdict else [])


def test_what_is_named_otherwise_is_not_called_unaffected(tmp_path: Path) -> None:
    other = Software(asset="x", vendor=("Other",), product=("PLC 9",), version="1")
    assert read(tmp_path, dumped(csaf()), "a.json", other).advice[0].matches == ()  # not named: unknown, for a person
    flat = csaf()
    flat["product_tree"] = {"full_product_names": [
        {"product_id": "P0", "name": "Vendor PLC 9 firmware"}, {"product_id": "P1", "name": "else"}]}  # fmt: skip
    found = read(tmp_path, dumped(flat)).advice[0].matches
    assert [(match.verdict, "without a vendor" in match.why) for match in found] == [("unknown", True)]
    model = csaf(product="Other name")
    for branch in model["product_tree"]["branches"][0]["branches"][0]["branches"]:
        branch["product"]["product_identification_helper"] = {"model_numbers": ["6ES7-9"]}
    assert [match.verdict for match in read(tmp_path, dumped(model)).advice[0].matches] == ["affected"]
    on = csaf()
    on["product_tree"]["relationships"] = [{
        "category": "installed_on", "product_reference": "P0", "relates_to_product_reference": "P1",
        "full_product_name": {"product_id": "R1", "name": "both"}}]  # fmt: skip
    on["vulnerabilities"][0]["product_status"] = {"known_affected": ["R1"]}
    assert [match.verdict for match in read(tmp_path, dumped(on)).advice[0].matches] == ["unknown"]


def deep(document: dict[str, Any], levels: int) -> dict[str, Any]:
    inner = document["product_tree"]["branches"]
    for _ in range(levels):
        inner = [{"category": "product_family", "name": "f", "branches": inner}]
    document["product_tree"]["branches"] = inner
    return document


def circle(document: dict[str, Any], first: str = "R2", second: str = "R1") -> dict[str, Any]:
    document["product_tree"]["relationships"] = [
        {"category": "installed_on", "product_reference": other, "relates_to_product_reference": "P0",
         "full_product_name": {"product_id": own, "name": own}} for own, other in (("R1", first), ("R2", second))
    ]  # fmt: skip
    return document


def changed(change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    document = csaf()
    change(document)
    return document


WRONG: list[tuple[str, bytes, str]] = [
    ("no JSON", b"{", "neither JSON"), ("no UTF-8", b'{"a": "\xff"}', "neither JSON"), ("a list", b"[]", "schema"),
    ("nested", b"[" * 100_000, "nested too deep|neither JSON"), ("empty object", b"{}", "schema"),
    ("wrong schema", dumped(changed(lambda d: d["document"].pop("tracking"))), "schema"),
    ("another member's type", dumped(changed(lambda d: d["document"].update(title=7))), "schema"),
    ("no date", dumped(changed(lambda d: d["document"]["tracking"].update(current_release_date="soon"))), "schema"),
    ("a score beyond ten", dumped(changed(lambda d: d["vulnerabilities"][0].update(scores=[
        {"products": ["P0"], "cvss_v3": {"version": "3.1", "baseScore": 11, "baseSeverity": "HIGH",
         "vectorString": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"}}]))), "schema"),
    ("a draft", dumped(csaf(status="draft")), "a draft"),
    ("another provider", dumped(csaf(namespace="https://vendor.example.evil")), "published by"),
    ("product twice", dumped(changed(lambda d: d["product_tree"].update(
        full_product_names=[{"product_id": "P0", "name": "x"}]))), "6.1.2"),
    ("product undefined", dumped(changed(lambda d: d["vulnerabilities"][0]["product_status"].update(
        known_affected=["P0", "P9"]))), "6.1.1"),
    ("affected and not", dumped(changed(lambda d: d["vulnerabilities"][0]["product_status"].update(
        known_not_affected=["P0"]))), "6.1.6"),
    ("references in a circle", dumped(circle(csaf())), "circle"),
    ("a reference to nothing", dumped(circle(csaf(), first="P7")), "6.1.1"),
    ("branches too deep", dumped(deep(csaf(), 300)), "deeper|schema|nested"),
    ("an id that is none", dumped(csaf("; rm -rf /")), "its id"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "says"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_a_document_that_is_wrong_is_refused_with_the_reason(tmp_path: Path, data: bytes, says: str) -> None:
    refused = read(tmp_path, data).refused
    assert any(word in refused for word in says.split("|")), refused


def test_a_document_of_a_hundred_megabytes_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "big.json").open("wb") as big:
        big.truncate(100 << 20)
    order = ReadOrder(file="big.json", name="big.json", provider=VENDOR)
    found = reader.read(Job(msgspec.json.encode(order), {"keeper": tmp_path}))
    assert "more than 33554432 bytes" in msgspec.json.decode(found, type=Reading).refused


def test_a_list_of_patches(tmp_path: Path) -> None:
    panel = Software(asset="panel", vendor=("maker",), product=("PANEL",), version="7 SP1")
    found = read(tmp_path, LIST, "a.csv", plc(), panel)
    assert [(one.id, one.vendor, [(m.asset, m.verdict) for m in one.matches]) for one in found.advice] == [
        ("KB1", "approved", [("panel", "affected"), ("plc", "affected")]), ("KB2", "in-test", [("panel", "unknown")]),
    ]  # fmt: skip
    assert found.advice[0].vulnerabilities == ("CVE-2026-1", "CVE-2026-2")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"id,vendor,product\n", "no column 'versions'"), (b"id,vendor,product,versions,x\n", "column 'x'"),
        (b"id,vendor,product,versions\na,b\n", "number of fields"), (b"id,vendor,product,versions\na,b,c,\n", "lacks"),
        (b"id,vendor,product,versions,state\na,b,c,1,fine\n", "the state 'fine'"), (b"\xff\xfe", "no UTF-8"),
        (b"id,vendor,product,versions\n\"a,b", "no CSV"), (b"id,id,vendor,product,versions\n", "twice"),
        (b"id,vendor,product,versions\n" + b"a,b,c,1\n" * 50_001, "more than 50000 lines"),
        (b"id,vendor,product,versions\n" + b"".join(b"i%d,b,c,1\n" % n for n in range(2001)), "more than 2000 patches"),
        (b"id,vendor,product,versions\na," + b"x" * 20_000 + b",c,1\n", "no CSV"),
    ],
)  # fmt: skip
def test_a_list_that_is_wrong(tmp_path: Path, data: bytes, says: str) -> None:
    assert says in read(tmp_path, data, "a.csv").refused


def test_an_sbom_makes_parts_count(tmp_path: Path) -> None:
    assert read(tmp_path, dumped(BOM)).kind == "sbom"
    openssl = csaf(vendor="OpenSSL", product="openssl", versions=((R, "vers:generic/<3.0.8", "known_affected"),))
    assert read(tmp_path, dumped(openssl), "a.json", plc("3.1")).advice[0].matches == ()
    found = read(tmp_path, dumped(openssl), "a.json", plc("3.1"), boms=(dumped(BOM),)).advice[0].matches
    assert [(match.verdict, match.why) for match in found] == [
        ("affected", "openssl 3.0.7: affected: vers:generic/<3.0.8")
    ]
    assert read(tmp_path, dumped(openssl), "a.json", plc("3.0"), boms=(dumped(BOM),)).advice[0].matches == ()
    assert "CycloneDX" in read(tmp_path, dumped({**BOM, "specVersion": "9"})).refused
    assert "SBOM" in read(tmp_path, dumped({"bomFormat": "CycloneDX", "specVersion": "1.5"})).refused


def test_the_worst_of_what_runs_on_an_asset_counts() -> None:
    stated = [Stated("Vendor", ("PLC 9",), "<3", "affected", ranged=True)]
    both = (plc("4"), plc("2"), plc("9"))
    assert [match.verdict for match in matches(stated, both)] == ["affected"]


# --- clocks and answers -----------------------------------------------------------------------------------------------


class Office:
    """A desk, its log, and a reader that runs here."""

    def __init__(self, folder: Path, **rows: Any) -> None:
        self.folder, self.now = folder, T0 + 10 * DAY
        self.log: list[Any] = []
        self.write = True
        self.jobs: list[tuple[bytes, Callable[[bytes, str], None]]] = []
        for name in ("quarantine", "plain"):
            (folder / name).mkdir()
        product = Product(name="docs", origin=Origin(proof="pgp", keys=()), most=1, kind="advisories", provider=VENDOR)
        self.rows = PatchRows(products=(product,), inventory=(plc(),), **rows)
        self.files: Table[FileRow]
        book = Book(folder / "book.db")
        self.files = Table(book, "file", FileRow)
        audit = SimpleNamespace(record=self._record, note=self.log.append)
        office = self

        class Keeper:
            sealing = Sealing(None, encrypt=False)
            setting: Any = SimpleNamespace(
                reactor=SimpleNamespace(call_in=lambda _, call: call()),
                audit=audit,
                run_job=lambda _name, order, done: self.jobs.append((order, done)),
            )
            store = folder
            figures_: Any = SimpleNamespace(set=lambda *_: None)

            @property
            def now(self) -> int:
                return office.now

            @property
            def rows(self) -> PatchRows:
                return office.rows

            def drop_files(self, number: int) -> None:
                (office.folder / "quarantine" / str(number)).unlink(missing_ok=True)

            def product_of(self, name: str) -> Product | None:
                return office.rows.product(name)

            def keep(self, row: FileRow) -> None:
                office.files.put(row.number, row)

        keeper: Any = Keeper()
        keeper.book, keeper.files = book, self.files
        self.keeper = keeper
        self.desk = Desk(keeper)

    def _record(self, draft: Any, done: Callable[[bool, str], None]) -> None:
        if self.write:
            self.log.append(draft)
        done(self.write, "" if self.write else "the disk is full")

    def bring(self, data: bytes, name: str = "a.json") -> int:
        number = len(self.files.rows) + 1
        (self.folder / "quarantine" / str(number)).write_bytes(data)
        self.files.put(number, FileRow(
            number=number, product="docs", version="1", file=name, size=len(data), sha256="ab" * 32, by="stage",
            how="put", at=self.now, state="passed"))  # fmt: skip
        self.tick()
        return number

    def tick(self) -> None:
        self.desk.tick()
        while self.jobs:
            order, done = self.jobs.pop(0)
            done(reader.read(Job(order, {"keeper": self.folder})), "")
            self.desk.tick()

    def later(self, days: float) -> None:
        self.now += int(days * DAY)
        self.tick()

    def ask(self, verb: str, by: str = "ada", **said: Any) -> Any:
        """The answer, or what it is refused with."""
        answers: list[Any] = []
        asked = Asked(verb, msgspec.json.encode({"by": by, **said}),
                      lambda result, error, _hint: answers.append(error or json.loads(result)))  # fmt: skip
        try:
            self.desk.verbs[verb](asked)
        except GateError as error:
            return str(error)
        return answers[0]

    def kinds(self) -> list[str]:
        return [type(each).__name__ for each in self.log]

    @property
    def standing(self) -> str:
        return str(self.ask("advisory", advisory="VEN-2026-1")["standing"])


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path)


def test_what_waits_for_somebody_is_listed_first(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    office.bring(dumped(csaf("VEN-1")))
    fixed = (("product_version_range", "vers:intdot/>=1.0", "fixed"),)
    office.bring(dumped(csaf("VEN-2", versions=fixed, released="2026-11-02T08:00:00Z")))
    office.ask("evaluate", advisory="VEN-2", note="n", rest=True)
    found = office.ask("advisories")
    assert [(each["advisory"], each["standing"]) for each in found["advisories"]] == [
        ("VEN-1", "open"),
        ("VEN-2", "done"),
    ]
    assert not [line for line in listed(found, left_out(found)) if "not listed" in line]
    monkeypatch.setattr(desk, "LISTED_MOST", 1)
    found = office.ask("advisories")
    assert [each["advisory"] for each in found["advisories"]] == ["VEN-1"]
    assert found["counts"]["done"] == 1
    assert left_out(found) == 1  # an export says so
    assert list(listed(found, left_out(found)))[-1].startswith("and 1 older ones")


def test_both_clocks_run_to_the_second_and_are_told_once(office: Office) -> None:
    office.bring(dumped(csaf()))
    row = office.desk.rows.rows["docs/VEN-2026-1"]
    assert ledger.day(row.start) == "2026-11-01"  # when it was available, not when it came
    due = row.start + 35 * DAY
    office.now = due
    office.tick()
    assert (office.standing, office.desk.alarms()) == ("open", {})
    office.now = due + 31 * 10**9
    office.tick()
    office.later(1)
    assert office.standing == "overdue"
    assert "evaluate was due 2026-12-06" in office.desk.alarms()["patch-advisories-overdue"]
    assert office.kinds().count("AdvisoryOverdue") == 1
    evaluated = office.now
    office.ask("evaluate", advisory="VEN-2026-1", note="n", rest=True)
    assert office.standing == "to plan"
    office.now = evaluated + 35 * DAY + 10**9
    office.tick()
    assert office.standing == "overdue"
    assert [each.clock for each in office.log if type(each).__name__ == "AdvisoryOverdue"] == ["evaluate", "plan"]
    until = office.now + 10 * DAY
    made = office.ask("mitigate", advisory="VEN-2026-1", owner="ops", text="shut", until=until)
    assert made["standing"] == "overdue"  # a plan that nobody approved stops nothing
    assert "somebody else" in office.ask("approve-plan", advisory="VEN-2026-1", plan=1)
    assert "somebody else" in office.ask("approve-plan", by="OPS", advisory="VEN-2026-1", plan=1)
    assert office.ask("approve-plan", by="bob", advisory="VEN-2026-1", plan=1)["standing"] == "planned"
    assert "already" in office.ask("approve-plan", by="eve", advisory="VEN-2026-1", plan=1)
    office.now = until + 10**9
    office.tick()
    assert office.standing == "overdue"
    office.ask("state", advisory="VEN-2026-1", assets=["plc"], state="installed")
    office.tick()
    assert office.standing == "done"


def test_an_unknown_is_never_answered_by_itself(tmp_path: Path) -> None:
    office = Office(tmp_path)
    office.rows = PatchRows(products=office.rows.products, inventory=(plc("2.9 SP1"),))
    office.desk.renew()
    office.bring(dumped(csaf()))
    assert "is not known" in office.ask("evaluate", advisory="VEN-2026-1", note="n", rest=True)
    assert "whether it applies" in office.ask("evaluate", advisory="VEN-2026-1", note="n", assets=["plc"])
    assert "inventory" in office.ask("evaluate", advisory="VEN-2026-1", note="n", assets=["x"], applies=False)
    assert office.ask("evaluate", advisory="VEN-2026-1", note="n", assets=["plc"], applies=False)["standing"] == "open"
    assert office.ask("evaluate", advisory="VEN-2026-1", note="n", rest=True)["standing"] == "done"
    assert "no asset" in office.ask("mitigate", advisory="VEN-2026-1", owner="o", text="t", until=office.now + DAY)


def test_a_revision_takes_answers_back_and_an_older_document_changes_nothing(office: Office) -> None:
    office.bring(dumped(csaf(released="2026-11-02T00:00:00Z", revision="2")))
    office.ask("evaluate", advisory="VEN-2026-1", note="n", rest=True)
    assert office.standing == "to plan"
    old = office.bring(dumped(csaf(versions=((R, "vers:intdot/<1", "known_affected"),))))
    assert office.standing == "to plan"
    assert office.files.rows[str(old)].state == "rejected"
    fresh = csaf(released="2026-11-05T00:00:00Z", revision="3")
    fresh["vulnerabilities"][0]["cve"] = "CVE-2026-9999"
    newer = office.bring(dumped(fresh))
    assert office.standing == "open"
    assert [row.state for row in office.files.rows.values()] == ["rejected", "rejected", "read"]
    assert not (office.folder / "quarantine" / "1").exists()
    assert office.desk.rows.rows["docs/VEN-2026-1"].file == newer
    taken = [each.taken_back for each in office.log if type(each).__name__ == "AdvisoryMatched"]
    assert taken == [(), ("plc",)]


def test_another_inventory_or_sbom_is_matched_anew(office: Office) -> None:
    office.bring(dumped(csaf(vendor="OpenSSL", product="openssl", versions=((R, "<3.0.8", "known_affected"),))))
    office.ask("evaluate", advisory="VEN-2026-1", note="n", rest=True)
    assert office.standing == "done"
    office.bring(dumped(BOM), "bom.json")
    assert office.standing == "done"  # the SBOM is one of another version
    office.rows = PatchRows(products=office.rows.products, inventory=(plc("3.1"),))
    office.desk.renew()
    office.later(0)
    assert office.standing == "open"
    assert office.ask("advisory", advisory="VEN-2026-1")["affected"] == 1


def test_nothing_counts_that_the_log_does_not_have(office: Office) -> None:
    office.write = False
    number = office.bring(dumped(csaf()))
    assert (office.files.rows[str(number)].state, office.desk.rows.rows) == ("failed", {})
    office.write = True
    office.files.put(number, msgspec.structs.replace(office.files.rows[str(number)], state="passed"))
    office.tick()
    office.write = False
    assert "nothing can be recorded" in office.ask("evaluate", advisory="VEN-2026-1", note="n", rest=True)
    assert office.standing == "open"


def test_what_people_say_outlives_the_keeper(office: Office) -> None:
    office.bring(dumped(csaf()))
    office.ask("evaluate", advisory="VEN-2026-1", note="n", rest=True)
    before = office.ask("advisory", advisory="VEN-2026-1")
    office.desk = Desk(office.keeper)
    office.tick()
    assert office.ask("advisory", advisory="VEN-2026-1") == before


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (Reading(), "does not say what it is"), (Reading(kind="csaf", provider="https://else"), "published by"),
        (b"nonsense", "makes no sense"),
    ],
)  # fmt: skip
def test_a_reader_that_was_taken_over_is_not_believed(office: Office, answer: Any, says: str) -> None:
    number = 1
    (office.folder / "quarantine" / "1").write_bytes(b"x")
    office.files.put(number, FileRow(
        number=1, product="docs", version="1", file="a.json", size=1, sha256="ab" * 32, by="s", how="put", at=1,
        state="passed"))  # fmt: skip
    office.desk.tick()
    _, done = office.jobs.pop()
    done(answer if isinstance(answer, bytes) else msgspec.json.encode(answer), "")
    assert says in office.files.rows["1"].reason
    assert office.desk.rows.rows == {}


def test_a_clock_starts_when_it_was_available(tmp_path: Path) -> None:
    duties = Duties(since=T0 + 5 * DAY)
    assert ledger.start_of(T0, T0 + 10 * DAY, duties) == T0 + 5 * DAY  # not before the day of the policy
    assert ledger.start_of(T0 + 7 * DAY, T0 + 10 * DAY, duties) == T0 + 7 * DAY
    assert ledger.start_of(T0 + 700 * DAY, T0 + 10 * DAY, duties) == T0 + 10 * DAY  # a date in a year stops no time
    assert ledger.start_of(0, T0 + 10 * DAY, duties) == T0 + 10 * DAY
