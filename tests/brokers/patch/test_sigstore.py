"""Sigstore bundles, of an instance of one's own: what holds, and what is refused and why."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from cofferdam.brokers.patch.origin import NotProved, Pins, prove
from tests.brokers.patch.sigstore_maker import IDENTITY, ISSUER, NOW, Instance, Json, b64, changed

DATA: Final = b"firmware 2.1"
MATERIAL: Final = "verificationMaterial"


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Instance:
    return Instance(tmp_path_factory.mktemp("sigstore") / "one")


@pytest.fixture(scope="module")
def bundles(instance: Instance) -> dict[bool, Json]:
    """Of Rekor 1 and of Rekor 2."""
    return {second: instance.bundle(DATA, second=second) for second in (False, True)}


def proved(
    folder: Path, bundle: bytes, root: Json, identity: str = IDENTITY, issuer: str = ISSUER, data: bytes = DATA
) -> dict[str, str]:
    file = folder / "fw"
    file.write_bytes(data)
    pins = Pins([json.dumps(root).encode()], identity=identity, issuer=issuer)
    return prove("sigstore", file, bundle, pins).facts


def refused(folder: Path, bundle: bytes, root: Json, says: str, **how: Any) -> None:
    with pytest.raises(NotProved, match=says):
        proved(folder, bundle, root, **how)


@pytest.mark.parametrize("second", [False, True], ids=["rekor 1", "rekor 2"])
@pytest.mark.parametrize("identity", [IDENTITY, IDENTITY.replace("v2.1", "*"), IDENTITY.replace("tags/v2.1", "*")])
def test_a_bundle_is_taken(
    instance: Instance, bundles: dict[bool, Json], tmp_path: Path, second: bool, identity: str
) -> None:
    found = proved(tmp_path, json.dumps(bundles[second]).encode(), instance.trust_root(), identity)
    assert (found["identity"], found["issuer"]) == (IDENTITY, ISSUER)
    assert abs(datetime.fromisoformat(found["signed_at"]) - datetime.now(UTC)) < timedelta(hours=1)


def entry(bundle: Json) -> Json:
    found: Json = bundle[MATERIAL]["tlogEntries"][0]
    return found


def flipped(text: str, at: int = 40) -> str:
    data = bytearray(b64decode(text))
    data[at] ^= 1
    return b64(bytes(data))


def flip(of: Callable[[Json], Json], key: str, at: int = 40) -> Callable[[Json], object]:
    """Changes a bit of what stands under a key."""
    return lambda bundle: of(bundle).update({key: flipped(of(bundle)[key], at)})


def proof(bundle: Json) -> Json:
    found: Json = entry(bundle)["inclusionProof"]
    return found


def stamp(bundle: Json) -> Json:
    found: Json = bundle[MATERIAL]["timestampVerificationData"]["rfc3161Timestamps"][0]
    return found


CHANGES: Final[list[tuple[bool, Callable[[Json], object], str]]] = [
    (False, flip(lambda b: b["messageSignature"], "signature"), "signature does not hold"),
    (False, lambda b: b["messageSignature"]["messageDigest"].update(digest=b64(bytes(32))), "another file"),
    (False, lambda b: b["messageSignature"]["messageDigest"].update(algorithm="SHA1"), "another file"),
    (False, lambda b: b.pop("messageSignature"), "no signature over a file"),
    (True, lambda b: b.update(dsseEnvelope={"payload": "e30=", "payloadType": "application/vnd.in-toto+json",
        "signatures": [{"sig": b.pop("messageSignature")["signature"]}]}), "an attestation"),
    (False, lambda b: b.update(mediaType="application/json"), "not known here"),
    (False, lambda b: b[MATERIAL]["tlogEntries"].clear(), "one entry"),
    (False, lambda b: b[MATERIAL]["tlogEntries"].append(entry(b)), "one entry"),
    (False, lambda b: b[MATERIAL].pop("certificate"), "no certificate"),
    (False, flip(lambda b: b[MATERIAL]["certificate"], "rawBytes", 5), "cannot be read|does not hold|another"),
    (False, lambda b: entry(b).pop("inclusionProof"), "inclusionProof"),
    (False, lambda b: entry(b).update(logIndex="-1"), "cannot be read"),
    (False, lambda b: entry(b).update(kindVersion={"kind": "dsse", "version": "0.0.1"}), "not known here"),
    (False, flip(entry, "canonicalizedBody", -3), "cannot be read|does not have"),
    (False, lambda b: entry(b).update(integratedTime="1700000000"), "promise does not hold"),
    (False, lambda b: entry(b).update(integratedTime="9" * 18), "promise does not hold|a time that is none"),
    (False, lambda b: entry(b).pop("inclusionPromise"), "says when it was signed"),
    (False, flip(lambda b: entry(b)["inclusionPromise"], "signedEntryTimestamp"), "promise does not hold"),
    (False, flip(lambda b: entry(b)["logId"], "keyId", 4), "no pinned trust root has"),
    (False, lambda b: proof(b).update(logIndex="3"), "does not have the entry"),
    (False, lambda b: proof(b).update(treeSize="6"), "another tree"),
    (False, flip(proof, "rootHash", 0), "another tree"),
    (False, lambda b: proof(b)["hashes"].pop(), "does not have the entry"),
    (False, lambda b: proof(b)["checkpoint"].update(envelope="x\n5\n\n"), "another tree"),
    (False, lambda b: proof(b)["checkpoint"].update(envelope=proof(b)["checkpoint"]["envelope"].replace(
        "rekor.example\n5", "else.example\n5")), "not signed by the log"),
    (True, flip(proof, "rootHash", 0), "another tree"),
    (True, lambda b: entry(b).update(logIndex="3"), "another place"),
    (False, lambda b: entry(b).update(logIndex="1003"), "promise does not hold"),
    (True, lambda b: b[MATERIAL].pop("timestampVerificationData"), "says when it was signed"),
    (True, flip(stamp, "signedTimestamp", -5), "says when it was signed"),
    (True, lambda b: entry(b).update(integratedTime="1700000000", inclusionPromise={"signedEntryTimestamp": ""}),
     "promise does not hold"),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(CHANGES)))
def test_no_part_of_it_may_be_another(
    instance: Instance, bundles: dict[bool, Json], tmp_path: Path, number: int
) -> None:
    second, change, says = CHANGES[number]
    refused(tmp_path, changed(bundles[second], change), instance.trust_root(), says)


@pytest.mark.parametrize("second", [False, True])
def test_a_time_stamp_or_entry_of_another_signature_is_none(
    instance: Instance, bundles: dict[bool, Json], tmp_path: Path, second: bool
) -> None:
    other = instance.bundle(DATA, second=second)
    borrowed = changed(bundles[second], lambda b: b[MATERIAL].update(tlogEntries=other[MATERIAL]["tlogEntries"]))
    refused(tmp_path, borrowed, instance.trust_root(), "entry is of another signature")
    if second:
        key = "timestampVerificationData"
        stamped = changed(bundles[True], lambda b: b[MATERIAL].update({key: other[MATERIAL][key]}))
        refused(tmp_path, stamped, instance.trust_root(), "of another signature")


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"identity": IDENTITY.replace("v2.1", "v2.2")}, "the policy names"),
        ({"identity": "someone@vendor.example"}, "the policy names"),
        ({"issuer": "https://elsewhere.example"}, "the policy names"),
        ({"old": "https://elsewhere.example"}, "does not say who"),
        ({"at": NOW - timedelta(days=200)}, "when the log's key did not hold"),
        ({"at": NOW + timedelta(days=1)}, "still to come"),
        ({"usage": ExtendedKeyUsageOID.EMAIL_PROTECTION}, "not for signing code"),
        ({"shown": False}, "no log of certificates"),
        ({"entry_of": b"firmware 2.0"}, "entry is of another signature"),
    ],
)
def test_who_signs_otherwise_is_refused(instance: Instance, tmp_path: Path, how: Json, says: str) -> None:
    refused(tmp_path, json.dumps(instance.bundle(DATA, **how)).encode(), instance.trust_root(), says)


def test_what_the_policy_pins_decides(instance: Instance, bundles: dict[bool, Json], tmp_path: Path) -> None:
    root, bundle = instance.trust_root(), json.dumps(bundles[False]).encode()
    refused(tmp_path, bundle, root, "another file", data=b"firmware 2.2")
    for identity in (IDENTITY[:-1], IDENTITY + "*", IDENTITY.upper()):
        refused(tmp_path, bundle, root, "the policy names", identity=identity)
    refused(tmp_path, bundle, root, "the policy names", issuer=f"{ISSUER}/")
    other = Instance(tmp_path / "other").trust_root()
    refused(tmp_path, bundle, other, "no pinned trust root has")
    for key, says in (("certificateAuthorities", "authority of the trust root"), ("ctlogs", "log of certificates")):
        refused(tmp_path, bundle, {**root, key: other[key]}, says)
    ended = {"start": "2020-01-01T00:00:00Z", "end": "2021-01-01T00:00:00Z"}
    for key, says in (("certificateAuthorities", "authority of the trust root"), ("ctlogs", "log of certificates"),
                      ("tlogs", "key did not hold")):  # fmt: skip
        late = instance.trust_root()
        for each in late[key]:
            each.get("publicKey", each)["validFor"] = ended
        refused(tmp_path, bundle, late, says)
    stamped = json.dumps(bundles[True]).encode()
    refused(tmp_path, stamped, {**root, "timestampAuthorities": other["timestampAuthorities"]}, "who|says when")
    unsaid = instance.trust_root()
    unsaid["tlogs"][0]["publicKey"].pop("validFor")
    refused(tmp_path, bundle, unsaid, "does not say when")
    refused(tmp_path, bundle, {**root, "mediaType": "application/json"}, "no pinned trust root has")


def test_any_branch_or_tag_is_nobodys_request_to_merge(instance: Instance, tmp_path: Path) -> None:
    """Whoever may ask for a merge runs the maker's own workflow, as it was changed by him."""
    any_ref = IDENTITY.replace("tags/v2.1", "*")
    for ref, taken in (("heads/main", True), ("pull/7/merge", False), ("merge-requests/7/head", False)):
        bundle = json.dumps(instance.bundle(DATA, identity=IDENTITY.replace("tags/v2.1", ref))).encode()
        if taken:
            assert proved(tmp_path, bundle, instance.trust_root(), any_ref)["identity"].endswith(ref)
        else:
            refused(tmp_path, bundle, instance.trust_root(), "the policy names", identity=any_ref)


def test_of_several_pinned_roots_one_holds_all_of_it(
    instance: Instance, bundles: dict[bool, Json], tmp_path: Path
) -> None:
    root, other = instance.trust_root(), Instance(tmp_path / "other").trust_root()
    older = {**root, "certificateAuthorities": other["certificateAuthorities"]}
    file = tmp_path / "fw"
    file.write_bytes(DATA)

    def by(*roots: Json) -> dict[str, str]:
        pins = Pins([json.dumps(each).encode() for each in roots], identity=IDENTITY, issuer=ISSUER)
        return prove("sigstore", file, json.dumps(bundles[False]).encode(), pins).facts

    assert by(older, root)["identity"] == by(root, older)["identity"] == IDENTITY
    with pytest.raises(NotProved, match="authority of the trust root"):
        by(older, {**other, "certificateAuthorities": root["certificateAuthorities"]})
    ended = instance.trust_root()["tlogs"][0]
    ended["publicKey"]["validFor"] = {"start": "2020-01-01T00:00:00Z", "end": "2021-01-01T00:00:00Z"}
    assert by({**root, "tlogs": [ended, *root["tlogs"]]})["identity"] == IDENTITY


def test_a_number_that_nobody_signed_is_not_kept(instance: Instance, tmp_path: Path) -> None:
    """Of Rekor 1 the promise has it; where a time stamp stands instead, the place in the tree does."""
    bundle = instance.bundle(DATA)
    value = b64decode(bundle["messageSignature"]["signature"])
    stamps = [{"signedTimestamp": b64(instance._stamp(value))}]
    bundle[MATERIAL]["timestampVerificationData"] = {"rfc3161Timestamps": stamps}
    entry(bundle).pop("inclusionPromise")
    entry(bundle)["logIndex"] = "424242"
    assert proved(tmp_path, json.dumps(bundle).encode(), instance.trust_root())["log_entry"] == "2"


@given(data=st.data())
def test_whatever_lies_beside_a_file_is_taken_or_refused(
    instance: Instance, bundles: dict[bool, Json], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.getbasetemp()
    bundle = bytearray(json.dumps(bundles[data.draw(st.booleans())]).encode())
    at = data.draw(st.integers(0, len(bundle) - 1))
    bundle[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    try:
        assert proved(folder, bytes(bundle), instance.trust_root())["identity"] == IDENTITY
    except NotProved:
        pass
