"""The frozen rows of the patch relay: products, the ways in to assets, rings, and the lines that say who brings what in
and what goes where. PURE.

Not here: how rows are made from a policy file (terms.patch), who decides by them (brokers.patch).
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from cofferdam.policy.hours import Window
from cofferdam.policy.terms.doors import Door
from cofferdam.policy.terms.patch_source_rows import Fetch, Source, bundle_name

LARGEST_FILE: Final = 16_000_000_000
"""The most bytes of one file that any product may have."""

Proof = Literal["pgp", "authenticode", "minisign", "sigstore", "cms", "apt", "wsus", "two-sources"]


class Origin(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which proof of origin a file must have. `keys`: what it is proved by, as it stands in the policy's files (OpenPGP
    certificates, X.509 certificates in PEM, minisign keys, sigstore's trust roots). `publisher`: the name that the
    signer's certificate must have. `stamps`: authorities (X.509 in PEM) whose time stamps count once that certificate
    has expired. `exporters`: who signs an export of WSUS (OpenPGP). `list`: the name of a list of SHA-256 that is
    signed, instead of the file itself. `identity`, `issuer`: who must have signed a sigstore bundle, and who has
    seen that it is he."""

    proof: Proof
    keys: tuple[bytes, ...]
    publisher: str = ""
    list: str = ""
    stamps: tuple[bytes, ...] = ()
    exporters: tuple[bytes, ...] = ()
    identity: str = ""
    issuer: str = ""

    @property
    def files(self) -> tuple[bytes, ...]:
        """All that an examiner is given."""
        return (*self.keys, *self.stamps, *self.exporters)

    @property
    def detached(self) -> bool:
        """The signature is a file of its own."""
        return self.proof not in ("authenticode", "apt", "two-sources")


class Product(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A kind of file that assets get, or of documents about such files (`kind`). `most`: bytes. `scan`: what scans it
    ("": nothing does). `provider`: who must have published an advisory, as its document says.
    `yara`: the site's own rules, which must find nothing. `password`: the name of what opens its archives, which the
    keeper has. `sign`: the name of the key by which its repository is signed anew, which the installer has."""

    name: str
    origin: Origin
    most: int
    scan: Literal["clamd", ""] = "clamd"
    kind: Literal["files", "advisories"] = "files"
    provider: str = ""
    yara: bytes = b""
    password: str = ""
    sign: str = ""


class Sftp(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The asset takes files by SFTP, or by `scp` alone. `host_key` is its own, as OpenSSH writes it; `path`: where the
    file goes, with `{file}` for its name; `secret`: the name of our credential."""

    port: int
    user: str
    host_key: str
    path: str
    secret: str
    scp: bool = False


class Ftp(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The asset takes files by FTP in passive mode, at data ports `data` (first, last). `certificate`: by FTPS; the
    SHA-256 of its certificate. `path`, `secret` as for SFTP."""

    port: int
    user: str
    path: str
    secret: str
    data: tuple[int, int]
    certificate: str = ""


class Tftp(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The asset takes files by TFTP. `read_back`: it gives out what it took, by the same name."""

    port: int
    path: str
    read_back: bool = True


class Smb(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The asset takes files in a share, by SMB 3.1.1 with encryption. `path`, `secret` as for SFTP."""

    port: int
    share: str
    user: str
    domain: str
    path: str
    secret: str


class Way(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How an asset gets its files: `sftp`, `smb`, `ftp`, `tftp`, or it fetches them itself by HTTPS, as the principal
    `pull`; or they are laid out for a technician in a folder of the site's (`hands`); or it reads them by TFTP, asking
    for `tftp_read`, in which {file} stands for a file's name. `rate`: bytes a second that are reckoned with."""

    asset: str
    address: str
    sftp: Sftp | None = None
    pull: str = ""
    rate: int = 1_000_000
    ftp: Ftp | None = None
    tftp: Tftp | None = None
    hands: str = ""
    smb: Smb | None = None
    tftp_read: str = ""

    @property
    def secret(self) -> str:
        """The name of our credential at the asset, "" for none."""
        said = self.sftp or self.ftp or self.smb
        return said.secret if said is not None else ""

    @property
    def ports(self) -> tuple[int, ...]:
        """TCP ports at which the asset is sent files."""
        if self.sftp is not None:
            return (self.sftp.port,)
        if self.smb is not None:
            return (self.smb.port,)
        if self.ftp is not None:
            return (self.ftp.port, *range(self.ftp.data[0], self.ftp.data[1] + 1))
        return ()


class Health(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What must hold of an asset after it got a file, within `within` seconds: a TCP port that answers, an HTTP page or
    a file of its own (by SFTP) that has `says` in it, where {version} is the release's, a `point` of it whose value is
    within what the policy says of the point, an answer to a `ping`. `person`: besides, somebody says what became of it,
    however long that takes."""

    within: int = 60
    tcp: int = 0
    http_port: int = 0
    http_path: str = ""
    file: str = ""
    says: str = ""
    person: bool = False
    point: str = ""
    ping: bool = False


class Unless(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A point of an asset whose value holds transfers back, while it is above or below a limit in its own unit."""

    asset: str
    point: str
    above: float | None = None
    below: float | None = None

    @property
    def name(self) -> str:
        """ASSET.POINT."""
        return f"{self.asset}.{self.point}"


def beyond(said: Unless) -> str:
    """What its value must not be, in words."""
    limits = [("above", said.above), ("below", said.below)]
    return " or ".join(f"{word} {limit:g}" for word, limit in limits if limit is not None)


class Put(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who may bring files of which products in. `number` counts the conduit's lines from 0."""

    number: int
    who: tuple[str, ...]
    products: tuple[str, ...]


class Install(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What goes to which asset, in which ring and when. `back`: what happens where the health check fails. `unless`:
    what holds it back. `when_shut`: what becomes of a transfer that is under way when its window shuts."""

    number: int
    asset: str
    products: tuple[str, ...]
    ring: str
    windows: tuple[Window, ...] = ()
    health: Health | None = None
    back: Literal["previous", "stop"] = "stop"
    unless: tuple[Unless, ...] = ()
    when_shut: Literal["finish", "stop"] = "finish"


Scheme = Literal["intdot", "semver", "deb", "rpm", "pypi", "maven"]
"""How versions compare: numbers between dots, semantic versions, and as Debian, RPM, Python and Maven do it."""


class Software(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What runs on an asset, by the names that its vendor's advisories have for it."""

    asset: str
    vendor: tuple[str, ...]
    product: tuple[str, ...]
    version: str
    scheme: Scheme = "intdot"


class Duties(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Until when an advisory is evaluated after it was available, and answered after it was evaluated, in seconds
    (CIP-007-6 R2.2, R2.3). `since` (UTC ns): no clock starts before."""

    evaluate: int = 35 * 86_400
    plan: int = 35 * 86_400
    since: int = 0


class PatchRows(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="patch"):
    """What a conduit says of the patch relay. `root`: the TUF root that the installer is born with. `signatures`: the
    least number of people that a release takes. `separate`: whoever brought a file in, or asked for its release, is
    none of them. `rings`: their names, in order; `soak`: seconds after a ring before the next one begins. `stop_after`:
    failed assets that stop a release. `stands`: principals and their zones. `inventory`: what runs on which asset, for
    advisories; `duties`: until when they are answered."""

    products: tuple[Product, ...] = ()
    ways: tuple[Way, ...] = ()
    puts: tuple[Put, ...] = ()
    installs: tuple[Install, ...] = ()
    root: bytes = b""
    signatures: int = 2
    separate: bool = True
    rings: tuple[str, ...] = ()
    soak: tuple[tuple[str, int], ...] = ()
    stop_after: int = 1
    doors: tuple[Door, ...] = ()
    outer: str = ""
    inner: str = ""
    stands: dict[str, str] = {}
    inventory: tuple[Software, ...] = ()
    duties: Duties = Duties()
    sources: tuple[Source, ...] = ()
    fetches: tuple[Fetch, ...] = ()
    tftp: tuple[str, int] | None = None
    """Where assets read by TFTP."""
    laid: tuple[str, ...] = ()
    """Products whose files are left in folders of the site's: nobody sees by whom."""
    encrypt: bool = True
    """What is not released is encrypted where it lies."""
    at_once: int = 0
    """Assets that are changed at once, whoever begins; 0: one that we send to, and any number that fetch."""
    bandwidth: int = 0
    """Bytes a second of all that goes to assets together; 0: as fast as they take it."""

    @property
    def read(self) -> tuple[tuple[str, str], ...]:
        """Points that the installer reads, as (asset, point)."""
        held = {(each.asset, each.point) for install in self.installs for each in install.unless}
        checked = {(each.asset, each.health.point) for each in self.installs if each.health and each.health.point}
        return tuple(sorted(held | checked))

    def product(self, name: str) -> Product | None:
        return next((each for each in self.products if each.name == name), None)

    def may_put(self, who: str, product: str) -> Put | None:
        """The line by which somebody may bring a product's files in."""
        return next((each for each in self.puts if who in each.who and product in each.products), None)

    def source(self, name: str) -> Source | None:
        return next((each for each in self.sources if each.name == name), None)

    def may_fetch(self, source: str, product: str, version: str, file: str) -> Fetch | None:
        """The line by which a source may bring this file in. Snapshots of a Debian repository have a name of ours."""
        found = self.source(source)
        for each in self.fetches:
            if found is None or (each.source, each.product) != (source, product):
                continue
            if found.apt is not None:
                if file == bundle_name(found.apt.suite, version):
                    return each
            elif each.takes(file, version):
                return each
        return None
