"""The historian that records a boiler, in a real PostgreSQL; and an analyst who reads the mirror of it.

Left alone they work at their own pace; driven (commands on stdin) they do one thing at a time and say `Done` after it.
Run as `python -m cofferdam.lab.mirror.people historian|analyst ...`.
"""

from __future__ import annotations

import argparse
import asyncio
import calendar
import contextlib
import http.client
import json
import math
import os
import pwd
import random
import shutil
import signal
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cofferdam.errors import CofferdamError
from cofferdam.lab.commands import commands
from cofferdam.lab.mirror import events
from cofferdam.lab.scene import tie_to

TAGS = ("temperature", "pressure", "steam_flow", "feed_flow", "oxygen", "level")
"""Of the boiler."""
ROLE, DATABASE, OWNER = "cofferdam_mirror", "plant", "plant"
READY_SECONDS = 90.0
PACE_SECONDS = 0.5


def binaries() -> Path | None:
    """Where PostgreSQL's programs are; None: there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    name = shutil.which("initdb")
    return Path(name).parent if name else None


def user() -> pwd.struct_passwd | None:
    """Who runs a PostgreSQL, which refuses to run as root; None: whoever we are."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    return None


class Historian:
    """A cluster of its own, with one table of samples."""

    def __init__(self, folder: Path, address: str, port: int, password: str) -> None:
        where = binaries()
        if where is None:
            raise CofferdamError("there is no PostgreSQL here", hint="Debian: apt install postgresql")
        self.bin = where
        self.folder = folder
        self.address, self.port = address, port
        self.password = password
        self.process: subprocess.Popen[bytes] | None = None
        self.total = 0
        self._dice = random.Random(11)  # noqa: S311  a boiler's noise, not a secret
        found = user()
        self._as: dict[str, Any] = (
            {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []} if found is not None else {}
        )

    def make(self) -> None:
        """The cluster, its table and the mirror's role."""
        self.folder.mkdir(mode=0o755, exist_ok=True)
        if self._as:
            os.chown(self.folder, self._as["user"], self._as["group"])
        command = [str(self.bin / "initdb"), "-D", str(self.folder / "data"), "-U", OWNER, "-A", "trust", "--no-sync",
                   "-E", "UTF8"]  # fmt: skip
        made = subprocess.run(command, capture_output=True, text=True, cwd=self.folder, check=False, **self._as)
        if made.returncode:
            raise CofferdamError(
                f"the historian could not be made: {made.stderr[-300:]}",
                hint=f"its user must be able to enter {self.folder.parent}: give another --state, or none",
            )
        (self.folder / "data" / "pg_hba.conf").write_text("local all all trust\nhost all all all scram-sha-256\n")
        self.start()
        with self.connection("postgres") as conn:
            conn.execute(f"CREATE DATABASE {DATABASE}")
        with self.connection() as conn:
            conn.execute("CREATE TABLE samples(tag text, time timestamptz, value float8, quality int)")
            conn.execute("CREATE INDEX ON samples(time)")
            conn.execute(f"CREATE ROLE {ROLE} LOGIN PASSWORD '{self.password}'")
            conn.execute(f"GRANT SELECT ON samples TO {ROLE}")

    def start(self) -> None:
        """Runs it, and waits until it answers."""
        options = ["-p", str(self.port), "-c", f"listen_addresses={self.address}", "-c", "fsync=off",
                   "-c", f"unix_socket_directories={self.folder}", "-c", "max_connections=20"]  # fmt: skip
        with (self.folder.parent / "postgres.log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(self.bin / "postgres"), "-D", str(self.folder / "data"), *options],
                stdout=log, stderr=log, cwd=self.folder, preexec_fn=tie_to(os.getpid()), **self._as,
            )  # fmt: skip
        until = time.monotonic() + READY_SECONDS
        while True:
            try:
                self.connection("postgres").close()
            except Exception as error:
                if time.monotonic() > until or self.process.poll() is not None:
                    raise CofferdamError(f"the historian does not start: {error}") from None
                time.sleep(0.05)
            else:
                return

    def stop(self) -> None:
        """As if its power had failed."""
        if self.process is not None:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait()
            self.process = None

    def connection(self, database: str = DATABASE) -> Any:
        """By the socket in its folder."""
        import psycopg

        return psycopg.connect(
            host=str(self.folder), port=self.port, user=OWNER, dbname=database, autocommit=True, connect_timeout=60
        )

    def write(self, moments: Sequence[float]) -> int:
        """A sample of each tag at each of these times (seconds since 1970)."""
        with self.connection() as conn, conn.cursor() as cursor:
            with cursor.copy("COPY samples(tag, time, value, quality) FROM STDIN") as copy:
                for at in moments:
                    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(int(at))) + f".{int(at % 1 * 1e6):06d}Z"
                    for number, name in enumerate(TAGS):
                        value = 100 * (number + 1) + 20 * math.sin(at / 30 + number) + self._dice.gauss(0, 0.5)
                        copy.write_row((f"boiler.{name}", stamp, value, 192))
            row = cursor.execute("SELECT count(DISTINCT (tag, time)) FROM samples").fetchone()
        self.total = int(row[0])
        return len(moments) * len(TAGS)

    async def drive(self, sink: events.Sink) -> None:
        """write: `count` moments that end `seconds` before now, one each `value` seconds. stop, start: its power."""
        async for command in commands():
            written = 0
            match command.do:
                case "write":
                    end, step = time.time() - command.seconds, command.value or 0.1
                    moments = [end - step * number for number in range(command.count)]
                    written = await asyncio.to_thread(self.write, sorted(moments))
                case "stop":
                    await asyncio.to_thread(self.stop)
                case "start":
                    await asyncio.to_thread(self.start)
                case _:
                    raise CofferdamError(f"the historian knows no command {command.do!r}", hint="write, stop, start")
            sink(events.Recorded("historian", written, self.total))
            sink(events.Done("historian", command.do))

    async def forever(self, sink: events.Sink) -> None:
        """Records the boiler."""
        while True:
            written = await asyncio.to_thread(self.write, [time.time()])
            sink(events.Recorded("historian", written, self.total))
            await asyncio.sleep(PACE_SECONDS)


class Analyst:
    """Somebody in the office, with a key."""

    def __init__(self, address: str, port: int, key: str, source: str) -> None:
        self.where = (address, port)
        self._key = key
        self._source = (source, 0) if source else None

    def ask(self, method: str, path: str, body: str = "") -> tuple[int, bytes]:
        """One request: status (0: no answer) and body."""
        connection = http.client.HTTPConnection(*self.where, timeout=60, source_address=self._source)
        try:
            headers = {"Authorization": f"Bearer {self._key}"}
            connection.request(method, path, body.encode() or None, headers)
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            return 0, str(error).encode()
        finally:
            connection.close()

    async def drive(self, sink: events.Sink) -> None:
        """ask: `point` is "METHOD PATH BODY"."""
        async for command in commands():
            method, path, body = (*command.point.split(" ", 2), "", "")[:3]
            status, said = await asyncio.to_thread(self.ask, method, path, body)
            rows = said.count(b"\n") if "format=ndjson" in path else 0
            sink(events.Seen("analyst", path, status, rows, said[:2000].decode("utf-8", "replace")))
            sink(events.Done("analyst", command.do))

    async def forever(self, sink: events.Sink) -> None:
        """Looks at one tag once a second."""
        tag = urllib.parse.quote(f"boiler.{TAGS[0]}")
        while True:
            status, said = await asyncio.to_thread(self.ask, "GET", f"/v1/aggregates?tag={tag}&last=2min&every=3s")
            curve: tuple[float, ...] = ()
            if status == 200:
                rows = json.loads(said)["aggregates"]
                curve = tuple(row["avg"] for row in rows if row["avg"] is not None)[-40:]
            status, said = await asyncio.to_thread(self.ask, "GET", f"/v1/at?tag={tag}")
            value, behind = None, 0
            if status == 200:
                (found,) = json.loads(said)["values"]
                value = found["value"]
                if found["of"]:
                    at = calendar.timegm(time.strptime(found["of"][:19], "%Y-%m-%dT%H:%M:%S"))
                    behind = max(0, int(1000 * (time.time() - at - float("0." + found["of"][20:29]))))
            sink(events.Seen("analyst", tag, status, len(curve), "", value, behind, curve))
            await asyncio.sleep(1.0)


def main(argv: Sequence[str] | None = None) -> int:
    """One of the two."""
    parser = argparse.ArgumentParser(prog="cofferdam-lab-mirror")
    parser.add_argument("who", choices=["historian", "analyst"])
    parser.add_argument("--at", required=True)
    parser.add_argument("--secret", required=True, type=Path)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--source", default="")
    parser.add_argument("--driven", action="store_true")
    args = parser.parse_args(argv)
    address, _, port = args.at.rpartition(":")
    secret = args.secret.read_text(encoding="ascii").strip()
    try:
        if args.who == "analyst":
            analyst = Analyst(address, int(port), secret, args.source)
            asyncio.run(analyst.drive(events.printed) if args.driven else analyst.forever(events.printed))
            return 0
        historian = Historian(args.folder, address, int(port), secret)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        try:
            historian.make()
            events.printed(events.Listening(address, int(port)))
            asyncio.run(historian.drive(events.printed) if args.driven else historian.forever(events.printed))
        finally:
            historian.stop()
    except CofferdamError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
