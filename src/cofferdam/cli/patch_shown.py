"""What an approver is shown before signing: what the signature is over, in words made from that alone, and where the
file then goes.

Not here: signing (patch).
"""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from cofferdam.audit.lines import escaped
from cofferdam.cli.patch_asking import time_of
from cofferdam.errors import GateError

if TYPE_CHECKING:
    from cofferdam.brokers.patch.records import Custom

ASSETS: Final = 8
"""That are named where there may be many."""
ADVISORIES: Final = 8
"""That an approver is shown: more would take what is signed off the screen."""
TITLE: Final = 60
WIDTH: Final = 64
"""Of what others wrote, in a row: a terminal breaks none, and no row of it begins where one of ours does."""
ALWAYS: Final = "at any time"
WEEKS: Final = 4
"""As far as the installer tells of windows."""


def shown(signed: Any, number: int, believed: dict[str, str], *, besides: bool = False) -> Iterator[str]:
    """What a signature over these targets says, in words made from the targets alone. `believed`: what the installer
    has as released now, by its own word. A signature is over the whole list, so that all that is new in it is shown;
    more than the one file is not signed: the keeper, which makes the list, may have been taken over."""
    import msgspec

    from cofferdam.brokers.patch.records import SHORT, Release

    try:
        found = [
            msgspec.convert({"path": path, "size": target.length, "sha256": target.hashes.get("sha256"),
                             "custom": target.custom}, Release)
            for path, target in signed.targets.items()
        ]  # fmt: skip
    except msgspec.ValidationError as error:
        raise GateError(f"the metadata is not what a keeper writes: {error}", hint="do not sign it") from None
    mine = next((each for each in found if each.custom.number == number), None)
    if mine is None:
        raise GateError(f"the metadata has no file {number}: do not sign it")
    others = [each for each in found if each is not mine]
    hidden = [each for each in others if believed.get(each.path) != each.digest[:SHORT]]
    if (hidden and not besides) or signed.delegations is not None:
        raise GateError(
            f"the metadata releases more than file {number}, which the installer does not know: "
            f"{', '.join(sorted(each.path for each in hidden)[:5])}",
            hint="do not sign it; right after another release, look again in a moment. Where the installer lost what "
            "it believed: --besides, once you know each of them",
        )
    custom = mine.custom
    yield f"You release {mine.path}"
    yield f"  length      {mine.size} bytes"
    yield f"  SHA-256     {mine.sha256}"
    yield from _row("origin", custom.origin)
    yield from _row("scan", custom.scan)
    yield from _row("brought in", " and ".join(_brought(custom)))
    yield from _row("asked for", f"by {custom.requested_by}, {_asked_at(custom)}")
    if custom.emergency:
        yield "  EMERGENCY   outside windows and without rest between rings"
    if custom.reason:
        yield from _row("reason", custom.reason)
    for each in hidden:
        how = ", EMERGENCY" if each.custom.emergency else ""
        yield f"  AND ALSO    {each.path}, SHA-256 {each.sha256}, from {each.custom.uploaded_by}{how}"
    for gone in sorted(believed.keys() - {each.path for each in found}):
        yield f"  TAKEN BACK  {gone}"
    yield f"  targets     {signed.version}, good until {signed.expires:%Y-%m-%d}; released besides, as before:"
    for other in sorted(others, key=lambda each: each.path):
        yield f"    {other.path} {other.sha256[:16]}…"


def goes_to(signed: Any, number: int, plan: dict[str, Any], advisories: Iterable[dict[str, Any]] = ()) -> Iterator[str]:
    """Where a file goes once it is released, and when, by the installer's policy, and which advisories wait for an
    answer there, by the keeper's word: what the signature does not say."""
    mine = next(each.custom for each in signed.targets.values() if each.custom and each.custom.get("number") == number)
    by_windows: dict[tuple[str, tuple[tuple[int, int], ...]], list[str]] = {}
    for row in plan["assets"]:
        if row["product"] == mine["product"]:
            when = tuple((start, stop) for start, stop in row["windows"])
            by_windows.setdefault((row["ring"], when), []).append(row["asset"])
    yield "By the policy it goes to" + ("" if by_windows else " no asset")
    for (ring, when), assets in by_windows.items():
        yield f"  ring {ring}: {', '.join(assets)}"
        if mine.get("emergency"):
            continue
        for start, stop in when:
            yield f"    {window(start, stop)}"
        if not when:
            yield "    no window within four weeks"
    concerned = {asset for each in by_windows.values() for asset in each}
    waits = [
        (clock["due"], f"advisory {each['advisory']} ({_title(each['title'])}) {due(clock)} for {_some(mine_of)}")
        for each in advisories for clock in each["clocks"]
        if (mine_of := sorted(concerned.intersection(clock["assets"])))
    ]  # fmt: skip
    for _, line in sorted(waits)[:ADVISORIES]:
        yield f"  {line}"
    if len(waits) > ADVISORIES:
        yield f"  and {len(waits) - ADVISORIES} more that are due later: `cofferdam patch advisories`"


def _brought(custom: Custom) -> Iterator[str]:
    """Who brought it in, as the installer will check it."""
    words = custom.brought or ()
    for each in words:
        yield f"by {each.who} ({each.did}, {time_of(each.at * 10**9)})"
    if custom.uploaded_by not in (each.who for each in words):
        yield f"by {custom.uploaded_by}; nobody saw who that was"


def _asked_at(custom: Custom) -> str:
    """When that was seen. The keeper's own word for it is `at`, of whenever it made this list."""
    return time_of(custom.asked.at * 10**9) if custom.asked else custom.at


def _row(label: str, text: str) -> Iterator[str]:
    """What others wrote, in rows that are told from ours."""
    plain = escaped(" ".join(text.split()))
    lines = textwrap.wrap(plain, WIDTH if plain.isascii() else WIDTH // 2) or [""]
    yield f"  {label:12}{lines[0]}"
    for line in lines[1:]:
        yield f"{'':14}{line}"


def _title(text: str) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= TITLE else f"{plain[: TITLE - 1]}…"


def _some(assets: list[str]) -> str:
    more = f" and {len(assets) - ASSETS} more" if len(assets) > ASSETS else ""
    return f"{', '.join(assets[:ASSETS])}{more}"


def due(clock: dict[str, Any]) -> str:
    """A clock of an advisory, in words."""
    return f"{clock['clock']} by {clock['due']}{', OVERDUE,' if clock['overdue'] else ''}"


def waiting(keeper: dict[str, Any]) -> Iterator[str]:
    """For `status`: what waits for signatures; and of advisories how many stand where, and what is due first."""
    if pending := keeper["pending"]:
        what = "EMERGENCY, waiting" if pending["emergency"] else "waiting"
        signed = ", ".join(pending["signed"]) or "nobody yet"
        yield f"{what} for signatures: {pending['number']} {pending['file']}, asked by {pending['by']}"
        if pending["reason"]:
            yield f"  reason: {pending['reason']}"
        yield f"  signed by {signed}; {pending['needs']} are needed: `cofferdam patch approve {pending['number']}`"
    if not keeper["advisories"]:
        return
    counts = ", ".join(f"{count} {state}" for state, count in keeper["advisories"].items())
    soonest = keeper["soonest"]
    first = f"; first due: {soonest['advisory']}, {due(soonest)} for " if soonest else ""
    names = ", ".join(soonest["assets"][:ASSETS]) or "assets that it does not name" if soonest else ""
    more = f" and {len(soonest['assets']) - ASSETS} more" if soonest and len(soonest["assets"]) > ASSETS else ""
    yield f"advisories: {counts}{first}{names}{more}"


def under_way(installer: dict[str, Any]) -> Iterator[str]:
    """For `status`: what goes out now, and how far it is."""
    sizes = {(each["product"], each["version"]): each["size"] for each in installer["releases"]}
    has = {(each["asset"], each["product"]): each["has"] for each in installer["assets"]}
    for each in installer["under_way"]:
        size = sizes.get((each["product"], has.get((each["asset"], each["product"]), "")), 0)
        part = f" of {size} ({min(100, 100 * each['sent'] // size)} %)" if size else ""
        yield f"under way: {each['product']} to {each['asset']}, {each['sent']}{part} bytes"


def window(start: int, stop: int) -> str:
    """One of an asset's, in words."""
    if stop - start >= WEEKS * 7 * 86_400 * 10**9:
        return ALWAYS
    return f"window {time_of(start)} to {time_of(stop)}"


def next_window(row: dict[str, Any], emergencies: Collection[int] = ()) -> str:
    """Of an asset that waits for a release: its next window, "" where it has what it is to get, or may always, as it
    may in an emergency (numbers of releases)."""
    if not row["release"] or row["number"] in emergencies or (row["state"] == "done" and row["has"] == row["release"]):
        return ""
    if not row["windows"]:
        return "no window within four weeks"
    return f"next {window(*row['windows'][0])}".removeprefix(f"next {ALWAYS}")
