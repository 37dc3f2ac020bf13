"""Two brokers in one policy: an error in one's words reads like an error in the other's, and neither's words are the
other's; both of them appear in the schema, in the reference, in plans and in slices by their terms alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cofferdam.cli.main import main
from cofferdam.enforce.plans.network import network_plan
from cofferdam.errors import PolicyError
from cofferdam.gate.crew.plan import change_crews, plan_crews
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import loads
from cofferdam.policy.problems import Problem
from cofferdam.policy.reference import json_schema, policy_reference
from cofferdam.policy.table import CompiledPolicy
from cofferdam.policy.terms.kinds import KINDS
from tests.policy.plant import NOW

POLICY = """\
site: works
zones:
  office: {side: it, interface: e0, addresses: [10.1.0.2/24]}
  plant: {side: ot, interface: e1, addresses: [10.20.0.2/24]}
assets:
  plc:
    zone: plant
    address: 10.20.0.17
    protocol: modbus
    listen: "10.1.0.2:1502"
    points:
      speed: {at: holding 200, type: uint16, min: 0, max: 1500}
principals:
  erp: {zone: office, addresses: 10.1.0.20}
  mes: {zone: plant, addresses: 10.20.0.5}
conduits:
  speeds:
    from: office
    to: plant
    broker: modbus
    owner: operations
    reason: dispatch
    expires: 2027-06-30
    allow:
      - {who: erp, asset: plc, write: speed}
  counts:
    from: plant
    to: office
    broker: relay
    owner: production
    reason: daily counts
    listen:
      plant: {at: "10.20.0.2:8443", plain: true}
      office: {at: "10.1.0.2:8443", plain: true}
    channels:
      good: {keep: 30 days}
      bad: {order: parallel 4}
    allow:
      - {who: mes, push: [good, bad]}
      - {who: erp, pull: [good, bad]}
"""


def problems(text: str) -> list[Problem]:
    with pytest.raises(PolicyError) as refused:
        loads(text)
    return [problem for problem in refused.value.problems if isinstance(problem, Problem)]


def compiled(text: str = POLICY) -> CompiledPolicy:
    return compile_policy(loads(text), now_ns=NOW)


MODBUS = "who, asset, read, write"
# What is replaced, with what; where the one finding points; what it says.
TABLE: list[tuple[str, str, str, tuple[str, ...]]] = [
    # a broker that there is not: the word, which there are, the nearest; nothing else is complained of
    ("broker: relay", "broker: relais", "relais", ('the broker "relais", expected one of modbus', "mean relay")),
    ("broker: modbus", "broker: modbuz", "modbuz", ('the broker "modbuz"', "did you mean modbus")),
    ("broker: relay", "broker: rely", "rely", ('the broker "rely"', "did you mean relay")),  # by its words
    ("broker: relay", "broker: [relay]", "[relay]", ("found a list of 1 entry", "expected a name")),
    # one broker's rule in a conduit of the other: whose word it is, and what this broker knows
    ("asset: plc, write: speed", "push: good", "push",
     ('the field "push", a word of relay, in a rule of modbus', f"expected one of {MODBUS}")),
    ("pull: [good, bad]", "read: [good, bad]", "read",
     ('the field "read", a word of modbus', "expected one of who, push, pull, browse")),
    ("    expires: 2027-06-30\n", "    channels: {a: {}}\n", "channels",
     ('the field "channels", a word of relay and diode, in a conduit of modbus', "expected one of from, to, broker")),
    # and a word of nobody's
    ("write: speed", "wirte: speed", "wirte", ('the field "wirte", expected one of who', "did you mean write")),
    ("push: [good, bad]", "psuh: [good, bad]", "psuh", ('the field "psuh", expected one of who', "did you mean push")),
    ("    channels:", "    chanels:", "chanels", ('the field "chanels", expected one of', "did you mean channels")),
    ("keep: 30 days", "kep: 30 days", "kep",
     ('the field "kep", expected one of schema, form, keep', "did you mean keep")),
    # values, names
    ("keep: 30 days", "keep: 30", "30", ("a time with its unit", '"30 days"')),
    ("order: parallel 4", "order: [4]", "[4]", ("found a list of 1 entry", "strict, or")),
    ("good: {keep: 30 days}", "good: 30 days", "30 days", ('found "30 days"', "a map")),
    ("good: {keep", "'g d': {keep", "'g d'", ('found "g d"', "a name of letters")),
    ("    owner: production\n", "", "counts:", ("conduit counts without owner", "owner: Who answers")),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "at", "says"), TABLE, ids=[f"{row[1].strip()!r:.40}" for row in TABLE])
def test_errors_of_two_brokers_read_alike(old: str, new: str, at: str, says: tuple[str, ...]) -> None:
    assert POLICY.count(old) == 1
    text = POLICY.replace(old, new)
    found = problems(text)
    first = next((one for one in found if says[0] in str(one)), None)
    assert first is not None, "\n".join(map(str, found))
    assert all(word in str(first) for word in says), first
    assert text.splitlines()[first.line - 1][first.column - 1 :].startswith(at), first
    # Nothing follows from it, but for a map whose own name is wrong: then what names it is wrong as well.
    allowed = 3 if at in ("chanels", "'g d'") else 1
    assert len(found) <= allowed, "\n".join(map(str, found))


def test_errors_in_conduits_of_both_brokers_come_in_one_go() -> None:
    text = POLICY.replace("keep: 30 days", "keep: 30").replace("asset: plc, write", "asset: plk, write")
    text = text.replace("{who: erp, pull", "{who: epr, pull").replace("parallel 4", "parallel")
    assert [(one.line, one.found) for one in problems(text)] == [
        (25, 'the asset "plk"'), (36, '"30"'), (37, '"parallel"'), (40, 'the principal "epr"'),
    ]  # fmt: skip


def test_what_a_rule_names_is_known_though_it_is_itself_wrong() -> None:
    assert [one.found for one in problems(POLICY.replace("parallel 4", "parallel"))] == ['"parallel"']


def test_the_schema_tells_brokers_apart_by_their_words() -> None:
    schema = json_schema()
    conduits = schema["properties"]["conduits"]["patternProperties"]
    kinds = [one["$ref"].rsplit("/", 1)[1] for one in next(iter(conduits.values()))["oneOf"]]
    words = [schema["$defs"][kind]["properties"]["broker"]["enum"] for kind in kinds]
    assert sorted(word for some in words for word in some) == sorted(KINDS)
    page = policy_reference()
    for word, terms in KINDS.items():
        assert f"`broker: {word}`" in page
        words_of_rule = [field.alias or name for name, field in terms.rule.model_fields.items()]
        for name in (*terms.sections, *words_of_rule):
            assert f"| `{name}` |" in page


def test_crews_of_both_brokers_and_one_firewall() -> None:
    policy = compiled()
    crews = plan_crews(policy)
    assert {name: tuple(crew.parts) for name, crew in crews.items()} == {
        "modbus/office-plant": ("outer", "inner"), "relay/office-plant": ("outer", "keeper", "inner"),
    }  # fmt: skip
    relay = crews["relay/office-plant"]
    # The outer part is the one on the less trusted side, though the conduit begins in the plant.
    assert relay.parts["outer"].place is not None
    assert relay.parts["outer"].place.side == "it"
    assert relay.parts["keeper"].place is None
    assert relay.parts["keeper"].store is not None
    assert [str(spot) for spot in relay.parts["inner"].spots] == ["10.20.0.2:8443"]
    it, ot = network_plan(policy).sides
    assert {(one.conduit, one.port, one.sources) for one in it.listens} == {
        ("speeds", 1502, ("10.1.0.20/32",)), ("counts", 8443, ("10.1.0.20/32",)),
    }  # fmt: skip
    assert {(one.conduit, one.addresses, one.sources) for one in ot.listens} == {
        ("counts", ("10.20.0.2",), ("10.20.0.5/32",))
    }
    assert {(one.conduit, one.crew, one.part) for one in ot.reaches} == {("speeds", "modbus/office-plant", "inner")}
    assert not it.reaches


def test_a_crew_with_a_store_stays_whole() -> None:
    assert "relay/office-plant" in plan_crews(compiled(), shards=4)


def test_a_relay_that_listens_elsewhere_is_started_anew_under_its_name() -> None:
    """Its store goes by its name."""
    running = plan_crews(compiled())
    moved = plan_crews(compiled(POLICY.replace('plant: {at: "10.20.0.2:8443"', 'plant: {at: "10.20.0.2:9443"')))
    change = change_crews(running, moved)
    assert [crew.name for crew in change.restart] == ["relay/office-plant"]
    assert [crew.name for crew in change.keep] == ["modbus/office-plant"]
    assert not change.start
    assert not change.stop


def test_no_part_of_a_broker_gets_the_words_of_another() -> None:
    policy = compiled()
    crews = plan_crews(policy)
    for part in ("outer", "keeper", "inner"):
        data = crews["relay/office-plant"].slice(policy, part)
        for word in (b"speeds", b"plc", b"speed", b"10.20.0.17", b"operations"):
            assert word not in data, (part, word)
        assert CompiledPolicy.from_bytes(data).hash == policy.hash
    for part in ("outer", "inner"):
        data = crews["modbus/office-plant"].slice(policy, part)
        for word in (b"counts", b"good", b"8443", b"10.20.0.5"):
            assert word not in data, (part, word)
    outer = crews["relay/office-plant"].slice(policy, "outer")
    assert b"10.20." not in outer  # neither where the plant side answers nor who comes to it


SECOND = """\
  orders:
    from: office
    to: plant
    broker: relay
    owner: planning
    reason: production orders
    listen:
      plant: {at: "10.20.0.2:8443", plain: true}
      office: {at: "AT", plain: true}
    channels:
      orders: {}
    allow:
      - {who: erp, push: orders}
      - {who: mes, pull: orders}
"""


def test_conduits_of_one_crew_may_share_a_listener_and_two_brokers_may_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compiled(POLICY + SECOND.replace("AT", "10.1.0.2:8443"))
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY + SECOND.replace("AT", "10.1.0.2:1502"))
    assert main(["check", str(file)]) == 2
    printed = capsys.readouterr()
    assert f"{file}:49:20: found 10.1.0.2 port 1502, which another crew has for plc ({file}:10:13)" in printed.err
    assert main(["check", str(file), "--json"]) == 2
    [error] = json.loads(capsys.readouterr().out)["errors"]
    assert (error["line"], error["check"]) == (49, "crew")


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["--asset", "plc", "--operation", "write speed 5", "--from", "10.1.0.20"], 0, "allowed by speeds/0"),
        (["--push", "good", "--who", "mes"], 0, "allowed by counts/0"),
        (["--push", "good", "--who", "erp"], 1, "the principal fails: erp asks to push good; mes may"),
        (["--pull", "god", "--who", "erp"], 2, "did you mean good?"),
        (["--asset", "plc", "--push", "good", "--who", "erp"], 2, "--asset, --push does not make a question"),
        (["--who", "erp"], 2, "ask with --asset NAME --operation OPERATION; --push CHANNEL"),
        (["--push", "good"], 2, "say once who is asking"),
        (["--push", "good", "--who", "epr"], 2, "did you mean erp?"),
    ],
)
def test_explain_answers_for_each_broker_in_one_form(
    argv: list[str], code: int, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY)
    assert main(["explain", str(file), "--at", "2026-11-23T09:00", *argv]) == code
    printed = capsys.readouterr()
    assert words in (printed.err if code == 2 else printed.out)
    if code != 2:
        assert main(["explain", str(file), "--at", "2026-11-23T09:00", "--json", *argv]) == code
        found = json.loads(capsys.readouterr().out)
        assert found["broker"] == ("modbus" if "--asset" in argv else "relay")
        assert found["target"] in ("plc", "good")
        assert {"allowed", "sentence", "operation", "conduit", "rule", "fault", "owner", "considered"} <= found.keys()


def test_up_says_what_would_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY)
    where = ["--state", str(tmp_path / "state")]
    assert main(["up", "--check-only", str(file), *where]) == 1, "those are no addresses of this machine"
    said = capsys.readouterr().out.splitlines()
    begin = next(number for number, line in enumerate(said) if line.startswith("crew "))
    assert "NOT READY" in said[begin + 6]
    assert said[begin : begin + 6] == [
        "crew modbus/office-plant: outer on it (office), inner on ot (plant)",
        "  10.1.0.2:1502 -> plc (10.20.0.17:502)",
        "crew relay/office-plant: outer on it (office), keeper apart, inner on ot (plant)",
        "  outer listens at 10.1.0.2:8443",
        "  inner listens at 10.20.0.2:8443",
        "  for bad, good",
    ]
    assert main(["up", "--check-only", "--json", str(file), *where]) == 1
    modbus, relay = json.loads(capsys.readouterr().out)["pairs"]
    assert modbus["assets"] == {"plc": {"listens": ["10.1.0.2:1502"], "device": ["10.20.0.17", 502]}}
    assert relay["parts"]["keeper"] == {"side": "", "listens": []}
