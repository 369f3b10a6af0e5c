"""A chart of values over time as SVG: bands behind, a line for each series, a logarithmic axis."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from xml.sax.saxutils import escape

_WIDTH, _HEIGHT = 860, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 20, 50, 45
_COLOURS = ("#8a8a8a", "#c77700", "#2f7bbf", "#b3134a")
_SHADES = ("#f4f4f4", "#e6e6e6")


@dataclass(frozen=True, slots=True)
class Band:
    """A stretch of time with a name."""

    begin: float
    end: float
    name: str


@dataclass(frozen=True, slots=True)
class Series:
    """Points by ascending time; values above 0."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Chart:
    """At most four series; the last one is drawn the thickest."""

    x_title: str
    y_title: str
    bands: Sequence[Band]
    series: Sequence[Series]

    def svg(self) -> str:
        parts = [*self._bands(), *self._axes(), *self._lines()]
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
            'font-family="sans-serif"'
        )
        return "\n".join(
            [
                f'{head} font-size="12">',
                f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
                *parts,
                "</svg>\n",
            ]
        )

    @property
    def _decades(self) -> tuple[int, int]:
        values = [value for series in self.series for _, value in series.points]
        return floor(log10(min(values))), ceil(log10(max(values)))

    def _x(self, time: float) -> float:
        begin, end = self.bands[0].begin, self.bands[-1].end
        return _LEFT + (time - begin) / (end - begin) * (_WIDTH - _LEFT - _RIGHT)

    def _y(self, value: float) -> float:
        low, high = self._decades
        return _HEIGHT - _BOTTOM - (log10(value) - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    def _bands(self) -> list[str]:
        found: list[str] = []
        for index, band in enumerate(self.bands):
            left, right = self._x(band.begin), self._x(band.end)
            place = (
                f'x="{left:.1f}" y="{_TOP}" width="{right - left:.1f}" '
                f'height="{_HEIGHT - _TOP - _BOTTOM}"'
            )
            found.append(f'<rect {place} fill="{_SHADES[index % 2]}"/>')
            found.append(_text((left + right) / 2, _TOP + 15, band.name, "middle"))
        return found

    def _axes(self) -> list[str]:
        low, high = self._decades
        found = [
            _text(_WIDTH / 2, _HEIGHT - 8, self.x_title, "middle"),
            _text(_LEFT - 50, _TOP - 10, self.y_title),
        ]
        for value in (10.0**power for power in range(low, high + 1)):
            y = self._y(value)
            found.append(f'<path d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}" stroke="#cccccc"/>')
            found.append(_text(_LEFT - 8, y + 4, f"{value:g}", "end"))
        for band in (*self.bands, Band(self.bands[-1].end, 0, "")):
            found.append(
                _text(self._x(band.begin), _HEIGHT - _BOTTOM + 18, f"{band.begin:g}", "middle")
            )
        return found

    def _lines(self) -> list[str]:
        found: list[str] = []
        for index, series in enumerate(self.series):
            colour = _COLOURS[index]
            points = " ".join(
                f"{self._x(time):.1f},{self._y(value):.1f}" for time, value in series.points
            )
            width = 2.2 if index == len(self.series) - 1 else 1.2
            found.append(
                f'<polyline points="{points}" fill="none" stroke="{colour}" '
                f'stroke-width="{width}"/>'
            )
            x = _LEFT + 120 + 170 * index
            found.append(f'<rect x="{x}" y="{_TOP - 36}" width="18" height="4" fill="{colour}"/>')
            found.append(_text(x + 24, _TOP - 30, series.name))
        return found


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="#333333">{escape(text)}</text>'
    )
