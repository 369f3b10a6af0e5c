"""Arguments that several commands share."""

from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from irsplit.compiler import TARGET_OPTIONS, TARGETS
from irsplit.engines.inputs import load_input
from irsplit.errors import EngineError
from irsplit.runtime.manifest import TensorInfo


def positive(text: str) -> int:
    """A type of arguments: counts, sizes."""
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def add_max_tensors(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--max-tensors", type=positive, default=1, metavar="K", help="allow frontiers of up to K tensors"
    )


def add_dims(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--dim",
        action="append",
        default=[],
        metavar="INPUT[.AXIS]=N",
        help="size of a dimension that may vary, for inputs that are made up; default 1",
    )


def add_coding(parser: ArgumentParser) -> None:
    """How a boundary is made ready and coded: the options that `compile` and `bench` share."""
    parser.add_argument(
        "--boundary",
        default="lossless",
        metavar="TARGET",
        help=f"how float tensors cross: {', '.join(TARGETS)}; default lossless. Options follow with commas: "
        f"{', '.join(TARGET_OPTIONS)} (min-max, percentile, mse or entropy), as in int8,range=mse,per-channel",
    )
    parser.add_argument(
        "--boundary-ops",
        action="store_true",
        help="the segments quantize by operators of their own format: a host without irsplit's runtime exchanges int8",
    )
    parser.add_argument(
        "--calibration",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="inputs to calibrate a quantized boundary: .npy, .npz, images, .wav, or folders of them",
    )
    parser.add_argument(
        "--codec",
        default="zstandard",
        help="lossless codec of the boundary: raw, zstandard (default), static-rans or auto; "
        "the last two learn from the calibration data",
    )
    parser.add_argument(
        "--no-rematerialise",
        action="store_false",
        dest="rematerialise",
        help="send shapes, masks and the like instead of computing them on both sides",
    )


def add_state(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--state",
        action="append",
        default=[],
        metavar="IN=OUT",
        help="an input and the output that is fed back to it: state that stays with the segment that owns its layer; "
        "'auto' finds pairs by their names",
    )


def parse_dims(words: Sequence[str], infos: Sequence[TensorInfo]) -> dict[str, int]:
    """Raises EngineError for a word that is not NAME=NUMBER, with a name that no dimension of the inputs has."""
    free = {(info.name, axis) for info in infos for axis, dim in enumerate(info.shape or ()) if dim is None}
    known = [*dict.fromkeys(name for name, _ in sorted(free)), *(f"{name}.{axis}" for name, axis in sorted(free))]
    dims: dict[str, int] = {}
    for word in words:
        name, _, number = word.rpartition("=")
        if not name or not number.isdecimal():
            raise EngineError(f"--dim {word}: give INPUT=N or INPUT.AXIS=N with a number N")
        if name not in known:
            raise EngineError(f"--dim {word}: no input has that dimension; those that may vary: {', '.join(known)}")
        dims[name] = int(number)
    return dims


def parse_inputs(words: Sequence[str], infos: Sequence[TensorInfo]) -> dict[str, NDArray[Any]]:
    """The arrays of one call from NAME=FILE or NAME=NUMBER words. Raises EngineError for what is unknown or unfit."""
    known = {info.name: info for info in infos}
    inputs: dict[str, NDArray[Any]] = {}
    for word in words:
        # Tensor names may hold '=': the longest known name that fits wins.
        name = max((name for name in known if word.startswith(f"{name}=")), key=len, default=None)
        if name is None:
            raise EngineError(f"--input {word}: give NAME=FILE with one of the inputs {', '.join(known)}")
        inputs[name] = load_input(word[len(name) + 1 :], known[name])
    return inputs
