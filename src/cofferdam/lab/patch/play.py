"""Firmware for a controller: a vendor that signs, people who approve, a gate that installs.

Not here: what they do (maintenance, plc), the steps of the tour (steps).
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Sequence
from typing import Any

from rich.console import RenderableType
from rich.panel import Panel
from rich.table import Table

from cofferdam.errors import CofferdamError, extra
from cofferdam.gate.secrets import secret_file, write_secret
from cofferdam.lab.layout import Addresses, Layout, Spot
from cofferdam.lab.patch import events, gateway
from cofferdam.lab.patch.maintenance import Desk
from cofferdam.lab.patch.steps import CREW, HEALTH, RULES, STEPS, Cast, a_gateway_polls, shut
from cofferdam.lab.patch.vendor import HOST
from cofferdam.lab.play import Picture, Play, Sections
from cofferdam.lab.scene import COFFERDAM, Scene


class Patch(Play):
    """The patch relay at work."""

    name = "patch"
    who = "a vendor's site, a controller that takes firmware, and a gateway that polls for its own"
    steps = tuple(step for step in STEPS if step is not a_gateway_polls or gateway.is_there())
    spots = (
        Spot("patch-plc", "plant", 2222), Spot("patch-plc-2", "plant", 2222), Spot("patch-gateway", "plant"),
        Spot("patch-door", "gate-plant", 8446), Spot("patch-vendor", "office", 8443),
    )  # fmt: skip

    @functools.cached_property
    def props(self) -> Any:
        """Keys of everybody. (Its libraries are an extra's: not for all plays.)"""
        from cofferdam.lab.patch.props import Props

        return Props()

    def missing(self) -> str:
        try:
            import asyncssh  # noqa: F401
            import tuf  # noqa: F401
            import yara_x  # noqa: F401
        except ImportError as error:
            return f"{error}; {extra('patch')}"
        return "" if shutil.which("ssh-keygen") else "ssh-keygen (openssh-client)"

    def sections(self, where: Addresses) -> Sections:
        principals = f"""\
  {gateway.NAME}: {{zone: control, addresses: [{where.host("patch-gateway")}]}}   # it polls for its images
"""
        conduits = f"""\
  firmware:
    from: enterprise
    to: control
    broker: patch
    owner: maintenance
    reason: the filler's maker mends its firmware
    expires: 2035-06-30
    root: patch-root.json             # whose signatures release a file: two of three people
    listen:
      control: {{at: "{where.at("patch-door")}", plain: yes}}
    products:
      filler-firmware: {{origin: {{minisign: filler-vendor.pub}}, most: 5 MB, scan: none, yara: site.yar}}
      gateway-images: {{origin: {{minisign: filler-vendor.pub}}, most: 5 MB, scan: none}}
      filler-advisories:
        origin: {{minisign: filler-vendor.pub}}
        scan: none
        kind: advisories
        provider: "https://filler.example"
    sources:
{self._source("filler-maker", "/plc/", where)}
{self._source("filler-notices", "/csaf/provider-metadata.json, listing: csaf", where)}
    inventory:
      filler-plc: {{vendor: Filler Works, product: Filler controller, version: "0.7"}}
    rings: [test, line-1]
    ways:
{self._way("filler-plc", "patch-plc", where)}
{self._way("filler-plc-2", "patch-plc-2", where)}
      {gateway.NAME}: {{address: {where.host("patch-gateway")}, pull: {gateway.NAME}}}
    allow:
      - {{source: filler-maker, fetch: filler-firmware, files: "filler-{{version}}.bin"}}
      - {{source: filler-notices, fetch: filler-advisories, files: "*.json"}}
      - {{asset: {gateway.NAME}, install: gateway-images, ring: test}}
      - {{asset: filler-plc, install: filler-firmware, ring: test, {HEALTH}, back: previous}}
      - asset: filler-plc-2
        install: filler-firmware
        ring: line-1
        {shut()}
        {HEALTH}
        back: previous
"""
        files = {
            "patch-root.json": self.props.root, "filler-vendor.pub": self.props.vendor.public, "site.yar": RULES,
        }  # fmt: skip
        return Sections(principals=principals, conduits=conduits, files=files)

    def _source(self, name: str, path: str, where: Addresses) -> str:
        at = f'at: "{where.at("patch-vendor")}", host: {HOST}, key: {self.props.site.known_by}'
        return f"""\
      {name}:
        https: {{{at}, path: {path}}}
        every: 1 day"""

    def _way(self, asset: str, spot: str, where: Addresses) -> str:
        return f"""\
      {asset}:
        address: {where.host(spot)}
        sftp:
          port: {where.port(spot)}
          user: update
          host_key: "{self.props.host_key}"
          path: "/{{file}}"
          secret: filler-plc"""

    async def before_gate(self, scene: Scene, listener: events.Sink | None) -> None:
        folder, where = scene.directory / "patch", scene.layout.addresses
        from cofferdam.lab.patch import site  # an extra's libraries: not for all plays

        self.props.lay(folder)
        write_secret(scene.state, secret_file(scene.state, CREW, "keeper", "online"), self.props.online)
        key = str(folder / "machine.key")
        made = await scene.verb("patch", "credential", "filler-plc", "--policy", str(scene.policy), "--key", key)
        if made.code:
            raise CofferdamError(f"no credential for the controller: {made.text}")
        site.lay(folder / "site", self.props.vendor, self.props.site, where.port("patch-vendor"))
        argv = [*COFFERDAM, "lab", "vendor", "--folder", str(folder / "site"), "--address", where.host("patch-vendor"),
                "--port", str(where.port("patch-vendor"))]  # fmt: skip
        vendor = await scene.start("filler-vendor", "office", argv, decode=events.parse)
        await vendor.wait_for(lambda event: isinstance(event, events.Listening))
        for asset, spot, own, heard in (
            ("filler-plc", "patch-plc", "plc", listener), ("filler-plc-2", "patch-plc-2", "plc-2", None),
        ):  # fmt: skip
            argv = [*COFFERDAM, "lab", "plc", "--folder", str(folder / own), "--address", where.host(spot),
                    "--port", str(where.port(spot))]  # fmt: skip
            plc = await scene.start(asset, "plant", argv, listener=heard, decode=events.parse)
            await plc.wait_for(lambda event: isinstance(event, events.Listening))

    async def live(self, scene: Scene, listener: events.Sink) -> None:
        folder = scene.directory / "patch"
        argv = [*COFFERDAM, "lab", "maintenance", "--folder", str(folder), "--gate", str(scene.state)]
        await scene.start("maintenance", "gate", argv, listener=listener, decode=events.parse)

    async def cast(self, scene: Scene) -> Any:
        desk = Desk(scene.directory / "patch", scene.state)
        await desk.ready()
        return Cast(scene, desk, self.props.root.encode(), self.props.online)

    def picture(self, layout: Layout) -> Picture:
        return PatchPicture()


class PatchPicture(Picture):
    """What came in, and what the controller runs."""

    def __init__(self) -> None:
        self.passed = self.refused = 0
        self.last = self.why = ""
        self.runs = "as delivered"

    def note(self, event: events.Event) -> None:
        match event:
            case events.Judged():
                self.last = event.version
                if event.state == "passed":
                    self.passed += 1
                else:
                    self.refused, self.why = self.refused + 1, event.reason
            case events.Started():
                self.runs = event.version if event.good else f"{event.version} (fault)"
            case _:
                pass

    def panels(self) -> Sequence[tuple[RenderableType, int]]:
        table = Table(expand=True, box=None, show_header=False)
        table.add_row("brought in", f"{self.passed} passed, {self.refused} refused")
        table.add_row("last", f"{self.last} {self.why if self.refused else ''}"[:40])
        table.add_row("filler-plc runs", self.runs)
        return ((Panel(table, title="patch: firmware"), 1),)

    def line(self) -> str:
        return f"firmware: {self.passed} passed, {self.refused} refused, the controller runs {self.runs}"
