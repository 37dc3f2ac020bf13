"""TUF keys that are people's own OpenSSH keys, and the metadata that they sign.

A targets file that two people signed is the release. TUF counts key ids; here a key's id is the hash of the key itself,
so that one key cannot stand there twice, and each key says whose it is, so that people are counted, not keys.

`register()` has python-tuf know these keys. Signatures are made by `ssh-keygen -Y sign -n cofferdam-approval` over the
canonical bytes of the signed part, and stand in metadata as base64 of OpenSSH's own blob.

Not here: what a client believes in which order (trust), what the keeper writes (repository).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from securesystemslib.exceptions import UnverifiedSignatureError, VerificationError
from securesystemslib.signer import KEY_FOR_TYPE_AND_SCHEME, CryptoSigner, Key, Signature, SSlibKey
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, MetaFile, Root, Signed, Snapshot, TargetFile, Targets, Timestamp
from tuf.api.serialization.json import CanonicalJSONSerializer, JSONSerializer

from cofferdam.brokers.kit import sshsig
from cofferdam.brokers.patch.records import same_person
from cofferdam.errors import CofferdamError

NAMESPACE: Final = sshsig.APPROVAL
KEYTYPE: Final = "openssh"
SCHEME: Final = "sshsig"
ROLES: Final = ("root", "targets", "snapshot", "timestamp")
ROOT_DAYS: Final = 365
TARGETS_DAYS: Final = 365
ONLINE_DAYS: Final = 7
METADATA_BYTES: Final = 8 << 20
"""The largest metadata file."""
PEOPLE_MOST: Final = 64


class OpenSshKey(Key):
    """A person's OpenSSH key. `person` is a member of the key's own JSON, which the root's signers sign."""

    def __init__(
        self, keyid: str, keytype: str, scheme: str, keyval: dict[str, Any],
        unrecognized_fields: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(keyid, keytype, scheme, keyval, unrecognized_fields)
        self.blob, _ = sshsig.read_key(str(keyval.get("public", "")))
        if keyid != key_id(self.blob):
            raise ValueError("an OpenSSH key under an id that is not its own")
        person = self.unrecognized_fields.get("person")
        if not isinstance(person, str) or not 0 < len(person) <= 64 or not person.isprintable():
            raise ValueError("an OpenSSH key that is nobody's")
        self.person: str = person

    @classmethod
    def from_dict(cls, keyid: str, key_dict: dict[str, Any]) -> OpenSshKey:
        try:
            keytype, scheme, keyval = cls._from_dict(key_dict)
            return cls(keyid, keytype, scheme, keyval, key_dict)
        except CofferdamError as error:
            raise ValueError(str(error)) from None

    def to_dict(self) -> dict[str, Any]:
        found: dict[str, Any] = self._to_dict()
        return found

    def verify_signature(self, signature: Signature, data: bytes) -> None:
        try:
            blob = base64.b64decode(signature.signature, validate=True)
            sshsig.verify(blob, self.blob, NAMESPACE, data)
        except (CofferdamError, binascii.Error, ValueError) as error:
            raise UnverifiedSignatureError(f"{self.person}: {error}") from None
        except Exception as error:
            raise VerificationError(f"{self.person}: {error}") from error


def register() -> None:
    """Has python-tuf know these keys."""
    KEY_FOR_TYPE_AND_SCHEME[KEYTYPE, SCHEME] = OpenSshKey


register()


def key_id(blob: bytes) -> str:
    return hashlib.sha256(blob).hexdigest()


def person_key(line: str, person: str) -> OpenSshKey:
    """A key from a line of an .pub file. Raises: SignatureRefused."""
    blob, _ = sshsig.read_key(line)
    keyval = {"public": sshsig.write_key(blob)}
    return OpenSshKey(key_id(blob), KEYTYPE, SCHEME, keyval, {"person": person})


def signature(armored: bytes) -> Signature:
    """What `ssh-keygen -Y sign` wrote, as metadata has it. Raises: SignatureRefused."""
    blob = sshsig.dearmor(armored)
    return Signature(key_id(sshsig.signer(blob)), base64.b64encode(blob).decode())


def signature_by(key: Any, signed: Signed) -> Signature:
    """A signature by a private key of asyncssh's."""
    blob = sshsig.sign(key, NAMESPACE, to_sign(signed))
    return Signature(key_id(key.public_data), base64.b64encode(blob).decode())


def to_sign(signed: Signed) -> bytes:
    """The bytes that a signature is over."""
    found: bytes = CanonicalJSONSerializer().serialize(signed)
    return found


def encode(metadata: Metadata[Any]) -> bytes:
    found: bytes = metadata.to_bytes(JSONSerializer(compact=False, validate=True))
    return found


def decode(data: bytes, kind: type[Any]) -> Metadata[Any]:
    """Metadata of this kind. Raises: CofferdamError."""
    if len(data) > METADATA_BYTES:
        raise CofferdamError(f"metadata of more than {METADATA_BYTES} bytes")
    try:
        found: Metadata[Any] = Metadata.from_bytes(data)
    except RepositoryError as error:
        raise CofferdamError(f"metadata that cannot be read: {error}") from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CofferdamError(f"metadata that cannot be read: {error}") from None
    if not isinstance(found.signed, kind):
        raise CofferdamError(f"metadata of the kind {found.signed.type}, where {kind.type} belongs")
    return found


# --- the root -----------------------------------------------------------------------------------------------------


def make_root(
    approvers: list[OpenSshKey], holders: list[OpenSshKey], online: Key, *, signatures: int, root_signatures: int,
    version: int = 1, days: int = ROOT_DAYS,
) -> Metadata[Root]:  # fmt: skip
    """A root, yet unsigned. `approvers` release files, `holders` keep the root; `online` is the keeper's.

    Raises:
        CofferdamError: it would not hold what it promises.
    """
    for what, keys, threshold in (("approvers", approvers, signatures), ("holders", holders, root_signatures)):
        people = [same_person(key.person) for key in keys]
        if len(set(people)) != len(people):
            raise CofferdamError(f"two {what} of one name: one key a person")
        if len({key.keyid for key in keys}) != len(keys):
            raise CofferdamError(f"one key for two {what}")
        if len(keys) < threshold:
            raise CofferdamError(f"{len(keys)} {what}, and {threshold} signatures are asked for")
        if len(keys) > PEOPLE_MOST:
            raise CofferdamError(f"more than {PEOPLE_MOST} {what}")
    named = {key.keyid: key.person for key in approvers}
    if any(named.get(key.keyid, key.person) != key.person for key in holders):
        raise CofferdamError("one key under two names")
    root = Root(version=version, expires=_in_days(days), consistent_snapshot=True)
    for key in holders:
        root.add_key(key, "root")
    for key in approvers:
        root.add_key(key, "targets")
    for role in ("snapshot", "timestamp"):
        root.add_key(online, role)
    root.roles["root"].threshold = root_signatures
    root.roles["targets"].threshold = signatures
    return Metadata(root)


def people_of(root: Root, role: str) -> dict[str, str]:
    """Key id -> person, for a role whose keys are people's. Raises: CofferdamError, for one whose are not."""
    found: dict[str, str] = {}
    for keyid in root.roles[role].keyids:
        key = root.keys.get(keyid)
        if not isinstance(key, OpenSshKey):
            raise CofferdamError(f"the root's role {role} has a key that is nobody's OpenSSH key")
        if same_person(key.person) in map(same_person, found.values()):
            raise CofferdamError(f"the root's role {role} has two keys of {key.person}")
        found[keyid] = key.person
    return found


def signed_by(root: Root, role: str, metadata: Metadata[Any]) -> frozenset[str]:
    """The people of a role whose signatures on this metadata hold."""
    people = people_of(root, role)
    result = root.get_verification_result(role, to_sign(metadata.signed), metadata.signatures)
    return frozenset(people[keyid] for keyid in result.signed if keyid in people)


def _in_days(days: int) -> datetime:
    return (datetime.now(UTC) + timedelta(days=days)).replace(microsecond=0)


__all__ = [
    "CryptoSigner",
    "MetaFile",
    "Metadata",
    "OpenSshKey",
    "Root",
    "SSlibKey",
    "Signature",
    "Signed",
    "Snapshot",
    "TargetFile",
    "Targets",
    "Timestamp",
]
