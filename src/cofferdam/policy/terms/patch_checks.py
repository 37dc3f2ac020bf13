"""What is wrong between the fields of a patch relay's conduit, and with other entries; and what is unwise.

Not here: the form of single fields (patch_model).
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any

from cofferdam.policy import schema
from cofferdam.policy.document import Path
from cofferdam.policy.findings import Checking, Linting
from cofferdam.policy.hours import Window
from cofferdam.policy.problems import nearest, one_of
from cofferdam.policy.syntax import show_size
from cofferdam.policy.terms.base import window_row
from cofferdam.policy.terms.door_words import DoorChecks
from cofferdam.policy.terms.patch_model import DAY, OriginSaid, PatchConduit, PatchRule, ProductSaid, WaySaid
from cofferdam.policy.terms.patch_rows import PatchRows
from cofferdam.policy.terms.patch_source_checks import SourceChecks
from cofferdam.policy.terms.patch_source_rows import FILE
from cofferdam.policy.yamltext import quote
from cofferdam.values import ValueType

PROOFS = ("pgp", "authenticode", "cms", "minisign", "sigstore", "apt", "wsus", "two_sources")
BY_CODE = ("authenticode", "cms", "wsus")
"""Proofs by certificates for signing code."""
ROOT_BYTES = 1 << 20
TRUST_ROOT = "application/vnd.dev.sigstore.trustedroot"
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----\s([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----")
INVENTORY_MOST = 10_000
EXPIRES_DAYS = 60


def der_of(pem: bytes) -> bytes:
    """The first certificate of a PEM file; b"" if there is none. Whether it is one, nobody has to know: it is compared
    with what an asset shows."""
    found = _PEM.search(pem)
    try:
        return base64.b64decode(b"".join(found[1].split()), validate=True) if found else b""
    except binascii.Error:
        return b""


def sides(conduit: schema.Conduit, policy: schema.Policy) -> tuple[str, str] | None:
    """The zones of a conduit as (outer, inner); None if it has not one of each side, in this order."""
    outer, inner = policy.zones.get(conduit.from_zone), policy.zones.get(conduit.to_zone)
    if outer is None or inner is None or (outer.side, inner.side) != ("it", "ot"):
        return None
    return conduit.from_zone, conduit.to_zone


class PatchChecks:
    """One conduit's."""

    def __init__(self, name: str, conduit: PatchConduit, numbers: Sequence[int], checking: Checking) -> None:
        self.here = ("conduits", name)
        self.name = name
        self.conduit = conduit
        self.numbers = numbers
        self.checking = checking
        self.at = checking.at

    def run(self) -> None:
        conduit, zones = self.conduit, self.checking.policy.zones
        if conduit.from_zone in zones and conduit.to_zone in zones and sides(conduit, self.checking.policy) is None:
            found = f"{conduit.from_zone} to {conduit.to_zone}"
            self.at((*self.here, "to"), found, "from a zone of side it to one of side ot: files go inward", "", "zones")
        if not conduit.products and not self.checking.names(*self.here, "products"):
            self.at((*self.here, "products"), "no products", "at least one product", check="missing")
        for product, said in conduit.products.items():
            self.origin((*self.here, "products", product, "origin"), said.origin)
            self.elsewhere(product)
            self.kind((*self.here, "products", product), product, said)
            if said.yara is not None:
                self.checking.file(said.yara, (*self.here, "products", product, "yara"))
        self.inventory()
        sources = SourceChecks(self.name, conduit, self.checking)
        sources.run()
        self.root()
        self.rings()
        self.ways()
        for number, rule in zip(self.numbers, conduit.allow, strict=True):
            if rule.source is not None or rule.fetch is not None:
                sources.rule((*self.here, "allow", number), rule)
            else:
                self.rule((*self.here, "allow", number), rule)
        doors = DoorChecks(self.name, conduit, self.checking)
        for zone, door in conduit.listen.items():
            doors.door((*self.here, "listen", zone), zone, door)
        if any(rule.put for rule in conduit.allow) and conduit.from_zone not in conduit.listen:
            found = f"a rule with `put`, and no place to listen at in {conduit.from_zone}"
            self.at((*self.here, "allow"), found, "`listen: {ZONE: {at: ADDRESS:PORT}}`", check="missing")

    def kind(self, at: Path, product: str, said: ProductSaid) -> None:
        if said.sign is not None and not said.origin.apt:
            found = f"a key {quote(said.sign)} for what is no Debian repository"
            self.at((*at, "sign"), found, "it with `origin: {apt: ...}`", check="sign")
        conduit = self.conduit
        if said.kind == "files":
            if said.provider is not None:
                self.at((*at, "provider"), "a provider", "it with `kind: advisories` alone", check="provider")
            return
        if said.provider is None:
            found = f"{product}, whose documents may name any publisher"
            self.at((*at, "kind"), found, "`provider:`, the publisher's namespace", check="provider")
        for number, rule in zip(self.numbers, conduit.allow, strict=True):
            if product in rule.install:
                found = f"{product}, which is documents about files"
                self.at((*self.here, "allow", number, "install"), found, "a product of files", check="rule")

    def inventory(self) -> None:
        conduit = self.conduit
        if conduit.inventory and all(said.kind == "files" for said in conduit.products.values()):
            found = "what runs on assets, and no advisories that are matched to it"
            self.at((*self.here, "inventory"), found, "a product with `kind: advisories`", check="inventory")
        known = {*conduit.ways, *self.checking.policy.assets}
        for asset in conduit.inventory:
            if asset not in known:
                at = (*self.here, "inventory", asset)
                self.checking.key(
                    at, f"{quote(asset)}, which is no asset and has no way", one_of(sorted(known)),
                    nearest(asset, known), "unknown-asset",
                )  # fmt: skip
        if sum(map(len, conduit.inventory.values())) > INVENTORY_MOST:
            found = f"more than {INVENTORY_MOST} entries"
            self.at((*self.here, "inventory"), found, "fewer, or a second conduit", check="inventory")
        if conduit.advisories.since is not None:
            zone = conduit.advisories.since.partition(" ")[2]
            self.checking.time_zone(zone, (*self.here, "advisories", "since"))

    def elsewhere(self, product: str) -> None:
        for other, conduit in self.checking.policy.conduits.items():
            if other < self.name and isinstance(conduit, PatchConduit) and product in conduit.products:
                at = (*self.here, "products", product)
                found = f"the product {product}, which {other} has"
                self.checking.key(at, found, "a name of its own", check="product")

    def origin(self, at: Path, said: OriginSaid) -> None:
        named = [proof for proof in PROOFS if getattr(said, proof)]
        if len(named) != 1:
            found = f"{' and '.join(named)}" if named else "no proof of origin"
            self.at(at, found, f"one of {one_of(PROOFS)}", check="origin")
            return
        for word, value in (("publisher", said.publisher), ("stamps", said.stamps)):
            if value and named[0] not in BY_CODE:
                self.at((*at, word), f"`{word}`", "it with `authenticode`, `cms` or `wsus` alone", check="origin")
        if bool(said.exporters) != bool(said.wsus):
            found = "an export that nobody signs" if said.wsus else "`exporters`"
            self.at(at, found, "`wsus` with `exporters`, whose signature its metadata has", check="origin")
        for word, value in (("identity", said.identity), ("issuer", said.issuer)):
            if (value is not None) != (named[0] == "sigstore"):
                found = f"`{word}`" if value is not None else f"a bundle by whoever signs, without `{word}`"
                self.at(at, found, "`sigstore` with `identity` and `issuer`, who signs it", check="origin")
        for index, file in enumerate(said.sigstore):
            self.trust_root(file, (*at, "sigstore", index))
        if said.list_ is not None and named[0] not in ("pgp", "minisign"):
            self.at((*at, "list"), "a signed list", "it with `pgp` or `minisign`", check="origin")
        if said.list_ is not None and not FILE.match(said.list_):
            self.at((*at, "list"), f"the name {quote(said.list_)}", "a plain name, such as SHA256SUMS", check="origin")
        for index, file in enumerate(getattr(said, named[0]) if named[0] != "two_sources" else ()):
            self.checking.file(file, (*at, named[0], index))
        for word in ("stamps", "exporters"):
            for index, file in enumerate(getattr(said, word)):
                self.checking.file(file, (*at, word, index))

    def trust_root(self, file: str, at: Path) -> None:
        data = self.checking.file(file, at)
        try:
            found: Any = json.loads(data) if data is not None and len(data) <= ROOT_BYTES else None
        except (ValueError, RecursionError):
            found = None
        kind = found.get("mediaType") if isinstance(found, dict) else None
        if data is not None and not (isinstance(kind, str) and kind.startswith(TRUST_ROOT)):
            expected = "a trust root of sigstore's, such as trusted_root.json"
            self.at(at, f"{quote(file)}, which is none", expected, check="origin")

    def root(self) -> None:
        at = (*self.here, "root")
        data = self.checking.file(self.conduit.root, at)
        if data is None:
            return
        expected = "a TUF root in JSON, as `cofferdam patch root new` writes it"
        try:
            found: Any = json.loads(data) if len(data) <= ROOT_BYTES else None
            signed = found["signed"]
            threshold = signed["roles"]["targets"]["threshold"]
            good = signed["_type"] == "root" and isinstance(threshold, int)
        except (ValueError, KeyError, TypeError, RecursionError):
            self.at(at, f"{quote(self.conduit.root)}, which is none", expected, check="root")
            return
        if not good:
            self.at(at, f"{quote(self.conduit.root)}, which is none", expected, check="root")
        elif threshold < self.conduit.signatures:
            found = f"a root by which {threshold} release a file, and `signatures: {self.conduit.signatures}`"
            self.at(at, found, "a root with as many", check="root")

    def rings(self) -> None:
        rings = self.conduit.rings
        for ring in self.conduit.soak:
            if ring not in rings:
                at = (*self.here, "soak", ring)
                self.checking.key(at, f"the ring {quote(ring)}", one_of(rings), nearest(ring, rings), "ring")
        if len(set(rings)) != len(rings):
            self.at((*self.here, "rings"), "a ring twice", "each ring once", check="ring")

    def ways(self) -> None:
        for asset, way in self.conduit.ways.items():
            at = (*self.here, "ways", asset)
            known = self.checking.policy.assets.get(asset)
            if known is None and way.address is None and way.hands is None:
                assets = self.checking.names("assets")
                self.checking.key(
                    at, f"{quote(asset)}, which is no asset, without an address", "an asset, or `address:`",
                    nearest(asset, assets), "unknown-asset",
                )  # fmt: skip
            elif known is not None and known.zone != self.conduit.to_zone:
                self.checking.key(at, f"{asset}, which is in {known.zone}", f"an asset of {self.conduit.to_zone}")
            if (
                sum(
                    one is not None
                    for one in (way.sftp, way.smb, way.ftp, way.tftp, way.tftp_read, way.pull, way.hands)
                )
                != 1
            ):
                expected = (
                    "one of `sftp: {...}`, `smb`, `ftp`, `tftp`, `tftp_read`, `pull: PRINCIPAL` and `hands: FOLDER`"
                )
                self.checking.key(at, "several ways or none", expected, check="way")
            if way.ftp is not None and way.ftp.certificate is not None:
                data = self.checking.file(way.ftp.certificate, (*at, "ftp", "certificate"))
                if data is not None and not der_of(data):
                    found = f"{quote(way.ftp.certificate)}, which has no certificate"
                    self.at((*at, "ftp", "certificate"), found, "an X.509 certificate in PEM", check="certificate")
            if way.tftp is not None and self.checking.policy.gate.separation != "processes":
                found = "TFTP, whose answers come from any port, between namespaces with a firewall"
                self.checking.key((*at, "tftp"), found, "`separation: processes`, or another way", check="way")
            if way.pull is not None and self.checking.known("principals", way.pull, (*at, "pull")):
                principal = self.checking.policy.principals.get(way.pull)
                if principal is not None and principal.zone != self.conduit.to_zone:
                    found = f"{way.pull}, who is in {principal.zone}"
                    self.at((*at, "pull"), found, f"a principal of {self.conduit.to_zone}", check="principal")
                if self.conduit.to_zone not in self.conduit.listen:
                    found = f"an asset that pulls, and no place to listen at in {self.conduit.to_zone}"
                    self.at((*at, "pull"), found, "`listen: {ZONE: {at: ADDRESS:PORT}}`", check="way")
        reading = [asset for asset, way in self.conduit.ways.items() if way.tftp_read is not None]
        if bool(reading) != (self.conduit.tftp is not None):
            found = f"{reading[0]}, which reads by TFTP, and no place for that" if reading else "`tftp`, and no reader"
            self.checking.key(self.here, found, "`tftp: ADDRESS:PORT` with `tftp_read` of an asset", check="way")
        dropped = {said.folder for said in self.conduit.sources.values() if said.folder is not None}
        for asset, way in self.conduit.ways.items():
            if way.hands is not None and way.hands in dropped:
                found = f"the folder {way.hands}, in which files are left for the gate"
                self.at((*self.here, "ways", asset, "hands"), found, "a folder of its own", check="way")
        pulling = [way.pull for way in self.conduit.ways.values() if way.pull is not None]
        for who in sorted({who for who in pulling if pulling.count(who) > 1}):
            found = f"{who}, as whom two assets pull"
            self.at((*self.here, "ways"), found, "a principal for each asset", check="way")

    def rule(self, at: Path, rule: PatchRule) -> None:
        if (
            bool(rule.put) == bool(rule.install)
            or bool(rule.put) != bool(rule.who)
            or bool(rule.install) != bool(rule.asset)
            or rule.files
            or rule.packages
        ):
            expected = "`who` with `put`, `source` with `fetch`, or `asset` with `install`"
            self.at(at, "a rule that is neither", expected, check="rule")
            return
        for field, names in (("put", rule.put), ("install", rule.install)):
            for index, product in enumerate(names):
                self.checking.known("products", product, (*at, field, index), self.here)
        for index, who in enumerate(rule.who):
            if self.checking.known("principals", who, (*at, "who", index)):
                principal = self.checking.policy.principals.get(who)
                if principal is not None and principal.zone != self.conduit.from_zone:
                    found = f"{who}, who is in {principal.zone}"
                    self.at((*at, "who", index), found, f"a principal of {self.conduit.from_zone}", check="principal")
        for index, asset in enumerate(rule.asset):
            if asset not in self.conduit.ways:
                ways = self.checking.names(*self.here, "ways")
                if asset not in ways:
                    at_asset = (*at, "asset", index)
                    self.at(at_asset, f"{asset}, which has no way", one_of(ways), nearest(asset, ways), "way")
            elif rule.health is not None and rule.health.file and not _reads(self.conduit.ways[asset]):
                self.at(
                    (*at, "health", "file"),
                    f"a file of {asset}, which has no SFTP, SMB or FTP",
                    "tcp or http",
                    check="health",
                )
            elif rule.health is not None and self.conduit.ways[asset].hands is not None:
                self.at(
                    (*at, "health"), f"{asset}, whose version a technician reads back", "no `health`", check="health"
                )
        if rule.ring is not None and rule.ring not in self.conduit.rings:
            rings = self.conduit.rings
            self.at((*at, "ring"), f"the ring {quote(rule.ring)}", one_of(rings), nearest(rule.ring, rings), "ring")
        if not rule.install and (rule.window or rule.health or rule.ring or rule.unless):
            self.at(at, "a window, ring or health check without `install`", "them with `install`", check="rule")
        for index, unless in enumerate(rule.unless):
            here = (*at, "unless", index) if len(rule.unless) > 1 else (*at, "unless")
            if unless.above is None and unless.below is None:
                self.at(here, "a point without a limit", "`above:` or `below:`", check="unless")
            for asset in (unless.asset,) if unless.asset is not None else rule.asset:
                self.point(here, asset, unless.point)
        if rule.when_shut == "stop":
            for asset in rule.asset:
                way = self.conduit.ways.get(asset)
                if way is not None and not _sent_to(way):
                    found = f"{asset}, which fetches, or has a technician"
                    self.at((*at, "when_shut"), found, "`stop` for assets that are sent files", check="way")
        health = rule.health
        if health is not None:
            if not (health.tcp or health.http or health.file or health.person or health.point or health.ping):
                expected = "one of tcp, http, file, point, ping, person"
                self.at((*at, "health"), "nothing that is looked at", expected, check="health")
            if health.point is not None:
                for asset in rule.asset:
                    self.point((*at, "health", "point"), asset, health.point, limits=True)
            if (health.http or health.file) and not health.says:
                self.at((*at, "health"), "nothing that the page or file must say", "`says:`", check="health")

    def point(self, at: Path, asset: str, name: str, *, limits: bool = False) -> None:
        """A point that the installer reads. `limits`: its value is held against the point's own."""
        known = self.checking.policy.assets.get(asset)
        if known is None:
            assets = self.checking.names("assets")
            self.at(
                at, f"a point of {quote(asset)}, which is no asset", one_of(assets), nearest(asset, assets), "point"
            )
            return
        point = known.points.get(name)
        by_tls = known.tls is not None and known.tls.asset
        if known.zone != self.conduit.to_zone:
            self.at(at, f"{asset} of zone {known.zone}", f"an asset of {self.conduit.to_zone}", check="point")
        elif known.protocol != "modbus" or by_tls:
            how = f"{known.protocol}{' by TLS' if by_tls else ''}"
            self.at(at, f"{asset}, which speaks {how}", "an asset that speaks Modbus, not by TLS", check="point")
        elif point is None:
            self.at(at, f"{quote(name)}, which is no point of {asset}", one_of(known.points),
                    nearest(name, known.points), "point")  # fmt: skip
        elif point.type is ValueType.TEXT:
            self.at(at, f"{name}, which is a text", "a number", check="point")
        elif limits and point.min is None and point.max is None and not point.values:
            self.at(at, f"{name}, which has no limits", "a point with `min`, `max` or `values`", check="point")


# --- what is legal and unwise -----------------------------------------------------------------------------------------


def _conduits(run: Linting) -> Iterator[tuple[str, PatchConduit]]:
    return ((name, each) for name, each in run.policy.conduits.items() if isinstance(each, PatchConduit))


def _unscanned(run: Linting) -> None:
    """A product of the patch relay that nothing scans."""
    for name, conduit in _conduits(run):
        for product, said in conduit.products.items():
            if said.scan == "none":
                place = ("conduits", name, "products", product, "scan")
                run.value(place, "unscanned", f"{product}, which nothing scans", "clamd")


def _unchecked(run: Linting) -> None:
    """An asset that gets files and of which nothing is looked at afterwards."""
    for name, conduit in _conduits(run):
        for number, rule in enumerate(conduit.allow):
            if rule.install and rule.health is None:
                place = ("conduits", name, "allow", number, "install")
                run.value(place, "unchecked-install", f"{', '.join(rule.asset)} without a health check", "`health:`")


def _not_separate(run: Linting) -> None:
    """A patch relay where whoever uploads may approve as well."""
    for name, conduit in _conduits(run):
        if not conduit.separate:
            run.value(("conduits", name, "separate"), "not-separate", "uploaders who may approve", "true")


def _plain(run: Linting) -> None:
    """A patch relay that answers HTTP without TLS at an address other than loopback."""
    for name, conduit in _conduits(run):
        for zone, door in conduit.listen.items():
            if door.plain and not door.at[0].startswith("127.") and door.at[0] != "::1":
                run.value(("conduits", name, "listen", zone, "plain"), "plain-patch", "HTTP without TLS", "TLS")


def _unprotected(run: Linting) -> None:
    """An asset that is sent files by FTP without TLS or by TFTP: whoever is on the path can read and change them."""
    for name, conduit in _conduits(run):
        for asset, way in conduit.ways.items():
            if way.ftp is not None and way.ftp.certificate is None:
                found = f"FTP without TLS to {asset}: password and file are open"
                run.value(("conduits", name, "ways", asset, "ftp"), "unprotected-way", found, "`certificate:`, or SFTP")
            if way.tftp_read is not None:
                found = f"TFTP by {asset}: whoever has its address reads its files"
                run.value(("conduits", name, "ways", asset, "tftp_read"), "unprotected-way", found, "`pull`, by HTTPS")
            if way.tftp is not None:
                found = f"TFTP to {asset}: no login, no protection"
                run.value(("conduits", name, "ways", asset, "tftp"), "unprotected-way", found, "SFTP, FTPS or HTTPS")


def _shared(run: Linting) -> None:
    """A patch relay that reads a point of an asset which takes one connection, and which a proxy serves as well."""
    others = (each for each in run.policy.conduits.values() if not isinstance(each, PatchConduit))
    served = {name for conduit in others for rule in conduit.allow for name in rule.assets}
    for name, conduit in _conduits(run):
        for number, rule in enumerate(conduit.allow):
            read = {each.asset or asset for each in rule.unless for asset in rule.asset}
            read |= set(rule.asset) if rule.health is not None and rule.health.point is not None else set()
            for one in sorted(read & served):
                if (asset := run.policy.assets.get(one)) is not None and asset.connections == 1:
                    found = f"{one}, which takes one connection, and a proxy has it"
                    place = ("conduits", name, "allow", number)
                    run.value(place, "shared-point", found, "connections: 2, if the device takes them")


def _sent_to(way: WaySaid) -> bool:
    return way.sftp is not None or way.smb is not None or way.ftp is not None or way.tftp is not None


def _no_way_back(run: Linting) -> None:
    """A rule that sends the previous file back to an asset that is sent none: it fetches, or a technician installs."""
    for name, conduit in _conduits(run):
        for number, rule in enumerate(conduit.allow):
            alone = [one for one in rule.asset if (way := conduit.ways.get(one)) is not None and not _sent_to(way)]
            if rule.back == "previous" and alone:
                found = f"back: previous for {', '.join(alone)}, which nothing is sent to"
                run.value(("conduits", name, "allow", number, "back"), "no-way-back", found, "stop")


def _reads(way: WaySaid) -> bool:
    return way.sftp is not None or way.smb is not None or way.ftp is not None


def _unsigned(run: Linting) -> None:
    """A product that nobody signs."""
    for name, conduit in _conduits(run):
        for product, said in conduit.products.items():
            if said.origin.two_sources:
                place = ("conduits", name, "products", product, "origin", "two_sources")
                run.value(place, "unsigned-product", f"{product}, which its maker does not sign", "a signature")


def _unencrypted(run: Linting) -> None:
    """A patch relay whose quarantine can be read by whoever reads its disk."""
    for name, conduit in _conduits(run):
        if not conduit.encrypt:
            run.value(("conduits", name, "encrypt"), "plain-quarantine", "a quarantine in the clear", "true")


def _too_short(run: Linting) -> None:
    """A window in which the largest file of a product would not get to an asset, at the rate of its way."""
    for name, conduit in _conduits(run):
        for number, rule in enumerate(conduit.allow):
            longest = max((_seconds(window_row(each)) for each in rule.window), default=0)
            for asset in rule.asset if longest else ():
                way = conduit.ways.get(asset)
                for product in rule.install:
                    said = conduit.products.get(product)
                    if way is None or way.hands is not None or said is None or said.most <= longest * way.rate:
                        continue
                    found = (
                        f"{product} to {asset}: {show_size(said.most)} take {-(-said.most // way.rate // 60)} min at "
                        f"its rate, and the longest window has {longest // 60} min"
                    )
                    expected = "a longer window, a `rate` that it reaches, or a smaller `most`"
                    run.value(("conduits", name, "allow", number, "window"), "short-window", found, expected)


def _seconds(window: Window) -> int:
    return (window.stop - window.start - 1) % DAY + 1


def _expiring(run: Linting) -> None:
    """A root, certificate or OpenPGP key of the patch relay's that has expired, or will within 60 days."""
    if run.now_ns is None:
        return
    for name, conduit in _conduits(run):
        row = run.compiled.conduits[name].terms
        if not isinstance(row, PatchRows):
            continue
        here: list[tuple[Path, str, float | None]] = [(("conduits", name, "root"), "the root", _root_ends(row.root))]
        for product in row.products:
            origin, at = product.origin, ("conduits", name, "products", product.name, "origin")
            for word, keys, ends in (
                (origin.proof, origin.keys, _ENDS.get(origin.proof)), ("stamps", origin.stamps, _certificates_end),
                ("exporters", origin.exporters, _pgp_ends),
            ):  # fmt: skip
                for index, key in enumerate(keys if ends is not None else ()):
                    file = getattr(conduit.products[product.name].origin, word)[index]
                    here.append(((*at, word, index), file, ends(key) if ends is not None else None))
        for path, what, end in here:
            left = None if end is None else (end - run.now_ns / 1e9) / DAY
            if left is not None and left < EXPIRES_DAYS:
                found = f"{what}, which has expired" if left < 0 else f"{what}, which expires in {left:.0f} days"
                run.value(path, "key-expires", found, "its successor, beside the policy")


def _root_ends(data: bytes) -> float | None:
    try:
        return datetime.fromisoformat(json.loads(data)["signed"]["expires"]).timestamp()
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _certificates_end(data: bytes) -> float | None:
    """When the last of them ends; None for what holds none that can be read."""
    from cryptography.x509 import load_pem_x509_certificates  # most policies name no certificate

    try:
        return max((each.not_valid_after_utc.timestamp() for each in load_pem_x509_certificates(data)), default=None)
    except ValueError:
        return None


def _pgp_ends(data: bytes) -> float | None:
    """When the last of them ends; None for one that does not, or where nothing here reads them."""
    try:
        import pysequoia  # an extra's

        ends = [each.expiration for each in pysequoia.Cert.split_bytes(data)]
    except Exception:  # its errors have no class of their own; an examiner says what is wrong with it
        return None
    return None if None in ends else max((each.timestamp() for each in ends if each is not None), default=None)


_ENDS: dict[str, Callable[[bytes], float | None]] = {
    "pgp": _pgp_ends, "apt": _pgp_ends, "authenticode": _certificates_end, "cms": _certificates_end,
    "wsus": _certificates_end,
}  # fmt: skip


CHECKS: dict[str, Callable[[Linting], None]] = {
    "unscanned": _unscanned,
    "unchecked-install": _unchecked,
    "not-separate": _not_separate,
    "plain-patch": _plain,
    "unprotected-way": _unprotected,
    "unsigned-product": _unsigned,
    "plain-quarantine": _unencrypted,
    "shared-point": _shared,
    "no-way-back": _no_way_back,
    "short-window": _too_short,
    "key-expires": _expiring,
}
