"""XML as a message may have it: read strictly, made anew in one form; and XSD, compiled from the policy's own files.

Refused: any DOCTYPE (and with it every entity but the five of XML), processing instructions, another encoding than
UTF-8, nesting deeper than 64, XInclude, and hints of where a schema might be (`xsi:schemaLocation`): the channel's own
schema counts. Comments are dropped, CDATA becomes text. The remade form is Canonical XML (C14N 1.0, without comments).

Nothing is ever fetched or opened: what a schema includes or imports is among the files, or it does not compile.
A pattern of XSD may take long on some texts (libxml2 goes back a bounded number of times and then gives up): patterns
are tried on such texts when the policy is checked, and where one gives up later the message is refused.

Not here: a channel's fields, constants and limits (xml_checking).
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from typing import Any, Final

from lxml import etree as _etree

from cofferdam.policy.messages.json_reading import DEPTH
from cofferdam.policy.messages.schemas import NOT_FETCHED, SchemaError

etree: Any = _etree  # what is known of its types elsewhere is of another version
Element = Any

ATTRIBUTES_MOST: Final = 256
"""Of one element."""
XSI: Final = "http://www.w3.org/2001/XMLSchema-instance"
XS: Final = "http://www.w3.org/2001/XMLSchema"
XINCLUDE: Final = "http://www.w3.org/2001/XInclude"
_BASE: Final = "policy:///"
_DECLARATION: Final = re.compile(r"\A<\?xml\s[^>]*?encoding\s*=\s*[\"']([^\"']*)[\"']", re.ASCII)
_ELSEWHERE: Final = ("include", "import", "redefine", "override")


class NotXml(Exception):
    """The text is no XML as a message may have it. Line and column count from 1; 0: not known."""

    def __init__(self, words: str, line: int = 0, column: int = 0, place: str = "") -> None:
        super().__init__(words)
        self.words = words
        self.line = line
        self.column = column
        self.place = place


def _parser() -> Any:
    return etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, dtd_validation=False, attribute_defaults=False,
        huge_tree=False, recover=False, remove_comments=True, remove_pis=False, strip_cdata=True, collect_ids=False,
    )  # fmt: skip


def read_xml(data: bytes) -> Element:
    """The root element. Raises: NotXml."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise NotXml(f"the byte 0x{data[error.start]:02x}, which is not UTF-8", line) from None
    if text.startswith("\ufeff"):
        raise NotXml("a byte order mark before the text", 1, 1)
    said = _DECLARATION.match(text)
    if said is not None and said[1].lower() not in ("utf-8", "utf8"):
        raise NotXml("another encoding than UTF-8", 1, 1)
    at = text.find("<!DOCTYPE")
    if at >= 0:  # also within CDATA: no message needs it, and nobody has to tell the two apart
        raise NotXml("a DOCTYPE", text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at))
    try:
        root = etree.fromstring(data, _parser())
    except etree.XMLSyntaxError as error:
        line, column = error.position
        raise NotXml(_words(error), line or 0, column or 0) from None
    except ValueError as error:
        raise NotXml(str(error)[:200]) from None
    _look_over(root)
    return root


def _words(error: etree.XMLSyntaxError) -> str:
    words = (error.msg or "no XML").partition(", line ")[0].strip()
    return words[0].lower() + words[1:300]


def _look_over(root: Element) -> None:
    """Raises: NotXml for what no message may have."""
    before = root.getprevious()
    if before is not None or root.getnext() is not None:
        raise NotXml("a processing instruction", 1)
    level: list[Element] = [root]
    for _ in range(DEPTH):
        below: list[Element] = []
        for element in level:
            if not isinstance(element.tag, str):
                what = "an entity" if element.tag is etree.Entity else "a processing instruction"
                raise NotXml(what, element.sourceline or 0)
            if element.tag.startswith(f"{{{XINCLUDE}}}"):
                raise NotXml("an XInclude", element.sourceline or 0, 0, place_of(element))
            if len(element.attrib) > ATTRIBUTES_MOST:
                words = f"{len(element.attrib)} attributes; at most {ATTRIBUTES_MOST} are read"
                raise NotXml(words, element.sourceline or 0, 0, place_of(element))
            for name in element.attrib:
                if str(name) in (f"{{{XSI}}}schemaLocation", f"{{{XSI}}}noNamespaceSchemaLocation"):
                    raise NotXml("a hint where a schema is", element.sourceline or 0, 0, place_of(element))
            below.extend(element)
        if not below:
            return
        level = below
    raise NotXml(f"nesting deeper than {DEPTH}", level[0].sourceline or 0)


def canonical_xml(root: Element) -> bytes:
    """An element that `read_xml` gave, in its one form. Raises: NotXml, where it has none: that of a namespace that is
    no whole URI is not defined."""
    try:
        body: bytes = etree.tostring(root, method="c14n", exclusive=False, with_comments=False)
    except etree.C14NError:
        raise NotXml("a namespace that is no whole URI", 1) from None
    return body


def local_name(element: Element) -> str:
    """Its name without namespace."""
    name: str = etree.QName(element).localname
    return name


def place_of(element: Element) -> str:
    """Where an element stands: /Order/Line[2]/Quantity, by names without namespaces."""
    steps = []
    while element is not None:
        parent = element.getparent()
        name = local_name(element) if isinstance(element.tag, str) else "?"
        if parent is not None:
            same = [each for each in parent if isinstance(each.tag, str) and local_name(each) == name]
            if len(same) > 1:
                name += f"[{same.index(element) + 1}]"
        steps.append(name)
        element = parent
    found = "/" + "/".join(reversed(steps))
    return found if len(found) <= 500 else f"{found[:499]}…"


# --- XSD --------------------------------------------------------------------------------------------------------


class _Files(_etree.Resolver):
    """Gives the policy's files to a schema that is being compiled, and nothing else."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = files

    def resolve(self, system_url: str, public_id: str, context: Any) -> Any:  # type: ignore[override]
        name = posixpath.normpath(system_url.removeprefix(_BASE))
        data = self._files.get(name, b"") if system_url.startswith(_BASE) else b""
        return self.resolve_string(data, context, base_url=system_url)


class XsdSchemas:
    """The schema files of one conduit that are XSD."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = dict(files)

    def validator(self, name: str) -> Any:
        """What a file's schema says. Raises: SchemaError."""
        if name not in self._files:
            raise SchemaError(name, "no such file", "a schema file of the policy")
        waiting, seen = [name], {name}
        while waiting:
            here = waiting.pop()
            for target, line in _elsewhere(here, self._files[here]):
                joined = _joined(here, target)
                if joined not in self._files:
                    raise SchemaError(here, f"a reference to {target[:200]}", NOT_FETCHED, line)
                if joined not in seen:
                    seen.add(joined)
                    waiting.append(joined)
        for each in sorted(seen):
            _try_patterns(each, self._files[each])
        parser = _parser()
        parser.resolvers.add(_Files({each: self._files[each] for each in seen}))
        try:
            document = etree.fromstring(self._files[name], parser, base_url=_BASE + name)
            return etree.XMLSchema(document)
        except (etree.XMLSchemaParseError, etree.XMLSyntaxError) as error:
            last = error.error_log.last_error if error.error_log else None
            line = last.line if last is not None else 1
            raise SchemaError(name, str(error).splitlines()[0][:300], "XML Schema 1.0", line or 1) from None


def _parsed(name: str, data: bytes) -> Element:
    try:
        return read_xml(data)
    except NotXml as error:
        raise SchemaError(name, error.words, "XML Schema 1.0", error.line or 1, error.column or 1) from None


def _elsewhere(name: str, data: bytes) -> list[tuple[str, int]]:
    """(what it says, the line) of each file that a schema includes or imports."""
    root = _parsed(name, data)
    found = []
    for element in root:
        if etree.QName(element).namespace == XS and local_name(element) in _ELSEWHERE:
            target = element.get("schemaLocation")
            if target is not None:
                found.append((target, element.sourceline or 1))
    return found


def _joined(name: str, target: str) -> str:
    if ":" in target or target.startswith("/"):
        return "\0"  # no file of the policy has such a name
    return posixpath.normpath(posixpath.join(posixpath.dirname(name), target))


def xsd_files(name: str, data: bytes) -> tuple[str, ...]:
    """The files that an XSD includes or imports, as names in the policy. Raises: SchemaError."""
    found = (_joined(name, target) for target, _ in _elsewhere(name, data))
    return tuple(dict.fromkeys(each for each in found if each != "\0" and not each.startswith("..")))


def _try_patterns(name: str, data: bytes) -> None:
    """Raises: SchemaError for a pattern with which libxml2 gives up on a text that is made to that end."""
    for element in _parsed(name, data).iter(f"{{{XS}}}pattern"):
        pattern = element.get("value") or ""
        letters = dict.fromkeys([*re.findall(r"[A-Za-z0-9]", pattern), "a", "A", "0"])
        schema = etree.Element(f"{{{XS}}}schema", nsmap={"xs": XS})
        simple = etree.SubElement(etree.SubElement(schema, f"{{{XS}}}element", name="r"), f"{{{XS}}}simpleType")
        bound = etree.SubElement(simple, f"{{{XS}}}restriction", base="xs:string")
        etree.SubElement(bound, f"{{{XS}}}pattern", value=pattern)
        try:
            validator = etree.XMLSchema(schema)
        except etree.XMLSchemaParseError:
            raise SchemaError(
                name, f"the pattern {pattern[:200]!r}", "a pattern of XSD", element.sourceline or 1
            ) from None
        for letter in letters:
            probe = etree.Element("r")
            probe.text = letter * 60 + "\u00a7"
            try:
                validator.validate(probe)
            except etree.XMLSchemaValidateError:
                expected = "one that does not take long on any text: no repetition within a repetition of the same"
                raise SchemaError(name, f"the pattern {pattern[:200]!r}", expected, element.sourceline or 1) from None
