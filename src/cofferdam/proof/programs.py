"""BPF programs at the places where the kernel would let them take packets past the rules, and nothing else lists them.

    tcx                        by interface, in and out (from Linux 6.6 on; it needs no queue discipline)
    flow dissector, sk_lookup  by network namespace
    netfilter                  in the packet filter's hooks (from 6.4 on). The kernel does not say of which namespace

Functions about a namespace look at that of the calling process. Not here: XDP (reading has it with the interface).
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import socket
import struct
from collections.abc import Sequence
from pathlib import Path

from cofferdam.enforce.syscalls import NUMBERS

_PROG_QUERY, _LINK_GET_FD_BY_ID, _LINK_GET_NEXT_ID, _OBJ_GET_INFO_BY_FD = 16, 30, 31, 15
_OF_INTERFACE = {"tcx ingress": 46, "tcx egress": 47}
_OF_NAMESPACE = {"flow dissector": 17, "socket look-up": 36}
_TYPE_NETFILTER = 10
_UNKNOWN = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
"""What a kernel says that does not know such programs, so it has none."""
_BYTES = 144
_libc = ctypes.CDLL(None, use_errno=True)


def in_namespace(interfaces: Sequence[str]) -> list[str]:
    """Programs of the calling process's network namespace and of its interfaces."""
    found = []
    for name in interfaces:
        for what, kind in _OF_INTERFACE.items():
            found += _counted(socket.if_nametoindex(name), kind, f"{name}: {what}")
    with Path("/proc/self/ns/net").open("rb") as space:
        for what, kind in _OF_NAMESPACE.items():
            found += _counted(space.fileno(), kind, what)
    return found


def in_netfilter() -> list[str]:
    """Programs in the packet filter's hooks, of any namespace of this host."""
    found: list[str] = []
    last = 0
    while True:
        attributes = _attributes(struct.pack("<II", last, 0))
        try:
            _bpf(_LINK_GET_NEXT_ID, attributes)
        except OSError as error:
            known = error.errno in (errno.ENOENT, *_UNKNOWN)
            return found if known else [*found, f"links cannot be listed: {error.strerror}"]
        last = struct.unpack_from("<I", attributes.raw, 4)[0]
        try:
            link = _bpf(_LINK_GET_FD_BY_ID, _attributes(struct.pack("<I", last)))
        except OSError:
            continue  # it was taken away meanwhile
        try:
            info = ctypes.create_string_buffer(128)
            _bpf(_OBJ_GET_INFO_BY_FD, _attributes(struct.pack("<IIQ", link, 128, ctypes.addressof(info))))
            if struct.unpack_from("<I", info.raw)[0] == _TYPE_NETFILTER:
                family, hook, priority = struct.unpack_from("<IIi", info.raw, 16)
                found.append(f"program {struct.unpack_from('<I', info.raw, 8)[0]} in hook {hook} of protocol family "
                             f"{family}, priority {priority}")  # fmt: skip
        finally:
            os.close(link)


def _counted(target: int, kind: int, what: str) -> list[str]:
    attributes = _attributes(struct.pack("<IIIIQI", target, kind, 0, 0, 0, 0))
    try:
        _bpf(_PROG_QUERY, attributes)
    except OSError as error:
        return [] if error.errno in _UNKNOWN else [f"{what}: it cannot be asked: {error.strerror}"]
    count = struct.unpack_from("<I", attributes.raw, 24)[0]
    return [f"{what}: {count} program(s)"] if count else []


def _attributes(values: bytes) -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(values.ljust(_BYTES, b"\0"), _BYTES)


def _bpf(command: int, attributes: ctypes.Array[ctypes.c_char]) -> int:
    number = NUMBERS.get(platform.machine(), {}).get("bpf")
    if number is None:
        raise OSError(errno.EPERM, f"on the processor {platform.machine()} nothing is known of it")
    result = int(_libc.syscall(ctypes.c_long(number), ctypes.c_long(command), attributes, ctypes.c_long(_BYTES)))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
