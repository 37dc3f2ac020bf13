"""Structured messages to stderr: one line each, as text or JSON, with the journal's priorities where it reads them.

A field that may hold a secret is printed as <secret>, whatever its value: the list of such names is here, so that no
caller has to remember it. Messages are events with fields, not sentences, except for errors that a person must read.
"""

from __future__ import annotations

import datetime
import json
import os
import sys
import traceback
from typing import TextIO

SECRET_WORDS = ("secret", "password", "passwd", "token", "private", "psk", "credential")
"""A field whose name contains one of these is not printed."""
MAX_FIELD = 1000
"""Characters of one field."""
_PRIORITY = {"debug": 7, "info": 6, "warning": 4, "error": 3}


class Log:
    """`form` is "text" or "json". Under systemd (JOURNAL_STREAM) text lines begin with <priority>, without a time."""

    def __init__(self, form: str = "text", stream: TextIO | None = None, *, journal: bool | None = None) -> None:
        self._json = form == "json"
        self._stream = stream if stream is not None else sys.stderr
        self._journal = "JOURNAL_STREAM" in os.environ if journal is None else journal

    def info(self, event: str, **fields: object) -> None:
        self._write("info", event, fields)

    def warning(self, event: str, **fields: object) -> None:
        self._write("warning", event, fields)

    def error(self, event: str, **fields: object) -> None:
        self._write("error", event, fields)

    def trace(self, error: BaseException) -> None:
        """Where an error that nobody had thought of came from."""
        for part in traceback.format_exception(error):
            for line in part.rstrip().splitlines():
                self._write("error", "trace", {"line": line})

    def _write(self, level: str, event: str, fields: dict[str, object]) -> None:
        shown = {name: _show(name, value) for name, value in fields.items() if value is not None and value != ""}
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        if self._json:
            line = json.dumps({"time": now, "level": level, "event": event, **shown}, ensure_ascii=False)
        else:
            pairs = " ".join(f"{name}={_quote(value)}" for name, value in shown.items())
            line = f"{level:7} {event}{' ' if pairs else ''}{pairs}"
            if not self._journal:
                line = f"{now} {line}"
        if self._journal:
            line = f"<{_PRIORITY[level]}>{line}"
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            # Nobody reads our messages any more. Traffic does not depend on them; the audit log is elsewhere.
            return


def _show(name: str, value: object) -> object:
    if any(word in name.lower() for word in SECRET_WORDS):
        return "<secret>"
    if isinstance(value, bool | int | float):
        return value
    text = str(value)
    text = text if len(text) <= MAX_FIELD else text[: MAX_FIELD - 1] + "…"
    return spelled(text, lines=True)


def spelled(text: str, *, lines: bool = False) -> str:
    """A text without what a terminal would obey or not show: such characters are spelled out; with `lines` but for line
    ends and tabs."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or (lines and c in "\n\t") else f"\\u{ord(c):04x}" for c in text)


def _quote(value: object) -> str:
    text = str(value)
    if text and all(c.isprintable() and c not in ' "=' for c in text):
        return text
    return json.dumps(text, ensure_ascii=False)
