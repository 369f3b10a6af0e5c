"""irsplit opt MODEL --pipeline TEXT"""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from irsplit.base.atomic_files import write_file
from irsplit.base.errors import ModelError, ParseError, VerifyError
from irsplit.base.reading import read_text, reading
from irsplit.compilation.calibration_samples import CalibrationSamples, recorded_samples
from irsplit.compilation.compiler import whole_model
from irsplit.dialects.registry import dialect_of
from irsplit.dialects.testing import TEST
from irsplit.engines.inputs import load_calls
from irsplit.ir import Model, parse_model, print_model, verify
from irsplit.passes import Context, Pipeline

IR_TEXT = ".irs"
END_OF_INPUT = "// ----"
"""A line that ends IR text: a test case has below it what it expects."""

EXAMPLES = """
irsplit opt examples/digits/digits.onnx -o build/digits.irs
irsplit opt build/digits.irs --pipeline 'partition{cut=bottleneck/relu},remove-unused'
irsplit opt build/digits.irs --pipeline print-cuts
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument(
        "model",
        type=Path,
        help=f"a model file, or IR text in a {IR_TEXT} file, which ends at a line {END_OF_INPUT}",
    )
    parser.add_argument(
        "--pipeline",
        default="",
        metavar="TEXT",
        help="passes with their options, such as 'partition{cut=12},remove-unused'; see "
        "'irsplit plugins'",
    )
    parser.add_argument(
        "--calibration",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="samples for passes that learn or measure: files or folders of .npy, .npz, images, "
        ".wav with inputs of the model; for IR text .npz files with the values themselves, one "
        "file a sample",
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar=f"OUT{IR_TEXT}", help="write the text there"
    )


def run(arguments: Namespace) -> int:
    """Run the passes, print their remarks to standard error and the model to standard output."""
    model, context = _read(arguments.model, arguments.calibration)
    Pipeline.parse(arguments.pipeline).run(model, context)

    for remark in context.remarks:
        kind = "warning" if remark.warning else "note"
        print(f"{kind}: {remark.pass_name}: {remark.text}", file=sys.stderr)

    text = print_model(model)
    if arguments.output is None:
        print(text, end="")
    else:
        write_file(arguments.output, lambda file: file.write(text.encode()))
    return 0


def _read(path: Path, calibration: list[Path]) -> tuple[Model, Context]:
    """Read the model, and make the context with its dialect and its samples."""
    if path.suffix == IR_TEXT:
        model = _read_text(path)
        samples = recorded_samples(calibration) if calibration else None
        # Text of another dialect lacks the native attributes that its operators are judged by.
        return model, Context(TEST if model.dialect == TEST.name else None, samples)

    dialect = dialect_of(path)
    model = dialect.read(path)
    if not calibration:
        return model, Context(dialect)

    inputs = load_calls(calibration, whole_model(path)[1])
    return model, Context(dialect, CalibrationSamples(dialect, model.entry, inputs))


def _read_text(path: Path) -> Model:
    """Read IR text. Raises ParseError or VerifyError, naming the file, for one that is damaged."""
    try:
        with reading(
            path, "cannot be read as text", "give IR text as 'irsplit opt' prints it", ModelError
        ):
            text, _, _ = read_text(path).partition(f"\n{END_OF_INPUT}\n")
            model = parse_model(text)
            verify(model)
    except (ParseError, VerifyError) as error:
        raise type(error)(f"{path}: {error}") from error
    return model
