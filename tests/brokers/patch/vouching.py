"""Those who vouch for who brought a file in, in tests: each with a key of its own."""

from __future__ import annotations

import hashlib

from cofferdam.brokers.kit.vouch import Vouch, Voucher, public_of
from cofferdam.brokers.patch.witnesses import SEEN_BY, Witnesses

_SEEDS = {name: hashlib.sha256(name.encode()).digest() for name in SEEN_BY.values()}
KEYS = {name: public_of(seed) for name, seed in _SEEDS.items()}
"""Public keys."""
WITNESSES = Witnesses(KEYS)
AT = 1_800_000_000


def word(did: str, who: str, what: str, sha256: str, by: str = "") -> Vouch:
    """What whoever would have seen it says; or `by`, with their own key."""
    return Voucher(_SEEDS[by or SEEN_BY[did]], lambda: AT * 10**9).say(did, who, what, sha256)
