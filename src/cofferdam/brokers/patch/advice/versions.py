"""Do versions compare, and how: by the scheme that the policy names for what runs on an asset. PURE but for univers.

A version that is not wholly of its scheme does not compare: 2.9.4 SP1 is no version of numbers between dots, and nobody
here guesses whether it comes before 2.9.4. What does not compare makes an answer "unknown".

Not here: which versions an advisory means (matching).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from univers.versions import DebianVersion, MavenVersion, PypiVersion, RpmVersion, SemverVersion

VERSION_LONGEST: Final = 100
_INTDOT: Final = re.compile(r"[vV]?\s?([0-9]{1,12}(?:\.[0-9]{1,12}){0,9})\Z")
_OTHER: Final[dict[str, tuple[re.Pattern[str], Callable[[str], Any]]]] = {
    "semver": (re.compile(r"[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?\Z"), SemverVersion),
    "deb": (re.compile(r"([0-9]+:)?[0-9][0-9A-Za-z.+~-]*\Z"), DebianVersion),
    "rpm": (re.compile(r"([0-9]+:)?[0-9A-Za-z._+~^]+(-[0-9A-Za-z._+~^]+)?\Z"), RpmVersion),
    "pypi": (re.compile(r"[0-9][0-9A-Za-z.!+-]*\Z"), PypiVersion),
    "maven": (re.compile(r"[0-9][0-9A-Za-z._-]*\Z"), MavenVersion),
}
VERS: Final = {
    "intdot": "intdot", "generic": "intdot", "semver": "semver", "npm": "semver", "golang": "semver", "cargo": "semver",
    "deb": "deb", "rpm": "rpm", "pypi": "pypi", "maven": "maven",
}  # fmt: skip
"""Schemes of `vers:`, and types of package URLs, by the scheme here."""


def parsed(text: str, scheme: str) -> Any:
    """What compares with others of the scheme, or None."""
    text = text.strip()
    if len(text) > VERSION_LONGEST:
        return None
    if scheme == "intdot":
        found = _INTDOT.match(text)
        if not found:
            return None
        numbers = [int(number) for number in found[1].split(".")]
        while len(numbers) > 1 and numbers[-1] == 0:
            numbers.pop()
        return tuple(numbers)
    form, make = _OTHER[scheme]
    if not form.match(text):
        return None
    try:
        return make(text)
    except Exception:  # univers raises what its many schemes raise
        return None


def compare(one: Any, other: Any) -> int | None:
    """-1, 0, 1; None where they do not compare."""
    if one is None or other is None:
        return None
    try:
        if one == other:
            return 0
        return -1 if one < other else 1
    except Exception:
        return None


_COMPARATOR: Final = re.compile(r"(<=|>=|!=|<|>|=)?\s*([^\s<>=!|,]+)\s*")
_WORDS: Final = re.compile(r"(?i)^\s*(all\s+)?versions?\b")
_ALL: Final = re.compile(r"(?i)^\s*(\*|vers:[a-z]+/\*|all\s+versions|all\s+versions\s*\*)\s*$")
CONSTRAINTS_MOST: Final = 200


def covers(said: str, version: str, scheme: str) -> bool | None:
    """Whether a range has a version in it: `vers:intdot/>=2.0|<2.9.4`, `<V2.9.4`, `All versions < 2.9`. None: they do
    not compare, or the range is in words that are not known here."""
    if _ALL.match(said):
        return True
    text = said
    if said.startswith("vers:"):
        kind, slash, text = said[5:].partition("/")
        if not slash or VERS.get(kind) != scheme:
            return None
    else:
        text = _WORDS.sub("", said)
    constraints = _constraints(text)
    own = parsed(version, scheme)
    if not constraints or own is None:
        return None
    return _within(constraints, own, scheme)


def _constraints(text: str) -> list[tuple[str, str]] | None:
    found: list[tuple[str, str]] = []
    parts = [part.strip() for part in re.split(r"[|,]|\band\b", text)]
    for part in parts:
        at = 0
        while at < len(part):
            one = _COMPARATOR.match(part, at)
            if one is None or len(found) >= CONSTRAINTS_MOST:
                return None
            sign, value = one[1] or "=", one[2]
            if value.lower() == "v" and at + len(one[0]) < len(part):  # "V 2.9"
                return None
            found.append((sign, value))
            at = one.end()
    return found


def _within(constraints: list[tuple[str, str]], own: Any, scheme: str) -> bool | None:
    """By pairs of bounds, as VERS has it: a lower bound opens an interval that the next upper bound ends; an upper
    bound without one begins at the first version, a lower bound without one has no end."""
    known = []
    for sign, text in constraints:
        order = compare(own, parsed(text, scheme))
        if order is None:
            return None
        if sign == "=" and order == 0:
            return True
        if sign == "!=" and order == 0:
            return False
        if sign not in ("=", "!="):
            known.append((sign, text))
    bounds = _sorted(known, scheme)
    if bounds is None:
        return None
    lower: str | None = None
    for sign, text in bounds:
        order = compare(own, parsed(text, scheme)) or 0
        if sign in (">", ">="):
            if lower is None and (order > 0 or (order == 0 and sign == ">=")):
                lower = text
            elif lower is None:
                return False  # this interval and all that follow are above
            continue
        if order < 0 or (order == 0 and sign == "<="):
            return True
        lower = None
    return lower is not None


def _sorted(bounds: list[tuple[str, str]], scheme: str) -> list[tuple[str, str]] | None:
    """By version, the least first; None where two do not compare. A few dozen at most."""
    rest, found = list(bounds), []
    while rest:
        least = rest[0]
        for one in rest[1:]:
            order = compare(parsed(one[1], scheme), parsed(least[1], scheme))
            if order is None:
                return None
            if order < 0:
                least = one
        rest.remove(least)
        found.append(least)
    return found
