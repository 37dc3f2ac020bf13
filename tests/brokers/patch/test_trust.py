"""An owned keeper, and what it can offer: the installer believes people's signatures by its own root alone."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from msgspec import UNSET
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp

from cofferdam.brokers.patch import trustkeys
from cofferdam.brokers.patch.records import Custom, Release
from cofferdam.brokers.patch.repository import Repository
from cofferdam.brokers.patch.trust import NotBelieved, Trust
from cofferdam.brokers.patch.witnesses import Witnesses
from cofferdam.cli.ssh_signing import ssh_sign
from tests.brokers.patch.makers import ssh_key
from tests.brokers.patch.vouching import KEYS, WITNESSES, word

HASH = "ab" * 32
PEOPLE = ("alice", "bob", "carol", "dave", "h1", "h2")
NS = 10**9


class Site:
    """A root, people with real keys, a keeper's repository and an installer's trust."""

    def __init__(self, folder: Path, keys: dict[str, Path]) -> None:
        self.folder = folder
        self.keys = keys
        self.private = Ed25519PrivateKey.generate()
        self.pem = self.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        self.online = trustkeys.SSlibKey.from_crypto(self.private.public_key())
        self.root = self.make_root(("alice", "bob", "carol"))
        self.repository = Repository(folder / "tuf", self.root, self.pem)
        self.now = time.time_ns()

    def person(self, name: str, called: str = "") -> trustkeys.OpenSshKey:
        return trustkeys.person_key(self.keys[name].with_suffix(".pub").read_text(), called or name)

    def make_root(
        self, who: tuple[str, ...], *, version: int = 1, signatures: int = 2, holders: tuple[str, ...] = ("h1", "h2"),
        days: int = 365,
    ) -> bytes:  # fmt: skip
        made = trustkeys.make_root(
            [self.person(name) for name in who], [self.person("h1"), self.person("h2")], self.online,
            signatures=signatures, root_signatures=2, version=version, days=days,
        )  # fmt: skip
        return trustkeys.encode(self.sign(made, *holders))

    def sign(self, metadata: Metadata[Root] | Metadata[Targets], *who: str) -> Metadata[Root]:
        for name in who:
            signature = trustkeys.signature(ssh_sign(self.keys[name], trustkeys.to_sign(metadata.signed)))
            metadata.signatures[signature.keyid] = signature
        return metadata  # type: ignore[return-value]

    def custom(self, number: int, **more: object) -> Custom:
        said: dict[str, object] = {
            "number": number, "product": "fw", "version": f"{number}.0", "file": "fw.bin", "uploaded_by": "stage",
            "requested_by": "planner", "origin": "o", "scan": "s", "at": "", **more,
        }  # fmt: skip
        path = f"{said['product']}/{said['version']}/{said['file']}"
        said.setdefault("brought", (word("put", str(said["uploaded_by"]), path, HASH),))
        said.setdefault("asked", word("request", str(said["requested_by"]), path, HASH))
        return Custom(**said)  # type: ignore[arg-type]

    def release(self, number: int, *who: str, **more: object) -> None:
        draft = self.repository.draft(self.custom(number, **more), 10, HASH)
        self.sign(draft, *who)
        self.repository.publish(draft)

    def trust(
        self, pinned: bytes = b"", *, signatures: int = 2, separate: bool = True, witnesses: Witnesses = WITNESSES
    ) -> Trust:
        return Trust(
            pinned or self.root, self.folder / "trusted", self.repository.metadata, signatures=signatures,
            separate=separate, wall=lambda: self.now, witnesses=witnesses,
        )  # fmt: skip

    def put(self, name: str, data: bytes) -> None:
        (self.repository.metadata / name).write_bytes(data)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("keys")
    return {name: ssh_key(folder, name) for name in PEOPLE}


@pytest.fixture
def site(tmp_path: Path, keys: dict[str, Path]) -> Site:
    return Site(tmp_path, keys)


def believed(trust: Trust) -> list[int]:
    trust.refresh()
    return [release.custom.number for release in trust.releases]


def test_two_people_release_and_it_is_believed_after_a_restart(site: Site) -> None:
    assert believed(site.trust()) == []
    site.release(1, "alice", "bob")
    assert believed(site.trust()) == [1]
    site.release(2, "bob", "carol")
    assert believed(site.trust()) == [1, 2]


@pytest.mark.parametrize(
    ("who", "more", "says"),
    [
        ((), {}, "signed by 0/2"),
        (("alice",), {}, "signed by 1/2"),
        (("alice", "dave"), {}, "signed by 1/2"),
        (("h1", "h2"), {}, "signed by 0/2"),
        (("alice", "bob"), {"uploaded_by": "bob"}, "bob brought it in or asked"),
        (("alice", "bob"), {"requested_by": "alice"}, "alice brought it in or asked"),
        (("alice", "bob"), {"emergency": True, "reason": " "}, "an emergency without a reason"),
    ],
)
def test_a_release_takes_two_other_people(site: Site, who: tuple[str, ...], more: dict[str, object], says: str) -> None:
    site.release(1, *who, **more)
    trust = site.trust()
    with pytest.raises(NotBelieved, match=says):
        trust.refresh()
    assert trust.releases == ()


FW = "fw/1.0/fw.bin"
LIES: dict[str, tuple[dict[str, object], str]] = {
    "no words at all": ({"brought": UNSET, "asked": UNSET}, "nobody saw planner ask"),
    "nobody brought it in": ({"brought": ()}, "nobody saw stage bring it in"),
    "another name than was seen": ({"brought": (word("put", "bob", FW, HASH),)}, "nobody saw stage bring it in"),
    "of another file": ({"brought": (word("put", "stage", FW, "cd" * 32),)}, "stage did it .put. is not the gate's"),
    "of another version": (
        {"brought": (word("put", "stage", "fw/2.0/fw.bin", HASH),)}, "stage did it .put. is not the gate's"),
    "by the intake, which did not see it": (
        {"brought": (word("put", "stage", FW, HASH, by="intake"),)}, "stage did it .put. is not the gate's"),
    "one who asked has not brought it": (
        {"brought": (word("request", "stage", FW, HASH),)}, "nobody saw stage bring it in"),
    "in words of its own": (
        {"brought": (msgspec.structs.replace(word("put", "bob", FW, HASH), who="stage"),)}, "is not the gate's"),
    "another has asked": ({"asked": word("request", "alice", FW, HASH)}, "nobody saw planner ask"),
    "who brought it has not asked": ({"asked": word("put", "planner", FW, HASH)}, "nobody saw planner ask"),
    "of a time that was not": (
        {"asked": msgspec.structs.replace(word("request", "planner", FW, HASH), at=1)}, "is not the gate's"),
    "the second was an approver": (
        {"brought": (word("upload", "stage", FW, HASH), word("put", "Bob", FW, HASH))}, "bob brought it in or asked"),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_whose_it_was_is_not_the_keepers_word(site: Site, lie: str) -> None:
    """An owned keeper, and two approvers who signed what it showed them."""
    more, says = LIES[lie]
    site.release(1, "alice", "bob", **more)
    trust = site.trust()
    with pytest.raises(NotBelieved, match=says):
        trust.refresh()
    assert trust.releases == ()
    assert believed(site.trust(separate=False)) == [1]  # the policy that says so wants to know nothing of this


def test_what_lies_in_a_folder_was_seen_by_nobody(site: Site) -> None:
    site.release(1, "alice", "bob", uploaded_by="stick", brought=())
    with pytest.raises(NotBelieved, match="nobody saw stick bring it in"):
        site.trust().refresh()
    assert believed(site.trust(witnesses=Witnesses(KEYS, laid=("fw",)))) == [1]


def test_a_name_is_one_however_its_letters_are_written(site: Site) -> None:
    """An approver whose name a Mac wrote, in two code points for one letter."""
    site.root = trustkeys.encode(
        site.sign(
            trustkeys.make_root(
                [site.person("alice"), site.person("bob", "jo\u0308rg")], [site.person("h1"), site.person("h2")],
                site.online, signatures=2, root_signatures=2,
            ), "h1", "h2",
        )
    )  # fmt: skip
    site.repository = Repository(site.folder / "tuf-names", site.root, site.pem)
    site.release(1, "alice", "bob", uploaded_by="J\xf6rg")
    with pytest.raises(NotBelieved, match="brought it in or asked"):
        site.trust().refresh()


def test_two_sources_are_two_also_for_the_installer(site: Site) -> None:
    both = Witnesses(KEYS, twice=("fw",))
    for brought in (
        (word("put", "stage", FW, HASH),),
        (word("put", "stage", FW, HASH), word("upload", "Stage", FW, HASH)),
        (word("upload", "stage", FW, HASH), word("upload", "other", FW, HASH)),
    ):
        site.repository = Repository(site.folder / f"tuf-{len(brought)}-{brought[-1].who}", site.root, site.pem)
        site.release(1, "alice", "bob", brought=brought)
        with pytest.raises(NotBelieved, match="nobody saw two bring it in"):
            site.trust(witnesses=both).refresh()
        shutil.rmtree(site.folder / "trusted")
    site.repository = Repository(site.folder / "tuf-good", site.root, site.pem)
    site.release(1, "alice", "bob", brought=(word("put", "stage", FW, HASH), word("put", "carol", FW, HASH)))
    assert believed(site.trust(witnesses=both)) == [1]


def test_what_was_left_in_a_folder_first_and_brought_then_is_of_two_sources(site: Site) -> None:
    """It has the folder's name, and the word of who brought it second; who that is approves nothing all the same."""
    witnesses = Witnesses(KEYS, laid=("fw",), twice=("fw",))
    second = (word("put", "carol", FW, HASH),)
    site.release(1, "alice", "bob", uploaded_by="stick", brought=second)
    assert believed(site.trust(witnesses=witnesses)) == [1]
    shutil.rmtree(site.folder / "trusted")
    site.repository = Repository(site.folder / "tuf-2", site.root, site.pem)
    site.release(1, "alice", "carol", uploaded_by="stick", brought=second)
    with pytest.raises(NotBelieved, match="carol brought it in or asked"):
        site.trust(witnesses=witnesses).refresh()


def test_what_was_believed_before_there_were_such_words_still_is(site: Site) -> None:
    """An installer of an earlier version took it; its digest is the one that it had then."""
    before = site.custom(1, brought=UNSET, asked=UNSET)
    plain = (
        f'{{"path":"fw/1.0/fw.bin","size":10,"sha256":"{HASH}","custom":{{"number":1,"product":"fw","version":"1.0",'
        '"file":"fw.bin","uploaded_by":"stage","requested_by":"planner","origin":"o","scan":"s","at":"",'
        '"emergency":false,"reason":""}}'
    )
    assert Release(before.path, 10, HASH, before).digest == hashlib.sha256(plain.encode()).hexdigest()
    site.release(1, "alice", "bob", brought=UNSET, asked=UNSET)
    assert believed(site.trust(separate=False)) == [1]
    site.release(2, "alice", "bob")
    assert believed(site.trust()) == [1, 2]


def test_a_third_makes_up_for_the_uploader(site: Site) -> None:
    site.release(1, "alice", "bob", "carol", uploaded_by="bob")
    assert believed(site.trust()) == [1]
    site.release(2, "alice", "bob", uploaded_by="carol")  # carol's earlier part in nothing of 2 is no matter
    assert believed(site.trust()) == [1, 2]


def _rollback(site: Site) -> None:
    kept = site.folder / "kept"
    shutil.copytree(site.repository.metadata, kept)
    site.release(2, "alice", "bob")
    assert believed(site.trust()) == [1, 2]
    shutil.rmtree(site.repository.metadata)
    shutil.copytree(kept, site.repository.metadata)


def _old_targets_anew(site: Site) -> None:
    """The keeper says by its own keys that older targets are the newest."""
    site.release(2, "alice", "bob")
    assert believed(site.trust()) == [1, 2]
    signer = site.repository.signer
    assert signer is not None
    later = datetime.now(UTC).replace(microsecond=0) + timedelta(days=5)
    snapshot = Metadata(Snapshot(version=9, expires=later, meta={"targets.json": MetaFile(1)}))
    snapshot.sign(signer)
    site.put("9.snapshot.json", trustkeys.encode(snapshot))
    site.repository.stamp(9)


def _frozen(site: Site) -> None:
    site.now += 8 * 86_400 * NS


def _no_stamp(site: Site) -> None:
    (site.repository.metadata / "timestamp.json").unlink()


def _changed_target(site: Site) -> None:
    path = site.repository.metadata / "1.targets.json"
    path.write_bytes(path.read_bytes().replace(b"ab" * 32, b"cd" * 32))
    # The snapshot holds no hash of the targets: it is people's signatures that this breaks.
    shutil.rmtree(site.folder / "trusted")


def _stranger_stamps(site: Site) -> None:
    other = trustkeys.CryptoSigner.generate_ed25519()
    stamp = Metadata(Timestamp(version=99, expires=datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)))
    stamp.sign(other)
    site.put("timestamp.json", trustkeys.encode(stamp))


def _unsigned_root(site: Site) -> None:
    site.put("2.root.json", site.make_root(("dave", "carol"), version=2, signatures=1, holders=()))


def _root_by_approvers(site: Site) -> None:
    site.put("2.root.json", site.make_root(("dave", "carol"), version=2, holders=("alice", "bob")))


def _lower_threshold(site: Site) -> None:
    """Signed by its holders, but by fewer people than the policy asks for."""
    site.put("2.root.json", site.make_root(("alice", "bob"), version=2, signatures=1))


def _large(site: Site) -> None:
    site.put("timestamp.json", b" " * (trustkeys.METADATA_BYTES + 1))


def _nonsense(site: Site) -> None:
    site.put("timestamp.json", b'{"signed": [[[[')


def _deep(site: Site) -> None:
    site.put("timestamp.json", b"[" * 100_000)


def _link(site: Site) -> None:
    path = site.repository.metadata / "timestamp.json"
    path.rename(path.with_name("other"))
    path.symlink_to("other")


@pytest.mark.parametrize(
    "deed",
    [_rollback, _old_targets_anew, _frozen, _no_stamp, _changed_target, _stranger_stamps, _unsigned_root,
     _root_by_approvers, _lower_threshold, _large, _nonsense, _deep, _link],
    ids=lambda deed: deed.__name__,
)  # fmt: skip
def test_an_owned_keeper_is_not_believed(site: Site, deed: Callable[[Site], None]) -> None:
    site.release(1, "alice", "bob")
    assert believed(site.trust()) == [1]
    deed(site)
    with pytest.raises(NotBelieved):
        site.trust().refresh()


def test_time_only_grows(site: Site) -> None:
    """A time stamp that has expired stays so, whatever the clock is set back to."""
    site.release(1, "alice", "bob")
    site.now += 8 * 86_400 * NS
    with pytest.raises(NotBelieved, match="expired"):
        site.trust().refresh()
    site.now -= 8 * 86_400 * NS
    with pytest.raises(NotBelieved, match="expired"):
        site.trust().refresh()


def test_a_next_root_by_its_holders_and_a_key_that_went(site: Site) -> None:
    site.release(1, "alice", "bob")
    assert believed(site.trust()) == [1]
    site.repository.take_root(site.make_root(("alice", "dave"), version=2))
    draft = site.repository.draft(site.custom(2), 10, "ab" * 32)
    site.sign(draft, "alice", "bob")  # bob's key has gone meanwhile
    site.repository.publish(draft)
    with pytest.raises(NotBelieved, match="signed by 1/2"):
        site.trust().refresh()
    site.sign(draft, "dave")
    site.repository.publish(draft)
    assert believed(site.trust()) == [1, 2]


def test_a_root_that_was_believed_is_not_taken_back(site: Site) -> None:
    site.release(1, "alice", "bob")
    site.repository.take_root(site.make_root(("alice", "dave"), version=2))
    draft = site.repository.draft(site.custom(2), 10, "ab" * 32)
    site.sign(draft, "alice", "dave")
    site.repository.publish(draft)
    assert believed(site.trust()) == [1, 2]
    (site.repository.metadata / "2.root.json").unlink()
    draft = site.repository.draft(site.custom(3), 10, "ab" * 32)
    site.sign(draft, "alice", "bob")
    site.repository.publish(draft)
    with pytest.raises(NotBelieved):
        site.trust().refresh()


def test_one_key_is_one_person(site: Site) -> None:
    with pytest.raises(Exception, match="one key for two"):
        trustkeys.make_root(
            [site.person("alice"), site.person("alice", "bob")], [site.person("h1")], site.online, signatures=2,
            root_signatures=1,
        )  # fmt: skip
    with pytest.raises(Exception, match="of one name"):
        trustkeys.make_root(
            [site.person("alice"), site.person("bob", "alice")], [site.person("h1")], site.online, signatures=2,
            root_signatures=1,
        )  # fmt: skip
    twin = site.person("alice").to_dict()
    with pytest.raises(ValueError, match="not its own"):
        trustkeys.OpenSshKey.from_dict("00" * 32, twin)


@pytest.mark.parametrize(
    "path", ["fw/1.0/other.bin", "../1.0/fw.bin", "fw/1.0/fw.bin/x"]
)  # fmt: skip
def test_a_target_is_what_it_says_it_is(site: Site, path: str) -> None:
    draft = site.repository.draft(site.custom(1), 10, "ab" * 32)
    target = draft.signed.targets.pop("fw/1.0/fw.bin")
    draft.signed.targets[path] = TargetFile(target.length, target.hashes, path, target.unrecognized_fields)
    site.sign(draft, "alice", "bob")
    site.repository.publish(draft)
    with pytest.raises(NotBelieved):
        site.trust().refresh()


def test_another_file_in_the_place_of_one_that_was_released_is_a_new_release(site: Site) -> None:
    """A file that one of those who sign brought in, under the name of one that was checked before."""
    site.release(1, "alice", "bob")
    assert believed(site.trust()) == [1]
    words = {"brought": (word("put", "Bob", FW, "cd" * 32),), "asked": word("request", "planner", FW, "cd" * 32)}
    draft = site.repository.draft(site.custom(1, uploaded_by="Bob", **words), 10, "cd" * 32)
    site.sign(draft, "alice", "bob")
    site.repository.publish(draft)
    with pytest.raises(NotBelieved, match="bob brought it in or asked"):
        site.trust().refresh()


@pytest.mark.parametrize("sha256", ["/".join(["."] * 27) + "/book.db/..", "AB" * 32, "ab" * 31])
def test_a_hash_is_one(site: Site, sha256: str) -> None:
    """It is a file's name in the installer's own store."""
    draft = site.repository.draft(site.custom(1), 10, sha256)
    site.sign(draft, "alice", "bob")
    site.repository.publish(draft)
    with pytest.raises(NotBelieved, match="sha256"):
        site.trust().refresh()


def test_a_new_key_of_the_keepers_brings_no_older_list_back(site: Site) -> None:
    site.release(1, "alice", "bob")
    site.release(2, "alice", "bob")
    assert believed(site.trust()) == [1, 2]
    private = Ed25519PrivateKey.generate()
    site.online = trustkeys.SSlibKey.from_crypto(private.public_key())
    site.repository.take_root(site.make_root(("alice", "bob", "carol"), version=2))
    site.repository.signer = trustkeys.CryptoSigner(private, site.online)
    snapshot = Metadata(
        Snapshot(
            version=9,
            expires=datetime.now(UTC).replace(microsecond=0) + timedelta(days=5),
            meta={"targets.json": MetaFile(1)},
        )
    )
    snapshot.sign(site.repository.signer)
    site.put("9.snapshot.json", trustkeys.encode(snapshot))
    site.repository.stamp(9)
    with pytest.raises(NotBelieved, match="older list"):
        site.trust().refresh()


def test_a_root_that_names_one_person_twice_is_not_believed_whoever_signed_it(site: Site) -> None:
    site.release(1, "alice", "bob")
    assert believed(site.trust()) == [1]
    root = trustkeys.decode(site.make_root(("alice", "bob"), version=2, holders=()), Root)
    root.signed.add_key(site.person("carol", "BOB"), "targets")
    site.put("2.root.json", trustkeys.encode(site.sign(root, "h1", "h2")))
    with pytest.raises(NotBelieved, match="two keys of"):
        site.trust().refresh()


def test_the_policy_may_name_another_first_root(site: Site) -> None:
    site.release(1, "alice", "bob")
    site.repository.take_root(site.make_root(("alice", "bob"), version=2))
    assert believed(site.trust()) == [1]
    fresh = trustkeys.make_root(
        [site.person("alice"), site.person("carol")], [site.person("dave")], site.online, signatures=2,
        root_signatures=1,
    )  # fmt: skip
    site.root = trustkeys.encode(site.sign(fresh, "dave"))
    shutil.rmtree(site.repository.metadata.parent)
    site.repository = Repository(site.folder / "tuf", site.root, site.pem)
    for number in (1, 2):  # beyond what was believed
        site.release(number, "alice", "carol")
    assert believed(site.trust()) == [1, 2]


def test_it_says_who_signed_and_not_who_might_have(site: Site) -> None:
    site.release(1, "alice", "carol")
    trust = site.trust()
    trust.refresh()
    assert trust.signers == {"alice", "carol"}
