"""From a policy file, or a folder of them, to checked entries that still know their places.

Everything that is wrong is found in one go and raised together, in the order of the files. In a folder the files'
sections merge; the same name in two files is an error that names both.

Not here: the fields (policy.schema), checks between entries (policy.crosscheck), warnings (policy.lint), rules that
decide (policy.compile). The one door of this room to the disk.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from cofferdam.errors import PolicyError
from cofferdam.policy import crosscheck, schema
from cofferdam.policy.document import Document
from cofferdam.policy.problems import Problem, nearest, one_of
from cofferdam.policy.yamltext import MAX_BYTES, Node, parse, quote

MAX_FILES = 256
"""Files of one policy folder."""

Path_ = tuple[str | int, ...]

_FIELDS: tuple[tuple[tuple[str, ...], type[BaseModel]], ...] = (
    ((), schema.Policy),
    (("zones", "*"), schema.Zone),
    (("assets", "*"), schema.Asset),
    (("assets", "*", "points", "*"), schema.Point),
    (("principals", "*"), schema.Principal),
    (("conduits", "*"), schema.Conduit),
    (("conduits", "*", "window"), schema.Window),
    (("conduits", "*", "window", "*"), schema.Window),
    (("conduits", "*", "allow", "*"), schema.Rule),
    (("limits",), schema.LimitsSection),
    (("gate",), schema.Gate),
    (("overlay",), schema.Overlay),
    (("overlay", "wireguard"), schema.WireGuard),
    (("audit",), schema.Audit),
)
_NOUNS = {"zones": "zone", "assets": "asset", "points": "point", "principals": "principal", "conduits": "conduit"}


class Loaded:
    """A policy without errors: its entries, and the document that knows where each stands."""

    __slots__ = ("document", "policy")

    def __init__(self, policy: schema.Policy, document: Document) -> None:
        self.policy = policy
        self.document = document


def load(path: Path, *, resolve: bool = False) -> Loaded:
    """The policy in a file, or in the *.yaml and *.yml files of a folder. `resolve`: overlay addresses that collide are
    no error, since they are about to be put on record. Raises: PolicyError, with all problems."""
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
    return _load(texts, problems, [str(file) for file in files], resolve)


def overlay_record(path: Path) -> Path:
    """The file that holds the overlay addresses on record for a policy: beside a file, within a folder."""
    return path / "overlay-assigned.yaml" if path.is_dir() else path.with_name(f"{path.stem}.overlay.yaml")


def loads(text: str, name: str = "policy.yaml") -> Loaded:
    """The policy in a text; `name` stands for the file in messages. Raises: PolicyError, with all problems."""
    return _load([(name, text)], [], [name])


def _read(file: Path, problems: list[Problem]) -> str | None:
    try:
        with file.open("rb") as stream:
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
        problems.append(Problem(str(file), line, column, found, "text in UTF-8", check="yaml"))
        return None


def _load(
    texts: Sequence[tuple[str, str]], problems: list[Problem], order: Sequence[str], resolve: bool = False
) -> Loaded:
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
            roots.append(root)
    if roots:
        document = Document(_merge(roots, problems))
        policy, kept = _validate(document, problems)
        if policy is not None:
            crosscheck.check(policy, document, kept, problems, resolve=resolve)
            if not problems:
                return Loaded(policy, document)
    raise failure(problems, order)


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


def _validate(document: Document, problems: list[Problem]) -> tuple[schema.Policy | None, dict[str, list[int]]]:
    """The entries that are well-formed, and for each conduit that lost rules the numbers of those that it kept.

    Where fields are wrong, the smallest entry around each is left out and the rest goes on to the checks between
    entries, so that one run finds all there is to find.
    """
    raw = document.root.plain()
    kept: dict[str, list[int]] = {}
    for attempt in range(8):
        try:
            return schema.Policy.model_validate(raw), kept
        except ValidationError as error:
            cut: set[Path_] = set()
            for item in error.errors(include_url=False, include_context=True, include_input=False):
                path = _original(item["loc"], kept)
                if attempt == 0:
                    problems.append(_problem(item, path, document))
                cut.add(_entry(path, item["type"]))
            if () in cut or ("site",) in cut or ("zones",) in cut:
                if not isinstance(raw.get("site"), str) or ("site",) in cut:
                    raw["site"] = "site"
                if () in cut:
                    raw = {key: value for key, value in raw.items() if key in schema.Policy.model_fields}
                raw.setdefault("zones", {})
                if not isinstance(raw["zones"], dict):
                    raw["zones"] = {}
            _prune(raw, cut - {(), ("site",)}, kept)
    return None, kept


def _original(loc: tuple[int | str, ...], kept: dict[str, list[int]]) -> Path_:
    """A place in the pruned entries as a place in the file."""
    if len(loc) > 3 and loc[0] == "conduits" and loc[2] == "allow" and loc[1] in kept and isinstance(loc[3], int):
        return (*loc[:3], kept[str(loc[1])][loc[3]], *loc[4:])
    return loc


def _entry(path: Path_, kind: str) -> Path_:
    """The smallest part around a wrong field that can be left out."""
    if len(path) >= 4 and path[0] == "assets" and path[2] == "points":
        return path[:4]
    if len(path) >= 4 and path[0] == "conduits" and path[2] == "allow":
        return path[:4]
    if len(path) >= 2 and path[0] in ("zones", "assets", "principals", "conduits"):
        model = _model(path[:2])
        fields = {field.alias or name: field for name, field in model.model_fields.items()} if model else {}
        if len(path) >= 3 and path[2] not in ("points", "[key]") and kind != "missing":
            field = fields.get(str(path[2]))
            if field is None or not field.is_required():
                return path[:3]
        return path[:2]
    return path[:1] if path and (len(path) > 1 or path[0] in schema.Policy.model_fields) else ()


def _prune(raw: dict[str, Any], cut: set[Path_], kept: dict[str, list[int]]) -> None:
    for path in sorted(cut, key=len):
        if len(path) == 4 and path[2] == "points":
            raw.get("assets", {}).get(path[1], {}).get("points", {}).pop(path[3], None)
        elif len(path) == 3:
            raw.get(str(path[0]), {}).get(path[1], {}).pop(path[2], None)
        elif len(path) == 2:
            raw.get(str(path[0]), {}).pop(path[1], None)
        elif len(path) == 1 and path[0] != "zones":
            raw.pop(str(path[0]), None)
    rules = {path for path in cut if len(path) == 4 and path[2] == "allow"}
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


def _problem(item: Any, path: Path_, document: Document) -> Problem:
    """One pydantic error as a finding at its place in the file."""
    kind = item["type"]
    model = _model(path[:-1] if kind in ("missing", "extra_forbidden") else path)
    if kind == "missing":
        place = document.key(path[:-1])
        field = _field(model, str(path[-1])) if model else ""
        noun = _noun(path[:-1])
        return place.problem(f"{noun} without {path[-1]}", f"{path[-1]}: {field}".rstrip(": "), check="missing")
    if kind == "extra_forbidden":
        place = document.key(path)
        known = [field.alias or name for name, field in model.model_fields.items()] if model else []
        near = nearest(str(path[-1]), known)
        return place.problem(f"the field {quote(str(path[-1]))}", one_of(known, 30), near, check="field")
    if path and path[-1] == "[key]":
        place = document.key(path[:-1])
        return place.problem(quote(str(path[-2])), item["ctx"]["what"], check="name")
    place = document.value(path)
    if kind == "expected":
        return place.problem(place.node.describe(), item["ctx"]["what"], item["ctx"]["near"], check="value")
    expected = {"dict_type": "a map", "model_type": "a map", "model_attributes_type": "a map", "tuple_type": "a list"}
    return place.problem(place.node.describe(), expected.get(kind, str(item["msg"])), check="value")


def _model(path: Path_) -> type[BaseModel] | None:
    for pattern, model in _FIELDS:
        if len(pattern) == len(path) and all(p in ("*", q) for p, q in zip(pattern, path, strict=True)):
            return model
    return None


def _field(model: type[BaseModel], alias: str) -> str:
    for name, field in model.model_fields.items():
        if (field.alias or name) == alias:
            return (field.description or "").split(". ")[0].rstrip(".")
    return ""


def _noun(path: Path_) -> str:
    if not path:
        return "a policy"
    if len(path) >= 2 and path[-2] in _NOUNS:
        return f"{_NOUNS[str(path[-2])]} {path[-1]}"
    if len(path) >= 2 and path[-2] == "allow":
        return "a rule"
    return "a window" if "window" in path else str(path[-1])
