"""The keeper's TUF repository: what it writes for the installer to check. It holds the keys of snapshot and time stamp,
which say what is newest; it cannot release anything, since it holds nobody's key for targets.

    tuf/metadata/N.root.json, N.targets.json, N.snapshot.json, timestamp.json
    tuf/targets/PRODUCT/VERSION/SHA256.FILE

Files appear by rename, complete and synced, the time stamp last: whoever reads sees the old release or the new one.

Not here: whose signatures count (trustkeys), who asks for what (keeper).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp

from cofferdam.brokers.patch import trustkeys
from cofferdam.brokers.patch.records import Custom
from cofferdam.brokers.patch.trustkeys import CryptoSigner, SSlibKey
from cofferdam.errors import CofferdamError, GateError

FRESH_SECONDS: Final = 86_400
"""A time stamp is made anew so often; it holds for ONLINE_DAYS."""


class Repository:
    """One keeper's. `folder` is in its store."""

    def __init__(self, folder: Path, pinned: bytes, online: bytes | None) -> None:
        """`pinned`: the policy's root; `online`: the private key of snapshot and time stamp in PEM.

        Raises:
            GateError: a key or a root that is none.
        """
        self.metadata = folder / "metadata"
        self.targets = folder / "targets"
        for path in (folder, self.metadata, self.targets):
            path.mkdir(mode=0o750, exist_ok=True)
        self.signer = _signer(online)
        self.root = self._find_root(pinned)
        self._stamped = 0.0

    def _find_root(self, pinned: bytes) -> Metadata[Root]:
        root = trustkeys.decode(pinned, Root)
        while (path := self.metadata / f"{root.signed.version + 1}.root.json").is_file():
            root = trustkeys.decode(path.read_bytes(), Root)
        return root

    @property
    def unfit(self) -> str:
        """Why nothing can be released, "" if it can."""
        if self.signer is None:
            return "the keeper has no key of its own: `cofferdam patch root new` makes it"
        if self.signer.public_key.keyid not in self.root.signed.roles["timestamp"].keyids:
            return "the root does not know the keeper's own key: was it made for another gate?"
        if self.root.signed.is_expired():
            return f"the root has expired on {self.root.signed.expires:%Y-%m-%d}: `cofferdam patch root renew`"
        return ""

    @property
    def threshold(self) -> int:
        return int(self.root.signed.roles["targets"].threshold)

    def people(self) -> dict[str, str]:
        return trustkeys.people_of(self.root.signed, "targets")

    def check_root(self, data: bytes) -> Metadata[Root]:
        """A next root: signed by the one before and by itself. Raises: CofferdamError."""
        fresh = trustkeys.decode(data, Root)
        old = self.root.signed
        if fresh.signed.version != old.version + 1:
            raise CofferdamError(f"root {fresh.signed.version}, where root {old.version + 1} is next")
        for signing, whose in ((old, "the root before"), (fresh.signed, "itself")):
            result = signing.get_verification_result("root", trustkeys.to_sign(fresh.signed), fresh.signatures)
            if not result:
                have, need = len(result.signed), signing.roles["root"].threshold
                raise CofferdamError(f"it is signed by {have} of {need} keys of {whose}")
        trustkeys.people_of(fresh.signed, "targets")
        return fresh

    def take_root(self, data: bytes) -> Metadata[Root]:
        """Offers it from now on. Raises: CofferdamError, OSError."""
        fresh = self.check_root(data)
        self._write(self.metadata / f"{fresh.signed.version}.root.json", data)
        self.root = fresh
        return fresh

    # --- releases

    def current(self) -> Metadata[Targets] | None:
        versions = [int(path.name.split(".")[0]) for path in self.metadata.glob("*.targets.json")]
        stamp = self._now_snapshot()
        if stamp is None or not versions:
            return None
        version = stamp.signed.meta["targets.json"].version
        return trustkeys.decode((self.metadata / f"{version}.targets.json").read_bytes(), Targets)

    def days_of_targets(self, wall_ns: int) -> int | None:
        """For how many days what is released will be believed; None: nothing is."""
        stamp, snapshot, now = self._stamp(), None, None
        if stamp is not None:
            snapshot = self._now_snapshot()
            now = self.current()
        ends = [each.signed.expires.timestamp() for each in (snapshot, now) if each is not None]
        return int((min(ends) - wall_ns / 1e9) // 86_400) if ends else None

    def draft(self, custom: Custom, size: int, sha256: str) -> Metadata[Targets]:
        """What people are to sign, so that this file is released besides those that are."""
        now = self.current()
        old: Mapping[str, TargetFile] = now.signed.targets if now is not None else {}
        version = now.signed.version + 1 if now is not None else 1
        expires = (datetime.now(UTC) + timedelta(days=trustkeys.TARGETS_DAYS)).replace(microsecond=0)
        said = msgspec.json.decode(msgspec.json.encode(custom))  # as it is when it is read again, to the last list
        target = TargetFile(size, {"sha256": sha256}, custom.path, {"custom": said})
        found = {**deepcopy(dict(old)), custom.path: target}
        return Metadata(Targets(version=version, expires=expires, targets=found))

    def place(self, custom: Custom, sha256: str) -> Path:
        return self.targets / custom.product / custom.version / f"{sha256}.{custom.file}"

    def publish(self, metadata: Metadata[Targets]) -> None:
        """The signed targets, and that they are the newest. Again is the same."""
        if self.signer is None:
            raise CofferdamError(self.unfit)
        version = metadata.signed.version
        self._write(self.metadata / f"{version}.targets.json", trustkeys.encode(metadata))
        old = self._now_snapshot()
        number = old.signed.version + 1 if old is not None else 1
        if old is not None and old.signed.meta["targets.json"].version == version:
            self.stamp(old.signed.version)
            return
        expires = (datetime.now(UTC) + timedelta(days=trustkeys.TARGETS_DAYS)).replace(microsecond=0)
        snapshot = Metadata(Snapshot(version=number, expires=expires, meta={"targets.json": MetaFile(version)}))
        snapshot.sign(self.signer)
        self._write(self.metadata / f"{number}.snapshot.json", trustkeys.encode(snapshot))
        self.stamp(number)

    def stamp(self, snapshot: int) -> None:
        """Says anew, for some days, that this snapshot is the newest."""
        if self.signer is None:
            raise CofferdamError(self.unfit)
        old = self._stamp()
        number = old.signed.version + 1 if old is not None else 1
        expires = (datetime.now(UTC) + timedelta(days=trustkeys.ONLINE_DAYS)).replace(microsecond=0)
        stamp = Metadata(Timestamp(version=number, expires=expires, snapshot_meta=MetaFile(snapshot)))
        stamp.sign(self.signer)
        self._write(self.metadata / "timestamp.json", trustkeys.encode(stamp))

    def refresh(self) -> bool:
        """Makes the time stamp anew where it is a day old. Whether it did."""
        old, now = self._stamp(), datetime.now(UTC)
        if old is None or self.unfit:
            return False
        age = trustkeys.ONLINE_DAYS * 86_400 - (old.signed.expires - now).total_seconds()
        if 0 <= age < FRESH_SECONDS:
            return False
        self.stamp(old.signed.snapshot_meta.version)
        return True

    def _stamp(self) -> Metadata[Timestamp] | None:
        path = self.metadata / "timestamp.json"
        return trustkeys.decode(path.read_bytes(), Timestamp) if path.is_file() else None

    def _now_snapshot(self) -> Metadata[Snapshot] | None:
        stamp = self._stamp()
        if stamp is None:
            return None
        path = self.metadata / f"{stamp.signed.snapshot_meta.version}.snapshot.json"
        return trustkeys.decode(path.read_bytes(), Snapshot)

    def _write(self, path: Path, data: bytes) -> None:
        write_file(path, data)


def write_file(path: Path, data: bytes, mode: int = 0o640) -> None:
    """A file that appears complete and synced. Raises: OSError."""
    fresh = path.with_name(path.name + ".new")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(fd)
    fresh.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _signer(pem: bytes | None) -> CryptoSigner | None:
    if pem is None:
        return None
    try:
        key: Any = load_pem_private_key(pem, None)
        return CryptoSigner(key, SSlibKey.from_crypto(key.public_key()))
    except (ValueError, TypeError, AttributeError) as error:
        raise GateError(f"the keeper's own key cannot be read: {error}", hint="`cofferdam patch root new`") from None
