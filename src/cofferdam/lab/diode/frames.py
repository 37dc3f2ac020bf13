"""What an intruder sends who owns the machine outside: frames of every family at an interface. Run as a program:
`frames.py INTERFACE ROUNDS`, which prints how many of each family were sent.

Not here: what a frame looks like (proof.frames), who counts what arrives (steps).
"""

from __future__ import annotations

import json
import os
import socket
import sys

from cofferdam.lab.layout import STRAND
from cofferdam.proof.frames import BROADCAST, FAMILIES, TOKEN_BYTES, Target, frames

PORT = 4799


def main(interface: str, rounds: int) -> int:
    """Sends them all."""
    target = Target(
        source_mac="02:00:00:00:00:02", macs=("02:00:00:00:00:01", BROADCAST), source_v4=STRAND[1],
        targets_v4=(STRAND[0], "255.255.255.255", "224.0.0.1"), source_v6="fe80::2", targets_v6=("fe80::1", "ff02::1"),
        port=PORT,
    )  # fmt: skip
    sent = dict.fromkeys(FAMILIES, 0)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind((interface, 0))
        for family in FAMILIES:
            made = frames(family, target, os.urandom(TOKEN_BYTES))
            for _ in range(rounds):
                for frame in made:
                    try:
                        sock.send(frame)
                    except OSError:  # the wall says so to whoever asks: it is a frame that was tried
                        continue
                    finally:
                        sent[family] += 1
    print(json.dumps(sent))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
