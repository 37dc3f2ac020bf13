"""A site in namespaces, and a gate between its two sides."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cofferdam.enforce.putback import clean
from tests.enforce.site import PlantDevice, Site
from tests.gate.plant import Gate


class Live:
    """A site whose gate runs."""

    def __init__(self, site: Site, device: PlantDevice, gate: Gate) -> None:
        self.site = site
        self.device = device
        self.gate = gate


@pytest.fixture
def site() -> Iterator[Site]:
    """Without a gate. Its folder is closed to others, as a temporary folder is."""
    with tempfile.TemporaryDirectory(prefix="cofferdam-test-") as folder, Site(Path(folder)) as made:
        yield made
        clean(made.state)


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    """One gate for the tests of a module, which leave it as they found it."""
    with tempfile.TemporaryDirectory(prefix="cofferdam-test-") as folder, Site(Path(folder)) as site:
        device = PlantDevice(site.plant)
        gate = Gate(site.state, site.policy)
        try:
            gate.wait_ready()
            yield Live(site, device, gate)
            assert gate.stop() == 0
            assert not site.gates()
        finally:
            gate.close()
            clean(site.state)
            device.close()
