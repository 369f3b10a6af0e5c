"""irsplit plan MODEL"""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
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
from irsplit.passes.planning.choice import CutChoice
from irsplit.planner import Costs
from irsplit.planner.cost import Placement
from irsplit.planner.terms import unit

EXAMPLES = """
irsplit plan examples/digits/digits.onnx --device pixel-2 --link lte
irsplit plan examples/digits/digits.onnx --device pixel-2 --link wifi,rtt=5ms --limit memory=100kB --json
irsplit plan examples/digits/digits.onnx --device jetson-tk1-cpu --objective energy
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("model", type=Path, help="an .onnx or .tflite file")
    add_plan_arguments(parser)
    parser.set_defaults(device="pixel-2")
    add_cuts(parser)
    add_state(parser)
    add_dims(parser)
    add_pricing(parser)
    parser.add_argument("--all", action="store_true", help="show every cut, not the ten best")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: Namespace) -> int:
    with working("pricing cuts"):
        found = plan(arguments.model, options_of(arguments), calibration=arguments.calibration)
    choice = found.choice
    say_remarks(found.remarks)
    if arguments.json:
        print_json(choice.to_json())
    else:
        print(_ranking(choice, len(choice.ranked) if arguments.all else 10))
        for note in choice.notes:
            print(note)
    choice.check_split()  # as compile does: a build that goes by the plan stops here
    return 0


@dataclass(frozen=True, slots=True)
class _Row:
    """One way to place the model: what it costs, its cut, and the node before the cut."""

    value: int
    costs: Costs
    allowed: bool
    cut: str
    after: str


def _ranking(choice: CutChoice, count: int) -> str:
    """The best cuts and the baselines with their costs; a column has one unit."""
    cuts = [
        _Row(
            option.row.value,
            option.row.costs,
            option.row.allowed,
            "-" if option.cut is None else option.cut.id,
            option.label if option.cut is None else option.cut.after_name,
        )
        for option in choice.ranked[:count]
    ]
    rows = [
        *cuts,
        *(
            _Row(b.value, b.costs, b.allowed, "-", _SHORT.get(b.name, b.name))
            for b in choice.baselines
        ),
    ]
    units, columns = _columns(choice, rows)
    codecs = [
        ", ".join(dict.fromkeys(s.codec for s in row.costs.switches if s.to is Placement.SERVER))
        for row in rows
    ]
    if len({codec for row, codec in zip(cuts, codecs, strict=False) if row.cut != "-"}) > 1:
        columns["codec"] = [codec or "-" for codec in codecs]
    marks = [row.cut if row.allowed else f"{row.cut} !" for row in rows]
    columns = {"cut": marks, **columns}
    # Last names are as long as a line has room for, which those of the baselines always need.
    left = sum(2 + max(map(len, (head, *cells))) for head, cells in columns.items())
    columns["after"] = [shorten(row.after, max(_LEAST_ROOM, _LINE - left)) for row in rows]
    told = [
        f"{', '.join(units)}{'; ! over a limit' if not all(row.allowed for row in rows) else ''}"
    ]
    return "\n".join([*told, table(tuple(columns), list(zip(*columns.values(), strict=True)))])


_LINE, _LEAST_ROOM = 80, 13
_SHORT = {"server only, raw input": "server, raw", "server only, compressed input": "server, coded"}
_TIMES = {
    "device": ("device_ns",),
    "code": ("device_codec_ns", "server_codec_ns"),
    "up": ("uplink_ns",),
    "server": ("server_ns",),
    "down": ("downlink_ns",),
    "message": ("message_ns",),
}
"""The columns of times: what a latency is the sum of."""
_METRICS = {"sent": "bytes", "memory": "memory", "energy": "energy"}
_SCALES = {
    "ns": {"us": 10**3, "ms": 10**6, "s": 10**9},
    "bytes": {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9},
    "nJ": {"uJ": 10**3, "mJ": 10**6, "J": 10**9},
}
_MOST = 10_000
"""Figures below this are read at a glance; larger ones get a larger unit."""


def _columns(choice: CutChoice, rows: Sequence[_Row]) -> tuple[list[str], dict[str, list[str]]]:
    """The units of the figures, and the columns by head; those with nothing but zeros are left out."""
    objective = choice.goal.objective
    times = {
        head: [sum(row.costs.terms[t] for t in terms) for row in rows]
        for head, terms in _TIMES.items()
    }
    metrics = {head: [row.costs.metrics[name] for row in rows] for head, name in _METRICS.items()}
    if not choice.chain.table.knows_energy:
        del metrics["energy"]
    values = [row.value for row in rows]
    groups = [
        ("times", "ns", times),
        *((head, unit(_METRICS[head]), {head: cells}) for head, cells in metrics.items()),
    ]
    if choice.goal.unit == "ns":
        times = {objective: values, **times}
        groups[0] = ("times", "ns", times)
    else:
        groups.insert(0, (objective, choice.goal.unit, {objective: values}))
    units: dict[str, str] = {}
    columns: dict[str, list[str]] = {}
    for name, kind, found in groups:
        most = max(value for cells in found.values() for value in cells)
        scales = _SCALES[kind]
        scale = next(
            (scale for scale, size in scales.items() if most < _MOST * size), [*scales][-1]
        )
        units[name] = scale
        columns |= {
            head: [_figure(value / scales[scale]) for value in cells]
            for head, cells in found.items()
            if any(cells)
        }
    return [f"{name} in {scale}" for name, scale in units.items()], columns


def _figure(value: float) -> str:
    """Three digits, and no more than three behind the point."""
    digits = next((digits for digits, least in enumerate((100, 10, 1)) if value >= least), 3)
    return f"{value:.{digits}f}" if value else "0"
