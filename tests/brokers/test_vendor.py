"""Functions that only a vendor knows: carried for the asset that names them, as what the engineer says they are."""

from __future__ import annotations

import pytest

from cofferdam.audit.events.access import Malformed, Refused, WriteAllowed, WriteOutcome
from cofferdam.brokers.proxy.records import Request
from cofferdam.errors import CrossingError, PolicyError
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import loads
from cofferdam.policy.table import CompiledPolicy
from cofferdam.protocols.modbus import messages as m
from cofferdam.protocols.registry import PROTOCOLS
from tests.brokers.stage import WALL, Stage, Wire, adu, exception, read

POLICY = """
site: test
zones: {{enterprise: {{side: it}}, control: {{side: ot}}}}
assets:
  plc:
    zone: control
    address: 127.0.0.1
    protocol: modbus
    listen: "127.0.0.1:502"
    {asset}
principals:
  tester: {{zone: enterprise, addresses: 127.0.0.1}}
conduits:
  main:
    {{from: enterprise, to: control, broker: modbus, owner: t, reason: t, expires: 2099-01-01,
     allow: [{{who: tester, asset: plc, registers: [holding 0-9], {rule}}}]}}
"""


def made(asset: str = "vendor_functions: [65]\n    vendor_write_functions: [90]",
         rule: str = "functions: [65], write_functions: [90]") -> CompiledPolicy:  # fmt: skip
    return compile_policy(loads(POLICY.format(asset=asset, rule=rule), name="p.yaml"), now_ns=WALL)


def asked(stage: Stage, wire: Wire) -> list[bytes]:
    stage.cross()
    return wire.take()


def test_its_bytes_go_both_ways_and_a_write_is_in_the_log_before_it_leaves() -> None:
    stage = Stage(policy=made(), auto=False)
    client = stage.client()
    client.on_data(adu(1, b"\x41" + b"x" * 252))
    stage.cross()
    device = stage.up()
    [question] = asked(stage, device)
    assert question[7:] == b"\x41" + b"x" * 252
    device.on_data(adu(int.from_bytes(question[:2], "big"), b"\x41"))
    assert asked(stage, client) == [adu(1, b"\x41")]
    client.on_data(adu(2, b"\x5a\0\2"))
    assert asked(stage, device) == [], "the entry is not on disk yet"
    stage.acknowledge()
    [question] = asked(stage, device)
    assert question[7:] == b"\x5a\0\2"
    device.on_data(adu(int.from_bytes(question[:2], "big"), b"\x5a\xfe" + b"y" * 100))
    assert asked(stage, client) == [adu(2, b"\x5a\xfe" + b"y" * 100)]
    [entry] = stage.of(WriteAllowed)
    assert (entry.function, entry.body, entry.writes) == (90, "0002", ())
    assert [one.outcome for one in stage.of(WriteOutcome)] == ["done"]


def test_an_exception_and_another_function_in_the_answer() -> None:
    stage = Stage(policy=made())
    client = stage.client()
    client.on_data(adu(1, b"\x5a\0"))
    stage.cross()
    device = stage.up()
    [question] = asked(stage, device)
    device.on_data(exception(int.from_bytes(question[:2], "big"), 0x5A, 0x81))
    assert asked(stage, client) == [exception(1, 0x5A, 0x81)]
    client.on_data(adu(2, b"\x5a\0"))
    [question] = asked(stage, device)
    device.on_data(adu(int.from_bytes(question[:2], "big"), b"\x41\0"))
    assert asked(stage, client) == [exception(2, 0x5A, 0x0B)]


def test_a_code_that_no_asset_names_or_no_rule_allows_is_refused() -> None:
    stage = Stage(policy=made(rule="functions: [65]"))
    client = stage.client()
    client.on_data(adu(1, b"\x42zz") + adu(2, b"\x5a\0"))
    assert sorted(asked(stage, client)) == [exception(1, 0x42, 1), exception(2, 0x5A, 1)]
    assert (len(stage.of(Malformed)), [one.function for one in stage.of(Refused)]) == (1, [90])


def test_a_reload_takes_one_away() -> None:
    stage = Stage(policy=made())
    client = stage.client()
    client.on_data(read(1))
    stage.cross()
    stage.up()
    less = made("", "functions: [7]")
    for half in (stage.outer, stage.inner):
        half.take_policy(less, ("plc",))
    stage.devices[-1].take()
    client.on_data(adu(2, b"\x41a"))
    assert exception(2, 0x41, 1) in asked(stage, client)


@pytest.mark.parametrize(
    ("request_", "faulty"),
    [
        (m.VendorRead(1, 90, b"\0"), False),  # a write that an owned outer half calls a read
        (m.VendorRead(1, 6, b"\0\0\0\1"), True),  # a public one, as bytes that nobody judges
        (m.VendorWrite(1, 16, b""), True),
        (m.VendorWrite(1, 65, b""), False),
    ],
    ids=repr,
)
def test_the_inner_half_believes_none_of_it(request_: m.ModbusRequest, faulty: bool) -> None:
    stage = Stage(policy=made())
    client = stage.client()
    client.on_data(read(1))
    stage.cross()
    device = stage.up()
    device.take()
    [session] = stage.inner._sessions
    if faulty:
        with pytest.raises(CrossingError):
            stage.inner.take(Request(session, 77, request_))
        return
    stage.inner.take(Request(session, 77, request_))
    assert asked(stage, device) == []
    assert [one.fault for one in stage.of(Refused)] == ["function"]


@pytest.mark.parametrize(
    ("asset", "rule", "found"),
    [
        ("vendor_functions: [16]", "functions: [7]", "function 16, which is public, expected read, write or registers"),
        ("vendor_functions: [8]", "functions: [8]", "function 8, which is public, expected functions"),
        ('vendor_functions: ["65/1"]', "functions: [7]", "function 65/1, expected 65"),
        ("vendor_functions: [65]", "write_functions: [65]", "in vendor_functions of plc, expected functions"),
        ("vendor_write_functions: [90]", "functions: [90]", "of plc, expected write_functions"),
        ("vendor_functions: [65]\n    vendor_write_functions: [65]", "functions: [65]", "to change nothing"),
        ("unit: 1", "functions: [100]", "function 100, which is not public, expected vendor_functions or"),
        ("vendor_functions: [128]", "functions: [7]", "128"),
    ],
)  # fmt: skip
def test_what_a_policy_may_not_say(asset: str, rule: str, found: str) -> None:
    with pytest.raises(PolicyError) as caught:
        made(asset, rule)
    assert found in str(caught.value.problems[0])


def test_the_machine_alone() -> None:
    """No public function can be taken for opaque, whatever an asset says; and the messages are checked as any other."""
    modbus = PROTOCOLS["modbus"]
    assert modbus.mismatch(m.VendorRead(1, 65, b""), m.VendorResponse(66, b"")) != ""
    assert modbus.mismatch(m.VendorRead(1, 65, b""), m.VendorResponse(65, b"abc")) == ""
    with pytest.raises(CrossingError, match="public"):
        modbus.check(m.VendorResponse(3, b""))
