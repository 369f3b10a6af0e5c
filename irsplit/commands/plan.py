"""irsplit plan MODEL"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from irsplit.commands.arguments import add_cuts, add_dims, add_state
from irsplit.commands.coding import add_pricing
from irsplit.commands.log import say_remarks
from irsplit.commands.output import print_json, shorten, size, table
from irsplit.commands.planning import add_plan_arguments, chooser
from irsplit.commands.progress import working
from irsplit.compiler import boundary_bits, observer, whole_model
from irsplit.cost import Place
from irsplit.dialects.registry import dialect_of
from irsplit.engines.inputs import load_calls
from irsplit.passes.choose_cut import Choice
from irsplit.passes.preparation import prepared
from irsplit.planner import Costs, human

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
    dialect = dialect_of(arguments.model)
    choose = chooser(arguments, arguments.codec, boundary_bits(arguments.boundary))
    calls = load_calls(arguments.calibration, whole_model(arguments.model)[1]) if arguments.calibration else []
    with working("pricing cuts"):
        model = dialect.read(arguments.model)
        context = prepared(
            model, dialect, arguments.state, arguments.dim, calls=calls, rematerialise=arguments.rematerialise
        )
        context.observe = observer(dialect, calls) if calls else None
        choice = choose.choose(model, context)
    say_remarks(context.remarks)
    if arguments.json:
        print_json(choice.to_json())
    else:
        print(_ranking(choice, len(choice.ranked) if arguments.all else 10))
        for note in choice.notes:
            print(note)
    choice.check_split()  # as compile does: a build that goes by the plan stops here
    return 0


def _ranking(choice: Choice, count: int) -> str:
    """The best cuts with their cost terms, and the three baselines."""
    objective = choice.goal.objective
    head = (
        objective,
        "cut",
        "device",
        "code",
        "uplink",
        "server",
        "downlink",
        "message",
        "sent",
        "codec",
        "memory",
        "energy",
        "after",
    )
    rows = [
        (
            human(objective, option.row.value) + ("" if option.row.allowed else " over a limit"),
            option.label,
            *_terms(choice, option.row.costs),
            shorten("" if option.cut is None else option.cut.after_name, 40),
        )
        for option in choice.ranked[:count]
    ]
    rows += [
        (human(objective, b.value), "-", *_terms(choice, b.costs), b.name + ("" if b.allowed else " (over a limit)"))
        for b in choice.baselines
    ]
    return table(head, rows)


def _terms(choice: Choice, costs: Costs) -> tuple[str, ...]:
    terms, metrics = costs.terms, costs.metrics
    code = terms["device_codec_ns"] + terms["server_codec_ns"]
    times = (
        terms["device_ns"],
        code,
        terms["uplink_ns"],
        terms["server_ns"],
        terms["downlink_ns"],
        terms["message_ns"],
    )
    spent = human("energy", metrics["energy"]) if choice.chain.table.knows_energy else "?"
    codecs = ", ".join(dict.fromkeys(switch.codec for switch in costs.switches if switch.to is Place.SERVER))
    sizes = (size(metrics["bytes"]), codecs or "-", size(metrics["memory"]))
    return (*(human("latency", t) for t in times), *sizes, spent)
