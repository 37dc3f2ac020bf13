"""A policy is loaded and compiled in a process of its own, with limits of time and memory: whatever file an operator
names, it costs that process at most, and never the gate.

The process is forked and starts no program: the gate has all that reading a policy takes in its memory, and a fresh
interpreter would need longer to import it than to read the policy. That is safe as long as the gate has one thread.

Not here: what a policy is (policy), what the gate does with it (gate, reload).
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import os
import resource
import signal
import time
import traceback
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NoReturn

import msgspec

from cofferdam.errors import CofferdamError, PolicyError
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import load
from cofferdam.policy.problems import Problem
from cofferdam.policy.table import CompiledPolicy

LOAD_SECONDS = 30.0
"""A policy of 10,000 rules takes about five; one that takes longer than this is no policy."""
MEMORY_BYTES = 2 << 30
"""What the process that loads may have in memory, the gate's own included."""
ANSWER_BYTES = 64 << 20
"""The largest compiled policy, with all that is said of it."""
WORDS_BYTES = 4096
"""Of what the process says on standard error before it ends without an answer."""
_PR_SET_PDEATHSIG = 1


class Loading(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What became of it: the policy (`CompiledPolicy.to_bytes`) and each file that it was read from, with its SHA-256;
    or why there is none."""

    policy: bytes = b""
    files: tuple[str, ...] = ()
    error: str = ""
    hint: str = ""
    problems: tuple[Problem, ...] = ()


_answers = msgspec.msgpack.Decoder(Loading)


async def load_policy(
    path: Path, seconds: float = LOAD_SECONDS, *, machine: str = ""
) -> tuple[CompiledPolicy, tuple[str, ...]]:
    """The policy at a path, as the gate on a machine has it, and the files that it was read from.

    Raises:
        PolicyError: it does not load; with every finding.
        GateError: the process that loads it did not come to an end.
    """
    _still_there(path)
    said = ""
    status: int | None = None
    async with _loader(path) as (pid, out, err):
        words = asyncio.create_task(_read(err, WORDS_BYTES))  # noqa: TID251 - awaited below, whatever happens
        try:
            async with asyncio.timeout(seconds):
                data = await _read(out, ANSWER_BYTES)
                status = await _ended(pid)
        except TimeoutError:
            raise PolicyError(
                f"the policy {path} is not loaded after {seconds:.0f} s",
                hint="`cofferdam check` of the file says where it is; a policy is a plain file, or a folder of them",
            ) from None
        finally:
            if status is None:
                os.kill(pid, signal.SIGKILL)
                status = await _ended(pid)
            said = (await words).decode("utf-8", "replace").strip()
    try:
        answer = _answers.decode(data)
    except msgspec.MsgspecError:
        last = said.splitlines()[-1] if said else f"exit code {status}"
        raise PolicyError(
            f"the policy {path} cannot be loaded: the process that loads it ended ({last})",
            hint=f"it has {MEMORY_BYTES >> 30} GiB of memory; `cofferdam check` of the file says more",
        ) from None
    return _taken(answer, machine)


def _taken(answer: Loading, machine: str) -> tuple[CompiledPolicy, tuple[str, ...]]:
    if answer.error:
        raise PolicyError(answer.error, problems=answer.problems, hint=answer.hint)
    return CompiledPolicy.from_bytes(answer.policy).on(machine), answer.files


def handed_over(path: Path) -> bytes:
    """What becomes of loading a policy in the calling process, for a gate that may not see the file: `taken` there.
    Whoever asks for a reload reads the policy with their own eyes."""
    return _encoded(loading(path))


def _encoded(found: Loading) -> bytes:
    try:
        return msgspec.msgpack.encode(found)
    except UnicodeEncodeError as error:  # the name of a file, in whatever is said of it
        hint = "give the policy, and the files and folders that it lies in, names that are text"
        return msgspec.msgpack.encode(Loading(error=f"{error.object!r} is not UTF-8", hint=hint))


def taken(data: bytes, machine: str) -> tuple[CompiledPolicy, tuple[str, ...]]:
    """The policy that somebody who may has handed over. Raises: PolicyError, also where they found that it does not
    load."""
    try:
        answer = _answers.decode(data)
    except msgspec.MsgspecError as error:
        raise PolicyError(f"the policy that was handed over is not understood: {error}",
                          hint="is the command of the gate's own version?") from None  # fmt: skip
    return _taken(answer, machine)


def _still_there(path: Path) -> None:
    """A file that is seen by itself, since others may not enter its folder (enforce.housed), stays what it was when
    another is put in its place. Raises: PolicyError."""
    with contextlib.suppress(OSError):
        if not path.stat().st_nlink:
            raise PolicyError(
                f"another file is in the place of the policy {path}, and the gate sees the old one only",
                hint="`cofferdam reload` reads it as whoever types that; or let others enter the folder and start anew",
            )


async def _read(stream: asyncio.StreamReader, most: int) -> bytes:
    """What comes, so many bytes at most; the rest is read and thrown away."""
    kept = bytearray()
    while piece := await stream.read(1 << 16):
        kept += piece[: most - len(kept)]
    return bytes(kept)


@contextlib.asynccontextmanager
async def _loader(path: Path) -> AsyncIterator[tuple[int, asyncio.StreamReader, asyncio.StreamReader]]:
    """The process that loads, which the caller waits for; what it answers, and what it says on standard error."""
    answers, words = os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _child(path, answers[1], words[1])
    os.close(answers[1])
    os.close(words[1])
    (out, out_pipe), (err, err_pipe) = await _reader(answers[0]), await _reader(words[0])
    try:
        yield pid, out, err
    finally:
        out_pipe.close()
        err_pipe.close()


async def _reader(fd: int) -> tuple[asyncio.StreamReader, asyncio.ReadTransport]:
    reader = asyncio.StreamReader()
    pipe = os.fdopen(fd, "rb", 0)
    made = await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    return reader, made[0]


async def _ended(pid: int) -> int:
    """Waits for the process, and returns how it ended: its exit code, or minus the signal's number."""
    loop = asyncio.get_running_loop()
    watched = os.pidfd_open(pid)
    ended = asyncio.Event()
    loop.add_reader(watched, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(watched)
        os.close(watched)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])  # noqa: ASYNC222 - it has ended


def _child(path: Path, answers: int, words: int) -> NoReturn:
    """In the fresh process, which has nothing of the gate's but its memory."""
    code = 1
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        gc.disable()  # what the gate has is not looked through; what this process makes is gone with it
        os.dup2(answers, 1)
        os.dup2(words, 2)
        os.closerange(3, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        seconds = int(LOAD_SECONDS)
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        view = memoryview(_encoded(loading(path)))
        while view:
            view = view[os.write(1, view) :]
        code = 0
    except BaseException:
        os.write(2, traceback.format_exc().encode()[-WORDS_BYTES:])
    finally:
        os._exit(code)


def loading(path: Path) -> Loading:
    """Loads a policy here; never raises for what a file may hold."""
    try:
        loaded = load(path)
        files = tuple(f"{name} sha256:{digest}" for name, digest in loaded.sources.items())
        return Loading(policy=compile_policy(loaded, now_ns=time.time_ns()).to_bytes(), files=files)
    except PolicyError as error:
        problems = tuple(problem for problem in error.problems if isinstance(problem, Problem))
        return Loading(error=str(error), hint=error.hint, problems=problems)
    except CofferdamError as error:
        return Loading(error=str(error), hint=error.hint)
    except MemoryError:
        return Loading(error=f"the policy {path} needs more than {MEMORY_BYTES >> 30} GiB of memory")
    except Exception as error:  # a bug of ours in reading it: that file is refused, and nothing else happens
        return Loading(error=f"the policy {path} cannot be read: {type(error).__name__}: {error}", hint="a bug")
