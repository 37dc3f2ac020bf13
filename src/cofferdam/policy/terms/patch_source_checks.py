"""What is wrong between the fields of a patch relay's sources, and of the rules that fetch from them.

Not here: the form of single fields (patch_source_model).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cofferdam.policy.document import Path
from cofferdam.policy.findings import Checking
from cofferdam.policy.problems import nearest, one_of
from cofferdam.policy.terms.patch_source_model import FileSourceSaid, ServerSaid
from cofferdam.policy.terms.patch_source_rows import VERSION
from cofferdam.policy.yamltext import quote

if TYPE_CHECKING:
    from cofferdam.policy.terms.patch_model import PatchConduit, PatchRule

KINDS: Final = ("https", "apt", "folder")
SOURCES_MOST: Final = 32
"""Sources of a conduit: each may have a file under way."""


class SourceChecks:
    """One conduit's."""

    def __init__(self, name: str, conduit: PatchConduit, checking: Checking) -> None:
        self.here = ("conduits", name)
        self.name = name
        self.conduit = conduit
        self.checking = checking
        self.at = checking.at

    def run(self) -> None:
        sources = self.conduit.sources
        if len(sources) > SOURCES_MOST:
            self.checking.key((*self.here, "sources"), f"{len(sources)} sources", f"at most {SOURCES_MOST}")
        fetched = {rule.source for rule in self.conduit.allow}
        for name, said in sources.items():
            at = (*self.here, "sources", name)
            self.source(at, said)
            if name not in fetched:
                self.checking.key(at, f"{name}, from which no rule fetches", "a rule with `source` and `fetch`")
        folders = [said.folder for said in sources.values() if said.folder is not None]
        for folder in sorted({folder for folder in folders if folders.count(folder) > 1}):
            self.checking.key((*self.here, "sources"), f"the folder {folder} twice", "a folder of its own for each")

    def source(self, at: Path, said: FileSourceSaid) -> None:
        named = [kind for kind in KINDS if getattr(said, kind) is not None]
        if len(named) != 1:
            found = " and ".join(named) or "a source of no kind"
            self.checking.key(at, found, f"one of {one_of(KINDS)}", check="source")
            return
        for index, window in enumerate(said.window):
            self.checking.window(window, (*at, "window", index))
        if said.folder is not None:
            if said.via is not None:
                self.at((*at, "via"), "a proxy for a folder", "it with `https` or `apt`", check="source")
            return
        server = said.https or said.apt
        if server is None:
            return
        self.server((*at, named[0]), server, said.via is not None)
        for index, other in enumerate(server.also):
            self.server((*at, named[0], "also", index), other, said.via is not None)
        if said.https is not None and (said.https.listing == "json") != (said.https.json_ is not None):
            self.at((*at, "https", "listing"), said.https.listing, "`listing: json` with `json: {...}`", check="source")
        if said.https is not None and said.https.since is not None and said.https.listing != "csaf":
            self.at(
                (*at, "https", "since"), f"a listing that is a {said.https.listing}", "`listing: csaf`", check="source"
            )

    def server(self, at: Path, said: ServerSaid, proxied: bool) -> None:
        if said.at is None and not proxied:
            self.checking.key(at, "no address", "at: ADDRESS:PORT, since no part resolves names", check="source")
        if proxied and said.host is None:
            self.checking.key(at, "no name for the proxy to connect to", "host: NAME", check="source")
        if said.authority is None and said.key is None:
            self.checking.key(
                at, "nothing by which the server is known", "authority: FILE, or key: SHA-256", check="tls"
            )
        data = self.checking.file(said.authority, (*at, "authority")) if said.authority is not None else None
        if data is not None:
            from cryptography.x509 import load_pem_x509_certificates  # most policies name no certificate

            try:
                load_pem_x509_certificates(data)
            except ValueError:
                found = f"{quote(str(said.authority))}, which is no certificate"
                self.at((*at, "authority"), found, "a PEM file", check="tls")

    def rule(self, at: Path, rule: PatchRule) -> None:
        others = rule.who or rule.put or rule.asset or rule.install or rule.ring or rule.window or rule.health
        if rule.source is None or rule.fetch is None or others:
            self.at(at, "a rule that is neither", "`source` with `fetch`, and nothing else", check="rule")
            return
        product = self.conduit.products.get(rule.fetch)
        self.checking.known("products", rule.fetch, (*at, "fetch"), self.here)
        source = self.conduit.sources.get(rule.source)
        names = self.checking.names(*self.here, "sources")
        if source is None:
            if rule.source not in names:
                expected = f"a source of this conduit ({one_of(names)})" if names else "a source, and there is none"
                self.at((*at, "source"), quote(rule.source), expected, nearest(rule.source, names), "unknown")
            return
        proof = product.origin if product is not None else None
        if source.apt is not None:
            if rule.files or not rule.packages:
                self.at(at, "files of a Debian repository", "packages: [NAME, ...]", check="rule")
            if proof is not None and not proof.apt:
                self.at((*at, "fetch"), f"{rule.fetch}, whose origin is another", "a product with `apt`", check="rule")
            return
        if proof is not None and proof.apt:
            self.at((*at, "fetch"), f"{rule.fetch}, which is proved by `apt`", "a source of that kind", check="rule")
        if rule.packages or not rule.files:
            self.at(at, "no files" if not rule.files else "packages", "files: [NAME-{version}.bin]", check="rule")
        told = source.https is not None and source.https.json_ is not None and source.https.json_.version is not None
        dated = source.https is not None and source.https.listing == "csaf"
        for index, pattern in enumerate(rule.files):
            if dated:  # the same document is another file each time that it is changed
                if VERSION in pattern:
                    found = f"{quote(pattern)}, where a document's version is when it was changed"
                    self.at((*at, "files", index), found, 'a pattern such as "*.json"', check="rule")
                continue
            if pattern.count(VERSION) != 1 and not (told and VERSION not in pattern):
                found = f"{quote(pattern)}, which does not say where the version is"
                self.at((*at, "files", index), found, "{version} once", check="rule")
