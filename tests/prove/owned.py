"""A gate of which one half has a hole: bytes that begin with OWNED are run as Python, in that process, at its place,
with its descriptors, after it has put its filter on. All else is the gate as it is. A program, like `cofferdam up`:

    owned POLICY STATE [outer|inner]

The outer half gets such bytes from a client, the inner half from a device.

This is what an intruder has who broke into the outer half by a bug: code of its own choice, and nothing more.
"""

from __future__ import annotations

import sys
from pathlib import Path

from cofferdam.brokers.registry import CREWS
from cofferdam.enforce.choice import choose
from cofferdam.enforce.isolation import Berth
from cofferdam.enforce.launcher import Launcher
from cofferdam.enforce.orders import Child
from cofferdam.enforce.producers import Producer
from cofferdam.enforce.users import Users

HOLE = """
import ctypes, errno, os, signal, socket, struct, sys, time
import msgspec
from cofferdam.brokers.proxy import records
from cofferdam.brokers.proxy.outer import Outer
from cofferdam.crossing.framing import pack
from cofferdam.protocols.modbus import messages

honest = Outer._on_data
crossing = int(sys.argv[sys.argv.index("--out") + 1].partition("=")[2])

def records_out(*found):
    for packet in pack([msgspec.msgpack.encode(record) for record in found]):
        os.write(crossing, packet)

def owned(self, client, data):
    if data[:5] != b"OWNED":
        return honest(self, client, data)
    def say(text):
        client.transport.write(str(text).encode() + b"\\n")
    try:
        scope = dict(globals(), outer=self, client=client, say=say, send=records_out)
        exec(compile(data[5:].decode(), "owned", "exec"), scope)
    except OSError as error:
        say(errno.errorcode.get(error.errno, "?"))
    except BaseException as error:
        say(type(error).__name__ + ": " + str(error))

Outer._on_data = owned
from cofferdam.brokers.half import main
sys.exit(main())
"""


HOLE_IN = """
import ctypes, errno, os, signal, socket, struct, sys, time
import msgspec
from cofferdam.audit.events.access import *
from cofferdam.audit.events.gate import *
from cofferdam.audit.records import Batch
from cofferdam.brokers.proxy import device, records
from cofferdam.brokers.proxy.inner import Inner
from cofferdam.crossing.framing import pack
from cofferdam.protocols.modbus import messages

honest, born = device.Device._on_data, Inner.__init__
crossing = int(sys.argv[sys.argv.index("--out") + 1].partition("=")[2])
control = int(sys.argv[sys.argv.index("--control-out") + 1])
audit = int(sys.argv[sys.argv.index("--audit-out") + 1])
halves = []

def push(fd, *found):
    for packet in pack([msgspec.msgpack.encode(record) for record in found]):
        while True:
            try:
                os.write(fd, packet)
                break
            except BlockingIOError:
                time.sleep(0.001)

def made(self, *given, **named):
    born(self, *given, **named)
    halves.append(self)

def owned(self, connection, data):
    if data[:5] != b"OWNED":
        return honest(self, connection, data)
    def say(text):
        connection.transport.write(b"SAID" + str(text).encode() + b"\\n")
    try:
        scope = dict(globals(), plc=self, inner=halves[0], connection=connection, say=say)
        exec(compile(data[5:].decode(), "owned", "exec"), scope)
    except OSError as error:
        say(errno.errorcode.get(error.errno, "?"))
    except BaseException as error:
        say(type(error).__name__ + ": " + str(error))

device.Device._on_data, Inner.__init__ = owned, made
from cofferdam.brokers.half import main
sys.exit(main())
"""
HOLES = {"outer": HOLE, "inner": HOLE_IN}


class OwnedLauncher(Launcher):
    """Starts one half with the hole in it; in the same place and with the same descriptors as ever."""

    owned = "outer"

    def _start(self, part: str, berth: Berth, arguments: list[str], fds: list[int], producer: Producer | None) -> Child:
        if part == self.owned:
            arguments = ["-c", HOLES[part], *arguments[arguments.index("--name") :]]
        return super()._start(part, berth, arguments, fds, producer)


def main() -> int:
    policy, state = Path(sys.argv[1]), Path(sys.argv[2])
    OwnedLauncher.owned = sys.argv[3] if len(sys.argv) > 3 else "outer"
    isolation = choose(policy, state, users=Users())
    arguments = ["--policy", str(policy), "--state", str(state), "--pairs", "1", "--log-format", "text"]
    return OwnedLauncher(isolation, state, CREWS, arguments, environment=[]).run()


if __name__ == "__main__":
    sys.exit(main())
