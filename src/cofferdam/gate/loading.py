"""A policy is loaded and compiled in a process of its own, with limits of time and memory: whatever file an operator
names, it costs that process at most, and never the gate.

    python -I -m cofferdam.gate.loading POLICY        writes one `Loading` to standard output

Not here: what a policy is (policy), what the gate does with it (gate, reload).
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import resource
import signal
import sys
import time
from pathlib import Path

import msgspec

from cofferdam.errors import CofferdamError, GateError, PolicyError
from cofferdam.policy.problems import Problem
from cofferdam.policy.table import CompiledPolicy

LOAD_SECONDS = 30.0
"""A policy of 10,000 rules takes about five; one that takes longer than this is no policy."""
MEMORY_BYTES = 2 << 30
"""Address space of the process that loads."""
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
    # Its standard input is ours, which the launcher has made empty: a gate that sees few files has no /dev/null.
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-m", __name__, str(path),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = process.stdout, process.stderr
    if out is None or err is None:
        raise GateError("the process that loads a policy has no pipes")
    words = asyncio.create_task(_read(err, WORDS_BYTES))  # noqa: TID251 - awaited below, whatever happens
    try:
        async with asyncio.timeout(seconds):
            data = await _read(out, ANSWER_BYTES)
            await process.wait()
    except TimeoutError:
        raise PolicyError(
            f"the policy {path} is not loaded after {seconds:.0f} s",
            hint="`cofferdam check` of the file says where it is; a policy is a plain file, or a folder of them",
        ) from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        said = (await words).decode("utf-8", "replace").strip()
        await process.wait()
    try:
        answer = _answers.decode(data)
    except msgspec.MsgspecError:
        last = said.splitlines()[-1] if said else f"exit code {process.returncode}"
        raise PolicyError(
            f"the policy {path} cannot be loaded: the process that loads it ended ({last})",
            hint=f"it has {MEMORY_BYTES >> 30} GiB of memory; `cofferdam check` of the file says more",
        ) from None
    if answer.error:
        raise PolicyError(answer.error, problems=answer.problems, hint=answer.hint)
    return CompiledPolicy.from_bytes(answer.policy).on(machine), answer.files


async def _read(stream: asyncio.StreamReader, most: int) -> bytes:
    """What comes, so many bytes at most; the rest is read and thrown away."""
    kept = bytearray()
    while piece := await stream.read(1 << 16):
        kept += piece[: most - len(kept)]
    return bytes(kept)


def main() -> int:
    """Loads the policy that the command line names."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    seconds = int(LOAD_SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    from cofferdam.policy.compile import compile_policy
    from cofferdam.policy.load import load

    path = Path(sys.argv[1])
    try:
        loaded = load(path)
        files = tuple(f"{name} sha256:{digest}" for name, digest in loaded.sources.items())
        answer = Loading(policy=compile_policy(loaded, now_ns=time.time_ns()).to_bytes(), files=files)
    except PolicyError as error:
        problems = tuple(problem for problem in error.problems if isinstance(problem, Problem))
        answer = Loading(error=str(error), hint=error.hint, problems=problems)
    except CofferdamError as error:
        answer = Loading(error=str(error), hint=error.hint)
    except MemoryError:
        answer = Loading(error=f"the policy {path} needs more than {MEMORY_BYTES >> 30} GiB of memory")
    except Exception as error:  # a bug of ours in reading it: that file is refused, and nothing else happens
        answer = Loading(error=f"the policy {path} cannot be read: {type(error).__name__}: {error}", hint="a bug")
    view = memoryview(msgspec.msgpack.encode(answer))
    while view:
        view = view[os.write(1, view) :]
    return 0


if __name__ == "__main__":
    sys.exit(main())
