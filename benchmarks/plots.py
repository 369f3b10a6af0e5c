"""Bar charts as SVG files that read well on light and on dark pages, without a plotting library."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

STYLE = """<style>
text { font: 12px system-ui, sans-serif; fill: #1b1f24 }
.soft { fill: #5b6470 } .title { font-weight: 600 }
.ours { fill: #2f6fbb } .peer { fill: #c9762b } .yardstick { fill: #a7abb3 }
.spread { stroke: #1b1f24 }
@media (prefers-color-scheme: dark) {
text { fill: #e8eaed } .soft { fill: #9aa3af }
.ours { fill: #5b9bea } .peer { fill: #e6a04c } .yardstick { fill: #6b7280 }
.spread { stroke: #e8eaed }
}
</style>"""
WIDTH, LEFT, RIGHT, STEP, HEAD = 760, 210, 90, 20, 30


@dataclass(frozen=True)
class Bar:
    """A measured time: `kind` is "ours", "peer" or "yardstick"."""

    label: str
    kind: str
    seconds: float
    spread: float


def duration(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds * 1e9:.0f} ns"


def bar_chart(groups: Sequence[tuple[str, Sequence[Bar]]]) -> str:
    """Horizontal bars in groups, each on a scale of its own that begins at zero, with quartiles."""
    parts: list[str] = []
    y = 0.0
    for title, bars in groups:
        parts.append(f'<text class="title" x="0" y="{y + 18:g}">{escape(title)}</text>')
        y += HEAD
        longest = max(bar.seconds + bar.spread / 2 for bar in bars)
        for bar in bars:
            parts.extend(_bar(bar, y, (WIDTH - LEFT - RIGHT) / longest))
            y += STEP
        y += 8
    legend = (
        "blue: irsplit, orange: other tools, grey: yardsticks; median, with the distance between "
        "the quartiles"
    )
    parts.append(f'<text class="soft" x="0" y="{y + 14:g}">{legend}</text>')
    size = f'width="{WIDTH}" height="{y + 22:g}" viewBox="0 0 {WIDTH} {y + 22:g}"'
    return "\n".join(
        [f'<svg xmlns="http://www.w3.org/2000/svg" {size}>', STYLE, *parts, "</svg>", ""]
    )


def _bar(bar: Bar, y: float, scale: float) -> list[str]:
    width = max(1.0, bar.seconds * scale)
    low, high = (LEFT + max(0.0, bar.seconds + side * bar.spread / 2) * scale for side in (-1, 1))
    end = max(LEFT + width, high) + 6
    return [
        f'<text x="0" y="{y + 12:g}">{escape(bar.label)}</text>',
        (
            f'<rect class="{bar.kind}" x="{LEFT}" y="{y + 1:g}" width="{width:.1f}" '
            f'height="{STEP - 6}"/>'
        ),
        f'<line class="spread" x1="{low:.1f}" x2="{high:.1f}" y1="{y + 8:g}" y2="{y + 8:g}"/>',
        f'<text class="soft" x="{end:.1f}" y="{y + 12:g}">{duration(bar.seconds)}</text>',
    ]
