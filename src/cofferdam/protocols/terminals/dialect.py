"""What policy knows of assets that people work at: a name, a port, and that they have no points.

Not here: machines (protocols.sftp, protocols.telnet); SSH itself is asyncssh's.
"""

from __future__ import annotations

from typing import Final

from cofferdam.model import Item, Span
from cofferdam.protocols.dialect import Dialect, Misread, Notation


class _NoPlaces(Notation):
    """Nothing can be named at such an asset."""

    pattern = r"^(?!)$"
    examples = ()

    def __init__(self, name: str) -> None:
        self._name = name

    def parse(self, text: str) -> Span | Item:
        raise Misread(f"no points: an asset of {self._name} has none")

    def show(self, place: Span | Item) -> str:
        return place.space


def _terminal(name: str, port: int) -> Dialect:
    return Dialect(name=name, default_port=port, notation=_NoPlaces(name), types={})


SSH: Final = _terminal("ssh", 22)
TELNET: Final = _terminal("telnet", 23)
SERIAL: Final = _terminal("serial", 4001)
"""A serial line behind a device server that gives its bytes by TCP as they are; the port is most servers' first."""
VNC: Final = _terminal("vnc", 5900)
RDP: Final = _terminal("rdp", 3389)
TERMINALS: Final = (SSH, TELNET, SERIAL, VNC, RDP)
BARE: Final = frozenset({TELNET.name, SERIAL.name})
"""What has no keys, no commands and no files, and is unencrypted."""
