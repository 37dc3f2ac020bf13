"""Work that changes the network, or reads what the launcher should not read, in a short-lived child of its own.

The caller stays as it was: one thread, in its own namespace, without what the work imported.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import msgspec

from cofferdam.enforce import kernel
from cofferdam.errors import CofferdamError, GateError


def inside(namespace: int | None, work: Callable[..., Any], *arguments: Any) -> Any:
    """What `work(*arguments)` returns (plain data), run in a child in the namespace of this descriptor.

    Raises:
        GateError: what the child raised.
    """
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        _child(namespace, write_fd, work, arguments)
    os.close(write_fd)
    with os.fdopen(read_fd, "rb") as pipe:
        data = pipe.read()
    _, status = os.waitpid(pid, 0)
    if not data:
        raise GateError(f"work on the network ended unexpectedly ({os.waitstatus_to_exitcode(status)})")
    ok, result = msgspec.msgpack.decode(data)
    if not ok:
        message, hint = result
        raise GateError(message, hint=hint)
    return result


def _child(namespace: int | None, write_fd: int, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    try:
        signal.set_wakeup_fd(-1)  # a signal that reaches this child is not the launcher's
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if namespace is not None:
            kernel.setns(namespace, kernel.CLONE_NEWNET)
        answer: tuple[bool, Any] = (True, work(*arguments))
    except CofferdamError as error:
        answer = (False, (str(error), error.hint))
    except Exception as error:
        answer = (False, (f"the kernel refuses: {error}", ""))
    with contextlib.suppress(OSError), os.fdopen(write_fd, "wb") as pipe:
        pipe.write(msgspec.msgpack.encode(answer))
    os._exit(0)
