"""`cofferdam lab`: the simulated water works, its people, and the demo of the gate between them.

Not here: what they do (lab.*). Modules of the lab need pymodbus, so they are imported when asked for.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import json
import os
import shutil
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from cofferdam.errors import CofferdamError, extra


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    from cofferdam.cli.gate_options import add_json

    what = parser.add_subparsers(dest="what", metavar="WHAT", required=True)

    demo = what.add_parser("demo", help="plant, gate, ERP, operator and intruder, live in the terminal")
    demo.add_argument("--tour", action="store_true", help="run unattended, check each promise, exit 1 if one fails")
    demo.add_argument("--seconds", type=float, default=0.0, metavar="N", help="end the demo after N seconds")
    demo.add_argument("--no-namespaces", action="store_true", help="stay on the loopback network even as root")
    demo.add_argument("--state", type=Path, metavar="DIR", help="keep policy, audit log and logs here")
    add_json(demo, "Result", "cofferdam.lab.tour", "with --tour: findings as JSON lines")
    demo.add_argument(
        "--play",
        action="append",
        default=[],
        metavar="NAME",
        help="only this one (water, orders, ...); may be repeated",
    )
    demo.add_argument(
        "--speed-up", type=float, default=60.0, metavar="F", help="simulated seconds per second (default 60)"
    )

    plant = what.add_parser("plant", help="the water works alone, behind its Modbus server")
    plant.add_argument("--address", default="127.0.0.1", help="where to listen (default 127.0.0.1)")
    plant.add_argument("--port", type=int, default=15020, metavar="P", help="0 is any free one (default 15020)")
    plant.add_argument("--seed", type=int, default=7, help="of the sensors' noise")
    plant.add_argument("--speed-up", type=float, default=1.0, metavar="F", help="simulated seconds per second")
    plant.add_argument("--report", type=float, default=0.5, metavar="S", help="seconds between two lines of its state")

    for name, summary, pause in (
        ("erp", "polls the flow total and the tank level", 1.0),
        ("operator", "moves the pump's speed, sometimes too far", 12.0),
        ("intruder", "scans, floods, writes and sends broken frames; only at targets of your own", 5.0),
    ):
        actor = what.add_parser(name, help=summary)
        actor.add_argument("--target", required=True, metavar="ADDRESS:PORT", help="where to connect")
        actor.add_argument("--source", default="", metavar="ADDRESS", help="the local address to connect from")
        actor.add_argument("--driven", action="store_true", help="take commands from stdin, lines of JSON")
        actor.add_argument("--timeout", type=float, default=3.0, metavar="S", help="patience in seconds (default 3)")
        actor.add_argument("--pause", type=float, default=pause, metavar="S", help=f"seconds (default {pause:g})")
    for name, summary, pause in (
        ("mes", "pushes counts of bottles into the relay, pulls orders", 2.0),
        ("erp-desk", "pushes orders into the relay, pulls counts", 7.0),
    ):
        person = what.add_parser(name, help=summary)
        person.add_argument("--door", required=True, metavar="ADDRESS:PORT", help="where the relay answers")
        person.add_argument("--key", required=True, type=Path, metavar="FILE", help="the file with its API key")
        person.add_argument("--source", default="", metavar="ADDRESS", help="the own address to connect from")
        person.add_argument("--driven", action="store_true", help="take commands from stdin, lines of JSON")
        person.add_argument("--pause", type=float, default=pause, metavar="S", help=f"seconds (default {pause:g})")
    plc = what.add_parser("plc", help="a controller that takes firmware by SFTP and starts it")
    plc.add_argument("--address", default="127.0.0.1", help="where to listen (default 127.0.0.1)")
    plc.add_argument("--port", type=int, default=2222, metavar="P", help="0 is any free one (default 2222)")
    plc.add_argument("--folder", required=True, type=Path, metavar="DIR", help="its files, and its own host key")
    site = what.add_parser("vendor", help="a vendor's site by HTTPS: firmware, and advisories of CSAF")
    site.add_argument("--address", default="127.0.0.1", help="where to listen (default 127.0.0.1)")
    site.add_argument("--port", type=int, default=8443, metavar="P", help="0 is any free one (default 8443)")
    site.add_argument("--folder", required=True, type=Path, metavar="DIR", help="its files, and its certificate")
    gateway = what.add_parser("gateway", help="a gateway that polls for images: Debian's swupdate")
    gateway.add_argument("--address", required=True, help="its own, from which it calls")
    gateway.add_argument("--gate", required=True, metavar="ADDRESS:PORT", help="where the gate answers")
    gateway.add_argument("--folder", required=True, type=Path, metavar="DIR", help="its key, its maker's certificate")
    desk = what.add_parser("maintenance", help="brings firmware in and has it approved, again and again")
    desk.add_argument("--folder", required=True, type=Path, metavar="DIR", help="keys of vendor and approvers")
    desk.add_argument("--gate", required=True, type=Path, metavar="DIR", help="the gate's state directory")
    desk.add_argument("--pause", type=float, default=12.0, metavar="S", help="seconds (default 12)")
    filler = what.add_parser("filler", help="a filling line alone, behind its OPC UA server")
    filler.add_argument("--address", default="127.0.0.1", help="where to listen (default 127.0.0.1)")
    filler.add_argument("--port", type=int, default=4840, metavar="P", help="where to listen (default 4840)")
    filler.add_argument("--swapped", action="store_true", help="with its namespaces in another order")
    for name, summary in (
        ("filling-mes", "reads and watches the filling line by OPC UA"),
        ("filling-operator", "sets the filling line's speed by OPC UA"),
    ):
        user = what.add_parser(name, help=summary)
        user.add_argument("--target", required=True, metavar="ADDRESS:PORT", help="where to connect")
        user.add_argument("--source", default="", metavar="ADDRESS", help="the local address to connect from")
        user.add_argument("--keys", required=True, type=Path, metavar="FOLDER", help="own.der and own.pem")
        user.add_argument("--server", required=True, type=Path, metavar="FILE", help="the server's certificate")
        user.add_argument("--password", type=Path, metavar="FILE", help="log in as anna with what stands in this file")
        user.add_argument("--driven", action="store_true", help="take commands from stdin, lines of JSON")
        user.add_argument("--pause", type=float, default=1.0, metavar="S", help="seconds (default 1)")
    add_json(what.add_parser("policy", help="print the policy of the demo"), "Text")
    clean = what.add_parser("clean", help="remove what killed labs left behind: namespaces, temporary directories")
    add_json(clean, "Removed")


def run(args: argparse.Namespace) -> int:
    """Do it; 0, or 1 where the tour found a promise broken. Raises CofferdamError."""
    if args.what == "clean":
        from cofferdam.lab import layout, scene

        removed = (*layout.clean(), *scene.clean())
        if args.json:
            print(json.dumps({"removed": list(map(str, removed))}))
        else:
            print("".join(f"removed {name}\n" for name in removed), end="")
        return 0
    if args.what == "policy":
        from cofferdam.cli.gate_options import print_text
        from cofferdam.lab import layout, play, plays

        stage = plays.plays()
        print_text(args, "policy", play.policy(stage, layout.shipped(plays.spots(stage)))[0])
        return 0
    if importlib.util.find_spec("pymodbus") is None:
        raise CofferdamError("the lab needs pymodbus", hint=extra("lab"))
    with contextlib.suppress(KeyboardInterrupt):
        return _play(args)
    return 130


def _play(args: argparse.Namespace) -> int:
    match args.what:
        case "plant":
            from cofferdam.lab import events
            from cofferdam.lab.water import plant

            if not 0 <= args.port <= 65535 or args.speed_up <= 0:
                raise CofferdamError("a port is 0 to 65535, and --speed-up is above 0")
            settings = plant.Settings(args.address, args.port, args.seed, args.speed_up, args.report)
            asyncio.run(plant.serve(settings, events.printed))
            return 0
        case "demo":
            return _demo(args)
        case "plc":
            from cofferdam.lab.patch import events as patch_events
            from cofferdam.lab.patch import plc

            asyncio.run(plc.serve(args.folder, args.address, args.port, patch_events.printed))
            return 0
        case "vendor":
            from cofferdam.lab.patch import events as patch_events
            from cofferdam.lab.patch import site

            site.serve(args.folder, args.address, args.port, patch_events.printed)
            return 0
        case "gateway":
            from cofferdam.lab.patch import events as patch_events
            from cofferdam.lab.patch import gateway

            asyncio.run(gateway.serve(args.folder, args.address, args.gate, patch_events.printed))
            return 0
        case "maintenance":
            from cofferdam.lab.patch import events as patch_events
            from cofferdam.lab.patch import maintenance

            asyncio.run(maintenance.forever(args.folder, args.gate, args.pause, patch_events.printed))
            return 0
        case "filler":
            from cofferdam.lab import events
            from cofferdam.lab.filling import plant as filler

            asyncio.run(filler.serve(args.address, args.port, args.swapped, events.printed))
            return 0
        case "filling-mes" | "filling-operator":
            _fill(args)
            return 0
        case "mes" | "erp-desk":
            asyncio.run(_exchange(args))
            return 0
        case _:
            asyncio.run(_act(args))
            return 0


def _place(option: str, text: str, example: str) -> tuple[str, int]:
    """ADDRESS:PORT. Raises CofferdamError."""
    address, _, port = text.rpartition(":")
    if not address or not port.isdigit() or not 0 < int(port) < 65536:
        raise CofferdamError(f"{option} {text!r} is not ADDRESS:PORT", hint=f"such as {example}")
    return address.strip("[]"), int(port)


def _fill(args: argparse.Namespace) -> None:
    from cofferdam.lab import events
    from cofferdam.lab.commands import commands
    from cofferdam.lab.filling import people

    address, port = _place("--target", args.target, "127.64.7.31:4840")
    login = ("anna", args.password.read_text()) if args.password is not None else ("", "")
    url = f"opc.tcp://{address}:{port}"
    person = people.Person(args.what, url, args.keys, args.server, login, events.printed)
    with asyncio.Runner(loop_factory=lambda: people.From(args.source)) as runner:
        runner.run(person.drive(commands()) if args.driven else person.forever(args.pause))


async def _exchange(args: argparse.Namespace) -> None:
    from cofferdam.lab.commands import commands
    from cofferdam.lab.orders import events, people

    who = people.person(
        args.what, *_place("--door", args.door, "127.64.8.1:18444"), args.key, args.source, events.printed
    )
    await (who.drive(commands()) if args.driven else who.forever(args.pause, seed=5))


async def _act(args: argparse.Namespace) -> None:
    from cofferdam.lab import events
    from cofferdam.lab.commands import commands
    from cofferdam.lab.water import actors, intruder

    address, port = _place("--target", args.target, "127.64.7.17:15502")
    target = actors.Target(address, port, args.source, timeout=args.timeout)
    if args.what == "intruder":
        guest = intruder.Intruder(target, events.printed)
        await (guest.drive(commands()) if args.driven else guest.forever(pause=args.pause))
        return
    session = actors.Session(args.what, target, events.printed)
    if args.driven:
        await actors.drive(session, commands())
    elif args.what == "erp":
        await actors.erp(session, pause=args.pause)
    else:
        await actors.operator(session, pause=args.pause)


def _demo(args: argparse.Namespace) -> int:
    from cofferdam.lab import demo, layout, plays, tour

    stage = plays.plays(args.play)
    for play in stage:
        if lacks := play.missing():
            if args.play:
                raise CofferdamError(f"the play {play.name} cannot be given here: {lacks}")
            print(f"without the play {play.name}: {lacks}", file=sys.stderr)
    stage = tuple(play for play in stage if not play.missing())
    where: layout.Layout = layout.Loopback(plays.spots(stage))
    if not args.no_namespaces and os.geteuid() == 0 and shutil.which("ip") is not None and not _lacks_namespaces():
        where = layout.Namespaces(plays.spots(stage))
    if args.tour:
        return _until_told(tour.run(where, stage, state=args.state, as_json=args.json))
    if args.seconds < 0 or args.speed_up <= 0:
        raise CofferdamError("--seconds must not be negative, and --speed-up must be above 0")
    return _until_told(demo.run(where, stage, state=args.state, seconds=args.seconds, speed_up=args.speed_up))


def _lacks_namespaces() -> bool:
    """Whether the gate could not make namespaces here, though it runs as root."""
    from cofferdam.enforce.kernel import missing_capabilities
    from cofferdam.enforce.users import NEEDED

    sbin = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    return bool(missing_capabilities(NEEDED)) or shutil.which("nft", path=sbin) is None


def _until_told(work: Coroutine[Any, Any, int]) -> int:
    """Run it; at SIGTERM it is cancelled, so that it cleans up as at Ctrl-C."""

    async def main() -> int:
        task = asyncio.current_task()
        if task is not None:
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await work

    try:
        return asyncio.run(main())
    except asyncio.CancelledError:
        return 128 + signal.SIGTERM
