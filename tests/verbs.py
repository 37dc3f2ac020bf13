"""Verbs of `cofferdam` for tests, in the process of the test.

A program that starts loads all that a verb needs, which takes several times as long as most verbs; here it is loaded
already. What a verb reads, writes and returns is the same: the arguments are parsed, errors become sentences and exit
codes, standard output is no terminal, and standard input is empty unless something is given. What is printed with
--json is held against the verb's schema (tests.json_answers).

Not here: `cofferdam up` (tests.gate.plant.Gate), and what is about the process itself: how it ends by a signal or a
closed pipe, whose it is. That starts one (tests/cli/test_main.py).
"""

from __future__ import annotations

import contextlib
import io
import sys
import threading
from pathlib import Path

from cofferdam.cli.main import main
from tests import json_answers
from tests.waiting import alone

_ALONE = threading.Lock()
"""Standard output is the whole process's."""


KERNEL = "packet-filter-programs"
"""What a proof finds of the whole host, whichever test has put it there (waiting.alone)."""


def _kernel(arguments: tuple[str | Path, ...]) -> contextlib.AbstractContextManager[None]:
    return alone(KERNEL, among=True) if arguments[:1] == ("prove",) else contextlib.nullcontext()


def cli(*arguments: str | Path, stdin: str = "") -> tuple[int, str, str]:
    """Runs `cofferdam ...`: exit code, stdout, stderr."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    with _kernel(arguments), _ALONE, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), _read(stdin):
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as ended:  # of the parser
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    said = _said(out)
    if "--json" in arguments:
        json_answers.check([str(argument) for argument in arguments], code, said)
    return code, said, _said(err)


@contextlib.contextmanager
def _read(text: str):  # type: ignore[no-untyped-def]
    before, sys.stdin = sys.stdin, io.TextIOWrapper(io.BytesIO(text.encode()), "utf-8")
    try:
        yield
    finally:
        sys.stdin = before


def _said(stream: io.TextIOWrapper) -> str:
    if stream.closed:  # by a verb whose reader has gone
        return ""
    raw = stream.buffer
    assert isinstance(raw, io.BytesIO)
    return raw.getvalue().decode()
