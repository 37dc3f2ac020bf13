"""The cell on the plant side: a Logix tag server and a drive, both by cm-ethernetip, each at an address of its own.

Not here: anything of Cofferdam but how events are printed.
"""

from __future__ import annotations

import argparse
import asyncio
import struct

from ethernetip.cip.identity_info import IdentityInfo
from ethernetip.cip.service import CipServiceDefinition
from ethernetip.device.virtual_device import VirtualDevice
from ethernetip.logix import data_types as dt
from ethernetip.logix.logix_dispatcher import LogixDispatcher
from ethernetip.logix.tag_database import TagDatabase
from ethernetip.protocol.eip_adapter import EipAdapter

from cofferdam.lab.packer import events

TAGS = (
    ("Pump", dt.DINT, 1), ("Level", dt.REAL, 1), ("Counts", dt.DINT, 50), ("Status", dt.DINT, 1),
    ("Speed", dt.INT, 1), ("Line", dt.DINT, 1), ("Recipe_Lock", dt.DINT, 1),
)  # fmt: skip
OUTPUTS, INPUTS, CONFIG = 150, 100, 151


async def serve(controller: tuple[str, int], drive: tuple[str, int], sink: events.Sink) -> None:
    """Both of them, until the process is ended."""
    tags = TagDatabase()
    for name, kind, count in TAGS:
        tags.add_tag(name, kind, count)
    logix = IdentityInfo(vendor_id=1, device_type=14, product_code=55, serial_number=0xC0FFEE, major_revision=32,
                         minor_revision=11, product_name="1756-L71/B LOGIX5571")  # fmt: skip
    dispatcher = LogixDispatcher(tags, logix)
    symbols = dispatcher._symbol_object
    # Without it the second page of its list is answered with 08.
    symbols.cip_class.add_instance_service(
        CipServiceDefinition(0x55, "Get_Instance_Attribute_List", symbols._handle_browse)
    )
    for tag in tags.all_tags:
        tag.on_value_changed.append(lambda one, info: sink(events.Written(one.name, _first(one.get_data()))))
    device = VirtualDevice(
        IdentityInfo(vendor_id=1, device_type=2, product_code=3, serial_number=7, product_name="Drive"), drive[0]
    )
    outputs = device.add_assembly(OUTPUTS, 4)
    device.add_assembly(INPUTS, 8)
    device.add_assembly(CONFIG, 0)
    said = [-1]

    def told(_number: int, data: bytes) -> None:
        value = _first(data)
        if value != said[0]:
            said[0] = value
            device.assemblies.assemblies[INPUTS].set_data(struct.pack("<ii", value, 1))
            sink(events.Written("reference", value))

    outputs.on_data_changed.append(told)
    device.connection_manager.on_connection_removed.append(lambda _: sink(events.Stopped()))
    async with EipAdapter(dispatcher, logix) as adapter, device:
        await adapter.listen(*controller)
        await device.start(drive[1])
        sink(events.Listening(*controller))
        await asyncio.Event().wait()


def _first(data: bytes) -> int:
    """The number that a tag or an assembly begins with."""
    return int.from_bytes(data[:4].ljust(4, b"\0"), "little", signed=len(data) >= 4)


def main() -> None:
    """`python -m cofferdam.lab.packer.cell --controller ADDRESS:PORT --drive ADDRESS:PORT`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--controller", required=True)
    parser.add_argument("--drive", required=True)
    args = parser.parse_args()
    places = [(text.rpartition(":")[0], int(text.rpartition(":")[2])) for text in (args.controller, args.drive)]
    asyncio.run(serve(places[0], places[1], events.printed))


if __name__ == "__main__":
    main()
