"""Arguments that several commands share."""

from argparse import ArgumentParser, ArgumentTypeError, BooleanOptionalAction


def positive(text: str) -> int:
    """A type of arguments: counts, sizes."""
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def add_link(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--link",
        default="wifi",
        help="by name or .toml, with changes: lte,rtt=70ms,up=2Mbit/s; default wifi",
    )


def add_max_tensors(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--max-tensors",
        type=positive,
        default=1,
        metavar="K",
        help="allow frontiers of up to K tensors",
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


DIM = "NAME=N"
"""How every command spells the size of an open dimension."""
DIM_NAMES = "NAME is its symbol, its tensor, or TENSOR.AXIS"


def add_dims(parser: ArgumentParser, use: str = "") -> None:
    """Sizes of open dimensions, for commands that price cuts; `use` is what else comes of them."""
    parser.add_argument(
        "--dim",
        action="append",
        default=[],
        dest="dims",
        metavar=DIM,
        help=f"size of an open dimension of an input, {DIM_NAMES}: estimates count with the sizes that the model then "
        f"has everywhere, found by running it once; default: those of --calibration, else 1{use}",
    )


def add_cuts(parser: ArgumentParser) -> None:
    """What counts as a cut: the same for every command that lists, prices or makes them."""
    add_max_tensors(parser)
    parser.add_argument(
        "--rematerialise",
        action=BooleanOptionalAction,
        default=True,
        help="compute shapes, masks and the like on both sides instead of sending them (default)",
    )
