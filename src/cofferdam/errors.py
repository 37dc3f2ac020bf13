"""The exceptions that Cofferdam raises on purpose. Foreign exceptions are mapped to these at the border.

Not here: refusals by policy. Those are values (`model.Deny`), since being refused is a normal answer.
"""

from __future__ import annotations


class CofferdamError(Exception):
    """The root of all of them. `str(error)` is one clear sentence for a user; `hint` is the way out, or ""."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def extra(word: str) -> str:
    """The way out where libraries of an extra are not installed. It names the folder of this program's source: what
    package indexes have under the same name is another project's."""
    return f"in the folder of this program's source: `pip install '.[{word}]'`, or `make setup`, which installs all"


class RemoteProtocolError(CofferdamError):
    """The peer on the wire broke the protocol. The only exception that network input may raise from a parser.

    `section` names the document and section that is broken; `offset` is the byte in the stream's current
    unit (frame) at which it broke, or -1 where no byte is to blame.
    """

    def __init__(self, message: str, *, section: str, offset: int = -1) -> None:
        super().__init__(message)
        self.section = section
        self.offset = offset


class ConnectAnew(RemoteProtocolError):
    """Nobody broke anything: a client's machine knows now what it did not when this connection began (the server's
    certificate, say), and needs another one."""


class LocalProtocolError(CofferdamError):
    """Our own side asked a protocol machine for something that the protocol's state does not allow: a bug."""


class CrossingError(CofferdamError):
    """A record from the other half is malformed, of an unknown type, or outside its limits. The half stops.

    `by` names who sent it, where it is found only after it was read ("": whose pipe is being read)."""

    by: str = ""


class PolicyError(CofferdamError):
    """The policy does not load. `problems` holds each finding (see `policy.problems.Problem`), in file order."""

    def __init__(self, message: str, *, problems: tuple[object, ...] = (), hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.problems = problems


class AuditError(CofferdamError):
    """The audit log is damaged, or its key is missing or readable by others."""


class LogUnwritable(AuditError):
    """An entry could not be made durable (disk full, read-only, I/O error). Nothing of the batch was accepted."""


class CaptureError(CofferdamError):
    """A capture file is truncated or of an unknown format. The message says what was read, and up to where."""


class GateError(CofferdamError):
    """The gate cannot start or cannot be reached: address in use, no permission, unknown interface, no socket."""


class StoreError(CofferdamError):
    """A broker's store is damaged, of another version, in use by another process, or cannot be written any more."""


class StoreUnfit(GateError):
    """A crew cannot live for the sake of a store, as the gate sees it: what its part says, or that its folder is not
    as it must be. It keeps none of the other crews from starting."""


class StoreFull(StoreError):
    """There is no room for what was to be stored. Nothing of it was; what was there before is as it was."""
