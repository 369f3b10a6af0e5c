"""irsplit bench MODEL: measure what each cut costs."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from irsplit.base.atomic_files import write_file
from irsplit.base.errors import PlanError
from irsplit.commands.arguments import add_cuts, add_link, add_state
from irsplit.commands.coding import add_coding
from irsplit.commands.engine import add_engine, engine_options
from irsplit.commands.inputs import add_dims
from irsplit.commands.options import options_of
from irsplit.commands.output import shorten, size, table
from irsplit.commands.progress import progress
from irsplit.compilation.input_words import parse_inputs
from irsplit.compilation.model_file import ModelFile
from irsplit.compilation.samples import input_infos
from irsplit.measure.bench import PHASES, Bench, CutCost, Timing, load_bench, to_json
from irsplit.measure.comparison import Change, Comparison, compare
from irsplit.measure.interface import bench
from irsplit.measure.measurement import Effort
from irsplit.planner import human

EXAMPLES = """
irsplit bench examples/digits/digits.onnx --cuts 4,11 --quick --link lte --json build/bench.json
irsplit bench examples/digits/digits.onnx --cuts 4,11 --quick --link lte --baseline build/bench.json
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("model", type=Path, help="an .onnx or .tflite file")

    # What is measured, and in which conditions.
    parser.add_argument(
        "--cuts",
        default="legal",
        dest="which",
        metavar="legal|all|ID,...",
        help="the cuts to measure: all legal ones (default), or some by id; "
        "'all' also lists the rejected positions",
    )
    add_link(parser)
    parser.add_argument(
        "--slowdown",
        type=float,
        default=1.0,
        metavar="X",
        help="how many times slower than this computer the device is; default 1",
    )

    add_cuts(parser)
    add_coding(parser)
    add_state(parser)
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="a real input; without it, inputs are made up",
    )
    add_dims(parser)

    # How carefully it is measured.
    add_engine(parser)
    parser.add_argument(
        "--runs", type=int, default=30, help="how many rounds; their median counts; default 30"
    )
    parser.add_argument(
        "--warmup", type=int, default=3, help="rounds before those that count; default 3"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="measure in one process: several times faster, but without memory",
    )

    # What becomes of the result.
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="write the result as JSON; '-' prints it instead of the tables",
    )
    parser.add_argument(
        "--baseline",
        type=Path,
        metavar="OLD.json",
        help="the JSON of an earlier run: print what has changed since",
    )
    parser.add_argument(
        "--fail-above",
        type=float,
        metavar="PERCENT",
        help="with --baseline: exit with 1 when a total or a frame grew by more than this "
        "and by more than the spread",
    )


def run(arguments: Namespace) -> int:
    """Measure the cuts, print a table, and compare with the baseline.

    Returns 1 when a figure grew by more than --fail-above, else 0.
    """
    _check(arguments)
    file = ModelFile.read(arguments.model)
    engine = engine_options(arguments, file.dialect.name)
    old = load_bench(arguments.baseline) if arguments.baseline is not None else None
    infos = input_infos(file.model.entry)
    inputs = parse_inputs(arguments.input, infos)

    with progress() as show:
        result = bench(
            file,
            arguments.which,
            options_of(arguments),
            inputs=inputs,
            calibration=arguments.calibration,
            slowdown=arguments.slowdown,
            effort=Effort(engine, arguments.warmup, arguments.runs, fresh=not arguments.quick),
            progress=show,
        )

    if arguments.json == Path("-"):
        print(to_json(result), end="")
    else:
        _print(result, made_up=len(inputs) < len(infos) and not arguments.calibration)
    if arguments.json not in (None, Path("-")):
        write_file(arguments.json, lambda file: file.write(to_json(result).encode()))
    return 0 if old is None else _compare(old, result, arguments)


def _check(arguments: Namespace) -> None:
    """Raise PlanError for numbers out of range, and options that need another."""
    if min(arguments.threads, arguments.runs, arguments.warmup) < 1 or arguments.slowdown <= 0:
        raise PlanError(
            "--threads, --runs and --warmup must be at least 1, and --slowdown positive"
        )
    if arguments.fail_above is not None and arguments.baseline is None:
        raise PlanError(
            "--fail-above compares with an earlier run; give it with --baseline OLD.json"
        )


def _print(bench: Bench, *, made_up: bool) -> None:
    """Print the conditions, a table of the cuts, and the rejected positions."""
    count = bench.conditions["threads"]
    threads = f"{count} thread{'s' if count > 1 else ''}"
    print(f"{bench.machine}, {bench.cpus} CPUs; {bench.engine}, {threads}")
    memory = f", {size(bench.whole_peak_bytes)} of memory" if bench.whole_peak_bytes else ""
    print(f"{bench.model}: whole model {_time(bench.whole)}{memory}\n")

    over = f"over {bench.conditions['link']}"
    head = (
        "cut",
        *PHASES[:2],
        "frame",
        *PHASES[2:],
        "over the whole",
        "memory: device",
        "server",
        over,
        "boundary",
    )
    best = min((cut.latency_ns for cut in bench.cuts), default=0)
    rows = [_row(cut, best=cut.latency_ns == best) for cut in bench.cuts]
    for case in bench.unsplit:
        sent = size(case.sent_bytes) if case.sent_bytes else ""
        rows.append(
            ("-", "", "", sent, "", "", "", "", "", human("latency", case.latency_ns), case.name)
        )
    print(table(head, rows))

    if bench.rejected:
        print()
        reasons = [(id, shorten(reason, 100)) for id, reason in bench.rejected.items()]
        print(table(("rejected", "why"), reasons))
    if made_up:
        print(
            "note: the inputs were made up; frames of real ones may be smaller (--input)",
            file=sys.stderr,
        )


def _row(cut: CutCost, *, best: bool) -> tuple[str, ...]:
    """Return the cells of a cut; the best one is marked."""
    device, encode, decode, server = (
        human("latency", cut.times[phase].median_ns) for phase in PHASES
    )
    overhead = f"{100 * cut.overhead:+.1f} % ±{50 * cut.overhead_spread:.1f}"
    memory = (size(cut.device_peak_bytes or None), size(cut.server_peak_bytes or None))
    latency = human("latency", cut.latency_ns) + (" *" if best else "")
    name = shorten(cut.boundary, 24)
    return (
        cut.id,
        device,
        encode,
        size(cut.frame_bytes),
        decode,
        server,
        overhead,
        *memory,
        latency,
        name,
    )


def _time(timing: Timing) -> str:
    """Return the median, with half the spread in percent of it."""
    share = 50 * timing.spread_ns / max(timing.median_ns, 1)
    return f"{human('latency', timing.median_ns)} ±{share:.1f} %"


def _compare(old: Bench, new: Bench, arguments: Namespace) -> int:
    """Print what has changed since the baseline, and return the exit code."""
    comparison = compare(old, new)
    print(f"\nagainst {arguments.baseline}:")
    for text in comparison.conditions:
        print(f"  differs: {text}")
    print(_changes(comparison))
    for which, names in (("now", comparison.only_new), ("then", comparison.only_old)):
        if names:
            print(f"{len(names)} cuts were measured only {which}: {shorten(', '.join(names), 80)}")

    worse = () if arguments.fail_above is None else comparison.worse(arguments.fail_above)
    if worse:
        print(f"FAILED: {len(worse)} figures grew by more than {arguments.fail_above:g} %")
    return 1 if worse else 0


def _changes(comparison: Comparison) -> str:
    """Return a table of the changes beyond the spread, and a line on all other cuts."""
    beyond = comparison.beyond()
    cuts = {change.cut for change in comparison.changes}
    count = len(cuts) - len({change.cut for change in beyond})
    same = f"{count} of {len(cuts)} cuts changed by no more than their spread"
    if not beyond:
        return same

    rows: Sequence[tuple[str, ...]] = [_change(change) for change in beyond]
    return f"{table(('cut', 'figure', 'then', 'now', 'change', 'boundary'), rows)}\n{same}"


def _change(change: Change) -> tuple[str, ...]:
    """Return the cells of a change."""
    values = (change.old, change.new)
    if change.figure.endswith(("memory", "frame")):
        then, now = map(size, values)
    else:
        then, now = (human("latency", value) for value in values)
    return (
        change.cut,
        change.figure,
        then,
        now,
        f"{change.percent:+.1f} %",
        shorten(change.boundary, 40),
    )
