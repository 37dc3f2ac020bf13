"""Both ends of a loopback connection for tests with peers from elsewhere: a small Modbus device behind our server
machine, and a blocking client on our client machine. The device does what the standard says, cell by cell."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

from cofferdam.errors import RemoteProtocolError
from cofferdam.protocols.base import NEED_DATA, Repeated, RequestReceived, Waits
from cofferdam.protocols.modbus import messages as m
from cofferdam.protocols.modbus.framings import client
from cofferdam.protocols.modbus.machine import ModbusServer
from tests.waiting import PATIENT


class Device:
    """Cells from 0 on, `size` of each kind. Coils and discrete inputs alternate, registers count up."""

    def __init__(self, size: int = 200) -> None:
        self.size = size
        self.coils = [address & 1 for address in range(size)]
        self.discrete = [1 - (address & 1) for address in range(size)]
        self.holding = [1000 + address for address in range(size)]
        self.input = [2000 + address for address in range(size)]
        self.files: dict[tuple[int, int], int] = {}
        self.seen: list[Any] = []

    def answer(self, request: m.ModbusRequest) -> m.ModbusResponse:
        self.seen.append(request)
        address = getattr(request, "address", 0)
        count = getattr(request, "count", 0) or len(getattr(request, "values", ())) or 1
        function = {m.ReadCoils: 1, m.ReadDiscreteInputs: 2, m.ReadHoldingRegisters: 3, m.ReadInputRegisters: 4,
                    m.WriteSingleCoil: 5, m.WriteSingleRegister: 6, m.WriteMultipleCoils: 15,
                    m.WriteMultipleRegisters: 16, m.MaskWriteRegister: 22}.get(type(request))  # fmt: skip
        if function and address + count > self.size:
            return m.ExceptionResponse(function, m.ILLEGAL_ADDRESS)
        match request:
            case m.VendorRead(function=code, data=data) | m.VendorWrite(function=code, data=data):
                return m.VendorResponse(code, data)
            case m.ReadCoils():
                return m.ReadCoilsResponse(tuple(self.coils[address : address + count]))
            case m.ReadDiscreteInputs():
                return m.ReadDiscreteInputsResponse(tuple(self.discrete[address : address + count]))
            case m.ReadHoldingRegisters():
                return m.ReadHoldingRegistersResponse.of(tuple(self.holding[address : address + count]))
            case m.ReadInputRegisters():
                return m.ReadInputRegistersResponse.of(tuple(self.input[address : address + count]))
            case m.WriteSingleCoil(value=value):
                self.coils[address] = value
                return m.WriteSingleCoilResponse(address, value)
            case m.WriteSingleRegister(value=value):
                self.holding[address] = value
                return m.WriteSingleRegisterResponse(address, value)
            case m.WriteMultipleCoils(values=values):
                self.coils[address : address + count] = values
                return m.WriteMultipleCoilsResponse(address, count)
            case m.WriteMultipleRegisters(values=values):
                self.holding[address : address + count] = values
                return m.WriteMultipleRegistersResponse(address, count)
            case m.MaskWriteRegister(and_mask=and_mask, or_mask=or_mask):
                self.holding[address] = (self.holding[address] & and_mask) | (or_mask & ~and_mask & 0xFFFF)
                return m.MaskWriteRegisterResponse(address, and_mask, or_mask)
            case m.ReadWriteMultipleRegisters(write_address=start, values=values):
                self.holding[start : start + len(values)] = values
                read = self.holding[request.read_address : request.read_address + request.read_count]
                return m.ReadWriteMultipleRegistersResponse.of(tuple(read))
            case m.ReadExceptionStatus():
                return m.ReadExceptionStatusResponse(0x6D)
            case m.Diagnostics(sub=sub, data=data):
                return m.DiagnosticsResponse(sub, (sub * 11,) if sub in m.DIAGNOSTICS_READS - {0} else data)
            case m.GetCommEventCounter():
                return m.GetCommEventCounterResponse(0xFFFF, 264)
            case m.GetCommEventLog():
                return m.GetCommEventLogResponse(0, 264, 289, b"\x20\x00")
            case m.ReportServerId():
                return m.ReportServerIdResponse(b"cofferdam\xff")
            case m.WriteFileRecord(records=records):
                for group in records:
                    for index, word in enumerate(group.values):
                        self.files[group.file, group.record + index] = word
                return m.WriteFileRecordResponse(records)
            case m.ReadFileRecord(records=ranges):
                return m.ReadFileRecordResponse(
                    tuple(
                        tuple(self.files.get((part.file, part.record + index), 0) for index in range(part.count))
                        for part in ranges
                    )
                )
            case m.ReadFifoQueue():
                return m.ReadFifoQueueResponse((440, 4740))
            case m.CanopenReference(data=data):
                return m.CanopenReferenceResponse(data[::-1])
            case m.ReadDeviceIdentification(code=code):
                names = (m.DeviceObject(0, b"Cofferdam"), m.DeviceObject(1, b"test"), m.DeviceObject(2, b"V1"))
                if code == 4:
                    return m.ReadDeviceIdentificationResponse(4, 0x81, 0, 0, names[request.object_id :][:1])
                return m.ReadDeviceIdentificationResponse(code, 0x81, 0, 0, names)


@contextlib.contextmanager
def served(device: Device, chunk: int = 65536) -> Iterator[int]:
    """The device on a loopback port, one thread per client; `chunk` is how many bytes are taken at a time."""
    listener = socket.create_server(("127.0.0.1", 0))
    open_sockets: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def serve(connection: socket.socket) -> None:
        machine = ModbusServer()
        with connection, contextlib.suppress(OSError, RemoteProtocolError):
            while data := connection.recv(chunk):
                machine.receive_data(data)
                while (event := machine.next_event()) is not NEED_DATA:
                    if isinstance(event, (Repeated, Waits)):  # all is answered at once here
                        raise AssertionError(event)
                    reply = device.answer(event.request) if isinstance(event, RequestReceived) else event.reply
                    connection.sendall(machine.send(event.token, reply))

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                open_sockets.append(connection)
                threads.append(threading.Thread(target=serve, args=(connection,)))
                threads[-1].start()

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join()
        for connection in open_sockets:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()


class Caller:
    """Asks over a loopback connection, one request at a time or several at once."""

    def __init__(self, port: int, outstanding: int = 1, quirk: str = "") -> None:
        self.machine = client(frozenset([quirk] if quirk else ()), outstanding)
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENT)

    def ask(self, *requests: m.ModbusRequest) -> list[Any]:
        """The events that end the requests, in the order of the requests."""
        tokens = []
        for request in requests:
            token, frame = self.machine.send(request)
            tokens.append(token)
            self.socket.sendall(frame)
        events: dict[int, Any] = {}
        while len(events) < len(tokens):
            data = self.socket.recv(65536)
            if not data:
                raise ConnectionError("the peer closed the connection")
            self.machine.receive_data(data)
            while (event := self.machine.next_event()) is not NEED_DATA:
                events[getattr(event, "token", -1)] = event
        return [events[token] for token in tokens]

    def response(self, request: m.ModbusRequest) -> Any:
        """The response to one request; fails if the answer did not fit."""
        (event,) = self.ask(request)
        assert hasattr(event, "response"), event
        return event.response

    def close(self) -> None:
        self.socket.close()
