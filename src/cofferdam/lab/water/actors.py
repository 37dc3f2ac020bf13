"""The honest people on the office side: an ERP that polls the plant, an operator who sets the pump's speed.

Both use pymodbus as a client, as real ones would, and never repeat a request. Left alone they work at their own
pace; driven (commands on stdin) they do one thing at a time and say `Done` after it, which is how the tour asks
for exactly one write. Each attempt becomes an `Experience`.

Not here: the intruder (lab.intruder).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
from pymodbus.client import AsyncModbusTcpClient
from pymodbus.exceptions import ModbusException
from pymodbus.pdu import ModbusPDU

from cofferdam.errors import CofferdamError
from cofferdam.lab.water import events, registers
from cofferdam.values import ValueType

READ_FUNCTIONS = {"coil": 1, "discrete": 2, "holding": 3, "input": 4}


class Target(msgspec.Struct, frozen=True):
    """Where an actor goes and from which of its own addresses ("" is any)."""

    address: str
    port: int
    source: str = ""
    unit: int = registers.UNIT
    timeout: float = 3.0


class Session:
    """One Modbus connection of an actor. Opens itself when needed; nothing is ever sent twice."""

    def __init__(self, who: str, target: Target, sink: events.Sink) -> None:
        self.who = who
        self.target = target
        self.sink = sink
        self._client: AsyncModbusTcpClient | None = None
        self._lost = asyncio.Event()

    async def _connected(self) -> AsyncModbusTcpClient | None:
        if self._client is not None and self._client.connected:
            return self._client
        self.close()
        lost = self._lost = asyncio.Event()
        client = AsyncModbusTcpClient(
            self.target.address,
            port=self.target.port,
            source_address=(self.target.source, 0) if self.target.source else None,
            reconnect_delay=0,
            retries=0,
            timeout=self.target.timeout,
            trace_connect=lambda up: None if up else lost.set(),
        )
        if not await client.connect():
            client.close()
            return None
        self._client = client
        return client

    def close(self) -> None:
        """End the connection."""
        if self._client is not None:
            self._client.close()
            self._client = None

    async def read(self, point: str) -> events.Experience:
        """Read a point of the controller by name."""
        field = _field(point)
        function = READ_FUNCTIONS[field.space]

        def ask(client: AsyncModbusTcpClient) -> Awaitable[ModbusPDU]:
            call = {
                "coil": client.read_coils,
                "discrete": client.read_discrete_inputs,
                "holding": client.read_holding_registers,
                "input": client.read_input_registers,
            }[field.space]
            return call(field.start, count=field.width, device_id=self.target.unit)

        def taken(answer: ModbusPDU) -> tuple[int, ...]:
            cells = answer.bits if field.type is ValueType.BOOL else answer.registers
            return tuple(int(cell) for cell in cells[: field.width])

        return await self._do(f"read {point}", field, function, ask, taken)

    async def write(self, point: str, value: float) -> events.Experience:
        """Write a point of the controller by name (FC 5, 6 or 16, whichever fits it)."""
        field = _field(point)
        cells = registers.encode(field.type, value)
        function = 5 if field.space == "coil" else 6 if field.width == 1 else 16
        if field.space not in ("coil", "holding"):
            raise CofferdamError(f"{point} cannot be written: Modbus has no function for {field.space} cells")

        def ask(client: AsyncModbusTcpClient) -> Awaitable[ModbusPDU]:
            if function == 5:
                return client.write_coil(field.start, bool(cells[0]), device_id=self.target.unit)
            if function == 6:
                return client.write_register(field.start, cells[0], device_id=self.target.unit)
            return client.write_registers(field.start, list(cells), device_id=self.target.unit)

        return await self._do(f"write {point}", field, function, ask, lambda _: cells)

    async def _unless_lost(self, asked: Awaitable[ModbusPDU]) -> ModbusPDU | None:
        """The answer, or None when the connection goes first: pymodbus alone would wait until its timeout."""
        answer, lost = asyncio.ensure_future(asked), asyncio.ensure_future(self._lost.wait())  # noqa: TID251
        try:
            await asyncio.wait({answer, lost}, return_when=asyncio.FIRST_COMPLETED)
            return await answer if answer.done() else None
        finally:
            for task in (answer, lost):
                task.cancel()
            await asyncio.wait({answer, lost})

    async def _do(
        self,
        action: str,
        field: registers.Field,
        function: int,
        ask: Callable[[AsyncModbusTcpClient], Awaitable[ModbusPDU]],
        taken: Callable[[ModbusPDU], tuple[int, ...]],
    ) -> events.Experience:
        started = time.perf_counter_ns()

        def tell(
            outcome: str, *, exception: int = 0, values: tuple[int, ...] = (), detail: str = ""
        ) -> events.Experience:
            value = registers.decode(field.type, values) if len(values) == field.width else None
            experience = events.Experience(
                self.who, action, outcome, exception=exception, function=function, address=field.start, values=values,
                value=value, detail=detail, micros=(time.perf_counter_ns() - started) // 1000,
            )  # fmt: skip
            self.sink(experience)
            return experience

        client = await self._connected()
        if client is None:
            return tell("unreachable", detail=f"no connection to {self.target.address}:{self.target.port}")
        try:
            answer = await self._unless_lost(ask(client))
        except ModbusException as error:
            self.close()  # a late answer must not meet the next request
            return tell("timeout", detail=str(error))
        if answer is None:
            self.close()
            return tell("closed", detail="the connection was closed before an answer came")
        if answer.isError():
            return tell("exception", exception=int(getattr(answer, "exception_code", 0)))
        if answer.function_code != function:
            return tell("garbled", detail=f"asked with function {function}, answered with {answer.function_code}")
        return tell("ok", values=taken(answer))


def _field(point: str) -> registers.Field:
    field = registers.BY_NAME.get(point)
    if field is None:
        raise CofferdamError(f"the controller has no point {point!r}", hint=", ".join(sorted(registers.BY_NAME)))
    return field


async def drive(session: Session, source: AsyncIterator[events.Command]) -> None:
    """Do what each command says, then say Done."""
    async for command in source:
        match command.do:
            case "read":
                for _ in range(command.count):
                    await session.read(command.point)
            case "write":
                for _ in range(command.count):
                    await session.write(command.point, command.value)
            case "close":
                session.close()
            case _:
                raise CofferdamError(f"{session.who} knows no command {command.do!r}", hint="read, write, close")
        session.sink(events.Done(session.who, command.do))
    session.close()


async def erp(session: Session, *, pause: float = 1.0) -> None:
    """Poll flow total and tank level for ever, `pause` seconds between two rounds."""
    while True:
        for point in ("flow_total", "tank_level"):
            await session.read(point)
        await asyncio.sleep(pause)


async def operator(session: Session, *, pause: float = 12.0, seed: int = 11) -> None:
    """Look at the pump's speed, then move it a little; now and then try something that is not allowed.

    The pause of 12 s keeps within six writes a minute, refused ones included.
    """
    choice = random.Random(seed)  # noqa: S311  a person's moods, not a secret
    speed = 900
    while True:
        before = await session.read("pump_speed")
        if before.outcome == "ok" and before.value is not None:
            speed = int(before.value)
        mood = choice.random()
        if mood < 0.15:
            wish = 2400  # beyond the pump's limit
        elif mood < 0.3:
            wish = min(1500, speed + 400)  # in range, but too far in one step
        else:
            wish = max(700, min(1300, speed + choice.choice((-80, -60, -40, 40, 60, 80))))
        await session.write("pump_speed", wish)
        await asyncio.sleep(pause)
