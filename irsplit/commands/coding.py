"""Declare the arguments that say how a boundary is coded."""

from argparse import SUPPRESS, ArgumentParser
from pathlib import Path

from irsplit.commands.flags import OldName
from irsplit.passes.targets import TARGET_OPTIONS, TARGETS


def add_coding(parser: ArgumentParser) -> None:
    """Declare how a boundary is quantized and coded, for `compile` and `bench`."""
    _add_quantize(
        parser,
        f"how floats and quantized 8-bit integers cross: {', '.join(TARGETS)}; default lossless. "
        f"Options follow, joined by commas: {', '.join(TARGET_OPTIONS)}; METHOD is min-max, "
        "percentile, mse or entropy. Examples: int8,range=mse,per-channel; agreement=0.98,snr=20",
    )
    add_measure(parser, "agreement=SHARE reads")
    parser.add_argument(
        "--boundary-ops",
        action="store_true",
        help="let the segments quantize by operators of their own format, so that a host without "
        "irsplit's runtime exchanges int8",
    )
    _add_calibration(
        parser,
        "inputs for what learns, a quantized boundary or a codec, and for pricing cuts",
    )
    parser.add_argument(
        "--codec",
        default="zstandard",
        help="lossless codec of the boundary: raw, zstandard (default), static-rans or auto; "
        "the last two learn from --calibration",
    )


def _add_quantize(parser: ArgumentParser, text: str) -> None:
    """Declare --quantize, and --boundary as its old name."""
    parser.add_argument("--quantize", default="lossless", metavar="TARGET", help=text)
    parser.add_argument(
        "--boundary",
        action=OldName,
        renamed="--quantize",
        dest="quantize",
        default="lossless",
        help=SUPPRESS,
    )


def add_measure(parser: ArgumentParser, what: str) -> None:
    """Declare how outputs are read when two runs are compared.

    Args:
        parser: The parser of the command.
        what: The subject and the verb of the help text, such as "--min-agreement reads".
    """
    parser.add_argument(
        "--agreement-measure",
        default="",
        metavar="MEASURE",
        help=f"how {what} the outputs: top1, iou (label maps), f1 or f1@SCORE (detections), "
        "FILE.py:FUNCTION, or one of 'irsplit plugins'; default: as recognised in the model",
    )


def _add_calibration(parser: ArgumentParser, purpose: str) -> None:
    """Declare --calibration."""
    files = "files or folders of .npy, .npz, images, .wav"
    parser.add_argument(
        "--calibration",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help=f"{purpose}: {files}",
    )


def add_pricing(parser: ArgumentParser) -> None:
    """Declare how a boundary would be coded, for commands that price cuts and compile none."""
    parser.add_argument(
        "--codec",
        default="zstandard",
        help="lossless codec of the boundary, as for compile: raw, zstandard (default), "
        "static-rans or auto",
    )
    _add_quantize(
        parser, "how floats and quantized integers cross, as for compile; default lossless"
    )
    _add_calibration(
        parser, "inputs on which boundaries are measured in this codec, instead of published ratios"
    )
