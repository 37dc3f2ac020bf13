"""What is legal in a strand but unwise: nobody at its other end can say that it is."""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Callable, Iterator

from cofferdam.policy.findings import Linting
from cofferdam.policy.terms.diode_model import DAY, DiodeConduit

LOSS_LEAST = 1
"""Percent of random loss that bulk should bear: of a wire with less parity each small fault needs a ticket."""
CHANCE = 1e-8
"""Of a block to be lost, which is what bulk is made for."""


def _conduits(run: Linting) -> Iterator[tuple[str, DiodeConduit]]:
    return ((name, each) for name, each in run.policy.conduits.items() if isinstance(each, DiodeConduit))


def _shared_wires(run: Linting) -> None:
    """A strand whose ends are in a network that has room for others, without `hostile_wire`: one false packet costs a
    block."""
    for name, conduit in _conduits(run):
        zones = [conduit.from_zone, *(link.from_zone for link in conduit.links)]
        for zone in zones if not conduit.hostile_wire else ():
            for number, address in enumerate(run.policy.zones[zone].addresses):
                network = ipaddress.ip_interface(address).network
                if network.num_addresses > 4 and not network.is_loopback:
                    run.value(
                        ("zones", zone, "addresses", number), "shared-wire",
                        f"a strand's end in {network}, where others may be: each false packet costs a block",
                        f"a network of two, such as {address.partition('/')[0]}/30, or `hostile_wire: true` in {name}",
                    )  # fmt: skip


def _short_spools(run: Linting) -> None:
    """A spool that keeps what was sent for less than a day: who finds a gap in the morning cannot close it."""
    for name, conduit in _conduits(run):
        if conduit.spool.keep < DAY:
            run.value(
                ("conduits", name, "spool", "keep"), "short-spool",
                "less than a day: a gap that is found on the next one cannot be closed",
                "as long as it takes until a ticket is carried: 72 h where there are weekends",
            )  # fmt: skip


def _large_files(run: Linting) -> None:
    """A channel that lets through files for which the spool has no room: they are never sent."""
    for name, conduit in _conduits(run):
        for channel, said in conduit.files.items():
            if said.most > conduit.spool.most:
                run.key(
                    ("conduits", name, "files", channel), "file-over-spool",
                    f"files of up to {said.most} bytes, and a spool of {conduit.spool.most}: larger ones are not sent",
                    "a larger `spool: {most: ...}`, or a smaller `most` of the files",
                )  # fmt: skip


def _thin_parity(run: Linting) -> None:
    """Parity that does not bear one percent of random loss."""
    for name, conduit in _conduits(run):
        said: dict[tuple[str, ...], int] = {("overhead",): conduit.overhead}
        for channel, one in conduit.channels.items():
            if one.overhead is not None:
                said["channels", channel, "overhead"] = one.overhead
        for place, overhead in said.items():
            if (bears := borne(conduit.block, overhead)) < LOSS_LEAST:
                run.value(
                    ("conduits", name, *place), "thin-parity",
                    f"blocks of {conduit.block} packets and {overhead} % parity, which bear {bears:.1f} % of loss",
                    "more: 1000 and 10 % bear 5 %",
                )  # fmt: skip


def borne(block: int, overhead: int) -> float:
    """Percent of random loss at which one full block in 100 million is lost."""
    parity = max(1, block * overhead // 100)
    low, high = 0.0, 0.9
    for _ in range(20):
        share = (low + high) / 2
        low, high = (share, high) if _lost(block + parity, share, parity) <= CHANCE else (low, share)
    return low * 100


def _lost(count: int, share: float, parity: int) -> float:
    """The chance that more than `parity` of `count` packets are lost. Beyond their mean it is not worked out: 1."""
    if share * count >= parity:
        return 1.0
    one = parity + 1
    term = math.exp(
        math.lgamma(count + 1) - math.lgamma(one + 1) - math.lgamma(count - one + 1)
        + one * math.log(share) + (count - one) * math.log1p(-share)
    )  # fmt: skip
    found = 0.0
    while term > CHANCE / 1000 and one <= count:
        found += term
        term *= (count - one) / (one + 1) * share / (1 - share)
        one += 1
    return found


CHECKS: dict[str, Callable[[Linting], None]] = {
    "file-over-spool": _large_files,
    "shared-wire": _shared_wires,
    "short-spool": _short_spools,
    "thin-parity": _thin_parity,
}
