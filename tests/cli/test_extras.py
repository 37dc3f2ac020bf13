"""An installation without extras: all that needs none works, and what needs one says which."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from cofferdam.brokers.registry import BROKERS
from tests.waiting import PATIENT

ROOT = Path(__file__).parent.parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WITHOUT = """
import sys

sys.modules |= dict.fromkeys({missing!r})  # Python takes None for "there is none"
from cofferdam.cli.main import main
sys.exit(main({arguments!r}))
"""
PLAIN = """
site: works
zones: {office: {side: it}, plant: {side: ot}}
assets: {plc: {zone: plant, address: 10.20.0.17, protocol: modbus, listen: "127.0.0.1:1502"}}
principals: {erp: {zone: office, addresses: 10.1.0.20}, mes: {zone: plant, addresses: 10.20.0.5}}
conduits:
  reads:
    {from: office, to: plant, broker: modbus, owner: o, reason: tests,
     allow: [{who: erp, asset: plc, registers: holding 0-9}]}
"""
RELAY = """
  orders:
    from: office
    to: plant
    broker: relay
    owner: o
    reason: tests
    listen:
      plant: {at: "10.20.0.2:8443", tls: plant-2027}
      office: {at: "10.1.0.2:8443", tls: office-2027}
    channels: {orders: {}}
    allow: [{who: erp, push: orders}, {who: mes, pull: orders}]
"""


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[><=;]", requirement)[0].strip().lower().replace("-", "_") for requirement in requirements}


EXTRAS = set().union(*(names(listed) for listed in PROJECT["optional-dependencies"].values())) - names(
    PROJECT["dependencies"]
)


def without_extras(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`cofferdam ...` where no library of an extra can be imported."""
    code = WITHOUT.format(missing=EXTRAS - {"cofferdam"} | {"nats"}, arguments=list(arguments))
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENT, check=False)


@pytest.mark.parametrize("verb", [("check",), ("up", "--check-only")])
def test_what_needs_no_extra_works_without_any(verb: tuple[str, ...], tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(PLAIN)
    done = without_extras(*verb, str(policy))
    assert done.returncode == 0, done.stderr


def test_a_policy_is_checked_without_what_would_run_it(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(PLAIN + RELAY)
    done = without_extras("check", str(policy))
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_gate_that_lacks_a_library_says_so_at_once_and_which_extra_brings_it(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(PLAIN + RELAY)
    done = without_extras("up", "--check-only", str(policy))
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"the broker relay needs what is not installed here: {', '.join(BROKERS['relay'].needs)}\n" in done.stderr
    assert "pip install '.[relay]'" in done.stderr


def test_what_a_broker_needs_is_in_the_extra_of_its_name() -> None:
    for word, broker in BROKERS.items():
        if broker.needs:
            assert set(broker.needs) <= names(PROJECT["optional-dependencies"][word]), word
