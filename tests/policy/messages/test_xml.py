"""Messages in XML: what is refused, which form is left, XSD without a way out, fields, constants and limits."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cofferdam.policy.messages.checked import Checked, Problem, Step
from cofferdam.policy.messages.checking import Checks
from cofferdam.policy.messages.schemas import SchemaError
from cofferdam.policy.messages.xml_reading import NotXml, XsdSchemas, canonical_xml, read_xml, xsd_files
from cofferdam.policy.terms.relay_rows import Channel, Limit, Relay, RelayRows

ORDER = b"""<?xml version="1.0" encoding="UTF-8"?>
<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema" xmlns="urn:o" targetNamespace="urn:o"
           elementFormDefault="qualified">
  <xs:include schemaLocation="parts/line.xsd"/>
  <xs:element name="Order">
    <xs:complexType>
      <xs:sequence>
        <xs:element name="At" type="xs:dateTime" minOccurs="0"/>
        <xs:element name="Line" type="LineType" maxOccurs="unbounded"/>
        <xs:element name="Site" type="xs:string" minOccurs="0"/>
      </xs:sequence>
      <xs:attribute name="number" type="xs:positiveInteger" use="required"/>
    </xs:complexType>
  </xs:element>
</xs:schema>
"""
LINE = b"""<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema" xmlns="urn:o" targetNamespace="urn:o"
           elementFormDefault="qualified">
  <xs:complexType name="LineType">
    <xs:sequence>
      <xs:element name="Article"><xs:simpleType><xs:restriction base="xs:string">
        <xs:pattern value="[A-Z]{2}-[0-9]+"/></xs:restriction></xs:simpleType></xs:element>
      <xs:element name="Quantity" type="xs:decimal"/>
    </xs:sequence>
  </xs:complexType>
</xs:schema>
"""
FILES = {"order.xsd": ORDER, "parts/line.xsd": LINE}
GOOD = (
    '<o:Order xmlns:o="urn:o" number="7"><o:Line><o:Article>AB-1</o:Article><o:Quantity>10</o:Quantity></o:Line>'
    "<o:Line><o:Article>AB-2</o:Article><o:Quantity>2.5</o:Quantity></o:Line></o:Order>"
)


def checks(**channel: Any) -> Checks:
    row = Channel(name="c", form="xml", **{"schema": "order.xsd", **channel})
    return Checks(Relay([("conduit", RelayRows(channels=(row,), schemas=FILES))]))


def passed(found: Checked | Problem) -> Checked:
    assert isinstance(found, Checked), found
    return found


def refused(found: Checked | Problem) -> Problem:
    assert isinstance(found, Problem), found
    return found


BOMB = b"<!DOCTYPE r [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b '&a;&a;&a;&a;&a;&a;'><!ENTITY c '&b;&b;&b;&b;'>]><r>&c;</r>"
REFUSED: list[tuple[bytes, str, int]] = [
    (BOMB, "a DOCTYPE", 1),
    (b"<!DOCTYPE r SYSTEM 'file:///etc/passwd'><r/>", "a DOCTYPE", 1),
    (b"<!DOCTYPE r [<!ENTITY x SYSTEM 'http://127.0.0.1:9/'>]><r>&x;</r>", "a DOCTYPE", 1),
    (b"<!DOCTYPE r [<!ENTITY % p SYSTEM 'file:///etc/passwd'> %p;]><r/>", "a DOCTYPE", 1),
    (b"\n<!DOCTYPE r><r/>", "a DOCTYPE", 2),
    (b"<r><![CDATA[<!DOCTYPE r>]]></r>", "a DOCTYPE", 1),
    (b"<r>&x;</r>", "entity 'x' not defined", 1),
    (b"<r><?php x?></r>", "a processing instruction", 1),
    (b"<?xml-stylesheet href='x'?><r/>", "a processing instruction", 1),
    (b"<r/><?x?>", "a processing instruction", 1),
    (b"<r xmlns:xi='http://www.w3.org/2001/XInclude'><xi:include href='/etc/passwd'/></r>", "an XInclude", 1),
    (b"<r xmlns:xsi='http://www.w3.org/2001/XMLSchema-instance' xsi:schemaLocation='u http://127.0.0.1:9/'/>",
     "a hint where a schema is", 1),
    (b"<a>" * 65 + b"</a>" * 65, "nesting deeper than 64", 1),
    (b"<a>" * 300 + b"</a>" * 300, "", 1),
    (b"<r " + b" ".join(b"a%d='1'" % n for n in range(300)) + b"/>", "300 attributes", 1),
    (b"<?xml version='1.0' encoding='ISO-8859-1'?><r/>", "another encoding", 1),
    ("<?xml version='1.0' encoding='UTF-16'?><r/>".encode("utf-16"), "not UTF-8", 1),
    (b"\xef\xbb\xbf<r/>", "a byte order mark", 1),
    (b"<r>\xff</r>", "the byte 0xff", 1),
    (b"<r>\x00</r>", "", 1),
    (b"<r>&#0;</r>", "", 1),
    (b"<r a='1' a='2'/>", "attribute a redefined", 1),
    (b"<r>\n<s></r>", "opening and ending tag mismatch", 2),
    (b"<r/><r/>", "extra content", 1),
    (b"", "document is empty", 1),
    (b"{}", "start tag expected", 1),
]  # fmt: skip


@pytest.mark.parametrize(("data", "words", "line"), REFUSED, ids=[f"{row[0][:30]!r}" for row in REFUSED])
def test_what_no_message_may_have(data: bytes, words: str, line: int) -> None:
    with pytest.raises(NotXml) as wrong:
        read_xml(data)
    assert words.lower() in wrong.value.words.lower()
    assert wrong.value.line == line


def test_an_attribute_for_each_of_a_million_is_refused_soon() -> None:
    data = b"<r " + b" ".join(b"a%d='1'" % n for n in range(1_000_000)) + b"/>"
    with pytest.raises(NotXml):
        read_xml(data)


COUNTING = (
    "ip link set lo up; ip route add default dev lo;"
    " nft 'add table inet t; add counter inet t sent; add chain inet t c {type filter hook output priority 0;};"
    " add rule inet t c counter name sent';"
)
"""Every packet of a network of its own is counted, whatever it goes to."""
_COUNT = "nft list counter inet t sent | sed -n 's/.*packets \\([0-9]*\\).*/\\1/p'"
_SENDS = "import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 53))"
COUNTED = f"{_COUNT}; {sys.executable} -c {shlex.quote(_SENDS)}; {_COUNT}"
"""What was sent; and one packet that is, to see that such ones are."""


def test_nothing_is_opened_and_nobody_is_asked(tmp_path: Path) -> None:
    """(Whatever the library does with a message is seen by what the process opens and connects to.)"""
    program = """
import sys
from cofferdam.policy.messages.xml_reading import NotXml, XsdSchemas, read_xml
from cofferdam.policy.messages.schemas import SchemaError
from tests.policy.messages.test_xml import REFUSED, FILES, OUTSIDE
XsdSchemas(FILES).validator("order.xsd")
seen = []
sys.addaudithook(lambda event, found: seen.append((event, found)) if event in ("open", "socket.connect") else None)
for data, *_ in REFUSED:
    try:
        read_xml(data)
    except NotXml:
        pass
for text in OUTSIDE:
    try:
        XsdSchemas({"s.xsd": text}).validator("s.xsd")
    except SchemaError:
        pass
print(seen)
"""
    trace = tmp_path / "trace"
    command = [sys.executable, "-c", program]
    strace = ["strace", "-f", "-o", str(trace), "-e", "trace=openat,open,connect,socket"]
    if subprocess.run([*strace, "true"], capture_output=True, check=False).returncode == 0:
        command = [*strace, *command]
    counted = os.geteuid() == 0 and shutil.which("nft") is not None
    if counted:
        command = ["unshare", "-n", "sh", "-c", f"{COUNTING} {shlex.join(command)} && {COUNTED}"]
    root = Path(__file__).parents[3]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, env=os.environ | {"PYTHONPATH": "src:."})
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["[]", *(["0", "1"] if counted else [])]
    if trace.exists():
        said = trace.read_text()
        assert "/etc/passwd" not in said
        assert "AF_INET" not in said


def test_the_form_that_is_left() -> None:
    text = b"""<?xml version='1.0'?>
<o:Order   number='7' xmlns:o="urn:o" ><!-- a comment --><o:Line><o:Article><![CDATA[AB-1]]></o:Article
><o:Quantity>1<!-- x -->0</o:Quantity></o:Line></o:Order>
"""
    form = canonical_xml(read_xml(text))
    assert form == (
        b'<o:Order xmlns:o="urn:o" number="7"><o:Line><o:Article>AB-1</o:Article><o:Quantity>10</o:Quantity></o:Line>'
        b"</o:Order>"
    )
    assert canonical_xml(read_xml(form)) == form


def test_a_namespace_that_is_no_uri_has_no_form() -> None:
    problem = refused(checks(schema="")("c", b"<r xmlns:p='p'/>"))
    assert (problem.fault, problem.detail) == ("syntax", "a namespace that is no whole URI")
    assert refused(checks().again("c", b"<r xmlns:p='p'/>")).fault == "syntax"


def test_what_fits_passes_and_passes_again() -> None:
    judge = checks()
    found = passed(judge("c", GOOD.encode()))
    assert found.body == GOOD.encode()
    assert judge.again("c", found.body) == found
    assert refused(judge.again("c", GOOD.replace('number="7"', "number='7'").encode())).fault == "syntax"


@pytest.mark.parametrize(
    ("old", "new", "place", "words"),
    [
        ('number="7"', 'number="0"', "/o:Order", "positiveInteger"),
        ("AB-2", "it's secret' is not", "/o:Order/o:Line[2]/o:Article", "pattern"),
        ('number="7"', "", "/o:Order", "attribute 'number' is required"),
        ("AB-2", "secret", "/o:Order/o:Line[2]/o:Article", "pattern"),
        ("<o:Quantity>10<", "<o:Quantity>many<", "/o:Order/o:Line[1]/o:Quantity", "not a valid value"),
        ("<o:Line>", "<o:Lin/><o:Line>", "/o:Order/o:Lin", "This element is not expected"),
        ("urn:o", "urn:p", "/o:Order", "No matching global declaration"),
    ],
)
def test_what_a_schema_refuses_is_named_and_no_text_of_it_is_told(old: str, new: str, place: str, words: str) -> None:
    problem = refused(checks()("c", GOOD.replace(old, new).encode()))
    assert problem.fault == "schema"
    assert words in problem.detail
    assert place in problem.place
    assert "secret" not in problem.detail
    assert "many" not in problem.detail
    assert problem.line == 1


def test_limits_and_their_series() -> None:
    limit = Limit(at="/Order/Line/Quantity", min=0, max=100, max_step=5, key="/Order/Line/Article")
    judge = checks(limits=(limit, Limit(at="/Order/@number", max=10), Limit(at="/Order", per_minute=3)))
    found = passed(judge("c", GOOD.encode()))
    assert found.steps == (Step(0, '"AB-1"', 10), Step(0, '"AB-2"', 2.5), Step(2, "", 0))
    problem = refused(judge("c", GOOD.replace("2.5", "10000000").encode()))
    assert (problem.fault, problem.place) == ("limit", "/Order/Line[2]/Quantity")
    assert problem.detail == "10000000 is asked; 0 to 100 is allowed"
    assert refused(judge("c", GOOD.replace('"7"', '"11"').encode())).place == "/Order/@number"


def test_fields_and_constants() -> None:
    fields = ("/Order/@number", "/Order/Line/Article")
    sets = (("/Order/Site", '"works"'), ("/Order/@by", "2"))
    dropping = checks(schema="", fields=fields, others="drop", set=sets)
    found = passed(dropping("c", GOOD.encode()))
    assert found.body == (
        b'<o:Order xmlns:o="urn:o" by="2" number="7"><o:Line><o:Article>AB-1</o:Article></o:Line>'
        b"<o:Line><o:Article>AB-2</o:Article></o:Line><o:Site>works</o:Site></o:Order>"
    )
    assert passed(dropping("c", found.body)) == found
    assert dropping.again("c", found.body) == found
    problem = refused(checks(schema="", fields=fields)("c", GOOD.encode()))
    assert (problem.fault, problem.place) == ("fields", "/Order/Line[1]/Quantity")
    more = GOOD.replace('number="7"', 'number="7" x="1"').encode()
    assert refused(checks(schema="", fields=("/Order/@number", "/Order/Line"))("c", more)).place == "/Order/@x"
    assert refused(checks(schema="", fields=("/Other",))("c", GOOD.encode())).fault == "fields"


def test_time_stamps() -> None:
    judge = checks(stamp="/Order/At")
    at = GOOD.replace("<o:Line>", "<o:At>2026-05-01T12:00:00+02:00</o:At><o:Line>", 1)
    assert passed(judge("c", at.encode())).stamp_ns == 1_777_629_600_000_000_000
    assert refused(judge("c", GOOD.encode())).fault == "stamp"


def test_a_message_in_a_line_is_a_text() -> None:
    assert passed(checks().judge("c", GOOD, "", ())).body == GOOD.encode()
    assert refused(checks().judge("c", {"a": 1}, "", ())).fault == "syntax"
    assert checks().readable_value("c", GOOD) == GOOD.encode()


XS = '<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema">'
OUTSIDE = [
    f'{XS}<xs:{word} schemaLocation="{target}"/></xs:schema>'.encode()
    for word, target in (
        ("include", "file:///etc/passwd"), ("include", "/etc/passwd"), ("include", "../../../etc/passwd"),
        ("include", "http://127.0.0.1:9/x.xsd"), ("redefine", "file:///etc/passwd"), ("include", "missing.xsd"),
    )
] + [f'{XS}<xs:import namespace="urn:x" schemaLocation="ftp://127.0.0.1/x"/></xs:schema>'.encode()]  # fmt: skip


@pytest.mark.parametrize("text", OUTSIDE)
def test_a_schema_that_leads_out_does_not_compile(text: bytes) -> None:
    with pytest.raises(SchemaError) as wrong:
        XsdSchemas({"s.xsd": text}).validator("s.xsd")
    assert "a reference to" in wrong.value.found
    assert "nothing is fetched" in wrong.value.expected


def test_schemas_that_include_each_other() -> None:
    """(Which XSD allows.)"""
    one, two = (f'{XS}<xs:include schemaLocation="{other}.xsd"/></xs:schema>'.encode() for other in ("two", "one"))
    XsdSchemas({"one.xsd": one, "two.xsd": two}).validator("one.xsd")
    assert xsd_files("order.xsd", ORDER) == ("parts/line.xsd",)


def test_schemas_that_import_each_other() -> None:
    """(Which XSD allows as well, and each has its say.)"""
    head = '<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema" xmlns:o="urn:{1}" targetNamespace="urn:{0}">'
    more = '<xs:import namespace="urn:{1}" schemaLocation="{1}.xsd"/><xs:element name="{0}" type="o:{1}"/>'
    kind = '<xs:simpleType name="{0}"><xs:restriction base="xs:integer"/></xs:simpleType></xs:schema>'
    files = {f"{own}.xsd": (head + more + kind).format(own, other).encode() for own, other in ("ab", "ba")}
    validator = XsdSchemas(files).validator("a.xsd")
    for text, good in (
        (b"<a xmlns='urn:a'>1</a>", True),
        (b"<a xmlns='urn:a'>x</a>", False),
        (b"<b xmlns='urn:b'/>", False),
    ):
        assert validator.validate(read_xml(text)) is good


def _pattern(value: str) -> bytes:
    inner = f'<xs:restriction base="xs:string"><xs:pattern value="{value}"/></xs:restriction>'
    return f'{XS}<xs:element name="r"><xs:simpleType>{inner}</xs:simpleType></xs:element></xs:schema>'.encode()


@pytest.mark.parametrize("value", ["(x+x+)+y", "(a|aa)+", "(.*a){12}"])
def test_a_slow_pattern_is_an_error_of_the_policy(value: str) -> None:
    with pytest.raises(SchemaError, match="does not take long"):
        XsdSchemas({"s.xsd": _pattern(value)}).validator("s.xsd")


@pytest.mark.parametrize("value", ["(a+)+", "[A-Z]{2}-[0-9]+", r"\d{4}(-\d\d){2}", "([a-z]+[0-9]*)+"])
def test_other_patterns_are_none(value: str) -> None:
    XsdSchemas({"s.xsd": _pattern(value)}).validator("s.xsd")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"<x/>", ""),
        (_pattern("("), "the pattern"),
        (b"no", "start tag"),
        (XS.encode() + b"<xs:nonsense/></xs:schema>", ""),
    ],
)
def test_what_is_no_schema(text: bytes, found: str) -> None:
    with pytest.raises(SchemaError) as wrong:
        XsdSchemas({"s.xsd": text}).validator("s.xsd")
    assert found in wrong.value.found


PIECES = [
    "<r>",
    "</r>",
    "<a b='1'>",
    "</a>",
    "<c/>",
    "x",
    "&amp;",
    "&x;",
    "<!-- -->",
    "<?p?>",
    "<![CDATA[",
    "]]>",
    " ",
    "\n",
    "é",
]


@given(st.lists(st.sampled_from(PIECES), max_size=10).map("".join).map(str.encode) | st.binary(max_size=40))
def test_any_bytes_are_read_or_refused_and_have_one_form(data: bytes) -> None:
    try:
        root = read_xml(data)
    except NotXml as error:
        assert error.words or data
        return
    form = canonical_xml(root)
    assert canonical_xml(read_xml(form)) == form


JUDGES = [
    checks(),
    checks(schema="", fields=("/Order/Line", "/Order/@number"), others="drop", set=(("/Order/Site", '"x"'),)),
    checks(schema="", limits=(Limit(at="/Order/Line/Quantity", max=5, max_step=1, key="/Order/Line/Article"),)),
]


@given(st.lists(st.tuples(st.integers(0, len(GOOD)), st.sampled_from(["", "<o:Line>", "9", '"', "&lt;"])), max_size=3),
       st.sampled_from(JUDGES))  # fmt: skip
def test_what_passes_passes_again(changes: list[tuple[int, str]], judge: Checks) -> None:
    text = GOOD
    for at, more in changes:
        text = text[:at] + more + text[at:]
    found = judge("c", text.encode())
    if isinstance(found, Checked):
        assert passed(judge("c", found.body)) == found
        assert passed(judge.again("c", found.body)) == found
    else:
        assert found.fault in ("syntax", "schema", "fields", "limit")
