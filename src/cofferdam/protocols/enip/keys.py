"""The electronic key of a Forward Open: which device its sender takes the target for (CIP Volume 1, 3-5.5.1.10).

Zeros mean any. Without the bit of compatibility all that is said has to be so; with it the revision may be one that the
device stands in for: the same major one, and a minor one up to its own.
"""

from __future__ import annotations

import struct
from typing import Final

from cofferdam.protocols.enip import messages as m

_FORM: Final = struct.Struct("<HHHBB")
WRONG_VENDOR, WRONG_TYPE, WRONG_REVISION = 0x0114, 0x0115, 0x0116
"""What is said to a key that does not fit: vendor or product, device type, revision."""


def key_of(data: bytes) -> m.Key:
    """The eight bytes of a key's segment."""
    vendor, device, product, major, minor = _FORM.unpack(data)
    return m.Key(vendor, device, product, major & 0x7F, minor, bool(major & 0x80))


def misfit(key: m.Key, identity: m.Identity) -> int:
    """The extended status for a key that is another device's; 0 for one that fits."""
    if key.vendor not in (0, identity.vendor) or key.product not in (0, identity.product):
        return WRONG_VENDOR
    if key.device not in (0, identity.device):
        return WRONG_TYPE
    if key.compatible:
        fits = key.major == identity.major and 0 < key.minor <= identity.minor
    else:
        fits = not key.major or (key.major == identity.major and key.minor in (0, identity.minor))
    return 0 if fits else WRONG_REVISION
