"""The simulated plant: a Modbus server (pymodbus) whose registers follow the physics, and a log of all it was asked.

Every connection, every request and every write that reaches the device becomes an event, so that the demo and
the tests can prove from the plant's side what crossed and what did not. The device has no protection of its own.

Not here: the physics, the register map. pymodbus answers only the first of several requests in one segment; the
gate sends one at a time anyway.
"""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Callable
from typing import cast

import msgspec
from pymodbus.constants import ExcCodes
from pymodbus.pdu import ModbusPDU
from pymodbus.pdu.device import ModbusDeviceIdentification
from pymodbus.server import ModbusTcpServer
from pymodbus.server.requesthandler import ServerRequestHandler
from pymodbus.simulator import DataType, SimData, SimDevice

from cofferdam.errors import CofferdamError
from cofferdam.lab.water import events, physics, registers

SCAN = 0.1
"""Seconds between two scans of the instruments, like a controller's cycle."""
_SPACES = {1: "coil", 5: "coil", 15: "coil", 2: "discrete", 4: "input", 3: "holding", 6: "holding",
           16: "holding", 22: "holding", 23: "holding"}  # fmt: skip


class Works:
    """State and controls of the plant at a clock that the caller moves. No I/O."""

    def __init__(self, *, start: float, seed: int, design: physics.Design | None = None) -> None:
        self.design = design or physics.Design()
        self.controls = physics.Controls()
        self._noise = random.Random(seed)  # noqa: S311  sensor noise, not a secret
        self.state = physics.advance(self.design, self.controls, physics.State(time=start), start + physics.STEP)
        self.reading = physics.measure(self.design, self.controls, self.state, self._noise)

    def scan(self, now: float) -> None:
        """Move to `now` (simulated s since the epoch) and read the instruments anew."""
        self.state = physics.advance(self.design, self.controls, self.state, now)
        self.reading = physics.measure(self.design, self.controls, self.state, self._noise)

    def write(self, space: str, start: int, values: tuple[int, ...]) -> bool:
        """Take a write; False where a cell cannot be written."""
        controls = registers.write(self.controls, space, start, values)
        if controls is None:
            return False
        self.controls = controls
        return True

    def report(self) -> events.Plant:
        """How things are, for the people watching."""
        r = self.reading
        return events.Plant(
            level=r.level, height=self.design.tank_height, inflow=r.inflow, outflow=r.outflow, pressure=r.pressure,
            temperature=r.temperature, power=r.power, speed=r.speed, set_speed=self.controls.pump_speed,
            flow_total=r.flow_total, tripped=r.tripped, low_alarm=r.low_alarm, high_alarm=r.high_alarm,
            discharge_open=r.discharge_open, clock=self.state.time,
        )  # fmt: skip


class _Handler(ServerRequestHandler):
    """One connection to the plant; says who it is and what it asks."""

    def __init__(self, owner: PlantServer) -> None:
        super().__init__(  # type: ignore[no-untyped-call]
            owner, owner.trace_packet, owner.trace_pdu, owner.trace_connect
        )
        self._sink = owner.sink
        self._peer: tuple[str, int] | None = None

    def callback_connected(self) -> None:
        name = self.transport.get_extra_info("peername") or ("?", 0)
        self._peer = (str(name[0]), int(name[1]))
        self._sink(events.Connection(*self._peer, opened=True))
        super().callback_connected()

    def callback_disconnected(self, exc: Exception | None) -> None:
        if self._peer is not None:
            self._sink(events.Connection(*self._peer, opened=False))
            self._peer = None
        super().callback_disconnected(exc)

    def server_send(self, pdu: ModbusPDU | None, addr: tuple[str, int] | None) -> None:
        request = self.last_pdu
        if pdu is not None:
            bits = tuple(int(bit) for bit in pdu.bits) if pdu.function_code in (1, 2) else ()
            words = tuple(pdu.registers) if pdu.function_code in (3, 4, 23) else ()
            self._sink(
                events.Request(
                    peer=self._peer[0] if self._peer else "?",
                    function=pdu.function_code & 0x7F,
                    unit=request.dev_id if request else pdu.dev_id,
                    address=getattr(request, "address", -1) if request else -1,
                    count=getattr(request, "count", 0) or 0,
                    exception=getattr(pdu, "exception_code", 0) if pdu.function_code & 0x80 else 0,
                    values=bits or words,
                )
            )
        super().server_send(pdu, addr)  # type: ignore[no-untyped-call]


class PlantServer(ModbusTcpServer):
    """pymodbus' server with our handler and our memory."""

    def __init__(self, works: Works, sink: events.Sink, address: str, port: int) -> None:
        self.works = works
        self.sink = sink
        identity = ModbusDeviceIdentification(
            info_name={
                "VendorName": "Riverside Water",
                "ProductCode": "RW-PLC",
                "MajorMinorRevision": "7.2",
                "ProductName": "PLC 7, high-lift pumping",
            }
        )  # type: ignore[no-untyped-call]
        super().__init__(self._device(), identity=identity, address=(address, port))

    def callback_new_connection(self) -> ServerRequestHandler:
        return _Handler(self)

    def bound_port(self) -> int:
        """The port that the listener got (pymodbus keeps asyncio's server where a transport would be)."""
        listener = cast(asyncio.Server, self.transport)
        return int(listener.sockets[0].getsockname()[1])

    def _device(self) -> SimDevice:
        def block(space: str) -> list[SimData]:
            if space in ("coil", "discrete"):
                return [SimData(0, count=16, values=False, datatype=DataType.BITS)]
            return [
                SimData(field.start, count=field.width, values=0, datatype=DataType.REGISTERS)
                for field in registers.FIELDS
                if field.space == space
            ]

        return SimDevice(
            registers.UNIT,
            simdata=(block("coil"), block("discrete"), block("holding"), block("input")),
            action=self._accessed,
        )

    async def _accessed(
        self,
        function: int,
        start: int,
        address: int,
        count: int,
        current: list[int],
        values: list[int] | list[bool] | None,
    ) -> ExcCodes | None:
        """pymodbus asks before each access: put the plant's present cells where it will look for them."""
        space = _SPACES[function]
        if values is not None:
            written = tuple(int(value) for value in values)
            taken = self.works.write(space, address, written)
            self.sink(events.Write(function, space, address, written, taken))
            if not taken:
                return ExcCodes.ILLEGAL_ADDRESS
        image = registers.image(space, self.works.controls, self.works.reading)
        if space in ("coil", "discrete"):
            current[0] = sum(bit << index for index, bit in image.items())
        else:
            for cell, word in image.items():
                current[cell - start] = word
        return None


class Settings(msgspec.Struct, frozen=True):
    """How to run a plant. `speed_up` is simulated seconds per real second, `report` the seconds
    between two `Plant` events."""

    address: str = "127.0.0.1"
    port: int = 0
    seed: int = 7
    speed_up: float = 1.0
    report: float = 0.5


class RunningPlant:
    """A plant on an event loop: `async with RunningPlant(settings, sink) as plant`, then plant.address and .port.

    Raises CofferdamError where the address cannot be listened at.
    """

    def __init__(self, settings: Settings, sink: events.Sink, *, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._sink = sink
        self._clock = clock
        self._real_start = clock()
        self.works = Works(start=self._real_start, seed=settings.seed)
        self.address = settings.address
        self.port = settings.port
        self._server: PlantServer | None = None
        self._ticker: asyncio.Task[None] | None = None

    def simulated(self) -> float:
        """The plant's clock now (s since the epoch)."""
        return self._real_start + (self._clock() - self._real_start) * self._settings.speed_up

    async def __aenter__(self) -> RunningPlant:
        self._server = PlantServer(self.works, self._sink, self.address, self._settings.port)
        try:
            await self._server.serve_forever(background=True)
        except RuntimeError as error:
            raise CofferdamError(
                f"the plant cannot listen at {self.address}:{self._settings.port}: address in use or not ours",
                hint="choose another port with --port, or 0 for any free one",
            ) from error
        self.port = self._server.bound_port()
        self._sink(events.Listening(self.address, self.port))
        self._ticker = asyncio.get_running_loop().create_task(self._tick())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._ticker is not None:
            self._ticker.cancel()
            await asyncio.wait([self._ticker])
        if self._server is not None:
            await self._server.shutdown()  # type: ignore[no-untyped-call]

    async def _tick(self) -> None:
        last_report = 0.0
        while True:
            self.works.scan(self.simulated())
            if self._clock() - last_report >= self._settings.report:
                last_report = self._clock()
                self._sink(self.works.report())
            await asyncio.sleep(SCAN)

    async def wait(self) -> None:
        """Until the plant breaks down, which raises; or for ever."""
        if self._ticker is not None:
            await self._ticker


async def serve(settings: Settings, sink: events.Sink) -> None:
    """Run a plant until SIGINT or SIGTERM."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with RunningPlant(settings, sink) as plant, asyncio.TaskGroup() as group:
        works = group.create_task(plant.wait())
        await stop.wait()
        works.cancel()
