"""In the machine: runs what comes by a serial port, a shell script in a line of JSON, and answers with another line.

Runs under the bare Python of the system, before anything of the project is there.
"""

import json
import os
import subprocess
from pathlib import Path

PORT = "/dev/virtio-ports/cofferdam.agent"


def answer(line: bytes) -> dict[str, object]:
    asked = json.loads(line)
    try:
        done = subprocess.run(
            ["/bin/bash", "-c", asked["script"]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=asked["timeout"],
            check=False,
        )
        code, out = done.returncode, done.stdout
    except subprocess.TimeoutExpired as error:
        code, out = 124, (error.stdout or b"") + b"\n(not done in time)"
    return {"id": asked["id"], "code": code, "out": out.decode(errors="replace")[-2_000_000:]}


def main() -> None:
    os.environ["PATH"] = "/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    os.environ["HOME"] = "/root"
    os.environ["LC_ALL"] = "C.UTF-8"
    port = os.open(PORT, os.O_RDWR)

    def say(message: dict[str, object]) -> None:
        data = json.dumps(message).encode() + b"\n"
        while data:
            data = data[os.write(port, data) :]

    say({"hello": Path("/proc/sys/kernel/random/boot_id").read_text().strip()})
    with os.fdopen(os.dup(port), "rb") as lines:
        for line in lines:
            say(answer(line))


if __name__ == "__main__":
    main()
