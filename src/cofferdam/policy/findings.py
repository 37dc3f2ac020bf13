"""What checks and warnings work with: the entries of a policy, where they stand in the text, and the findings so far.

Not here: what is checked (policy.crosscheck and the terms of each broker), what is warned of (policy.lint and they).
"""

from __future__ import annotations

from collections.abc import Callable

from cofferdam.errors import PolicyError
from cofferdam.policy import schema
from cofferdam.policy.document import Document, Path
from cofferdam.policy.problems import Problem, nearest, one_of
from cofferdam.policy.syntax import NAME
from cofferdam.policy.table import CompiledPolicy
from cofferdam.policy.yamltext import quote
from cofferdam.policy.zones import zone_names
from cofferdam.protocols.dialects import DIALECTS, Dialects

Reader = Callable[[str], bytes]
"""Gives the content of a file beside the policy, by its name. Raises: PolicyError, with the reason."""


class Checking:
    """The errors of a policy whose single fields are well-formed."""

    def __init__(
        self,
        policy: schema.Policy,
        document: Document,
        problems: list[Problem],
        reader: Reader | None = None,
        dialects: Dialects = DIALECTS,
    ) -> None:
        self.policy = policy
        self.dialects = dialects
        self.document = document
        self.problems = problems
        self.files: dict[str, bytes] = {}
        """The content of the files that the policy names, as far as they were asked for."""
        self._reader = reader
        self._names: dict[Path, dict[str, None]] = {}

    def at(self, path: Path, found: str, expected: str, near: str = "", check: str = "") -> None:
        """An error where the value of a field stands."""
        self.problems.append(self.document.value(path).problem(found, expected, near, check=check))

    def key(self, path: Path, found: str, expected: str, near: str = "", check: str = "") -> None:
        """An error where the name of an entry or field stands."""
        self.problems.append(self.document.key(path).problem(found, expected, near, check=check))

    def names(self, *path: str) -> dict[str, None]:
        """The names in a map of the file, also of entries that are themselves wrong."""
        found = self._names.get(path)
        if found is None:
            found = self._names[path] = dict.fromkeys(self.document.names(*path))
        return found

    def known(self, section: str, name: str, path: Path, within: tuple[str, ...] = ()) -> bool:
        """Whether a name stands in a section, of the policy or of the entry `within`; an error where it does not.
        Names of entries that are themselves wrong count, so that nothing is complained of twice."""
        names = self.names(*within, section)
        if name in names:
            return True
        near = nearest(name, names)
        if near and not NAME.match(near):  # the name of that entry is wrong itself, and was told
            return False
        noun = section.rstrip("s")
        whose = f"{within[0].rstrip('s')} {within[-1]}" if within else "policy"
        article = "an" if noun[0] in "aeiou" else "a"
        if names:
            expected = f"{article} {noun} of {'' if within else 'this '}{whose} ({one_of(names)})"
        else:
            expected = f"{article} {noun}, and the {whose} has none"
        self.at(path, f"the {noun} {quote(name)}", expected, near, check=f"unknown-{noun}")
        return False

    def time_zone(self, name: str, path: Path) -> None:
        """An error where a name is no time zone's."""
        if name not in zone_names():
            cities = sorted(zone for zone in zone_names() if zone.rpartition("/")[2].lower() == name.lower())
            near = cities[0] if cities else nearest(name, zone_names())
            self.at(path, f"the time zone {quote(name)}", "a name of the tz database, such as Europe/Paris", near, "tz")

    def window(self, window: schema.Window, path: Path) -> None:
        """An error where a window has no length or no clock."""
        self.time_zone(window.zone, (*path, "zone"))
        if window.start == window.stop or window.start == 86_400:
            self.at((*path, "to"), "a window without length", "a later hour, or 00:00 to 24:00 for the whole day")

    def file(self, name: str, path: Path) -> bytes | None:
        """The content of a file that stands beside the policy; None, and an error at `path`, where it has none."""
        found = self.files.get(name)
        if found is None:
            try:
                if self._reader is None:
                    raise PolicyError("this policy is a text without a folder")
                found = self.files[name] = self._reader(name)
            except PolicyError as error:
                self.at(path, f"{quote(name)}: {error}", "a file beside the policy", check="file")
        return found


class Linting:
    """The warnings of a policy that loads. `now_ns` is UTC; None where nobody asks what has expired."""

    def __init__(
        self,
        policy: schema.Policy,
        document: Document,
        compiled: CompiledPolicy,
        now_ns: int | None = None,
        dialects: Dialects = DIALECTS,
    ) -> None:
        self.policy = policy
        self.dialects = dialects
        self.document = document
        self.compiled = compiled
        self.now_ns = now_ns
        self.problems: list[Problem] = []

    def key(self, path: Path, check: str, found: str, expected: str) -> None:
        """A warning where the name of an entry or field stands."""
        self.problems.append(self.document.key(path).problem(found, expected, severity="warning", check=check))

    def value(self, path: Path, check: str, found: str, expected: str) -> None:
        """A warning where the value of a field stands."""
        self.problems.append(self.document.value(path).problem(found, expected, severity="warning", check=check))
