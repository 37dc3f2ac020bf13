"""Whatever a policy's text is, it loads or is refused with problems that have places: never another exception."""

from __future__ import annotations

from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st

from cofferdam.errors import PolicyError
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.lint import lint
from cofferdam.policy.load import loads
from cofferdam.policy.problems import Problem
from tests.examples import examples
from tests.policy.plant import BASE, NOW, conduit

EXTRA = (
    "expires: 2027-06-30\nwindow: [{from: 22:00, to: 06:00, zone: Europe/Paris}]\nlatency_budget: 1.5 ms\ndeny: silent"
)
RELAY = """\
  counts:
    from: plant
    to: office
    broker: relay
    owner: someone
    reason: a test
    listen: {plant: {at: "10.20.0.2:8443", plain: true}, office: {at: "10.1.0.2:8443", plain: true}}
    channels:
      good: {keep: 30 days, order: parallel 4, fields: /line, set: {/site: works}, limits: {/n: {max: 5, by: /line}}}
    allow: [{who: mes, push: good}, {who: erp, pull: good, browse: [good]}]
"""
GOOD = (
    BASE.replace("conduits:\n", "  mes: {zone: plant, addresses: 10.20.0.5}\nconduits:\n")
    + RELAY
    + conduit("{who: [erp, ops], asset: plc, read: all, write: [speed], functions: [8]}", extra=EXTRA)
    + conduit("{who: erp, asset: plc, registers: [holding 0-9], write_registers: coil 0}", name="d")
    + 'limits: {client_outstanding: 4}\ngate: {management: "127.0.0.1:9464"}\naudit: {reads: allow}\n'
)


def attempt(text: str) -> bool:
    """Whether a text loads. Fails on any exception but PolicyError, and on problems without a place in the text."""
    try:
        loaded = loads(text)
        compiled = compile_policy(loaded, now_ns=NOW)
    except PolicyError as error:
        assert error.problems
        lines = (
            text.count("\n") + text.count("\r") + text.count("\x85") + text.count("\u2028") + text.count("\u2029") + 2
        )
        for problem in error.problems:
            assert isinstance(problem, Problem)
            assert 1 <= problem.line <= lines
            assert problem.column >= 1
            assert problem.found
            assert problem.expected
        return False
    assert compiled.to_bytes()
    lint(loaded, now_ns=NOW)
    return True


def test_the_starting_point_loads() -> None:
    assert attempt(GOOD)


PUNCTUATION = ["[", "]", "{", "}", ":", ": ", "\n", "  ", "&a ", "*a", "<<: ", "-", "0", "!t "]


@examples(400)
@given(
    st.lists(
        st.tuples(
            st.integers(0, len(GOOD)), st.integers(0, 12),
            st.text(max_size=3) | st.sampled_from(PUNCTUATION),
        ),
        min_size=1, max_size=3,
    )
)  # fmt: skip
def test_mutated_text(edits: list[tuple[int, int, str]]) -> None:
    text = GOOD
    for at, cut, put in edits:
        text = text[:at] + put + text[at + cut :]
    attempt(text)


TREE: Any = yaml.safe_load(
    GOOD.replace("06:00", '"06:00"').replace("22:00", '"22:00"').replace("2027-06-30", '"2027-06-30"')
)


def paths(part: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [here] if here else []
    for key, value in part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ():
        found += paths(value, (*here, key))
    return found


def changed(part: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    copy = dict(part) if isinstance(part, dict) else list(part)
    copy[path[0]] = changed(part[path[0]], path[1:], value)
    return copy


FIELDS = ["at", "zone", "type", "who", "x", "from", "allow", "points", "channels", "push", "broker", "[key]"]
anything = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 70000) | st.floats(allow_nan=True) | st.text(max_size=5)
    | st.sampled_from(["all", "plc", "erp", "office", "holding 5", "any", "speed", "relay", "modbus", "good"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


SMALL: Any = {
    "site": "works",
    "zones": TREE["zones"],
    "principals": TREE["principals"],
    "conduits": {"counts": TREE["conduits"]["counts"]},
}


def dumped(tree: Any) -> str:
    """As YAML; by libyaml where it is there, since that takes most of the time otherwise."""
    return str(yaml.dump(tree, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), sort_keys=False))


def test_every_part_replaced_by_every_kind_of_value() -> None:
    kinds: list[Any] = [
        None,
        "x",
        5,
        -1.5,
        [],
        {},
        [[]],
        [None],
        {"x": 1},
        {"x": {"x": 1}},
        ["x", {"x": []}],
        "all",
        {"[key]": 1},
    ]
    rest = {**TREE, "conduits": {name: TREE["conduits"][name] for name in ("c", "d")}}
    for tree, chosen in ((rest, paths(rest)), (SMALL, paths(SMALL["conduits"], ("conduits",)))):
        for path in chosen:
            for value in kinds:
                attempt(dumped(changed(tree, path, value)))


@examples(250)
@given(st.lists(st.tuples(st.sampled_from(paths(TREE)), anything), min_size=1, max_size=3))
def test_parts_replaced_at_random(edits: list[tuple[tuple[Any, ...], Any]]) -> None:
    tree = TREE
    for path, value in edits:
        try:
            tree = changed(tree, path, value)
        except (KeyError, IndexError, TypeError):
            continue  # an earlier edit took the place away
    attempt(dumped(tree))
