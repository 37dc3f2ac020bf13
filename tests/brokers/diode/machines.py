"""Two machines, each a network namespace, joined by a veth: the inside and the outside of a strand, with a gate each.

    inside  strand0 ══ strand0  outside
            strand1 ══ strand1             where there are two links

The gates take the ends into namespaces of their own. Loss is made there, by a rule beside theirs.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cofferdam.errors import GateError
from cofferdam.gate.client import ask
from tests import waiting
from tests.enforce.site import ip
from tests.gate.plant import Gate
from tests.verbs import KERNEL, cli

SECOND = """
  second-in: {side: ot, machine: inside, interface: strand1, addresses: [10.83.1.1/30], crossing: diode}
  second-out: {side: it, machine: outside, interface: strand1, addresses: [10.83.1.2/30], crossing: diode}
"""
MACHINES = ("inside", "outside")
AGAIN = ("does not run now", "ended", "has not answered yet")
"""What a gate says to which a person would ask again: a part begins anew, or the disk keeps the auditor waiting."""
PARTS = {"inside": ("spool", "sender"), "outside": ("keeper", "receiver")}


def eventually(condition: Callable[[], object]) -> None:
    """Two gates, and what one of them does, on a machine that does much else."""
    waiting.eventually(condition, 4 * waiting.PATIENT)


def sender_is_empty(state: Path, status: Callable[[], dict[str, Any]]) -> None:
    """Waits until all that a spool (with this `status`) has handed over has left. What is prompt leaves within 7 ms of
    the sender's time, its parity too: each time that the sender says how it stands, its loop has had a turn."""
    eventually(lambda: status()["queue"] == 0)
    for _ in range(4):
        time.sleep(0.01)
        ask(state, "status")


class Machine:
    """One machine: a namespace, a state folder, and a gate while one runs."""

    def __init__(self, name: str, namespace: str, folder: Path, policy: Path) -> None:
        self.name, self.namespace, self.policy = name, namespace, policy
        self.state = folder / name
        self.gate: Gate | None = None

    def up(self, *, ready: bool = True) -> Gate:
        class Here(Gate):
            program = ("ip", "netns", "exec", self.namespace, sys.executable, "-m", "cofferdam.cli.main")

        self.gate = Here(self.state, self.policy, "--machine", self.name)
        if ready:
            self.gate.wait_ready()
        return self.gate

    def down(self) -> str:
        """Stops the gate in order; what it said."""
        gate, self.gate = self.gate, None
        assert gate is not None and gate.stop() == 0, gate and gate.said()
        return gate.said()

    def close(self) -> None:
        if self.gate is not None:
            self.gate.close()
            subprocess.run(
                ["ip", "netns", "exec", self.namespace, sys.executable, "-m", "cofferdam.cli.main", "down", "--state",
                 str(self.state)], capture_output=True, check=False,
            )  # fmt: skip
            self.gate = None

    def pid(self, part: str) -> int:
        """Of a part that is ready, which may take a while after another died."""
        found: list[int] = []

        def there() -> bool:
            found[:] = [pid for name, pid in (self.gate.pids() if self.gate else {}).items() if name == part]
            return bool(found)

        eventually(there)
        return found[0]

    def ask(self, verb: str, **arguments: object) -> Any:
        """What the part says; it is waited for while its crew starts anew."""
        part = PARTS[self.name][0]
        found: list[Any] = []

        def answered() -> bool:
            try:
                found[:] = ask(
                    self.state, "ask-part", broker="diode", part=part, verb=verb, arguments=arguments, crew=""
                )
            except GateError as error:
                if not any(one in str(error) for one in AGAIN):
                    raise
                return False
            return True

        eventually(answered)
        return found[0]["result"]

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.ask("status")
        return found

    def within(self, part: str, *command: str) -> str:
        """Runs a command in the network namespace of a part."""
        done = subprocess.run(
            ["nsenter", "-t", str(self.pid(part)), "-n", *command], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def launcher(self) -> str:
        """The process id of the gate's launcher."""
        assert self.gate is not None
        status = Path(f"/proc/{self.gate.status()['pid']}/status").read_text()
        return next(line.split()[1] for line in status.splitlines() if line.startswith("PPid:"))

    def space(self, ending: str) -> list[str]:
        """What runs a command in the network namespace that the gate has made for an end of a link."""
        within = ["nsenter", "-t", self.launcher, "-m"]
        names = subprocess.run([*within, "ls", "/run/netns"], capture_output=True, text=True, check=True).stdout.split()
        (name,) = (name for name in names if name.endswith(ending))
        return [*within, "ip", "netns", "exec", name]

    def prove(self, *options: str) -> tuple[int, dict[str, dict[str, Any]]]:
        """`cofferdam prove` on this machine: its exit code, and the statements by their names."""
        command = ["nsenter", "-t", self.launcher, "-n", "-m", sys.executable, "-m", "cofferdam.cli.main", "prove",
                   "--state", str(self.state), "--json", *options]  # fmt: skip
        with waiting.alone(KERNEL, among=True):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.stdout, done.stderr
        found = json.loads(done.stdout)["report"]["statements"]
        return done.returncode, {one["name"]: one for one in found}

    def folder(self, channel: str = "files:reports") -> Path:
        return Path(self.status()["folders"][channel])


class Strand:
    """Both machines. Use as a context manager."""

    def __init__(
        self, folder: Path, more: str = "", files: str = "", zones: str = "", conduits: str = "", carries: str = "",
        *, links: int = 1, rate: str = "80 Mbit/s",
    ) -> None:  # fmt: skip
        tag = secrets.token_hex(2)
        self.policy = folder / "policy.yaml"
        self.site = f"t{os.getpid()}{tag}"
        files = files or '{names: ["*.csv", "*.json", "*.tar"], most: 200 MB}'
        carries = carries or "files:reports"
        self.links = links
        if links == 2:
            zones += SECOND
            more += "links: [{from: second-in, to: second-out}], "
        self.policy.write_text(f"""
site: {self.site}
zones:
  strand-in: {{side: ot, machine: inside, interface: strand0, addresses: [10.83.0.1/30], crossing: diode}}
  strand-out: {{side: it, machine: outside, interface: strand0, addresses: [10.83.0.2/30], crossing: diode}}
{zones}
conduits:
  strand:
    {{from: strand-in, to: strand-out, broker: diode, owner: tests, reason: tests, rate: {rate},
     {more} carries: [{carries}], files: {{reports: {files}}}}}
{conduits}
""")
        self.policy.chmod(0o644)
        self.inside = Machine("inside", f"cdt{os.getpid()}-{tag}-in", folder, self.policy)
        self.outside = Machine("outside", f"cdt{os.getpid()}-{tag}-out", folder, self.policy)

    @property
    def machines(self) -> tuple[Machine, Machine]:
        return self.inside, self.outside

    def __enter__(self) -> Self:
        try:
            for machine in self.machines:
                ip("netns", "add", machine.namespace)
            for link in [f"strand{number}" for number in range(self.links)]:
                other = ("peer", "name", link, "netns", self.outside.namespace)
                ip("-n", self.inside.namespace, "link", "add", link, "type", "veth", *other)
                # Else packets cross in bundles of 44, and a bundle is lost whole.
                ip("-n", self.inside.namespace, "link", "set", link, "gso_max_segs", "1")
            self.pair()
        except BaseException:
            self._remove()
            raise
        return self

    def pair(self) -> None:
        files = {machine.name: machine.state.parent / f"{machine.name}.pair" for machine in self.machines}
        for machine in self.machines:
            self.pair_verb(machine, "--output", str(files[machine.name]))
        for machine, other in zip(self.machines, reversed(self.machines), strict=True):
            self.pair_verb(machine, "--take", str(files[other.name]))

    def pair_verb(self, machine: Machine, *options: str) -> str:
        words = ["diode", "pair", machine.name, "--policy", str(self.policy), "--state", str(machine.state), *options]
        code, said, complained = cli(*words)
        assert code == 0, complained
        return said

    def up(self) -> None:
        for machine in self.machines:
            machine.up(ready=False)
        for machine in self.machines:
            assert machine.gate is not None
            machine.gate.wait_ready()
        self.heard()

    def heard(self) -> None:
        """Waits until the outside hears the inside: what was sent before both stood is missing, and rightly so."""
        eventually(lambda: self.outside.status()["heartbeat"])

    def left(self) -> None:
        """Waits until what the spool has handed over has left the sender."""
        sender_is_empty(self.inside.state, self.inside.status)

    def lose(self, share: float, link: int = 0) -> None:
        """From now on so much is lost, at random, before the receiver's end of a link."""
        text = "add table netdev loss\ndelete table netdev loss\n"
        if share:
            text += f"""table netdev loss {{
                chain in {{
                    type filter hook ingress device "strand{link}" priority -510; policy accept;
                    numgen random mod 10000 < {min(9999, round(share * 10000))} counter drop
                }}
            }}
            """
        where = ["nsenter", "-t", str(self.outside.pid("receiver")), "-n"]
        if link:
            where = self.outside.space("it.second-out")
        command = [*where, "nft", "-f", "-"]
        subprocess.run(command, input=text, text=True, check=True)

    def said(self) -> str:
        """All that both ends say, for a test that has failed."""
        found = []
        for machine in self.machines:
            found += [
                f"--- {machine.name}",
                machine.gate.said() if machine.gate is not None else "",
                str(machine.status()),
            ]
            found += [str(figure) for figure in (machine.gate.status()["figures"] if machine.gate is not None else ())]
        return "\n".join(found)

    def attach(self, name: str, machine: Machine, address: str) -> None:
        """An interface of a machine, and at its other end somebody with this address."""
        client = f"{machine.namespace}-c"
        ip("netns", "add", client)
        ip("-n", machine.namespace, "link", "add", name, "type", "veth", "peer", "name", name, "netns", client)
        ip("-n", client, "address", "add", address, "dev", name)
        ip("-n", client, "link", "set", name, "up")

    def _remove(self) -> None:
        for machine in self.machines:
            machine.close()
            for name in (machine.namespace, f"{machine.namespace}-c"):
                subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            for machine in self.machines:
                if machine.gate is not None:
                    print(f"--- {machine.name}\n{machine.gate.said()}")
        self._remove()
