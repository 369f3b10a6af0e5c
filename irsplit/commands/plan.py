"""irsplit plan MODEL: rank the cuts of a model."""

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from irsplit.commands.arguments import add_cuts, add_dims, add_state
from irsplit.commands.coding import add_pricing
from irsplit.commands.log import say_remarks
from irsplit.commands.options import options_of
from irsplit.commands.output import print_json, shorten, table
from irsplit.commands.planning import add_plan_arguments
from irsplit.commands.progress import working
from irsplit.compilation.split_plan import plan
from irsplit.passes.planning.choice import CutChoice, RankedPlacement
from irsplit.planner import Costs
from irsplit.planner.cost import Placement
from irsplit.planner.terms import unit

EXAMPLES = """
irsplit plan examples/digits/digits.onnx --device pixel-2 --link lte
irsplit plan examples/digits/digits.onnx --device pixel-2 --link wifi,rtt=5ms \
--limit memory=100kB --json
irsplit plan examples/digits/digits.onnx --device jetson-tk1-cpu --objective energy
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("model", type=Path, help="an .onnx or .tflite file")

    add_plan_arguments(parser)
    parser.set_defaults(device="pixel-2")
    add_cuts(parser)
    add_state(parser)
    add_dims(parser)
    add_pricing(parser)

    # What is printed.
    parser.add_argument("--all", action="store_true", help="show every cut, not the ten best")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: Namespace) -> int:
    """Print the best cuts as a table or JSON.

    Raises PlanError where no cut is allowed, as `irsplit compile` does.
    """
    with working("pricing cuts"):
        result = plan(arguments.model, options_of(arguments), calibration=arguments.calibration)

    choice = result.choice
    say_remarks(result.remarks)
    if arguments.json:
        print_json(choice.to_json())
    else:
        print(_ranking(choice, len(choice.ranked) if arguments.all else 10))
        for note in choice.notes:
            print(note)

    # A build that goes by the plan stops here, as it would in compile.
    choice.check_split()
    return 0


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of the table: what a placement costs, its cut, and the node before the cut."""

    value: int
    costs: Costs
    allowed: bool
    cut: str
    after: str


def _ranking(choice: CutChoice, count: int) -> str:
    """Return a table of the best cuts and the baselines; each column has one unit."""
    cuts = [_row(placement) for placement in choice.ranked[:count]]
    rows = list(cuts)
    for baseline in choice.baselines:
        name = _SHORT.get(baseline.name, baseline.name)
        rows.append(_Row(baseline.value, baseline.costs, baseline.allowed, "-", name))

    # The codec has a column only where cuts differ in it.
    units, costs = _columns(choice, rows)
    codecs = [_codecs(row.costs) for row in rows]
    if len({_codecs(row.costs) for row in cuts if row.cut != "-"}) > 1:
        costs["codec"] = [codec or "-" for codec in codecs]
    marks = [row.cut if row.allowed else f"{row.cut} !" for row in rows]
    columns = {"cut": marks, **costs}

    # The last column takes the room that a line has left.
    left = sum(2 + max(map(len, (head, *cells))) for head, cells in columns.items())
    columns["after"] = [shorten(row.after, max(_LEAST_ROOM, _LINE - left)) for row in rows]

    legend = ", ".join(units)
    if not all(row.allowed for row in rows):
        legend += "; ! over a limit"
    cells = list(zip(*columns.values(), strict=True))
    return f"{legend}\n{table(tuple(columns), cells)}"


def _row(placement: RankedPlacement) -> _Row:
    """Return the row of a cut, or of a placement without one."""
    cut = "-" if placement.cut is None else placement.cut.id
    after = placement.label if placement.cut is None else placement.cut.after_name
    return _Row(placement.row.value, placement.row.costs, placement.row.allowed, cut, after)


def _codecs(costs: Costs) -> str:
    """Name the codecs of what the device side sends."""
    to_server = [switch.codec for switch in costs.switches if switch.to is Placement.SERVER]
    return ", ".join(dict.fromkeys(to_server))


_LINE, _LEAST_ROOM = 80, 13
"""Width of a line, and the least width of the last column, which the baselines' names need."""

_SHORT = {"server only, raw input": "server, raw", "server only, compressed input": "server, coded"}
_TIMES = {
    "device": ("device_ns",),
    "code": ("device_codec_ns", "server_codec_ns"),
    "up": ("uplink_ns",),
    "server": ("server_ns",),
    "down": ("downlink_ns",),
    "message": ("message_ns",),
}
"""The columns of times, whose sum is the latency, and the terms of each."""

_METRICS = {"sent": "bytes", "memory": "memory", "energy": "energy"}
"""The columns of other costs, and their metrics."""

_SCALES = {
    "ns": {"us": 10**3, "ms": 10**6, "s": 10**9},
    "bytes": {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9},
    "nJ": {"uJ": 10**3, "mJ": 10**6, "J": 10**9},
}
_MOST = 10_000
"""Figures below this are read at a glance; larger ones get a larger unit."""


def _columns(choice: CutChoice, rows: Sequence[_Row]) -> tuple[list[str], dict[str, list[str]]]:
    """Return the units of the figures, and the columns by head.

    Figures of one kind share a unit. Columns with nothing but zeros are left out.
    """
    times: dict[str, list[int]] = {}
    for head, terms in _TIMES.items():
        times[head] = [sum(row.costs.terms[term] for term in terms) for row in rows]
    metrics = {head: [row.costs.metrics[name] for row in rows] for head, name in _METRICS.items()}
    if not choice.chain.table.knows_energy:
        del metrics["energy"]

    # The objective comes first, among the times where it is one.
    objective = {choice.goal.objective: [row.value for row in rows]}
    groups: list[tuple[str, str, dict[str, list[int]]]] = []
    if choice.goal.unit == "ns":
        groups.append(("times", "ns", {**objective, **times}))
    else:
        groups.append((choice.goal.objective, choice.goal.unit, objective))
        groups.append(("times", "ns", times))
    for head, cells in metrics.items():
        groups.append((head, unit(_METRICS[head]), {head: cells}))

    units: list[str] = []
    columns: dict[str, list[str]] = {}
    for name, kind, figures in groups:
        scale = _scale(kind, figures)
        units.append(f"{name} in {scale}")
        for head, cells in figures.items():
            if any(cells):
                columns[head] = [_figure(value / _SCALES[kind][scale]) for value in cells]
    return units, columns


def _scale(kind: str, figures: Mapping[str, Sequence[int]]) -> str:
    """Return the smallest unit in which all figures are read at a glance, else the largest."""
    most = max(value for cells in figures.values() for value in cells)
    scales = _SCALES[kind]
    for name, size in scales.items():
        if most < _MOST * size:
            return name
    return list(scales)[-1]


def _figure(value: float) -> str:
    """Format a figure with three digits, and no more than three behind the point."""
    digits = next((digits for digits, least in enumerate((100, 10, 1)) if value >= least), 3)
    return f"{value:.{digits}f}" if value else "0"
