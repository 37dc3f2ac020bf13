"""How old frames of streams are as a half sends them on, and how evenly it does: by stream, against their time-outs.

*Age*: from the turn in which the first half read the frame to when the second had given it to the kernel; both see one
clock. *Jitter*: how far the time between two frames that were sent is from the stream's interval, as it stands after
the sender's own unevenness. Each half measures what it sends: the outer one what comes from the asset, the inner one
what goes to it.

Of one stream there may be several clients at a time, where it has no outputs: each has a *slot* while it is there, the
first free one. The first is called by the stream alone; those beyond `SLOTS` share the last.

A stream whose age comes near its time-out is about to be lost: where the 99.9th percentile of a while passes a quarter
of it, that is an alarm.

Not here: the streams themselves (standing), what the asset's own network adds (nobody here can see it).
"""

from __future__ import annotations

from cofferdam.brokers.kit.figures import Reported, distribution
from cofferdam.crossing.longest import Longest
from cofferdam.histogram import Histogram
from cofferdam.protocols.base import Cadence

WINDOW_NS = 30_000_000_000
"""Ages are compared with the time-out over so long."""
FEWEST = 100
"""Frames of a window, at least, before its percentile says anything."""
LABELS = 1024
"""Slots of streams that are told apart."""
SLOTS = 8
"""Slots of one stream."""
LONGEST_NS = 60_000_000_000
"""Greater ages, and those below 0, are no ages: the other half has made them up."""


class Times:
    """One stream that stands, in one half."""

    __slots__ = (
        "_age", "_conduit", "_interval", "_jitter", "_last", "_pauses", "_recent", "_since", "label", "limit", "p999",
    )  # fmt: skip

    def __init__(
        self, label: str, age: Histogram, jitter: Histogram, conduit: Histogram, interval: int, timeout: int, now: int
    ) -> None:
        """`interval` and `timeout` of the frames that this half sends, in ns."""
        self.label = label
        self.limit = timeout // 4
        self.p999 = 0
        self._age = age
        self._jitter = jitter
        self._conduit = conduit
        self._interval = interval
        self._last = 0
        self._pauses = Longest(2 * interval)
        self._recent = Histogram()
        self._since = now

    def sent(self, born: int, now: int) -> None:
        """A frame that was read at `born` has been sent (monotonic ns)."""
        age = now - born
        if 0 <= age <= LONGEST_NS:
            self._age.add(age)
            self._conduit.add(age)
            self._recent.add(age)
        if self._last:
            gap = now - self._last
            self._jitter.add(abs(gap - self._interval))
            self._pauses.note(gap, now)
        self._last = now

    def paused(self, now: int) -> int:
        """The longest time (ns) of late in which nothing was sent; 0 where it was never more than two intervals."""
        self._pauses.note(now - self._last if self._last else 0, now)
        return self._pauses.of_late(now)

    def look(self, now: int) -> None:
        """Judges the window when it is over."""
        if now - self._since >= WINDOW_NS:
            self.p999 = self._recent.quantile(0.999) if self._recent.count >= FEWEST else 0
            self._recent = Histogram()
            self._since = now


def silence(what: str, way: str, paused: int, half: str, held: int) -> str:
    """What the log says of a side that has sent nothing in time: whether it may have had nothing from us, and whether
    this machine held us up. Durations in ns, of the ten seconds before; 0 for none to speak of."""
    pause = f"paused for {paused / 1e6:.1f} ms" if paused else "did not pause"
    hold = f"was held up for {held / 1e6:.1f} ms" if held else "was not held up"
    return f"{what} (in the ten seconds before, {way} {pause}, and the {half} half {hold})"


class FrameTimes:
    """All streams of one half. `way`: "inputs" or "outputs", which it sends on."""

    def __init__(self, way: str) -> None:
        self._way = way
        self._by_label: dict[str, tuple[Histogram, Histogram]] = {}
        self._by_conduit: dict[str, Histogram] = {}
        self._open: set[Times] = set()

    def begin(self, asset: str, stream: str, conduit: str, cadence: Cadence, now: int) -> Times:
        """A stream stands."""
        label = self._slot(f"{asset}/{stream}")
        if label not in self._by_label and len(self._by_label) >= LABELS:
            label = ""
        found = self._by_label.get(label)
        if found is None:
            found = self._by_label[label] = (Histogram(), Histogram())
        of_conduit = self._by_conduit.get(conduit)
        if of_conduit is None:
            of_conduit = self._by_conduit[conduit] = Histogram()
        interval = cadence.out_ns if self._way == "outputs" else cadence.in_ns
        times = Times(label, *found, of_conduit, interval, interval * cadence.silence, now)
        self._open.add(times)
        return times

    def _slot(self, stream: str) -> str:
        """The first name of a stream's slots that nobody has."""
        taken = {times.label for times in self._open}
        names = [stream, *(f"{stream}#{number}" for number in range(2, SLOTS + 1))]
        return next((name for name in names if name not in taken), names[-1])

    def end(self, times: Times | None) -> None:
        """It stands no longer."""
        if times is not None:
            self._open.discard(times)

    def alarms(self, now: int) -> dict[str, str]:
        """Streams that are slow: see the top."""
        found: dict[str, str] = {}
        for times in self._open:
            times.look(now)
            if times.p999 > times.limit and (len(found) < 16 or times.label in found):
                found[f"late-{self._way}-{times.label}"[:128]] = (
                    f"{times.label}: of a thousand packets of {self._way} one was {times.p999 / 1e6:.1f} ms old, more "
                    f"than a quarter of the time-out ({times.limit * 4 / 1e6:g} ms)"
                )[:512]
        return found

    def report(self) -> Reported:
        """By the names of the proxies' figures."""
        streams = self._by_label.items()
        return {
            f"{self._way}_age": {label: distribution(pair[0]) for label, pair in streams},
            f"{self._way}_jitter": {label: distribution(pair[1]) for label, pair in streams},
            "packets": {conduit: distribution(one) for conduit, one in self._by_conduit.items()},
        }
