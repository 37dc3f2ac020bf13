"""The office: a SCADA system on pylogix, a scanner and an intruder by raw bytes. Driven by commands, or at work by
itself.

Commands: `tags`; `read` A B ...; `write` NAME a value; `several` A=1 B=2; `stop`, `reset`, `slot`, `number`, `third`,
which an intruder tries; `drive`: the scanner says a reference for `seconds`.

Not here: anything of Cofferdam but how events are printed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import socket
import struct
import time
from collections.abc import AsyncIterator
from typing import Any

from pylogix import PLC, lgx_comm

from cofferdam.lab.commands import commands
from cofferdam.lab.packer import events

Place = tuple[str, int]
SECONDS = 60.0
UDP = 2222
SILENT_SECONDS = 1.0
"""Nothing has come for so long: the connection has ended."""
PACKETS = 30
"""That a scanner says at least, however slow the machine."""
TRIED = {
    "stop": b"\x07\x02\x20\x8e\x24\x01",
    "reset": b"\x05\x02\x20\x01\x24\x01",
    "slot": b"\x52\x02\x20\x06\x24\x01\x07\x28\x0a\x00\x4c\x03\x91\x04Pump\x01\x00\x01\x00\x01\x03",
    "number": b"\x4c\x02\x20\x6b\x24\x07\x01\x00",
}


class _From:
    """The module `socket` to pylogix, which has no option for the own address to connect from."""

    def __init__(self, source: str) -> None:
        self._source = source

    def __getattr__(self, name: str) -> Any:
        return getattr(socket, name)

    def socket(self) -> socket.socket:
        """A socket at that address."""
        made = socket.socket()
        made.bind((self._source, 0))
        return made


class Raw:
    """One session by raw bytes, from an address of one's own."""

    def __init__(self, place: Place, source: str) -> None:
        self.place = place
        self._socket = socket.create_connection(place, SECONDS, (source, 0) if source else None)
        self._socket.sendall(struct.pack("<HHII8sI", 0x65, 4, 0, 0, bytes(8), 0) + b"\1\0\0\0")
        self._session = self._frame()[4:8]

    def _frame(self) -> bytes:
        data = b""
        while len(data) < 24 or len(data) < 24 + int.from_bytes(data[2:4], "little"):
            piece = self._socket.recv(4096)
            if not piece:
                raise ConnectionResetError("closed")
            data += piece
        return data

    def ask(self, cip: bytes, beside: bytes = b"") -> bytes:
        """The answer's CIP."""
        items = 2 + (1 if beside else 0)
        body = bytes(6) + struct.pack("<HHHHH", items, 0, 0, 0xB2, len(cip)) + cip + beside
        self._socket.sendall(struct.pack("<HH4sI8sI", 0x6F, len(body), self._session, 0, b"a person", 0) + body)
        return self._frame()[40:]

    def open(self, serial: int, rpi: int, beside: bytes = b"") -> tuple[str, int]:
        """The status of a Forward Open to the drive, and the id for what is sent to it."""
        # It times out after 64 packets' time: a process of a busy machine has no turn for longer than 16.
        body = struct.pack("<BBIIHHIB3xIHIHBB", 10, 14, 0, 0x5CA00000 + serial, serial, 77, 4711, 4, rpi, 0x480A, rpi,
                           0x480A, 1, 4)  # fmt: skip
        answer = self.ask(b"\x54\x02\x20\x06\x24\x01" + body + b"\x20\x04\x24\x97\x2c\x96\x2c\x64", beside)
        return status(answer), int.from_bytes(answer[4:8], "little")

    def close(self) -> None:
        self._socket.close()


def status(answer: bytes) -> str:
    """An answer's status as it is written: 00, 0F, 01/0311."""
    words = struct.unpack_from(f"<{answer[3]}H", answer, 4)
    return "/".join([f"{answer[2]:02X}", *(f"{word:04X}" for word in words[:1])])


class Office:
    """All of them; `controller` and `drive` are where the gate answers."""

    def __init__(self, controller: Place, drive: Place, source: str, sink: events.Sink) -> None:
        self.controller = controller
        self.drive = drive
        self.source = source
        self.sink = sink
        lgx_comm.socket = _From(source)
        self._serial = random.randrange(1, 60_000)  # noqa: S311  a name, and no secret

    def _plc(self) -> PLC:
        plc = PLC(self.controller[0], port=self.controller[1])
        plc.SocketTimeout = SECONDS
        return plc

    def do(self, command: events.Command) -> tuple[str, ...]:
        """What comes of one command."""
        words = command.point.split()
        with contextlib.suppress(ConnectionError, TimeoutError):
            match command.do:
                case "tags":
                    with self._plc() as plc:
                        return tuple(tag.TagName for tag in plc.GetTagList().Value or ())
                case "read":
                    with self._plc() as plc:
                        found = plc.Read(words) if len(words) > 1 else [plc.Read(words[0])]
                        return tuple(f"{one.Status}: {one.Value}" for one in found)
                case "write":
                    with self._plc() as plc:
                        return (plc.Write(words[0], int(command.value), 0xC4).Status,)
                case "several":
                    with self._plc() as plc:
                        pairs = [(name, int(value), 0xC4) for name, _, value in (word.partition("=") for word in words)]
                        return tuple(one.Status for one in plc.Write(pairs))
                case "stop" | "reset" | "slot" | "number":
                    return self._raw(self.controller, TRIED[command.do])
                case "third":
                    address = b"\x01\x80\x10\x00\x00\x02\x08\xae" + bytes([10, 9, 9, 9]) + bytes(8)
                    raw = Raw(self.drive, self.source)
                    try:
                        return (raw.open(self._next(), 20_000, address)[0],)
                    finally:
                        raw.close()
                case "drive":
                    return self._scan(int(command.value), command.seconds)
        return ("closed",)

    def _next(self) -> int:
        self._serial = self._serial % 65_000 + 1
        return self._serial

    def _raw(self, place: Place, cip: bytes) -> tuple[str, ...]:
        raw = Raw(place, self.source)
        try:
            return (status(raw.ask(cip)),)
        finally:
            raw.close()

    def _scan(self, value: int, seconds: float) -> tuple[str, ...]:
        """Opens, says a reference every 20 ms until it is followed or nothing comes, and falls silent until the
        connection has ended: how the opening was answered, the last input."""
        raw = Raw(self.drive, self.source)
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        heard = 0
        try:
            udp.bind((self.source, UDP))
            told, number = raw.open(self._next(), 20_000)
            until, sequence, last = time.monotonic() + seconds, 0, time.monotonic()
            while told == "00" and (
                time.monotonic() < until
                or sequence < PACKETS
                or (heard != value and time.monotonic() < last + SILENT_SECONDS)
            ):
                sequence += 1
                data = struct.pack("<HIi", sequence & 0xFFFF, 1, value)
                head = struct.pack("<HHHIIHH", 2, 0x8002, 8, number, sequence, 0xB1, len(data))
                udp.sendto(head + data, (self.drive[0], UDP))
                udp.settimeout(0.02)
                with contextlib.suppress(TimeoutError):
                    heard = int.from_bytes(udp.recv(2000)[20:24], "little", signed=True)
                    last = time.monotonic()
            udp.settimeout(SILENT_SECONDS)
            with contextlib.suppress(TimeoutError):
                while told == "00" and udp.recv(2000):
                    pass  # until the watchdogs end it
            return told, str(heard)
        finally:
            udp.close()
            raw.close()

    async def forever(self) -> None:
        """Reads, and writes now and then, sometimes too far."""
        dice = random.Random(3)  # noqa: S311  a person's moods
        value = 1000
        while True:
            asked = events.Command("read", "Pump Level Counts[0]")
            self.sink(events.Told("scada", "read", await asyncio.to_thread(self.do, asked)))
            step = dice.choice((40, -40, 400))
            asked = events.Command("write", "Pump", value=value + step)
            told = await asyncio.to_thread(self.do, asked)
            value += step if told == ("Success",) else 0
            self.sink(events.Told("scada", f"write Pump {int(asked.value)}", told))
            asked = events.Command("drive", value=float(dice.randrange(600, 1600)), seconds=1.0)
            self.sink(events.Told("scanner", f"drive {asked.value:g}", await asyncio.to_thread(self.do, asked)))
            await asyncio.sleep(2)

    async def drive_by(self, source: AsyncIterator[events.Command]) -> None:
        """Does what each command says, then says Done."""
        async for command in source:
            told = await asyncio.to_thread(self.do, command)
            self.sink(events.Told("office", f"{command.do} {command.point}".strip(), told))
            self.sink(events.Done("office", command.do))


def main() -> None:
    """`python -m cofferdam.lab.packer.people --controller ADDRESS:PORT --drive ADDRESS:PORT --source ADDRESS`."""
    parser = argparse.ArgumentParser()
    for option in ("--controller", "--drive", "--source"):
        parser.add_argument(option, required=True)
    parser.add_argument("--driven", action="store_true")
    args = parser.parse_args()
    places = [(text.rpartition(":")[0], int(text.rpartition(":")[2])) for text in (args.controller, args.drive)]
    office = Office(places[0], places[1], args.source, events.printed)
    asyncio.run(office.drive_by(commands()) if args.driven else office.forever())


if __name__ == "__main__":
    main()
