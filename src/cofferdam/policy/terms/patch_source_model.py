"""The words of the patch relay's sources in the policy file.

Not here: what is wrong between them (patch_source_checks), the rows (patch_source_rows).
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field

from cofferdam.policy import notations, schema, syntax
from cofferdam.policy.fields import FileName, as_list, choice, one_or_list, one_or_more, read_by, size, span

DAY: Final = 86_400
LISTINGS: Final = ("directory", "list", "json", "csaf")
FOLDER_NAME: Final = "^[a-z][a-z0-9-]{0,63}$"
_PATTERN: Final = re.compile(r"(?=.)(?:[A-Za-z0-9._+*-]|\{version\}){1,128}\Z")
_PACKAGE: Final = re.compile(r"[a-z0-9*][a-z0-9.+*-]{0,127}\Z")
_WORDS: Final = re.compile(r"[A-Za-z0-9_@$-]{1,64}(\.[A-Za-z0-9_@$-]{1,64}){0,7}\Z")
_SUITE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?\Z")


def _host(raw: Any) -> str:
    if isinstance(raw, str) and re.fullmatch(r"(?!-)[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63}){0,8}", raw):
        return raw.lower()
    raise syntax.Expected("the name of a server, such as downloads.vendor.example")


def _path(raw: Any) -> str:
    if isinstance(raw, str) and re.fullmatch(r"/[A-Za-z0-9._~!$&'()+,;=:@/?%-]{0,400}", raw) and ".." not in raw:
        return raw
    raise syntax.Expected("a path on the server, such as /downloads/plc/")


def _key(raw: Any) -> str:
    text = raw.replace(":", "").lower() if isinstance(raw, str) else ""
    if len(text) == 64 and not text.strip("0123456789abcdef"):
        return text
    raise syntax.Expected("the SHA-256 of the server's public key, 64 hexadecimal digits")


def _like(form: re.Pattern[str], expected: str) -> Any:
    def read(raw: Any) -> str:
        if isinstance(raw, str) and form.match(raw):
            return raw
        raise syntax.Expected(expected)

    return read


_PATTERN_ITEM = {"type": "string", "examples": ["fw-{version}.bin"]}
_PACKAGE_ITEM = {"type": "string", "examples": ["openssl", "libssl*"]}
_NAMES_ITEM = {"type": "string", "examples": ["main"]}
_pattern = _like(_PATTERN, "a file's name with {version} in it, and * for what may differ")
_package = _like(_PACKAGE, "the name of a package, with * for what may differ")
_words = _like(_WORDS, "words of the JSON with dots between them, such as release.file")
_suite = _like(_SUITE, "the name of a suite, such as bookworm-security")
_component = _like(re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z"), "a name such as main, or amd64")


def _each(read: Any, item: dict[str, Any]) -> tuple[Any, Any]:
    return BeforeValidator(lambda raw: tuple(read(one) for one in one_or_more(raw))), one_or_list(item)


HostName = Annotated[str, *read_by(_host, {"type": "string", "examples": ["downloads.vendor.example"]})]
UrlPath = Annotated[str, *read_by(_path, {"type": "string", "examples": ["/downloads/plc/"]})]
PublicKey = Annotated[str, *read_by(_key, {"type": "string", "pattern": "^[0-9a-fA-F:]{64,95}$"})]
Words = Annotated[str, *read_by(_words, {"type": "string", "examples": ["release.file"]})]
Patterns = Annotated[tuple[str, ...], *_each(_pattern, _PATTERN_ITEM)]
Packages = Annotated[tuple[str, ...], *_each(_package, _PACKAGE_ITEM)]
Components = Annotated[tuple[str, ...], *_each(_component, _NAMES_ITEM)]
Suite = Annotated[str, *read_by(_suite, {"type": "string", "examples": ["bookworm-security"]})]
FolderName = Annotated[
    str, *read_by(_like(re.compile(FOLDER_NAME), "a name of small letters"), {"type": "string", "pattern": FOLDER_NAME})
]


class ServerSaid(notations.Entry):
    """A server that is asked by HTTPS. It is known by `authority`, `key`, or both; no other certificate will do."""

    at: notations.Endpoint | None = Field(
        None,
        description="ADDRESS:PORT of the server, since no part resolves names. Where a proxy connects (`via`), it "
        "looks up `host`, and only the port counts (default: 443).",
    )
    host: HostName | None = Field(
        None, description="Its name: what its certificate is for, and what it is asked as. Default: its address."
    )
    authority: FileName | None = Field(
        None, description="The authority that signs its certificate, a PEM file beside the policy."
    )
    key: PublicKey | None = Field(None, description="The SHA-256 of its public key, in hexadecimal.")


Servers = Annotated[tuple[ServerSaid, ...], BeforeValidator(as_list)]


class MappingSaid(notations.Entry):
    """Where a vendor's JSON has what is needed, each as words with dots between them."""

    items: Words | None = Field(None, description="Leads to the list of files. Default: the JSON is that list.")
    file: Words = Field("file", description="In an entry of the list: the file's name, or its URL.")
    version: Words | None = Field(None, description="Its version, where the file's name does not have it.")
    sha256: Words | None = Field(None, description="Its SHA-256, which what comes is held to.")


class HttpsSaid(ServerSaid):
    """Files that a server offers by HTTPS."""

    path: UrlPath = Field("/", description="The directory, or the list of files.")
    listing: Annotated[Literal["directory", "list", "json", "csaf"], *choice(*LISTINGS)] = Field(
        "directory",
        description="What lies at `path`: `directory`, a page with links; `list`, a text with a name in each line, "
        "or with SHA-256 and name as `sha256sum` writes it; `json`, a vendor's JSON; `csaf`, a CSAF provider's "
        "provider-metadata.json, whose public feeds (ROLIE) or directories list its documents.",
    )
    since: notations.Date | None = Field(
        None, description="With `listing: csaf`: documents that were changed on this day (UTC) or later. Default: all."
    )
    json_: MappingSaid | None = Field(None, alias="json", description="With `listing: json`: where it has what.")
    also: Servers = Field(
        (), description="Further servers, to which the first may lead (by a redirect, a link or a URL). No others."
    )


class AptSaid(ServerSaid):
    """A Debian repository, of which snapshots are taken: the index as the vendor has signed it, and the packages that
    rules name."""

    path: UrlPath = Field("/debian", description="Where `dists` and `pool` are; for a snapshot by date, with the date.")
    suite: Suite = Field(description="The suite, as the vendor's `sources.list` has it.")
    components: Components = Field(("main",), description="Its components, as the vendor names them.")
    architectures: Components = Field(("amd64",), description="The architectures of the assets.")
    also: Servers = Field((), description="Further servers, to which the first may redirect.")


class FileSourceSaid(notations.Entry):
    """Where files come from by themselves: one of `https`, `apt`, `folder`."""

    https: HttpsSaid | None = Field(None, description="Files that a server offers by HTTPS.")
    apt: AptSaid | None = Field(None, description="Snapshots of a Debian repository.")
    folder: FolderName | None = Field(
        None,
        description="A folder of the site's in which files are left: its name beneath the directory of the site's "
        "folders (`cofferdam up --folders`).",
    )
    via: notations.Endpoint | None = Field(
        None, description="A proxy of the site's (CONNECT) through which the servers are reached, by their names."
    )
    every: Annotated[int, *span(60, 90 * DAY)] = Field(
        21_600, description="How often the source is looked at. Default: 6 h.", json_schema_extra={"default": "6 h"}
    )
    window: schema.Windows = Field((), description="When it may be fetched from. Default: always.")
    rate: Annotated[int, *size(1_000, 10**10)] = Field(
        10_000_000, description="Bytes a second at the most. Default: 10 MB.", json_schema_extra={"default": "10 MB"}
    )
