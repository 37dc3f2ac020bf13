"""Sources of the patch relay: a gate as a user starts it, and a vendor's HTTPS server as a process of its own, which is
well, or is not what it should be."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from cofferdam.brokers.kit.tls import public_key_hash
from tests.brokers.patch.web import BIG, proxying, serving
from tests.brokers.relay.certificates import make
from tests.gate.patching import Works
from tests.waiting import eventually, kill

AUTHORITY = make("vendor authority", ca=True)
VENDOR = make("vendor.test", by=AUTHORITY)
STRANGER = make("vendor.test", by=make("somebody else", ca=True))

SOURCES = {
    "good": ("/files/plc/", "directory", ""),
    "listed": ("/files/SHA256SUMS", "list", ""),
    "vendors": ("/files/index.json", "json", "{items: a.files, file: url, version: v, sha256: hash}"),
    "resumed": ("/breaks/plc/", "directory", ""),
    "led": ("/within/plc/", "directory", ""),
    "redirect": ("/redirect/", "directory", ""),
    "stranger": ("/files/plc/", "directory", ""),
    "endless": ("/endless/", "directory", ""),
    "endless-file": ("/endless-file/", "directory", ""),
    "short": ("/short/", "directory", ""),
    "swapped": ("/swapped/plc/", "directory", ""),
    "gzip": ("/gzip/", "directory", ""),
    "many": ("/many/", "directory", ""),
    "dots": ("/dots/", "directory", ""),
    "vast": ("/vast/", "directory", ""),
    "long": ("/long/", "directory", ""),
    "halves": ("/halves/", "json", "{file: url, version: v}"),
    "csaf": ("/files/csaf/provider-metadata.json", "csaf, since: 2026-01-01", ""),
    "csaf-by-folder": ("/files/csaf/by-folder.json", "csaf", ""),
    "shut": ("/files/plc/", "directory", ""),
    "keyed": ("/files/plc/", "directory", ""),
    "another-key": ("/files/plc/", "directory", ""),
    "proxied": ("/files/plc/", "directory", ""),
    "injected": ("/files/plc/", "directory", ""),
    "declined": ("/files/plc/", "directory", ""),
}
WINDOW = "{from: '00:00', to: '00:01', zone: Asia/Kathmandu, days: mon}"
"""Shut, but for one minute of a week."""
RULES = b'rule Bad { strings: $a = "not for this plant" condition: $a }'
INJECTED = b"HTTP/1.1 200 OK\r\nContent-Length: 38\r\n\r\n<html><a href='fw-9.9.bin'>x</a></html>"
"""What a proxy says in the server's name, before there is any TLS."""
REFUSED = {
    "redirect": "leads to evil.example:443, which the policy does not list",
    "stranger": "another certificate than is pinned",
    "endless": "does not end within",
    "endless-file": "does not end within",
    "short": "is shorter than was said: 500 of 1000",
    "swapped": "is another file since the transfer broke",
    "gzip": "comes as 'gzip'",
    "many": "at most",
    "vast": "has 10000000000000 bytes, and at most 5000000 are taken",
    "long": "as the source has it",
    "halves": "which the policy does not list",
    "another-key": "another key than is pinned",
    "injected": "vendor.test cannot be reached",
    "declined": "does not connect to vendor.test: 'HTTP/1.1 407 Who?'",
}
"""Bad input, and the name under which it is refused."""


class Vendor:
    """The works, and what the vendor has on its server."""

    def __init__(self, folder: Path) -> None:
        self.files = folder / "site"
        (self.files / "plc").mkdir(parents=True)
        (folder / "ca.pem").write_bytes(AUTHORITY.pem)
        self.drop = folder / "folders" / "stick"

    def start(self, folder: Path, port: int, other: int, proxies: dict[str, int]) -> Works:
        lines, rules, products = [], [], []
        keys = {name: public_key_hash(made.certificate.public_bytes(Encoding.DER))
                for name, made in (("keyed", VENDOR), ("another-key", STRANGER))}  # fmt: skip
        for name, (path, listing, mapping) in SOURCES.items():
            at = f"at: '127.0.0.1:{other if name == 'stranger' else port}', host: vendor.test, "
            at += f"key: '{keys[name]}'" if name in keys else "authority: ca.pem"
            more = f", json: {mapping}" if mapping else ""
            when = ", every: 1 day"
            if name in proxies:
                at, when = "host: vendor.test, authority: ca.pem", f", every: 1 day, via: '127.0.0.1:{proxies[name]}'"
            if name == "shut":
                when += f", window: {WINDOW}"
            lines.append(f"      {name}: {{https: {{{at}, path: {path}, listing: {listing}{more}}}{when}}}")
            products.append(f"      fw-{name}: {{origin: {{pgp: vendor.asc}}, most: 5 MB, scan: none}}")
            pattern = "'fw-*.bin'" if mapping else "'*.json'" if name.startswith("csaf") else "'fw-{version}.bin'"
            rules.append(f"      - {{source: {name}, fetch: fw-{name}, files: {pattern}}}")
        lines.append("      stick: {folder: stick}")
        products += ["      fw-stick: {origin: {pgp: vendor.asc}, scan: none}",
                     "      unsigned: {origin: {two_sources: true}, scan: none}",
                     "      ruled: {origin: {pgp: vendor.asc}, scan: none, yara: site.yar}",
                     "      summed: {origin: {pgp: vendor.asc, list: SHA256SUMS}, scan: none}"]  # fmt: skip
        rules += ["      - {source: stick, fetch: fw-stick, files: 'fw-{version}.bin'}",
                  "      - {source: stick, fetch: unsigned, files: 'un-{version}.bin'}",
                  "      - {source: good, fetch: unsigned, files: 'un-{version}.bin'}",
                  "      - {source: good, fetch: summed, files: 'sum-{version}.bin'}",
                  "      - {who: stage, put: [unsigned, summed]}"]  # fmt: skip
        self.works = Works(
            folder / "works", products="\n".join(products), rules="\n".join(rules),
            sources="    sources:\n" + "\n".join(lines), options=("--folders", str(folder / "folders")),
            files={"ca.pem": AUTHORITY.pem, "site.yar": RULES}, prepare=self.fill,
        )  # fmt: skip
        return self.works

    def fill(self, works: Works) -> None:
        """What the vendor has, before anybody looks."""
        plc = self.files / "plc"
        for name, data in (("fw-1.0.bin", BIG), ("fw-1.1.bin", b"firmware 1.1"), ("un-1.0.bin", b"nobody signs it")):
            (plc / name).write_bytes(data)
            if name.startswith("fw"):
                (plc / f"{name}.asc").write_bytes(works.vendor.sign(data))
        (plc / "other-1.0.bin").write_bytes(b"no rule names it")
        (plc / "sum-1.0.bin").write_bytes(b"in a signed list")
        listed = f"{hashlib.sha256(b'in a signed list').hexdigest()}  sum-1.0.bin\n".encode()
        (plc / "SHA256SUMS").write_bytes(listed)
        (plc / "SHA256SUMS.asc").write_bytes(works.vendor.sign(listed))
        (self.files / "fw-3.0.bin").write_bytes(b"listed 3.0")
        (self.files / "fw-3.0.bin.asc").write_bytes(works.vendor.sign(b"listed 3.0"))
        (self.files / "fw-3.1.bin").write_bytes(b"listed 3.1")
        sums = f"{hashlib.sha256(b'listed 3.0').hexdigest()}  fw-3.0.bin\n{'ab' * 32}  fw-3.1.bin\n"
        (self.files / "SHA256SUMS").write_text(sums)
        hash_ = hashlib.sha256(BIG).hexdigest()
        urls = [f"https://vendor.test:{self.port}/files/plc/fw-1.0.bin", "https://evil.example/fw-1.1.bin"]
        items = [{"url": url, "v": f"2027-{number}", "hash": hash_} for number, url in enumerate(urls, 1)]
        (self.files / "index.json").write_text(json.dumps({"a": {"files": items}}))

        self.fill_csaf(works)

    def fill_csaf(self, works: Works) -> None:
        """A provider as CSAF 2.0, 7.1.8 has it: feeds for everybody and for few; or a directory and its changes."""
        here, csaf = f"https://vendor.test:{self.port}/files/csaf", self.files / "csaf"
        for path in ("2025/adv-1.json", "2026/adv-2.json", "2026/adv-3.json"):
            file = csaf / "white" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(path.encode())
            file.with_name(f"{file.name}.asc").write_bytes(works.vendor.sign(path.encode()))
        feeds = [{"tlp_label": "WHITE", "url": f"{here}/feed.json"}, {"tlp_label": "AMBER", "url": f"{here}/none.json"}]
        said = [{"rolie": {"feeds": feeds}}, {"directory_url": f"{here}/nowhere/"}]
        (csaf / "provider-metadata.json").write_text(json.dumps({"distributions": said}))
        (csaf / "by-folder.json").write_text(json.dumps({"distributions": [{"directory_url": f"{here}/white"}]}))
        entries = [
            {"updated": at, "link": [{"rel": "hash", "href": "x"}, {"rel": "self", "href": f"{here}/white/{path}"}]}
            for path, at in (
                ("2025/adv-1.json", "2025-12-31T23:59:59Z"),
                ("2026/adv-2.json", "2026-01-01T02:00:00+02:00"),
                ("2026/adv-3.json", "2026-03-04T05:06:07.891Z"),
                ("2026/adv-3.json", "2026-02-01T00:00:00Z"),
            )
        ]
        (csaf / "feed.json").write_text(json.dumps({"feed": {"entry": entries}}))
        changes = (
            '"2026/adv-2.json","2026-01-01T00:00:00Z"',
            "2025/adv-1.json,2025-12-31T23:59:59.000Z",
            "../x.json,now",
        )
        (csaf / "white" / "changes.csv").write_text("\n".join(changes))

    port = 0
    first: dict[str, Any]
    """What `good` had when it was looked at first."""

    def source(self, name: str) -> dict[str, Any]:
        return next(dict(each) for each in self.works.told("status")["keeper"]["sources"] if each["source"] == name)

    def looked_at(self, name: str) -> bool:
        return bool(self.source(name)["last"])

    def passed(self, product: str) -> bool:
        return {each["state"] for each in self.files_of(product)} == {"passed"}

    def files_of(self, product: str) -> list[dict[str, Any]]:
        return [dict(each) for each in self.works.told("list") if each["product"] == product]


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vendor]:
    folder = tmp_path_factory.mktemp("vendor")
    made = Vendor(folder)
    with contextlib.ExitStack() as stack:
        made.port = port = stack.enter_context(serving(made.files, VENDOR))
        other = stack.enter_context(serving(made.files, STRANGER))
        proxies = {
            "proxied": stack.enter_context(proxying(port)),
            "injected": stack.enter_context(proxying(port, INJECTED)),
            "declined": stack.enter_context(proxying(port, says=b"407 Who?")),
        }
        works = made.start(folder, port, other, proxies)
        stack.callback(works.close)
        eventually(lambda: made.looked_at("good"))
        made.first = made.source("good")
        yield made


def test_what_rules_name_comes_and_nothing_else(vendor: Vendor) -> None:
    found = vendor.first
    assert not found["refused"], found
    assert (found["named"], found["taken"]) == (4, 4)
    assert found["next"] > found["last"] // 10**9
    eventually(lambda: {each["state"] for each in vendor.files_of("fw-good")} == {"passed"})
    files = {each["file"]: each for each in vendor.files_of("fw-good")}
    assert sorted(files.keys() - {"fw-1.2.bin"}) == ["fw-1.0.bin", "fw-1.1.bin"]  # (that one comes in another test)
    assert files["fw-1.0.bin"]["sha256"] == hashlib.sha256(BIG).hexdigest()
    assert (files["fw-1.0.bin"]["how"], files["fw-1.0.bin"]["by"]) == ("fetch", "good")
    assert not [each for each in vendor.works.told("list") if each["file"].startswith("other")]
    eventually(lambda: vendor.files_of("summed")[0]["state"] == "passed")


@pytest.mark.parametrize("name", ["resumed", "led", "keyed", "proxied"])
def test_servers_that_are_known_and_transfers_that_break(vendor: Vendor, name: str) -> None:
    eventually(lambda: vendor.source(name)["last"])
    assert not vendor.source(name)["refused"], vendor.source(name)
    eventually(lambda: {each["state"] for each in vendor.files_of(f"fw-{name}")} == {"passed"})
    assert {each["sha256"] for each in vendor.files_of(f"fw-{name}")} >= {hashlib.sha256(BIG).hexdigest()}


def test_a_csaf_provider_is_followed_to_its_documents(vendor: Vendor) -> None:
    """By its public feed, or its directory; each document's version is when it was changed."""
    for name, expected in (
        ("csaf", {"adv-2.json": "20260101T000000Z", "adv-3.json": "20260304T050607Z"}),
        ("csaf-by-folder", {"adv-1.json": "20251231T235959Z", "adv-2.json": "20260101T000000Z"}),
    ):
        eventually(functools.partial(vendor.looked_at, name))
        assert not vendor.source(name)["refused"], vendor.source(name)
        files = vendor.files_of(f"fw-{name}")
        assert {each["file"]: each["version"] for each in files} == expected
        eventually(functools.partial(vendor.passed, f"fw-{name}"))
    assert "1 names that are none of a file there, such as '../x.json'" in vendor.source("csaf-by-folder")["odd"]


def test_lists_and_json_say_which_hash_it_is(vendor: Vendor) -> None:
    eventually(lambda: vendor.source("listed")["last"] and vendor.source("vendors")["last"])
    assert "the source says SHA-256 abab" in vendor.source("listed")["refused"]
    assert [each["file"] for each in vendor.files_of("fw-listed")] == ["fw-3.0.bin"]
    assert "evil.example" in vendor.source("vendors")["refused"]
    assert [each["version"] for each in vendor.files_of("fw-vendors")] == ["2027-1"]


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_source_may_not_do_is_refused_by_name(vendor: Vendor, name: str) -> None:
    eventually(lambda: vendor.source(name)["last"])
    assert REFUSED[name] in vendor.source(name)["refused"]
    assert not [each for each in vendor.files_of(f"fw-{name}") if each["file"] == "fw-1.0.bin"]


def test_a_source_whose_window_is_shut_waits_and_disturbs_nobody(vendor: Vendor) -> None:
    eventually(lambda: vendor.source("shut")["state"] == "waiting")
    assert (vendor.source("shut")["last"], vendor.files_of("fw-shut")) == (0, [])
    assert "waiting" in vendor.works.patch("fetch", "shut", code=0)


def test_names_that_lead_elsewhere_are_told_and_not_fetched(vendor: Vendor) -> None:
    eventually(lambda: vendor.source("dots")["last"])
    found = vendor.source("dots")
    assert found["odd"].startswith("4 names that are none of a file there")
    assert "../files/fw-1.0.bin" in found["odd"]
    assert (found["named"], vendor.files_of("fw-dots")) == (0, [])


def test_each_of_it_has_its_entry_and_the_crew_lives(vendor: Vendor) -> None:
    works = vendor.works
    eventually(lambda: all(vendor.source(name)["last"] for name in SOURCES if name != "shut"))
    works.patch("export", str(works.folder / "evidence.json"))
    text = (works.folder / "evidence.json").read_text()
    for name, words in REFUSED.items():
        assert words in text, name
    assert "the source dots" not in text
    alarms = works.gate.status()["alarms"]
    assert any("the source redirect cannot be had" in str(alarm) for alarm in alarms)


def test_a_fetcher_that_is_killed_is_there_again_and_brings_nothing_twice(vendor: Vendor) -> None:
    works, plc = vendor.works, vendor.files / "plc"
    eventually(lambda: vendor.source("good")["last"])
    before = {each["number"] for each in vendor.files_of("fw-good")}

    def pid() -> int:
        halves = [half for pair in works.gate.status()["pairs"] for half in pair["halves"]]
        return next((int(half["pid"]) for half in halves if half["name"].endswith("fetcher") and half["ready"]), 0)

    eventually(pid)
    kill(killed := pid())
    eventually(lambda: pid() not in (0, killed))
    works.gate.wait_ready()
    (plc / "fw-1.2.bin").write_bytes(b"firmware 1.2")
    (plc / "fw-1.2.bin.asc").write_bytes(works.vendor.sign(b"firmware 1.2"))
    works.patch("fetch", "good")
    eventually(lambda: vendor.passed("fw-good"))
    found = vendor.files_of("fw-good")
    assert {each["version"] for each in found if each["number"] not in before} == {"1.2"}
    assert len(found) == len(before) + 1
    for name in ("fw-1.2.bin", "fw-1.2.bin.asc"):
        (plc / name).unlink()


def test_a_mirror_that_changes_a_file_is_an_alarm(vendor: Vendor) -> None:
    works, plc = vendor.works, vendor.files / "plc"
    eventually(lambda: vendor.source("good")["last"])
    before = vendor.files_of("fw-good")
    (plc / "fw-1.1.bin").write_bytes(b"firmware 6.6")  # as long as the one before: only its hash tells
    found = works.patch("fetch", "good")
    assert "CHANGED: fw-good/1.1/fw-1.1.bin" in found
    eventually(lambda: any("another fw-1.1.bin" in str(alarm) for alarm in works.gate.status()["alarms"]))
    assert vendor.files_of("fw-good") == before
    works.patch("fetch", "good", "--known")
    eventually(lambda: not any("another fw-1.1.bin" in str(alarm) for alarm in works.gate.status()["alarms"]))
    (plc / "fw-1.1.bin").write_bytes(b"firmware 1.1")
    works.patch("fetch", "good")
    assert vendor.source("good")["changed"] == []


def test_what_nobody_signs_comes_by_two_ways(vendor: Vendor) -> None:
    works, file = vendor.works, vendor.works.folder / "un-1.0.bin"
    eventually(lambda: vendor.files_of("unsigned"))
    number = vendor.files_of("unsigned")[0]["number"]
    assert vendor.files_of("unsigned")[0]["state"] == "waiting"
    file.write_bytes(b"nobody signs it")
    works.patch("put", str(file), "--product", "unsigned", "--version", "1.0")
    found = works.examined(number)
    assert found["state"] == "passed", found
    assert found["report"]["origin"].startswith("TWO SOURCES")
    assert "already" in works.patch("put", str(file), "--product", "unsigned", "--version", "1.0", code=2)
    other = works.folder / "un-2.0.bin"
    other.write_bytes(b"one")
    works.patch("put", str(other), "--product", "unsigned", "--version", "2.0")
    assert "already" in works.patch("put", str(other), "--product", "unsigned", "--version", "2.0", code=2)
    (vendor.files / "plc" / "un-2.0.bin").write_bytes(b"two")
    works.patch("fetch", "good", code=1)
    states = {each["version"]: each["state"] for each in vendor.files_of("unsigned")}
    assert states == {"1.0": "passed", "2.0": "refused"}
    (vendor.files / "plc" / "un-2.0.bin").unlink()


def test_a_folder_is_a_source(vendor: Vendor) -> None:
    works, drop = vendor.works, vendor.drop
    (drop / "fw-7.0.bin").write_bytes(b"from a stick")
    (drop / "fw-7.0.bin.asc").write_bytes(works.vendor.sign(b"from a stick"))
    (drop / "readme.txt").write_bytes(b"hello")
    (drop / "fw-7.1.bin").symlink_to("/etc/passwd")
    eventually(lambda: [each["state"] for each in vendor.files_of("fw-stick")] == ["passed"])
    eventually(lambda: not (drop / "fw-7.0.bin").exists() and not (drop / "readme.txt").exists())
    assert (drop / "done" / "fw-7.0.bin").exists()
    eventually(lambda: (drop / "bad" / "readme.txt.reason").exists())
    assert "no rule names" in (drop / "bad" / "readme.txt.reason").read_text()
    eventually(lambda: "fw-7.1.bin is no plain file" in vendor.source("stick")["refused"])
    (drop / "fw-7.1.bin").unlink()
    number = vendor.files_of("fw-stick")[0]["number"]  # nobody saw who left it: the policy says that files come so
    works.patch("request", str(number))
    for who in ("alice", "bob"):
        works.approve(number, who)
    eventually(lambda: [each["path"] for each in works.told("plan")["releases"]] == ["fw-stick/7.0/fw-7.0.bin"])


def test_the_quarantine_is_sealed(vendor: Vendor) -> None:
    works = vendor.works
    eventually(lambda: vendor.files_of("fw-good"))
    quarantine = next((works.state / "stores").rglob("quarantine"))
    held = [path.read_bytes() for path in quarantine.iterdir()]
    assert held
    assert all(data.startswith(b"cofferdam sealed 1\n") for data in held)
    assert not any(b"0123456789abcdef" * 4 in data or b"firmware 1.1" in data for data in held)
    eventually(lambda: not list((quarantine.parent / "plain").iterdir()))
    works.patch("verify")


def test_the_sites_own_rules_look_at_each_file(vendor: Vendor) -> None:
    works = vendor.works
    found = works.examined(works.put("rg.bin", b"for this plant", "1.0", product="ruled"))
    assert (found["state"], found["report"]["base"]) == ("passed", "YARA rules of the site, 1"), found
    found = works.examined(works.put("bad.bin", b"not for this plant", "1.1", product="ruled"))
    assert (found["state"], found["reason"]) == ("refused", "the scanner found the site's YARA rule Bad")
