"""What a source has, by what it says itself: a page with links, a list in text, a vendor's JSON, the feeds and
directories of a CSAF provider (CSAF 2.0, 7.1.8 to 7.1.17). PURE.

Nothing of it is believed: a name is looked at by its letters, and held to the rules; a link leads to one of the
source's own servers, or nowhere. Names that are none are counted and told.

Not here: fetching (fetch_http), which names are wanted (the policy's rules).
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any, Final, NamedTuple
from urllib.parse import unquote, urlsplit

from cofferdam.errors import CofferdamError
from cofferdam.policy.terms.patch_source_rows import FILE, Mapping

LISTING_BYTES: Final = 4 << 20
NAMES_MOST: Final = 10_000
"""Of one listing. A longer one is refused: a rule names files of a product, not a whole world."""
_SUM: Final = re.compile(r"\\?(?P<hash>[0-9a-fA-F]{64}) [ *](?P<name>\S.{0,400})\Z")
_HEX: Final = re.compile(r"[0-9a-f]{64}\Z")
PUBLIC: Final = ("WHITE", "CLEAR")
"""Labels of the traffic light protocol, 1 and 2, of what is for everybody. Other feeds ask who one is."""
DISTRIBUTIONS_MOST: Final = 64
"""Feeds and directories of one CSAF provider."""


DATED: Final = ("rolie", "changes")
"""Kinds of listings that say when each file was changed, as its version."""


class BadListing(CofferdamError):
    """A listing that is refused."""


class Offer(NamedTuple):
    """A file that a source says it has. `href` leads there from the listing; `version`, `sha256`: "" where it does not
    say."""

    name: str
    href: str
    version: str = ""
    sha256: str = ""


class Listed(NamedTuple):
    """`odd`: names that are none of a file there, the first of them."""

    offers: list[Offer]
    odd: list[str]


def read(kind: str, data: bytes, mapping: Mapping | None) -> Listed:
    """Raises: BadListing."""
    if kind == "directory":
        found = _directory(data)
    elif kind == "list":
        found = _list(data)
    elif kind == "rolie":
        found = _rolie(data)
    elif kind == "changes":
        found = _changes(data)
    else:
        found = _json(data, mapping or Mapping())
    offers: dict[str, Offer] = {}
    odd: list[str] = []
    for count, offer in enumerate(found):
        if count >= NAMES_MOST:
            raise BadListing(f"a listing of more than {NAMES_MOST} names")
        if not FILE.match(offer.name) or ".." in offer.name:
            odd.append(offer.href[:80] or offer.name[:80])
            continue
        before = offers.setdefault(offer.name, offer)
        if kind in DATED:  # of several revisions the last is there
            offers[offer.name] = max(before, offer, key=lambda each: each.version)
        elif (before.sha256, before.version) != (offer.sha256, offer.version):
            raise BadListing(f"a listing with {offer.name} twice, and not the same")
    return Listed(list(offers.values()), odd)


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.found += [value for name, value in attrs if name == "href" and value]
        if len(self.found) > 2 * NAMES_MOST:
            raise BadListing(f"a listing of more than {NAMES_MOST} names")


def _directory(data: bytes) -> Iterator[Offer]:
    links = _Links()
    links.feed(data.decode("utf-8", "replace"))
    for href in links.found:
        href = href.strip()
        if href in ("../", "..", "./", ".", "/") or href[0] in "?#" or href.startswith(("mailto:", "javascript:")):
            continue  # to the folder above, or another order of the same page
        try:
            url = urlsplit(href)
        except ValueError:
            yield Offer("", href)
            continue
        path = unquote(url.path)
        if not url.scheme and not url.netloc and path.endswith("/") and not path.startswith(("/", "..")):
            continue  # a folder beneath: none of its files are looked for
        if not url.scheme and not url.netloc and path.startswith("/") and path.endswith("/"):
            continue  # the folder above, as some servers have it
        name = path.rpartition("/")[2] if url.scheme or url.netloc else path.removeprefix("./")
        yield Offer(name, href)


def _list(data: bytes) -> Iterator[Offer]:
    for line in data.decode("utf-8", "replace").splitlines():
        line = line.strip()
        if not line or line.startswith(("#", "-----")):
            continue
        found = _SUM.match(line)
        name = found["name"] if found is not None else line
        yield Offer(name.removeprefix("./"), name.removeprefix("./"), "", found["hash"].lower() if found else "")


def _json(data: bytes, mapping: Mapping) -> Iterator[Offer]:
    whole = _parsed(data)
    items = _at(whole, mapping.items) if mapping.items else whole
    if not isinstance(items, list):
        raise BadListing(f"JSON without a list at {mapping.items or 'its top'}")
    for item in items:
        href = _word(item, mapping.file)
        try:
            name = unquote(urlsplit(href).path).rpartition("/")[2] if "://" in href else href
        except ValueError:
            name = ""
        sha256 = _word(item, mapping.sha256).lower()
        if mapping.sha256 and not _HEX.match(sha256):
            name = ""  # the policy says that there is one
        yield Offer(name, href, _word(item, mapping.version), sha256 if mapping.sha256 else "")


def distributions(data: bytes) -> list[tuple[str, str]]:
    """Where a CSAF provider says that its documents are, for everybody: ("rolie", URL of a feed), or ("changes", URL of
    a directory's changes.csv) where it has no such feeds. Raises: BadListing."""
    found = _parsed(data)
    said = found.get("distributions") if isinstance(found, dict) else None
    if not isinstance(said, list):
        raise BadListing("provider metadata of CSAF without distributions")
    feeds, directories = [], []
    for one in said[:DISTRIBUTIONS_MOST]:
        entries = _at(one, "rolie.feeds")
        for feed in entries[:DISTRIBUTIONS_MOST] if isinstance(entries, list) else []:
            if _word(feed, "url") and _word(feed, "tlp_label").upper() in PUBLIC:
                feeds.append(("rolie", _word(feed, "url")))
        if directory := _word(one, "directory_url"):
            directories.append(("changes", f"{directory.rstrip('/')}/changes.csv"))
    if not feeds and not directories:
        raise BadListing("provider metadata of CSAF with no feed and no directory for everybody")
    return (feeds or directories)[:DISTRIBUTIONS_MOST]


def _rolie(data: bytes) -> Iterator[Offer]:
    """A feed (RFC 8322 in the JSON of CSAF)."""
    entries = _at(_parsed(data), "feed.entry")
    if not isinstance(entries, list):
        raise BadListing("a feed without entries")
    for entry in entries:
        links = _at(entry, "link")
        own = [_word(link, "href") for link in links if _word(link, "rel") == "self"] if isinstance(links, list) else []
        yield _dated(own[0] if own else _word(entry, "content.src"), _word(entry, "updated"))


def _changes(data: bytes) -> Iterator[Offer]:
    """changes.csv: the path of each document beneath the directory, and when it was changed last."""
    try:
        for row in csv.reader(io.StringIO(data.decode("utf-8", "replace"))):
            if row:
                yield _dated(row[0].strip(), row[1].strip() if len(row) > 1 else "")
    except csv.Error as error:
        raise BadListing(f"a listing that is no CSV: {error}") from None


def _dated(href: str, changed: str) -> Offer:
    """A document is another file each time that it is changed: its version is when."""
    try:
        name = unquote(urlsplit(href).path).rpartition("/")[2]
        at = datetime.fromisoformat(changed)
        version = (at.astimezone(UTC) if at.tzinfo is not None else at).strftime("%Y%m%dT%H%M%SZ")
    except (ValueError, OverflowError):
        return Offer("", href)
    return Offer(name, href, version)


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise BadListing("a listing that is no JSON") from None


def _at(value: Any, words: str) -> Any:
    for word in words.split("."):
        value = value.get(word) if isinstance(value, dict) else None
    return value


def _word(item: Any, words: str) -> str:
    found = _at(item, words) if words else ""
    return found[:2000] if isinstance(found, str) else ""
