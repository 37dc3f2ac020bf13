"""The words of the patch relay in the policy file.

Not here: what they mean (patch), what is wrong between them (patch_checks).
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import BeforeValidator, Field

from cofferdam.policy import notations, schema, syntax
from cofferdam.policy.fields import (
    YES_NO,
    FileName,
    as_list,
    choice,
    one_or_list,
    one_or_more,
    read_by,
    size,
    span,
    whole,
)
from cofferdam.policy.notations import Name, Names, Text
from cofferdam.policy.terms.door_words import DoorSaid
from cofferdam.policy.terms.patch_rows import LARGEST_FILE, Scheme
from cofferdam.policy.terms.patch_source_model import FileSourceSaid, FolderName, Packages, Patterns

DAY: Final = 86_400
DATA_PORTS: Final = 100
_IDENTITY: Final = re.compile(r"[!-)+-~]{1,600}(@refs/[!-)+-~]{0,100}(?<!\{version\})\*)?\Z")
_HTTP: Final = re.compile(r"([1-9][0-9]{0,4})(/[!-~]{0,200})\Z")


def _page(raw: Any) -> tuple[int, str]:
    found = _HTTP.match(raw) if isinstance(raw, str) else None
    if found and int(found[1]) <= 65535:
        return int(found[1]), found[2]
    raise syntax.Expected("a port and a path, such as 8080/version")


def _path(raw: Any) -> str:
    if isinstance(raw, str) and 0 < len(raw) <= 200 and raw.isprintable() and ".." not in raw.split("/"):
        return raw
    raise syntax.Expected("a path on the asset, such as /update/{file}")


def _host_key(raw: Any) -> str:
    if isinstance(raw, str) and re.fullmatch(r"(ssh|ecdsa)-[a-z0-9-]+ [A-Za-z0-9+/]{40,1000}={0,2}( .*)?", raw):
        return " ".join(raw.split()[:2])
    raise syntax.Expected("the asset's own host key, as `ssh-keyscan ADDRESS` prints it: ssh-ed25519 AAAA...")


def _share(raw: Any) -> str:
    if isinstance(raw, str) and re.fullmatch(r"[^\\/:*?\"<>|\x00-\x1f]{1,80}", raw):
        return raw
    raise syntax.Expected("a name as Windows has it, such as updates")


def _ports(raw: Any) -> tuple[int, int]:
    found = re.fullmatch(r"([1-9][0-9]{0,4})-([1-9][0-9]{0,4})", raw) if isinstance(raw, str) else None
    if found and int(found[1]) <= int(found[2]) <= 65535 and int(found[2]) - int(found[1]) < DATA_PORTS:
        return int(found[1]), int(found[2])
    raise syntax.Expected(f"a range of at most {DATA_PORTS} ports, such as 50000-50009")


def _identity(raw: Any) -> str:
    if isinstance(raw, str) and _IDENTITY.match(raw):
        return raw
    raise syntax.Expected(
        "an address or a URI, such as release@vendor.example; `*` stands at its end alone, behind `@refs/`"
    )


PortRange = Annotated[tuple[int, int], *read_by(_ports, {"type": "string", "examples": ["50000-50009"]})]
Yes = Annotated[bool, *YES_NO]
FileNames = Annotated[
    tuple[FileName, ...], BeforeValidator(one_or_more), one_or_list({"type": "string", "examples": ["vendor.asc"]})
]
"""Files beside the policy."""
Texts = Annotated[tuple[Text, ...], BeforeValidator(one_or_more), one_or_list({"type": "string", "minLength": 1})]
Page = Annotated[tuple[int, str], *read_by(_page, {"type": "string", "examples": ["8080/version"]})]
RemotePath = Annotated[str, *read_by(_path, {"type": "string", "examples": ["/update/{file}"]})]
ShareName = Annotated[str, *read_by(_share, {"type": "string", "examples": ["updates"]})]
Identity = Annotated[str, *read_by(_identity, {"type": "string", "examples": ["release@vendor.example"]})]
HostKey = Annotated[str, *read_by(_host_key, {"type": "string", "examples": ["ssh-ed25519 AAAAC3..."]})]


class OriginSaid(notations.Entry):
    """Who made a file, and how it shows: one proof. A bare checksum is none."""

    pgp: FileNames = Field((), description="OpenPGP certificates (files beside the policy), one of which must have "
        "signed it: a signature beside the file, NAME.asc or NAME.sig.")  # fmt: skip
    authenticode: FileNames = Field(
        (), description="X.509 certificates (PEM), one of which its Authenticode signature must lead to. For programs "
        "(PE), installer packages (MSI), cabinets (CAB, MSU) and catalogues (CAT).",
    )  # fmt: skip
    minisign: FileNames = Field(
        (), description="minisign public keys, one of which must have signed it: NAME.minisig beside the file."
    )
    cms: FileNames = Field(
        (), description="X.509 certificates (PEM), to one of which the signer's certificate must lead: a detached CMS "
        "signature beside the file (NAME.p7s or NAME.sig, DER or PEM), by a certificate for signing code.",
    )  # fmt: skip
    sigstore: FileNames = Field(
        (), description="sigstore trust roots (files beside the policy, as `trusted_root.json`): a bundle beside the "
        "file, NAME.sigstore.json or NAME.sigstore. With `identity` and `issuer`."
    )  # fmt: skip
    identity: Identity | None = Field(
        None, description="With `sigstore`: who must have signed it, an address or a URI, as its certificate has it. "
        "`{version}` stands for the file's version, and `*` at the end, behind `@refs/`, for any tag or branch."
    )  # fmt: skip
    issuer: Text | None = Field(
        None, description="With `sigstore`: who has seen that it is he, such as "
        "https://token.actions.githubusercontent.com."
    )  # fmt: skip
    apt: FileNames = Field(
        (), description="OpenPGP certificates, one of which must have signed the repository's InRelease, which leads "
        "to the hash of each package. For snapshots that a source of kind `apt` takes."
    )  # fmt: skip
    wsus: FileNames = Field(
        (), description="For exports of a WSUS server in one tar: X.509 certificates (PEM), one of which the "
        "Authenticode signature of each update must lead to. With `exporters`."
    )  # fmt: skip
    exporters: FileNames = Field(
        (), description="With `wsus`: OpenPGP certificates, one of which must have signed the export (NAME.asc or "
        "NAME.sig beside it). Its metadata is signed by nobody else."
    )  # fmt: skip
    two_sources: Yes = Field(
        False, description="Nobody signs it: the same file must come by two ways, from two that are not the same. It "
        "is marked so for ever."
    )  # fmt: skip
    list_: FileName | None = Field(
        None, alias="list", description="With `pgp` or `minisign`: the name of a list of SHA-256, such as SHA256SUMS, "
        "which is signed instead of the file itself, and comes with its version."
    )  # fmt: skip
    publisher: Text | None = Field(
        None, description="With `authenticode`, `cms` or `wsus`: the common name that the signer's certificate must "
        "have."
    )  # fmt: skip
    stamps: FileNames = Field(
        (), description="With `authenticode`, `cms` or `wsus`: X.509 certificates (PEM) of time-stamp authorities. A "
        "signer's certificate that has expired then counts, where one of these says that it had signed before."
    )  # fmt: skip


class ProductSaid(notations.Entry):
    """A kind of file that assets get."""

    origin: OriginSaid = Field(description="Which proof of origin a file must have.")
    most: Annotated[int, *size(1, LARGEST_FILE)] = Field(
        100_000_000, description="The largest file. Default: 100 MB.", json_schema_extra={"default": "100 MB"}
    )
    scan: Annotated[Literal["clamd", "none"], *choice("clamd", "none")] = Field(
        "clamd", description="What scans it: this machine's `clamd`, or `none`."
    )
    kind: Annotated[Literal["files", "advisories"], *choice("files", "advisories")] = Field(
        "files",
        description="`files` for assets, or `advisories`: CSAF 2.0 documents, CycloneDX SBOMs and lists (CSV) that "
        "are read here and never released.",
    )
    provider: Text | None = Field(
        None, description="With `advisories`: the namespace of the publisher that CSAF documents must name, such as "
        "https://www.vendor.example.",
    )  # fmt: skip
    yara: FileName | None = Field(
        None, description="Besides: YARA rules of the site's (a file beside the policy), none of which may match."
    )
    password: Name | None = Field(
        None, description="Its files are ZIP archives that need a password, of this name; the keeper has it by "
        "`cofferdam patch credential NAME`. Without, what needs a password is refused."
    )  # fmt: skip
    sign: Name | None = Field(
        None, description="With `apt`: hosts get the repository signed by an OpenPGP key of the site's, of this name, "
        "instead of the vendor's; `cofferdam patch credential NAME --make FILE` makes it, and the installer has it."
    )  # fmt: skip


class SftpSaid(notations.Entry):
    """The asset takes files by SFTP."""

    port: Annotated[int, *whole(1, 65535)] = Field(22, description="The port at which it takes SFTP.")
    user: Name = Field(description="The user to log in as.")
    host_key: HostKey = Field(description="Its own host key, as `ssh-keyscan` prints it. Another one is refused.")
    path: RemotePath = Field("{file}", description="Where the file goes; `{file}` stands for its name.")
    scp: Yes = Field(False, description="It has no SFTP, and takes files by SCP as of old: without a rename.")
    secret: Name | None = Field(
        None,
        description="The name of our credential; `cofferdam patch credential NAME` brings it in. Default: the asset's "
        "name.",
    )


class FtpSaid(notations.Entry):
    """The asset takes files by FTP (unprotected) or FTPS, in passive mode."""

    port: Annotated[int, *whole(1, 65535)] = Field(21, description="The port at which it takes FTP.")
    data: PortRange = Field(
        description="The ports of its data connections, as its settings say: 50000-50009. At most 100."
    )
    user: Name = Field(description="The user to log in as.")
    path: RemotePath = Field("{file}", description="Where the file goes; `{file}` stands for its name.")
    certificate: FileName | None = Field(
        None, description="FTPS (AUTH TLS): the asset's own certificate in PEM, a file beside the policy. Another one "
        "is refused. Without it, plain FTP.",
    )  # fmt: skip
    secret: Name | None = Field(None, description="The name of our credential, a password. Default: the asset's name.")


class SmbSaid(notations.Entry):
    """The asset takes files in a share of its own, by SMB 3.1.1, encrypted."""

    port: Annotated[int, *whole(1, 65535)] = Field(445, description="The port at which it takes SMB.")
    share: ShareName = Field(description="The share's name.")
    user: ShareName = Field(description="The user to log in as.")
    domain: ShareName | None = Field(None, description="The user's domain. Default: the asset's own users.")
    path: RemotePath = Field("{file}", description="Where the file goes in the share; `{file}` stands for its name.")
    secret: Name | None = Field(None, description="The name of our credential, a password. Default: the asset's name.")


class TftpSaid(notations.Entry):
    """The asset takes files by TFTP, which has neither login nor protection."""

    port: Annotated[int, *whole(1, 65535)] = Field(69, description="The port at which it takes TFTP.")
    path: RemotePath = Field("{file}", description="The file's name there; `{file}` stands for its own.")
    read_back: Yes = Field(True, description="It gives out what it took, by the same name: then its hash is compared.")


class WaySaid(notations.Entry):
    """How an asset gets its files: one of `sftp`, `smb`, `ftp`, `tftp`, `tftp_read`, `pull`, `hands`."""

    address: notations.Address | None = Field(
        None, description="The asset's address. Default: the one that it has under `assets`."
    )
    sftp: SftpSaid | None = Field(None, description="We push by SFTP.")
    smb: SmbSaid | None = Field(None, description="We push by SMB 3.1.1, encrypted, into a share of its own.")
    ftp: FtpSaid | None = Field(None, description="We push by FTP, or by FTPS where it has a `certificate`.")
    tftp: TftpSaid | None = Field(None, description="We push by TFTP. With `separation: processes` alone, so far.")
    tftp_read: RemotePath | None = Field(
        None,
        description="It reads its file by TFTP from us (`tftp` of the conduit), by its address alone: the name that it "
        "asks for, in which `{file}` stands for the file's.",
    )
    pull: Name | None = Field(
        None, description="It fetches by HTTPS itself, as this principal of its zone, with a key or a certificate."
    )
    hands: FolderName | None = Field(
        None,
        description="A technician installs it with the maker's own tool: it is laid out in this folder of the site's "
        "(`cofferdam up --folders`), for the site to give out to read only.",
    )
    rate: Annotated[int, *size(1_000, 10**10)] = Field(
        1_000_000,
        description="Bytes a second that a transfer takes at the worst; one that would not end inside its window does "
        "not start. Default: 1 MB.",
        json_schema_extra={"default": "1 MB"},
    )


class HealthSaid(notations.Entry):
    """What must hold of an asset after it got a file."""

    tcp: Annotated[int, *whole(1, 65535)] | None = Field(None, description="A TCP port that takes connections.")
    http: Page | None = Field(None, description="A page, as PORT/PATH, that answers 200 and has `says` in it.")
    file: RemotePath | None = Field(
        None, description="A file on the asset (by SFTP, SMB or FTP) that has `says` in it."
    )
    point: Name | None = Field(
        None, description="A point of the asset (under `assets`, Modbus), whose value must be within the point's own "
        "`min` and `max`."
    )  # fmt: skip
    ping: Yes = Field(False, description="It answers an ICMP echo: its network card does. `tcp` asks more.")
    person: Yes = Field(
        False, description="A person says what became of it (`cofferdam patch result`); until then the asset is `sent`."
    )
    says: Text | None = Field(
        None, description="What the page or file must have in it; `{version}` stands for the release's version."
    )
    within: Annotated[int, *span(1, DAY)] = Field(
        60, description="How long it may take. Default: 1 min.", json_schema_extra={"default": "1 min"}
    )


class UnlessSaid(notations.Entry):
    """A point that holds transfers back: production runs. Where it cannot be read, nothing begins."""

    asset: Name | None = Field(None, description="Whose point (Modbus). Default: the rule's own asset.")
    point: Name = Field(description="The point, as the asset's entry has it.")
    above: notations.Number | None = Field(None, description="Nothing begins while its value is above this.")
    below: notations.Number | None = Field(None, description="Nothing begins while its value is below this.")


class SoftwareSaid(notations.Entry):
    """What runs on an asset, by the names that its vendor's advisories have for it."""

    vendor: Texts = Field(description="The vendor, as its advisories name it, or a list of such names.")
    product: Texts = Field(
        description="The product, as its advisories name it, or a list: name, model number or stock number."
    )
    version: Text = Field(description="The version that runs.")
    scheme: Annotated[Scheme, *choice(*get_args(Scheme))] = Field(
        "intdot",
        description="How its versions compare: `intdot` (numbers between dots), `semver`, `deb`, `rpm`, `pypi`, "
        "`maven`. A version that does not compare makes the answer `unknown`.",
    )


class DutiesSaid(notations.Entry):
    """Until when advisories are answered (CIP-007-6 R2.2 and R2.3)."""

    evaluate: Annotated[int, *span(DAY, 365 * DAY)] = Field(
        35 * DAY, description="From its release to its evaluation. Default: 35 days.",
        json_schema_extra={"default": "35 days"},
    )  # fmt: skip
    plan: Annotated[int, *span(DAY, 365 * DAY)] = Field(
        35 * DAY, description="From its evaluation to its installation or an approved plan. Default: 35 days.",
        json_schema_extra={"default": "35 days"},
    )  # fmt: skip
    since: notations.Date | None = Field(
        None, description="No clock starts before this day: for advisories from before the gate."
    )


UnlessPoints = Annotated[tuple[UnlessSaid, ...], BeforeValidator(one_or_more)]


class PatchRule(schema.Rule):
    """One line of a patch relay's `allow`: who brings files in (`who`, `put`), or what goes where (`asset`,
    `install`), or what is fetched (`source`, `fetch`)."""

    who: Names = Field((), description="With `put`: the principal, or a list of them.")
    put: Names = Field((), description="Products whose files they may upload.")
    source: Name | None = Field(None, description="With `fetch`: the source.")
    fetch: Name | None = Field(None, description="The product whose files are fetched from it. Nothing else is.")
    files: Patterns = Field(
        (), description="Which files: names, with `{version}` where the version stands, and `*` for what may differ."
    )
    packages: Packages = Field((), description="From a Debian repository: which packages, by name, with `*`.")
    asset: Names = Field((), description="With `install`: the asset, or a list of them; each has its entry in `ways`.")
    install: Names = Field((), description="Products that go to these assets, once they are released.")
    ring: Name | None = Field(None, description="The ring in which these assets are. Default: the last.")
    window: schema.Windows = Field((), description="When a transfer may run. Default: always.")
    unless: UnlessPoints = Field(
        (), description="Nothing begins while this holds, such as that production runs: a point above or below a "
        "limit, or a list of such. In an emergency as well."
    )  # fmt: skip
    when_shut: Annotated[Literal["finish", "stop"], *choice("finish", "stop")] = Field(
        "finish",
        description="What becomes of a transfer that is under way when its window shuts: `finish`, or `stop`, which "
        "leaves the asset what it had, as far as its way can.",
    )
    health: HealthSaid | None = Field(None, description="What must hold after it; else the ring's threshold counts it.")
    back: Annotated[Literal["previous", "stop"], *choice("previous", "stop")] = Field(
        "stop",
        description="What happens where the health check fails: `previous` sends the file that the asset had before, "
        "`stop` leaves it to a person.",
    )

    @property
    def principals(self) -> tuple[str, ...]:
        return self.who

    @property
    def changes(self) -> bool:
        return bool(self.install)


Programs = Annotated[tuple[SoftwareSaid, ...], BeforeValidator(one_or_more)]


class PatchConduit(schema.Conduit):
    """The patch relay brings files from the less trusted side to assets: only with the maker's own signature, scanned,
    approved by several people, and in the asset's window. The part that installs believes signatures alone."""

    root: FileName = Field(
        description="The TUF root: whose signatures release a file. `cofferdam patch root new` makes it; a file beside "
        "the policy."
    )
    signatures: Annotated[int, *whole(2, 10)] = Field(2, description="How many people it takes to release a file.")
    separate: Yes = Field(
        True, description="Whoever brought a file in, or asked for its release, is none of those who release it."
    )
    products: dict[Name, ProductSaid] = Field(description="The kinds of files, by name.")
    sources: dict[Name, FileSourceSaid] = Field({}, description="Where files are fetched from, by name.")
    encrypt: Yes = Field(
        True, description="What is not released is encrypted where it lies. The key is the keeper's alone."
    )
    listen: dict[Name, DoorSaid] = Field(
        {},
        description="Where HTTP is answered, by zone: uploads in the zone `from`, assets that `pull` in the zone `to`.",
    )
    tftp: notations.Endpoint | None = Field(
        None, description="Where assets with `tftp_read` ask, ADDRESS:PORT in the zone `to`. Usually port 69."
    )
    ways: dict[Name, WaySaid] = Field({}, description="How assets get their files, by asset.")
    rings: Names = Field(("all",), description="The rings, in order: each is done before the next begins.")
    soak: dict[Name, Annotated[int, *span(0, 365 * DAY)]] = Field(
        {}, description="How long a ring rests when it is done, before the next one begins: `{test: 24 h}`."
    )
    stop_after: Annotated[int, *whole(1, 1000)] = Field(
        1, description="So many assets that failed stop a release, until a person decides."
    )
    at_once: Annotated[int, *whole(1, 100)] | None = Field(
        None, description="So many assets are changed at once, sent to or fetching, health checks included. Default: "
        "one that we send to, and any number that fetch.",
    )  # fmt: skip
    bandwidth: Annotated[int, *size(100_000, 10**10)] | None = Field(
        None, description="Bytes a second that go to all assets together. Default: as fast as they take it."
    )
    inventory: dict[Name, Programs] = Field(
        {}, description="What runs on which asset: one entry or a list of them. Advisories are matched to it."
    )
    advisories: DutiesSaid = Field(
        default_factory=DutiesSaid.model_construct, description="Until when advisories are answered."
    )
    allow: Annotated[tuple[PatchRule, ...], BeforeValidator(as_list)] = Field(
        description="The rules: who brings files in, what goes where and when."
    )
