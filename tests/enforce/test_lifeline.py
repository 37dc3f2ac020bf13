"""An interface by which the host itself lives is not taken into a namespace, unless that is asked for by name."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.verbs import cli
from tests.waiting import PATIENT, eventually

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


@contextlib.contextmanager
def host(folder: Path, *options: str, route: str = "", session: str = "") -> Iterator[subprocess.Popen[str]]:
    """`cofferdam up` in a namespace that stands for a host of its own, which ends with it."""
    folder.chmod(0o755)
    policy = folder / "policy.yaml"
    policy.write_text(POLICY)
    gate = [sys.executable, "-m", "cofferdam.cli.main", "up", str(policy), "--state", str(folder / "state"), *options]
    script = HOST.format(route=route, session=session, limit=PATIENT)
    with (folder / "said").open("w") as said, subprocess.Popen(
        ["unshare", "-n", "sh", "-c", script, "sh", *gate], stdout=said, stderr=said, text=True
    ) as process:  # fmt: skip
        yield process
        process.wait(2 * PATIENT)


@pytest.mark.parametrize(
    ("route", "session", "why"),
    [
        ("ip route add default via 10.83.0.2", "", "the host's default route leaves by it"),
        ("", "env SSH_CONNECTION='10.83.0.9 50000 10.83.0.1 22'", "this very session came in by its address 10.83.0.1"),
    ],
    ids=["default route", "session"],
)
def test_the_hosts_own_way_out_is_not_taken(tmp_path: Path, route: str, session: str, why: str) -> None:
    with host(tmp_path, route=route, session=session) as process:
        pass
    said = (tmp_path / "said").read_text()
    assert process.returncode == 2, said
    assert f"way-out is not taken from the host: {why}" in said
    assert "attach: macvlan" in said and "--take way-out" in said


def test_it_is_taken_where_that_is_asked_for(tmp_path: Path) -> None:
    with host(tmp_path, "--take", "way-out", route="ip route add default via 10.83.0.2") as process:
        eventually(lambda: "gate-ready" in (tmp_path / "said").read_text() or process.poll() is not None)
        cli("down", "--state", tmp_path / "state")
    # The interface is back afterwards: else it ends by a code of its own.
    assert process.returncode == 0, (tmp_path / "said").read_text()
