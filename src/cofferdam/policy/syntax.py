"""The small notations of the policy file: durations, addresses, functions, days, hours, dates.

Each function takes what the file says (a text, None, a list or a dict) and returns the value, or raises `Expected`
with what should have stood there. Not here: which field has which notation (policy.schema), cells and items, which
each protocol writes in its own way (its dialect).
"""

from __future__ import annotations

import ipaddress
import math
import re
import unicodedata
from datetime import date as calendar
from typing import Any, NamedTuple

from pydantic_core import PydanticCustomError

from cofferdam.policy.points import instants

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z")
FILL_IN = "FILL-IN"
"""Stands in a proposed policy where a person has to say something; such a policy does not load."""
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
YEAR_SECONDS = 31_536_000
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(us|µs|ms|s|min|h|d)\Z")
_MICROSECONDS = {"us": 1, "µs": 1, "ms": 1000, "s": 10**6, "min": 60 * 10**6, "h": 3600 * 10**6, "d": 86400 * 10**6}
_FUNCTION = re.compile(r"([0-9]{1,5})(?:\s*/\s*([0-9]{1,5}))?\Z")
_HOUR = re.compile(r"([01]?[0-9]|2[0-4]):([0-5][0-9])(?::([0-5][0-9]))?\Z")
_OTHER_DATE = re.compile(r"([0-9]{1,2})([./])([0-9]{1,2})[./]([0-9]{4})(\s+[A-Za-z][A-Za-z0-9_+/-]*)?\Z")
_DATES = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})(?:\s+to\s+([0-9]{4}-[0-9]{2}-[0-9]{2}))?\Z")
_ORDINAL = calendar(1970, 1, 1).toordinal()
SPANS = 100
"""Spans of days that a window may except."""
_DATE = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})(?:\s+([A-Za-z][A-Za-z0-9_+/-]*))?\Z")


_LABEL = re.compile(r"^[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?$")


def Expected(what: str, near: str = "") -> PydanticCustomError:
    """The exception that pydantic turns into a finding: "expected WHAT; did you mean NEAR"."""
    return PydanticCustomError("expected", "{what}", {"what": what, "near": near})


def text(raw: Any) -> str:
    """Any text that is not empty."""
    if not isinstance(raw, str) or not raw.strip():
        raise Expected("a text")
    return raw.strip()


def name(raw: Any) -> str:
    """A name: letters, digits, dot, underscore, hyphen; at most 63."""
    if not isinstance(raw, str) or not NAME.match(raw):
        raise Expected("a name of letters, digits, . _ - (at most 63)", "all" if raw == "*" else "")
    return raw


def near_name(said: str) -> str:
    """The name that comes nearest to a text which is none: without accents, and a hyphen for what no name has."""
    plain = unicodedata.normalize("NFKD", said).encode("ascii", "ignore").decode()
    found = re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip("-._")
    return found if NAME.match(found) else ""


def names(raw: Any) -> tuple[str, ...]:
    """One name, or a list of names."""
    entries = raw if isinstance(raw, list) else [raw]
    if not entries or not all(isinstance(entry, str) and NAME.match(entry) for entry in entries):
        raise Expected("a name, or a list of names", "all" if raw in ("*", ["*"]) else "")
    return tuple(dict.fromkeys(entries))


def whole(raw: Any, low: int, high: int) -> int:
    """A whole number, decimal or 0x."""
    if isinstance(raw, str) and re.fullmatch(r"-?[0-9]{1,20}|0x[0-9a-fA-F]{1,16}", raw):
        value = int(raw, 16) if raw.startswith("0x") else int(raw)
        if re.fullmatch(r"-?0[0-9]+", raw):
            raise Expected("a number without zeros before it, which some read as octal", str(value))
        if low <= value <= high:
            return value
    raise Expected(f"a whole number from {low} to {high}")


def number(raw: Any) -> float:
    """A finite number. A whole number that a float cannot hold exactly is refused."""
    if isinstance(raw, str) and re.fullmatch(r"[-+]?[0-9]{1,40}(\.[0-9]{0,40})?([eE][-+]?[0-9]{1,3})?", raw):
        value = float(raw)
        if re.fullmatch(r"[-+]?0[0-9].*", raw):
            raise Expected("a number without zeros before it, which some read as octal", raw.lstrip("0"))
        if math.isfinite(value):
            if re.fullmatch(r"[-+]?[0-9]+", raw) and int(raw) != int(value):
                raise Expected("a number that 64-bit floating point holds exactly", str(int(value)))
            return value
    raise Expected("a number")


class Instant(float):
    """A limit that was written as a time (`points.instants`)."""


def limit(raw: Any) -> float:
    """A finite number, or a time."""
    ticks = instants.parse(raw) if isinstance(raw, str) else None
    return number(raw) if ticks is None else Instant(ticks)


def positive(raw: Any) -> float:
    """A number above 0."""
    value = number(raw)
    if value <= 0:
        raise Expected("a number above 0")
    return value


_RATE = re.compile(r"([0-9.eE+-]+)\s*([^\s/0-9][^/]*?)?\s*/\s*(s|min|h)\Z")


class Rate(NamedTuple):
    """How far a value may move: `most` within any `seconds` (1 or 60), in the physical unit `unit` ("": not said)."""

    most: float
    seconds: int
    unit: str


def rate(raw: Any) -> Rate:
    """How far a value may move in a time: "50 rpm/min", "2/s", "30 K/h". What is said for an hour holds for each minute
    of it."""
    found = _RATE.match(raw.strip()) if isinstance(raw, str) else None
    if found is None:
        near = f'"{raw}/min"' if isinstance(raw, str) and re.fullmatch(r"[0-9.]+", raw) else ""
        raise Expected('a number, a unit and a time, such as "50 rpm/min", "2 bar/s", "30 K/h"', near)
    most = positive(found[1])
    return Rate(most / 60 if found[3] == "h" else most, 1 if found[3] == "s" else 60, (found[2] or "").strip())


def seconds_or_none(raw: Any) -> float:
    """A number of seconds of at most a year, or 0."""
    return 0.0 if number(raw) == 0 else seconds(raw)


def seconds(raw: Any) -> float:
    """A number above 0 and of at most a year: what comes after it in a half's arithmetic must stay finite."""
    value = number(raw)
    if not 0 < value <= YEAR_SECONDS:
        raise Expected(f"a number of seconds above 0 and at most {YEAR_SECONDS}, which is a year")
    return value


def microseconds(raw: Any) -> int:
    """A duration, as "200 ms" or "1 s"."""
    found = _DURATION.match(raw) if isinstance(raw, str) else None
    if found:
        value = round(float(found[1]) * _MICROSECONDS[found[2]])
        if 0 < value <= 10**13:
            return value
    near = f'"{raw} ms"' if isinstance(raw, str) and re.fullmatch(r"[0-9]+", raw) else ""
    raise Expected('a duration with its unit, such as "200 ms", "5 s", "1 min"', near)


def milliseconds(raw: Any) -> int:
    """A duration of whole milliseconds, at least one."""
    value = microseconds(raw)
    if value % 1000:
        raise Expected("a duration of whole milliseconds")
    return value // 1000


LEAK_PROBE_SECONDS = (10, 86_400)
"""The shortest and the longest interval of the leak probe: a round takes seconds, and less than one a day is none."""


def leak_probe(raw: Any) -> int:
    """An interval of whole seconds, or `off`, which is 0."""
    if raw == "off":
        return 0
    low, high = LEAK_PROBE_SECONDS
    try:
        value = microseconds(raw)
    except PydanticCustomError as error:
        raise Expected('an interval with its unit, such as "5 min", or off', _near_interval(raw)) from error
    if value % 10**6 or not low <= value // 10**6 <= high:
        raise Expected("an interval of whole seconds from 10 s to 1 d, or off")
    return value // 10**6


def _near_interval(raw: Any) -> str:
    if isinstance(raw, str) and re.fullmatch(r"[0-9]+", raw):
        return f'"{raw} s"'
    return "off" if raw in ("no", "none", "never", "false", "Off", "OFF") else ""


def address(raw: Any) -> str:
    """An IPv4 or IPv6 address, in its canonical form."""
    try:
        if isinstance(raw, str) and "%" not in raw:
            return str(ipaddress.ip_address(raw))
    except ValueError:
        pass
    if isinstance(raw, str) and re.fullmatch(r"[0-9.]+:[0-9]+|\[[0-9a-fA-F:.]+\]:[0-9]+", raw):
        raise Expected("an IP address alone: the port of a device is `port:`, and `listen:` takes ADDRESS:PORT")
    raise Expected("an IP address, such as 10.20.0.17")


def network(raw: Any) -> str:
    """An address or a network, in CIDR form."""
    if isinstance(raw, str) and "%" in raw:
        raise Expected("an address without a scope: one that holds on a single link says nothing of who asks")
    if isinstance(raw, str):
        try:
            return str(ipaddress.ip_network(raw))
        except ValueError:
            pass
        try:
            near = str(ipaddress.ip_network(raw, strict=False))
        except ValueError:
            near = ""
        if near:
            raise Expected("a network without host bits", near)
    words = "an IP address or network, such as 10.1.0.20 or 10.1.5.0/24"
    if isinstance(raw, str) and _HOST_NAME.fullmatch(raw):
        raise Expected(f"{words}: names are not looked up, since whoever answers for them would say who may pass")
    raise Expected(words, _near_network(raw) if isinstance(raw, str) else "")


_HOST_NAME = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+")
_RANGE = re.compile(r"((?:[0-9]{1,3}\.){3})([0-9]{1,3})\s*-\s*(?:\1|\.)?([0-9]{1,3})")


def _near_network(text: str) -> str:
    """What a range, or an address with zeros, may mean."""
    try:
        if found := _RANGE.fullmatch(text):
            first, last = (ipaddress.IPv4Address(found[1] + found[number]) for number in (2, 3))
            networks = [str(one).removesuffix("/32") for one in ipaddress.summarize_address_range(first, last)]
            return f"[{', '.join(networks)}]" if len(networks) > 1 else networks[0]
        if re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,3}){3}", text):
            return str(ipaddress.ip_address(".".join(str(int(part)) for part in text.split("."))))
    except (ValueError, TypeError):
        pass
    return ""


def prefix(raw: Any, version: int) -> str:
    """A network of one IP version for addresses of our own, in CIDR form: /8 to /30, or /32 to /120."""
    text = network(raw)
    found = ipaddress.ip_network(text)
    low, high = (8, 30) if version == 4 else (32, 120)
    if found.version != version or not low <= found.prefixlen <= high:
        near = "10.64.7.0/24" if version == 4 else "fd12:3456:789a::/64"
        raise Expected(f"an IPv{version} network of /{low} to /{high}, such as {near}")
    return text


def prefix6(raw: Any) -> str:
    """An IPv6 network, or `auto` or `none`."""
    return str(raw) if raw in ("auto", "none") else prefix(raw, 6)


def domain(raw: Any) -> str:
    """A DNS name, in lower case and without the dot at its end."""
    if isinstance(raw, str):
        found = raw.removesuffix(".").lower()
        if len(found) <= 190 and all(_LABEL.match(label) for label in found.split(".")):
            return found
    raise Expected("a DNS name, such as riverside-water.internal")


def host_port(raw: Any) -> tuple[str, int]:
    """HOST:PORT, where the host is a DNS name or an IP address (IPv6 in brackets)."""
    if isinstance(raw, str):
        host, _, port = raw.rpartition(":")
        bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        if re.fullmatch(r"[0-9]{1,5}", port) and 0 < int(port) <= 65535:
            try:
                found = ipaddress.ip_address(bare)
                if (found.version == 6) == (bare != host):
                    return str(found), int(port)
            except ValueError:
                if bare == host and all(_LABEL.match(label) for label in host.lower().split(".")):
                    return host.lower(), int(port)
    raise Expected('a host and a port, such as "vpn.example.com:51820" or "192.0.2.1:51820"')


def endpoint(raw: Any) -> tuple[str, int]:
    """ADDRESS:PORT, with an IPv6 address in brackets."""
    found = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)):([0-9]{1,5})", raw) if isinstance(raw, str) else None
    if found and int(found[3]) <= 65535:
        try:
            return str(ipaddress.ip_address(found[1] or found[2])), int(found[3])
        except ValueError:
            pass
    raise Expected('an address and a port, such as "127.0.0.1:502" or "[::1]:502"')


def function(raw: Any, low: int, high: int, examples: str) -> tuple[int, int]:
    """A function code, or code/sub: 8, "43/14". Sub -1 stands for any."""
    found = _FUNCTION.match(raw) if isinstance(raw, str) else None
    if not found or not low <= int(found[1]) <= high:
        such = f", such as {examples}" if examples else ""
        raise Expected(f"a function code from {low} to {high}, or with a sub-function{such}")
    return int(found[1]), -1 if found[2] is None else int(found[2])


def days(raw: Any) -> tuple[int, ...]:
    """Days of the week: mon-fri, [mon, wed], [fri-sun], all."""
    if raw == "all":
        return tuple(range(7))
    found: set[int] = set()
    entries = raw if isinstance(raw, list) else raw.split(",") if isinstance(raw, str) else []
    for entry in entries:
        first, _, last = (entry.strip().lower() if isinstance(entry, str) else "").partition("-")
        if first not in DAYS or (last or first) not in DAYS:
            raise Expected("days such as mon-fri, [mon, wed], or all")
        index = DAYS.index(first)
        found.add(index)
        while index != DAYS.index(last or first):
            index = (index + 1) % 7
            found.add(index)
    if not found:
        raise Expected("days such as mon-fri, [mon, wed], or all")
    return tuple(sorted(found))


def dates(raw: Any) -> tuple[tuple[int, int], ...]:
    """Days of the calendar, one or a list: 2027-05-01, 2026-12-24 to 2027-01-02. As (first, last) since 1970-01-01."""
    wanted = "dates such as 2027-05-01, or 2026-12-24 to 2027-01-02"
    found: list[tuple[int, int]] = []
    for entry in raw if isinstance(raw, list) else [raw]:
        span = _DATES.match(entry) if isinstance(entry, str) else None
        if span is None:
            here = f", which {entry!r:.40} is not" if isinstance(raw, list) else ""
            raise Expected(f"{wanted}{here}", _near_date(entry))
        try:
            days = [calendar.fromisoformat(text) for text in (span[1], span[2] or span[1])]
        except ValueError:
            raise Expected(f"days that the calendar has, which {entry} does not name") from None
        if not days[0] <= days[1]:
            here = f", unlike {entry}" if isinstance(raw, list) else ""
            raise Expected(f"a first day that is not after the last{here}")
        found.append((days[0].toordinal() - _ORDINAL, days[1].toordinal() - _ORDINAL))
    if not 0 < len(found) <= SPANS:
        raise Expected(f"1 to {SPANS} of them")
    return tuple(sorted(found))


def show_dates(spans: tuple[tuple[int, int], ...]) -> str:
    """Days of the calendar as the file writes them."""
    days = [[calendar.fromordinal(day + _ORDINAL).isoformat() for day in span] for span in spans]
    return ", ".join(first if first == last else f"{first} to {last}" for first, last in days)


def show_days(numbers: tuple[int, ...]) -> str:
    """Days as the file writes them."""
    if len(numbers) == 7:
        return "all days"
    if len(numbers) > 2 and list(numbers) == list(range(numbers[0], numbers[-1] + 1)):
        return f"{DAYS[numbers[0]]}-{DAYS[numbers[-1]]}"
    return ", ".join(DAYS[number] for number in numbers)


def hour(raw: Any) -> int:
    """Hour of the day as seconds: 06:00, 18:30, 24:00."""
    found = _HOUR.match(raw) if isinstance(raw, str) else None
    if found:
        second = int(found[1]) * 3600 + int(found[2]) * 60 + int(found[3] or 0)
        if second <= 86400:
            return second
    near = f'"{int(raw):02d}:00"' if isinstance(raw, str) and re.fullmatch(r"[0-9]|1[0-9]|2[0-4]", raw) else ""
    raise Expected("an hour of the day from 00:00 to 24:00", near)


def date(raw: Any) -> str:
    """A date, with a time zone after a space where it is not UTC: 2027-06-30, 2027-06-30 Europe/Paris."""
    found = _DATE.match(raw) if isinstance(raw, str) else None
    if found:
        try:
            if not 2000 <= calendar.fromisoformat(found[1]).year <= 2200:  # times are 64-bit nanoseconds
                raise Expected("a date from 2000 to 2200")
            return f"{found[1]} {found[2] or 'UTC'}"
        except ValueError:
            raise Expected(f"a day that the calendar has, which {found[1]} is not") from None
    raise Expected('a date such as 2027-06-30, or "2027-06-30 Europe/Paris"', _near_date(raw))


def _near_date(raw: Any) -> str:
    """What day a date as others write it may mean: 30.06.2027, 06/30/2027, 2027-6-30. "" where that is not certain."""
    if isinstance(raw, str) and (short := re.fullmatch(r"([0-9]{4})[-/.]([0-9]{1,2})[-/.]([0-9]{1,2})", raw)):
        try:
            return calendar(int(short[1]), int(short[2]), int(short[3])).isoformat()
        except ValueError:
            return ""
    found = _OTHER_DATE.match(raw) if isinstance(raw, str) else None
    if not found:
        return ""
    day, month = (found[1], found[3]) if found[2] == "." else (found[3], found[1])
    if found[2] == "/" and int(day) <= 12:  # either may be the month
        return ""
    try:
        return f"{calendar(int(found[4]), int(month), int(day)).isoformat()}{found[5] or ''}"
    except ValueError:
        return ""


def interface(raw: Any) -> str:
    """An address with the prefix length of its network: 10.1.0.2/24."""
    if isinstance(raw, str) and "/" in raw:
        try:
            return str(ipaddress.ip_interface(raw))
        except ValueError:
            pass
    raise Expected("an address with its prefix length, such as 10.1.0.2/24")


def interface_name(raw: Any) -> str:
    """The name of a network interface: at most 15 characters, none of them a space, a slash or a colon."""
    if isinstance(raw, str) and 0 < len(raw) <= 15 and not any(c.isspace() or c in "/:" for c in raw):
        return raw
    raise Expected("a network interface's name of at most 15 characters, such as eth1")


def route(raw: Any) -> tuple[str, str]:
    """A network and the router that leads there: 10.50.0.0/16 via 10.1.0.254."""
    words = raw.split() if isinstance(raw, str) else []
    try:
        if len(words) == 3 and words[1] == "via":
            to, via = ipaddress.ip_network(words[0]), ipaddress.ip_address(words[2])
            if to.version == via.version:
                return str(to), str(via)
    except ValueError:
        pass
    raise Expected("a network and its router, such as 10.50.0.0/16 via 10.1.0.254")


_SPAN = re.compile(r"(\d{1,9})\s*(s|min|h|d|days?|weeks?|years?)\Z")
_SPAN_SECONDS = {
    "s": 1, "min": 60, "h": 3600, "d": 86_400, "day": 86_400, "days": 86_400, "week": 604_800, "weeks": 604_800,
    "year": YEAR_SECONDS, "years": YEAR_SECONDS,
}  # fmt: skip
_SIZE = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)\s*(B|kB|MB|GB|TB)\Z")
_SIZE_BYTES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def long_span(raw: Any, low: int, high: int) -> int:
    """A time of whole seconds that may be long, as "90 days" or "5 min"; from `low` to `high` seconds."""
    found = _SPAN.match(raw) if isinstance(raw, str) else None
    if found and low <= int(found[1]) * _SPAN_SECONDS[found[2]] <= high:
        return int(found[1]) * _SPAN_SECONDS[found[2]]
    near = f'"{raw} days"' if isinstance(raw, str) and re.fullmatch(r"[0-9]{1,4}", raw) else ""
    span = f"from {show_span(low)} to {show_span(high)}"
    raise Expected(f'a time with its unit, such as "90 days", "12 h", "5 min", {span}', near)


def show_span(seconds: int) -> str:
    """A time as the file writes it, by the largest unit that it is whole in."""
    for unit in ("years", "days", "h", "min"):
        if seconds and seconds % _SPAN_SECONDS[unit] == 0:
            return f"{seconds // _SPAN_SECONDS[unit]} {unit}"
    return f"{seconds} s"


def size(raw: Any, low: int, high: int) -> int:
    """A number of bytes with its unit, as "5 MB"; from `low` to `high`."""
    found = _SIZE.match(raw) if isinstance(raw, str) else None
    if found:
        value = round(float(found[1]) * _SIZE_BYTES[found[2]])
        if low <= value <= high:
            return value
    near = f'"{raw} MB"' if isinstance(raw, str) and re.fullmatch(r"[0-9]{1,4}", raw) else ""
    raise Expected(f'a size with its unit, such as "5 MB", from {show_size(low)} to {show_size(high)}', near)


def show_size(count: int) -> str:
    """Bytes as the file writes them."""
    for unit in ("TB", "GB", "MB", "kB"):
        if count and count % _SIZE_BYTES[unit] == 0:
            return f"{count // _SIZE_BYTES[unit]} {unit}"
    return f"{count} B"
