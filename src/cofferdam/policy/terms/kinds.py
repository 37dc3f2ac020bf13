"""Every broker's terms, by the word that stands in a conduit's `broker:`. A new broker adds one line.

Not here: what parts a broker has and how they run (brokers.registry).
"""

from __future__ import annotations

from collections.abc import Iterable

from cofferdam.policy.terms.base import AnyTerms
from cofferdam.policy.terms.proxy import ProxyTerms
from cofferdam.policy.terms.relay import RelayTerms
from cofferdam.protocols.dialects import FAMILIES


def _all() -> Iterable[AnyTerms]:
    yield from map(ProxyTerms, FAMILIES.values())
    yield RelayTerms()


KINDS: dict[str, AnyTerms] = {terms.word: terms for terms in _all()}
"""By word."""
