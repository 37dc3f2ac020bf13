"""From a policy file, or a folder of them, to checked entries that still know their places.

Everything that is wrong is found in one go and raised together, in the order of the files. In a folder the files'
sections merge; the same name in two files is an error that names both.

Not here: the fields (policy.schema, policy.terms), how an error in one is put (policy.models), checks between entries
(policy.crosscheck), warnings (policy.lint), rules that decide (policy.compile). The one door of this room to the disk.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from cofferdam.errors import PolicyError
from cofferdam.policy import crosscheck, notations, schema, standins
from cofferdam.policy.document import Document, Mark
from cofferdam.policy.findings import Reader
from cofferdam.policy.models import Models
from cofferdam.policy.problems import Problem
from cofferdam.policy.templates import expand
from cofferdam.policy.terms.kinds import KINDS, Kinds, dialects
from cofferdam.policy.terms.whole import TAG, policy_model
from cofferdam.policy.yamltext import MAX_BYTES, Node, parse, quote

MAX_FILES = 256
"""Files of one policy folder."""
_SECTION = re.compile(rb"^(zones|assets|principals|conduits)\s*:", re.MULTILINE)
_SITE = re.compile(r"^site\s*:", re.MULTILINE)
_ZONES = re.compile(r"^zones\s*:", re.MULTILINE)
NAMED_BYTES = 2 << 20
"""Size of one file that a policy names, such as a schema."""

Path_ = tuple[str | int, ...]


class Loaded:
    """A policy without errors: its entries, the document that knows where each stands, the content of the files that it
    names, by their names, and the brokers' terms that it was read by."""

    __slots__ = ("document", "files", "kinds", "policy", "sources")

    def __init__(
        self, policy: schema.Policy, document: Document, files: Mapping[str, bytes], kinds: Kinds = KINDS,
        sources: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        """`sources`: every file of YAML that was read, with the SHA-256 of its text."""
        self.sources = dict(sources or {})
        self.policy = policy
        self.document = document
        self.files = files
        self.kinds = kinds


def load(path: Path, *, resolve: bool = False, kinds: Kinds = KINDS) -> Loaded:
    """The policy in a file, or in the *.yaml and *.yml files of a folder. `resolve`: overlay addresses that collide are
    no error, since they are about to be put on record. `kinds`: the brokers that it may name. Raises: PolicyError, with
    all problems."""
    path = Path(path)
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix in (".yaml", ".yml") and not p.name.startswith("."))
        if not files:
            raise PolicyError(f"{path} holds no *.yaml file", hint="name a policy file, or a folder of them")
        if len(files) > MAX_FILES:
            raise PolicyError(f"{path} holds {len(files)} files, at most {MAX_FILES} are read")
    else:
        files = [path, *filter(Path.is_file, [overlay_record(path)])]
    problems: list[Problem] = []
    texts: list[tuple[str, str]] = []
    for file in files:
        text = _read(file, problems)
        if text is not None:
            texts.append((str(file), text))
    sites = [name for name, text in texts if _SITE.search(text)]
    whole = [name for name, text in texts if _SITE.search(text) and _ZONES.search(text)]
    if (
        len(sites) > 2 or len(whole) > 1
    ):  # a copy, or policies of their own: every name in it would be told to stand twice
        more = ", ..." if len(sites) > 2 else ""
        found = f"{len(sites)} files that name a site ({Path(sites[0]).name}, {Path(sites[1]).name}{more})"
        expected = (
            "one site in a folder, whose files are one policy: name one of them, if each is a policy of its own, "
            "and move copies away"
        )
        raise failure([Problem(sites[1], 1, 1, found, expected, check="folder")], sites)
    if path.is_dir():
        deeper = [one for one in sorted(path.glob("[!.]*/*.y*ml"))[:MAX_FILES] if _looks_like_policy(one)]
        if deeper:
            found = f"{deeper[0].parent.name}/{deeper[0].name} in a folder below"
            expected = "files of the policy in the folder itself: those below it are not read"
            problems.append(Problem(str(deeper[0]), 1, 1, found, expected, check="folder"))
    folder = path if path.is_dir() else path.parent
    order = [str(file) for file in files]
    record = "" if path.is_dir() else str(overlay_record(path))
    return _load(texts, problems, order, functools.partial(_beside, folder), kinds, resolve, record)


def _looks_like_policy(file: Path) -> bool:
    """Whether a file in a folder below has sections of a policy: then somebody meant it to be one's."""
    try:
        if not file.is_file():
            return False
        with file.open("rb") as stream:
            return _SECTION.search(stream.read(65_536)) is not None
    except OSError:
        return False


def overlay_record(path: Path) -> Path:
    """The file that holds the overlay addresses on record for a policy: beside a file, within a folder."""
    return path / "overlay-assigned.yaml" if path.is_dir() else path.with_name(f"{path.stem}.overlay.yaml")


def loads(
    text: str, name: str = "policy.yaml", files: Mapping[str, bytes] | None = None, kinds: Kinds = KINDS
) -> Loaded:
    """The policy in a text; `name` stands for the file in messages, `files` for what lies beside it.

    Raises: PolicyError, with all problems."""

    def read(wanted: str) -> bytes:
        try:
            return (files or {})[wanted]
        except KeyError:
            raise PolicyError("there is no such file") from None

    return _load([(name, text)], [], [name], read, kinds)


def _beside(folder: Path, name: str) -> bytes:
    """The content of a file in the policy's folder or below. Raises: PolicyError."""
    parts = name.split("/")
    if not name.isprintable() or "\\" in name or any(part in ("", ".", "..") for part in parts):
        raise PolicyError("it is no name of a file in the policy's folder or below")
    file = folder.joinpath(*parts)
    try:
        # A link must not lead out of the folder: what a policy means must be visible in it.
        if not file.resolve(strict=True).is_relative_to(folder.resolve(strict=True)):
            raise PolicyError("it leads out of the policy's folder")
        if not file.is_file():
            raise PolicyError("it is no plain file")
        with file.open("rb") as stream:
            data = stream.read(NAMED_BYTES + 1)
    except OSError as error:
        raise PolicyError(error.strerror or str(error)) from None
    if len(data) > NAMED_BYTES:
        raise PolicyError(f"it has more than {NAMED_BYTES >> 20} MiB")
    return data


def _read(file: Path, problems: list[Problem]) -> str | None:
    try:
        # A pipe or a device is not waited for.
        with os.fdopen(os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise OSError("it is no plain file")
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        reason = error.strerror or str(error)
        raise PolicyError(f"{file} cannot be read: {reason}", hint="name a policy file, or a folder of them") from None
    if len(data) > MAX_BYTES:
        problems.append(Problem(str(file), 1, 1, f"more than {MAX_BYTES >> 20} MiB", "a smaller file", check="yaml"))
        return None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        found = f"the byte 0x{data[error.start]:02x}"
        if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
            found = "text in UTF-16, which some editors call Unicode"
        problems.append(Problem(str(file), line, column, found, "text in UTF-8", check="yaml"))
        return None


def _load(
    texts: Sequence[tuple[str, str]], problems: list[Problem], order: Sequence[str], reader: Reader,
    kinds: Kinds, resolve: bool = False, record: str = "",
) -> Loaded:  # fmt: skip
    """`record` is the file of overlay addresses on record, which nobody names and which may therefore say no more."""
    roots = []
    for name, text in texts:
        root = parse(text, name, problems)
        if root is None or root.data is None:
            if not any(problem.file == name for problem in problems):
                problems.append(Problem(name, 1, 1, "nothing", "a policy: site, zones, assets, ...", check="yaml"))
        elif not isinstance(root.data, dict):
            found = root.describe()
            problems.append(
                Problem(name, root.line, root.column, found, "a map: site, zones, assets, ...", check="yaml")
            )
        else:
            if name == record:
                _only_a_record(root, problems)
            roots.append(root)
    if roots:
        merged = _merge(roots, problems)
        expand(merged, problems)
        document = Document(merged)
        policy, kept = _validate(document, problems, kinds)
        if policy is not None:
            files = crosscheck.check(policy, document, kept, problems, kinds=kinds, resolve=resolve, reader=reader)
            if problems:
                standins.unknown_names(
                    document, lambda raw: policy_model(_named(raw, kinds)), problems, kinds, resolve=resolve,
                    place=lambda loc: _original(loc, {}),
                )  # fmt: skip
            if not problems:
                sources = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts}
                return Loaded(policy, document, files, kinds, sources)
    raise failure(problems, order)


def _only_a_record(root: Node, problems: list[Problem]) -> None:
    """The file beside the policy adds addresses on record, and nothing that an engineer would have to review."""
    expected = "only `overlay:` with `assigned:` and `assigned_peers:` (`cofferdam overlay assign` writes it)"
    for section, (key, node) in root.data.items():
        if section != "overlay" or not isinstance(node.data, dict):
            problems.append(Problem(key.file, key.line, key.column, quote(section), expected, check="overlay-record"))
            continue
        for name, (inner, _) in node.data.items():
            if name not in ("assigned", "assigned_peers"):
                found = f"overlay: {quote(name)}"
                problems.append(Problem(inner.file, inner.line, inner.column, found, expected, check="overlay-record"))


def failure(problems: Iterable[Problem], order: Sequence[str]) -> PolicyError:
    """The error that carries problems, in the order of files, lines and columns."""
    position = {name: index for index, name in enumerate(order)}
    found = sorted(set(problems), key=lambda p: (position.get(p.file, 0), p.line, p.column, p.found))
    count = f"{len(found)} error{'s' if len(found) != 1 else ''}"
    return PolicyError(f"the policy does not load: {count}", problems=tuple(found), hint="nothing was changed")


def _merge(roots: Sequence[Node], problems: list[Problem]) -> Node:
    if len(roots) == 1:
        return roots[0]
    merged = Node(roots[0].file, roots[0].line, roots[0].column, {})
    for root in roots:
        for section, (key, node) in root.data.items():
            there = merged.data.get(section)
            if there is None:
                copy = Node(node.file, node.line, node.column, node.data)
                if isinstance(node.data, dict):
                    copy.data = dict(node.data)
                merged.data[section] = (key, copy)
            elif isinstance(there[1].data, dict) and isinstance(node.data, dict):
                for name, (name_key, entry) in node.data.items():
                    if name in there[1].data:
                        _twice(name, name_key, there[1].data[name][0], problems)
                    else:
                        there[1].data[name] = (name_key, entry)
            else:
                _twice(section, key, there[0], problems)
    return merged


def _twice(name: str, key: Node, first: Node, problems: list[Problem]) -> None:
    expected = f"each name once (it stands in {first.file}:{first.line} already)"
    problems.append(Problem(key.file, key.line, key.column, f"{quote(name)} again", expected, check="name"))


def _validate(
    document: Document, problems: list[Problem], kinds: Kinds
) -> tuple[schema.Policy | None, dict[str, list[int]]]:
    """The entries that are well-formed, and for each conduit that lost rules the numbers of those that it kept.

    Where fields are wrong, the smallest entry around each is left out and the rest goes on to the checks between
    entries, so that one run finds all there is to find. A field by a wrong name is told, and then read by the name that
    was meant: that it is missing, and all that hangs on it, would only be echoes.
    """
    raw = document.root.plain()
    kept: dict[str, list[int]] = {}
    models = Models(document, kinds)
    guessed: set[Path_] = set()
    told = 0  # the attempt whose errors are told
    protocols: list[Problem] = []
    reading = notations.Reading(dialects(kinds))
    model = policy_model(_named(raw, kinds))
    for attempt in range(9):
        try:
            return model.model_validate(raw, context=reading), kept
        except ValidationError as error:
            found = [
                (item, _original(item["loc"], kept))
                for item in error.errors(include_url=False, include_context=True, include_input=False)
            ]
            if attempt == 0:
                unknown = [path for item, path in found if item["type"] == "extra_forbidden"]
                for path in unknown:
                    if meant := models.meant(path):
                        problems.append(models.unknown_field(path))
                        document.rename(path, meant)
                        guessed.add((*path[:-1], meant))
                protocols = _other_protocols(
                    document, model, reading, {path[1] for _, path in found if path[:1] == ("assets",) and path[1:]}
                )
                problems.extend(protocols)
            if attempt == 0 and (guessed or protocols):
                told = 1
                raw = document.root.plain()
                model = policy_model(_named(raw, kinds))
                continue
            if attempt == told:
                # What is wrong with a guess, as a whole, is not told.
                problems.extend(models.problems((item, path) for item, path in found if path not in guessed))
            cut = {models.entry(path, item["type"]) for item, path in found}
            if () in cut or ("site",) in cut or ("zones",) in cut:
                if not isinstance(raw.get("site"), str) or ("site",) in cut:
                    raw["site"] = "site"
                if () in cut:
                    raw = {key: value for key, value in raw.items() if key in schema.Policy.model_fields}
                raw.setdefault("zones", {})
                if not isinstance(raw["zones"], dict):
                    raw["zones"] = {}
            _prune(raw, cut - {(), ("site",), ("zones",)}, kept)
    return None, kept


def _other_protocols(
    document: Document, model: type[BaseModel], reading: notations.Reading, wrong: Iterable[Any]
) -> list[Problem]:
    """Assets of these that are well-formed by the protocol whose broker the conduits name for them: that one was meant,
    and they are read by it from now on."""
    brokers = _brokers(document.root.plain())
    tried: dict[Any, tuple[Mark, str, str, str]] = {}
    for name in wrong:
        place = document.value(("assets", name, "protocol"))
        said = place.node.data
        [(meant, conduit), *more] = brokers.get(name, {}).items() or [("", "")]
        if (
            not more
            and isinstance(said, str)
            and said in reading.dialects
            and meant in reading.dialects.keys() - {said}
        ):
            place.node.data = meant
            tried[name] = (place, said, meant, conduit)
    if not tried:
        return []
    try:
        model.model_validate(document.root.plain(), context=reading)
    except ValidationError as error:
        for item in error.errors(include_url=False, include_context=False, include_input=False):
            if item["loc"][:1] == ("assets",) and item["loc"][1:2] and item["loc"][1] in tried:
                place, said, _, _ = tried.pop(item["loc"][1])
                place.node.data = said
    found: list[Problem] = []
    for name, (place, said, meant, conduit) in tried.items():
        what = f"the protocol {quote(said)}, while what is said of {name} is {meant}'s"
        found.append(place.problem(what, f"the protocol of the conduit {conduit}", meant, check="protocol"))
    return found


def _brokers(raw: Any) -> dict[Any, dict[str, str]]:
    """By asset, the brokers of the conduits that name it, each with one of them."""
    found: dict[Any, dict[str, str]] = {}
    conduits = raw.get("conduits")
    for conduit, said in conduits.items() if isinstance(conduits, dict) else ():
        rules = said.get("allow") if isinstance(said, dict) else None
        for rule in rules if isinstance(rules, list) else [rules]:
            named = rule.get("asset") if isinstance(rule, dict) else None
            for name in named if isinstance(named, list) else [named]:
                if isinstance(name, str):
                    found.setdefault(name, {})[str(said.get("broker"))] = str(conduit)
    return found


def _named(raw: dict[str, Any], kinds: Kinds) -> Kinds:
    """The brokers that the conduits name, since building the models of all takes longer than reading most files; all,
    where none is named."""
    conduits = raw.get("conduits")
    words = (
        [said.get("broker") for said in conduits.values() if isinstance(said, dict)]
        if isinstance(conduits, dict)
        else []
    )
    return {word: terms for word, terms in kinds.items() if word in words} or kinds


def _original(loc: tuple[int | str, ...], kept: dict[str, list[int]]) -> Path_:
    """A place in the pruned entries, as pydantic has it, as a place in the file."""
    if len(loc) > 2 and loc[0] == "conduits" and str(loc[2]).startswith(TAG):
        loc = (*loc[:2], *loc[3:])  # which model it was read by is no place
    if len(loc) > 3 and loc[0] == "conduits" and loc[2] == "allow" and loc[1] in kept and isinstance(loc[3], int):
        return (*loc[:3], kept[str(loc[1])][loc[3]], *loc[4:])
    return loc


def _prune(raw: dict[str, Any], cut: set[Path_], kept: dict[str, list[int]]) -> None:
    rules = {path for path in cut if len(path) == 4 and path[2] == "allow"}
    for path in sorted(cut - rules, key=len):
        there: Any = raw
        for step in path[:-1]:
            there = there.get(step) if isinstance(there, dict) else None
        if isinstance(there, dict):
            there.pop(path[-1], None)
    for name in {str(path[1]) for path in rules}:
        conduit = raw.get("conduits", {}).get(name)
        if conduit is not None:
            numbers = kept.get(name, list(range(len(conduit["allow"]))))
            left = [
                (n, rule)
                for n, rule in zip(numbers, conduit["allow"], strict=True)
                if ("conduits", name, "allow", n) not in rules
            ]
            kept[name] = [n for n, _ in left]
            conduit["allow"] = tuple(rule for _, rule in left) or []
