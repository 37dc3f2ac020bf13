"""How the command line shows the patch relay's sources, and follows one that is being fetched from.

Not here: what they are (the policy), what is fetched (brokers.patch.fetcher).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Final

from cofferdam.audit.lines import escaped

LOOK_SECONDS: Final = 0.5
START_SECONDS: Final = 60.0
"""For a source to begin, where its window is open."""


def lines(source: dict[str, Any]) -> Iterator[str]:
    """One source, for people."""
    last, good = _time(source["last"] // 10**9), _time(source["good"] // 10**9)
    following = f", next {_time(source['next'])}" if source["next"] else ""
    yield f"  source {source['source']:14} {source['kind']:6} last {last}{following}: {_state(source)}"
    if source["refused"]:
        yield f"    FAILED: {source['refused']} (last good: {good})"
    elif source["last"]:
        yield f"    {source['listed']} names, {source['named']} named by rules, {source['taken']} came"
    if source["odd"]:
        yield f"    {source['odd']}"
    for each in source["changed"]:
        yield f"    CHANGED: {each}"


def follow(args: argparse.Namespace, begun: dict[str, Any], look: Callable[[], list[dict[str, Any]]]) -> dict[str, Any]:
    """Waits until the source has been looked at, with progress on stderr. Its row then."""
    found, began, since = begun, False, time.monotonic()
    wide = 0
    while True:
        found = next((each for each in look() if each["source"] == args.source), found)
        if found["last"] != begun["last"]:
            break
        began = began or found["state"] in ("listing", "fetching")
        if not began and time.monotonic() - since > (5.0 if found["state"] == "waiting" else START_SECONDS):
            break  # its window is shut: it begins by itself
        if not args.json and sys.stderr.isatty():
            text = escaped(f"{args.source}: {_state(found)}")[:100]
            wide = max(wide, len(text))
            print(f"\r{text:{wide}}", end="", file=sys.stderr, flush=True)
        time.sleep(LOOK_SECONDS)
    if wide:
        print(f"\r{'':{wide}}\r", end="", file=sys.stderr, flush=True)
    return found


def _state(source: dict[str, Any]) -> str:
    state = str(source["state"])
    if state == "fetching":
        part = f" ({100 * source['got'] // source['size']} %)" if source["size"] else ""
        return f"fetching {source['file']}, {source['got']} bytes{part}"
    return f"{state} {source['file']}".rstrip()


def _time(second: int) -> str:
    return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%d %H:%M} UTC" if second else "never"
