"""Frames of every family from a namespace, and a packet socket that counts what arrives. Run as a program.

send INTERFACE ADDRESS COUNT: so many of UDP, ICMP, raw IP, TCP, and by a packet socket ARP, VLAN, LLDP, PTP, GOOSE.
hear INTERFACE: says "ready", then how many frames came in until its input ended, and a moment more.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import sys
import time

PACKET_OUTGOING = 4
KINDS = {"arp": 0x0806, "vlan": 0x8100, "lldp": 0x88CC, "ptp": 0x88F7, "goose": 0x88B8}


def send(interface: str, address: str, count: int) -> None:
    for _ in range(count):
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"back", (address, 4799))
        for protocol in (socket.IPPROTO_ICMP, 253):
            with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol) as sock:
                sock.sendto(b"\x08\0\xf7\xff\0\0\0\0", (address, 0))
        with contextlib.suppress(OSError), socket.socket() as sock:
            sock.setblocking(False)
            sock.connect((address, 4799))
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
            sock.bind((interface, 0))
            for kind in KINDS.values():
                with contextlib.suppress(OSError):
                    sock.send(b"\xff" * 6 + b"\x02\0\0\0\0\1" + struct.pack(">H", kind) + bytes(46))


def hear(interface: str) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as sock:
        sock.bind((interface, 3))
        sock.settimeout(0.1)
        print("ready", flush=True)
        count, until = 0, None
        while until is None or time.monotonic() < until:
            if until is None and select.select([sys.stdin], [], [], 0)[0]:
                until = time.monotonic() + 0.5
            with contextlib.suppress(TimeoutError):
                _, where = sock.recvfrom(2048)
                count += where[2] != PACKET_OUTGOING
        print(count)


if __name__ == "__main__":
    if sys.argv[1] == "send":
        send(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        hear(sys.argv[2])
