"""What a policy may say of the diode, which carries what leaves the plant over a strand that goes one way.

Inside, the spool keeps and the sender sends; outside, the receiver hears and the keeper keeps. Where the zones name
machines, each machine has its two; where they name none, all four are on one, for a look at it.

Not here: the words (diode_model), warnings (diode_lint), the rows (diode_rows).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Final

from cofferdam.errors import CofferdamError
from cofferdam.limits import strand_end
from cofferdam.model import Allow, Deny, Fault
from cofferdam.policy import rows
from cofferdam.policy.document import Path
from cofferdam.policy.explain import Explanation, Question, explained
from cofferdam.policy.findings import Checking
from cofferdam.policy.problems import nearest, one_of
from cofferdam.policy.table import CompiledPolicy
from cofferdam.policy.terms import diode_lint
from cofferdam.policy.terms.base import Ask, Folder, Making, Needs, PartNeeds, Place, Scope, Store, Strand, Terms
from cofferdam.policy.terms.diode_model import DiodeConduit, DiodeRule, StrandChannel
from cofferdam.policy.terms.diode_rows import FILES, GATE, RECORDS, DiodeRows, FilesRow, Link, show_rate, strand_of
from cofferdam.policy.yamltext import quote

SPOOL, SENDER, RECEIVER, KEEPER, TELLER = "spool", "sender", "receiver", "keeper", "teller"
LINKS_MOST: Final = 3
"""Besides the first."""
JUMBO_BLOCK: Final = 1800
"""Packets of 9,000 bytes in a block of 16 MB, which is the largest."""
STORE_SHARE: Final = 1.25
"""The store's quota, in times of what the spool has room for."""


class DiodeTerms(Terms[DiodeConduit, DiodeRows]):
    """The terms of the diode."""

    word = "diode"
    title = "The diode"
    conduit = DiodeConduit
    rule = DiodeRule
    row = DiodeRows
    asks = (Ask("file", "NAME", "a file that is put into a channel's folder"),
            Ask("files", "CHANNEL", "the channel of files"))  # fmt: skip

    def check(self, name: str, conduit: DiodeConduit, numbers: Sequence[int], checking: Checking) -> None:
        here = ("conduits", name)
        zones = checking.policy.zones
        self._ends(name, (*here,), conduit.from_zone, conduit.to_zone, checking)
        taken = {conduit.from_zone, conduit.to_zone}
        machines = [zones[end].machine for end in (conduit.from_zone, conduit.to_zone) if end in zones]
        if len(conduit.links) > LINKS_MOST:
            checking.key(
                (*here, "links"), f"{len(conduit.links)} further links", f"at most {LINKS_MOST}", check="links"
            )
        for number, link in enumerate(conduit.links):
            at = (*here, "links", number)
            known = [checking.known("zones", end, (*at, way)) for way, end in link.ends]
            self._ends(name, at, link.from_zone, link.to_zone, checking)
            for way, end in link.ends:
                if end in taken:
                    checking.at((*at, way), f"{end}, which is an end already", "a zone of its own", check="links")
                taken.add(end)
            if all(known) and [zones[end].machine for _, end in link.ends] != machines:
                checking.at((*at, "to"), "ends on other machines", "those of the strand's first link", check="links")
        if conduit.allow:
            checking.at((*here, "allow"), "rules", "nothing: `carries` says what passes", check="allow")
        if conduit.window or conduit.expires:
            checking.key((*here, "window" if conduit.window else "expires"), "hours or an end of a strand",
                         "none: what rides has its own, in its own conduit", check="strand")  # fmt: skip
        if conduit.block * (100 + conduit.overhead) // 100 + 2 > 4096:
            checking.at((*here, "block"), f"{conduit.block} packets and {conduit.overhead} % parity",
                        "at most 4096 packets in a block", check="block")  # fmt: skip
        if conduit.jumbo and conduit.block > JUMBO_BLOCK:
            checking.at((*here, "block"), f"{conduit.block} packets of up to 9,000 bytes",
                        f"at most {JUMBO_BLOCK}, with `jumbo`", check="block")  # fmt: skip
        for channel, each in conduit.channels.items():
            place = (*here, "channels", channel)
            riders = [shown(kind, rider) for kind, rider in conduit.carries]
            if channel not in riders:
                checking.key(place, f"{quote(channel)}, which does not ride", one_of(riders), nearest(channel, riders),
                             check="channels")  # fmt: skip
            if each.overhead is not None and conduit.block * (100 + each.overhead) // 100 + 2 > 4096:
                checking.at((*place, "overhead"), f"{conduit.block} packets and {each.overhead} % parity",
                            "at most 4096 packets in a block", check="block")  # fmt: skip
        if conduit.repeat is not None and conduit.repeat.younger > conduit.spool.keep:
            checking.at((*here, "repeat", "younger"), "what is older than the spool keeps", "at most spool: keep",
                        check="repeat")  # fmt: skip
        self._riders(name, conduit, checking)

    @staticmethod
    def _ends(name: str, here: Path, begin: str, end: str, checking: Checking) -> None:
        """The zones of one link."""
        zones = checking.policy.zones
        for field, zone_name, side in (("from", begin, "ot"), ("to", end, "it")):
            zone = zones.get(zone_name)
            if zone is None:
                continue
            if zone.side != side:
                expected = f"a zone of side {side}: data leaves the plant by a strand"
                checking.at((*here, field), f"{zone_name} of side {zone.side}", expected, check="strand")
            elif zone.crossing != "diode":
                checking.at((*here, field), f"{zone_name}", "a zone with crossing: diode, an end of the strand",
                            check="strand")  # fmt: skip
            for other, said in checking.policy.conduits.items():
                links = said.links if isinstance(said, DiodeConduit) else ()
                used = {said.from_zone, said.to_zone, *(zone for link in links for _, zone in link.ends)}
                if other != name and zone_name in used:
                    expected = "a zone of its own: a strand has two ends and nothing else"
                    checking.at((*here, field), f"{zone_name}, which {other} uses as well", expected, check="strand")
        ends = [zones[one] for one in (begin, end) if one in zones]
        if len(ends) == 2 and (ends[0].machine is None) != (ends[1].machine is None):
            checking.at((*here, "to"), "one end with a machine", "a machine for both, or for none", check="machine")
        if len(ends) == 2 and all(len(end.addresses) == 1 for end in ends):
            first, last = (ipaddress.ip_interface(one.addresses[0]) for one in ends)
            if first.network != last.network or first.ip == last.ip:
                checking.at(
                    (*here, "to"), f"ends at {first} and {last}", "two addresses of one network", check="strand"
                )

    def _riders(self, name: str, conduit: DiodeConduit, checking: Checking) -> None:
        here = ("conduits", name)
        for number, (kind, rider) in enumerate(conduit.carries):
            at = (*here, "carries", number)
            if (kind, rider) in conduit.carries[:number]:
                checking.at(at, f"{shown(kind, rider)} a second time", "each rider once", check="carries")
            elif kind == RECORDS:
                self._crossing(name, conduit, at, rider, checking)
            elif kind == FILES and rider not in conduit.files:
                near = nearest(rider, conduit.files)
                known = one_of(conduit.files) if conduit.files else "one, in `files`"
                checking.at(at, f"the channel of files {quote(rider)}", known, f"files:{near}" if near else "", "files")
        for channel in conduit.files:
            if (FILES, channel) not in conduit.carries:
                expected = f"carries: [files:{channel}]"
                checking.key((*here, "files", channel), f"{channel}, which does not ride", expected, check="files")

    @staticmethod
    def _crossing(name: str, conduit: DiodeConduit, at: Path, rider: str, checking: Checking) -> None:
        """What of another conduit may ride, and from where to where."""
        said = checking.policy.conduits.get(rider)
        fitting = [one for one, other in checking.policy.conduits.items() if other.may_ride]
        if said is None or rider not in fitting:
            found = f"the conduit {quote(rider)}" + (f", of {said.broker}" if said is not None else "")
            expected = one_of(fitting) if fitting else "a conduit of a broker whose crossing may ride, or files:NAME"
            checking.at(at, found, expected, nearest(rider, fitting), "carries")
            return
        first = strand_of(checking.policy.conduits, rider)
        if first != name:
            checking.at(
                at, f"{rider}, which {first} carries", "a conduit that no other strand carries", check="carries"
            )
        zones = checking.policy.zones
        for here, there, way in ((conduit.from_zone, said.from_zone, "from"), (conduit.to_zone, said.to_zone, "to")):
            machines = [zones[zone].machine for zone in (here, there) if zone in zones]
            if len(machines) == 2 and machines[0] != machines[1]:
                said_of = [f"machine {machine}" if machine else "no machine" for machine in machines]
                expected = f"a conduit {way} a zone of {said_of[0]}, as the strand is"
                checking.at(at, f"{rider}, {way} {there} of {said_of[1]}", expected, check="carries")

    warnings = diode_lint.CHECKS

    # --- rows

    def to_row(self, name: str, conduit: DiodeConduit, making: Making) -> DiodeRows:
        zones = making.policy.zones
        ends = [zones[conduit.from_zone], zones[conduit.to_zone]]
        sends, hears = _address(making, conduit.from_zone), _address(making, conduit.to_zone)
        return DiodeRows(
            port=conduit.port, sends=sends, hears=hears, inside=ends[0].machine or "", outside=ends[1].machine or "",
            rate=conduit.rate, burst=conduit.burst, k=conduit.block, m=max(1, conduit.block * conduit.overhead // 100),
            keep=conduit.spool.keep, room=conduit.spool.most,
            younger=conduit.repeat.younger if conduit.repeat is not None else 0,
            at=conduit.repeat.at if conduit.repeat is not None else -1,
            hostile=conduit.hostile_wire, jumbo=conduit.jumbo, hardware=conduit.hardware or "",
            wait=conduit.wait * 10**9,
            files=tuple(
                FilesRow(channel, said.names, said.most, said.per_day, said.out or f"{channel}-out",
                         said.into or f"{channel}-in", said.scan)
                for channel, said in sorted(conduit.files.items())
            ),
            records=tuple(sorted(rider for kind, rider in conduit.carries if kind == RECORDS)),
            gate=tuple(sorted(rider for kind, rider in conduit.carries if kind == GATE)),
            told=f"{name}-inside",
            links=tuple(
                Link(link.from_zone, link.to_zone, *(_address(making, end) for _, end in link.ends))
                for link in conduit.links
            ),
            prompt=tuple(
                f"{kind}:{rider}" for kind, rider in sorted(conduit.carries)
                if (_said(conduit, kind, rider).kind or ("bulk" if kind == FILES else "prompt")) == "prompt"
            ),
            parity=tuple(
                (f"{kind}:{rider}", max(1, conduit.block * overhead // 100))
                for kind, rider in sorted(conduit.carries)
                if (overhead := _said(conduit, kind, rider).overhead) is not None
            ),
        )  # fmt: skip

    # --- needs

    def needs(self, conduit: rows.Conduit, policy: CompiledPolicy) -> Needs:
        row = rows_of(conduit)
        store = Store(max(1 << 30, int(row.room * STORE_SHARE)))
        inside, outside = (policy.zones[zone].side for zone in (conduit.from_zone, conduit.to_zone))

        def folders(way: str) -> tuple[Folder, ...]:
            said = {one.out if way == "out" else one.into: ("files", one.name) for one in row.files}
            ends = {strand_end(one, way): ("carries",) for one in row.records}
            ends |= {row.told: ("carries",)} if row.gate and way == "in" else {}
            here = ("conduits", conduit.name)
            return tuple(
                Folder(name, conduit.name, (*here, *at), shared=True) for name, at in (*said.items(), *ends.items())
            )

        links = (Link(conduit.from_zone, conduit.to_zone, row.sends, row.hears), *row.links)
        out = tuple(Strand(one.from_zone, "out", one.sends, one.hears, row.port, conduit.name) for one in links)
        into = tuple(Strand(one.to_zone, "in", one.hears, one.sends, row.port, conduit.name) for one in links)
        parts = {
            RECEIVER: PartNeeds(Place(outside, conduit.to_zone), strands=into),
            KEEPER: PartNeeds(store=store, machine=row.outside, folders=folders("in")),
            SPOOL: PartNeeds(store=store, machine=row.inside, folders=folders("out")),
            SENDER: PartNeeds(Place(inside, conduit.from_zone), strands=out),
            **({TELLER: PartNeeds(machine=row.inside)} if row.gate else {}),
        }
        return Needs(parts, {conduit.name: f"the strand {conduit.name}"})

    # --- slices

    def cut(self, conduit: rows.Conduit, scope: Scope, part: str) -> DiodeRows | None:
        return rows_of(conduit)

    def principals(self, conduit: rows.Conduit, part: str) -> frozenset[str]:
        return frozenset()

    # --- explanations

    def explain(self, policy: CompiledPolicy, question: Question) -> Explanation:
        name, channel = question.said["file"], question.said["files"]
        found = {
            row.name: (conduit, row)
            for conduit in policy.conduits.values() if isinstance(conduit.terms, DiodeRows)
            for row in conduit.terms.files
        }  # fmt: skip
        if channel not in found:
            near = nearest(channel, found)
            raise CofferdamError(
                f"the policy has no channel of files {channel!r}", hint=f"did you mean {near}?" if near else ""
            )
        conduit, row = found[channel]
        why = row.wrong(name)
        verdict: Allow | Deny = (
            Deny(conduit.name, "", Fault.VALUE, f"{name!r} is {why}")
            if why
            else Allow(conduit.name, "", conduit.expires)
        )
        terms = rows_of(conduit)
        return explained(
            policy, question, verdict, broker=self.word, operation="send", target=name,
            answer="nothing: the file stays in its folder, and an alarm names it",
            conditions=[] if why else [f"at most {row.most} bytes", f"sent at {show_rate(terms.rate)}"],
            considered=[verdict],
        )  # fmt: skip


def shown(kind: str, rider: str) -> str:
    """What rides, as `carries` has it."""
    return rider if kind == RECORDS else f"{kind}:{rider}"


def _said(conduit: DiodeConduit, kind: str, rider: str) -> StrandChannel:
    return conduit.channels.get(shown(kind, rider)) or StrandChannel.model_construct()


def _address(making: Making, zone: str) -> str:
    return str(ipaddress.ip_interface(making.policy.zones[zone].addresses[0]).ip)


def rows_of(conduit: rows.Conduit) -> DiodeRows:
    """A conduit's rows. Raises: TypeError, where it is none of the diode."""
    if not isinstance(conduit.terms, DiodeRows):
        raise TypeError(f"the conduit {conduit.name} is none of the diode")
    return conduit.terms
