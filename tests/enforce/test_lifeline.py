"""An interface by which the host itself lives is not taken into a namespace, unless that is asked for by name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import PATIENT

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
]

POLICY = """
site: lifeline
zones:
  office: {side: it, interface: way-out, addresses: [10.83.0.1/24]}
  plant: {side: ot, interface: inner0, addresses: [10.84.0.1/24]}
assets:
  plc: {zone: plant, address: 10.84.0.17, protocol: modbus, unit: 1, listen: "10.83.0.1:502"}
principals:
  erp: {zone: office, addresses: 10.83.0.20}
conduits:
  road:
    {from: office, to: plant, broker: modbus, owner: tests, reason: tests,
     allow: [{who: erp, asset: plc, registers: [holding 0-9]}]}
"""
HOST = """
set -e
ip link set lo up
for name in way-out inner0; do
  ip link add $name type veth peer name $name-far
  ip link set $name up
  ip link set $name-far up
done
ip address add 10.83.0.1/24 dev way-out
{route}
code=0
{session} timeout {limit} "$@" || code=$?
ip -o link show way-out >/dev/null || code=99
exit $code
"""


def up(
    folder: Path, *options: str, route: str = "", session: str = "", limit: float = PATIENT
) -> subprocess.CompletedProcess[str]:
    """`cofferdam up` in a namespace that stands for a host of its own, which ends with it."""
    folder.chmod(0o755)
    policy = folder / "policy.yaml"
    policy.write_text(POLICY)
    gate = [sys.executable, "-m", "cofferdam.cli.main", "up", str(policy), "--state", str(folder / "state"), *options]
    script = HOST.format(route=route, session=session, limit=limit)
    return subprocess.run(
        ["unshare", "-n", "sh", "-c", script, "sh", *gate],
        capture_output=True,
        text=True,
        timeout=2 * PATIENT,
        check=False,
    )


@pytest.mark.parametrize(
    ("route", "session", "why"),
    [
        ("ip route add default via 10.83.0.2", "", "the host's default route leaves by it"),
        ("", "env SSH_CONNECTION='10.83.0.9 50000 10.83.0.1 22'", "this very session came in by its address 10.83.0.1"),
    ],
    ids=["default route", "session"],
)
def test_the_hosts_own_way_out_is_not_taken(tmp_path: Path, route: str, session: str, why: str) -> None:
    done = up(tmp_path, route=route, session=session)
    assert done.returncode == 2, done.stderr
    assert f"way-out is not taken from the host: {why}" in done.stderr
    assert "attach: macvlan" in done.stderr and "--take way-out" in done.stderr


def test_it_is_taken_where_that_is_asked_for(tmp_path: Path) -> None:
    done = up(tmp_path, "--take", "way-out", route="ip route add default via 10.83.0.2", limit=PATIENT / 3)
    # Stopped by the time limit, in order; the interface is back afterwards.
    assert done.returncode in (0, 124), done.stderr
    assert "gate-ready" in done.stderr, done.stderr
