"""`cofferdam learn CAPTURE`: the smallest policy that allows what a capture shows, ready to edit.

The policy goes to stdout or a file, remarks on the capture to stderr. Exit code 0: done; 2: bad capture, or no request
in it. Not here: learning (capture.learn).
"""

from __future__ import annotations

import argparse
import ipaddress
import sys
from pathlib import Path

import msgspec

from cofferdam.audit.lines import escaped_json
from cofferdam.capture.learn import learn
from cofferdam.capture.seen import Network
from cofferdam.cli import capturing
from cofferdam.cli.findings import count_of
from cofferdam.cli.gate_options import add_json
from cofferdam.errors import CaptureError, PolicyError
from cofferdam.policy.load import loads
from cofferdam.policy.syntax import FILL_IN

TOLD = 8
"""So many kinds of what was left out are told on one line; the policy's head has all of them."""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("capture", type=Path, metavar="CAPTURE", help="a pcap or pcapng file")
    parser.add_argument(
        "--it", action="append", default=[], type=_network, metavar="CIDR",
        help="only clients in this network count, other traffic does not cross between the sides; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--ot", action="append", default=[], type=_network, metavar="CIDR",
        help="only servers in this network count; may be repeated",
    )  # fmt: skip
    capturing.add_port(parser)
    parser.add_argument("--site", default=FILL_IN, type=_site, metavar="NAME", help="the site's name")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="write the policy here; an existing file is never overwritten"
    )
    add_json(parser, "Learned", "cofferdam.capture.learn", "print the policy's text and what was read as JSON")


def run(args: argparse.Namespace) -> int:
    """Learn, and print or write the policy. Raises: CaptureError."""
    with capturing.opened(args.capture) as (stream, tick):
        learned = learn(
            stream, str(args.capture), it=args.it, ot=args.ot, ports=dict(args.port), site=args.site, progress=tick
        )
    reading = learned.reading
    if learned.requests:
        try:
            loads(learned.text.replace(FILL_IN, "filled-in"))
        except PolicyError as error:  # a bug of ours: better said than found out later
            raise CaptureError(f"the learned policy does not load: {error.problems}") from error
        if args.json:
            sys.stdout.write(escaped_json(msgspec.json.format(msgspec.json.encode(learned), indent=2).decode()) + "\n")
            args.answered = True
        if args.output is not None:
            _write(args.output, learned.text)
        elif not args.json:
            sys.stdout.write(learned.text)
    if not args.json:
        for line in capturing.state_lines(reading, learned.links, learned.remarks, learned.remarks_total):
            print(line, file=sys.stderr)
        print(
            f"learned from {count_of(learned.requests, 'requests')}: {count_of(learned.clients, 'clients')}, "
            f"{count_of(learned.assets, 'assets')}, {count_of(learned.points, 'written points')}; "
            f"left out: {learned.malformed} malformed, {count_of(learned.left_out, 'others')}",
            file=sys.stderr,
        )
    if reading.error:
        raise CaptureError(reading.error, hint=reading.hint)
    if not learned.requests and learned.left_out:
        raise CaptureError(
            f"{reading.name}: all {learned.left_out} requests concern clients or servers outside the given networks",
            hint="widen --it or --ot",
        )
    if not learned.requests:
        if learned.foreign or learned.others:
            raise CaptureError(
                f"{reading.name}: nothing was learned: {'; '.join((*learned.foreign, *learned.others))}",
                hint="for a device that speaks so towards the gate: quirks: [rtu_over_tcp]"
                if learned.foreign
                else "such are refused; a Modbus asset may name functions of its vendor's (docs/devices.md)",
            )
        raise capturing.nothing_found(reading, learned.malformed, learned.links)
    if learned.foreign or learned.others:
        told = (*learned.foreign, *learned.others)
        more = f"; and {len(told) - TOLD} kinds more, which the policy's head names" if len(told) > TOLD else ""
        print(f"left out besides: {'; '.join(told[:TOLD])}{more}", file=sys.stderr)
    return 0


def _write(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise CaptureError(f"{path} exists", hint="name another file: an existing one is never overwritten") from None
    except OSError as error:
        raise CaptureError(f"{path} cannot be written: {error.strerror or error}") from None


def _network(text: str) -> Network:
    """A value of --it and --ot. Raises: argparse.ArgumentTypeError."""
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a network such as 10.1.0.0/16") from None


def _site(text: str) -> str:
    """A value of --site. Raises: argparse.ArgumentTypeError."""
    first, rest = text[:1], text[1:]
    if not (text.isascii() and first.isalnum() and len(text) <= 63 and all(c.isalnum() or c in "._-" for c in rest)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a name of letters, digits, . _ - (at most 63)")
    return text
