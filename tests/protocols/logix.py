"""A Logix tag server of other hands (cm-ethernetip) in a thread: what stands in the place of a controller."""

from __future__ import annotations

import asyncio
import struct
import threading
from typing import Any

from ethernetip.cip.identity_info import IdentityInfo
from ethernetip.cip.service import CipServiceDefinition
from ethernetip.logix import data_types as dt
from ethernetip.logix.logix_dispatcher import LogixDispatcher
from ethernetip.logix.tag_database import TagDatabase
from ethernetip.protocol.eip_adapter import EipAdapter

from tests.ports import held_port
from tests.waiting import PATIENT

TAGS = (
    ("Pump", dt.DINT, 1),
    ("Counts", dt.DINT, 100),
    ("Level", dt.REAL, 1),
    ("Status", dt.DINT, 1),
    ("Secret", dt.DINT, 1),
    ("Speed", dt.INT, 1),
    ("Big", dt.DINT, 600),
)


class _Heard(LogixDispatcher):  # type: ignore[misc]
    heard: list[tuple[int, str]]

    def dispatch(self, service: int, path: Any, data: Any) -> Any:
        self.heard.append((service, str(path)))
        return super().dispatch(service, path, data)


class Controller:
    """A controller with the tags above, and some more where a test wants a long list."""

    def __init__(self, more: int = 0, port: int = 0) -> None:
        self.tags = TagDatabase()
        for name, kind, count in TAGS:
            self.tags.add_tag(name, kind, count)
        for number in range(more):
            self.tags.add_tag(f"More_{number:03}", dt.DINT)
        self.identity = IdentityInfo(
            vendor_id=1,
            device_type=14,
            product_code=55,
            serial_number=0xC0FFEE,
            major_revision=32,
            minor_revision=11,
            product_name="1756-L71/B LOGIX5571",
        )
        self.asked: list[tuple[int, str]] = []
        """(service, path) of each request that reached it, also of those in an Unconnected Send or a packet."""
        self.dispatcher = _Heard(self.tags, self.identity)
        self.dispatcher.heard = self.asked
        symbols = self.dispatcher._symbol_object
        # Without it the second page of its list is answered with 08.
        symbols.cip_class.add_instance_service(
            CipServiceDefinition(0x55, "Get_Instance_Attribute_List", symbols._handle_browse)
        )
        for tag in self.tags.all_tags:
            tag.on_value_changed.append(lambda changed, _: self.written.append(changed.name))
        self.written: list[str] = []
        """Names of tags that were written, in order."""
        self.port = port or held_port()
        self._loop = asyncio.new_event_loop()
        self._up = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        async def main() -> None:
            async with EipAdapter(self.dispatcher, self.identity) as adapter:
                await adapter.listen("127.0.0.1", self.port)
                self._up.set()
                await self._stop.wait()
            left = asyncio.all_tasks() - {asyncio.current_task()}  # clients that have not gone yet
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

        self._stop = asyncio.Event()
        self._loop.run_until_complete(main())

    def start(self) -> Controller:
        self._thread.start()
        assert self._up.wait(PATIENT)
        return self

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENT)
        self._loop.close()

    def dint(self, name: str, element: int = 0) -> int:
        found = self.tags.find_by_name(name)
        assert found is not None
        return int(found.read_dint(4 * element))

    def put(self, name: str, value: int | float, element: int = 0) -> None:
        found = self.tags.find_by_name(name)
        assert found is not None
        form = {dt.DINT: "<i", dt.REAL: "<f", dt.INT: "<h"}[found.tag_type]
        size = struct.calcsize(form)
        found._data[size * element : size * (element + 1)] = struct.pack(form, value)
