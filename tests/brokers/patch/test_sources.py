"""A fetcher that was taken over, against the keeper's side of it: what it can have believed, and what it cannot; and
files that were sealed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import resource
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cofferdam.brokers.patch import listing, records
from cofferdam.brokers.patch.beside import another_way, is_list, signature_of
from cofferdam.brokers.patch.book import Book, Table
from cofferdam.brokers.patch.catalogue import FileRow
from cofferdam.brokers.patch.listing import BadListing
from cofferdam.brokers.patch.records import Chunk, Declined, Doing, End, Ended, Room, Taken
from cofferdam.brokers.patch.records import Fetch as Says
from cofferdam.brokers.patch.sealing import HEAD, PIECE, Kept, NotSealed, Sealing
from cofferdam.brokers.patch.sources import Fetching
from cofferdam.errors import CrossingError
from cofferdam.policy.terms.patch_rows import Origin, PatchRows, Product
from cofferdam.policy.terms.patch_source_rows import FILE, Apt, Fetch, Host, Mapping, Source
from tests.brokers.patch.test_keeper_verbs import Log
from tests.brokers.patch.vouching import WITNESSES, word
from tests.examples import examples

FW = Product(name="fw", origin=Origin(proof="pgp", keys=()), most=1000)
TWO = Product(name="two", origin=Origin(proof="two-sources", keys=()), most=1000)
HOSTS = (Host(name="a", address="192.0.2.1", port=443),)
ROWS = PatchRows(
    products=(FW, TWO),
    sources=(
        Source(name="a", kind="https", hosts=HOSTS),
        Source(name="b", kind="https", hosts=HOSTS),
        Source(name="deb", kind="apt", hosts=HOSTS, apt=Apt(suite="s", components=("main",), architectures=("amd64",))),
    ),
    fetches=(
        Fetch(number=0, source="a", product="fw", files=("fw-{version}.bin",)),
        Fetch(number=1, source="b", product="two", files=("fw-{version}.bin",)),
        Fetch(number=2, source="deb", product="fw", packages=("*",)),
    ),
)

X = hashlib.sha256(b"x").hexdigest()
SAID = word("fetch", "a", "fw/1/fw-1.bin", X)
FORGED = word("fetch", "a", "fw/1/fw-1.bin", X, by="intake")


class Keeper:
    """What the keeper's side of the fetcher works on; files are taken as they come."""

    def __init__(self, folder: Path) -> None:
        self.store = folder
        (folder / "incoming").mkdir()
        self.sent: list[Any] = []
        self.log = Log()
        self.refused: list[str] = []
        self.wall = 10**18
        self.setting = SimpleNamespace(
            senders={"fetcher": SimpleNamespace(send=self.sent.append)}, audit=self.log, wall=lambda: self.wall
        )
        self.rows = ROWS
        self.witnesses = WITNESSES
        self.book = Book(folder / "book.db")
        self.files: Table[FileRow] = Table(self.book, "file", FileRow)
        self.sealing = Sealing(bytes(32), encrypt=True)
        self.taken: dict[str, str] = {}

    def product_of(self, name: str) -> Product | None:
        return self.rows.product(name)

    def why_not(self, product: str, version: str, file: str, by: str = "", how: Any = "put") -> tuple[str, str]:
        return ("conflict", "it is there") if f"{product}/{version}/{file}" in self.taken else ("", "")

    @staticmethod
    def is_beside(product: Product, file: str) -> bool:
        return bool(signature_of(product, file)) or is_list(product, file)

    def room(self, size: int) -> bool:
        return True

    def too_much(self, by: str, size: int) -> str:
        return ""

    def shut(self, product: str) -> str:
        return ""

    def note_refused(self, product: str, version: str, file: str, by: str, fault: str, detail: str) -> None:
        self.refused.append(detail)

    def take_file(
        self, path: Path, product: str, version: str, file: str, size: int, sha256: str, by: str, how: Any,
        word: Any, done: Callable[[int, str, str, str], None],
    ) -> None:  # fmt: skip
        self.taken[f"{product}/{version}/{file}"] = b"".join(self.sealing.pieces(path)).decode()
        path.unlink()
        done(len(self.taken), "", "", "")


class Fetcher:
    """It says what it likes."""

    def __init__(self, folder: Path) -> None:
        self.keeper = Keeper(folder)
        self.side = Fetching(self.keeper, self.keeper.book)  # type: ignore[arg-type]
        self.last = 0

    def says(self, source: str = "a", product: str = "fw", version: str = "1", file: str = "fw-1.bin",
             data: bytes = b"content", **more: Any) -> Any:  # fmt: skip
        """The keeper's last word on a file."""
        self.last += 1
        self.side.on_record(Says(self.last, source, product, version, file, **more))
        if isinstance(self.keeper.sent[-1], Room):
            self.side.on_record(Chunk(self.last, data))
            sha256 = hashlib.sha256(data).hexdigest()
            vouch = word("fetch", source, f"{product}/{version}/{file}", sha256)
            self.side.on_record(End(self.last, sha256, vouch))
        return self.keeper.sent[-1]


@pytest.fixture
def fetcher(tmp_path: Path) -> Fetcher:
    return Fetcher(tmp_path)


@pytest.mark.parametrize(
    "said",
    [
        {"source": "c"}, {"product": "two"}, {"version": "2"}, {"file": "fw-2.bin"}, {"file": "other-1.bin"},
        {"file": "other-1.bin.asc"}, {"source": "b"}, {"source": "deb", "file": "s-2.tar"}, {"product": "none"},
        {"size": 1001}, {"data": b"x" * 1001}, {"sha256": "ab" * 32}, {"data": b""},
    ],
    ids=str,
)  # fmt: skip
def test_nothing_comes_that_no_rule_names(fetcher: Fetcher, said: dict[str, Any]) -> None:
    if said.get("data") == b"":
        fetcher.last += 1
        fetcher.side.on_record(Says(1, "a", "fw", "1", "fw-1.bin"))
        nothing = hashlib.sha256(b"").hexdigest()
        fetcher.side.on_record(End(1, nothing, word("fetch", "a", "fw/1/fw-1.bin", nothing)))
        answer = fetcher.keeper.sent[-1]
    else:
        answer = fetcher.says(**said)
    assert isinstance(answer, Declined)
    assert fetcher.keeper.refused
    assert not fetcher.keeper.taken
    assert not list((fetcher.keeper.store / "incoming").iterdir())


def test_what_is_known_does_not_come_again_and_a_change_is_told(fetcher: Fetcher) -> None:
    keeper = fetcher.keeper
    assert isinstance(fetcher.says(mark="one", size=7), Taken)
    assert fetcher.says(mark="one", size=7).fault == "have"
    assert fetcher.says(mark="two", size=7).fault == "have"  # it was only copied anew
    assert not dict(fetcher.side.alarms())
    assert fetcher.says(mark="three", data=b"another").fault == "changed"
    assert fetcher.says(mark="four", size=8).fault == "changed"
    assert "has 8 bytes" in dict(fetcher.side.alarms())["patch-changed-0"]
    fetcher.side.is_known("a")
    assert not dict(fetcher.side.alarms())
    assert keeper.taken == {"fw/1/fw-1.bin": "content"}
    assert fetcher.says(mark="five", size=7).fault == "have"
    assert [type(each).__name__ for each in keeper.log.written] == ["SourceChanged", "SourceChanged"]


@pytest.mark.parametrize(
    ("how", "by", "state", "waits"),
    [("fetch", "a", "waiting", True), ("fetch", "a", "passed", False), ("put", "a", "waiting", False),
     ("fetch", "b", "waiting", False)],
)  # fmt: skip
def test_what_came_before_the_keeper_was_killed_gets_what_proves_it(
    fetcher: Fetcher, how: Any, by: str, state: Any, waits: bool
) -> None:
    """The file is there, and that it came from this source was not written down yet: its signature is still to come."""
    keeper = fetcher.keeper
    keeper.taken["fw/1/fw-1.bin"] = "content"
    same = hashlib.sha256(b"content").hexdigest()
    keeper.files.put(1, FileRow(number=1, product="fw", version="1", file="fw-1.bin", size=7, sha256=same, by=by,
                                how=how, at=1, state=state))  # fmt: skip
    said = fetcher.says(mark="one", size=7)
    assert (said.fault, said.detail == records.WAITS) == ("have", waits), said
    # That the source has another file under this name is told all the same, if it was the one that brought it.
    assert fetcher.says(mark="two", data=b"another").fault == ("changed" if (how, by) == ("fetch", "a") else "have")


@pytest.mark.parametrize(
    "records_",
    [
        (End(1, "ab" * 32, SAID),), (Says(2, "a", "fw", "1", "fw-1.bin"),),
        (Says(1, "a", "fw", "1", "fw-1.bin"), Chunk(1, b"x"), End(1, "ab" * 32, SAID)),
        (Says(1, "a", "fw", "1", "fw-1.bin"), Chunk(1, b"x"), End(1, X, word("fetch", "b", "fw/1/fw-1.bin", X))),
        (Says(1, "a", "fw", "1", "fw-1.bin"), Chunk(1, b"x"), End(1, X, word("upload", "a", "fw/1/fw-1.bin", X))),
        (Says(1, "a", "fw", "1", "fw-1.bin"), Chunk(1, b"x"), End(1, X, FORGED)),
    ],
    ids=["an end of nothing", "out of order", "another hash", "another's name", "another way", "a strange key"],
)  # fmt: skip
def test_rules_of_order(fetcher: Fetcher, records_: tuple[Any, ...]) -> None:
    with pytest.raises(CrossingError):
        for record in records_:
            fetcher.side.on_record(record)
    fetcher.side.drop_all()


def test_what_it_says_of_its_work_is_bounded(fetcher: Fetcher) -> None:
    for number in range(200):
        fetcher.side.on_record(Ended("a", 1, 1, 1, f"trouble {number}"))
        fetcher.side.on_record(Ended("nobody", 1, 1, 1, "x"))
        fetcher.side.on_record(Doing("nobody", "fetching", "x"))
    assert len(fetcher.keeper.log.written) == 20
    assert fetcher.side.told("a")["refused"] == "trouble 199"
    assert set(fetcher.side.doing) == set()
    assert set(fetcher.side.looked.rows) == {"a"}


def test_names_end_where_they_end() -> None:
    """A line's end behind a name is no part of it (Python's `$` would let it pass)."""
    codec = records.fetcher_to_keeper()
    good = Says(1, "a", "fw", "1", "fw-1.bin")
    assert codec.decode(codec.encode(good)) == good
    for bad in (Says(1, "a", "fw", "1", "fw-1.bin\n"), Says(1, "a", "fw", "1\n", "f"), Says(1, "a", "fw", "..", "f")):
        with pytest.raises(CrossingError):
            codec.decode(codec.encode(bad))


def test_all_that_is_fetched_is_one_way() -> None:
    first = FileRow(number=1, product="two", version="1", file="f", size=1, sha256="ab" * 32, by="b", how="fetch", at=1,
                    state="waiting")  # fmt: skip
    assert not another_way(first, "a", "fetch")
    assert not another_way(first, "B", "put")
    assert another_way(first, "alice", "put")
    assert another_way(first, "stick", "folder")


# --- listings -------------------------------------------------------------------------------------------------------


def test_listings_are_read_strictly() -> None:
    page = b"<a href='fw-1.bin'>x</a><a href='fw-1.bin'>again</a><a href='sub/'>d</a><a href='?C=N'>s</a><a href='a/b'>"
    found = listing.read("directory", page, None)
    assert ([each.name for each in found.offers], found.odd) == (["fw-1.bin"], ["a/b"])
    found = listing.read("list", b"# x\nfw-1.bin\n../x\n" + b"ab" * 32 + b" *fw-2.bin\n", None)
    assert [(each.name, each.sha256) for each in found.offers] == [("fw-1.bin", ""), ("fw-2.bin", "ab" * 32)]
    assert found.odd == ["../x"]
    mapping = Mapping(items="a.b", file="f", version="v", sha256="h")
    found = listing.read("json", b'{"a": {"b": [{"f": "x.bin", "v": "1", "h": "AB"}, {"f": 7}, 3]}}', mapping)
    assert (found.offers, len(found.odd)) == ([], 3)
    for kind, data in (("json", b"[" * 100_000), ("json", b'{"a": 1}'), ("json", b"\xff"),
                       ("list", b"\n".join(b"fw-%d" % number for number in range(10_001))),
                       ("list", b"ab" * 32 + b"  x\n" + b"cd" * 32 + b"  x\n")):  # fmt: skip
        with pytest.raises(BadListing):
            listing.read(kind, data, mapping)


def test_a_csaf_provider_says_where_its_documents_are() -> None:
    feed = {"tlp_label": "CLEAR", "url": "https://v/f.json"}
    both = {
        "distributions": [
            {"directory_url": "https://v/d"},
            {"rolie": {"feeds": [feed, {"tlp_label": "RED", "url": "x"}]}},
        ]
    }
    assert listing.distributions(json.dumps(both).encode()) == [("rolie", "https://v/f.json")]
    directory = {
        "distributions": [{"directory_url": "https://v/d/"}, 7, {"rolie": {"feeds": {"url": "x"}}}, {"rolie": []}]
    }
    assert listing.distributions(json.dumps(directory).encode()) == [("changes", "https://v/d/changes.csv")]
    many = {"distributions": [{"rolie": {"feeds": [feed] * 1000}}] * 1000}
    assert len(listing.distributions(json.dumps(many).encode())) == listing.DISTRIBUTIONS_MOST
    unsaid = b'{"distributions": [{"rolie": {"feeds": [{"url": "x"}]}}]}'
    for data in (b"", b"[]", b"{}", b'{"distributions": []}', unsaid, b'{"distributions": {"directory_url": "x"}}',
                 b"[" * 100_000):  # fmt: skip
        with pytest.raises(BadListing):
            listing.distributions(data)


@examples(100)
@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["feed", "entry", "link", "rel", "href", "updated", "content", "src", "distributions", "rolie",
                         "feeds", "url", "tlp_label", "directory_url"]), inner, max_size=4),
))  # fmt: skip
def test_what_a_csaf_provider_may_say_ends_in_offers_or_is_refused(said: Any) -> None:
    data = json.dumps(said).encode()
    with contextlib.suppress(BadListing):
        assert all(kind in ("rolie", "changes") for kind, _ in listing.distributions(data))
    for kind in ("rolie", "changes"):
        with contextlib.suppress(BadListing):
            assert all(
                FILE.match(each.name) and FILE.match(each.version) for each in listing.read(kind, data, None).offers
            )


@examples(100)
@given(st.binary(max_size=200))
def test_changes_of_any_bytes_are_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(BadListing):
        listing.read("changes", data, None)


# --- sealing --------------------------------------------------------------------------------------------------------


def opened(sealing: Sealing, file: Path) -> bytes:
    """Each piece holds until the next one."""
    return b"".join(bytes(piece) for piece in sealing.pieces(file))


@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE])
def test_what_is_sealed_comes_back(tmp_path: Path, size: int) -> None:
    sealing, data = Sealing(b"k" * 32, encrypt=True), os.urandom(size)
    out = sealing.create(tmp_path / "f")
    for at in range(0, size, 300_000):
        out.write(data[at : at + 300_000])
    out.sync()
    out.close()
    sealed = (tmp_path / "f").read_bytes()
    assert sealed.startswith(HEAD)
    assert opened(sealing, tmp_path / "f") == data
    key = sealing.key_of(tmp_path / "f")
    kept = Kept(tmp_path / "f", key)
    assert (kept.read_bytes(), kept.stat().st_size, kept.is_plain) == (data, size, False)
    head = len(HEAD) + 32
    bad = [
        sealed[:-1],
        sealed[: head + 15],
        sealed + b"x",
        sealed[:head] + bytes([sealed[head] ^ 1]) + sealed[head + 1 :],
        sealed[:head],
        sealed[: head + max(0, size - 1) // PIECE * (PIECE + 16) + 9],
    ]
    if size > 2 * PIECE:
        one, two = sealed[head : head + PIECE + 16], sealed[head + PIECE + 16 : head + 2 * (PIECE + 16)]
        bad += [sealed[:head] + two + one + sealed[head + 2 * (PIECE + 16) :], sealed[: head + 2 * (PIECE + 16)]]
    for each in bad:
        (tmp_path / "bad").write_bytes(each)
        with pytest.raises(NotSealed):
            opened(sealing, tmp_path / "bad")
        with pytest.raises(NotSealed):
            Kept(tmp_path / "bad", key).read_bytes()
    for other in (Sealing(b"o" * 32, encrypt=True), Sealing(None, encrypt=False)):
        with pytest.raises(NotSealed):
            opened(other, tmp_path / "f")
        with pytest.raises(NotSealed):
            Kept(tmp_path / "f", other.key_of(tmp_path / "f")).read_bytes()


@examples(60)
@given(st.data())
def test_a_sealed_file_is_read_anywhere(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 3 * PIECE + 5))
    content = random.Random(size).randbytes(size)
    sealing = Sealing(b"k" * 32, encrypt=True)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "f"
        out = sealing.create(file)
        out.write(content)
        out.sync()
        out.close()
        (Path(folder) / "plain").write_bytes(content)
        places = st.tuples(st.integers(0, size + 10), st.sampled_from([0, 1, 2]), st.integers(0, PIECE + 9))
        buffering = data.draw(st.sampled_from([-1, 0]))
        with (
            Kept(file, sealing.key_of(file)).open("rb", buffering) as ours,
            Kept(Path(folder) / "plain", b"").open("rb", -1) as theirs,
        ):
            for place, whence, count in data.draw(st.lists(places, max_size=12)):
                offset = place if whence == 0 else place - size
                if whence == 1 and theirs.tell() + offset < 0:
                    continue
                assert ours.seek(offset, whence) == theirs.seek(offset, whence)
                wanted = theirs.read(count)
                got = ours.read(count)
                while buffering == 0 and len(got) < len(wanted) and (more := ours.read(len(wanted) - len(got))):
                    got += more
                assert got == wanted
            with pytest.raises(OSError, match=r"before the beginning|Invalid argument|negative seek"):
                ours.seek(-1)


def test_a_file_is_sealed_and_opened_without_new_memory_for_each_piece(tmp_path: Path) -> None:
    sealing, data = Sealing(b"k" * 32, encrypt=True), bytes(48 << 10)
    out = sealing.create(tmp_path / "f")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(64 * PIECE // len(data)):
        out.write(data)
    out.sync()
    out.close()
    between = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    assert between - before < 64 * 100  # pages; a piece has 256
    assert sum(len(piece) for piece in sealing.pieces(tmp_path / "f")) == 64 * PIECE // len(data) * len(data)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - between < 64 * 100


def test_without_a_key_nothing_is_taken(tmp_path: Path) -> None:
    sealing = Sealing(None, encrypt=True)
    assert "no key" in sealing.unfit
    with pytest.raises(OSError, match="no key"):
        sealing.create(tmp_path / "f")
