"""`cofferdam jump recording ...`: list, show, play, export and verify what was recorded. That somebody looks stands in
the audit log before anything is shown.
"""

from __future__ import annotations

import argparse
import base64
import io
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cofferdam.errors import GateError

PAUSE_MOST = 2.0
"""Seconds of a pause in a recording that are played."""
FOLLOW_SECONDS = 0.3
LINE_MOST, LINE_SHARED = 65_536, 1_024
"""Letters of a line that are searched as one, and those that are in the next one as well: a word may lie across."""
LOG_SECONDS = 10.0
"""How long is waited for the log to sign what it has of a recording."""
YOUNG_SECONDS = 60.0
"""Between two looks at a recording that grows."""


def add(parent: Any, verb: Callable[..., argparse.ArgumentParser]) -> None:
    """The words."""
    verb("list", "recordings, the newest first", _list, "list[Recording]", parent)
    one = verb("show", "one of them: what the log says of it, and who has looked at it", _show, "Facts", parent)
    _name(one)
    one.set_defaults(log=None)
    play = verb("play", "show a recording as it was, on this terminal", _play, "", parent)
    _name(play)
    play.add_argument("--speed", type=float, default=1.0, metavar="N", help="so many times as fast (default: 1)")
    export = verb("export", "write a recording to a file (asciicast v2)", _export, "Written", parent)
    _name(export)
    export.add_argument("--output", type=Path, required=True, metavar="FILE", help="a new file, of mode 0600")
    export.add_argument("--v3", action="store_true", help="as asciicast v3: times relative, the exit as an event")
    export.add_argument("--text", action="store_true", help="what was shown, without what drives a terminal")
    export.add_argument("--raw", action="store_true", help="what a program said, as the bytes that it was")
    export.add_argument("--typed", action="store_true", help="what it was told (`opaque` rules), as the bytes")
    search = verb(
        "search",
        "which recordings showed a word; each that is looked through is in the log",
        _search,
        "list[Seen]",
        parent,
    )
    search.add_argument("word", metavar="WORD", help="the text, whatever its case")
    search.add_argument("--title", default="", metavar="WORD", help="only those whose person, asset or login has this")
    search.add_argument("--most", type=int, default=100, metavar="N", help="the newest so many (default: 100)")
    for name, text in (("hold", "keep a recording whatever the policy says"), ("release", "let it go again")):
        hold = verb(name, text, _hold, "Holding", parent)
        _name(hold)
        hold.add_argument("reason", nargs="+", metavar="WHY", help="why, for the record")
    verify = verb(
        "verify", "compare recordings with what the audit log says of them", _verify, "dict[str, list[str]]", parent
    )
    verify.add_argument("name", nargs="?", metavar="NAME", help="one recording (default: all)")
    verify.add_argument("--log", type=Path, metavar="DIR", help="the audit log (default: the gate's)")


def _name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name", metavar="NAME", help="the recording, as `list` shows it, its session, or the number of one that lives"
    )


def _recordings(args: argparse.Namespace) -> list[dict[str, Any]]:
    from cofferdam.cli.jump_asking import ask

    found: list[dict[str, Any]] = ask(args, "recordings", part="archivist")
    return found


def _list(args: argparse.Namespace) -> int:
    from cofferdam.cli.jump_asking import show, time_of

    found = _recordings(args)
    lines = [
        f"{one['name']:40} {time_of(one['began'] * 10**9)}  {one['title']}, {one['size']} bytes"
        f"{', LIVE' if one['live'] else ''}{', HELD' if one['held'] else ''}"
        for one in found
    ]
    return show(args, found, lines or ["nothing was recorded"])


def _whole(args: argparse.Namespace, name: str) -> bytes:
    """A recording's bytes, as many as there were when it was asked for."""
    from cofferdam.cli.jump_asking import ask

    pieces: list[bytes] = []
    size = 0
    while True:
        found = ask(args, "recording-read", part="archivist", name=name, offset=size)
        pieces.append(base64.b64decode(found["data"]))
        size += len(pieces[-1])
        if not pieces[-1] or size >= found["size"]:
            return b"".join(pieces)


def _find(args: argparse.Namespace) -> str:
    fitting = {str(one["name"]): one for one in _recordings(args) if args.name in _called(one)}
    if len(fitting) != 1:
        raise GateError(f"there is no recording {args.name!r}", hint="`cofferdam jump recording list` shows them")
    return next(iter(fitting))


def _called(one: dict[str, Any]) -> set[str]:
    """What a recording is called: by its file, its session, and while it grows by its session's number."""
    name = str(one["name"])
    return {name, name.partition("-")[2].removesuffix(".cast")} | ({str(one["live"])} if one["live"] else set())


def _show(args: argparse.Namespace) -> int:
    from cofferdam.brokers.jump.recording import events, header, verify
    from cofferdam.cli.jump_asking import show, time_of

    name = _find(args)
    (one,) = [one for one in _recordings(args) if one["name"] == name]
    marks, _ = _marks(args)
    used = [
        {
            "at_ns": int(entry.event["wall_ns"]),
            "by": entry.event["by"],
            "how": entry.event["how"],
            "reason": entry.event["reason"],
        }
        for entry in _log(args)
        if entry.event["kind"] == "recording-used" and entry.event["recording"] == name
    ]
    data = _whole(args, name)
    head, happened = header(data), list(events(data))
    found = {
        **one, "seconds": round(happened[-1][0], 1) if happened else 0.0, "command": str(head.get("command", "")),
        "marks": len(marks.get(name, ())), "findings": verify(io.BytesIO(data), marks.get(name, [])), "used": used,
    }  # fmt: skip
    ended = next((text for _, kind, text in reversed(happened) if kind == "x"), "")
    rows = [
        ("who", str(one["title"])),
        ("command", found["command"]),
        ("began", f"{time_of(one['began'] * 10**9)}, {found['seconds']:g} s"),
        ("end", "it lives" if one["live"] else f"status {ended}" if ended.isdigit() else ended),
        ("size", f"{one['size']} bytes{', held' if one['held'] else ''}"),
        ("in the log", f"{found['marks']} times: {'; '.join(found['findings']) or 'no findings'}"),
        *(("looked at", f"{time_of(each['at_ns'])} by {each['by']}: {each['how']} {each['reason']}") for each in used),
    ]  # fmt: skip
    show(args, found, [name, *(f"  {what:11} {said}".rstrip() for what, said in rows if said)])
    return 1 if found["findings"] else 0


def _play(args: argparse.Namespace) -> int:
    from cofferdam.brokers.jump.recording import events

    out, clean = sys.stdout, _cleaner()
    before = 0.0
    for at, kind, text in events(_whole(args, _find(args))):
        if args.speed > 0:
            time.sleep(min(PAUSE_MOST, max(0.0, at - before)) / args.speed)
        before = at
        _shows(kind, text, clean)
        out.flush()
    print()
    return 0


def follow(args: argparse.Namespace, session: str) -> int:
    """Shows a session's recording as it grows, until it ends. Raises: GateError: there is none."""
    from cofferdam.brokers.jump.recording import events
    from cofferdam.cli.jump_asking import ask

    args.name = session
    clean = _cleaner()
    name, data, size = _find(args), b"", 0
    while True:
        found = ask(args, "recording-read", part="archivist", name=name, offset=size)
        piece = base64.b64decode(found["data"])
        size += len(piece)
        whole, mark, data = (data + piece).rpartition(b"\n")
        for _, kind, text in events(
            b"\n" + whole.partition(b"\n")[2] + mark if size == len(piece) else b"\n" + whole + mark
        ):
            _shows(kind, text, clean)
            if kind == "x":
                print(f"\n[gate] it has ended: {text}")
                return 0
        sys.stdout.flush()
        if not piece:
            time.sleep(FOLLOW_SECONDS)


def _cleaner() -> Callable[[bytes], bytes]:
    """What a program without a terminal said was not cleaned for one, and this may be one."""
    from cofferdam.brokers.jump.cleaned import Cleaner

    return Cleaner().clean


def _shows(kind: str, text: str, clean: Callable[[bytes], bytes]) -> None:
    if kind == "o":
        sys.stdout.write(clean(text.encode("utf-8", "surrogateescape")).decode("utf-8", "replace"))
    elif kind == "m":
        sys.stdout.write(f"\r\n[gate] {text}\r\n")


def _export(args: argparse.Namespace) -> int:
    from cofferdam.brokers.jump.recording import events, stream
    from cofferdam.cli.jump_asking import show

    name = _find(args)
    data = _whole(args, name)
    if args.v3:
        data = _third(data)
    elif args.raw or args.typed:
        data = stream(data, "i" if args.typed else "o")
    elif args.text:
        shown = "".join(text for _, kind, text in events(data) if kind == "o")
        data = _plain(shown).encode("utf-8", "replace")
    fd = os.open(args.output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
    return show(args, {"name": name, "bytes": len(data)}, [f"{name}: {len(data)} bytes in {args.output}"])


def _third(data: bytes) -> bytes:
    """As asciicast v3. What is no text stays out: v3 has no event for it."""
    import json

    from cofferdam.brokers.jump.recording import events, header

    head = header(data)
    said: dict[str, Any] = {
        "version": 3, "term": {"cols": head["width"], "rows": head["height"], "type": head["env"]["TERM"]},
        **{name: head[name] for name in ("timestamp", "title", "command") if name in head},
    }  # fmt: skip
    lines, before = [json.dumps(said)], 0.0
    for at, kind, text in events(data):
        if kind not in ("b", "B"):
            lines.append(json.dumps([round(at - before, 6), kind, text]))
            before = at
    return ("\n".join(lines) + "\n").encode()


def _search(args: argparse.Namespace) -> int:
    from cofferdam.cli.jump_asking import show

    if args.most < 1 or not args.word:
        raise GateError("there is nothing to look for", hint="recording search WORD --most 100")
    found: list[dict[str, Any]] = []
    for one in [one for one in _recordings(args) if args.title.lower() in one["title"].lower()][: args.most]:
        last = ""
        for at, line in _seen(_whole(args, one["name"])):
            if args.word.lower() not in line.lower() or line == last:
                continue
            if last and line.startswith(last):
                found.pop()  # the same line, when there was less of it
            found.append({"name": one["name"], "title": one["title"], "at": round(at, 1), "line": line[:200]})
            last = line
    lines = [f"{one['name']} {one['at']:8.1f} s: {one['line']}" for one in found]
    return show(args, found, lines or ["nobody was shown that"])


def _seen(data: bytes) -> Iterator[tuple[float, str]]:
    """Lines that somebody saw, and when (seconds): of a terminal as they stood on its screen."""
    from cofferdam.brokers.jump.recording import events, header
    from cofferdam.protocols.terminals.screen import Screen

    head = header(data)
    if not head["env"]["TERM"]:
        shown = [(at, text) for at, kind, text in events(data) if kind == "o"]
        rest = ""
        for at, text in shown:
            *lines, rest = (rest + text.replace("\r", "\n")).split("\n")
            if len(rest) > LINE_MOST:  # no text has lines as long; each piece is not read again with all before it
                lines.append(rest)
                rest = rest[-LINE_SHARED:]
            yield from ((at, line) for whole in lines if (line := _plain(whole).strip()))
        if rest:
            yield shown[-1][0], _plain(rest).strip()
        return
    screen = Screen(head["width"], head["height"])
    for at, kind, text in events(data):
        if kind == "r":
            columns, _, rows = text.partition("x")
            screen.resize(int(columns), int(rows))
        elif kind == "o":
            screen.feed(text)
            yield from ((at, line) for line in screen.seen())


def _hold(args: argparse.Namespace) -> int:
    from cofferdam.cli.jump_asking import ask, show

    held = args.which == "hold"
    name, reason = _find(args), " ".join(args.reason)
    found = ask(args, "recording-hold", part="archivist", name=name, held=held, reason=reason)
    return show(args, found, [f"{name} is {'held' if held else 'held no more'}"])


def _plain(text: str) -> str:
    """Without escape sequences and other controls."""
    import re

    text = re.sub(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[PX^_][^\x1b]*\x1b\\|[ -/]*[0-~])", "", text)
    return "".join(letter for letter in text.replace("\r\n", "\n") if letter.isprintable() or letter in "\n\t")


def _verify(args: argparse.Namespace) -> int:
    from cofferdam.brokers.jump.recording import verify
    from cofferdam.cli.jump_asking import show

    found = {one["name"]: one for one in _recordings(args)}
    there = list(found)
    until = time.monotonic() + LOG_SECONDS
    while True:
        marks, removed = _marks(args)
        young = [name for name in there if name not in marks and time.time() - found[name]["began"] < YOUNG_SECONDS]
        if not young or time.monotonic() > until:
            break
        time.sleep(FOLLOW_SECONDS)  # the log has its entry, and has not signed it yet
    names = [_find(args)] if args.name else sorted({*there, *marks} - removed)
    findings: dict[str, list[str]] = {}
    for name in names:
        if name not in there:
            findings[name] = ["it is gone, and nothing says that it was removed"]
        else:
            findings[name] = verify(io.BytesIO(_whole(args, name)), marks.get(name, []))
    wrong = sum(map(len, findings.values()))
    lines = [f"{len(names)} recordings against the audit log: {wrong or 'no'} findings"]
    lines += [f"  {name}: {one}" for name, each in findings.items() for one in each]
    show(args, findings, lines)
    return 1 if wrong else 0


def _marks(args: argparse.Namespace) -> tuple[dict[str, list[dict[str, Any]]], set[str]]:
    """What the log says of each recording, and which were removed."""
    marks: dict[str, list[dict[str, Any]]] = {}
    removed: set[str] = set()
    for event in _entries(args):
        if event["kind"] == "recording-marked":
            marks.setdefault(event["recording"], []).append(event)
        elif event["how"] == "removed":
            removed.add(event["recording"])
        elif event["how"] == "not-removed":
            removed.discard(event["recording"])
    return marks, removed


def _entries(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    return (entry.event for entry in _log(args))


def _log(args: argparse.Namespace) -> Iterator[Any]:
    """The entries of recordings."""
    from cofferdam.audit.files import LogReader
    from cofferdam.audit.keys import find_public
    from cofferdam.audit.show import find_log, matching, wanted
    from cofferdam.cli.gate_options import state_of

    folder = find_log(args.log or state_of(args) / "audit")
    key = find_public(None, folder.parent / "keys" / "audit.pub")
    for _, entry in matching(LogReader(folder, key), wanted(["recording-marked", "recording-used"]), None):
        yield entry
