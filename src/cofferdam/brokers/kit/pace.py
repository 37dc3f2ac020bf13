"""How fast a source may do a thing: token buckets by name."""

from __future__ import annotations


class Bucket:
    """A token bucket: `rate` a second on average, `burst` at once."""

    __slots__ = ("at", "tokens")

    def __init__(self, burst: float, now: int) -> None:
        self.tokens = burst
        self.at = now


def draw(buckets: dict[str, Bucket], source: str, now: int, rate: float, burst: float, count: float = 1.0) -> bool:
    """Whether `source` may do one more, or `count` more, of what its bucket bounds. `rate` is per ns."""
    bucket = buckets.get(source)
    if bucket is None:
        bucket = buckets[source] = Bucket(burst, now)
    tokens = bucket.tokens + (now - bucket.at) * rate
    bucket.at = now
    tokens = tokens if tokens < burst else burst
    if tokens < count:
        bucket.tokens = tokens
        return False
    bucket.tokens = tokens - count
    return True


def is_empty(buckets: dict[str, Bucket], source: str, now: int, rate: float) -> bool:
    """Whether `draw` would say no. Takes nothing."""
    bucket = buckets.get(source)
    return bucket is not None and bucket.tokens + (now - bucket.at) * rate < 1.0


def forget_full(buckets: dict[str, Bucket], now: int, rate: float, burst: float) -> None:
    """Forgets the buckets that are full again: they say nothing that a new one would not."""
    for source in [name for name, bucket in buckets.items() if bucket.tokens + (now - bucket.at) * rate >= burst]:
        del buckets[source]
