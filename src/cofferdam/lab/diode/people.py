"""Who is at the two ends: a flow meter and the works' book-keeping inside, and a regulator outside.

The meter counts one litre each time it is looked at, so that of all that it ever said nothing can be missing outside
without leaving a hole. Left alone they work at their own pace; driven (commands on stdin) they do one thing at a time
and say `Done` after it. Run as `python -m cofferdam.lab.diode.people meter|works|regulator ...`.
"""

from __future__ import annotations

import argparse
import asyncio
import calendar
import http.client
import json
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from cofferdam.errors import CofferdamError
from cofferdam.lab.commands import commands
from cofferdam.lab.diode import events
from cofferdam.lab.orders.door import PATIENCE_SECONDS, Door

TOTAL = 100
"""The holding register in which the total begins."""
TAG = "flow-meter.flow_total"
CHANNEL = "daily"
PACE_SECONDS = 2.0
REPORT_EVERY = 5
"""Turns of the works between two reports."""
STUBBORN_SECONDS = 120.0


class Meter(ModbusTcpServer):
    """A Modbus device with one total."""

    def __init__(self, address: str, port: int, sink: events.Sink) -> None:
        self.total = 0
        self.sink = sink
        none = [SimData(0, count=16, values=False, datatype=DataType.BITS)]
        cells = [SimData(TOTAL, count=2, values=0, datatype=DataType.REGISTERS)]
        device = SimDevice(1, simdata=(none, none, cells, cells), action=self._asked)
        super().__init__(device, address=(address, port))

    async def _asked(
        self, function: int, start: int, address: int, count: int, current: list[int], values: object
    ) -> ExcCodes | None:
        """pymodbus asks before each access: the total goes on, and stands where it will look for it."""
        if values is not None:
            return ExcCodes.ILLEGAL_FUNCTION
        if function == 3:
            self.total += 1
            current[TOTAL - start : TOTAL - start + 2] = divmod(self.total, 1 << 16)
            self.sink(events.Metered(self.total))
        return None


async def meter(at: tuple[str, int], sink: events.Sink) -> None:
    """Runs it until SIGTERM. Raises CofferdamError where it cannot listen there."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    server = Meter(*at, sink)
    try:
        await server.serve_forever(background=True)
    except RuntimeError as error:
        raise CofferdamError(f"the meter cannot listen at {at[0]}:{at[1]}: {error}") from error
    sink(events.Listening(*at))
    await stop.wait()
    await server.shutdown()  # type: ignore[no-untyped-call]


class Works:
    """Pushes the day's counts into the relay, and leaves reports in a folder."""

    def __init__(self, door: Door, folder: Path, sink: events.Sink) -> None:
        self.door, self.folder, self.sink = door, folder, sink
        self.number = 0

    def push(self, count: int) -> None:
        """So many counts, each until it is acknowledged."""
        first, status, detail = self.number + 1, 0, ""
        for _ in range(count):
            self.number += 1
            until = time.monotonic() + STUBBORN_SECONDS
            while True:
                answer = self.door.push(CHANNEL, f"count-{self.number}", {"n": self.number})
                status, detail = answer.status, answer.detail
                if status not in (0, 503) or time.monotonic() > until:
                    break
                time.sleep(0.1)
        self.sink(events.Told(first, self.number, status, detail))

    async def drive(self) -> None:
        """push: `count` of them."""
        async for command in commands():
            await asyncio.to_thread(self.push, command.count)
            self.sink(events.Done("works", command.do))

    async def forever(self) -> None:
        """A count now and then, and a report of the last ones."""
        while True:
            await asyncio.to_thread(self.push, 1)
            if self.number % REPORT_EVERY == 0:
                leave(self.folder, f"report-{self.number}.csv", f"counts,{self.number}\n".encode())
            await asyncio.sleep(PACE_SECONDS)


def leave(folder: Path, name: str, data: bytes) -> None:
    """A file in a folder, whole or not at all."""
    hidden = folder / f".{name}"
    hidden.write_bytes(data)
    hidden.chmod(0o644)
    hidden.rename(folder / name)


class Regulator:
    """Reads the mirror outside, and takes counts out of the relay there."""

    def __init__(self, history: tuple[str, int], key: str, door: Door, source: str, sink: events.Sink) -> None:
        self._history, self._key, self._source = history, key, (source, 0) if source else None
        self.door, self.sink = door, sink
        self.taken = 0

    def get(self, path: str) -> tuple[int, bytes]:
        """One request: status (0: no answer) and body."""
        connection = http.client.HTTPConnection(*self._history, timeout=PATIENCE_SECONDS, source_address=self._source)
        try:
            connection.request("GET", path, headers={"Authorization": f"Bearer {self._key}"})
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            return 0, str(error).encode()
        finally:
            connection.close()

    def totals(self) -> events.Regulated:
        """All totals that are outside, in the order of their times."""
        status, said = self.get(f"/v1/samples?tags={TAG}&last=1h&format=ndjson&limit=1000000")
        if status != 200:
            return events.Regulated("totals", status, detail=said[:500].decode(errors="replace"))
        return events.Regulated("totals", status, tuple(int(json.loads(line)["value"]) for line in said.splitlines()))

    def counts(self) -> events.Regulated:
        """What the relay has for the regulator now; it is settled."""
        found: list[int] = []
        while True:
            answer = self.door.ask("POST", f"{CHANNEL}/lease", {"max": 1000, "seconds": 30})
            missing = tuple((int(first), int(last)) for first, last in answer.said.get("missing", ()))
            handed = answer.said.get("messages") or ()
            if not handed:
                break
            found += [int(one["data"]["n"]) for one in handed]
            self.door.done(CHANNEL, str(answer.said["lease"]), [int(one["number"]) for one in handed])
        self.taken += len(found)
        return events.Regulated("counts", answer.status, tuple(found), missing, detail=answer.detail)

    async def drive(self) -> None:
        """totals, counts."""
        async for command in commands():
            work = {"totals": self.totals, "counts": self.counts}.get(command.do)
            if work is None:
                raise CofferdamError(f"the regulator knows no command {command.do!r}", hint="totals, counts")
            self.sink(await asyncio.to_thread(work))
            self.sink(events.Done("regulator", command.do))

    async def forever(self) -> None:
        """Looks at the newest total, and takes what counts there are, once a second."""
        while True:
            status, said = await asyncio.to_thread(self.get, f"/v1/at?tag={TAG}")
            values, behind = [], 0
            if status == 200:
                (found,) = json.loads(said)["values"]
                if found["of"]:
                    values.append(int(found["value"]))
                    at = calendar.timegm(time.strptime(found["of"][:19], "%Y-%m-%dT%H:%M:%S"))
                    behind = max(0, int(1000 * (time.time() - at - float("0." + found["of"][20:29]))))
            self.sink(events.Regulated("total", status, tuple(values), behind_ms=behind))
            self.sink(await asyncio.to_thread(self.counts))
            await asyncio.sleep(1.0)


def _place(text: str) -> tuple[str, int]:
    address, _, port = text.rpartition(":")
    return address, int(port)


def main(argv: Sequence[str] | None = None) -> int:
    """One of the three."""
    parser = argparse.ArgumentParser(prog="cofferdam-lab-diode")
    parser.add_argument("who", choices=["meter", "works", "regulator"])
    parser.add_argument("--at", type=_place, help="meter: where it listens; else the relay's door")
    parser.add_argument("--key", type=Path, help="the relay's")
    parser.add_argument("--history", type=_place)
    parser.add_argument("--history-key", type=Path)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--source", default="")
    parser.add_argument("--driven", action="store_true")
    args = parser.parse_args(argv)
    try:
        if args.who == "meter":
            asyncio.run(meter(args.at, events.printed))
            return 0
        address, port = args.at
        door = Door(address, port, args.key.read_text(encoding="ascii").strip(), args.source)
        person: Works | Regulator
        if args.who == "works":
            person = Works(door, args.folder, events.printed)
        else:
            key = args.history_key.read_text(encoding="ascii").strip()
            person = Regulator(args.history, key, door, args.source, events.printed)
        asyncio.run(person.drive() if args.driven else person.forever())
    except CofferdamError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
