"""What the verbs of `cofferdam diode` print: the status of each end, in lines; and how it gets on the screen, into a
file, or into a QR code.

Not here: the verbs (diode, diode_pair).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def say(lines: Iterable[str]) -> None:
    from cofferdam.audit.lines import escaped

    for line in lines:
        print(escaped(line))


def write(path: Path, data: bytes, mode: int) -> None:
    """Whole or not at all."""
    import os

    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(fd)
    new.rename(path)


def qr(text: str) -> None:
    """On a terminal, if the library is there."""
    if not sys.stdout.isatty():
        return
    try:
        import segno
    except ImportError:
        return
    segno.make(text, error="m").terminal(compact=True)


def size(count: int) -> str:
    """Bytes for people to read: three digits that count."""
    for unit, factor in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count} bytes"


def _head(each: dict[str, Any]) -> Iterator[str]:
    yield f"{each['strand']}: the {each['end']} end, {each['how']}"
    attested = each["hardware"]
    yield f"  hardware: {f'attested by the operator: {attested}' if attested else 'nothing is attested'}"
    if not each["paired"]:
        yield f"  NO OTHER END: cofferdam diode pair {each['end']}"
    if each["full"]:
        yield f"  FULL: {each['full']}"


def inside(each: dict[str, Any]) -> Iterator[str]:
    from cofferdam.policy.terms.diode_rows import show_rate

    yield from _head(each)
    spool, now = each["spool"], each["now"]
    yield (f"  sends {now['sending'] / 1e6:.2f} Mbit/s now; {now['packets']} packets went out, {now['unsent']} times "
           "the kernel took nothing")  # fmt: skip
    hours, room = spool["oldest_seconds"] / 3600, spool["room_seconds"]
    yield f"  epoch {each['epoch']}, {show_rate(each['rate'])}, {size(each['queue'])} in the sender's queue"
    yield (f"  spool: {size(spool['bytes'])} of {size(spool['room'])}, {hours:.1f} of {spool['keep'] / 3600:g} h, "
           f"{spool['dropped']} dropped for want of room"
           + (f"; at this pace there is room for {room / 3600:.1f} h" if room >= 0 else ""))  # fmt: skip
    for channel in each["channels"]:
        yield f"  {channel['channel']:24} epoch {channel['epoch']}: {channel['oldest']} to {channel['highest']} kept"
    for name, folder in each["folders"].items():
        yield f"  {name:24} out of {folder}"
    yield from _under_way(each["under_way"], "been sent")
    for one in each["not_sent"]:
        yield f"  NOT SENT: {one['name']} of {one['channel']}: {one['why']}"


def _under_way(files: list[dict[str, Any]], what: str) -> Iterator[str]:
    for one in files:
        yield f"    {one['name']}: {100 * one['done'] // max(1, one['of'])} % of {size(one['size'])} has {what}"


def outside(each: dict[str, Any]) -> Iterator[str]:
    yield from _head(each)
    beat = each["heartbeat"]
    if beat is None:
        yield f"  nothing has been heard{'' if each['epoch'] else ', and no epoch is known'}"
    else:
        told = f"{datetime.fromtimestamp(beat['told'] // 10**9, UTC):%Y-%m-%d %H:%M:%S}"
        yield (f"  epoch {each['epoch']} of {each['sender']}; heartbeat {beat['age']} s ago, its clock says {told} "
               f"({beat['differs']:+} s to ours), {size(beat['queue'])} wait inside")  # fmt: skip
    if each["told"]:
        yield from about_inside(each["told"])
    trouble, counts = each["trouble"], each["now"]
    came, repaired = counts["received"], counts["repaired"]
    share = 100 * repaired / max(1, came + repaired)
    yield (f"  hears {counts['hearing'] / 1e6:.2f} Mbit/s now; {came} packets came, some {share:.2f} % were lost "
           f"before repair, {repaired} repaired")  # fmt: skip
    yield (f"  {trouble['foreign']} foreign packets, {trouble['blocks']} blocks lost, {counts['blocks_open']} not "
           f"whole, {trouble['kernel']} packets dropped by the kernel, {trouble['overrun']} records not taken in "
           "time")  # fmt: skip
    for name, why in each["stopped"].items():
        yield f"  STOPPED: {name}: {why}"
    for channel in each["channels"]:
        lost = sum(one["lost"] + one["given_up"] for one in channel["epochs"])
        words = f"{channel['missing']} missing, {lost} lost"
        if channel["channel"].startswith("files:"):
            words += f", {channel['done']} files whole, {channel['coming']} coming"
        yield f"  {channel['channel']:24} {words}"
        yield from _under_way(channel["under_way"], "come")
        now = time.time_ns()
        for gap in channel["gaps"]:
            yield (f"    epoch {gap['epoch']}: {gap['first']} to {gap['last']}, "
                   f"missing for {max(0, now - gap['since']) // 10**9} s")  # fmt: skip
    for name, folder in each["folders"].items():
        yield f"  {name:24} into {folder}"


def about_inside(told: dict[str, Any]) -> Iterator[str]:
    """What is known outside of the inside's status and log, in lines."""
    if not told:
        yield "  nothing is told of the inside by this policy: carries: [gate:status, gate:log]"
        return
    if told["came_ns"]:
        age = max(0, time.time_ns() - told["came_ns"]) // 10**9
        at = f"{datetime.fromtimestamp(told['told_ns'] // 10**9, UTC):%Y-%m-%d %H:%M:%S}"
        yield f"  its status came {age} s ago; its clock said {at}"
    log = told["log"]
    if log is not None:
        waits = f"; one over {log['waits']} waits for what is missing" if log["waits"] else ""
        whose = "signed by the inside's key" if log["signed"] else "whose signature nobody has checked here"
        yield f"  its audit log: a checkpoint over {log['entries']} entries, {whose}{waits}"
        yield f"  cofferdam audit verify --log {log['folder']} --key audit.pub"
