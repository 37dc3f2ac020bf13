"""Every broker's terms, by the word that stands in a conduit's `broker:`. A new broker adds one line.

Not here: what parts a broker has and how they run (brokers.registry).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cofferdam.policy.terms.base import AnyTerms
from cofferdam.policy.terms.diode import DiodeTerms
from cofferdam.policy.terms.jump import JumpTerms
from cofferdam.policy.terms.mirror import MirrorTerms
from cofferdam.policy.terms.patch import PatchTerms
from cofferdam.policy.terms.proxy import ProxyTerms
from cofferdam.policy.terms.relay import RelayTerms
from cofferdam.protocols.dialects import DIALECTS, Dialects


def _all() -> Iterable[AnyTerms]:
    yield from map(ProxyTerms, DIALECTS.values())
    yield RelayTerms()
    yield PatchTerms()
    yield MirrorTerms()
    yield JumpTerms()
    yield DiodeTerms()


Kinds = Mapping[str, AnyTerms]

KINDS: dict[str, AnyTerms] = {terms.word: terms for terms in _all()}
"""By word. What reads a policy takes such a table, and this one by default: a test may bring another."""


def dialects(kinds: Kinds) -> Dialects:
    """The protocols that assets may speak: those of the brokers that serve assets."""
    found = {terms.dialect.name: terms.dialect for terms in kinds.values() if terms.dialect is not None}
    return found | {dialect.name: dialect for terms in kinds.values() for dialect in terms.further}
