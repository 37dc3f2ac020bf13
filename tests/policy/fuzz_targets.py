"""Fuzz targets: policy files and compiled policies of any content."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path

import msgspec

from cofferdam.errors import PolicyError
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import loads
from cofferdam.policy.messages.checked import Checked
from cofferdam.policy.messages.checking import Checks
from cofferdam.policy.messages.json_many import ODD, read_lines, read_lines_again
from cofferdam.policy.messages.json_reading import NotJson, canonical, read, read_again
from cofferdam.policy.messages.xml_reading import NotXml, canonical_xml, read_xml
from cofferdam.policy.problems import Problem
from cofferdam.policy.table import CompiledPolicy
from cofferdam.policy.terms.relay_rows import Channel, Limit, Relay, RelayRows
from tests.fuzz.engine import Target

NOW = 1_800_000_000_000_000_000
EXAMPLE = Path(__file__).parents[2] / "examples" / "riverside-water.yaml"


def _text(data: bytes) -> Hashable:
    try:
        loaded = loads(data.decode("utf-8", "surrogateescape"))
    except PolicyError as error:
        kinds = {problem.check for problem in error.problems if isinstance(problem, Problem)}
        return "refused", frozenset(kinds), min(len(error.problems), 4)
    compiled = compile_policy(loaded, now_ns=NOW)
    if CompiledPolicy.from_bytes(compiled.to_bytes()).hash != compiled.hash:
        raise ValueError("a policy that changes on its way to a half")
    return len(compiled.conduits), len(compiled.assets)


def _compiled(data: bytes) -> Hashable:
    try:
        policy = CompiledPolicy.from_bytes(data)
    except PolicyError as error:
        return str(error)[:48]
    return len(policy.assets)


def _json(data: bytes) -> Hashable:
    """A message: read or refused; what is read has one form, which is read again as itself."""
    try:
        value, _ = read(data)
    except NotJson as error:
        return error.words[:12], bool(error.pointer)
    form = canonical(value)
    if repr(read_again(form)) != repr(read(form)[0]) or canonical(read_again(form)) != form:
        raise ValueError("a form that is not its own")
    return type(value).__name__, len(form) > 40


def _json_lines(data: bytes) -> Hashable:
    """Messages in lines, read together: each is what it is by itself, or is to be read by itself."""
    lines = data.split(b"\n")
    found = read_lines(lines)
    usual = 0
    for line, value in zip(lines, found[0] if found is not None else [], strict=False):
        if value is not ODD:
            usual += 1
            if repr(read(line)[0]) != repr(value):
                raise ValueError("together it is another value")
    again = read_lines_again(lines)
    if again is not None and list(map(canonical, again)) != lines:
        raise ValueError("a form that is not its own")
    return found is None, min(usual, 4), again is None


LIMITS = (Limit(at="/n", min=0, max=9, max_step=1, per_minute=3, key="/k"), Limit(at="/a/*/n", max=5, key="/a/*/k"))
CHECKS = Checks(Relay([("c", RelayRows(
    channels=(
        Channel(name="schema", schema="s.json", limits=LIMITS, stamp="/t"),
        Channel(name="fields", fields=("/n", "/a/*/n", "/k"), others="drop", set=(("/s/t", "1"),)),
    ),
    schemas={"s.json": b'{"properties": {"t": {"format": "date-time"}, "k": {"pattern": "^(a+)+$"}}}'},
))]))  # fmt: skip


def _message(data: bytes) -> Hashable:
    """A channel's checks: passed or refused, and what passes passes again unchanged."""
    seen: set[Hashable] = set()
    for channel in ("schema", "fields"):
        found = CHECKS(channel, data)
        if isinstance(found, Checked):
            if CHECKS(channel, found.body) != found or CHECKS.again(channel, found.body) != found:
                raise ValueError("what passed does not pass again")
            seen.add((channel, len(found.steps)))
        else:
            msgspec.convert(msgspec.to_builtins(found), type(found))
            seen.add((channel, found.fault, bool(found.place)))
    return frozenset(seen)


def _xml(data: bytes) -> Hashable:
    """A message in XML: read or refused; what is read has one form, which is read again as itself."""
    try:
        form = canonical_xml(read_xml(data))
    except NotXml as error:
        return error.words[:12]
    if canonical_xml(read_xml(form)) != form:
        raise ValueError("a form that is not its own")
    found = XML_CHECKS("x", data)
    if isinstance(found, Checked) and XML_CHECKS.again("x", found.body) != found:
        raise ValueError("what passed does not pass again")
    return "passed" if isinstance(found, Checked) else found.fault


XML_CHECKS = Checks(Relay([("c", RelayRows(
    channels=(Channel(
        name="x", form="xml", fields=("/r/a", "/r/@n"), others="drop", set=(("/r/s", "1"),),
        limits=(Limit(at="/r/a", max=5, max_step=1, key="/r/@n"),),
    ),)
))]))  # fmt: skip
XML = b"<?xml version='1.0' encoding='UTF-8'?><r n='1' xmlns:p='urn:p'><!-- c --><a>1</a><p:b><![CDATA[x]]></p:b></r>"
XML_WORDS = (
    b"<!DOCTYPE r>",
    b"<?p?>",
    b"<a>",
    b"</a>",
    b"&#x0;",
    b"xmlns='u'",
    b"xml:space='preserve'",
    b"]]>",
    b"xml:id='1'",
)
MESSAGE = b'{"n": 1.5, "k": "aab", "a": [{"n": 1, "k": [1]}, {"n": "x"}], "t": "2026-01-01T00:00:00.5+01:00"}'
WORDS = (
    b'"n"',
    b'"a"',
    b"1e400",
    b"\\u0000",
    b"\\ud800",
    b"18446744073709551616",
    b"[[[[[[[[",
    b"-0.0",
    b'{"a":1,"a":2}',
)

TARGETS = [
    Target("policy-text", lambda: [EXAMPLE.read_bytes()], _text, tokens=(b"*a", b"&a ", b"<<: ", b"? ", b"!!")),
    Target(
        "policy-compiled", lambda: [compile_policy(loads(EXAMPLE.read_text()), now_ns=NOW).to_bytes()], _compiled,
        max_bytes=16384,
    ),
    Target("message-xml", lambda: [XML], _xml, tokens=XML_WORDS),
    Target("message-json", lambda: [MESSAGE, b"[1e20,-1.5e-7]"], _json, tokens=WORDS),
    Target("message-lines", lambda: [MESSAGE + b"\n" + MESSAGE, b"1\n[2.5]\nnull"], _json_lines, tokens=WORDS),
    Target("message-checks", lambda: [MESSAGE, b'{"n":3,"k":"a"}'], _message, tokens=WORDS),
]  # fmt: skip
