"""A small assembler for system-call filters: classic BPF over `struct seccomp_data` (seccomp(2)), for 64-bit
little-endian processors.

A filter is a list of rules, tried in order. Not here: which calls a half needs (sandbox).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

ALLOW: Final = 0x7FFF0000
KILL: Final = 0x80000000
"""Ends the process (SECCOMP_RET_KILL_PROCESS), not only the thread."""
_ERRNO: Final = 0x00050000
_LOAD, _EQUAL, _ANY_BIT, _RETURN, _AND = 0x20, 0x15, 0x45, 0x06, 0x54
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16

AUDIT_ARCH: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""The kernel's names for processors (linux/audit.h)."""


def fail_with(number: int) -> int:
    """The verdict that the call is not made and fails with this errno."""
    return _ERRNO | number & 0xFFFF


@dataclass(frozen=True)
class Is:
    """Argument `index`, without the bits in `ignoring`, is one of `values` (its low 32 bits count)."""

    index: int
    values: tuple[int, ...]
    ignoring: int = 0


@dataclass(frozen=True)
class Lacks:
    """Argument `index` has none of these bits (of its low 32)."""

    index: int
    bits: int


@dataclass(frozen=True)
class Null:
    """Argument `index` is the null pointer: all of its 64 bits count."""

    index: int


@dataclass(frozen=True)
class CallRule:
    """Calls with this number for which all conditions hold get the verdict."""

    number: int
    verdict: int = ALLOW
    conditions: tuple[Is | Lacks | Null, ...] = ()


def assemble(machine: str, rules: Sequence[CallRule], default: int) -> bytes:
    """The filter's program (`struct sock_filter[]`). A call by another processor's convention ends the process; on
    x86_64 that goes for x32 as well, whose numbers are in no rule, if `default` ends it.

    Raises:
        ValueError: the processor is not known, or the program is longer than the kernel takes.
    """
    if machine not in AUDIT_ARCH:
        raise ValueError(f"no system-call filter for the processor {machine}")
    program = [_op(_LOAD, _ARCH), _op(_EQUAL, AUDIT_ARCH[machine], 1, 0), _op(_RETURN, KILL), _op(_LOAD, _NUMBER)]
    for rule in rules:
        body = _body(rule)
        program += [_op(_EQUAL, rule.number, 0, len(body)), *body]
    program.append(_op(_RETURN, default))
    if len(program) > 4096:
        raise ValueError(f"a filter of {len(program)} instructions; the kernel takes 4096")
    return b"".join(program)


def _body(rule: CallRule) -> list[bytes]:
    """What follows once the number fits. A condition that fails leaves the rule, with the number loaded anew."""
    blocks: list[list[bytes]] = []
    for condition in rule.conditions:
        load = _op(_LOAD, _ARGUMENTS + 8 * condition.index)
        if isinstance(condition, Lacks):
            blocks.append([load, _op(_ANY_BIT, condition.bits, _LEAVE, 0)])
            continue
        if isinstance(condition, Null):
            high = _op(_LOAD, _ARGUMENTS + 8 * condition.index + 4)
            blocks.append([load, _op(_EQUAL, 0, 0, _LEAVE), high, _op(_EQUAL, 0, 0, _LEAVE)])
            continue
        block = [load]
        if condition.ignoring:
            block.append(_op(_AND, ~condition.ignoring & 0xFFFFFFFF))
        last = len(condition.values) - 1
        for at, value in enumerate(condition.values):
            block.append(_op(_EQUAL, value, last - at, 0 if at < last else _LEAVE))
        blocks.append(block)
    body = [instruction for block in blocks for instruction in block] + [_op(_RETURN, rule.verdict)]
    if not rule.conditions:
        return body
    # After a failed condition the accumulator holds an argument: load the number again before the next rule.
    leave = len(body)
    body.append(_op(_LOAD, _NUMBER))
    return [_resolve(instruction, leave - at - 1) for at, instruction in enumerate(body)]


_LEAVE: Final = 0xFF
"""In a jump of a body under construction: to its end."""


def _resolve(instruction: bytes, distance: int) -> bytes:
    code, yes, no, value = struct.unpack("<HBBI", instruction)
    return _op(code, value, distance if yes == _LEAVE else yes, distance if no == _LEAVE else no)


def _op(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    if not 0 <= yes <= 255 or not 0 <= no <= 255:
        raise ValueError("a jump of more than 255 instructions")
    return struct.pack("<HBBI", code, yes, no, value)


def run(program: bytes, machine_arch: int, number: int, arguments: Sequence[int]) -> int:
    """What the filter would say to a call: the interpreter for tests and for reports. As the kernel's, for the
    instructions that `assemble` uses.

    Raises:
        ValueError: an instruction that it does not know.
    """
    data = struct.pack("<iIQ6Q", number, machine_arch, 0, *(*arguments, *[0] * (6 - len(arguments))))
    accumulator, at = 0, 0
    while True:
        code, yes, no, value = struct.unpack_from("<HBBI", program, 8 * at)
        at += 1
        if code == _LOAD:
            accumulator = struct.unpack_from("<I", data, value)[0]
        elif code == _AND:
            accumulator &= value
        elif code == _EQUAL:
            at += yes if accumulator == value else no
        elif code == _ANY_BIT:
            at += yes if accumulator & value else no
        elif code == _RETURN:
            return int(value)
        else:
            raise ValueError(f"instruction {code:#x} is not known")
