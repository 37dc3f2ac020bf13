"""Zones and conduits of a policy as a drawing: SVG for a report, Mermaid for a page that renders it. PURE.

Zones stand in a column for each side, with their principals and assets; a conduit is an arrow from the zone where its
sessions begin to the one to which they go. Not here: what rules allow (explain, difference).
"""

from __future__ import annotations

import re
from html import escape

from cofferdam.model import NEVER
from cofferdam.policy.rows import Conduit, Zone
from cofferdam.policy.table import CompiledPolicy

SHOWN = 12
"""Names in one box; the rest are counted."""
LINE, WIDTH, GAP, MARGIN, PAD = 18, 260, 320, 24, 12
_FILL = {"it": "#eef3fb", "ot": "#f1f7ec"}


def mermaid(policy: CompiledPolicy) -> str:
    """A flowchart. Names are quoted and cut to what Mermaid takes as text."""
    lines = ["flowchart LR"]
    ids = {name: f"z{number}" for number, name in enumerate(policy.zones)}
    for side in ("it", "ot"):
        lines.append(f'  subgraph {side}["{side.upper()}"]')
        for zone in _on(policy, side):
            text = "<br/>".join(map(_plain, _names(policy, zone)))
            lines.append(f'    {ids[zone.name]}["{text}"]')
        lines.append("  end")
    for conduit in policy.conduits.values():
        label = _plain(f"{conduit.name} ({conduit.broker}{_when(conduit)})")
        lines.append(f'  {ids[conduit.from_zone]} -->|"{label}"| {ids[conduit.to_zone]}')
    return "\n".join(lines) + "\n"


def svg(policy: CompiledPolicy) -> str:
    """A picture that stands alone: no script, no font and no file of elsewhere."""
    places: dict[str, tuple[int, int, int]] = {}
    boxes: list[str] = []
    bottom = 0
    for side, x in (("it", MARGIN), ("ot", MARGIN + WIDTH + GAP)):
        y = MARGIN + 2 * LINE
        boxes.append(_text(x, MARGIN + LINE, side.upper(), "font-weight:bold"))
        for zone in _on(policy, side):
            names = _names(policy, zone)
            height = 2 * PAD + LINE * len(names)
            boxes.append(
                f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{height}" rx="6" fill="{_FILL[side]}" stroke="#456"/>'
            )
            for number, name in enumerate(names):
                style = "font-weight:bold" if not number else ""
                boxes.append(_text(x + PAD, y + PAD + LINE * (number + 1) - 5, _cut(name, 34), style))
            places[zone.name] = (x, y, height)
            y += height + MARGIN
        bottom = max(bottom, y)
    arrows: list[str] = []
    for number, conduit in enumerate(policy.conduits.values()):
        (x1, y1, h1), (x2, y2, h2) = places[conduit.from_zone], places[conduit.to_zone]
        out = x1 <= x2
        begin, end = (x1 + WIDTH, x2) if out else (x1, x2 + WIDTH)
        if x1 == x2:
            begin, end = x1 + WIDTH, x2 + WIDTH
        at, to = y1 + h1 // 2, y2 + h2 // 2
        middle = MARGIN + 2 * LINE + 30 + number * 2 * LINE
        mid = (MARGIN + WIDTH + MARGIN + WIDTH + GAP) // 2
        path = f"M{begin} {at} Q{(begin + mid) // 2} {middle} {mid} {middle} T{end} {to}"
        arrows.append(f'<path d="{path}" fill="none" stroke="#a33" marker-end="url(#to)"/>')
        label = _cut(f"{conduit.name} ({conduit.broker}{_when(conduit)})", 44)
        arrows.append(_text(mid, middle - 4, label, "text-anchor:middle"))
        bottom = max(bottom, middle + 2 * LINE)
    width = 2 * MARGIN + 2 * WIDTH + GAP
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {bottom + MARGIN}" width="{width}" '
        f'font-family="sans-serif" font-size="13"><title>{escape(policy.site)}</title>'
        '<defs><marker id="to" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#a33"/></marker></defs><rect width="100%" height="100%" fill="#fff"/>'
    )
    return "\n".join([head, *boxes, *arrows, "</svg>"]) + "\n"


def _on(policy: CompiledPolicy, side: str) -> list[Zone]:
    return [zone for zone in policy.zones.values() if zone.side.value == side]


def _names(policy: CompiledPolicy, zone: Zone) -> list[str]:
    """What stands in a zone's box: its name, and who and what is in it."""
    level = f", level {zone.level:g}" if zone.level is not None else ""
    inside = [
        f"{p.name} {', '.join(p.networks) or f'by {p.jump}'}" for p in policy.principals.values() if p.zone == zone.name
    ]
    inside += [f"{a.name} {a.address}" for a in policy.assets.values() if a.zone == zone.name]
    more = [f"and {len(inside) - SHOWN} more"] if len(inside) > SHOWN else []
    return [f"{zone.name}{level}", *inside[:SHOWN], *more]


def _when(conduit: Conduit) -> str:
    said = ", in its window" if conduit.windows else ""
    said += ", with a grant" if conduit.grant is not None else ""
    return said + (", expires" if conduit.expires != NEVER else "")


def _plain(text: str) -> str:
    """Without what Mermaid or HTML would take for its own."""
    return re.sub(r"[^\w ,.:/()+-]", " ", _cut(text, 60))


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _text(x: int, y: int, text: str, style: str = "") -> str:
    return f'<text x="{x}" y="{y}"{f" style={chr(34)}{style}{chr(34)}" if style else ""}>{escape(text)}</text>'
