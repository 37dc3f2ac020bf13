"""What is wrong with a rule of a proxy: names that do not exist, zones that do not fit, cells that nobody can write."""

from __future__ import annotations

from collections.abc import Iterable

from cofferdam.model import Span
from cofferdam.policy import notations, schema_assets
from cofferdam.policy.document import Path
from cofferdam.policy.findings import Checking
from cofferdam.policy.problems import nearest, one_of
from cofferdam.policy.terms.proxy_model import ProxyConduit, ProxyRule
from cofferdam.policy.yamltext import quote
from cofferdam.protocols.dialect import Dialect

_BY_NUMBER = ("functions", "write_functions")


class RuleChecks:
    """The checks of one rule."""

    def __init__(
        self, dialect: Dialect, here: Path, conduit: ProxyConduit, rule: ProxyRule, checking: Checking, *,
        turned: bool = False,
    ) -> None:  # fmt: skip
        """`turned`: the conduit goes the wrong way, of which every zone that does not fit would only be the echo. So it
        would be of a zone that nobody knows."""
        self.dialect = dialect
        self.here = here
        self.conduit = conduit
        self.rule = rule
        self.checking = checking
        self.at = checking.at
        zones = {} if turned else checking.names("zones")
        self.begins = conduit.from_zone if conduit.from_zone in zones else ""
        self.ends = conduit.to_zone if conduit.to_zone in zones else ""
        self.zones = zones

    def check(self) -> None:
        rule, conduit, policy = self.rule, self.conduit, self.checking.policy
        words = ["read", "write", "registers", "write_registers", "functions", "write_functions"]
        kinds = self.dialect.kinds
        words[2:2] = [word for word, some in (
            ("subscribe", any(kind.watch for kind in kinds)), ("call", any(kind.call for kind in kinds)),
            ("stream", any(kind.open for kind in kinds)),
            ("history", bool(self.dialect.history)), ("events", bool(self.dialect.events)),
            ("browse", bool(self.dialect.trees)),
        ) if some]  # fmt: skip
        others = ("subscribe", "call", "stream", "history", "events", "browse")
        if not any(getattr(rule, word) for word in (*others, *words)):
            expected = f"{', '.join(words[:-1])} or {words[-1]}"
            self.at(self.here, "a rule that allows nothing", expected, check="missing")
        for word, of in (("fastest", "subscribe"), ("slowest", "subscribe"), ("longest", "history")):
            if getattr(rule, word) is not None and not getattr(rule, of):
                self.at((*self.here, word), f"{word} without {of}", f"{of}, which it limits", check="limit")
        if rule.fastest is not None and rule.slowest is not None and rule.slowest < rule.fastest:
            self.at((*self.here, "slowest"), "a slowest interval below the fastest", "a longer one", check="limit")
        for index, who in enumerate(rule.who):
            path: Path = (*self.here, "who", index)
            if self.checking.known("principals", who, path):
                principal = policy.principals.get(who)
                if principal is not None and self.begins not in ("", principal.zone) and principal.zone in self.zones:
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

    def asset(self, path: Path, name: str, asset: schema_assets.Asset) -> None:
        if self.ends not in ("", asset.zone) and asset.zone in self.zones:
            found = f"{name} of zone {asset.zone}"
            self.at(path, found, f"an asset of {self.conduit.to_zone}, where the conduit ends", check="asset-zone")
        if asset.protocol != self.dialect.name:
            if asset.protocol in self.checking.dialects:
                found, expected = f"{name}, which speaks {asset.protocol}", f"an asset that speaks {self.dialect.name}"
                self.at(path, found, expected, check="broker")
            return
        for field, points in (
            ("read", self.rule.read), ("write", self.rule.write), ("subscribe", self.rule.subscribe),
            ("history", self.rule.history),
        ):  # fmt: skip
            self.points((*self.here, field), field, points, name, asset)
        if self.dialect.opaque:
            self.vendor(name, asset)
        for field, section, names in (
            ("call", "methods", self.rule.call), ("stream", "streams", self.rule.stream),
            ("events", "notifiers", self.rule.events), ("browse", "browse", self.rule.browse),
            ("acknowledge", "notifiers", self.rule.acknowledge),
        ):  # fmt: skip
            for index, one in enumerate(names):
                if (
                    field in ("events", "browse", "acknowledge")
                    and one == notations.ALL
                    and self.checking.names("assets", name, section)
                ):
                    continue
                self.checking.known(section, one, (*self.here, field, index), ("assets", name))
        self.acknowledged(asset)
        peers = [who for who, one in self.checking.policy.principals.items() if who in self.rule.who and one.peer]
        for index, one in enumerate(self.rule.stream):
            if peers and one in asset.streams and asset.streams[one].multicast is not None:
                found = f"{one}, which goes to a group, for {peers[0]}, who comes by the overlay's tunnel"
                expected = "a stream without `multicast` for those: groups do not go by the tunnel"
                self.at((*self.here, "stream", index), found, expected, check="multicast")

    def acknowledged(self, asset: schema_assets.Asset) -> None:
        """Of what is acknowledged, the events have to be there, with what names a condition."""
        needs, events = self.dialect.condition_fields, self.rule.events
        for index, name in enumerate(self.rule.acknowledge):
            path: Path = (*self.here, "acknowledge", index)
            for one in asset.notifiers if name == notations.ALL else (name,):
                notifier = asset.notifiers.get(one)
                if notifier is None:
                    continue
                fields = set(notifier.fields or (notations.DEFAULT_FIELDS,))
                if notations.DEFAULT_FIELDS in fields:
                    fields |= set(self.dialect.event_fields)
                missing = [field for field in needs if field not in fields]
                if missing or not needs:
                    has = "has no conditions" if not needs else f"has no {' or '.join(missing)} in its fields"
                    expected = f"a notifier whose events have {' and '.join(needs)}" if needs else "nothing of the kind"
                    self.at(path, f"{one}, which {has}", expected, check="acknowledge")
                elif one not in events and notations.ALL not in events:
                    self.at(path, f"{one}, whose events the rule does not let come", f"events: [{one}] as well",
                            check="acknowledge")  # fmt: skip

    def vendor(self, name: str, asset: schema_assets.Asset) -> None:
        """Functions that only the asset's vendor knows: the asset has to name them, and to say what they do."""
        known = {field: {code for code, _ in getattr(asset, f"vendor_{field}")} for field in _BY_NUMBER}
        for field, other in (_BY_NUMBER, _BY_NUMBER[::-1]):
            for index, (code, _) in enumerate(getattr(self.rule, field)):
                if code in self.dialect.codes or code in self.dialect.place_codes or code in known[field]:
                    continue
                path: Path = (*self.here, field, index)
                if code in known[other]:
                    found = f"function {code}, which is in vendor_{other} of {name}"
                    self.at(path, found, other, check="function")
                else:
                    found = f"function {code}, which is not public"
                    expected = (
                        f"vendor_functions or vendor_write_functions: [{code}] of {name}, as it changes the device"
                    )
                    self.at(path, found, f"{expected} or does not", check="function")

    def spans(self) -> None:
        dialect, rule = self.dialect, self.rule
        for field, pieces in (("registers", rule.registers), ("write_registers", rule.write_registers)):
            for index, piece in enumerate(pieces):
                if piece is None:
                    continue
                at = piece.at
                path: Path = (*self.here, field, index)
                if dialect.found(at) is None:
                    word, what = (at.space, "space") if isinstance(at, Span) else (at.kind, "kind")
                    known = [s.name for s in dialect.spaces] + [kind.name for kind in dialect.kinds]
                    near = nearest(word.partition(":")[0], known)
                    self.at(path, f"the {what} {quote(word)}", one_of(dialect.words()), near, what)
                elif field == "write_registers" and not dialect.writable(at):
                    writable = [s.name + (":N" if s.numbered else "") for s in dialect.spaces if s.writable]
                    writable += [kind.name for kind in dialect.kinds if kind.write]
                    what = f"cells of {at.space}" if isinstance(at, Span) else dialect.notation.show(at)
                    whole = "cells that" if isinstance(at, Span) else "what"
                    self.at(path, what, f"{whole} can be written ({one_of(writable)})")

    def points(self, here: Path, field: str, points: Iterable[str], name: str, asset: schema_assets.Asset) -> None:
        names = self.checking.names("assets", name, "points")
        for index, point_name in enumerate(points):
            path: Path = (*here, index)
            if point_name == notations.ALL:
                fitting = [p for p in asset.points.values() if self._fits(field, p)]
                if not fitting and not names:
                    self.at(path, f"all points of {name}", "an asset with points, or registers", check="unknown-point")
                elif not fitting and len(names) == len(asset.points):
                    self.at(
                        path, f"all points of {name}", f"an asset with points {self._what_fits(field)}", check=field
                    )
            elif point_name not in names:
                expected = f"a point of {name} ({one_of(names)})" if names else f"a point of {name}, and it has none"
                found = f"the point {quote(point_name)}"
                self.at(path, found, expected, nearest(point_name, [*names, notations.ALL]), "unknown-point")
            elif point_name in asset.points:
                point = asset.points[point_name]
                if point.at is not None and self.dialect.found(point.at) is not None and not self._fits(field, point):
                    kind = point.at.space if isinstance(point.at, Span) else point.at.kind
                    found, expected = f"{point_name}, which is {kind}", f"a point {self._what_fits(field)}"
                    whole = self.dialect.whole_of(point.at) if field == "read" else ""
                    if whole:
                        found = f"{point_name}, which is a part of {whole}"
                        expected = f'a point at "{whole}": a part is read by reading the whole'
                    self.at(path, found, expected, check=field)

    def _what_fits(self, field: str) -> str:
        spaces = [] if field in ("subscribe", "history") else [
            space.name for space in self.dialect.spaces if (space.writable or field == "read") and not space.numbered
        ]  # fmt: skip
        kinds = [
            kind.name
            for kind in self.dialect.kinds
            if {
                "read": kind.read,
                "write": kind.write,
                "subscribe": kind.watch,
                "history": kind.read * bool(self.dialect.history),
            }[field]
        ]
        what = {"read": "read", "write": "written", "subscribe": "subscribed to",
                "history": "read back in time"}[field]  # fmt: skip
        return f"that can be {what} ({', '.join([*spaces, *kinds]) or f'none: {self.dialect.name} has no such'})"

    def _fits(self, field: str, point: schema_assets.Point) -> bool:
        dialect = self.dialect
        if field == "history":
            return point.at is not None and bool(dialect.history) and dialect.readable(point.at)
        fits = {"read": dialect.readable, "write": dialect.writable, "subscribe": dialect.watchable}[field]
        return point.at is not None and fits(point.at)

    def functions(self) -> None:
        for field, codes in (("functions", self.rule.functions), ("write_functions", self.rule.write_functions)):
            for index, (code, sub) in enumerate(codes):
                path: Path = (*self.here, field, index)
                if not self.dialect.codes:
                    words = ", ".join(field for field in ("read", "write", "call", "subscribe"))
                    self.at(
                        path, f"function {code}", f"{words}: {self.dialect.name} has no functions by number",
                        check="function",
                    )  # fmt: skip
                elif code in self.dialect.place_codes:
                    verbs = "read, write, registers or write_registers"
                    self.at(
                        path, f"function {code}, which carries cells", f"{verbs}, which say the cells", check="function"
                    )
                elif field == "functions" and sub >= 0 and self.dialect.changes(code, sub):
                    found = f"function {code}/{sub}, which may change the device"
                    self.at(path, found, "such a function in write_functions", check="function")
