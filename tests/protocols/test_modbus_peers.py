"""Real peers on loopback: pymodbus, mbpoll and libmodbus as clients of our server machine and as servers for our client
machine. Nothing of ours is on both ends of any connection here, save in the tests of the two loops themselves."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pymodbus
import pytest
from pymodbus import FramerType
from pymodbus.client import ModbusTcpClient
from pymodbus.pdu.device import ModbusDeviceIdentification
from pymodbus.pdu.file_message import FileRecord
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from cofferdam.protocols.base import BadResponse, ResponseReceived
from cofferdam.protocols.modbus import messages as m
from cofferdam.protocols.registry import PROTOCOLS
from tests.protocols.device import Caller, Device, served
from tests.protocols.vectors import VECTORS, adu
from tests.waiting import PATIENT, gone

HERE = Path(__file__).parent
MODBUS = PROTOCOLS["modbus"]


# ---- our two ends against one another, in small pieces: the loops that the peers below talk to ----


@pytest.mark.parametrize("chunk", [1, 5, 65536])
def test_sixteen_at_once_over_a_real_socket(chunk: int) -> None:
    device = Device()
    requests = [vector.request for vector in VECTORS][:16]
    with served(device, chunk) as port, contextlib.closing(Caller(port, outstanding=16)) as caller:
        events = caller.ask(*requests)
    assert device.seen == requests
    for request, event in zip(requests, events, strict=True):
        assert isinstance(event, ResponseReceived) and MODBUS.mismatch(request, event.response) == ""


def test_garbage_closes_one_connection_only() -> None:
    with served(Device()) as port, contextlib.closing(Caller(port)) as caller:
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENT) as other:
            other.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert other.recv(100) == b""
        assert caller.response(m.ReadCoils(1, 1, 1)) == m.ReadCoilsResponse((1,))


def test_a_refused_frame_does_not_close_the_connection() -> None:
    with served(Device()) as port, socket.create_connection(("127.0.0.1", port), timeout=PATIENT) as peer:
        for text, reply in (("03 0000 0000", "83 03"), ("63", "E3 01"), ("03 FFFF 0002", "83 02")):
            peer.sendall(adu(text))
            assert peer.recv(100) == adu(reply)


# ---- pymodbus as the client ----

Ask = Callable[[Any], Any]


@contextlib.contextmanager
def pymodbus_client(port: int) -> Iterator[Any]:
    client: Any = ModbusTcpClient("127.0.0.1", port=port, timeout=PATIENT, retries=0)
    assert client.connect()
    try:
        yield client
    finally:
        client.close()


PYMODBUS_ASKS: list[tuple[str, Ask, Callable[[Any], object], object]] = [
    ("read coils", lambda c: c.read_coils(1, count=9), lambda r: r.bits[:9], [True, False] * 4 + [True]),
    ("read discrete", lambda c: c.read_discrete_inputs(0, count=3), lambda r: r.bits[:3], [True, False, True]),
    ("read holding", lambda c: c.read_holding_registers(3, count=2), lambda r: r.registers, [1003, 1004]),
    ("read input", lambda c: c.read_input_registers(0, count=125), lambda r: len(r.registers), 125),
    ("write coil", lambda c: c.write_coil(4, True), lambda r: (r.address, r.bits), (4, [True])),
    ("write register", lambda c: c.write_register(4, 77), lambda r: (r.address, r.registers), (4, [77])),
    ("write coils", lambda c: c.write_coils(4, [True] * 10), lambda r: (r.address, r.count), (4, 10)),
    ("write registers", lambda c: c.write_registers(4, [1, 2, 3]), lambda r: (r.address, r.count), (4, 3)),
    ("exception status", lambda c: c.read_exception_status(), lambda r: r.status, 0x6D),
    ("query data", lambda c: c.diag_query_data(b"\xa5\x37"), lambda r: r.sub_function_code, 0),
    ("restart", lambda c: c.diag_restart_communication(True), lambda r: r.sub_function_code, 1),
    ("diagnostic register", lambda c: c.diag_read_diagnostic_register(), lambda r: r.message, 22),
    ("clear counters", lambda c: c.diag_clear_counters(), lambda r: r.sub_function_code, 10),
    ("bus messages", lambda c: c.diag_read_bus_message_count(), lambda r: r.message, 121),
    ("bus errors", lambda c: c.diag_read_bus_comm_error_count(), lambda r: r.message, 132),
    ("bus exceptions", lambda c: c.diag_read_bus_exception_error_count(), lambda r: r.message, 143),
    ("device messages", lambda c: c.diag_read_device_message_count(), lambda r: r.message, 154),
    ("no responses", lambda c: c.diag_read_device_no_response_count(), lambda r: r.message, 165),
    ("naks", lambda c: c.diag_read_device_nak_count(), lambda r: r.message, 176),
    ("busy", lambda c: c.diag_read_device_busy_count(), lambda r: r.message, 187),
    ("overruns", lambda c: c.diag_read_bus_char_overrun_count(), lambda r: r.message, 198),
    ("clear overruns", lambda c: c.diag_clear_overrun_counter(), lambda r: r.sub_function_code, 20),
    ("event counter", lambda c: c.diag_get_comm_event_counter(), lambda r: r.count, 264),
    ("event log", lambda c: c.diag_get_comm_event_log(), lambda r: (r.event_count, r.message_count), (264, 289)),
    ("device id", lambda c: c.report_device_id(), lambda r: r.identifier[:9], b"cofferdam"),
    (
        "write file",
        lambda c: c.write_file_record([FileRecord(file_number=4, record_number=7, record_data=b"\x00\x01\x00\x02")]),
        lambda r: r.isError(),
        False,
    ),
    (
        "read file",
        lambda c: c.read_file_record([FileRecord(file_number=4, record_number=7, record_length=4)]),
        lambda r: r.records[0].record_data,
        b"\x00\x00\x00\x00",
    ),
    (
        "mask write",
        lambda c: c.mask_write_register(address=4, and_mask=0xF2, or_mask=0x25),
        lambda r: (r.address, r.and_mask, r.or_mask),
        (4, 0xF2, 0x25),
    ),
    (
        "read/write",
        lambda c: c.readwrite_registers(read_address=3, read_count=3, write_address=4, values=[9, 8]),
        lambda r: r.registers,
        [1003, 9, 8],
    ),
    ("fifo", lambda c: c.read_fifo_queue(address=0), lambda r: r.values, [440, 4740]),
    (
        "identification",
        lambda c: c.read_device_information(read_code=1, object_id=0),
        lambda r: r.information,
        {0: b"Cofferdam", 1: b"test", 2: b"V1"},
    ),
]


@pytest.mark.parametrize(("name", "ask", "pick", "expected"), PYMODBUS_ASKS, ids=[case[0] for case in PYMODBUS_ASKS])
def test_pymodbus_client(name: str, ask: Ask, pick: Callable[[Any], object], expected: object) -> None:
    with served(Device()) as port, pymodbus_client(port) as client:
        response = ask(client)
        assert not response.isError(), response
        assert pick(response) == expected


def test_pymodbus_client_is_refused() -> None:
    with served(Device()) as port, pymodbus_client(port) as client:
        beyond = client.read_holding_registers(199, count=2)
        assert beyond.isError() and beyond.exception_code == 2
        reserved = client.diag_read_iop_overrun_count()
        assert reserved.isError() and reserved.exception_code == 1
        assert client.read_holding_registers(0, count=1).registers == [1000]


# ---- pymodbus as the server ----


@contextlib.contextmanager
def pymodbus_server(framer: FramerType = FramerType.SOCKET) -> Iterator[int]:
    """pymodbus with 100 cells of each kind, in an event loop of its own thread."""
    started: list[int] = []
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    stop: list[asyncio.Event] = []

    async def serve() -> None:
        stop.append(asyncio.Event())
        words = [SimData(0, values=list(range(100, 200)), datatype=DataType.REGISTERS)]
        inputs = [SimData(0, values=list(range(500, 600)), datatype=DataType.REGISTERS)]
        bits = [SimData(0, values=[True, False] * 48, datatype=DataType.BITS)]
        make_identity: Any = ModbusDeviceIdentification
        identity = make_identity(
            info_name={"VendorName": "pymodbus", "ProductCode": "PM", "MajorMinorRevision": pymodbus.__version__}
        )
        device = SimDevice(1, simdata=(bits, bits, words, inputs), identity=identity)
        server: Any = ModbusTcpServer(device, framer=framer, address=("127.0.0.1", 0), identity=identity)
        await server.serve_forever(background=True)
        started.append(server.transport.sockets[0].getsockname()[1])
        ready.set()
        await stop[0].wait()
        await server.shutdown()
        await gone()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    try:
        assert ready.wait(PATIENT), "pymodbus did not start"
        yield started[0]
    finally:
        loop.call_soon_threadsafe(stop[0].set)
        thread.join()
        loop.close()


@pytest.fixture(scope="module")
def pymodbus_port() -> Iterator[int]:
    with pymodbus_server() as port:
        yield port


def test_pymodbus_server_reads_and_writes(pymodbus_port: int) -> None:
    with contextlib.closing(Caller(pymodbus_port)) as caller:
        assert caller.response(m.ReadHoldingRegisters(1, 2, 3)).values == (102, 103, 104)
        assert caller.response(m.ReadInputRegisters(1, 0, 2)).values == (500, 501)
        assert caller.response(m.ReadCoils(1, 0, 5)).values == (1, 0, 1, 0, 1)
        assert caller.response(m.ReadDiscreteInputs(1, 1, 4)).values == (0, 1, 0, 1)
        assert caller.response(m.WriteSingleCoil(1, 1, 1)) == m.WriteSingleCoilResponse(1, 1)
        assert caller.response(m.WriteSingleRegister(1, 10, 7)) == m.WriteSingleRegisterResponse(10, 7)
        assert caller.response(m.WriteMultipleCoils(1, 20, (1, 1, 1))) == m.WriteMultipleCoilsResponse(20, 3)
        assert caller.response(m.WriteMultipleRegisters(1, 11, (8, 9))) == m.WriteMultipleRegistersResponse(11, 2)
        assert caller.response(m.ReadHoldingRegisters(1, 10, 3)).values == (7, 8, 9)
        assert caller.response(m.ReadCoils(1, 20, 3)).values == (1, 1, 1)
        assert caller.response(m.MaskWriteRegister(1, 10, 0xF2, 0x25)) == m.MaskWriteRegisterResponse(10, 0xF2, 0x25)
        wrote = caller.response(m.ReadWriteMultipleRegisters(1, 10, 2, 12, (5,)))
        assert wrote.values == ((7 & 0xF2) | (0x25 & ~0xF2), 8)


def test_pymodbus_server_of_rtu_over_tcp() -> None:
    with pymodbus_server(FramerType.RTU) as port, contextlib.closing(Caller(port, quirk="rtu_over_tcp")) as caller:
        assert caller.response(m.ReadHoldingRegisters(1, 2, 3)).values == (102, 103, 104)
        assert caller.response(m.ReadCoils(1, 0, 5)).values == (1, 0, 1, 0, 1)
        assert caller.response(m.WriteMultipleRegisters(1, 11, (8, 9))) == m.WriteMultipleRegistersResponse(11, 2)
        assert caller.response(m.WriteSingleCoil(1, 1, 1)) == m.WriteSingleCoilResponse(1, 1)
        assert caller.response(m.ReadHoldingRegisters(1, 99, 2)) == m.ExceptionResponse(3, 2)
        assert caller.response(m.ReadDeviceIdentification(1, 4, 0)).objects[0].value == b"pymodbus"
        assert caller.response(m.Diagnostics(1, 0, (0xA537,))).data == (0xA537,)


def test_pymodbus_server_refuses(pymodbus_port: int) -> None:
    with contextlib.closing(Caller(pymodbus_port)) as caller:
        assert caller.response(m.ReadHoldingRegisters(1, 99, 2)) == m.ExceptionResponse(3, 2)
        assert caller.response(m.ReadHoldingRegisters(1, 0, 1)).values == (100,)


PYMODBUS_OTHERS: list[m.ModbusRequest] = [
    m.ReadExceptionStatus(1),
    m.Diagnostics(1, 0, (0xA537,)),
    *(m.Diagnostics(1, sub, (0,)) for sub in (2, 11, 12, 13, 14, 15, 16, 17, 18)),
    m.Diagnostics(1, 10, (0,)),
    m.Diagnostics(1, 20, (0,)),
    m.GetCommEventCounter(1),
    m.GetCommEventLog(1),
    m.ReportServerId(1),
    m.ReadFileRecord(1, (m.FileRange(4, 1, 10),)),
    m.WriteFileRecord(1, (m.FileRecord(4, 1, (1, 2)),)),
    m.ReadFifoQueue(1, 0),
    m.ReadDeviceIdentification(1, 1, 0),
    m.ReadDeviceIdentification(1, 2, 0),
    m.ReadDeviceIdentification(1, 4, 0),
]


@pytest.mark.parametrize("request_", PYMODBUS_OTHERS, ids=repr)
def test_pymodbus_server_other_functions(pymodbus_port: int, request_: m.ModbusRequest) -> None:
    with contextlib.closing(Caller(pymodbus_port)) as caller:
        (event,) = caller.ask(request_)
    assert isinstance(event, ResponseReceived), event
    assert MODBUS.mismatch(request_, event.response) == ""


def test_pymodbus_server_answers_with_more_than_was_asked(pymodbus_port: int) -> None:
    """Its answer to function 20 is always ten words. Two were asked for: that must not pass for an answer."""
    with contextlib.closing(Caller(pymodbus_port)) as caller:
        (event,) = caller.ask(m.ReadFileRecord(1, (m.FileRange(4, 1, 2),)))
        assert isinstance(event, BadResponse) and event.section == "MODBUS Application Protocol V1.1b3, 6.14"
        assert caller.response(m.ReadHoldingRegisters(1, 0, 1)).values == (100,)


# ---- mbpoll as the client ----


@pytest.mark.skipif(shutil.which("mbpoll") is None, reason="mbpoll is not installed")
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-t", "4", "-r", "5", "-c", "3"], ["[5]: \t1005", "[6]: \t1006", "[7]: \t1007"]),
        (["-t", "3", "-r", "0", "-c", "2"], ["[0]: \t2000", "[1]: \t2001"]),
        (["-t", "0", "-r", "0", "-c", "3"], ["[0]: \t0", "[1]: \t1", "[2]: \t0"]),
        (["-t", "1", "-r", "0", "-c", "2"], ["[0]: \t1", "[1]: \t0"]),
        (["-t", "4", "-r", "199", "-c", "2"], ["Illegal data address"]),
    ],
)
def test_mbpoll_reads(arguments: list[str], expected: list[str]) -> None:
    with served(Device()) as port:
        run = subprocess.run(
            ["mbpoll", "-0", "-1", "-o", "10", "-a", "1", "-p", str(port), *arguments, "127.0.0.1"],
            capture_output=True, text=True, timeout=PATIENT, check=False,
        )  # fmt: skip
    for line in expected:
        assert line in run.stdout + run.stderr


@pytest.mark.skipif(shutil.which("mbpoll") is None, reason="mbpoll is not installed")
def test_mbpoll_writes() -> None:
    device = Device()
    with served(device) as port:
        for kind, values in (("4", ["11", "12"]), ("4", ["13"]), ("0", ["1", "0", "1"]), ("0", ["1"])):
            what = ["-t", kind, "-r", "50", "127.0.0.1", *values]
            run = subprocess.run(
                ["mbpoll", "-0", "-1", "-o", "10", "-a", "1", "-p", str(port), *what],
                capture_output=True, text=True, timeout=PATIENT, check=False,
            )  # fmt: skip
            assert run.returncode == 0, run.stdout + run.stderr
    assert [type(request).__name__ for request in device.seen] == [
        "WriteMultipleRegisters", "WriteSingleRegister", "WriteMultipleCoils", "WriteSingleCoil",
    ]  # fmt: skip
    assert device.holding[50:52] == [13, 12] and device.coils[50:53] == [1, 0, 1]


# ---- libmodbus as client and server ----

NO_LIBMODBUS = shutil.which("gcc") is None or not Path("/usr/include/modbus/modbus.h").exists()
needs_libmodbus = pytest.mark.skipif(NO_LIBMODBUS, reason="gcc or libmodbus-dev is not installed")


def build(name: str, folder: Path) -> Path:
    program = folder / name
    subprocess.run(
        ["gcc", "-O1", "-Wall", "-Werror", "-I/usr/include/modbus", str(HERE / f"{name}.c"), "-lmodbus", "-o", program],
        check=True, capture_output=True, timeout=PATIENT,
    )  # fmt: skip
    return program


@needs_libmodbus
def test_libmodbus_client(tmp_path: Path) -> None:
    program = build("libmodbus_client", tmp_path)
    device = Device()
    with served(device) as port:
        run = subprocess.run(
            [program, str(port)], capture_output=True, encoding="latin-1", timeout=PATIENT, check=False
        )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    masked = (4321 & 0xF2) | (0x25 & ~0xF2)
    assert run.stdout.splitlines() == [
        "coils 11: 1 0 1 0 1 0 1 0 1 0 1",
        "discrete 9: 1 0 1 0 1 0 1 0 1",
        "holding 4: 1010 1011 1012 1013",
        "input 125: " + " ".join(str(2000 + address) for address in range(125)),
        "write coil 1",
        "write register 1",
        "write coils 5",
        "write registers 3",
        "mask 1",
        f"read and write 4: {masked} 7 8 65535",
        "coils again 5: 1 1 0 0 1",
        "id 10: cofferdam\xff",
        "refused -1: Illegal data address",
        "after the refusal 1: 1010",
    ]
    assert device.holding[40:43] == [7, 8, 65535] and device.coils[0] == 1


@needs_libmodbus
def test_libmodbus_server(tmp_path: Path) -> None:
    program = build("libmodbus_server", tmp_path)
    with subprocess.Popen([program], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            with contextlib.closing(Caller(int(server.stdout.readline()))) as caller:
                assert caller.response(m.ReadCoils(1, 0, 9)).values == (0, 1, 0, 1, 0, 1, 0, 1, 0)
                assert caller.response(m.ReadDiscreteInputs(1, 0, 3)).values == (1, 0, 1)
                assert caller.response(m.ReadHoldingRegisters(1, 10, 2)).values == (110, 111)
                assert caller.response(m.ReadInputRegisters(1, 0, 100)).values == tuple(range(500, 600))
                assert caller.response(m.WriteSingleCoil(1, 5, 0)) == m.WriteSingleCoilResponse(5, 0)
                assert caller.response(m.WriteSingleRegister(1, 5, 9)) == m.WriteSingleRegisterResponse(5, 9)
                assert caller.response(m.WriteMultipleCoils(1, 8, (1,) * 9)) == m.WriteMultipleCoilsResponse(8, 9)
                assert caller.response(m.WriteMultipleRegisters(1, 6, (1, 2))) == m.WriteMultipleRegistersResponse(6, 2)
                assert caller.response(m.MaskWriteRegister(1, 5, 0xF, 0x10)) == m.MaskWriteRegisterResponse(5, 15, 16)
                both = caller.response(m.ReadWriteMultipleRegisters(1, 5, 3, 7, (77,)))
                assert both.values == ((9 & 0xF) | 0x10, 1, 77)
                assert b"LMB" in caller.response(m.ReportServerId(1)).data
                assert caller.response(m.ReadCoils(1, 8, 9)).values == (1,) * 9
                assert caller.response(m.ReadHoldingRegisters(1, 99, 2)) == m.ExceptionResponse(3, 2)
                assert caller.response(m.ReadFifoQueue(1, 0)) == m.ExceptionResponse(24, 1)
        finally:
            server.terminate()
