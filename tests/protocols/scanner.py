"""I/O for tests: an adapter of other hands (cm-ethernetip) as the drive, and a scanner written byte by byte.

The scanner takes nothing from the product, so that a mistake of it is none of both.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable

from ethernetip.cip.identity_info import IdentityInfo
from ethernetip.device.virtual_device import VirtualDevice

from tests.ports import held_port
from tests.waiting import PATIENT, eventually

OUTPUTS, INPUTS, CONFIG, HEARTBEAT = 150, 100, 151, 193
UDP = 2222


class Drive:
    """A drive: 4 bytes of outputs (its reference), 8 of inputs. Its TCP port is free, its UDP port the usual one."""

    def __init__(self, address: str = "127.0.0.2") -> None:
        self.address = address
        self.port = held_port()
        self.references: list[int] = []
        """What it was told, each value once for each change of it."""
        self._up = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        async def main() -> None:
            identity = IdentityInfo(vendor_id=1, device_type=2, product_code=3, serial_number=7, product_name="Drive")
            async with VirtualDevice(identity, self.address) as device:
                self.device = device
                outputs = device.add_assembly(OUTPUTS, 4)
                device.add_assembly(INPUTS, 8)
                device.add_assembly(CONFIG, 0)
                device.add_assembly(HEARTBEAT, 0)
                outputs.on_data_changed.append(self._told)
                await device.start(self.port, UDP)
                self._up.set()
                await self._stop.wait()
            # Those that still serve a connection are not left to the collector.
            left = asyncio.all_tasks() - {asyncio.current_task()}
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

        self._stop = asyncio.Event()
        self._loop.run_until_complete(main())

    def _told(self, _number: int, data: bytes) -> None:
        value = int.from_bytes(data[:4], "little")
        if not self.references or self.references[-1] != value:
            self.references.append(value)

    def say(self, data: bytes) -> None:
        """What its inputs are from now on."""
        self.device.assemblies.assemblies[INPUTS].set_data(data)

    @property
    def connections(self) -> int:
        return len(self.device.connection_manager.active_connections)

    def start(self) -> Drive:
        self._thread.start()
        assert self._up.wait(PATIENT)
        return self

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENT)
        self._loop.close()


class Scanner:
    """One TCP connection and one I/O connection at most, from an address of its own."""

    def __init__(self, port: int, source: str = "127.0.0.9", gate: str = "127.0.0.1") -> None:
        self._gate = gate
        self._socket = socket.create_connection((gate, port), PATIENT, (source, 0))
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind((source, UDP))
        self.udp.settimeout(PATIENT)
        self.hears = self.udp
        """By which its inputs come; the group's, once it has joined one."""
        self._socket.sendall(struct.pack("<HHII8sI", 0x65, 4, 0, 0, bytes(8), 0) + b"\1\0\0\0")
        self._session = self._frame()[4:8]
        self._sequence = 0
        self._count = 0
        self.out = self.into = 0
        self.beside = b""
        """Further items of the answer to the last opening."""
        self.heard = b""
        """The data of the last packet that came."""

    def _frame(self) -> bytes:
        data = b""
        while len(data) < 24 or len(data) < 24 + int.from_bytes(data[2:4], "little"):
            piece = self._socket.recv(4096)
            if not piece:
                raise ConnectionResetError("closed by the gate")
            data += piece
        return data

    def ask(self, cip: bytes, beside: bytes = b"", items: int = 2) -> bytes:
        """The CIP answer to an unconnected request."""
        body = bytes(6) + struct.pack("<HHHHH", items, 0, 0, 0xB2, len(cip)) + cip + beside
        self._socket.sendall(struct.pack("<HH4sI8sI", 0x6F, len(body), self._session, 0, b"scanning", 0) + body)
        return self._frame()[40:]

    def open(
        self,
        rpi: int = 20_000,
        sizes: tuple[int, int] = (10, 10),
        serial: int = 1,
        transport: int = 1,
        flags: int = 0x4800,
        multiplier: int = 7,
        path: bytes = b"\x20\x04\x24\x97\x2c\x96\x2c\x64",
        beside: bytes = b"",
        inputs: int = 0,
    ) -> tuple[int, ...]:
        """(status, additional words) of a Forward Open; sizes as they stand in it (two bytes of count, four of run).
        `inputs`: the flags of the way to us, where they are others.
        `multiplier`: the time-out is four RPIs, doubled so often; by default 10 s, since whoever speaks here waits for
        its turn on a busy machine."""
        self.into = 0x5CA0_0000 + serial
        body = struct.pack(
            "<BBIIHHIB3xIHIHBB", 10, 14, 0, self.into, serial, 77, 4711, multiplier, rpi, flags | sizes[0], rpi,
            (inputs or flags) | sizes[1], transport, len(path) // 2,
        )  # fmt: skip
        answer = self.ask(b"\x54\x02\x20\x06\x24\x01" + body + path, beside, 2 + len(beside) // 20)
        words = answer[3]
        if not answer[2]:
            self.out, self.into = struct.unpack_from("<II", answer, 4)
            self.beside = answer[30:]
        return (answer[2], *struct.unpack_from(f"<{words}H", answer, 4))

    def close_io(self, serial: int = 1) -> int:
        path = b"\x20\x04\x24\x97\x2c\x96\x2c\x64"
        body = struct.pack("<BBHHIBx", 10, 14, serial, 77, 4711, len(path) // 2) + path
        return self.ask(b"\x4e\x02\x20\x06\x24\x01" + body)[2]

    def say(
        self, value: int, *, sequence: int | None = None, number: int = 0, source: socket.socket | None = None
    ) -> None:
        """One packet with the outputs."""
        self._sequence = self._sequence + 1 if sequence is None else sequence
        self._count += 1
        self._send(struct.pack("<HII", self._count & 0xFFFF, 1, value), number, source)

    def beat(self) -> None:
        """One packet without outputs, as who has inputs only sends it."""
        self._sequence += 1
        self._count += 1
        self._send(struct.pack("<H", self._count & 0xFFFF))

    def _send(self, data: bytes, number: int = 0, source: socket.socket | None = None) -> None:
        body = struct.pack("<HHHIIHH", 2, 0x8002, 8, number or self.out, self._sequence, 0xB1, len(data)) + data
        (source or self.udp).sendto(body, (self._gate, UDP))

    def join(self) -> str:
        """Hears the group that the answer to its opening has named, by the interface of its own address."""
        address = socket.inet_ntoa(self.beside[8:12])
        assert self.beside[:8] == struct.pack("<HH", 0x8001, 16) + b"\0\2" + UDP.to_bytes(2, "big"), self.beside
        if self.hears is not self.udp:
            self.hears.close()
        self.hears = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.hears.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.hears.bind((address, UDP))
        own = socket.inet_aton(self.udp.getsockname()[0])
        self.hears.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(address) + own)
        return address

    def hear(self, seconds: float = PATIENT) -> bytes | None:
        """The data of the next packet of this connection; None if none comes in time."""
        self.hears.settimeout(seconds)
        while True:
            try:
                data = self.hears.recv(2000)
            except TimeoutError:
                return None
            if int.from_bytes(data[6:10], "little") == self.into:
                self.heard = data[20:]
                return self.heard

    def run(self, value: int, seconds: float, interval: float = 0.02) -> list[bytes]:
        """Says a value again and again; what was heard meanwhile."""
        heard: list[bytes] = []
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.say(value)
            with contextlib.suppress(TimeoutError):
                found = self.hear(interval)
                if found is not None:
                    heard.append(found)
        return heard

    def until(self, value: int, done: Callable[[], object], interval: float = 0.02) -> None:
        """Says a value again and again until something has come true."""

        def there() -> bool:
            self.run(value, interval, interval)
            return bool(done())

        eventually(there)

    def shut(self) -> None:
        self._socket.close()
        self.udp.close()
        self.hears.close()
