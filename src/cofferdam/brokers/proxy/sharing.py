"""Read sharing: one answer of the device serves all who ask for the same cells within a short time.

Off unless the asset's `share_reads` is set. A shared value is never older than that, counted from when the question
left for the device; and never from before a write that the gate has sent since, so that who writes and then reads
sees the device's answer to its write.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from cofferdam.brokers.proxy.connection import Job
from cofferdam.protocols.base import Protocol

ENTRIES = 256
"""Answers kept for one asset."""


class _Answer:
    __slots__ = ("request", "response", "sent")

    def __init__(self, request: Any, response: Any, sent: int) -> None:
        self.request = request
        self.response = response
        self.sent = sent


class SharedReads:
    """The answers of one asset. `limit_ns` is the greatest age in ns."""

    def __init__(self, protocol: Protocol[Any, Any], limit_ns: int) -> None:
        self._protocol = protocol
        self.limit_ns = limit_ns
        self._answers: dict[Hashable, list[_Answer]] = {}
        self._count = 0
        self._under_way: dict[Hashable, list[Job]] = {}
        self._generation = 0

    def find(self, request: Any, now: int) -> Any | None:
        """An answer that is young enough, or None. `now`: monotonic ns."""
        key = self._protocol.share_key(request)
        if key is None:
            return None
        for answer in reversed(self._answers.get(key, ())):
            if now - answer.sent <= self.limit_ns:
                response = self._protocol.slice(request, answer.request, answer.response)
                if response is not None:
                    return response
        return None

    def join(self, job: Job) -> bool:
        """Whether the same question is under way, and young enough, so that the job now waits for its answer."""
        key = self._protocol.share_key(job.request)
        for other in self._under_way.get(key, ()) if key is not None else ():
            if other.request == job.request and (not other.sent or job.arrived - other.sent <= self.limit_ns):
                if other.joined is None:
                    other.joined = []
                other.joined.append(job)
                return True
        return False

    def asked(self, job: Job) -> None:
        """The job's question goes to the device; the same question may join it from now on."""
        key = self._protocol.share_key(job.request)
        if key is not None:
            job.generation = self._generation
            self._under_way.setdefault(key, []).append(job)

    def answered(self, job: Job) -> None:
        """The job is finished, well or not: keeps its answer if that may be shared."""
        key = self._protocol.share_key(job.request)
        if key is None or job.generation != self._generation:
            return
        others = self._under_way.get(key, [])
        if job not in others:  # asked under another policy
            return
        others.remove(job)
        if not others:
            del self._under_way[key]
        if job.response is None or self._protocol.is_error(job.response):
            return
        before = self._answers.get(key, [])
        kept = [old for old in before if job.sent - old.sent <= self.limit_ns and old.request != job.request]
        kept.append(_Answer(job.request, job.response, job.sent))
        self._count += len(kept) - len(before)
        self._answers[key] = kept
        if self._count > ENTRIES:
            self._answers, self._count = {key: kept[-1:]}, 1

    def written(self) -> None:
        """A write leaves for the device, or has been answered: what was read before it is not shared any more.

        Who has joined a question already asked before the write, and still gets its answer.
        """
        self._generation += 1
        self._answers, self._count, self._under_way = {}, 0, {}
