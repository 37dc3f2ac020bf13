"""Which system call a part was ended for: the kernel's own log says it, and nobody else can.

A filter that ends a process tells its parent the signal and no more. The kernel also writes a line with the process and
the number of the call (audit type 1326). Reading it needs the right to the kernel's log, which root has on most
machines; and where auditd runs the line goes there instead. So the answer may be "", and then is.

Not here: the filter (sandbox). Nothing is read while nothing is wrong.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import time
from typing import Final

from cofferdam.enforce.syscalls import NUMBERS

_RECORD_BYTES: Final = 8192
_RECORDS: Final = 20_000
"""More than the kernel's buffer holds."""
_WAITS: Final = (0.0, 0.005, 0.02, 0.05)
"""The line is written by a thread of the kernel's, a moment after the process has ended."""
_LINE: Final = re.compile(rb"type=1326 .*? pid=(\d+) .*? syscall=(\d+) ")


class KernelLog:
    """The kernel's log from now on. To be opened while the right to it is there."""

    def __init__(self) -> None:
        self._fd = -1
        with contextlib.suppress(OSError):
            self._fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            os.lseek(self._fd, 0, os.SEEK_END)

    def call_of(self, pid: int) -> str:
        """The call for which the filter ended this process, by its name; "" where the kernel does not say."""
        if self._fd < 0:
            return ""
        for wait in _WAITS:
            time.sleep(wait)
            found = self._look(pid)
            if found is not None:
                return name_of(found)
        return ""

    def _look(self, pid: int) -> int | None:
        """Reads on to the end."""
        found: int | None = None
        for _ in range(_RECORDS):
            try:
                record = os.read(self._fd, _RECORD_BYTES)
            except BlockingIOError:
                return found
            except BrokenPipeError:  # records were overwritten before they were read
                continue
            except OSError:
                return found
            # "priority,sequence,time,flags;text": a process can write records of its own only as root.
            line = _LINE.search(record)
            if line is not None and int(line[1]) == pid:
                found = int(line[2])
        return found

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def name_of(number: int) -> str:
    """A system call's name on this processor, where it is one of those that we know."""
    for name, known in NUMBERS.get(platform.machine(), {}).items():
        if known == number:
            return name
    return f"number {number}"
