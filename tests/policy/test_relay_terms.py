"""What a policy says of the relay: errors with their places, rows, needs, slices, warnings, explanations."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from cofferdam.enforce.plans.network import network_plan
from cofferdam.errors import CofferdamError, PolicyError
from cofferdam.gate.crew.plan import plan_crews
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.explain import Explanation, Question
from cofferdam.policy.lint import lint
from cofferdam.policy.load import load, loads
from cofferdam.policy.problems import Problem
from cofferdam.policy.table import CompiledPolicy
from cofferdam.policy.terms import relay_lint
from cofferdam.policy.terms.base import Scope
from cofferdam.policy.terms.kinds import KINDS
from cofferdam.policy.terms.relay import RelayTerms
from cofferdam.policy.terms.relay_rows import Limit, RelayRows, fingerprint, slice_for
from tests.brokers.relay.certificates import make
from tests.policy.messages.test_xml import XS, _pattern

NOW = 1_790_000_000 * 10**9
CA = make("erp-ca", ca=True)
FILES = {
    "count.json": b'{"type": "object", "required": ["line"], "properties": {"line": {"type": "string"}, "n": {}}}',
    "order.json": b'{"$ref": "common/order.json#/order"}',
    "common/order.json": b'{"order": {"type": "object"}}',
    "slow.json": b'{"properties":\n {"a": {"pattern": "(?=x)y"}}}',
    "erp-ca.pem": CA.pem,
    "lake.pem": make("lake").pem,
    "no.pem": b"nothing",
    "order.xsd": f"{XS}\n<xs:include schemaLocation='file:///etc/passwd'/></xs:schema>".encode(),
    "slow.xsd": _pattern("(x+x+)+y"),
    "good.xsd": f"{XS}<xs:element name='r'/></xs:schema>".encode(),
}
POLICY = """\
site: works
zones:
  office: {side: it, level: 4}
  plant: {side: ot, level: 2}
  yard: {side: ot}
principals:
  erp: {zone: office, addresses: 10.1.0.20}
  lake: {zone: office, addresses: 10.1.0.30}
  mes: {zone: plant, addresses: 10.20.0.5}
  crane: {zone: yard, addresses: 10.30.0.5}
conduits:
  counts-to-erp:
    from: plant
    to: office
    broker: relay
    owner: production
    reason: daily counts
    listen:
      plant: {at: "10.20.0.2:8443", tls: plant-2027}
      office:
        at: "10.1.0.2:8443"
        clients:
          erp: {authority: erp-ca.pem, name: erp.example.com}
          lake: {certificate: lake.pem}
    channels:
      counts: {schema: count.json, keep: 90 days, most: 5 MB}
      alarms: {order: parallel 8}
    allow:
      - {who: mes, push: [counts, alarms]}
      - {who: [erp, lake], pull: counts}
      - {who: lake, pull: alarms, browse: counts}
  orders-to-mes:
    from: office
    to: plant
    broker: relay
    owner: planning
    reason: production orders
    expires: 2027-06-30
    window: {days: mon-fri, from: "06:00", to: "18:00", zone: Europe/Paris}
    listen:
      plant: {at: "10.20.0.2:8443", tls: plant-2027}
      office: {at: "10.1.0.3:8443"}
    channels:
      orders:
        schema: order.json
        most: 1 kB
        time: /at
        fields: [/at, /line, /parts/*/count, /parts/*/article]
        others: drop
        set: {/site: works, /version: 2, /code: '"007"'}
        limits:
          /parts/*/count: {min: 0, max: 10000, max_step: 500, per_minute: 6, by: /parts/*/article}
        on_error: stop
        release: two
    allow:
      - {who: erp, push: orders}
      - {who: mes, pull: orders}
"""


def problems(text: str) -> list[Problem]:
    with pytest.raises(PolicyError) as refused:
        loads(text, files=FILES)
    return [problem for problem in refused.value.problems if isinstance(problem, Problem)]


def compiled(text: str = POLICY) -> CompiledPolicy:
    return compile_policy(loads(text, files=FILES), now_ns=NOW)


def rows(policy: CompiledPolicy, name: str) -> RelayRows:
    found = policy.conduits[name].terms
    assert isinstance(found, RelayRows)
    return found


PLANT = 'plant: {at: "10.20.0.2:8443", tls: plant-2027}'

# What is replaced in the policy by what; where the finding points; what it says.
TABLE: list[tuple[str, str, str, str, str]] = [
    ("keep: 90 days", "keep: 90", "90", "expected a time with its unit", 'did you mean "90 days"'),
    ("most: 5 MB", "most: 5 MiB", "5 MiB", "expected a size with its unit", ""),
    ("most: 5 MB", "most: 50 MB", "50 MB", "from 1 B to 20 MB", ""),
    ("order: parallel 8", "order: parallel", "parallel", "expected strict, or", ""),
    ("on_error: stop", "on_error: halt", "halt", "expected one of go-on, stop", ""),
    ("push: orders", "push: order", "order}", 'found the channel "order", expected a channel of',
     "did you mean orders"),
    ("push: orders", "pusch: orders", "pusch", 'found the field "pusch"', "did you mean push"),
    ("push: orders}", "push: orders, via: mqtt}", "mqtt", "MQTT with JSON topics or Sparkplug B", "later version"),
    ("push: orders}", "push: orders, via: odbc}", "odbc", "SQL Server, Oracle and Db2", "later version"),
    ("push: orders}", "push: orders, via: odata}", "odata", "OData", "later version"),
    ("push: orders}", "push: orders, via: post}", "post", "expected one of http, table, folder, nats", ""),
    ("{who: mes, push: [counts, alarms]}", "{who: mes}", "{who: mes}", "a rule that allows nothing", "push, pull or"),
    ("{who: mes, pull: orders}", "{who: crane, pull: orders}", "crane", "found crane of zone yard",
     "a principal of plant"),
    ("{who: erp, push: orders}", "{who: mes, push: orders}", "mes", "found mes of zone plant", "a principal of office"),
    ("{who: erp, push: orders}", "{who: erp, push: orders, pull: orders}", "erp", "found erp of zone office",
     "one rule"),
    ("to: plant\n", "to: plnat\n", "plnat", 'the zone "plnat"', "did you mean plant"),
    ("from: plant\n    to: office", "from: plant\n    to: yard", "yard", "which are both ot",
     "a zone of the other side"),
    ("schema: count.json", "schema: cuont.json", "cuont.json", '"cuont.json": there is no such file',
     "beside the policy"),
    ("schema: count.json", "schema: /etc/passwd", "/etc/passwd", "expected a file beside the policy", ""),
    ("schema: count.json", "schema: slow.json", "slow.json", "slow.json:2:20: the pattern", "no look-around"),
    ("schema: count.json", "schema: order.xsd", "order.xsd", "order.xsd:2:1: a reference to file:///etc/passwd",
     "nothing is fetched"),
    ("schema: count.json", "schema: slow.xsd", "slow.xsd", "slow.xsd:1:1: the pattern '(x+x+)+y'", "take long"),
    ("schema: count.json", "schema: count.json, form: xml", "count.json", "messages that are xml",
     "ends with .xsd"),
    ("schema: count.json", "schema: count.json, form: yaml", "yaml", "expected one of json, xml", ""),
    ("schema: count.json", "schema: good.xsd, set: {/r/a: [1]}", "[1]", "a map or a list", "a text, a number"),
    ("schema: count.json", "schema: no.pem", "no.pem", "no.pem:1:1: expecting value", "JSON, strictly"),
    ("time: /at", "time: at", "at", "expected a place in the message", 'did you mean "/at"'),
    ("time: /at", "time: /parts/*/at", "/parts/*/at", "expected one place, without *", ""),
    ("{/site: works,", "{/a/*/site: works,", "/a/*/site", "expected one place, without *", ""),
    ("min: 0, max: 10000", "min: 5, max: 1", "5", "found min 5 above max 1", ""),
    ("{min: 0, max: 10000, max_step: 500, per_minute: 6, by: /parts/*/article}", "{by: /line}", "{by: /line}",
     "a limit that limits nothing", ""),
    ("by: /parts/*/article", "by: /parts/*/a/*", "/parts/*/a/*", "which has more *", ""),
    ("      alarms: {order: parallel 8}", "      orders: {}", "orders",
     "the channel orders, which the conduit counts-to-erp has (policy.yaml:27:7)", "a name of its own"),
    ('"10.1.0.3:8443"}', '"10.1.0.3:8443", plain: true, tls: x}', "true", "found plain, and a certificate", ""),
    ('"10.1.0.3:8443"}', '"0.0.0.0:8443"}', '"0.0.0.0:8443"', "which is every address", "in the zone"),
    ('"10.1.0.3:8443"}', '"10.1.0.3:8443", plain: maybe}', "maybe", "expected true or false", ""),
    (PLANT + "\n      office:\n",
     "office:\n", "{who: mes, push", "no place to listen in plant, where mes asks by HTTP", "listen: plant"),
    (PLANT + "\n      office: {at", PLANT.replace("plant:", "plnat:") + "\n      office: {at",
     "plnat", 'found the zone "plnat"', "did you mean plant"),
    ('office: {at: "10.1.0.3:8443"', 'office: {at: "10.1.0.2:8443"', '"10.1.0.2:8443"', "has otherwise", ""),
    ("{authority: erp-ca.pem, name: erp.example.com}", "{authority: erp-ca.pem}", "erp:",
     "authority and name together", ""),
    ("{authority: erp-ca.pem, name: erp.example.com}", "{}", "erp:", "certificate, or authority and name", ""),
    ("{certificate: lake.pem}", "{certificate: no.pem}", "no.pem", "which is no certificate", ""),
    ("lake: {certificate", "mes: {certificate", "mes", "found mes of zone plant, expected a principal of office", ""),
    ("lake: {certificate", "lak: {certificate", "", 'the principal "lak"', "did you mean lake"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "at", "words", "more"), TABLE, ids=[f"{row[1]!r:.40}" for row in TABLE])
def test_an_error_points_at_its_place(old: str, new: str, at: str, words: str, more: str) -> None:
    assert old in POLICY
    text = POLICY.replace(old, new)
    found = problems(text)
    matching = [problem for problem in found if words in str(problem) and more in str(problem)]
    assert matching, "\n".join(map(str, found))
    if at and words:
        lines = [(text.splitlines()[each.line - 1][each.column - 1 :], str(each)) for each in matching]
        assert any(line.startswith(at) for line, _ in lines), lines


TABLES = POLICY.replace("push: [counts, alarms]}", "push: [counts, alarms], via: table}").replace(
    "{who: mes, pull: orders}", "{who: mes, pull: orders, via: table}"
).replace(
    "    channels:\n",
    '    tables:\n      plant: {at: "10.20.0.20:5432", database: mes}\n    channels:\n',
)  # fmt: skip
TABLE_ERRORS: list[tuple[str, str, str]] = [
    ("      plant: {at", "      yard: {at", 'found the zone "yard"'),
    ("    tables:\n      plant", "    tables:\n      office", "found no database in plant, where mes has a table"),
    ('"10.20.0.20:5432"', '"mes.example.com:5432"', "expected an address and a port"),
    ("database: mes}", "database: mes, outbox: outbox}", "expected a table as SCHEMA.TABLE"),
    ("database: mes}", "database: mes, inbox: cofferdam.outbox}", "found one table for two purposes"),
    ("database: mes}", "database: mes, changes: {count: {table: line.made}}}", "did you mean counts"),
    ("database: mes}", "database: mes, changes: {counts: {table: made}}}", "expected a table as SCHEMA.TABLE"),
    ("database: mes}", "database: mes, changes: {counts: {table: a.b, on: delete}}}", "expected insert or update"),
    ("database: mes}", "database: mes, changes: {counts: {table: a.b, on: []}}}", "expected at least one entry"),
    ("database: mes}", "database: mes, changes: {counts: {table: a.b, slot: A-1}}}", "a name of small letters"),
    ("database: mes}", "database: mes, changes: {counts: {table: cofferdam.inbox}}}", "which is the relay's own"),
    ("database: mes}", "database: mes, changes: {orders: {table: a.b}}}", "somebody of office push orders via table"),
    ("database: mes}", "database: mes, changes: {counts: {table: a.b, slot: s}, alarms: {table: a.c, slot: s}}}",
     "the slot s, which counts has"),
    ("pull: orders, via: table}", "pull: orders, via: table}\n      - {who: mes, pull: orders}", "expected one way"),
    ("alarms: {order: parallel 8}", "alarms: {order: parallel 8, form: xml}", "a table has JSON"),
    ("push: [counts, alarms], via: table}", "push: counts, browse: counts, via: table}", "a table is not browsed"),
    ("  mes: {zone: plant, addresses: 10.20.0.5}",
     "  mes: {zone: plant, addresses: 10.20.0.5}\n  pack: {zone: plant, addresses: 10.20.0.6}",
     ""),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "words"), TABLE_ERRORS)
def test_what_is_wrong_with_tables(old: str, new: str, words: str) -> None:
    assert old in TABLES
    text = TABLES.replace(old, new)
    if not words:
        text, words = text.replace("{who: mes, push", "{who: [mes, pack], push"), "who both push counts via table"
    assert any(words in str(problem) for problem in problems(text)), problems(text)


def test_tables_bring_a_part_of_their_own_that_reaches_them_and_nothing_else() -> None:
    policy = compiled(TABLES)
    needs = RelayTerms().needs(policy.conduits["counts-to-erp"], policy)
    assert list(needs.parts) == ["outer", "keeper", "inner-tables", "inner"]
    part = needs.parts["inner-tables"]
    assert part.place is not None
    assert (part.place.side, part.place.zone, part.listens, part.store) == ("ot", "plant", (), None)
    assert [(reach.zone, reach.address, reach.port) for reach in part.reaches] == [("plant", "10.20.0.20", 5432)]
    found = {reach for side in network_plan(policy).sides for reach in side.reaches}
    assert {(reach.addresses, reach.port, reach.part, reach.datagrams) for reach in found} == {
        (("10.20.0.20",), 5432, "inner-tables", False)
    }
    terms, scope = KINDS["relay"], Scope(frozenset(policy.conduits), frozenset({"counts", "alarms", "orders"}))
    inner, tables, keeper = (
        CompiledPolicy(terms.slice(policy, scope, part)) for part in ("inner", "inner-tables", "keeper")
    )
    assert b"10.20.0.20" in tables.to_bytes()
    assert b"10.20.0.20" not in inner.to_bytes() + keeper.to_bytes()
    assert not rows(tables, "counts-to-erp").doors
    assert rows(tables, "orders-to-mes").lines
    assert not rows(inner, "orders-to-mes").lines  # nobody asks for these by HTTP
    theirs = {name: rows(tables, name) for name in tables.conduits}
    ours = {name: slice_for(rows(keeper, name), {"mes"}, "table") for name in keeper.conduits}
    assert fingerprint(theirs) == fingerprint(ours)


def test_a_crew_stands_in_the_same_order_whichever_conduit_brings_a_part() -> None:
    """The outer side's further part comes by the second conduit, and still before the inner side's."""
    text = POLICY.replace("{who: erp, push: orders}", "{who: erp, push: orders, via: table}").replace(
        "    channels:\n      orders:",
        '    tables: {office: {at: "10.1.0.40:5432", database: erp}}\n    channels:\n      orders:',
    )
    (plan,) = plan_crews(compiled(text)).values()
    assert plan.name == "relay/office-plant"
    assert list(plan.parts) == ["outer", "outer-tables", "keeper", "inner"]
    assert (plan.source_zones, plan.target_zone) == (("office",), "plant")


def test_what_a_schema_refers_to_has_to_be_there() -> None:
    files = dict(FILES)
    del files["common/order.json"]
    with pytest.raises(PolicyError) as refused:
        loads(POLICY, files=files)
    (problem,) = refused.value.problems
    assert "order.json:1:10: a reference to common/order.json#/order" in str(problem)


def test_a_schema_outside_of_the_policy_is_not_read(tmp_path: Path) -> None:
    folder = tmp_path / "policy"
    (folder / "common").mkdir(parents=True)
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
    (folder / "policy.yaml").write_text(POLICY)
    load(folder)
    (tmp_path / "outside.json").write_text("{}")
    (folder / "count.json").unlink()
    (folder / "count.json").symlink_to(tmp_path / "outside.json")
    with pytest.raises(PolicyError) as refused:
        load(folder)
    assert "leads out of the policy's folder" in str(refused.value.problems[0])


def test_rows_have_all_that_travels() -> None:
    policy = compiled()
    found = rows(policy, "orders-to-mes")
    (orders,) = found.channels
    assert (orders.keep, orders.most, orders.order, orders.stamp, orders.release) == (7_776_000, 1000, 1, "/at", 2)
    assert orders.set == (("/code", '"007"'), ("/site", '"works"'), ("/version", "2"))
    assert orders.limits == (
        Limit(at="/parts/*/count", min=0, max=10000, max_step=500, per_minute=6, key="/parts/*/article"),
    )
    assert orders.fields == ("/at", "/line", "/parts/*/article", "/parts/*/count")
    assert set(found.schemas) == {"order.json", "common/order.json"}
    assert (found.outer, found.inner, found.stands) == ("office", "plant", {"erp": "office", "mes": "plant"})
    counts = rows(policy, "counts-to-erp")
    assert (counts.outer, counts.inner) == ("office", "plant")
    assert [channel.order for channel in counts.channels] == [8, 1]
    office, plant = counts.doors
    assert (office.at, office.tls, plant.at, plant.tls, plant.pins) == (
        "10.1.0.2:8443", "office", "10.20.0.2:8443", "plant-2027", (),
    )  # fmt: skip
    assert [(pin.principal, pin.name, bool(pin.public_key)) for pin in office.pins] == [
        ("erp", "erp.example.com", False), ("lake", "", True)
    ]  # fmt: skip
    assert CompiledPolicy.from_bytes(policy.to_bytes()).hash == policy.hash


def test_needs_are_a_side_each_and_a_keeper_apart() -> None:
    policy = compiled()
    terms = RelayTerms()
    needs = terms.needs(policy.conduits["counts-to-erp"], policy)
    assert list(needs.parts) == ["outer", "keeper", "inner"]
    outer, keeper, inner = needs.parts.values()
    assert outer.place is not None
    assert (outer.place.side, outer.place.zone) == ("it", "office")
    assert [(each.zone, each.address, each.port, each.who) for each in outer.listens] == [
        ("office", "10.1.0.2", 8443, ("erp", "lake"))
    ]
    assert [(each.zone, each.address, each.who) for each in inner.listens] == [("plant", "10.20.0.2", ("mes",))]
    assert keeper.place is None
    assert keeper.store is not None
    assert keeper.store.quota == 3_000_000_000
    assert not outer.reaches
    assert not inner.reaches
    other = terms.needs(policy.conduits["orders-to-mes"], policy)
    assert other.parts["outer"].place == outer.place  # whichever way messages go
    assert set(needs.apart) == {"alarms", "counts"}
    assert set(needs.apart.values()) == set(other.apart.values())


def test_a_side_gets_what_concerns_its_own_principals() -> None:
    policy = compiled()
    terms = KINDS["relay"]
    scope = Scope(frozenset(policy.conduits), frozenset({"counts", "alarms", "orders"}))
    outer, inner, keeper = (CompiledPolicy(terms.slice(policy, scope, part)) for part in ("outer", "inner", "keeper"))
    assert set(outer.principals) == {"erp", "lake"}
    assert set(inner.principals) == {"mes"}
    assert set(keeper.principals) == {"erp", "lake", "mes"}
    text = outer.to_bytes()
    for word in (b"10.20.0", b"plant-2027", b"mes\xa5", b"count.json"):
        assert word not in text, word
    assert b"plant-2027" in inner.to_bytes()
    assert b"plant-2027" not in keeper.to_bytes()
    assert b"8443" not in keeper.to_bytes()
    assert rows(inner, "counts-to-erp").schemas  # those who push have to know what is checked
    assert rows(outer, "orders-to-mes").channels[0].limits
    assert not rows(inner, "orders-to-mes").channels[0].limits
    for side in (outer, inner):
        names = set(side.principals)
        theirs = {name: rows(side, name) for name in side.conduits}
        ours = {name: slice_for(rows(keeper, name), names) for name in keeper.conduits}
        assert fingerprint(theirs) == fingerprint(ours)
        assert msgspec.json.decode(msgspec.json.encode(policy.hash)) == side.hash


def asked(source: str, wall_ns: int = 1_798_790_400 * 10**9, **said: str) -> Explanation:
    return KINDS["relay"].explain(compiled(), Question(source, said, wall_ns))


def test_explanations() -> None:
    monday = 1_798_790_400 * 10**9  # Fri 2027-01-01 08:00 UTC
    found = asked("10.1.0.20", push="orders")
    assert found.allowed
    assert found.rule == "orders-to-mes/0"
    assert "at most 6 messages of the same /parts/*/article a minute" in found.conditions
    assert found.valid_until
    body = {"at": "2027-01-01T07:59:00Z", "line": "l", "parts": [{"count": 10_000_000, "article": "a"}]}
    found = asked("10.1.0.20", push="orders", body=json.dumps(body))
    assert not found.allowed
    assert (found.fault, found.conduit) == ("value", "orders-to-mes")
    assert "10000000 is asked; 0 to 10000 is allowed (/parts/0/count, line 1 column" in found.detail
    body["parts"] = []
    assert asked("10.1.0.20", push="orders", body=json.dumps(body)).allowed
    found = asked("10.1.0.20", wall_ns=monday + 12 * 3600 * 10**9, push="orders")
    assert (found.allowed, found.fault) == (False, "window")
    found = asked("10.1.0.30", push="orders")
    assert (found.fault, found.rule, "erp may" in found.detail) == ("principal", "orders-to-mes/0", True)
    assert asked("10.9.9.9", pull="counts").fault == "principal"
    assert asked("10.1.0.30", browse="counts").allowed
    with pytest.raises(CofferdamError) as refused:
        asked("10.1.0.30", browse="cuonts")
    assert refused.value.hint == "did you mean counts?"


def test_what_makes_a_question() -> None:
    terms = KINDS["relay"]
    assert terms.asked(["push"])
    assert terms.asked(["push", "body"])
    assert terms.asked(["browse"])
    for words in ([], ["body"], ["push", "pull"], ["pull", "body"], ["asset", "operation"], ["push", "asset"]):
        assert not terms.asked(words)


DOUBLING = {
    "doubling.json": b'{"anyOf": [{"properties": {"c": {"$ref": "#"}}}, {"additionalProperties": {"$ref": "#"}}]}'
}
LINT = [
    ("{who: mes, pull: orders}", "{who: mes, browse: orders}", "idle-channel", "orders:"),
    ("{who: erp, push: orders}", "{who: erp, browse: orders}", "idle-channel", "orders:"),
    ('"10.1.0.3:8443"}', '"10.1.0.3:8443", plain: true}', "plain-http", "true"),
    ("        schema: order.json\n", "", "unchecked-channel", "orders:"),
    ("schema: order.json\n", "schema: doubling.json\n", "doubling-schema", "doubling.json"),
    ("    channels:\n      orders:",
     '    tables: {plant: {at: "10.20.0.20:5432", database: mes, plain: true}}\n    channels:\n      orders:',
     "plain-table", "true"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "check", "at"), LINT)
def test_a_warning_points_at_its_place(old: str, new: str, check: str, at: str) -> None:
    text = POLICY.replace(old, new)
    found = [problem for problem in lint(loads(text, files=FILES | DOUBLING), now_ns=NOW) if problem.check == check]
    assert [text.splitlines()[each.line - 1][each.column - 1 :].startswith(at) for each in found] == [True]
    assert {row[2] for row in LINT} == set(relay_lint.CHECKS)


def test_a_clean_policy_has_no_warnings() -> None:
    text = POLICY.replace("    reason: daily counts\n", "    reason: daily counts\n    expires: 2027-06-30\n")
    text = text.replace("  crane: {zone: yard, addresses: 10.30.0.5}\n", "").replace("  yard: {side: ot}\n", "")
    assert lint(loads(text, files=FILES | DOUBLING), now_ns=NOW) == ()


RIDES = (
    POLICY.replace(
        "  plant: {side: ot, level: 2}\n",
        "  plant: {side: ot, level: 2}\n"
        "  strand-in: {side: ot, addresses: [10.9.9.1/30], crossing: diode}\n"
        "  strand-out: {side: it, addresses: [10.9.9.2/30], crossing: diode}\n",
    ).partition("  orders-to-mes:")[0]
    + """\
  strand: {from: strand-in, to: strand-out, broker: diode, owner: it, reason: counts, carries: [counts-to-erp]}
"""
)
MACHINES = (
    RIDES.replace("office: {side: it,", "office: {side: it, machine: outside, interface: o0, addresses: [10.1.0.2/24],")
    .replace("plant: {side: ot,", "plant: {side: ot, machine: inside, interface: p0, addresses: [10.20.0.2/24],")
    .replace("strand-in: {side: ot,", "strand-in: {side: ot, machine: inside, interface: s0,")
    .replace("strand-out: {side: it,", "strand-out: {side: it, machine: outside, interface: s0,")
    .replace("  yard: {side: ot}\n", "  yard: {side: ot, machine: inside, interface: y0, addresses: [10.30.0.1/24]}\n")
)


def test_one_that_rides_has_a_keeper_at_each_end() -> None:
    conduit = compiled(RIDES).conduits["counts-to-erp"]
    assert conduit.strand == "strand"
    for machine, parts in (("inside", ["keeper", "inner"]), ("outside", ["outer", "far"])):
        policy = compiled(MACHINES).on(machine)
        (plan,) = [plan for plan in plan_crews(policy).values() if plan.broker == "relay"]
        assert sorted(plan.parts) == sorted(parts) and plan.name.endswith("/counts-to-erp"), plan.name
        for part in plan.parts:
            cut = CompiledPolicy.from_bytes(plan.slice(policy, part)).conduits["counts-to-erp"].terms
            assert isinstance(cut, RelayRows)
            who = {name for line in cut.lines for name in line.who}
            assert who <= {
                "keeper": {"mes", "strand:strand"}, "inner": {"mes"}, "outer": {"erp", "lake"},
                "far": {"mes", "erp", "lake"},
            }[part]  # fmt: skip


RIDE_ERRORS = [
    (RIDES.replace("carries: [counts-to-erp]", "carries: [counts-to-erp, counts-to-erp]"), "twice", "each rider once"),
    (RIDES.replace("counts: {schema: count.json,", "counts: {schema: count.json, on_gap: wait,")
     .replace("carries: [counts-to-erp]", "carries: [files:a], files: {a: {names: ['*']}}"),
     "on_gap", "else there are no gaps"),
    (RIDES.replace("from: plant\n    to: office", "from: office\n    to: plant")
     .replace("{who: mes, push: [counts, alarms]}", "{who: erp, push: [counts, alarms]}")
     .replace("{who: [erp, lake], pull: counts}", "{who: mes, pull: counts}")
     .replace("      - {who: lake, pull: alarms, browse: counts}\n", ""), "from", "over which nothing comes back"),
    (RIDES + POLICY.partition("conduits:\n")[2].partition("  orders-to-mes:")[2].join(["  orders-to-mes:", ""]),
     "second relay", "its channels in one"),
    (RIDES.replace("- {who: [erp, lake], pull: counts}", "- {who: lake, pull: counts, via: table}")
     .replace("    channels:\n      counts", "    tables: {office: {at: '10.1.0.9:5432', database: erp}}\n"
              "    channels:\n      counts"), "via table", "on_gap: wait"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "found", "expected"), RIDE_ERRORS, ids=["twice", "gap", "way", "second", "table"])
def test_what_cannot_ride_so_is_named(text: str, found: str, expected: str) -> None:
    said = [str(problem) for problem in problems(text)]
    assert any(expected in one for one in said), said
