"""irsplit cuts MODEL"""

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
    parser.add_argument("model", type=Path, help="an .onnx or .tflite file")
    add_cuts(parser)
    add_state(parser)
    add_dims(parser)
    parser.add_argument("--legal", action="store_true", help="leave the rejected positions out")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: Namespace) -> int:
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
    legal = sum(cut.legal for cut in cuts)
    if shown:
        print(
            table(
                ("id", "kind", "bytes", "weights", "MACs", "after", "boundary or reason"),
                [*map(_row, shown)],
            )
        )
    print(f"{legal} legal of {len(cuts)} positions")
    return 0


def _bytes(cut: Cut) -> str:
    """Bytes that cross: exact, "~" in assumed sizes, or "x ?" for open dimensions of size 1."""
    if cut.size_bytes() is not None:
        return size(cut.size_bytes())
    types = [value.type for value in cut.boundary if isinstance(value.type, TensorType)]
    if all(type.is_static or type.assumed is not None for type in types):
        return f"~{size(cut.estimated_bytes)}"
    return f"{size(cut.estimated_bytes)} x ?" if cut.estimated_bytes else size(None)


def _row(cut: Cut) -> tuple[str, ...]:
    share = "" if cut.macs_share is None else f"{100 * cut.macs_share:.1f} %"
    crossing = "+".join(value.name for value in cut.tensors)
    extras = "".join(
        f"; {word} {', '.join(short(value.name) for value in values)}"
        for word, values in (
            ("shapes", cut.shapes),
            ("recomputes", cut.rematerialised),
            ("forwards", cut.forwards),
            ("early outputs", cut.early_outputs),
        )
        if values
    )
    text = shorten(crossing, 80) + extras if cut.legal else str(cut.reason)
    return (
        cut.id,
        cut.kind or "-",
        _bytes(cut),
        size(cut.weight_bytes),
        share,
        shorten(cut.after_name, 40),
        text,
    )
