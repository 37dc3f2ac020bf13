"""The gate process's work: takes its descriptors, runs the gate, gives the last order."""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

from cofferdam.crossing.loops import LoopReactor
from cofferdam.enforce import credentials
from cofferdam.enforce.isolation import forbid_inspection
from cofferdam.enforce.orders import Asked, Fenced, Finish
from cofferdam.errors import CofferdamError
from cofferdam.gate.audit import GateAudit
from cofferdam.gate.commands import ControlServer
from cofferdam.gate.context import Options
from cofferdam.gate.crew.launcher import LauncherLink
from cofferdam.gate.gate import Gate
from cofferdam.gate.log import Log
from cofferdam.gate.reload import reload_by_signal
from cofferdam.gate.told import failure


def main() -> int:
    parser = argparse.ArgumentParser(prog="cofferdam-gate")
    for name in ("--orders", "--audit-in", "--audit-out"):
        parser.add_argument(name, type=int, required=True)
    parser.add_argument("--policy", type=Path, required=True)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=1)
    parser.add_argument("--machine", default="")
    parser.add_argument("--log-format", choices=["text", "json"], default="text")
    parser.add_argument("--credentials", type=int, default=-1)
    parser.add_argument("--door", action="append", default=[])
    args = parser.parse_args()
    forbid_inspection()
    secrets = credentials.take(args.credentials)
    options = Options(args.policy, args.state, shards=args.pairs, machine=args.machine, secrets=secrets)
    doors = {role: socket.socket(fileno=int(number)) for role, number in (one.split("=") for one in args.door)}
    asyncio.run(_run(options, args.orders, (args.audit_in, args.audit_out), Log(args.log_format), doors))
    return 1  # the launcher ends this process before that


async def _run(
    options: Options, orders: int, audit: tuple[int, int], log: Log, doors: dict[str, socket.socket]
) -> None:
    loop = asyncio.get_running_loop()

    def unhandled(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A bug in a call-back: the gate ends rather than go on with less than it believes it has."""
        error = context.get("exception")
        log.error("bug", message=context.get("message"), exception=repr(error))
        if isinstance(error, BaseException):
            traceback.print_exception(error, file=sys.stderr)
        os._exit(70)  # EX_SOFTWARE; the launcher ends the rest

    loop.set_exception_handler(unhandled)

    def lost() -> None:
        os._exit(71)  # the launcher has gone; the kernel is about to end us anyway

    reactor = LoopReactor(loop)
    gate: Gate | None = None

    def asked(report: Asked | Fenced) -> None:
        if gate is not None:
            gate.on_asked(report)

    async def reload() -> None:
        if gate is not None:
            await reload_by_signal(gate)

    launcher = LauncherLink(socket.socket(fileno=orders), asked, lost)
    try:
        gate = Gate(options, launcher, GateAudit(reactor, *audit), reactor, log, reload)
        finish = await gate.run(ControlServer(gate, doors))
    except CofferdamError as error:  # of a state file that cannot be understood
        finish = failure(ExceptionGroup("at the start", [error]))
    except Exception as error:
        traceback.print_exception(error, file=sys.stderr)
        finish = Finish(1, f"the gate failed: {error!r}"[:16000], "this is a bug; its trace stands above")
    await launcher.finish(finish)
