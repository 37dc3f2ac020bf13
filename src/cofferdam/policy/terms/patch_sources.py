"""The rows of the patch relay's sources, from the words of a policy.

Not here: what is wrong with them (patch_source_checks).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from cofferdam.policy.terms import patch_source_rows as rows
from cofferdam.policy.terms.base import window_row
from cofferdam.policy.terms.patch_source_model import FileSourceSaid, MappingSaid, ServerSaid

if TYPE_CHECKING:
    from cofferdam.policy.terms.patch_model import PatchConduit


def source_rows(conduit: PatchConduit, files: Mapping[str, bytes]) -> tuple[rows.Source, ...]:
    return tuple(_source(name, said, files) for name, said in sorted(conduit.sources.items()))


def fetch_rows(conduit: PatchConduit) -> tuple[rows.Fetch, ...]:
    return tuple(
        rows.Fetch(
            number=number, source=rule.source or "", product=rule.fetch, files=rule.files, packages=rule.packages
        )
        for number, rule in enumerate(conduit.allow) if rule.fetch is not None
    )  # fmt: skip


def laid_products(conduit: PatchConduit) -> tuple[str, ...]:
    """Products whose files are left in a folder."""
    folders = {name for name, said in conduit.sources.items() if said.folder is not None}
    return tuple(sorted({rule.fetch for rule in conduit.allow if rule.fetch is not None and rule.source in folders}))


def _source(name: str, said: FileSourceSaid, files: Mapping[str, bytes]) -> rows.Source:
    windows = tuple(window_row(each) for each in said.window)
    server = said.https or said.apt
    if server is None:
        return rows.Source(
            name=name, kind="folder", folder=said.folder or "", every=said.every, windows=windows, rate=said.rate
        )
    hosts = tuple(_host(each, files) for each in (server, *server.also))
    apt = None
    if said.apt is not None:
        apt = rows.Apt(
            suite=said.apt.suite, components=said.apt.components, architectures=said.apt.architectures
        )  # fmt: skip
    return rows.Source(
        name=name, kind="apt" if apt is not None else "https", hosts=hosts, via=said.via, path=server.path,
        listing=said.https.listing if said.https is not None else "",
        since=(said.https.since or "")[:10].replace("-", "") if said.https is not None else "",
        mapping=_mapping(said.https.json_) if said.https is not None else None, apt=apt, every=said.every,
        windows=windows, rate=said.rate,
    )  # fmt: skip


def _host(said: ServerSaid, files: Mapping[str, bytes]) -> rows.Host:
    address, port = said.at or ("", 443)
    authority = files[said.authority] if said.authority is not None else b""
    return rows.Host(
        name=said.host or address, address=address, port=port, authority=authority, key=said.key or ""
    )  # fmt: skip


def _mapping(said: MappingSaid | None) -> rows.Mapping | None:
    if said is None:
        return None
    return rows.Mapping(items=said.items or "", file=said.file, version=said.version or "", sha256=said.sha256 or "")
