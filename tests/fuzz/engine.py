"""The fuzzer: real inputs, mutated, fed to a target until it does something that it promised not to.

A target is a function of bytes. Whatever it lets escape is a finding: so it catches the errors that its parser may
raise (`RemoteProtocolError`, `CrossingError`, …) and nothing else, and checks by itself whatever else must hold. What
it returns is the *shape* of the run: any hashable summary of which paths were taken, or a frozenset of such, each of
which counts. An input with a new shape joins the corpus, which is how mutations build on one another.

To add targets: a module `tests/<part>/fuzz_targets.py` with a list `TARGETS` of `Target`. Nothing else.

Not here: the command line (__main__).
"""

from __future__ import annotations

import hashlib
import importlib
import random
import signal
import time
import traceback
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

TESTS = Path(__file__).parent.parent
MAX_CORPUS = 4000
INTERESTING = (0, 1, 2, 6, 7, 0x0D, 0x0E, 0x10, 0x2B, 0x7F, 0x80, 0xF5, 0xFB, 0xFE, 0xFF)
INTERESTING_WORDS = (0, 1, 2, 125, 126, 0x7B, 0x7C, 254, 255, 256, 1968, 2000, 2001, 0x7FFF, 0x8000, 0xFF00, 0xFFFF)


class Hang(Exception):
    """The target did not come back in time."""


@dataclass(frozen=True)
class Target:
    """`seeds` makes the first inputs (real frames, files, records); `run` is what is fuzzed; `tokens` are byte strings
    that are worth inserting; an input never exceeds `max_bytes`; a run that takes more than `hang_seconds` of the
    processor is a finding."""

    name: str
    seeds: Callable[[], list[bytes]]
    run: Callable[[bytes], Hashable]
    tokens: tuple[bytes, ...] = ()
    max_bytes: int = 4096
    hang_seconds: float = 5.0


@dataclass
class Finding:
    target: str
    data: bytes
    trace: str
    place: str


@dataclass
class State:
    """One target under way."""

    target: Target
    corpus: list[bytes] = field(default_factory=list)
    shapes: set[Hashable] = field(default_factory=set)
    places: set[str] = field(default_factory=set)
    execs: int = 0
    seconds: float = 0.0

    def learns(self, shape: Hashable) -> bool:
        """Whether the shape, or a member of it, is new."""
        fresh = (shape if isinstance(shape, frozenset) else frozenset((shape,))) - self.shapes
        self.shapes |= fresh
        return bool(fresh)


def targets() -> dict[str, Target]:
    """All that any part has registered, by name."""
    found: dict[str, Target] = {}
    for path in sorted(TESTS.glob("*/fuzz_targets.py")):
        module = importlib.import_module(f"tests.{path.parent.name}.fuzz_targets")
        for target in module.TARGETS:
            if target.name in found:
                raise ValueError(f"two fuzz targets are named {target.name}")
            found[target.name] = target
    return found


def mutate(data: bytes, other: bytes, rng: random.Random, tokens: tuple[bytes, ...], most: int) -> bytes:
    """One to six random changes; `other` is an input to take pieces from."""
    out = bytearray(data)
    for _ in range(1 + min(5, int(rng.expovariate(0.8)))):
        size = len(out)
        at = rng.randrange(size) if size else 0
        choice = rng.randrange(12)
        if not size or choice == 0:
            out[at:at] = rng.randbytes(rng.randrange(1, 9))
        elif choice == 1:
            out[at] ^= 1 << rng.randrange(8)
        elif choice == 2:
            out[at] = rng.choice(INTERESTING)
        elif choice == 3:
            out[at] = rng.randrange(256)
        elif choice == 4:
            out[at : at + 2] = rng.choice(INTERESTING_WORDS).to_bytes(2, rng.choice(("big", "little")))
        elif choice == 5:
            out[at] = (out[at] + rng.choice((-2, -1, 1, 2))) & 0xFF
        elif choice == 6:
            del out[at : at + rng.randrange(1, min(64, size) + 1)]
        elif choice == 7:
            del out[at:]
        elif choice == 8:
            piece = bytes(out[at : at + rng.randrange(1, 64)])
            where = rng.randrange(size + 1)
            out[where:where] = piece
        elif choice == 9 and other:
            start = rng.randrange(len(other))
            piece = other[start : start + rng.randrange(1, 256)]
            out[at : at + (len(piece) if rng.random() < 0.5 else 0)] = piece
        elif choice == 10:
            out += other
        elif tokens:
            token = rng.choice(tokens)
            out[at : at + (len(token) if rng.random() < 0.5 else 0)] = token
    return bytes(out[:most])


def _alarm(number: int, frame: FrameType | None) -> None:
    raise Hang("no answer in time")


def attempt(target: Target, data: bytes) -> tuple[Hashable, Finding | None]:
    """Runs the target once, under the alarm clock."""
    signal.setitimer(signal.ITIMER_PROF, target.hang_seconds)
    try:
        return target.run(data), None
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        # A hang is interrupted anywhere, so where it happened does not tell one from another.
        place = (
            "hang" if isinstance(error, Hang) else f"{type(error).__name__} {frames[-1].filename}:{frames[-1].lineno}"
        )
        return None, Finding(target.name, data, "".join(traceback.format_exception(error)), place)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def shrink(finding: Finding, target: Target, tries: int = 400) -> Finding:
    """The same failure from fewer bytes, as far as a few hundred tries get."""
    best = finding
    step = max(1, len(best.data) // 2)
    while step and tries > 0 and best.place != "hang":
        at = 0
        while at < len(best.data) and tries > 0:
            tries -= 1
            _, smaller = attempt(target, best.data[:at] + best.data[at + step :])
            if smaller is not None and smaller.place == best.place:
                best = smaller
            else:
                at += step
        step //= 2
    return best


def write(finding: Finding, folder: Path) -> Path:
    """The input, and beside it what happened and how to see it again."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{finding.target}-{hashlib.sha256(finding.data).hexdigest()[:12]}"
    path = folder / f"{name}.bin"
    path.write_bytes(finding.data)
    command = f"python -m tests.fuzz --target {finding.target} --reproduce {path}"
    (folder / f"{name}.txt").write_text(
        f"{command}\n\n{len(finding.data)} bytes: {finding.data.hex()}\n\n{finding.trace}"
    )
    return path


def fuzz(
    chosen: list[Target],
    seconds: float,
    seed: int,
    folder: Path,
    report: Callable[[str], None],
    every: float = 5.0,
    enough: int = 0,
) -> list[Path]:
    """Runs the targets in turns until the time is over, or so many faults are found. Returns the files of these."""
    found: list[Path] = []

    def keep(state: State, finding: Finding) -> None:
        if finding.place not in state.places:
            state.places.add(finding.place)
            path = write(shrink(finding, state.target), folder)
            found.append(path)
            report(f"FOUND {state.target.name}: {finding.place}\n      {path}")

    previous = signal.signal(signal.SIGPROF, _alarm)
    try:
        states = []
        for target in chosen:
            state = State(target)
            for data in target.seeds() or [b""]:
                shape, finding = attempt(target, data)
                state.execs += 1
                if finding is not None:
                    keep(state, finding)
                else:
                    state.learns(shape)
                    state.corpus.append(data)
            states.append(state)
        rng = random.Random(seed)
        start = shown = time.monotonic()
        for state in _turns(states):
            began = time.monotonic()
            if began - start >= seconds or 0 < enough <= len(found):
                break
            _slice(state, rng, began + 0.25, keep)
            state.seconds += time.monotonic() - began
            if time.monotonic() - shown >= every:
                shown = time.monotonic()
                report(progress(states, shown - start))
        report(progress(states, time.monotonic() - start))
    finally:
        signal.signal(signal.SIGPROF, previous)
    return found


def _turns(states: list[State]) -> Iterator[State]:
    while states:
        yield from states


def _slice(state: State, rng: random.Random, until: float, keep: Callable[[State, Finding], None]) -> None:
    corpus, target = state.corpus, state.target
    while time.monotonic() < until:
        for _ in range(32):
            base = rng.choice(corpus) if corpus else b""
            other = rng.choice(corpus) if corpus else b""
            data = mutate(base, other, rng, target.tokens, target.max_bytes)
            shape, finding = attempt(target, data)
            state.execs += 1
            if finding is not None:
                keep(state, finding)
            elif len(corpus) < MAX_CORPUS and state.learns(shape):
                corpus.append(data)


def progress(states: list[State], seconds: float) -> str:
    """One line: time, and for each target inputs run, inputs a second, corpus, findings."""
    parts = [
        f"{state.target.name} {state.execs:,} ({state.execs / state.seconds if state.seconds else 0:,.0f}/s,"
        f" corpus {len(state.corpus)}, found {len(state.places)})"
        for state in states
    ]
    return f"{seconds:6.0f} s  " + "  ".join(parts)
