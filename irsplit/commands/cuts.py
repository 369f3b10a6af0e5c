"""irsplit cuts MODEL: list the positions at which a model can be cut."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from irsplit.base.errors import short
from irsplit.commands.arguments import add_cuts, add_dims, add_state
from irsplit.commands.log import say_remarks
from irsplit.commands.output import print_json, shorten, size, table
from irsplit.commands.progress import working
from irsplit.compilation.cut_list import find_cuts
from irsplit.ir import TensorType
from irsplit.passes import Cut

EXAMPLES = """
irsplit cuts examples/digits/digits.onnx
irsplit cuts examples/digits/digits.onnx --legal --json
irsplit cuts examples/digits/digits.onnx --max-tensors 2
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("model", type=Path, help="an .onnx or .tflite file")
    add_cuts(parser)
    add_state(parser)
    add_dims(parser)
    parser.add_argument("--legal", action="store_true", help="leave the rejected positions out")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: Namespace) -> int:
    """Print the positions as a table or JSON."""
    with working("looking at every position"):
        cuts = find_cuts(
            arguments.model,
            max_tensors=arguments.max_tensors,
            rematerialise=arguments.rematerialise,
            state=arguments.state,
            dims=arguments.dims,
        )

    shown = cuts.legal if arguments.legal else cuts
    say_remarks(cuts.remarks)
    if arguments.json:
        print_json(shown.to_json())
        return 0

    if shown:
        header = ("id", "kind", "bytes", "weights", "MACs", "after", "boundary or reason")
        print(table(header, [*map(_row, shown)]))
    legal = sum(cut.legal for cut in cuts)
    print(f"{legal} legal of {len(cuts)} positions")
    return 0


def _bytes(cut: Cut) -> str:
    """Return the bytes that cross: exact, "~" for assumed sizes, or "x ?" with open dimensions."""
    if cut.size_bytes() is not None:
        return size(cut.size_bytes())
    types = [value.type for value in cut.boundary if isinstance(value.type, TensorType)]
    if all(type.is_static or type.assumed is not None for type in types):
        return f"~{size(cut.estimated_bytes)}"
    return f"{size(cut.estimated_bytes)} x ?" if cut.estimated_bytes else size(None)


def _extras(cut: Cut) -> str:
    """Name the values that a cut treats apart from those that cross."""
    groups = {
        "shapes": cut.shapes,
        "recomputes": cut.rematerialised,
        "forwards": cut.forwards,
        "early outputs": cut.early_outputs,
    }
    extras = ""
    for word, values in groups.items():
        if values:
            names = ", ".join(short(value.name) for value in values)
            extras += f"; {word} {names}"
    return extras


def _row(cut: Cut) -> tuple[str, ...]:
    """Return the cells of a position."""
    share = "" if cut.macs_share is None else f"{100 * cut.macs_share:.1f} %"
    crossing = "+".join(value.name for value in cut.tensors)
    text = shorten(crossing, 80) + _extras(cut) if cut.legal else str(cut.reason)
    return (
        cut.id,
        cut.kind or "-",
        _bytes(cut),
        size(cut.weight_bytes),
        share,
        shorten(cut.after_name, 40),
        text,
    )
