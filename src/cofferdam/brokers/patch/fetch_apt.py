"""A snapshot of a Debian repository, taken from its server: the index as it stands, and the packages that a rule names,
put together to one file while it comes (apt_index says how that is made).

The hashes of the index are compared here already, so that a mirror in the middle of its own update is noticed; whether
the index is signed, the examiner finds out.

Not here: HTTPS (fetch_http).
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from typing import Final
from urllib.parse import quote

from cofferdam.brokers.patch import apt_index
from cofferdam.brokers.patch.apt_index import BadIndex, Item, ReleaseFile
from cofferdam.brokers.patch.fetch_http import Client, Missing, NotHad
from cofferdam.policy.terms.patch_source_rows import Fetch, Source, bundle_name

RELEASE: Final = "InRelease"


class Snapshot:
    """What will be in it: all sizes are known beforehand."""

    def __init__(self, source: Source, release: ReleaseFile, indexes: list[tuple[str, bytes]],
                 packages: list[Item], listed: int) -> None:  # fmt: skip
        self.release = release
        self.packages = packages
        self.listed = listed
        self._path = source.path.rstrip("/")
        self._indexes = indexes
        suite = source.apt.suite if source.apt is not None else ""
        self.file = bundle_name(suite, release.version)
        self.size = apt_index.size_of(
            [*((path, len(data)) for path, data in indexes), *((item.path, item.size) for item in packages)]
        )

    async def pieces(self, client: Client) -> AsyncIterator[bytes]:
        """The file. Raises: NotHad, Broken."""
        for path, data in self._indexes:
            yield apt_index.head_of(path, len(data)) + data + apt_index.padding_of(len(data))
        for item in self.packages:
            yield apt_index.head_of(item.path, item.size)
            digest, got = hashlib.sha256(), 0
            async for piece in client.pieces(client.first(f"{self._path}/{quote(item.path)}"), item.size):
                digest.update(piece)
                got += len(piece)
                yield piece
            if got != item.size or digest.hexdigest() != item.sha256:
                raise NotHad(f"{item.path} has another hash or size than its index says")
            yield apt_index.padding_of(item.size)
        yield apt_index.END


async def look(client: Client, source: Source, rule: Fetch, most: int) -> Snapshot:
    """What a snapshot taken now would hold. Raises: NotHad, Broken, BadIndex."""
    apt = source.apt
    if apt is None:
        raise NotHad("the source is no Debian repository")
    base = f"{source.path.rstrip('/')}/dists/{apt.suite}"
    signed, _ = await client.page(client.first(f"{base}/{RELEASE}"), apt_index.RELEASE_BYTES)
    release = apt_index.read_release(apt_index.signed_text(signed))
    indexes = [(f"dists/{apt.suite}/{RELEASE}", signed)]
    packages: dict[str, Item] = {}
    listed = 0
    for component in apt.components:
        for architecture in apt.architectures:
            item = apt_index.packages_of(release, component, architecture)
            data = await _index(client, base, release, item)
            indexes.append((f"dists/{apt.suite}/{item.path}", data))
            for package in apt_index.read_packages(data, item.path):
                listed += 1
                if rule.wants(package.package):
                    packages[package.path] = package
                    if len(packages) > apt_index.FILES_MOST - 1_000:
                        raise BadIndex(f"the rule names more than {apt_index.FILES_MOST - 1_000} packages")
    if not packages:
        raise NotHad(f"the repository has none of the packages that the rule names ({', '.join(rule.packages)})"[:300])
    snapshot = Snapshot(source, release, indexes, sorted(packages.values(), key=lambda each: each.path), listed)
    if snapshot.size > most:
        raise NotHad(f"the snapshot would have {snapshot.size} bytes, and the product has at most {most}")
    return snapshot


async def _index(client: Client, base: str, release: ReleaseFile, item: Item) -> bytes:
    """By its hash first, where the repository has that: then it is the one that this Release is of."""
    folder = item.path.rpartition("/")[0]
    for path in (f"{folder}/by-hash/SHA256/{item.sha256}", item.path):
        try:
            data, _ = await client.page(client.first(f"{base}/{path}"), apt_index.PACKAGES_BYTES)
        except Missing:
            continue
        if len(data) == item.size and hashlib.sha256(data).hexdigest() == item.sha256:
            return data
        raise NotHad(f"{item.path} is another one than the Release says: an older one, or the mirror is being updated")
    raise NotHad(f"there is no {item.path}")
