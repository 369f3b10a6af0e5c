"""Arguments that say how a boundary is coded."""

from argparse import ArgumentParser
from pathlib import Path

from irsplit.compiler import TARGET_OPTIONS, TARGETS


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


def add_pricing(parser: ArgumentParser) -> None:
    """How a boundary would be coded: for commands that price cuts and compile none."""
    parser.add_argument(
        "--codec",
        default="zstandard",
        help="of the boundary, as for compile: raw, zstandard (default), static-rans, auto",
    )
    parser.add_argument(
        "--boundary",
        default="lossless",
        metavar="TARGET",
        help="how float tensors cross, as for compile; default lossless",
    )
