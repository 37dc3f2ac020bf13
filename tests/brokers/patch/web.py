"""A vendor's HTTPS server, as a process of its own: a folder with its listing, ranges and ETags; and servers that are
not what they should be, by the first part of the path.

    python -m tests.brokers.patch.web FOLDER ADDRESS PORT CERTIFICATE KEY

    /files/...     the folder
    /redirect/     leads to another host
    /within/...    leads to /files/... of the same host
    /endless/      a page that does not end; /endless-file/ lists a file that does not
    /short/        lists a file that is shorter than its length says, each time
    /breaks/...    as /files, but the connection breaks in the middle of a file, once for each
    /gzip/         a page that is compressed though nobody asked for it
    /many/         a million names
    /dots/         names that lead elsewhere
    /swapped/...   as /breaks, and then another file of that length is there
    /vast/         lists a file of ten terabytes, by its own word
    /halves/       JSON with halves of characters, as UTF-16 has them, in its URLs
    /long/         lists a file whose signature's name is longer than names may be
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import html
import itertools
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from tests.brokers.relay.certificates import Made
from tests.ports import held_port
from tests.waiting import PATIENT, eventually

BIG = b"0123456789abcdef" * 200_000
"""A file that takes several pieces."""
LONG = f"fw-{'1' * 121}.bin"
"""A name that is as long as names may be."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    folder: Path
    broken: set[str] = set()

    def log_message(self, format: str, *args: Any) -> None:
        print(self.command, self.path, self.headers.get("Range", ""), flush=True)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        kind, _, rest = unquote(self.path.partition("?")[0]).removeprefix("/").partition("/")
        answer = getattr(self, f"on_{kind.replace('-', '_')}", None)
        if answer is None:
            self.on_files("none")
        else:
            answer(rest)

    def page(self, names: list[str]) -> None:
        links = "".join(f'<a href="{html.escape(name)}">{html.escape(name)}</a>\n' for name in ["../", *names])
        self.whole(f"<html><body>{links}</body></html>".encode())

    def whole(self, data: bytes, **more: str) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        for name, value in more.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def on_files(self, name: str, cut: bool = False, swap: bool = False) -> None:
        path = self.folder / name
        if not path.exists():
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if path.is_dir():
            self.page(sorted(each.name + ("/" if each.is_dir() else "") for each in path.iterdir()))
            return
        data = path.read_bytes()
        if swap:
            data = data[::-1]
        tag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
        begin = 0
        said = self.headers.get("Range", "")
        if said and self.headers.get("If-Range") == tag:
            begin = int(said.removeprefix("bytes=").rstrip("-"))
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
        self.send_header("ETag", tag)
        self.send_header("Content-Length", str(len(data) - begin))
        self.end_headers()
        if self.command == "GET":
            if cut:
                self.wfile.write(data[begin : begin + (len(data) - begin) // 2])
                self.close_connection = True
            else:
                self.wfile.write(data[begin:])

    def on_breaks(self, name: str) -> None:
        cut = self.command == "GET" and (self.folder / name).is_file() and name not in self.broken
        if cut:
            self.broken.add(name)
        self.on_files(name, cut)

    def on_swapped(self, name: str) -> None:
        key = f"swapped {name}"
        file = self.command == "GET" and (self.folder / name).is_file()
        swap = key in self.broken and not name.endswith(".asc")
        if file:
            self.broken.add(key)
        self.on_files(name, file and not swap and not name.endswith(".asc"), swap)

    def on_redirect(self, name: str) -> None:
        self.send_response(302)
        self.send_header("Location", "https://evil.example/plc/")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def on_within(self, name: str) -> None:
        self.send_response(301)
        self.send_header("Location", f"/files/{name}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def endless(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.close_connection = True
        with contextlib.suppress(OSError):
            while self.command == "GET":
                self.wfile.write(b"<a href='x'>" * 10_000)

    def on_endless(self, name: str) -> None:
        self.endless()

    def on_endless_file(self, name: str) -> None:
        self.endless() if name else self.page(["fw-1.0.bin"])

    def on_short(self, name: str) -> None:
        if not name:
            self.page(["fw-1.0.bin"])
            return
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.send_header("ETag", '"short"')
        self.end_headers()
        self.close_connection = True
        if self.command == "GET":
            self.wfile.write(b"x" * 500)

    def on_gzip(self, name: str) -> None:
        self.whole(gzip.compress(bytes(100_000_000), 9), Content_Encoding="gzip")

    def on_many(self, name: str) -> None:
        self.page([f"fw-{number}.bin" for number in itertools.islice(itertools.count(), 1_000_000)])

    def on_vast(self, name: str) -> None:
        if not name:
            self.page(["fw-1.0.bin"])
            return
        self.send_response(200)
        self.send_header("Content-Length", str(10**13))
        self.end_headers()
        self.close_connection = True

    def on_long(self, name: str) -> None:
        self.whole(b"anything") if name else self.page([LONG])

    def on_halves(self, name: str) -> None:
        self.whole(rb'[{"url": "https://\ud800x/fw-1.0.bin", "v": "1"}, {"url": "\ud800", "v": "\ud800"}]')

    def on_dots(self, name: str) -> None:
        names = ["../files/fw-1.0.bin", "%2e%2e%2ffw-1.1.bin", "/etc/fw-1.2.bin", "..%5cfw-1.3.bin"]
        self.page(names) if not name else self.on_files("none")


@contextlib.contextmanager
def serving(folder: Path, made: Made, *within: str, address: str = "127.0.0.1") -> Iterator[int]:
    """Such a server; its port. `within`: a command that it is started by."""
    port = held_port()
    (folder.parent / f"{port}.pem").write_bytes(made.pem)
    (folder.parent / f"{port}.key").write_bytes(made.key)
    log = folder.parent / f"{port}.log"
    words = [str(folder), address, str(port), str(folder.parent / f"{port}.pem"), str(folder.parent / f"{port}.key")]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*within, sys.executable, "-m", "tests.brokers.patch.web", *words], stdout=out, stderr=out
        )
    try:
        eventually(lambda: b"ready" in log.read_bytes() or process.poll() is not None, PATIENT)
        assert process.poll() is None, log.read_text()
        yield port
    finally:
        process.terminate()
        process.wait(PATIENT)


@contextlib.contextmanager
def proxying(there: int, behind: bytes = b"", says: bytes = b"200 OK") -> Iterator[int]:
    """A proxy (CONNECT) that leads to a port of this machine whatever it is asked for; its port. `behind`: what it puts
    in between its answer and what the server says."""

    class Proxy(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            asked = self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            if not asked.startswith(b"CONNECT vendor.test:443 "):
                return
            self.wfile.write(b"HTTP/1.1 " + says + b"\r\n\r\n" + behind)
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", there)) as server:
                one = threading.Thread(target=pump, args=(server, self.connection), daemon=True)
                one.start()
                pump(self.connection, server)
                one.join(PATIENT)

    def pump(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    port = held_port()
    socketserver.ThreadingTCPServer.allow_reuse_address = True
    with socketserver.ThreadingTCPServer(("127.0.0.1", port), Proxy) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
        yield port
        server.shutdown()


def main() -> None:
    folder, address, port, certificate, key = sys.argv[1:]
    Handler.folder = Path(folder)
    ThreadingHTTPServer.daemon_threads = True
    server = ThreadingHTTPServer((address, int(port)), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    print("ready", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
