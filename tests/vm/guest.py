"""In the machine: hosts on both wires, by the tests' own client and device. `python -m tests.vm.guest VERB ...`"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from cofferdam.gate.client import ask
from tests.enforce.site import PORT, PlantDevice, at
from tests.gate.plant import Client

STATE = Path("/var/lib/cofferdam")
HEARD = "/dev/virtio-ports/cofferdam.heard"
SECONDS = 20.0


class Peer(Client):
    """A client in a network namespace."""

    def __init__(self, namespace: str, source: str, address: str) -> None:
        with at(namespace):
            super().__init__(PORT, SECONDS, address=address, source=source)


def device(namespace: str, *addresses: str) -> None:
    """A device at each address, until it is ended."""
    devices = [PlantDevice(namespace, address) for address in addresses]
    while devices:
        time.sleep(3600)


def exchange(namespace: str, source: str, address: str) -> None:
    """One read and one write, by one connection."""
    with Peer(namespace, source, address) as client:
        print("read", client.read().hex(), "write", "done" if client.write(7) else "refused")


def over_a_reload(namespace: str, source: str, address: str, text: str) -> None:
    """A session that is there before `systemctl reload` and after it, with a policy that takes its writes away."""
    policy = Path("/etc/cofferdam/policy.yaml")
    with Peer(namespace, source, address) as client:
        print("before:", client.read().hex(), client.write(8))
        before = ask(STATE, "status")["policy"]["hash"]
        policy.write_text(Path(text).read_text())
        subprocess.run(["systemctl", "reload", "cofferdam"], check=True)
        deadline = time.monotonic() + SECONDS
        while ask(STATE, "status")["policy"]["hash"] == before:
            assert time.monotonic() < deadline, "the policy is not taken"
            time.sleep(0.1)
        print("after:", client.read().hex(), client.write(9))


def write_on(namespace: str, source: str, address: str) -> None:
    """Writes 1, 2, 3, ... and tells the world outside of each that the gate acknowledged, until the power goes."""
    out = os.open(HEARD, os.O_WRONLY)
    value = 0
    with Peer(namespace, source, address) as client:
        while True:
            value += 1
            if client.write(value):
                os.write(out, f"{value}\n".encode())


def hold(namespace: str, source: str, address: str, flag: str) -> None:
    """A session that reads until the gate ends it or it is cut off; then what became of it is printed."""
    with Peer(namespace, source, address) as client:
        client.read()
        Path(flag).touch()
        client._socket.settimeout(5)
        try:
            while True:
                client.read()
                time.sleep(0.05)
        except OSError as error:
            print("ended:", type(error).__name__)


VERBS: dict[str, Callable[..., None]] = {
    "device": device,
    "exchange": exchange,
    "over-a-reload": over_a_reload,
    "write-on": write_on,
    "hold": hold,
}

if __name__ == "__main__":
    try:
        VERBS[sys.argv[1]](*sys.argv[2:])
    except (OSError, AssertionError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
