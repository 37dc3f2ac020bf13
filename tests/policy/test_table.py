"""Compiled policies: over the pipe and back, their hash, what from_bytes refuses, what halves must not import."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest

from cofferdam.errors import PolicyError
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import loads
from cofferdam.policy.rows import FORMAT, Clock
from cofferdam.policy.table import CompiledPolicy
from tests.policy.plant import BASE, NOW, conduit, policy

EXTRA = "expires: 2027-06-30\nwindow: {from: 22:00, to: 06:00, zone: Europe/Paris}\nlatency_budget: 1.5 ms"
FULL = conduit("{who: [erp, ops], asset: plc, read: all, write: all, functions: 8}", extra=EXTRA)
YEAR = 366 * 86400 * 10**9


def test_over_the_pipe_and_back() -> None:
    compiled = policy(FULL)
    again = CompiledPolicy.from_bytes(compiled.to_bytes())
    assert again.table == compiled.table
    assert again.to_bytes() == compiled.to_bytes()
    assert again.hash == compiled.hash
    assert again.conduits["c"].latency_budget_us == 1500
    assert again.assets["plc"].listen == ("127.0.0.1", 1502)
    assert again.limits == compiled.limits
    assert {p.name for p in again.assets["plc"].points} == {p.name for p in compiled.assets["plc"].points}


def test_the_hash_is_of_what_the_policy_says() -> None:
    compiled = policy(FULL)
    # The same from another day, in another order, in block style, with a comment, with a default spelt out.
    assert policy(FULL, NOW + YEAR).hash == compiled.hash
    assert policy(FULL, NOW + YEAR).table.clocks != compiled.table.clocks
    text = BASE.replace("  erp: {zone: office, addresses: 10.1.0.20}\n", "") + FULL
    reordered = text.replace(
        "conduits:\n", "  erp:\n    addresses: [10.1.0.20/32] # the same\n    zone: office\nconduits:\n"
    )
    assert compile_policy(loads(reordered), now_ns=NOW).hash == compiled.hash
    spelt = BASE.replace("    unit: 1\n", "    unit: 1\n    timeout: 1000 ms\n    connections: 1\n") + FULL
    assert compile_policy(loads(spelt), now_ns=NOW).hash == compiled.hash


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("max: 1500", "max: 1501"), ("10.1.0.20", "10.1.0.21"), ("2027-06-30", "2027-07-01"),
        ("side: it", "side: it, level: 4"),
        ("reason: a test", "reason: the test"), ("22:00", "22:01"), ("unit: 1", "unit: 2"), ("read: all", "read: flow"),
        ("1.5 ms", "2 ms"), ("site: works", "site: work"), ("Europe/Paris", "Europe/Berlin"),
        ("functions: 8", "functions: 7"),
    ],
)  # fmt: skip
def test_the_hash_notices_every_change(old: str, new: str) -> None:
    text = BASE + FULL
    assert old in text
    changed = compile_policy(loads(text.replace(old, new, 1)), now_ns=NOW)
    assert changed.hash != policy(FULL).hash


def test_the_hash_is_the_same_in_every_process() -> None:
    code = (
        "import sys\nfrom cofferdam.policy.load import loads\nfrom cofferdam.policy.compile import compile_policy\n"
        f"print(compile_policy(loads(sys.stdin.read()), now_ns={NOW}).hash)"
    )
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code], input=BASE + FULL, capture_output=True, text=True, check=True,
            env={"PYTHONHASHSEED": seed},
        )  # fmt: skip
        assert done.stdout.strip() == policy(FULL).hash


def test_from_bytes_refuses_what_to_bytes_would_not_write() -> None:
    compiled = policy(FULL)
    data, table = compiled.to_bytes(), compiled.table
    decoded = msgspec.msgpack.decode(data)
    clock = table.clocks["Europe/Paris"]
    changes: list[dict[str, object]] = [
        {"format": FORMAT + 1}, {"principals": {}}, {"assets": {}}, {"zones": {}}, {"clocks": {}},
        {"clocks": {"Europe/Paris": Clock(clock.since[::-1], clock.offsets, clock.horizon)}},
        {"clocks": {"Europe/Paris": Clock(clock.since, clock.offsets[1:], clock.horizon)}},
    ]  # fmt: skip
    wrong = [
        b"", data[:-1], data + b"\0", b"\xc0", data[: len(data) // 2],
        msgspec.msgpack.encode({**decoded, "extra": 1}),
        msgspec.msgpack.encode({k: v for k, v in decoded.items() if k != "limits"}),
        msgspec.msgpack.encode({**decoded, "site": 5}),
        *(msgspec.msgpack.encode(msgspec.structs.replace(table, **change)) for change in changes),
    ]  # fmt: skip
    for bad in wrong:
        with pytest.raises(PolicyError):
            CompiledPolicy.from_bytes(bad)


def test_halves_need_no_pydantic_no_yaml_no_zone_files() -> None:
    code = (
        "import sys\nfrom cofferdam.policy import table\nfrom cofferdam.policy.points import decide, state\n"
        "heavy = {'pydantic', 'yaml', 'rich', 'zoneinfo', 'tzdata', 'importlib.resources'} & set(sys.modules)\n"
        "p = table.CompiledPolicy.from_bytes(sys.stdin.buffer.read())\n"
        "f = p.flow('modbus', '10.1.5.9', 'plc')\n"
        "from cofferdam.model import Operation, Span\n"
        "before = set(sys.modules)\n"
        f"f.decide(Operation(3, -1, 1, False, (Span('holding', 99, 2),)), {NOW})\n"
        f"f.decide(Operation(3, -1, 1, False, (Span('holding', 99, 2),)), {NOW + YEAR})\n"
        "print(sorted(heavy), sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], input=policy(FULL).to_bytes(), capture_output=True, check=True)
    assert done.stdout.decode().strip() == "[] []"
