"""The two machines of a strand, with a gate each: made once, since they cost seconds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.brokers.diode.machines import Strand

ZONES = """
  plant: {side: ot, machine: inside, interface: plant0, addresses: [10.84.0.1/24]}
  office: {side: it, machine: outside, interface: office0, addresses: [10.85.0.1/24]}
principals:
  mes: {zone: plant, addresses: [10.84.0.9]}
  erp: {zone: office, addresses: [10.85.0.9]}
"""
COUNTS = """
  counts-out:
    {from: plant, to: office, broker: relay, owner: tests, reason: tests,
     channels: {counts: {order: parallel 1000, on_gap: wait}},
     listen: {plant: {at: "10.84.0.1:8443", plain: true}, office: {at: "10.85.0.1:8443", plain: true}},
     allow: [{who: mes, push: counts}, {who: erp, pull: counts}]}
"""


@pytest.fixture(scope="package")
def strand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Strand]:
    with Strand(
        tmp_path_factory.mktemp("strand"), more="wait: 1 s,", zones=ZONES, conduits=COUNTS,
        carries='files:reports, counts-out, "gate:log", "gate:status"',
    ) as strand:  # fmt: skip
        strand.attach("plant0", strand.inside, "10.84.0.9/24")
        strand.attach("office0", strand.outside, "10.85.0.9/24")
        strand.up()
        yield strand
        for machine in strand.machines:
            said = machine.down()
            ended = [line for line in said.splitlines() if "part-ended part=diode/" in line][-2:]
            assert len(ended) == 2 and all("status=0" in line for line in ended), ended
