"""What a policy may say of the patch relay, which brings files to assets.

The outer side (intake) takes uploads, the keeper, apart from both, has files proved and scanned and keeps them, and the
inner side (installer) decides: it believes nothing but signatures by the root that the policy names.

Not here: the words (patch_model), errors and warnings (patch_checks), the rows (patch_rows).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence

import msgspec

from cofferdam.errors import CofferdamError
from cofferdam.model import NEVER, Allow, Deny, Fault, Side
from cofferdam.policy import rows, windows
from cofferdam.policy.explain import Explanation, Question, explained
from cofferdam.policy.findings import Checking
from cofferdam.policy.points.decide import show_utc
from cofferdam.policy.problems import nearest, one_of
from cofferdam.policy.standing import standing
from cofferdam.policy.table import CompiledPolicy
from cofferdam.policy.terms import patch_checks
from cofferdam.policy.terms.base import (
    Ask,
    Folder,
    Listen,
    Making,
    Needs,
    PartNeeds,
    Ping,
    Place,
    Reach,
    Scope,
    Store,
    Terms,
    window_row,
)
from cofferdam.policy.terms.door_words import door_row
from cofferdam.policy.terms.patch_checks import PatchChecks, der_of, sides
from cofferdam.policy.terms.patch_model import HealthSaid, OriginSaid, PatchConduit, PatchRule, WaySaid
from cofferdam.policy.terms.patch_rows import (
    Duties,
    Ftp,
    Health,
    Install,
    Origin,
    PatchRows,
    Product,
    Put,
    Sftp,
    Smb,
    Software,
    Tftp,
    Unless,
    Way,
    beyond,
)
from cofferdam.policy.terms.patch_sources import fetch_rows, laid_products, source_rows
from cofferdam.policy.zones import end_of_day

FETCHER, INTAKE, KEEPER, INSTALLER = "fetcher", "intake", "keeper", "installer"
QUOTA_FILES = 20
"""Room of a store, in largest files of its products."""
QUOTA_LEAST = 4_000_000_000


class PatchTerms(Terms[PatchConduit, PatchRows]):
    """The terms of the patch relay."""

    word = "patch"
    title = "The patch relay"
    conduit = PatchConduit
    rule = PatchRule
    row = PatchRows
    asks = (
        Ask("put", "PRODUCT", "the product whose file is uploaded", optional=True),
        Ask("install", "PRODUCT", "the product whose file would go to --asset", optional=True),
        Ask("asset", "NAME", "the asset that is asked"),
    )
    warnings = patch_checks.CHECKS

    def check(self, name: str, conduit: PatchConduit, numbers: Sequence[int], checking: Checking) -> None:
        PatchChecks(name, conduit, numbers, checking).run()
        for number, rule in zip(numbers, conduit.allow, strict=True):
            for index, window in enumerate(rule.window):
                at = ("conduits", name, "allow", number, "window", index)
                checking.window(window, at)

    # --- rows

    def to_row(self, name: str, conduit: PatchConduit, making: Making) -> PatchRows:
        outer, inner = sides(conduit, making.policy) or ("", "")
        return PatchRows(
            products=tuple(
                Product(
                    name=product, origin=_origin(said.origin, making), most=said.most,
                    scan="clamd" if said.scan == "clamd" else "", kind=said.kind, provider=said.provider or "",
                    yara=making.files[said.yara] if said.yara is not None else b"", password=said.password or "",
                    sign=said.sign or "",
                )
                for product, said in sorted(conduit.products.items())
            ),
            ways=tuple(_way(asset, said, making) for asset, said in sorted(conduit.ways.items())),
            puts=tuple(
                Put(number=number, who=tuple(sorted(rule.who)), products=tuple(sorted(rule.put)))
                for number, rule in enumerate(conduit.allow) if rule.put
            ),
            installs=tuple(
                Install(
                    number=number, asset=asset, products=tuple(sorted(rule.install)),
                    ring=rule.ring or conduit.rings[-1], windows=tuple(window_row(each) for each in rule.window),
                    health=_health(rule.health), back=rule.back, when_shut=rule.when_shut,
                    unless=tuple(
                        Unless(asset=each.asset or asset, point=each.point, above=each.above, below=each.below)
                        for each in rule.unless
                    ),
                )
                for number, rule in enumerate(conduit.allow) for asset in sorted(rule.asset)
            ),
            sources=source_rows(conduit, making.files),
            fetches=fetch_rows(conduit),
            laid=laid_products(conduit),
            tftp=conduit.tftp,
            at_once=conduit.at_once or 0,
            bandwidth=conduit.bandwidth or 0,
            encrypt=conduit.encrypt,
            root=making.files[conduit.root],
            signatures=conduit.signatures,
            separate=conduit.separate,
            rings=conduit.rings,
            soak=tuple(sorted(conduit.soak.items())),
            stop_after=conduit.stop_after,
            doors=tuple(door_row(zone, said, making.files) for zone, said in sorted(conduit.listen.items())),
            outer=outer,
            inner=inner,
            stands={
                who: making.policy.principals[who].zone
                for who in sorted(
                    {who for rule in conduit.allow for who in rule.who}
                    | {way.pull for way in conduit.ways.values() if way.pull is not None}
                )
            },
            inventory=tuple(
                Software(
                    asset=asset, vendor=said.vendor, product=said.product, version=said.version, scheme=said.scheme
                )
                for asset, programs in sorted(conduit.inventory.items()) for said in programs
            ),
            duties=Duties(
                evaluate=conduit.advisories.evaluate, plan=conduit.advisories.plan,
                since=_day(conduit.advisories.since),
            ),
        )  # fmt: skip

    # --- needs

    def needs(self, conduit: rows.Conduit, policy: CompiledPolicy) -> Needs:
        row = _row(conduit)
        products = sorted(product.name for product in row.products)
        share = products[0]

        def listens(zone: str) -> tuple[Listen, ...]:
            who = tuple(sorted(name for name, stands in row.stands.items() if stands == zone))
            return tuple(
                Listen(zone, door.address, door.port, who, share, ("conduits", conduit.name, "listen", zone, "at"))
                for door in row.doors if door.zone == zone
            )  # fmt: skip

        asked: tuple[Listen, ...] = ()
        readers = tuple(sorted({way.address for way in row.ways if way.tftp_read}))
        if row.tftp is not None and readers:
            at = ("conduits", conduit.name, "tftp")
            asked = (Listen(row.inner, *row.tftp, (), share, at, datagrams=True, sources=readers),)
        reached = {(way.address, port) for way in row.ways for port in way.ports}
        addresses = {way.asset: way.address for way in row.ways}
        for install in row.installs:
            if install.health is not None and install.asset in addresses:
                ports = (install.health.tcp, install.health.http_port)
                reached |= {(addresses[install.asset], port) for port in ports if port}
        pinged = {
            addresses[each.asset] for each in row.installs
            if each.health is not None and each.health.ping and each.asset in addresses
        }  # fmt: skip
        reached |= {(policy.assets[asset].address, policy.assets[asset].port) for asset, _ in row.read}
        reaches = tuple(Reach(row.inner, address, port, share) for address, port in sorted(reached))
        quota = max(QUOTA_LEAST, QUOTA_FILES * max(product.most for product in row.products))
        fetches = sorted({
            (address, port)
            for source in row.sources
            for address, port in ([source.via] if source.via else [(each.address, each.port) for each in source.hosts])
        })  # fmt: skip
        folders = tuple(
            Folder(each.folder, share, ("conduits", conduit.name, "sources", each.name, "folder"))
            for each in row.sources if each.folder
        )  # fmt: skip
        laid_out = tuple(
            Folder(folder, share, ("conduits", conduit.name, "ways"))
            for folder in sorted({way.hands for way in row.ways if way.hands})
        )  # fmt: skip
        outer = Place(Side(policy.zones[row.outer].side), row.outer)
        fetched = tuple(Reach(row.outer, address, port, share) for address, port in fetches)
        fetcher = {FETCHER: PartNeeds(outer, reaches=fetched)} if fetches else {}
        parts = {
            INTAKE: PartNeeds(outer, listens=listens(row.outer)),
            **fetcher,
            KEEPER: PartNeeds(store=Store(quota), folders=folders),
            INSTALLER: PartNeeds(
                Place(Side(policy.zones[row.inner].side), row.inner), listens=(*listens(row.inner), *asked),
                reaches=reaches, store=Store(quota), folders=laid_out,
                pings=tuple(Ping(row.inner, address) for address in sorted(pinged)),
            ),
        }  # fmt: skip
        return Needs(parts, dict.fromkeys(products, f"the patch store for {row.outer} and {row.inner}"))

    # --- slices

    def cut(self, conduit: rows.Conduit, scope: Scope, part: str) -> PatchRows | None:
        row = _row(conduit)
        replace = msgspec.structs.replace
        if part == INTAKE:
            products = _bare(row)
            doors = tuple(door for door in row.doors if door.zone == row.outer)
            return PatchRows(products=products, puts=row.puts, doors=doors, outer=row.outer, inner=row.inner)
        if part == FETCHER:
            sources = tuple(each for each in row.sources if each.hosts)
            names = {each.name for each in sources}
            fetches = tuple(each for each in row.fetches if each.source in names)
            return PatchRows(products=_bare(row), sources=sources, fetches=fetches, outer=row.outer, inner=row.inner)
        if part == KEEPER:
            bare = tuple(replace(each, hosts=(), via=None, mapping=None) for each in row.sources)
            ways = tuple(Way(asset=way.asset, address="", pull=way.pull) for way in row.ways)
            return replace(row, ways=ways, doors=(), sources=bare)
        products = tuple(replace(each, origin=_unproved(each.origin), yara=b"", password="") for each in row.products)
        doors = tuple(door for door in row.doors if door.zone == row.inner)
        return replace(
            row, products=products, puts=(), doors=doors, stands={}, inventory=(), sources=(), fetches=()
        )  # fmt: skip

    def principals(self, conduit: rows.Conduit, part: str) -> frozenset[str]:
        row = _row(conduit)
        if part == FETCHER:
            return frozenset()
        zone = row.inner if part == INSTALLER else row.outer
        return frozenset(who for who, stands in row.stands.items() if stands == zone)

    def slice(self, policy: CompiledPolicy, scope: Scope, part: str) -> rows.Table:
        table = super().slice(policy, scope, part)
        if part != INSTALLER:
            return table
        named: dict[str, set[str]] = {}
        for name in scope.conduits:
            for asset, point in _row(policy.conduits[name]).read:
                named.setdefault(asset, set()).add(point)
        replace = msgspec.structs.replace
        assets = {name: policy.assets[name] for name in sorted(named)}
        read = {
            name: replace(asset, listen=None, also=(), points=tuple(
                point for point in asset.points if point.name in named[name]
            )) for name, asset in assets.items()
        }  # fmt: skip
        zones = {asset.zone: rows.Zone(asset.zone, policy.zones[asset.zone].side) for asset in assets.values()}
        return replace(table, assets=read, zones={**table.zones, **zones})

    def clocks(self, row: PatchRows) -> frozenset[str]:
        fetched = {window.zone for source in row.sources for window in source.windows}
        return frozenset({window.zone for install in row.installs for window in install.windows} | fetched)

    # --- explanations

    @property
    def form(self) -> str:
        return "--put PRODUCT, or --asset ASSET --install PRODUCT"

    def asked(self, said: Collection[str]) -> bool:
        return set(said) in ({"put"}, {"asset", "install"})

    def by_nobody(self, said: Collection[str]) -> bool:
        return "install" in said

    def explain(self, policy: CompiledPolicy, question: Question) -> Explanation:
        said = question.said
        product = said.get("put") or said.get("install", "")
        found = {
            name: conduit for name, conduit in policy.conduits.items()
            if isinstance(conduit.terms, PatchRows) and conduit.terms.product(product) is not None
        }  # fmt: skip
        if not found:
            known = [
                each.name for conduit in policy.conduits.values() if isinstance(conduit.terms, PatchRows)
                for each in conduit.terms.products
            ]  # fmt: skip
            near = nearest(product, known)
            hint = f"did you mean {near}?" if near else f"the policy has {one_of(known)}" if known else ""
            raise CofferdamError(f"the policy has no product {product!r}", hint=hint)
        name, conduit = next(iter(found.items()))
        row = _row(conduit)
        conditions: list[str] = []
        if "put" in said:
            verdict = self._may_put(policy, row, conduit, question, product)
            operation, target = "put", product
        else:
            verdict, conditions = self._would_install(policy, row, name, question, product)
            operation, target = f"install {product}", said["asset"]
        if isinstance(verdict, Allow):
            stands = standing(conduit, policy.table.clocks, question.wall_ns)
            if not stands.open:
                fault = Fault.EXPIRED if question.wall_ns >= conduit.expires else Fault.WINDOW
                verdict = Deny(name, verdict.rule, fault, f"the conduit is {stands.says}")
        return explained(
            policy, question, verdict, broker=self.word, operation=operation, target=target,
            answer="problem+json with 403" if "put" in said else "nothing is sent",
            conditions=conditions, considered=[verdict],
        )  # fmt: skip

    def _may_put(
        self, policy: CompiledPolicy, row: PatchRows, conduit: rows.Conduit, question: Question, product: str
    ) -> Allow | Deny:
        principals = policy.principals_of(question.source, question.zone)
        line = next((each for who in principals if (each := row.may_put(who, product)) is not None), None)
        if line is None:
            others = ", ".join(sorted({who for each in row.puts if product in each.products for who in each.who}))
            whom = " or ".join(principals) or f"{question.source}, which is no principal,"
            detail = f"{whom} would put {product}; {others or 'nobody'} may"
            return Deny(conduit.name, "", Fault.PRINCIPAL, detail)
        return Allow(conduit.name, f"{conduit.name}/{line.number}", min(conduit.expires, NEVER))

    def _would_install(
        self, policy: CompiledPolicy, row: PatchRows, name: str, question: Question, product: str
    ) -> tuple[Allow | Deny, list[str]]:
        asset = question.said["asset"]
        install = next((each for each in row.installs if each.asset == asset and product in each.products), None)
        if install is None:
            others = ", ".join(sorted({each.asset for each in row.installs if product in each.products}))
            return Deny(name, "", Fault.ASSET, f"{product} goes to {others or 'no asset'}, not to {asset}"), []
        rule = f"{name}/{install.number}"
        conditions = [f"a file of {product} whose origin is proved ({_proof(row, product)}) and that is scanned",
                      f"signatures of {row.signatures} people over its release"]  # fmt: skip
        before = row.rings[: row.rings.index(install.ring)] if install.ring in row.rings else ()
        if before:
            conditions.append(f"the rings before {install.ring} are done: {', '.join(before)}")
        conditions += [f"{each.name} is read, and is not {beyond(each)}" for each in install.unless]
        is_open, until = windows.state(install.windows, policy.table.clocks, question.wall_ns)
        if not is_open:
            text = " or ".join(window.text for window in install.windows)
            opens = "it does not open again" if until == NEVER else f"it opens {show_utc(until)}"
            return Deny(name, rule, Fault.WINDOW, f"the asset's window is shut: {text}; {opens}"), conditions
        return Allow(name, rule, min(until, NEVER)), conditions


def _bare(row: PatchRows) -> tuple[Product, ...]:
    """Products, without what their origin is proved by."""
    replace = msgspec.structs.replace
    return tuple(
        replace(each, origin=replace(_unproved(each.origin), publisher=""), yara=b"", password="", sign="")
        for each in row.products
    )


def _unproved(origin: Origin) -> Origin:
    """Without what a file is proved by."""
    return msgspec.structs.replace(origin, keys=(), stamps=(), exporters=(), identity="", issuer="")


def _proof(row: PatchRows, product: str) -> str:
    found = row.product(product)
    return found.origin.proof if found is not None else ""


def _row(conduit: rows.Conduit) -> PatchRows:
    if not isinstance(conduit.terms, PatchRows):
        raise TypeError(f"the conduit {conduit.name} is none of the patch relay")
    return conduit.terms


def _day(said: str | None) -> int:
    """When a day begins, UTC ns; 0 for none."""
    if said is None:
        return 0
    date, _, zone = said.partition(" ")
    return end_of_day(date, zone) - 86_400 * 1_000_000_000


def _origin(said: OriginSaid, making: Making) -> Origin:
    if said.pgp:
        return Origin(proof="pgp", keys=tuple(making.files[file] for file in said.pgp), list=said.list_ or "")
    for proof in ("authenticode", "cms", "wsus"):
        if getattr(said, proof):
            return Origin(
                proof=proof,
                keys=tuple(making.files[file] for file in getattr(said, proof)),
                publisher=said.publisher or "",
                stamps=tuple(making.files[file] for file in said.stamps),
                exporters=tuple(making.files[file] for file in said.exporters),
            )
    if said.apt:
        return Origin(proof="apt", keys=tuple(making.files[file] for file in said.apt))
    if said.sigstore:
        keys = tuple(making.files[file] for file in said.sigstore)
        return Origin(proof="sigstore", keys=keys, identity=said.identity or "", issuer=said.issuer or "")
    if said.two_sources:
        return Origin(proof="two-sources", keys=())
    return Origin(proof="minisign", keys=tuple(making.files[file] for file in said.minisign), list=said.list_ or "")


def _way(asset: str, said: WaySaid, making: Making) -> Way:
    known = making.assets.get(asset)
    address = said.address or (known.address if known is not None else "")
    sftp = None
    if said.sftp is not None:
        sftp = Sftp(
            port=said.sftp.port, user=said.sftp.user, host_key=said.sftp.host_key, path=said.sftp.path,
            secret=said.sftp.secret or asset, scp=said.sftp.scp,
        )  # fmt: skip
    ftp = tftp = None
    if said.ftp is not None:
        pinned = making.files[said.ftp.certificate] if said.ftp.certificate is not None else b""
        ftp = Ftp(
            port=said.ftp.port, user=said.ftp.user, path=said.ftp.path, secret=said.ftp.secret or asset,
            data=said.ftp.data, certificate=hashlib.sha256(der_of(pinned)).hexdigest() if pinned else "",
        )  # fmt: skip
    if said.tftp is not None:
        tftp = Tftp(port=said.tftp.port, path=said.tftp.path, read_back=said.tftp.read_back)
    smb = None
    if said.smb is not None:
        smb = Smb(
            port=said.smb.port, share=said.smb.share, user=said.smb.user, domain=said.smb.domain or "",
            path=said.smb.path, secret=said.smb.secret or asset,
        )  # fmt: skip
    return Way(
        asset=asset, address=address, sftp=sftp, pull=said.pull or "", rate=said.rate, ftp=ftp, tftp=tftp,
        hands=said.hands or "", smb=smb, tftp_read=said.tftp_read or "",
    )  # fmt: skip


def _health(said: HealthSaid | None) -> Health | None:
    if said is None:
        return None
    port, path = said.http or (0, "")
    return Health(
        within=said.within,
        tcp=said.tcp or 0,
        http_port=port,
        http_path=path,
        file=said.file or "",
        says=said.says or "",
        person=said.person,
        point=said.point or "",
        ping=said.ping,
    )
