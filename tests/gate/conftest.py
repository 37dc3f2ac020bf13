"""A device and a gate in front of it, shared by the tests of a module that leave it as they found it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gate.plant import Device, Gate, policy_text, running
from tests.ports import held_ports


class Site:
    """One device `plc`, one gate; `policy` can be written anew and loaded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.device = Device()
        self.port, self.management = held_ports(2)
        self.state, self.policy = folder / "state", folder / "policy.yaml"
        self.policy.write_text(self.text())
        self.gate: Gate | None = None

    def text(self, **changes: str) -> str:
        return policy_text({"plc": (self.device.port, self.port)}, management=self.management, **changes)

    @property
    def up(self) -> Gate:
        assert self.gate is not None
        return self.gate


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A device and a policy; no gate runs."""
    made = Site(tmp_path)
    yield made
    if made.gate is not None:
        made.gate.close()
    made.device.close()


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A gate that several tests share: none of them changes anything."""
    made = Site(tmp_path_factory.mktemp("calm"))
    with running(made.state, made.policy, kind=Gate) as gate:
        made.gate = gate
        yield made
    made.device.close()


@pytest.fixture
def live(site: Site) -> Iterator[Site]:
    """With a gate that is ready."""
    with running(site.state, site.policy) as gate:
        site.gate = gate
        yield site
