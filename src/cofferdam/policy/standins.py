"""Names that nobody knows, in entries that are wrong otherwise as well.

An entry whose fields are wrong is left out before entries are checked against each other, since what is said of it then
might only follow from what is wrong. Names are another matter: that no principal is called so does not hang on a date
that was misspelt beside it. So each wrong field gets a stand-in, and of what the checks find then, unknown names count,
where something else was not told of already. One run finds what an engineer would otherwise be told of in the next.

Not here: the checks (crosscheck), the errors of fields (models).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from cofferdam.policy import crosscheck, notations, schema
from cofferdam.policy.document import Document, Path
from cofferdam.policy.problems import Problem, nearest
from cofferdam.policy.terms.kinds import Kinds, dialects

NAME: Final = "stand-in"
STAND_INS: Final[tuple[Any, ...]] = (
    NAME, "192.0.2.1", "1", "192.0.2.1/24", "uint16", "holding 0", "2099-01-01", "it", "1 s", [], {}, False,
)  # fmt: skip
"""What a wrong field becomes, one after the other, until its model takes it."""
ROUNDS: Final = len(STAND_INS) + 4
MOST_KNOWN: Final = 200
"""Findings beyond which nobody asks for more in the same run: a gate that reloads waits for this."""
OF_NAMES: Final = ("protocol", "broker", "tz", "quirks", "space")
"""Checks of names beside those that are called unknown-*."""


def unknown_names(
    document: Document, model_of: Callable[[Any], type[BaseModel]], known: list[Problem], kinds: Kinds, *,
    resolve: bool, place: Callable[[tuple[int | str, ...]], Path],
) -> None:  # fmt: skip
    """Appends to `known`. `model_of`: the model of a whole policy that names such brokers; `place`: where in the file a
    part of it stands."""
    if len(known) > MOST_KNOWN:
        return
    policy = _filled(document.root.plain(), model_of, kinds, place)
    if policy is None:
        return
    found: list[Problem] = []
    crosscheck.check(policy, document, {}, found, kinds=kinds, resolve=resolve)
    told = {(one.file, one.line, one.column) for one in known}
    for one in found:
        is_name = one.check.startswith("unknown-") or one.check in OF_NAMES
        # Where there are no names at all, what is wrong is the section, and that was told.
        made_up = NAME in one.found or one.expected.endswith("has none")
        if is_name and not made_up and (one.file, one.line, one.column) not in told:
            known.append(one)


def _filled(
    raw: Any, model_of: Callable[[Any], type[BaseModel]], kinds: Kinds,
    place: Callable[[tuple[int | str, ...]], Path],
) -> schema.Policy | None:  # fmt: skip
    """The policy with stand-ins for what is wrong; None where that does not do."""
    tries: dict[Path, int] = {}
    protocols = dialects(kinds)
    reading = notations.Reading(protocols)
    _nearest(raw, "assets", "protocol", protocols)
    _nearest(raw, "conduits", "broker", kinds)
    model = model_of(raw)
    for _ in range(ROUNDS):
        try:
            made = model.model_validate(raw, context=reading)
        except ValidationError as error:
            for item in error.errors(include_url=False, include_context=False, include_input=False):
                path = place(item["loc"])
                number = tries[path] = tries.get(path, -1) + 1
                if item["type"] == "extra_forbidden" or "[key]" in path or number >= len(STAND_INS):
                    _put(raw, path[: path.index("[key]")] if "[key]" in path else path, None)
                else:
                    _put(raw, path, STAND_INS[number])
        else:
            return made if isinstance(made, schema.Policy) else None
    return None


def _nearest(raw: Any, section: str, field: str, known: Iterable[str]) -> None:
    """A word that nobody knows becomes the nearest one: by it, what is said in its words can be looked at."""
    entries = raw.get(section) if isinstance(raw, dict) else None
    for entry in entries.values() if isinstance(entries, dict) else ():
        word = entry.get(field) if isinstance(entry, dict) else None
        if isinstance(word, str) and (near := nearest(word, known)):
            entry[field] = near


def _put(raw: Any, path: Path, value: Any) -> None:
    """Sets what stands at a path; None removes it. Where a list may stand there may be one entry instead."""
    steps = list(path)
    while steps and steps[-1] == 0 and not isinstance(_at(raw, steps[:-1]), list):
        steps.pop()
    if not steps:
        return
    there, last = _at(raw, steps[:-1]), steps[-1]
    if isinstance(there, dict):
        if value is None:
            there.pop(last, None)
        else:
            there[last] = value
    elif isinstance(there, list) and isinstance(last, int) and last < len(there):
        if value is None:
            del there[last]
        else:
            there[last] = value


def _at(raw: Any, steps: list[int | str]) -> Any:
    for step in steps:
        if isinstance(raw, dict) and step in raw:
            raw = raw[step]
        elif isinstance(raw, list):
            if not isinstance(step, int) or step >= len(raw):
                return None
            raw = raw[step]
        elif step != 0:
            return None
    return raw
