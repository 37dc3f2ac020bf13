"""The uninvited guest: scans ports, functions and addresses, writes what must not be written, sends broken frames,
floods. Hand-made sockets and bytes throughout, since a library would refuse to say such things.

Everything returns a `Summary` of outcomes by kind, and `Experience`s for what deserves a line of its own. The
intruder judges nothing: whether "exception 2" is good news is for the tour to say.

Not here: anything that could harm a host; all of it is Modbus TCP towards one address.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import random
import struct
import time
from collections.abc import AsyncIterator, Iterable

from cofferdam.errors import CofferdamError
from cofferdam.lab.water import events, registers
from cofferdam.lab.water.actors import Target

PORTS = (21, 22, 23, 80, 102, 443, 502, 802, 1911, 2222, 2404, 4840, 9600, 18245, 20000, 34964, 44818, 47808)
"""What scanners of plants try first: the ports of the common industrial protocols and of administration."""

HANDS = 8
"""Attempts that the intruder makes at the same time."""


def adu(pdu: bytes, *, transaction: int = 1, protocol: int = 0, unit: int = registers.UNIT, length: int = -1) -> bytes:
    """A Modbus TCP frame; `length` < 0 is the right one."""
    return struct.pack(">HHHB", transaction, protocol, len(pdu) + 1 if length < 0 else length, unit) + pdu


def function_probe(function: int) -> bytes:
    """A well-formed request of `function` where the standard defines one, else four zero bytes after the code."""
    body = {
        1: b"\0\0\0\x01", 2: b"\0\0\0\x01", 3: b"\0\xc8\0\x01", 4: b"\0\x0c\0\x02",
        5: b"\0\x08\xff\0", 6: b"\0\xc8\x05\xdc", 7: b"", 8: b"\0\0\x12\x34", 11: b"", 12: b"",
        15: b"\0\x08\0\x01\x01\x01", 16: b"\0\xc8\0\x01\x02\x05\xdc", 17: b"",
        20: b"\x07\x06\0\x01\0\0\0\x01", 21: b"\x09\x06\0\x01\0\0\0\x01\0\0",
        22: b"\0\xc8\0\0\x05\xdc", 23: b"\0\xc8\0\x01\0\xc8\0\x01\x02\x05\xdc", 24: b"\0\0",
        43: b"\x0e\x01\0",
    }.get(function, b"\0\0\0\0")  # fmt: skip
    return bytes([function]) + body


def forbidden_writes() -> list[tuple[str, bytes]]:
    """Writes of every function that can write, to safety settings and to the pump."""
    trip = registers.BY_NAME["low_level_trip"].start
    bypass = registers.BY_NAME["trip_bypass"].start
    enable = registers.BY_NAME["pump_enable"].start
    speed = registers.BY_NAME["pump_speed"].start
    return [
        ("bypass the interlock (FC 5)", struct.pack(">BHH", 5, bypass, 0xFF00)),
        ("stop the pump (FC 5)", struct.pack(">BHH", 5, enable, 0)),
        ("bypass the interlock (FC 15)", struct.pack(">BHHBB", 15, bypass, 1, 1, 1)),
        ("trip level to zero (FC 6)", struct.pack(">BHH", 6, trip, 0)),
        ("trip and alarm levels (FC 16)", struct.pack(">BHHBHH", 16, trip, 2, 4, 0, 0xFFFF)),
        ("trip level by mask (FC 22)", struct.pack(">BHHH", 22, trip, 0, 0)),
        ("pump to top speed (FC 6)", struct.pack(">BHH", 6, speed, 0xFFFF)),
        ("pump, mildly (FC 6)", struct.pack(">BHH", 6, speed, 910)),
        ("pump, read and write (FC 23)", struct.pack(">BHHHHBH", 23, speed, 1, speed, 1, 2, 1490)),
        ("file record (FC 21)", b"\x15\x09\x06\0\x01\0\0\0\x01\xde\xad"),
        ("restart communications (FC 8/1)", b"\x08\0\x01\0\0"),
    ]


def malformed_frames(seed: int = 3) -> list[tuple[str, bytes]]:
    """Frames that break the standard, each in one way, named for people. Deterministic by `seed`."""
    noise = random.Random(seed)  # noqa: S311  rubbish on purpose
    read = b"\x03\0\xc8\0\x01"
    good = adu(read)
    return [
        ("protocol id 1", adu(read, protocol=1)),
        ("length 0", struct.pack(">HHH", 1, 0, 0) + b"\x01" + read),
        ("length 1: no function code", struct.pack(">HHHB", 1, 0, 1, 1)),
        ("length 65535", adu(read, length=65535)),
        ("length 255: one above the limit", adu(b"\x03" + bytes(253), length=255)),
        ("spare bytes after a read", adu(read + b"\xaa\xbb")),
        ("read without a quantity", adu(b"\x03\0\xc8")),
        ("quantity 0", adu(b"\x03\0\xc8\0\0")),
        ("quantity 126", adu(b"\x03\0\0\0\x7e")),
        ("65535 + 2 registers", adu(b"\x03\xff\xff\0\x02")),
        ("byte count does not fit the quantity", adu(b"\x10\0\xc8\0\x01\x04\x05\xdc")),
        ("fewer values than counted", adu(b"\x10\0\xc8\0\x02\x04\x05\xdc")),
        ("coil value 0x1234", adu(b"\x05\0\0\x12\x34")),
        ("function code 0", adu(b"\0\0\0\0\0")),
        ("an exception as a request", adu(b"\x83\x02")),
        ("unit 9, which is nobody", adu(read, unit=9)),
        ("half a header", good[:4]),
        ("half a frame", good[:9]),
        ("a good frame, then rubbish", good + noise.randbytes(60)),
        ("rubbish", noise.randbytes(300)),
        ("a TLS hello", bytes.fromhex("16030100c8010000c40303") + noise.randbytes(194)),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: plc-7\r\n\r\n"),
        ("Modbus RTU with CRC", bytes.fromhex("0103 00c8 0001 05f4".replace(" ", ""))),
        ("1,000 zero bytes", bytes(1000)),
    ]


class Intruder:
    """One intruder at one target."""

    def __init__(self, target: Target, sink: events.Sink, *, who: str = "intruder") -> None:
        self.who = who
        self.target = target
        self.sink = sink

    async def _open(self, port: int = 0) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.wait_for(
            asyncio.open_connection(
                self.target.address,
                port or self.target.port,
                local_addr=(self.target.source, 0) if self.target.source else None,
            ),
            self.target.timeout,
        )

    async def exchange(self, frame: bytes, *, patience: float = 0.0) -> tuple[str, int]:
        """Send bytes on a connection of its own and name what came back first."""
        try:
            reader, writer = await self._open()
        except (OSError, TimeoutError) as error:
            return ("refused" if isinstance(error, ConnectionRefusedError) else "unreachable"), 0
        try:
            writer.write(frame)
            await writer.drain()
            header = await asyncio.wait_for(reader.readexactly(8), patience or self.target.timeout)
        except TimeoutError:
            return "timeout", 0
        except (asyncio.IncompleteReadError, ConnectionError):
            return "closed", 0
        else:
            if header[7] & 0x80:
                try:
                    return "exception", (await asyncio.wait_for(reader.readexactly(1), self.target.timeout))[0]
                except (asyncio.IncompleteReadError, ConnectionError, TimeoutError):
                    return "garbled", 0
            return "ok", 0
        finally:
            await _close(writer)

    def _tell(self, action: str, outcome: str, exception: int, frame: bytes, started: int) -> None:
        self.sink(
            events.Experience(
                self.who, action, outcome, exception=exception, function=frame[7] if len(frame) > 7 else 0,
                micros=(time.perf_counter_ns() - started) // 1000,
            )
        )  # fmt: skip

    async def _try(self, action: str, attempts: Iterable[tuple[str, bytes]], patience: float) -> events.Summary:
        counts: collections.Counter[str] = collections.Counter()
        hands = asyncio.Semaphore(HANDS)

        async def one(name: str, frame: bytes) -> None:
            async with hands:
                started = time.perf_counter_ns()
                outcome, exception = await self.exchange(frame, patience=patience)
                counts[_kind(outcome, exception)] += 1
                self._tell(f"{action}: {name}", outcome, exception, frame, started)

        async with asyncio.TaskGroup() as group:
            for name, frame in attempts:
                group.create_task(one(name, frame))
        summary = events.Summary(self.who, action, dict(counts))
        self.sink(summary)
        return summary

    async def ports(self) -> events.Summary:
        """Which ports answer a connection at the target's address."""
        counts: collections.Counter[str] = collections.Counter()
        found = []
        for port in (*PORTS, self.target.port):
            try:
                _, writer = await self._open(port)
            except ConnectionRefusedError:
                counts["refused"] += 1
            except (OSError, TimeoutError):
                counts["unreachable"] += 1
            else:
                counts["open"] += 1
                found.append(port)
                await _close(writer)
        summary = events.Summary(self.who, "ports", dict(counts), detail="open: " + (", ".join(map(str, found)) or "-"))
        self.sink(summary)
        return summary

    async def functions(self) -> events.Summary:
        """Every function code from 1 to 127, once."""
        probes = ((f"FC {code}", adu(function_probe(code))) for code in range(1, 128))
        return await self._try("functions", probes, 0.0)

    async def addresses(self, step: int = 1024) -> events.Summary:
        """Reads of every table, all over the address range."""
        probes = [
            (f"FC {code} at {start}", adu(struct.pack(">BHH", code, start, 1)))
            for code in (1, 2, 3, 4)
            for start in (*range(0, 65536, step), 100, 200, 300)
        ]
        return await self._try("addresses", probes, 0.0)

    async def writes(self) -> events.Summary:
        """Everything that could do harm."""
        return await self._try("writes", ((name, adu(pdu)) for name, pdu in forbidden_writes()), 0.0)

    async def malformed(self) -> events.Summary:
        """Frames that are none. Half a frame gets no answer at once, so the patience is short."""
        return await self._try("malformed", malformed_frames(), 0.5)

    async def flood(self, seconds: float, connections: int = 40) -> events.Summary:
        """As many reads as fit through `connections` connections in `seconds`, several in a segment."""
        counts: collections.Counter[str] = collections.Counter()
        ends = time.monotonic() + seconds
        burst = b"".join(adu(b"\x03\0\xc8\0\x01", transaction=number) for number in range(8))

        async def one() -> None:
            while time.monotonic() < ends:
                try:
                    reader, writer = await self._open()
                except (OSError, TimeoutError):
                    counts["no connection"] += 1
                    await asyncio.sleep(0.05)
                    continue
                try:
                    while (left := ends - time.monotonic()) > 0:
                        writer.write(burst)
                        await asyncio.wait_for(writer.drain(), left + 0.1)
                        data = await asyncio.wait_for(reader.read(4096), left + 0.1)
                        if not data:
                            counts["closed"] += 1
                            await asyncio.sleep(0.02)
                            break
                        for kind in _answers(data):
                            counts[kind] += 1
                except TimeoutError:
                    counts["timeout"] += 1
                except ConnectionError:
                    counts["closed"] += 1
                finally:
                    await _close(writer)

        async with asyncio.TaskGroup() as group:
            for _ in range(connections):
                group.create_task(one())
        summary = events.Summary(self.who, "flood", dict(counts), detail=f"{connections} connections, {seconds:g} s")
        self.sink(summary)
        return summary

    async def drive(self, source: AsyncIterator[events.Command]) -> None:
        """Do what each command says, then say Done."""
        async for command in source:
            match command.do:
                case "ports":
                    await self.ports()
                case "functions":
                    await self.functions()
                case "addresses":
                    await self.addresses()
                case "writes":
                    await self.writes()
                case "malformed":
                    await self.malformed()
                case "flood":
                    await self.flood(command.seconds or 2.0)
                case "reach":  # is there a road to the device itself, past the gate?
                    aim = Target(command.address, command.port, self.target.source, timeout=self.target.timeout)
                    outcome, code = await Intruder(aim, self.sink).exchange(adu(b"\x03\0\xc8\0\x01"))
                    self.sink(events.Experience(self.who, f"reach {command.address}", outcome, exception=code))
                case _:
                    raise CofferdamError(
                        f"the intruder knows no command {command.do!r}",
                        hint="ports, functions, addresses, writes, malformed, flood, reach",
                    )
            self.sink(events.Done(self.who, command.do))

    async def forever(self, *, pause: float = 5.0) -> None:
        """One mischief after the other, with rests."""
        while True:
            for mischief in (self.writes, self.ports, self.malformed, self.functions, self.addresses):
                await mischief()
                await asyncio.sleep(pause)
            await self.flood(2.0)
            await asyncio.sleep(pause)


def _kind(outcome: str, exception: int) -> str:
    return f"exception {exception}" if outcome == "exception" else outcome


def _answers(data: bytes) -> Iterable[str]:
    """The kinds of the whole answers in `data`; what is cut off at the end is left out."""
    at = 0
    while at + 9 <= len(data):
        length = int.from_bytes(data[at + 4 : at + 6], "big")
        yield f"exception {data[at + 8]}" if data[at + 7] & 0x80 else "ok"
        at += 6 + length


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError, TimeoutError):
        await asyncio.wait_for(writer.wait_closed(), 1.0)
