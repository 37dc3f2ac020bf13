"""The client's ends towards devices that do not frame as the guide says, or whose unit clients call otherwise: by an
asset's quirks, and by its `device_unit`.

Not here: the client's end as it is (machine), what is forgiven within an answer (quirks).
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from cofferdam.errors import RemoteProtocolError
from cofferdam.protocols.base import NEED_DATA, ClientCallEvent, ClientMachine
from cofferdam.protocols.modbus import quirks as odd
from cofferdam.protocols.modbus.machine import Meanings, ModbusClient
from cofferdam.protocols.modbus.messages import ModbusRequest, ModbusResponse
from cofferdam.protocols.modbus.wire import GUIDE, HEAD, MAX_ADU, PDU_SECTION, head_error


class _Framed(ModbusClient):
    """The client's end towards a device whose frames are not those of the guide: they are made into such, one by one,
    and the rest is as ever. One request is under way at a time, and its answer is known by that."""

    __slots__ = ("_raw",)

    def __init__(self, *, quirks: frozenset[str] = frozenset(), outstanding: int = 1) -> None:
        super().__init__(quirks=quirks, outstanding=outstanding)
        self._raw = b""

    def receive_data(self, data: bytes) -> None:
        self._raw += data

    def next_event(self) -> ClientCallEvent[ModbusResponse]:
        spare = odd.SPARE_BYTES in self._forgiving
        if self._error is None and self._raw:
            if not self._pending:
                if spare and not self._raw.strip(b"\0"):
                    self._raw = b""  # a line that was let go of reads as NULs
                    return NEED_DATA
                self._fail(
                    RemoteProtocolError(
                        "bytes while nothing was asked, from a device whose answers are known by their order",
                        section=GUIDE + "4.4.1.3",
                        offset=0,
                    )
                )
            transaction, form = next(iter(self._pending.items()))
            try:
                taken, frame = self._frame(form.request)
            except RemoteProtocolError as error:
                self._raw = b""
                self._fail(error)
                raise
            if frame:
                # One answer was due: what came with it is of the line, or a second answer that nobody asked for.
                self._raw = b"" if spare else self._raw[taken:]
                head = HEAD.pack(transaction, 0, len(frame), frame[0], frame[1])
                super().receive_data(head + frame[2:])
        return super().next_event()

    def _frame(self, request: ModbusRequest) -> tuple[int, bytes]:
        """How many bytes the frame at the front takes, and the frame as unit and PDU; nothing while it is not whole."""
        raise NotImplementedError

    @property
    def buffered(self) -> int:
        return len(self._raw) + super().buffered


class RtuClient(_Framed):
    """RTU frames over TCP: unit, PDU and CRC, without the header (quirk `rtu_over_tcp`), behind a converter that may
    send the request itself back first (`rtu_echo`)."""

    __slots__ = ("_echo", "_echoes")

    def __init__(self, *, quirks: frozenset[str] = frozenset(), outstanding: int = 1) -> None:
        super().__init__(quirks=quirks, outstanding=outstanding)
        self._echoes = odd.RTU_ECHO in quirks
        self._echo = b""

    def send(self, request: ModbusRequest) -> tuple[int, bytes]:
        token, adu = super().send(request)
        frame = adu[6:] + odd.crc(adu[6:])
        if self._echoes:
            self._echo = frame
        return token, frame

    def _frame(self, request: ModbusRequest) -> tuple[int, bytes]:
        if odd.SPARE_BYTES in self._forgiving and request.unit and not self._any_unit:
            self._raw = self._raw.lstrip(b"\0")  # no answer begins so: its first byte is the unit
        if self._echo:
            if len(self._raw) < len(self._echo) and self._echo.startswith(self._raw):
                return 0, b""
            self._raw = self._raw.removeprefix(self._echo)
            self._echo = b""
        frame = odd.rtu_frame(self._raw, request)
        return (0, b"") if frame is None else (len(frame) + 2, frame)


class LengthlessClient(_Framed):
    """A device whose header has a wrong length (quirk `wrong_length`): what the answer itself says counts."""

    def _frame(self, request: ModbusRequest) -> tuple[int, bytes]:
        raw = self._raw
        if len(raw) < 8:
            error = None if len(raw) < 4 or not raw[2:4].strip(b"\0") else head_error(1, MAX_ADU)
            if error is not None:
                raise error
            return 0, b""
        _, protocol, length, _, _ = HEAD.unpack_from(raw, 0)
        error = head_error(protocol, 2)
        if error is not None:
            raise error
        size = odd.answer_size(raw[7:], request)
        if size == -1:  # there is nothing but the header to go by
            size = length - 1
        if size > MAX_ADU - 7:
            raise RemoteProtocolError(f"an answer of {size} bytes", section=PDU_SECTION, offset=7)
        return (7 + size, raw[6 : 7 + size]) if 0 < size <= len(raw) - 7 else (0, b"")


def client(quirks: frozenset[str], outstanding: int, meanings: Meanings | None = None) -> ModbusClient:
    """The client's end that speaks as a device with these quirks does."""
    if odd.RTU_OVER_TCP in quirks or odd.RTU_ECHO in quirks:
        return RtuClient(quirks=quirks, outstanding=outstanding)
    if odd.WRONG_LENGTH in quirks:
        return LengthlessClient(quirks=quirks, outstanding=outstanding)
    return ModbusClient(quirks=quirks, outstanding=outstanding, meanings=meanings)


class Renamed(ClientMachine[ModbusRequest, ModbusResponse]):
    """A client's end that asks the device for other units than its requests name. `units`: by the request's, the
    device's. Answers carry no unit, and the machine within holds those on the wire to what it has sent."""

    __slots__ = ("_machine", "_units")

    def __init__(self, machine: ClientMachine[ModbusRequest, ModbusResponse], units: Mapping[int, int]) -> None:
        self._machine = machine
        self._units = dict(units)

    def send(self, request: ModbusRequest) -> tuple[int, bytes]:
        unit = self._units.get(request.unit)
        return self._machine.send(request if unit is None else msgspec.structs.replace(request, unit=unit))

    def receive_data(self, data: bytes) -> None:
        self._machine.receive_data(data)

    def next_event(self) -> ClientCallEvent[ModbusResponse]:
        return self._machine.next_event()  # type: ignore[return-value]

    def forget(self, token: int) -> None:
        self._machine.forget(token)

    @property
    def in_flight(self) -> int:
        return self._machine.in_flight

    @property
    def buffered(self) -> int:
        return self._machine.buffered

    @property
    def drop_after_timeout(self) -> bool:
        return self._machine.drop_after_timeout
