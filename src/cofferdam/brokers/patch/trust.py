"""What the installer believes: signatures by the root that it was born with, and nothing that the keeper says.

    1. the pinned root of the policy; from there each later root, signed by the one before and by itself
    2. the time stamp: not expired by a time that only grows, not older than the last one
    3. the snapshot that it names, not older than the last one
    4. the targets that it names: so many *people* of the root, each with a key of their own
    5. each file that is new in them, or that they say anything new of: enough people who neither brought it in nor
       asked for it, by the word of those who saw that (where `separate`; witnesses)

Steps 1 to 4 are TUF's client workflow (specification 5.3 to 5.6), done by python-tuf; what was believed is kept in the
installer's own store, so that nothing older is believed again after a restart.

Not here: files' bytes (installer), what is done with a release (plan).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
from tuf.api.exceptions import EqualVersionNumberError, RepositoryError
from tuf.api.metadata import Metadata, Root, Targets
from tuf.ngclient._internal.trusted_metadata_set import TrustedMetadataSet
from tuf.ngclient.config import EnvelopeType

from cofferdam.brokers.patch import trustkeys
from cofferdam.brokers.patch.records import RELEASES_MOST, Release, same_person
from cofferdam.brokers.patch.witnesses import Witnesses, concerned
from cofferdam.errors import CofferdamError

ROOTS_MOST: Final = 256
"""Roots that are walked through."""


class NotBelieved(CofferdamError):
    """What the keeper offers is not what the root allows."""


class Trust:
    """One conduit's. `folder` is the installer's own; `offered` the keeper's metadata, read-only."""

    def __init__(
        self, pinned: bytes, folder: Path, offered: Path, *, signatures: int, separate: bool,
        wall: Callable[[], int], witnesses: Witnesses,
    ) -> None:  # fmt: skip
        self._pinned = pinned
        self._folder = folder
        self._offered = offered
        self._signatures = signatures
        self._separate = separate
        self._wall = wall
        self._witnesses = witnesses
        self.releases: tuple[Release, ...] = ()
        """What is released, as far as it is believed."""
        self.version = 0
        """Of the targets."""
        self.signers: frozenset[str] = frozenset()
        """Who signed them."""
        self.root: Root | None = None
        folder.mkdir(mode=0o700, exist_ok=True)

    def refresh(self) -> bool:
        """Looks at what the keeper offers. Returns whether there is something new.

        Raises:
            NotBelieved: it is not what the root allows; what was believed before goes on to be.
        """
        try:
            return self._refresh()
        except RepositoryError as error:
            raise NotBelieved(f"{type(error).__name__}: {error}") from None
        except NotBelieved:
            raise
        except (CofferdamError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError) as error:
            raise NotBelieved(f"metadata that cannot be read: {error}") from None

    def _refresh(self) -> bool:
        found = TrustedMetadataSet(self._pinned, EnvelopeType.METADATA)
        found.reference_time = self._now()
        for version in range(found.root.version + 1, found.root.version + ROOTS_MOST):
            if not self._next_root(found, f"{version}.root.json"):
                break
        root = found.root
        trustkeys.people_of(root, "targets")
        if root.roles["targets"].threshold < self._signatures:
            raise NotBelieved(f"a root by which {root.roles['targets'].threshold} release a file")
        self.root = root
        self._load_own(found, "timestamp.json", found.update_timestamp)
        stamp = self._read("timestamp.json")
        if stamp is None:
            self._believe_own_targets(found)
            return False
        try:
            found.update_timestamp(stamp)
            self._keep("timestamp.json", stamp)
        except EqualVersionNumberError:
            pass
        self._load_own(found, "snapshot.json", lambda data: found.update_snapshot(data, trusted=True))
        meta = found.timestamp.snapshot_meta
        if "snapshot" not in found or found.snapshot.version != meta.version:
            data = self._wanted(f"{meta.version}.snapshot.json")
            found.update_snapshot(data)
            self._keep("snapshot.json", data)
        wanted = found.snapshot.meta["targets.json"].version
        own = self._own("targets.json")
        if own is not None and wanted < _version(own):
            # TUF lets a new key of the keeper's begin anew; the list is people's, and goes on whoever stamps it.
            raise NotBelieved(f"targets {wanted}, where {_version(own)} were believed: an older list again")
        data = own if own is not None and _version(own) == wanted else self._wanted(f"{wanted}.targets.json")
        found.update_targets(data)
        metadata = trustkeys.decode(data, Targets)
        releases = self._releases(found.targets)
        accepted = self._accepted()
        fresh = [each for each in releases if each.digest not in accepted]
        signers = self._check_people(root, metadata, fresh)
        self._keep("targets.json", data)
        if fresh:
            self._accept(accepted.union(each.digest for each in fresh))
        changed = self.version != wanted
        self.releases, self.version, self.signers = releases, wanted, signers
        return changed

    def _next_root(self, found: TrustedMetadataSet, name: str) -> bool:
        """Walks on to the root of this name, if there is one: the one that was believed, unless the policy names
        another first root since."""
        own = self._own(name)
        if own is not None:
            try:
                found.update_root(own)
                return True
            except RepositoryError:
                pass
        data = self._read(name)
        if data is None:
            return False
        found.update_root(data)
        self._keep(name, data)
        return True

    def _check_people(self, root: Root, metadata: Metadata[Any], fresh: list[Release]) -> frozenset[str]:
        """Who signed. A release that is changed in anything is a new one."""
        signers = trustkeys.signed_by(root, "targets", metadata)
        least = max(self._signatures, root.roles["targets"].threshold)
        if len(signers) < least:
            raise NotBelieved(f"{len(signers)} people signed ({', '.join(sorted(signers))}), and it takes {least}")
        for release in fresh:
            if release.custom.emergency and not release.custom.reason.strip():
                raise NotBelieved(f"{release.path}: an emergency without a reason")
        for release in fresh if self._separate else ():
            if why := self._witnesses.why_not(release.custom, release.sha256):
                raise NotBelieved(why)
            names = concerned(release.custom)
            own = {person for person in signers if same_person(person) in names}
            if len(signers - own) < least:
                raise NotBelieved(
                    f"{release.path}: of those who signed, {', '.join(sorted(own))} brought it in or "
                    f"asked for it; it takes {least} others"
                )
        return signers

    def _releases(self, targets: Targets) -> tuple[Release, ...]:
        """Raises: NotBelieved."""
        if len(targets.targets) > RELEASES_MOST:
            raise NotBelieved(f"more than {RELEASES_MOST} files are released")
        if targets.delegations is not None:
            raise NotBelieved("targets that let others release")
        found = []
        for path, target in targets.targets.items():
            said = {"path": path, "size": target.length, "sha256": target.hashes.get("sha256"), "custom": target.custom}
            try:
                found.append(msgspec.convert(said, Release))
            except msgspec.ValidationError as error:
                raise NotBelieved(f"{path}: {error}") from None
            if path != found[-1].custom.path:
                raise NotBelieved(f"{path}: it says that it is {found[-1].custom.path}")
        numbers = [release.custom.number for release in found]
        if len(set(numbers)) != len(numbers):
            raise NotBelieved("two releases with one number")
        return tuple(sorted(found, key=lambda release: release.custom.number))

    def _believe_own_targets(self, found: TrustedMetadataSet) -> None:
        """The keeper offers no time stamp: there is no release yet, or it keeps it back."""
        if "timestamp" in found:
            raise NotBelieved("the keeper offers no time stamp any more")

    # --- what is kept -------------------------------------------------------------------------------------------------

    def _load_own(self, found: TrustedMetadataSet, name: str, take: Callable[[bytes], object]) -> None:
        """What was believed before holds against what is older, even where it has expired."""
        data = self._own(name)
        if data is not None:
            try:
                take(data)
            except RepositoryError:
                pass  # expired, or by a key that a new root does not have: it stays a floor where python-tuf took it

    def _now(self) -> datetime:
        """A time that only grows: the latest that was ever seen here."""
        wall = self._wall() // 1_000_000_000
        kept = self._own("time")
        latest = max(wall, int(kept)) if kept is not None and kept.isdigit() else wall
        self._keep("time", str(latest).encode())
        return datetime.fromtimestamp(latest, UTC)

    def _accepted(self) -> frozenset[str]:
        data = self._own("accepted.json")
        return frozenset(json.loads(data)) if data is not None else frozenset()

    def _accept(self, digests: frozenset[str]) -> None:
        self._keep("accepted.json", json.dumps(sorted(digests)).encode())

    def _own(self, name: str) -> bytes | None:
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:
            return None

    def _keep(self, name: str, data: bytes) -> None:
        """On disk before it counts."""
        if self._own(name) == data:
            return
        fresh = self._folder / f"{name}.new"
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(fd)
        fresh.rename(self._folder / name)

    # --- what is offered ----------------------------------------------------------------------------------------------

    def _wanted(self, name: str) -> bytes:
        data = self._read(name)
        if data is None:
            raise NotBelieved(f"the keeper does not offer {name}")
        return data

    def _read(self, name: str) -> bytes | None:
        try:
            fd = os.open(self._offered / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        with os.fdopen(fd, "rb") as file:
            data = file.read(trustkeys.METADATA_BYTES + 1)
        if len(data) > trustkeys.METADATA_BYTES:
            raise NotBelieved(f"{name} has more than {trustkeys.METADATA_BYTES} bytes")
        return data


def _version(data: bytes) -> int:
    try:
        return int(json.loads(data)["signed"]["version"])
    except (ValueError, KeyError, TypeError):
        return 0
