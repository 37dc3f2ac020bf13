"""The two machines of a strand, with a gate each: made once, since they cost seconds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.brokers.diode.machines import Strand


@pytest.fixture(scope="package")
def strand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Strand]:
    with Strand(tmp_path_factory.mktemp("strand")) as strand:
        strand.up()
        yield strand
        for machine in strand.machines:
            said = machine.down()
            ended = [line for line in said.splitlines() if "part-ended part=diode/" in line][-2:]
            assert len(ended) == 2 and all("status=0" in line for line in ended), ended
