"""The cable between the lab's gate and a second machine, outside, where the hosts have namespaces of their own.

    gate  cdlXst ══ in0  cable  out0 ══ strand0  outside  reg0 ══ net0  regulator

Whatever comes by one end of the cable goes out by the other, frame by frame, by rules of its own in a namespace of its
own: there it loses what it is told to lose, can be cut, and counts both ways. The gates at its ends know nothing of it.

Not here: the other hosts (layout), the second gate (lab.strand.outside).
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from typing import NamedTuple

from cofferdam.errors import CofferdamError


class Counts(NamedTuple):
    """Frames since the cable was told how to behave: into it inside, lost in it, and into it outside."""

    sent: int
    lost: int
    back: int


class Cable:
    """Three namespaces, whose names begin with `prefix`. Raises CofferdamError where a command fails."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def space(self, name: str) -> str:
        """The namespace of the cable itself (`cable`), of the machine outside, or of the regulator."""
        return f"{self._prefix}-{name}"

    @property
    def spaces(self) -> list[str]:
        return [self.space(name) for name in ("cable", "outside", "regulator")]

    def lay(self, inside: str, regulators: Sequence[str]) -> None:
        """Make it. `inside` is the interface at the gate's end, which is left in the namespace that this process is in;
        `regulators` are the addresses of who stands behind the machine outside."""
        cable, outside, regulator = self.spaces
        for name in self.spaces:
            ip("netns", "add", name)
            # The kernel's own chatter would be counted, and the cable has nothing to say.
            run("ip", "netns", "exec", name, "sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6")
            ip("-n", name, "link", "set", "lo", "up")
        ip("link", "add", inside, "type", "veth", "peer", "name", "in0", "netns", cable)
        ip("-n", cable, "link", "add", "out0", "type", "veth", "peer", "name", "strand0", "netns", outside)
        # Else packets cross in bundles of 44, and a bundle is lost whole.
        ip("link", "set", inside, "gso_max_segs", "1")
        ip("-n", outside, "link", "add", "reg0", "type", "veth", "peer", "name", "net0", "netns", regulator)
        ip("link", "set", inside, "up")
        for name, link in ((cable, "in0"), (cable, "out0"), (outside, "strand0"), (outside, "reg0"),
                           (regulator, "net0")):  # fmt: skip
            ip("-n", name, "link", "set", link, "up")
        for address in regulators:
            ip("-n", regulator, "addr", "add", f"{address}/16", "dev", "net0")
        self.lose(0.0)

    def lose(self, share: float) -> None:
        """From now on so much of what goes out is lost, at random; 1.0: it is cut. Counts begin anew."""
        drop = "counter name lost drop" if share >= 1 else (
            f"numgen random mod 10000 < {round(share * 10000)} counter name lost drop")  # fmt: skip
        rules = f"""
            add table netdev cable
            delete table netdev cable
            table netdev cable {{
                counter sent {{ }}
                counter lost {{ }}
                counter back {{ }}
                chain out {{
                    type filter hook ingress device "in0" priority 0; policy drop;
                    counter name sent
                    {drop if share else ""}
                    fwd to "out0"
                }}
                chain back {{
                    type filter hook ingress device "out0" priority 0; policy drop;
                    counter name back
                    {"drop" if share >= 1 else 'fwd to "in0"'}
                }}
            }}
        """
        run(*self.within("nft", "-f", "-"), text=rules)

    def within(self, *argv: str) -> list[str]:
        """The command line that runs `argv` in the cable, where frames can be put on it as if from either machine."""
        return ["ip", "netns", "exec", self.space("cable"), *argv]

    def counts(self) -> Counts:
        listed = json.loads(run(*self.within("nft", "-j", "list", "counters", "table", "netdev", "cable")))
        found = {one["counter"]["name"]: one["counter"]["packets"] for one in listed["nftables"] if "counter" in one}
        return Counts(found["sent"], found["lost"], found["back"])


def run(*argv: str, text: str = "") -> str:
    """What a command said. Raises CofferdamError with what it complained of."""
    try:
        done = subprocess.run(argv, input=text, capture_output=True, text=True, check=False)
    except OSError as error:
        raise CofferdamError(f"{argv[0]} does not run: {error.strerror}") from None
    if done.returncode:
        raise CofferdamError(f"{' '.join(argv)[:120]}: {done.stderr.strip()[:300]}", hint="cofferdam lab clean")
    return done.stdout


def ip(*words: str) -> None:
    """One command of `ip`. Raises CofferdamError."""
    run("ip", *words)
