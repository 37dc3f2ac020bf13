"""Who brought a file in and who asked for its release, by the word of those who saw it: the intake of uploads, the
fetcher of what it fetches, the gate of what people ask of it. The keeper hands these words on, and its own is none.

A file that was left in a folder of the site's was seen by nobody: there the policy has to say that this product's
files come so.

Not here: signatures and keys (kit.vouch), who approves (trust, releases).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

import msgspec
from msgspec import UNSET

from cofferdam.brokers.kit import vouch
from cofferdam.brokers.kit.vouch import Vouch
from cofferdam.brokers.patch.catalogue import FileRow
from cofferdam.brokers.patch.records import Custom, path_of, same_person
from cofferdam.enforce.profile import GATE_VOUCHES
from cofferdam.errors import GateError
from cofferdam.policy.terms.patch_rows import PatchRows

ASKED: Final = "request"
SEEN_BY: Final = {"upload": "intake", "fetch": "fetcher", "put": GATE_VOUCHES, ASKED: GATE_VOUCHES}
"""Who saw it, by what was done."""


class Witnesses:
    """Those whose word is believed, by their public keys. `laid`: products whose files are left in folders; `twice`:
    those whose proof is that two brought the same."""

    def __init__(self, keys: Mapping[str, bytes], laid: Collection[str] = (), twice: Collection[str] = ()) -> None:
        self._keys = keys
        self._laid = frozenset(laid)
        self._twice = frozenset(twice)

    def saw(self, word: Vouch, path: str, sha256: str) -> bool:
        """Whether it is the word of whoever would have seen that."""
        return vouch.is_genuine(word, self._keys.get(SEEN_BY.get(word.did, "")), path, sha256)

    def why_not(self, custom: Custom, sha256: str) -> str:
        """Why nobody's word stands for who brought this file in and who asked for it, "" if it does."""
        path = custom.path
        brought = custom.brought or ()
        asked = custom.asked
        if asked is UNSET or asked.did != ASKED or asked.who != custom.requested_by:
            return f"{path}: nobody saw {custom.requested_by} ask for its release"
        laid = custom.product in self._laid
        # What was left in a folder first, and brought by somebody then, has the folder's name, for which nobody speaks.
        if any(each.did == ASKED for each in brought) or (
            brought and not laid and brought[0].who != custom.uploaded_by
        ):
            return f"{path}: nobody saw {custom.uploaded_by} bring it in"
        if false := next((each for each in (*brought, asked) if not self.saw(each, path, sha256)), None):
            return f"{path}: the word that {false.who} did it ({false.did}) is not the {SEEN_BY.get(false.did, '?')}'s"
        # What one part says of whom it got a file from, nobody else has seen: all that comes by it is one way (beside).
        people = {same_person(each.who) for each in brought}
        parts = {(each.did, same_person(each.who) if each.did == "put" else "") for each in brought}
        ways = min(len(people), len(parts)) + laid
        if ways < (2 if custom.product in self._twice else 1):
            return f"{path}: nobody saw {'two' if custom.product in self._twice else custom.uploaded_by} bring it in"
        return ""


def witnesses_of(rows: PatchRows, secrets: Mapping[str, bytes]) -> Witnesses:
    """As the policy has them, of what a part that believes them was given."""
    twice = {each.name for each in rows.products if each.origin.proof == "two-sources"}
    return Witnesses(vouch.heard(secrets), rows.laid, twice)


def concerned(custom: Custom) -> frozenset[str]:
    """Whoever brought it in or asked for it, as names are compared."""
    words = (*(custom.brought or ()), *((custom.asked,) if custom.asked else ()))
    return frozenset(
        same_person(name) for name in (custom.uploaded_by, custom.requested_by, *(each.who for each in words))
    )


def custom_of(row: FileRow, metadata: Any) -> Custom:
    """What the metadata say of a file."""
    path = path_of(row.product, row.version, row.file)
    return msgspec.convert(metadata.signed.targets[path].custom, Custom)


def not_seen(number: int, why: str) -> GateError:
    """Why a file cannot be released, and the way out."""
    hint = (
        "it came, or was asked for, before this gate kept such words, or its keys are others now: "
        f"`cofferdam patch reject {number}`, and bring it in again"
    )
    return GateError(why, hint=hint)
