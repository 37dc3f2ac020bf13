"""`cofferdam prove` on the two machines of a strand: it holds, and it fails where a wall has a hole."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from cofferdam.proof import one_way
from cofferdam.proof.frames import FAMILIES
from cofferdam.proof.statements import Statements
from tests.brokers.diode.machines import Machine, Strand
from tests.enforce.site import netns


def failed(statements: dict[str, dict[str, Any]]) -> set[str]:
    return {name for name, one in statements.items() if one["status"] == "failed"}


def end(strand: Strand, name: str) -> tuple[Machine, str, str]:
    """A machine, its part with the socket, and what its end is called in the proof."""
    if name == "inside":
        return strand.inside, "sender", "ot.strand-in"
    return strand.outside, "receiver", "it.strand-out"


@pytest.mark.parametrize("name", ["inside", "outside"])
class TestAtBothEnds:
    pytestmark = netns

    def test_a_whole_proof_holds_and_names_both_kinds(self, strand: Strand, name: str) -> None:
        machine, _, side = end(strand, name)
        code, found = machine.prove("--no-probes")
        assert (code, failed(found)) == (0, set())
        software, hardware = (found[f"{side}: one-way by {kind}"] for kind in ("software", "hardware"))
        assert software["status"] == "tested" and "hardware" not in software["says"]
        assert hardware["status"] == "assumed" and "attests no tap" in hardware["says"]
        for family in FAMILIES:
            one = found[f"{side}: {family} frames"]
            assert one["status"] == "tested" and one["evidence"][0].startswith("0 of ")

    def test_a_hole_for_one_family_is_found(self, strand: Strand, name: str) -> None:
        machine, part, side = end(strand, name)
        hook = "ingress" if name == "inside" else "egress"
        chain = ("netdev", "cofferdam", f"{hook}-strand0")
        machine.within(part, "nft", "insert", "rule", *chain, "ether", "type", "0x88cc", "accept")
        try:
            code, found = machine.prove("--diode")
        finally:
            listed = machine.within(part, "nft", "-a", "list", "chain", *chain)
            handle = next(line.split()[-1] for line in listed.splitlines() if "accept # handle" in line)
            machine.within(part, "nft", "delete", "rule", *chain, "handle", handle)
        wanted = {f"{side}: {one}" for one in ("lldp frames", "any frame", "one-way by software")}
        assert code == 1 and failed(found) >= wanted
        assert f"{side}: goose frames" not in failed(found) and f"{side}: on the strand itself" not in found

    def test_other_ways_back_are_found(self, strand: Strand, name: str) -> None:
        """ARP is on, and IPv6; the interface of the strand has no wall."""
        machine, part, side = end(strand, name)
        rules = machine.within(part, "nft", "list", "table", "netdev", "cofferdam")
        machine.within(part, "ip", "link", "set", "strand0", "arp", "on")
        machine.within(part, "nft", "delete", "table", "netdev", "cofferdam")
        try:
            code, found = machine.prove("--diode")
        finally:
            machine.within(part, "sh", "-c", f"nft -f - <<'END'\n{rules}\nEND")
            machine.within(part, "ip", "link", "set", "strand0", "arp", "off")
        assert code == 1 and {f"{side}: silent", f"{side}: wall"} <= failed(found)
        assert found[f"{side}: one-way by software"]["status"] == "failed"


@pytest.mark.parametrize("attested", ["", "a tap of the works"])
def test_what_is_attested_is_no_finding(attested: str) -> None:
    out = Statements()
    end = SimpleNamespace(zone="strand-in", way="out")
    one_way._kinds(cast(Any, SimpleNamespace(name="ot")), cast(Any, end), attested, [], out)
    software, hardware, back = out.found
    assert software.status == "tested" and "hardware" not in software.says
    assert hardware.status == back.status == "assumed" and attested in hardware.says
    assert ("as the operator attests" in hardware.says) == bool(attested)
