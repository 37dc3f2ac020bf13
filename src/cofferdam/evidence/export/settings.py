"""Where entries go: a YAML file with collectors, read with the place of each thing that is wrong.

    collectors:
      soc:
        to: tls://10.1.0.50:6514        # syslog over TLS (RFC 5425)
        ca: /etc/cofferdam/soc-ca.pem   # whose certificates the collector may show
        name: soc.example               # the name in its certificate (default: the host)
        certificate: /etc/cofferdam/gate.pem    # ours, with its key, where the collector wants one
        key: /etc/cofferdam/gate.key
        form: ocsf                      # json (default), ocsf, ecs, cef
        kinds: [alarm, refused, check-done]     # default: all
      archive: {to: "file:///var/lib/siem/cofferdam.jsonl"}
      lake: {to: "https://10.1.0.51:8443/ingest", ca: /etc/cofferdam/lake-ca.pem, header: {Authorization: "file:/etc/cofferdam/lake.token"}}
      local: {to: "udp://127.0.0.1:514"}        # loopback alone: UDP loses what nobody notices

Not here: sending (ways).
"""  # noqa: E501

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from cofferdam.audit.entry import KINDS
from cofferdam.errors import PolicyError
from cofferdam.evidence.export.forms import ENTERPRISE, FORMS
from cofferdam.policy.problems import Problem, nearest, one_of
from cofferdam.policy.yamltext import Node, parse

WAYS = {"tls": 6514, "udp": 514, "https": 443, "file": 0}
"""Ways, and the port of each where none is given."""
MAX_COLLECTORS = 16
_NAME = re.compile(r"[a-z][a-z0-9-]{0,40}")
_FIELDS = ("to", "form", "kinds", "ca", "name", "certificate", "key", "enterprise", "header")


class Collector(msgspec.Struct, frozen=True):
    """One collector. `kinds`: empty for all. `header`: names and values of HTTP; a value "file:PATH" is read there."""

    name: str
    way: str
    host: str
    port: int
    path: str
    form: str = "json"
    kinds: tuple[str, ...] = ()
    ca: str = ""
    server_name: str = ""
    certificate: str = ""
    key: str = ""
    enterprise: int = ENTERPRISE
    header: tuple[tuple[str, str], ...] = ()

    @property
    def where(self) -> str:
        """As it was written, near enough."""
        if self.way == "file":
            return f"file://{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.way}://{host}:{self.port}{self.path}"


def read(path: Path) -> tuple[Collector, ...]:
    """Raises: PolicyError, with every finding."""
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise PolicyError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise PolicyError(f"{path} is not UTF-8") from None
    return parsed(str(path), text)


def parsed(file: str, text: str) -> tuple[Collector, ...]:
    """Raises: PolicyError."""
    problems: list[Problem] = []
    root = parse(text, file, problems)
    found: list[Collector] = []
    if root is None and not problems:
        problems.append(Problem(file, 1, 1, "nothing", "`collectors`: a map of collectors", check="export"))
    if root is not None:
        top = root.data if isinstance(root.data, dict) else {}
        for name, (key, _) in top.items():
            if name != "collectors":
                problems.append(_at(key, f'"{name}"', "collectors", nearest(name, ("collectors",))))
        node = top["collectors"][1] if "collectors" in top else root
        if "collectors" not in top or not isinstance(node.data, dict) or not node.data:
            problems.append(_at(node, node.describe(), "`collectors`: a map of collectors"))
        elif len(node.data) > MAX_COLLECTORS:
            problems.append(_at(node, f"{len(node.data)} collectors", f"at most {MAX_COLLECTORS}"))
        else:
            for name, (key, value) in node.data.items():
                one = _collector(name, key, value, problems)
                if one is not None:
                    found.append(one)
    if problems:
        raise PolicyError(f"{file} is not understood", problems=tuple(problems))
    return tuple(found)


def _at(node: Node, found: str, expected: str, near: str = "") -> Problem:
    return Problem(node.file, node.line, node.column, found, expected, near, check="export")


def _collector(name: str, key: Node, value: Node, problems: list[Problem]) -> Collector | None:
    before = len(problems)
    if not _NAME.fullmatch(name):
        problems.append(_at(key, f'"{name}"', "a name of small letters, digits and dashes"))
    if not isinstance(value.data, dict):
        problems.append(_at(value, value.describe(), "a map with `to`"))
        return None
    fields: dict[str, Node] = {}
    for field, (at, node) in value.data.items():
        if field in _FIELDS:
            fields[field] = node
        else:
            problems.append(_at(at, f'the field "{field}"', one_of(_FIELDS), nearest(field, _FIELDS)))
    if "to" not in fields:
        problems.append(_at(key, "no `to`", "where entries go: tls://HOST:6514, https://..., file:///..., udp://..."))
        return None
    way, host, port, path = _place(fields["to"], problems)
    plain = {one: _text(fields.get(one), problems) for one in ("form", "ca", "name", "certificate", "key")}
    if plain["form"] and plain["form"] not in FORMS:
        problems.append(_at(fields["form"], f'"{plain["form"]}"', one_of(FORMS), nearest(plain["form"], FORMS)))
    for one in ("certificate", "key"):
        if plain[one] and way not in ("tls", "https"):
            problems.append(_at(fields[one], f"a {one} for {way}", "one with tls or https alone"))
    if bool(plain["certificate"]) != bool(plain["key"]):
        problems.append(_at(key, "a certificate or a key alone", "both, or neither"))
    kinds = tuple(_list(fields.get("kinds"), KINDS, problems))
    header = tuple(
        (str(one), _text(node, problems)) for one, (_, node) in fields["header"].data.items()
    ) if "header" in fields and isinstance(fields["header"].data, dict) else ()  # fmt: skip
    enterprise = ENTERPRISE
    if "enterprise" in fields:
        text = str(fields["enterprise"].data)
        if re.fullmatch(r"[1-9]\d{0,9}", text):
            enterprise = int(text)
        else:
            problems.append(_at(fields["enterprise"], f'"{text}"', "a private enterprise number"))
    if len(problems) > before:
        return None
    return Collector(
        name, way, host, port, path, plain["form"] or "json", kinds, plain["ca"], plain["name"], plain["certificate"],
        plain["key"], enterprise, header,
    )  # fmt: skip


def _place(node: Node, problems: list[Problem]) -> tuple[str, str, int, str]:
    text = str(node.data)
    nothing = ("", "", 0, "")
    try:
        split = urlsplit(text)
        host, port = split.hostname or "", split.port
    except ValueError:
        problems.append(_at(node, f'"{text}"', "a place such as tls://10.1.0.50:6514"))
        return nothing
    if split.scheme not in WAYS:
        problems.append(_at(node, f'"{text}"', f"a place with {one_of(WAYS)}", nearest(split.scheme, WAYS)))
        return nothing
    if split.scheme == "file":
        if host or not split.path.startswith("/") or split.path.endswith("/"):
            problems.append(_at(node, f'"{text}"', "file:///ABSOLUTE/PATH"))
        return "file", "", 0, split.path
    if not host or split.username or split.query or split.fragment or (split.path and split.scheme != "https"):
        problems.append(
            _at(node, f'"{text}"', f"{split.scheme}://HOST:PORT{'/PATH' if split.scheme == 'https' else ''}")
        )
        return nothing
    if split.scheme == "udp" and not _loopback(host):
        problems.append(_at(node, f'"{text}"', "an address of loopback: UDP loses what nobody notices"))
    return split.scheme, host, port or WAYS[split.scheme], split.path


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _text(node: Node | None, problems: list[Problem]) -> str:
    if node is None:
        return ""
    if isinstance(node.data, str) and node.data.isprintable() and len(node.data) <= 1000:
        return node.data
    problems.append(_at(node, node.describe(), "a text in one line"))
    return ""


def _list(node: Node | None, known: tuple[str, ...], problems: list[Problem]) -> list[str]:
    if node is None:
        return []
    if not isinstance(node.data, list):
        problems.append(_at(node, node.describe(), "a list of kinds of events"))
        return []
    found = []
    for one in node.data:
        if one.data in known:
            found.append(str(one.data))
        else:
            problems.append(_at(one, one.describe(), "a kind of event", nearest(str(one.data), known)))
    return found
