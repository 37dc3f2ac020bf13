"""The other end of the control socket, for the command line. Blocking, and quick to import."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import signal
import socket
import struct
import threading
import time
from pathlib import Path
from typing import Any, Literal

from cofferdam.enforce.doors import DOORS, door
from cofferdam.errors import GateError, PolicyError
from cofferdam.gate.state import REQUEST_BYTES, Cut, Severed, control_socket, load_severed, save_severed

ANSWER_BYTES = 256 << 20
"""More than any gate says: one that was taken over fills nobody's memory."""
ANSWER_SECONDS = 60.0
"""A reload of a large policy with restarts takes seconds; longer than this the gate hangs."""


CUT_SECONDS = 0.4
"""A gate that has not severed a side after so long is helped by the launcher."""
KEEP_SECONDS = 1.6
"""After that, a gate that has still not answered is taken for one that hangs."""
SEVER_SECONDS = 15.0
"""The longest wait for a gate's answer; one that hangs for so long has been ended with everything else."""


def ask(
    state: Path, verb: str, /, *, seconds: float | None = ANSWER_SECONDS, more: bytes = b"", **fields: object
) -> Any:
    """Sends one request and returns its result. `seconds`: how long the gate may take; None: as long as it likes.
    `more` follows the request, which says how long it is.

    Raises:
        GateError: no gate runs there, or it says no.
        PolicyError: the gate refuses a policy; `problems` are its findings, as text.
    """
    path = control_socket(state)
    try:
        line = json.dumps({"type": verb, **fields}, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError as error:
        # Bytes of the command line that are no text reach Python as halves of a letter.
        word = error.object[: error.end].rpartition('"')[2]
        raise GateError(f"{word!r} is not UTF-8") from None
    if len(line) > REQUEST_BYTES:
        raise GateError(f"a request of {len(line)} bytes: a gate takes {REQUEST_BYTES}", hint="say it in fewer words")
    line += more
    try:
        with _connected(state, seconds) as gate:
            gate.sendall(line)
            with gate.makefile("rb") as answers:
                raw = answers.readline(ANSWER_BYTES)
    except PermissionError:
        raise GateError(
            f"the gate's control socket {path} is not for this user",
            hint=_way_in(verb),
        ) from None
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
        raise GateError(
            f"no gate runs with the state directory {state}",
            hint="start one with `cofferdam up POLICY`, or name its directory with --state",
        ) from None
    except TimeoutError:
        raise GateError(f"the gate does not answer within {seconds:.0f} s") from None
    except (ConnectionResetError, BrokenPipeError):
        raw = b""
    except OSError as error:
        raise GateError(f"the gate's control socket {path}: {error.strerror or error}") from None
    if not raw:
        raise GateError(
            "the gate closed the connection before it answered",
            hint="it has just ended (its messages are on its stderr or in the journal), or others of your group ask so "
            "much that no place is left: ask again",
        )
    try:
        answer = json.loads(raw)
        if answer["ok"]:
            return answer["result"]
        said, hint, problems = str(answer["error"]), str(answer["hint"]), tuple(map(str, answer["problems"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        raise GateError(
            "what the gate answers is no answer", hint="one that was just ended does that; or it is not to be believed"
        ) from None
    if problems:
        raise PolicyError(said, problems=problems, hint=hint)
    raise GateError(said, hint=hint)


_AT_DOORS = {"status": "look", "ping": "look", "policy": "look", "peers": "look"} | dict.fromkeys(
    ("sever", "sever-part", "end-session"), "sever"
)
"""What members of a group may ask, and of which (gate.requests.MAY, which is not quick to import)."""


def _way_in(verb: str) -> str:
    role = _AT_DOORS.get(verb)
    if role is None:
        return "ask as root, or as the user who started the gate"
    return (
        "ask as root, as the user who started the gate, or as a member of a group that it was started with "
        f"(`cofferdam up --{role} GROUP`); who was made one has to log in anew"
    )


def _connected(state: Path, seconds: float | None) -> socket.socket:
    """A connection to the gate by the first of its sockets that lets this user in. Raises: OSError."""
    refused: PermissionError | None = None
    for path in (control_socket(state), *(door(state, role) for role in reversed(DOORS))):
        gate = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # Where more knock than the kernel keeps, only who waits in it has a turn: not who comes again and again.
            if seconds is not None:
                wait = struct.pack("@ll", int(seconds), int(seconds % 1 * 1e6))
                gate.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, wait)
            try:
                gate.connect(str(path))
            except BlockingIOError:
                raise TimeoutError from None
            gate.settimeout(seconds)
            return gate
        except PermissionError as error:
            gate.close()
            refused = refused or error
        except FileNotFoundError:  # no role is given to anybody, or there is no gate at all
            gate.close()
            if refused is None:
                raise
        except BaseException:
            gate.close()
            raise
    raise refused or FileNotFoundError(str(state))


def sever(state: Path, side: Literal["it", "ot"], reason: str, until_ns: int = 0) -> Any:
    """Severs a side: asks the gate, and has the launcher end that side's parts if it does not answer at once; then
    it stays so until somebody restores it, also where `until_ns` (UTC) is not 0.

    Raises:
        GateError: no gate runs there; or it does not answer: then the side is cut off and stays so, and it says that.
    """
    done = threading.Event()
    cut: list[bool] = []

    def keep() -> None:
        severed = load_severed(state)
        if side not in severed.sides:
            found = Cut(side, time.time_ns(), "the command line", reason or "the gate did not answer")
            save_severed(state, Severed((*severed.cuts, found), "", (*severed.untold, side)))

    def watch() -> None:
        if not done.wait(CUT_SECONDS):
            cut.append(cut_off(state, side))
            # A gate that is only slow writes that file itself. One that hangs is to find the side severed in its next
            # life, also where this command is killed.
            if cut == [True] and not done.wait(KEEP_SECONDS):
                with contextlib.suppress(GateError):  # it is tried again, and said, below
                    keep()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        return ask(state, "sever", side=side, reason=reason, until_ns=until_ns, seconds=SEVER_SECONDS)
    except BaseException as error:  # somebody may have no patience
        done.set()
        watcher.join()
        if cut != [True]:
            raise
        keep()
        if not isinstance(error, GateError):
            raise
        raise GateError(
            f"{side} is cut off and stays so, by the launcher: {error}", hint="`cofferdam restore` undoes it"
        ) from None
    finally:
        done.set()
        watcher.join()


def cut_off(state: Path, side: str) -> bool:
    """Has the launcher that runs in a state directory end all parts of a side, without the gate. False if there is none
    that this user may tell."""
    try:
        with os.fdopen(
            os.open(state / "lock", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK), "rb"
        ) as lock:
            owner = os.fstat(lock.fileno()).st_uid
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return False  # nobody holds it: no gate runs
            except BlockingIOError:
                launcher = os.pidfd_open(int(lock.read(32)))
                try:
                    # Whoever made that would have us signal whom they like: it is to be a process of their own, and one
                    # that has the lock. (A gate in a container knows itself by a number that is another's here.)
                    if owner not in (0, os.geteuid()) and _user_of(launcher) != owner:
                        return False
                    if os.geteuid() == 0 and not _has_open(launcher, lock.fileno()):
                        return False
                    signal.pidfd_send_signal(launcher, signal.SIGUSR1 if side == "it" else signal.SIGUSR2)
                finally:
                    os.close(launcher)
    except (OSError, ValueError, LookupError):
        return False
    return True


def _user_of(process: int) -> int:
    """Whose a process is, by a descriptor of it; -1 if it is of more than one user. Raises: OSError, ValueError."""
    users = re.findall(r"^Uid:(.*)$", (_folder_of(process) / "status").read_text(), re.MULTILINE)[0].split()
    return int(users[0]) if len(set(users)) == 1 else -1


def _has_open(process: int, file: int) -> bool:
    """Whether a process, by a descriptor of it, has the file open that is open here. Raises: OSError, ValueError."""
    wanted = os.fstat(file)
    for held in (_folder_of(process) / "fd").iterdir():
        with contextlib.suppress(OSError):  # it was closed just now
            if os.path.samestat(held.stat(), wanted):
                return True
    return False


def _folder_of(process: int) -> Path:
    """What /proc says of a process, by a descriptor of it. Raises: OSError, LookupError."""
    pid = re.findall(r"^Pid:\s+(-?\d+)$", Path(f"/proc/self/fdinfo/{process}").read_text(), re.MULTILINE)[0]
    return Path(f"/proc/{pid}")


def whole_status(state: Path) -> dict[str, Any]:
    """What the running gate says of itself, all of it.

    Raises: GateError, also where it is a gate of another version that leaves something out.
    """
    return whole(ask(state, "status"))


def whole(status: Any) -> dict[str, Any]:
    """A gate's status, if it is one. Raises: GateError, where it is of another version, or of nobody that is a gate."""
    import msgspec

    from cofferdam import __version__
    from cofferdam.gate.watch.report import StatusReport

    missing = "" if isinstance(status, dict) else "it is not a record"
    if not missing:
        lacking = [name for name in StatusReport.__struct_fields__ if name not in status]
        missing = f"its status has no {', '.join(lacking)}" if lacking else ""
    if not missing:
        try:
            msgspec.convert(status, StatusReport)
        except msgspec.ValidationError as error:
            missing = str(error)
    if missing:
        version = status.get("version", "?") if isinstance(status, dict) else "?"
        raise GateError(
            f"the gate runs another version ({version}) than this command ({__version__}): {missing}",
            hint="start the gate anew: `cofferdam down`, then `up` (or `systemctl restart cofferdam`)",
        )
    return dict(status)


def wait_until_gone(state: Path, seconds: float) -> bool:
    """Waits until no gate runs in the state directory; False if one still does after so long."""
    deadline = time.monotonic() + seconds
    try:
        lock = os.open(state / "lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                if time.monotonic() > deadline:
                    return False
                time.sleep(0.02)
    finally:
        os.close(lock)
