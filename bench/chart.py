"""Bars as a picture (SVG) for the docs: what a table says, at a glance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

_WIDTH, _LABEL, _ROW, _BAR = 760, 230, 26, 16  # pixels
_COLOURS = ("#8a8f98", "#2f6fde", "#23a094", "#c77d1e")


@dataclass(frozen=True)
class Bar:
    """`side` decides the colour; `said` stands behind the bar."""

    label: str
    side: int
    value: float
    said: str


def save(path: Path, title: str, sides: Sequence[str], bars: Sequence[Bar]) -> None:
    """Bars from 0, all to one scale, and what each colour stands for."""
    longest = max((bar.value for bar in bars), default=0) or 1
    lines = [f'<text x="8" y="20" font-weight="bold">{escape(title)}</text>']
    for number, side in enumerate(sides):
        x = _LABEL + 130 * number
        lines.append(f'<rect x="{x}" y="32" width="12" height="12" fill="{_COLOURS[number]}"/>')
        lines.append(f'<text x="{x + 18}" y="43">{escape(side)}</text>')
    before = ""
    for number, bar in enumerate(bars):
        y, width = 56 + _ROW * number, max(1.0, (_WIDTH - _LABEL - 150) * bar.value / longest)
        if bar.label != before:
            lines.append(f'<text x="8" y="{y + 13}">{escape(bar.label)}</text>')
        before = bar.label
        lines.append(f'<rect x="{_LABEL}" y="{y}" width="{width:.1f}" height="{_BAR}" fill="{_COLOURS[bar.side]}"/>')
        lines.append(f'<text x="{_LABEL + width + 6:.1f}" y="{y + 13}">{escape(bar.said)}</text>')
    height = 64 + _ROW * len(bars)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" font-family="sans-serif"'
    body = "\n".join(lines)
    path.write_text(f'{head} font-size="13">\n<rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n')
