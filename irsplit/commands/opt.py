"""irsplit opt MODEL --pipeline TEXT"""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from irsplit.base.atomic_files import write_file
from irsplit.base.errors import ModelError, ParseError, VerifyError
from irsplit.base.reading import read_text, reading
from irsplit.dialects.registry import dialect_of
from irsplit.ir import Model, parse_model, print_model, verify
from irsplit.passes import Context, Pipeline
from irsplit.passes.preparation import context_of

IR_TEXT = ".irs"

EXAMPLES = """
irsplit opt examples/digits/digits.onnx -o build/digits.irs
irsplit opt build/digits.irs --pipeline 'partition{cut=bottleneck/relu},remove-unused'
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("model", type=Path, help=f"a model file, or IR text in a {IR_TEXT} file")
    parser.add_argument(
        "--pipeline",
        default="",
        metavar="TEXT",
        help="passes with their options, such as 'partition{cut=12},remove-unused'; see 'irsplit plugins'",
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar=f"OUT{IR_TEXT}", help="write the text there"
    )


def run(arguments: Namespace) -> int:
    model, context = _read(arguments.model)
    Pipeline.parse(arguments.pipeline).run(model, context)
    for remark in context.remarks:
        print(
            f"{'warning' if remark.warning else 'note'}: {remark.pass_name}: {remark.text}",
            file=sys.stderr,
        )
    text = print_model(model)
    if arguments.output is None:
        print(text, end="")
    else:
        write_file(arguments.output, lambda file: file.write(text.encode()))
    return 0


def _read(path: Path) -> tuple[Model, Context]:
    """The model, and what its dialect knows of its operators; text has none."""
    if path.suffix != IR_TEXT:
        dialect = dialect_of(path)
        return dialect.read(path), context_of(dialect)
    try:
        with reading(
            path, "cannot be read as text", "give IR text as 'irsplit opt' prints it", ModelError
        ):
            model = parse_model(read_text(path))
            verify(model)
    except (ParseError, VerifyError) as error:
        raise type(error)(f"{path}: {error}") from error
    return model, Context()
