"""A gate of which the export or the witness has a hole: what comes by a pipe is run as Python, in that process, at its
place, with its descriptors, after it has put its filter on. A program, like `cofferdam up`:

    owned_export POLICY STATE PIPES PART

PIPES: a folder with two named pipes, `in` and `out`, by which the test speaks to it. This is what an intruder has who
broke into an export by a bug: code of its own choice, and nothing more.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from cofferdam.brokers.registry import CREWS
from cofferdam.enforce.choice import choose
from cofferdam.enforce.forked import FIRST_FD
from cofferdam.enforce.isolation import Berth
from cofferdam.enforce.launcher import Launcher
from cofferdam.enforce.orders import Child
from cofferdam.enforce.producers import Producer
from cofferdam.enforce.users import Users

HOLE = """
import ctypes, errno, os, select, socket, struct, sys, time
from cofferdam.enforce import sandbox
from cofferdam.crossing.lone_part import LonePart
at = sys.argv.index("--hole")
ears, mouth = (int(text) for text in sys.argv[at + 1].split(","))
del sys.argv[at : at + 2]
put_on, scope = sandbox.confine, {}

def ready(fd, events, seconds):
    poll = select.poll()
    poll.register(fd, events)
    return bool(poll.poll(1000 * seconds))

def reach(to, kind=socket.SOCK_STREAM, family=None, protocol=0, data=b"OWNED"):
    # What the kernel answers; whether something got there is for the other end to say.
    family = family or (socket.AF_INET6 if ":" in to[0] else socket.AF_INET)
    sock = socket.socket(family, kind, protocol)
    sock.setblocking(False)
    try:
        sock.connect(to)
    except BlockingIOError:
        if not ready(sock.fileno(), select.POLLOUT, 3):
            return "nothing"
        if wrong := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            return errno.errorcode[wrong]
    sock.send(data)
    if kind == socket.SOCK_DGRAM:  # a refusal comes as the error of the next call
        ready(sock.fileno(), select.POLLIN, 0.1)
        sock.send(data)
    scope["last"] = sock
    return "reached"

def run(code):
    said = ["nothing"]
    try:
        scope.update(globals(), say=lambda text: said.__setitem__(0, str(text)))
        exec(compile(code, "owned", "exec"), scope)
    except OSError as error:
        said[0] = errno.errorcode.get(error.errno, "?")
    except BaseException as error:
        said[0] = type(error).__name__ + ": " + str(error)
    os.write(mouth, said[0].encode() + b"\\n")

def confined(*given, **named):
    found = put_on(*given, **named)
    scope["on"] = True
    return found

def tick(part):
    if scope.get("on") and ready(ears, select.POLLIN, 0):
        run(os.read(ears, 65536).decode())
    part._reactor.call_in(0.05, lambda: tick(part))

born = LonePart.__init__

def made(self, *given, **named):
    born(self, *given, **named)
    self._reactor.call_in(0.05, lambda: tick(self))

sandbox.confine, LonePart.__init__ = confined, made
import runpy
runpy.run_module(PROGRAM, run_name="__main__", alter_sys=False)
"""


class OwnedLauncher(Launcher):
    """Starts one part with the hole in it; in the same place and with the same descriptors as ever, and two pipes."""

    owned = ""
    ears = mouth = -1

    def _start(self, part: str, berth: Berth, arguments: list[str], fds: list[int], producer: Producer | None) -> Child:
        if part == self.owned:
            code = HOLE.replace("PROGRAM", repr(berth.profile.program))
            at = FIRST_FD + len(fds)
            arguments = ["-c", code, *arguments[arguments.index("--name") :], "--hole", f"{at},{at + 1}"]
            fds = [*fds, self.ears, self.mouth]
        return super()._start(part, berth, arguments, fds, producer)


def main() -> int:
    policy, state, orders, part = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
    OwnedLauncher.owned = part
    OwnedLauncher.ears = os.open(orders / "in", os.O_RDWR | os.O_CLOEXEC)
    OwnedLauncher.mouth = os.open(orders / "out", os.O_RDWR | os.O_CLOEXEC)
    isolation = choose(policy, state, users=Users())
    arguments = ["--policy", str(policy), "--state", str(state), "--pairs", "1", "--log-format", "text"]
    return OwnedLauncher(isolation, state, CREWS, arguments, environment=[]).run()


if __name__ == "__main__":
    sys.exit(main())
