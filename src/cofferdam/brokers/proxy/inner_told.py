"""What an inner half tells of itself and of its devices: alarms, figures, how each asset does, and what a device did
that it should not.

Not here: what is told of one device (told), reads that are counted (reads_book), who makes pages of it (gate.watch).
"""

from __future__ import annotations

from typing import Any

from cofferdam.audit.events.access import DeviceTrouble, Malformed
from cofferdam.audit.events.base import clip
from cofferdam.brokers.broker import Setting
from cofferdam.brokers.kit.counted import Counted
from cofferdam.brokers.kit.figures import Reported, distribution
from cofferdam.brokers.kit.supervision import AssetStatus
from cofferdam.brokers.proxy.device import Device
from cofferdam.brokers.proxy.inner_standing import StandingPath
from cofferdam.model import Asset
from cofferdam.protocols.registry import PROTOCOLS, Protocols

ALARMS = 16
"""Alarms that a part raises at once."""


class Telling(StandingPath):
    """An inner half as far as it tells something."""

    _common: Any

    def __init__(self, setting: Setting, protocols: Protocols = PROTOCOLS) -> None:
        super().__init__(setting, protocols)
        self._devices: dict[tuple[str, int, str], Device] = {}
        self._troubles = Counted(setting.audit, ("detail",))
        self._securing: Any = None

    def _broken(self, asset: Asset, what: str, section: str, detail: str) -> None:
        """A device broke the protocol, or did something else that it should not (conduct)."""
        wall = self._wall()
        if what == "broken":
            self.malformed += 1
            self._troubles.add(
                Malformed(
                    wall_ns=wall,
                    session="",
                    source=asset.address,
                    asset=asset.name,
                    section=clip(section),
                    detail=clip(f"by the asset: {detail}"),
                )
            )
            return
        self._troubles.add(
            DeviceTrouble(
                wall_ns=wall, asset=asset.name, address=asset.address, what=clip(what, 128), detail=clip(detail)
            )
        )

    def alarms(self) -> dict[str, str]:
        found = self.protocol.alarms(self._common, self._wall())
        if self._securing is not None and (told := self._securing.alarm(self._wall())):
            found["tls-assets"] = clip(f"assets by TLS: {told}")
        now = self._clock()
        for device in self._devices.values():
            said = device.conduct.alarm(now)
            if said and len(found) < ALARMS:
                found[clip(f"trouble-{device.asset.name}", 128)] = clip(f"{device.asset.name}: {said}")
        for name, said in self._times.alarms(now).items():
            if len(found) < ALARMS:
                found[name] = said
        return found

    @property
    def busy(self) -> int:
        """Requests that are neither answered nor refused."""
        return self._under_way

    def assets(self) -> tuple[AssetStatus, ...]:
        return tuple(
            AssetStatus(name, one.device.state(one.asset.unit), one.device.said(one.asset.unit))
            for name, one in self._served.items()
        )

    def figures(self) -> Reported:
        devices = {name: served.device for name, served in self._served.items()}
        units = {name: (served.device, served.asset.unit) for name, served in self._served.items()}
        streams: Reported = {}
        if self.protocol.frame_type is not None:
            streams = self._times.report() | {"held": {"inner": distribution(self._reactor.held_up)}}
        return streams | {
            "connections": {name: device.connections for name, device in devices.items()},
            "in_flight": {name: device.in_flight(unit) for name, (device, unit) in units.items()},
            "queued": {name: device.queued(unit) for name, (device, unit) in units.items()},
            "requests": {name: device.of(unit).requests for name, (device, unit) in units.items()},
            "failures": {name: device.of(unit).failures for name, (device, unit) in units.items()},
            "late": {name: device.late for name, device in devices.items()},
            "broken": {name: device.conduct.broken for name, device in devices.items()},
            "unasked": {name: device.conduct.unasked for name, device in devices.items()},
            "identities": {name: device.conduct.identities for name, device in devices.items()},
        }
