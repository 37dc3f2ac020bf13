"""A witness in a process of its own, written from C2SP tlog-witness and tlog-cosignature and RFC 9162, 2.1.4.2; it
shares no code with the product.

    python witness_stranger.py PORT FOLDER

FOLDER/logs.json: {"/PREFIX": {"log": VKEY, "name": NAME, "seed": HEX, "size": N, "root": BASE64}}; state is written
back there before an answer leaves. `name` and `seed` are the witness's own. FOLDER/requests counts what came.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import json
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

LOCK = threading.Lock()


def node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def consistent(first: int, second: int, first_hash: bytes, second_hash: bytes, path: list[bytes]) -> bool:
    """RFC 9162, 2.1.4.2, step by step."""
    if not path:
        return False
    if first & (first - 1) == 0:
        path = [first_hash, *path]
    fn, sn = first - 1, second - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    fr = sr = path[0]
    for c in path[1:]:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            fr, sr = node(c, fr), node(c, sr)
            while fn and not fn & 1:
                fn, sn = fn >> 1, sn >> 1
        else:
            sr = node(sr, c)
        fn, sn = fn >> 1, sn >> 1
    return fr == first_hash and sr == second_hash and sn == 0


def vkey(name: str, seed: str) -> str:
    """The key of a witness with this seed, as an operator would be given it."""
    public = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(seed)).public_key().public_bytes_raw()
    number = hashlib.sha256(name.encode() + b"\n\x04" + public).digest()[:4].hex()
    data = base64.b64encode(b"\x04" + public).decode()
    return f"{name}+{number}+{data}"


def cosignature(one: dict[str, Any], text: str) -> str:
    at = one.get("at") or int(time.time())
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(one["seed"]))
    raw = key.sign(f"cosignature/v1\ntime {at}\n{text}".encode())
    number = bytes.fromhex(vkey(one["name"], one["seed"]).split("+")[1])
    return f"\u2014 {one['name']} {base64.b64encode(number + at.to_bytes(8, 'big') + raw).decode()}\n"


def signed(one: dict[str, Any], text: str, lines: list[str]) -> bool:
    name, number, public = one["log"].split("+", 2)
    for line in lines:
        said, _, data = line.removeprefix("\u2014 ").partition(" ")
        raw = base64.b64decode(data)
        if said == name and raw[:4].hex() == number:
            try:
                Ed25519PublicKey.from_public_bytes(base64.b64decode(public)[1:]).verify(raw[4:], text.encode())
            except InvalidSignature:
                return False
            return True
    return False


def answer(logs: dict[str, Any], prefix: str, body: bytes) -> tuple[int, str, str]:
    """Status, content type, body."""
    head, _, note = body.decode().partition("\n\n")
    text, _, tail = note.rpartition("\n\n")
    text += "\n"
    origin, size, root = text.split("\n")[:3]
    first, *path = head.split("\n")
    old = int(first.removeprefix("old "))
    one = logs.get(prefix)
    if one is None or one["log"].split("+")[0] != origin:
        return 404, "text/plain", "unknown log\n"
    if not signed(one, text, tail.splitlines()):
        return 403, "text/plain", "no signature of a key that I know\n"
    if old > int(size):
        return 400, "text/plain", "old is larger\n"
    if old != one["size"]:
        return 409, "text/x.tlog.size", f"{one['size']}\n"
    if old == int(size):
        if one["root"] != root:
            return 409, "text/x.tlog.size", f"{one['size']}\n"
    elif old and not consistent(
        old, int(size), base64.b64decode(one["root"]), base64.b64decode(root), [base64.b64decode(h) for h in path]
    ):
        return 422, "text/plain", "that is another log\n"
    one["size"], one["root"] = int(size), root
    return 200, "text/plain", "\u2014 somebody.else/w9 AAAAAAAA\n" + cosignature(one, text)


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Its state, which the test changes while it runs: what one writes the other has not read before."""
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main() -> None:
    folder = Path(sys.argv[2])

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with LOCK, held(folder):
                with (folder / "requests").open("a") as file:
                    file.write(self.path + "\n")
                logs = json.loads((folder / "logs.json").read_text())
                prefix, _, verb = self.path.rpartition("/")
                status, kind, said = answer(logs, prefix, body) if verb == "add-checkpoint" else (404, "", "")
                (folder / "new.json").write_text(json.dumps(logs))
                (folder / "new.json").replace(folder / "logs.json")
            data = said.encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
    print("listening", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
