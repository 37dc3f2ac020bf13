"""The words of the jump server in the policy file.

Not here: what they mean (jump), the rows (jump_rows).
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field

from cofferdam.policy import notations, schema, syntax
from cofferdam.policy.fields import as_list, choice, one_or_list, one_or_more, read_by, whole
from cofferdam.policy.notations import Names, Text
from cofferdam.policy.terms.jump_rows import DOES, GROUP, PERSON

_LOGIN: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,31}\Z")
_HOST_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?\Z")
_YES_NO: Final = {"true": True, "false": False, "yes": True, "no": False}
COMING: Final = {
    "vnc": "desktops come with the console, as pixels, and recorded",
    "rdp": "desktops come with the console, as pixels, and recorded",
}
"""What assets will be able to speak, and when."""


def _yes(raw: Any) -> bool:
    if isinstance(raw, str) and raw in _YES_NO:
        return _YES_NO[raw]
    raise syntax.Expected("true or false")


def _who(raw: Any) -> str:
    if isinstance(raw, dict) and len(raw) == 1:
        ((kind, name),) = raw.items()
        if kind + ":" in (PERSON, GROUP) and isinstance(name, str) and syntax.NAME.match(name):
            return f"{kind}:{name}"
    raise syntax.Expected(
        "a person or a group of the keeper: {person: tech1} or {group: vendor-x}",
        f"{{group: {raw}}}" if isinstance(raw, str) and syntax.NAME.match(raw) else "",
    )


def _login(raw: Any) -> str:
    if isinstance(raw, str) and _LOGIN.match(raw):
        return raw
    raise syntax.Expected("the name of an account at the asset")


def _host(raw: Any) -> str:
    if isinstance(raw, str) and _HOST_NAME.match(raw):
        return raw
    raise syntax.Expected("a host's name, such as gate or gate.example.org")


def _path(raw: Any) -> str:
    if (
        isinstance(raw, str) and raw.startswith("/") and raw.isprintable() and len(raw) <= 1024
        and not any(part in ("", ".", "..") for part in raw.split("/")[1:]) and "**" not in raw.removesuffix("/**")
    ):  # fmt: skip
        return raw
    raise syntax.Expected("an absolute path, such as /srv/logs/** (the folder and all beneath it) or /tmp/*.csv")


def _command(raw: Any) -> str:
    if isinstance(raw, str) and raw.strip() == raw and raw.isprintable() and 0 < len(raw) <= 1024:
        if raw.strip("* "):
            return raw
        raise syntax.Expected("a command, or a pattern that begins with one: `journalctl *`")
    raise syntax.Expected("a command, such as uptime, or a pattern, such as `journalctl *`")


def _line(raw: Any) -> str:
    if isinstance(raw, str) and raw.isprintable() and 0 < len(raw) <= 256:
        return raw
    raise syntax.Expected("a line, such as {old} or {new}")


def _span(low: int, high: int) -> tuple[Any, Any]:
    form = {"type": "string", "pattern": r"^\d+\s*(s|min|h|d|days?|weeks?|years?)$", "examples": ["4 h", "15 min"]}
    return read_by(lambda raw: syntax.long_span(raw, low, high), form)


def _size(low: int, high: int) -> tuple[Any, Any]:
    form = {"type": "string", "pattern": r"^\d+(\.\d+)?\s*(B|kB|MB|GB|TB)$", "examples": ["100 MB"]}
    return read_by(lambda raw: syntax.size(raw, low, high), form)


_WHO: Final = {
    "type": "object", "properties": {"person": {"type": "string"}, "group": {"type": "string"}},
    "minProperties": 1, "maxProperties": 1, "additionalProperties": False,
}  # fmt: skip
_DO: Final = {"type": "string", "enum": list(DOES)}
_PATH: Final = {"type": "string", "examples": ["/srv/logs/**"]}
_COMMAND: Final = {"type": "string", "examples": ["uptime", "journalctl *"]}
Yes = Annotated[bool, *read_by(_yes, {"type": "boolean"})]
Who = Annotated[str, *read_by(_who, _WHO)]
Whos = Annotated[tuple[Who, ...], BeforeValidator(one_or_more), one_or_list(_WHO)]
Does = Annotated[tuple[Annotated[str, *choice(*DOES)], ...], BeforeValidator(one_or_more), one_or_list(_DO)]
Paths = Annotated[tuple[Annotated[str, *read_by(_path, _PATH)], ...], BeforeValidator(one_or_more), one_or_list(_PATH)]
Commands = Annotated[
    tuple[Annotated[str, *read_by(_command, _COMMAND)], ...], BeforeValidator(one_or_more), one_or_list(_COMMAND)
]
_LINE: Final = {"type": "string", "examples": ["{old}", "{new}", "{login}:{new}"]}
Command = Annotated[str, *read_by(_command, _COMMAND)]
Says = Annotated[tuple[Annotated[str, *read_by(_line, _LINE)], ...], BeforeValidator(one_or_more), one_or_list(_LINE)]
_HOST: Final = {"type": "string", "examples": ["gate", "gate.example.org"]}
Host = Annotated[str, *read_by(_host, _HOST)]
Hosts = Annotated[tuple[Host, ...], BeforeValidator(one_or_more), one_or_list(_HOST)]
Login = Annotated[str, *read_by(_login, {"type": "string", "examples": ["service"]})]
Times = Annotated[str, *choice("one", "two")]


class ApprovalSaid(notations.Entry):
    """Whose word a session takes, besides the rule."""

    by: Names = Field(description="Groups of the keeper whose members may approve; nobody approves their own request.")
    people: Times = Field("one", description="How many of them it takes.")
    window: Annotated[int, *_span(60, 7 * 86_400)] = Field(
        14_400,
        description="The longest time that is approved at once. Default: 4 h.",
        json_schema_extra={"default": "4 h"},
    )
    always: schema.Windows = Field(
        (),
        description="Hours in which it takes nobody's word, one window or a list, such as those of a shift that may at "
        "any time. A session that began without one ends when they do. Default: none.",
    )
    signed: Yes = Field(
        False,
        description="Whether it takes a signature of theirs (`ssh-keygen -Y sign`), which no part of the gate makes, "
        "and not only a line typed in a session that is signed in.",
    )
    watched: Yes = Field(
        False,
        description="Whether a session begins only when one of them watches it live, and ends when none does any more.",
    )


class RecordSaid(notations.Entry):
    """What of a session is recorded. Where it cannot be, the session ends."""

    terminal: Yes = Field(True, description="What the asset shows, as asciicast.")
    keep: Annotated[int, *_span(3600, 10 * syntax.YEAR_SECONDS)] = Field(
        syntax.YEAR_SECONDS, description="How long. Default: 1 year.", json_schema_extra={"default": "1 year"}
    )
    room: Annotated[int, *_size(10**6, 10**14)] = Field(
        50 * 10**9,
        description="All recordings together; beyond it the oldest go, but for those that are held. Default: 50 GB.",
        json_schema_extra={"default": "50 GB"},
    )


class FilesSaid(notations.Entry):
    """What holds for files that go up or down."""

    most: Annotated[int, *_size(1, 10**12)] = Field(
        10**9, description="The largest file. Default: 1 GB.", json_schema_extra={"default": "1 GB"}
    )
    quota: Annotated[int, *_size(1, 10**13)] = Field(
        10**10,
        description="All files of one session together. Default: 10 GB.",
        json_schema_extra={"default": "10 GB"},
    )
    day: Annotated[int, *_size(1, 10**13)] | None = Field(
        None, description="All files of one person in one day (of UTC), in however many sessions. Default: no limit."
    )
    rate: Annotated[int, *_size(10_000, 10**10)] | None = Field(
        None, description="How much of files one person moves in a second: `5 MB`. Default: no limit."
    )
    scan: Yes = Field(
        False,
        description="What goes to the asset or comes from it is kept apart until clamd has looked through it "
        "(`cofferdam up --socket clamd=PATH`); where clamd does not answer, nothing passes.",
    )
    executable: Yes = Field(False, description="Whether a file may be made executable at the asset.")


class RotateSaid(notations.Entry):
    """How the gate changes a password of its own at an asset. The old one is kept until the new one has let it in."""

    command: Command = Field(description="What is run there, as the rule's account: `passwd`.")
    says: Says = Field(
        ("{old}", "{new}", "{new}"),
        description="The lines that the command reads, with `{old}`, `{new}` and `{login}`. Default: as passwd asks.",
        json_schema_extra={"default": ["{old}", "{new}", "{new}"]},
    )
    every: Annotated[int, *_span(3_600, 10 * syntax.YEAR_SECONDS)] | None = Field(
        None,
        description="How old a password gets before that is done by itself. Default: only `cofferdam jump rotate`.",
    )


class JumpRule(schema.Rule):
    """One line of a jump server's `allow`: who may do what at which assets, as whom."""

    who: Whos = Field(description="People: `{person: tech1}`, `{group: vendor-x}`, or a list of them.")
    asset: Names = Field(description="The asset, or a list of them.")
    login: Login = Field(
        "",
        alias="as",
        description="The account at the asset. Its key or password only the keeper has. Needed but for `port`.",
    )
    do: Does = Field(
        description="`shell` (a terminal), `exec` (one of `commands`), `up` (files to the asset), `down` (from it); "
        "alone: `port` (`ssh -L` to an asset of another broker, which judges what is asked there)."
    )
    commands: Commands = Field(
        (), description="What `exec` may run: exact commands, or patterns with `*` (never more than one command)."
    )
    opaque: Commands = Field(
        (),
        description="Programs that `exec` may run with whatever arguments, by the word by which they are called: "
        "`rsync`, `/bin/sh`. What they say and are told is recorded whole, as bytes, and judged by nothing: not by "
        "`paths` either.",
    )
    paths: Paths = Field(
        (),
        description="Where files may be: `/srv/logs/**`, `/tmp/*.csv`. What counts is the real path; a link that leads "
        "elsewhere is refused. Needed for `up` and `down`.",
    )

    @property
    def assets(self) -> tuple[str, ...]:
        return self.asset

    @property
    def changes(self) -> bool:
        return bool({"shell", "exec", "up", "port"} & set(self.do))


class JumpConduit(schema.Conduit):
    """The jump server: people reach assets by SSH, which ends here, and a session of ours goes on. Whoever signs in
    shows two factors; the credentials of assets are the keeper's, and no user sees them."""

    listen: notations.Endpoint = Field(description="ADDRESS:PORT of this machine in the zone `from`: `10.1.0.2:22`.")
    names: Hosts = Field(
        (), description="As what people know that address: the gate's host certificate has these names."
    )
    clients: Names = Field(description="Principals from whose addresses people may come.")
    approval: ApprovalSaid | None = Field(None, description="Whose word a session takes. Default: the rule alone.")
    record: RecordSaid = Field(default_factory=RecordSaid.model_construct, description="What is recorded.")
    files: FilesSaid = Field(default_factory=FilesSaid.model_construct, description="What holds for files.")
    idle: Annotated[int, *_span(30, 86_400)] = Field(
        900,
        description="A terminal at which nobody typed for so long ends, and a command or a session of files by which "
        "nothing went so long. Default: 15 min.",
        json_schema_extra={"default": "15 min"},
    )
    lock: Annotated[int, *_span(5, 86_400)] | None = Field(
        None,
        description="A terminal at which nobody typed for so long is blanked, and goes on when its person shows a code "
        "or their password again; shorter than `idle`. Default: never.",
    )
    certificates: Annotated[int, *_span(300, 43_200)] | None = Field(
        None,
        description="How long a certificate counts that somebody gets for their key (`ssh gate certificate`), in place "
        "of a code, from the same address. Default: none counts here.",
    )
    rotate: RotateSaid | None = Field(None, description="How the gate's passwords at the assets are changed.")
    sessions: Annotated[int, *whole(1, 64)] = Field(4, description="Sessions that one person may have at a time.")
    sessions_at_asset: Annotated[int, *whole(1, 1_000)] | None = Field(
        None,
        description="Sessions that an asset may have at a time, of whomever. Default: no limit; a serial line has one.",
    )
    notice: Text | None = Field(None, description="What is shown before anybody signs in.")
    allow: Annotated[tuple[JumpRule, ...], BeforeValidator(as_list)] = Field(
        description="The rules: who, at which assets, as whom, and what may be done there."
    )

    @property
    def principals(self) -> tuple[str, ...]:
        return self.clients
