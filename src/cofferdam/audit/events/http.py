"""Events of parts that answer HTTP, whichever broker's: keys and certificates, and requests that were refused."""

from __future__ import annotations

from cofferdam.audit.events.base import Address, Count, Event, Name, Names, Text
from cofferdam.audit.events.lines import Line, Said


class KeysSet(Event, frozen=True, kw_only=True):
    """A side was given its keys and certificates anew: `added` and `gone` are ids of keys, each with its principal,
    and names of certificates, and of passwords for databases, that are new or changed. `keys`: how many keys count
    now."""

    side: Name
    by: Name
    keys: Count
    added: Names = ()
    gone: Names = ()
    certificates: Names = ()
    passwords: Names = ()


class RequestRefused(Event, frozen=True, kw_only=True):
    """A request was refused. `what`: what was asked for. `count` is above 1 where a flood is told of at once."""

    broker: Name
    what: Name
    principal: Name
    source: Address = ""
    verb: Name
    fault: Name
    detail: Text
    place: Text = ""
    key: Text = ""
    count: Count = 1


HTTP = (KeysSet, RequestRefused)
"""What a part that answers HTTP may say, besides what is its broker's own."""
CROWD = frozenset({RequestRefused})
"""What whoever speaks with a part can cause as often as they like: the log has so much room for it in a day."""

Draft = KeysSet | RequestRefused


def _refused(event: Said) -> str:
    many = f" ({event['count']} times)" if event.get("count", 1) > 1 else ""
    place = f" at {event['place']}" if event.get("place") else ""
    return (
        f"{event.get('principal') or event.get('source') or '?'} {event.get('verb')} {event.get('what')}:"
        f" {event.get('fault')}{place}: {event.get('detail')}{many}"
    )


LINES: dict[str, Line] = {
    "keys-set": lambda e: (
        f"{e.get('side')}: {e.get('keys')} keys; new {', '.join(e.get('added', ())) or 'none'}, gone"
        f" {', '.join(e.get('gone', ())) or 'none'}, certificates {', '.join(e.get('certificates', ())) or 'none'},"
        f" by {e.get('by')}"
    ),
    "request-refused": _refused,
}
