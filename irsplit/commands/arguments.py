"""Declare arguments that several commands share."""

from argparse import ArgumentParser, ArgumentTypeError, BooleanOptionalAction


def positive(text: str) -> int:
    """Parse a whole number above 0, as argparse's `type` of counts and sizes.

    Raises:
        ArgumentTypeError: The text is none.
    """
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def add_link(parser: ArgumentParser) -> None:
    """Declare --link."""
    parser.add_argument(
        "--link",
        default="wifi",
        help="the link: a name or a .toml file, with changes as in lte,rtt=70ms,up=2Mbit/s; "
        "default wifi",
    )


def add_max_tensors(parser: ArgumentParser) -> None:
    """Declare --max-tensors."""
    parser.add_argument(
        "--max-tensors",
        type=positive,
        default=1,
        metavar="K",
        help="allow frontiers of up to K tensors; default 1",
    )


def add_state(parser: ArgumentParser) -> None:
    """Declare --state."""
    parser.add_argument(
        "--state",
        action="append",
        default=[],
        metavar="IN=OUT",
        help="an input and the output whose value it gets in the next call: state, which stays "
        "with the segment that has its layer; 'auto' finds pairs by their names",
    )


DIM = "NAME=N"
"""How commands spell the size of an open dimension."""

DIM_NAMES = "NAME is its symbol, its tensor, or TENSOR.AXIS"
"""What NAME may be, for help texts."""


def add_dims(parser: ArgumentParser, use: str = "") -> None:
    """Declare --dim for commands that price cuts.

    Args:
        parser: The parser of the command.
        use: Text on what else the sizes are used for, appended to the help.
    """
    parser.add_argument(
        "--dim",
        action="append",
        default=[],
        dest="dims",
        metavar=DIM,
        help=f"size of an open dimension of an input, for estimates; {DIM_NAMES}; the model runs "
        f"once to find the sizes inside; default: those of --calibration, else 1{use}",
    )


def add_cuts(parser: ArgumentParser) -> None:
    """Declare what counts as a cut, for commands that list, price or make cuts."""
    add_max_tensors(parser)
    parser.add_argument(
        "--rematerialise",
        action=BooleanOptionalAction,
        default=True,
        help="compute shapes, masks and the like on both sides instead of sending them (default)",
    )
