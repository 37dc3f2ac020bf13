"""What is wrong with a rule of a proxy: names that do not exist, zones that do not fit, cells that nobody can write."""

from __future__ import annotations

from collections.abc import Iterable

from cofferdam.policy import schema
from cofferdam.policy.document import Path
from cofferdam.policy.findings import Checking
from cofferdam.policy.problems import nearest, one_of
from cofferdam.policy.terms.proxy_model import ProxyConduit, ProxyRule
from cofferdam.policy.yamltext import quote
from cofferdam.protocols.dialect import Family
from cofferdam.protocols.dialects import FAMILIES


class RuleChecks:
    """The checks of one rule."""

    def __init__(self, family: Family, here: Path, conduit: ProxyConduit, rule: ProxyRule, checking: Checking) -> None:
        self.family = family
        self.here = here
        self.conduit = conduit
        self.rule = rule
        self.checking = checking
        self.at = checking.at

    def check(self) -> None:
        rule, conduit, policy = self.rule, self.conduit, self.checking.policy
        kinds = (rule.read, rule.write, rule.registers, rule.write_registers, rule.functions, rule.write_functions)
        if not any(kinds):
            expected = "read, write, registers, write_registers, functions or write_functions"
            self.at(self.here, "a rule that allows nothing", expected, check="missing")
        for index, who in enumerate(rule.who):
            path: Path = (*self.here, "who", index)
            if self.checking.known("principals", who, path):
                principal = policy.principals.get(who)
                if principal is not None and principal.zone != conduit.from_zone:
                    found = f"{who} of zone {principal.zone}"
                    fitting = sorted(n for n, p in policy.principals.items() if p.zone == conduit.from_zone)
                    expected = f"a principal of {conduit.from_zone}, where the conduit begins"
                    self.at(path, found, expected, nearest(who, fitting), "principal-zone")
        for index, name in enumerate(rule.asset):
            path = (*self.here, "asset", index)
            if self.checking.known("assets", name, path):
                asset = policy.assets.get(name)
                if asset is not None:
                    self.asset(path, name, asset)
        self.spans()
        self.functions()

    def asset(self, path: Path, name: str, asset: schema.Asset) -> None:
        if asset.zone != self.conduit.to_zone and asset.zone in self.checking.names("zones"):
            found = f"{name} of zone {asset.zone}"
            self.at(path, found, f"an asset of {self.conduit.to_zone}, where the conduit ends", check="asset-zone")
        if asset.protocol != self.family.name:
            if asset.protocol in FAMILIES:
                found, expected = f"{name}, which speaks {asset.protocol}", f"an asset that speaks {self.family.name}"
                self.at(path, found, expected, check="broker")
            return
        for field, points in (("read", self.rule.read), ("write", self.rule.write)):
            self.points((*self.here, field), field, points, name, asset)

    def spans(self) -> None:
        family, rule = self.family, self.rule
        for field, spans in (("registers", rule.registers), ("write_registers", rule.write_registers)):
            for index, span in enumerate(spans):
                space = family.space(span.space)
                path: Path = (*self.here, field, index)
                if space is None:
                    near = nearest(span.space.partition(":")[0], [s.name for s in family.spaces])
                    names = [s.name + (":N" if s.numbered else "") for s in family.spaces]
                    self.at(path, f"the space {quote(span.space)}", one_of(names), near, "space")
                elif field == "write_registers" and not space.writable:
                    writable = [s.name + (":N" if s.numbered else "") for s in family.spaces if s.writable]
                    self.at(path, f"cells of {span.space}", f"cells that can be written ({one_of(writable)})")

    def points(self, here: Path, field: str, points: Iterable[str], name: str, asset: schema.Asset) -> None:
        names = self.checking.names("assets", name, "points")
        for index, point_name in enumerate(points):
            path: Path = (*here, index)
            if point_name == schema.ALL:
                fitting = [p for p in asset.points.values() if field == "read" or self._writable(p)]
                if not fitting and not names:
                    self.at(path, f"all points of {name}", "an asset with points, or registers", check="unknown-point")
                elif not fitting and len(names) == len(asset.points):
                    self.at(path, f"all points of {name}", "an asset with points that can be written", check="write")
            elif point_name not in names:
                expected = f"a point of {name} ({one_of(names)})" if names else f"a point of {name}, and it has none"
                found = f"the point {quote(point_name)}"
                self.at(path, found, expected, nearest(point_name, [*names, schema.ALL]), "unknown-point")
            elif field == "write" and point_name in asset.points:
                point = asset.points[point_name]
                if self.family.space(point.at.space) is not None and not self._writable(point):
                    found = f"{point_name}, which is {point.at.space}"
                    self.at(path, found, "a point that can be written (holding, coil)", check="write")

    def _writable(self, point: schema.Point) -> bool:
        space = self.family.space(point.at.space)
        return space is not None and space.writable

    def functions(self) -> None:
        for field, codes in (("functions", self.rule.functions), ("write_functions", self.rule.write_functions)):
            for index, (code, sub) in enumerate(codes):
                path: Path = (*self.here, field, index)
                if code in self.family.cell_codes:
                    verbs = "read, write, registers or write_registers"
                    self.at(
                        path, f"function {code}, which carries cells", f"{verbs}, which say the cells", check="function"
                    )
                elif field == "functions" and sub >= 0 and self.family.changes(code, sub):
                    found = f"function {code}/{sub}, which may change the device"
                    self.at(path, found, "such a function in write_functions", check="function")
