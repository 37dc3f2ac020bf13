"""Assets that read by TFTP, or are read back by it, and do not end."""

from __future__ import annotations

import asyncio
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cofferdam.brokers.patch import tftp, tftp_serving
from cofferdam.brokers.patch.outcome import Outcome
from cofferdam.brokers.patch.tftp import ACK, DATA, RRQ, WRQ
from cofferdam.policy.terms.patch_rows import Tftp, Way
from tests.brokers.patch.makers import untold
from tests.waiting import PATIENT


class _Installer:
    def __init__(self, file: Path) -> None:
        self.file = file
        self.ended: list[bool] = []
        release = SimpleNamespace(custom=SimpleNamespace(file="fw.bin"), size=file.stat().st_size)
        self.verdict = SimpleNamespace(due=True, release=release, install=None)
        self.rows = SimpleNamespace(ways=[SimpleNamespace(tftp_read="{file}", address="192.0.2.1", asset="a", rate=1)])

    def plan(self) -> Any:
        return SimpleNamespace(verdicts=lambda _now, _asset: [self.verdict])

    def shut(self) -> str:
        return ""

    async def begin(self, _verdict: Any, _how: str) -> Any:
        return SimpleNamespace()

    def file_of(self, _release: Any) -> Path:
        return self.file

    async def sent(self, _count: int) -> None:
        pass

    def fetched(self, _step: Any, _install: Any, _way: Any, whole: bool) -> None:
        self.ended.append(whole)


def test_an_asset_that_takes_for_ever_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It acknowledges eight bytes now and then, and is never silent."""
    monkeypatch.setattr(tftp_serving, "at_most", lambda _way, _size: 0.3, raising=False)
    file = tmp_path / "fw.bin"
    file.write_bytes(bytes(8000))
    installer: Any = _Installer(file)

    async def run() -> None:
        sent: list[bytes] = []
        monkeypatch.setattr(
            tftp_serving, "Datagrams", lambda *_: SimpleNamespace(send=lambda _a, _p, data: sent.append(data))
        )
        tasks: list[asyncio.Task[None]] = []
        unused: Any = None
        served = tftp_serving.TftpServing(
            installer,
            unused,
            unused,
            lambda: 0,
            lambda work: tasks.append(asyncio.get_running_loop().create_task(work)),
        )
        served._on_datagram("192.0.2.1", 69, struct.pack(">H", RRQ) + b"fw.bin\0octet\0blksize\0" + b"8\0")
        async with asyncio.timeout(PATIENT):
            while not tasks[0].done():
                await asyncio.sleep(0.02)
                if sent and not tasks[0].done():
                    number = sent[-1][2:4] if sent[-1][:2] == struct.pack(">H", DATA) else b"\0\0"
                    served._on_datagram("192.0.2.1", 69, struct.pack(">H", ACK) + number)
        await tasks[0]

    asyncio.run(run())
    assert installer.ended == [False]


def test_an_asset_that_is_read_back_for_ever_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter((PATIENT, 0.5))  # to write it, and to read it back
    monkeypatch.setattr(tftp, "at_most", lambda _way, _size: next(seconds))
    file = tmp_path / "fw.bin"
    file.write_bytes(bytes(300))

    class Asset(asyncio.DatagramProtocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, addr: Any) -> None:
            code = int.from_bytes(data[:2], "big")
            if code == WRQ:
                self.transport.sendto(struct.pack(">HH", ACK, 0), addr)
            elif code == DATA:
                self.transport.sendto(struct.pack(">H", ACK) + data[2:4], addr)
            else:
                number = 1 if code == RRQ else int.from_bytes(data[2:4], "big") + 1
                packet = struct.pack(">HH", DATA, number) + bytes(512)
                asyncio.get_running_loop().call_later(0.1, self.transport.sendto, packet, addr)

    async def run() -> Outcome:
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Asset, ("127.0.0.1", 0))
        port = transport.get_extra_info("sockname")[1]
        way = Way(asset="a", address="127.0.0.1", tftp=Tftp(port=port, path="{file}"))
        try:
            return await tftp.push(way, file, "fw.bin", 1 << 30, "0" * 64, untold)
        finally:
            transport.close()

    assert asyncio.run(run()).state == "unknown"
