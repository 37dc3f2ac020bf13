"""OPC UA's codec beside asyncua's, on the same messages: a JSON line for each, the best of some rounds (µs).

Started by opcua.py, on the compiled build where there is one: that is how halves run it.
"""

from __future__ import annotations

import functools
import json
import timeit
from pathlib import Path
from typing import Any

from asyncua import ua as types
from asyncua.common.utils import Buffer
from asyncua.ua import ua_binary

from cofferdam.protocols.opcua import wire

ua: Any = types


def codec() -> None:
    """Both codecs on the same messages."""
    node = ua.ReadValueId(ua.NodeId("Line1.Speed", 2), ua.AttributeIds.Value)
    interpreted = Path(wire.__file__).suffix == ".py"
    for count in (1, 100):
        asked = ua.ReadRequest()
        asked.Parameters.NodesToRead = [node] * count
        answer = ua.ReadResponse()
        answer.Results = [ua.DataValue(ua.Variant(1.5, ua.VariantType.Double), SourceTimestamp=None)] * count
        for theirs, request in ((asked, True), (answer, False)):
            data = ua_binary.struct_to_binary(theirs)
            ours = wire.decode(data, request=request)
            kind = type(theirs)

            def read_theirs(data: bytes = data, kind: type = kind) -> Any:
                return ua_binary.struct_from_binary(kind, Buffer(data))

            ways = {
                "decode": (functools.partial(wire.decode, data, request=request), read_theirs),
                "encode": (functools.partial(wire.encode, ours), functools.partial(ua_binary.struct_to_binary, theirs)),
            }
            for what, (mine, other) in ways.items():
                own, others = (min(timeit.repeat(work, number=200 // count + 1, repeat=20)) for work in (mine, other))
                own, others = (each / (200 // count + 1) * 1e6 for each in (own, others))
                name = f"{kind.__name__} of {count}"
                said = {"codec": what, "message": name, "us": round(own, 1), "asyncua_us": round(others, 1)}
                print(json.dumps(said | {"faster": round(others / own, 1), "interpreted": interpreted}), flush=True)


if __name__ == "__main__":
    codec()
