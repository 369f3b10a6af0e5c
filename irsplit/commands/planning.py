"""Declare the arguments of the planner, which `plan`, `compile` and `report` share."""

from argparse import ArgumentParser

from irsplit.commands.arguments import add_link, positive
from irsplit.passes.choose_cut import OBJECTIVES, PATTERNS
from irsplit.passes.planning.policies import PolicyNames


def add_plan_arguments(parser: ArgumentParser) -> None:
    """Declare all but --max-tensors, which commands without a plan have too."""
    parser.add_argument(
        "--device",
        default="",
        metavar="PROFILE",
        help="the device: a name, a .toml file, or what 'irsplit profile' measured, as in "
        "profile.json[,slowdown=4]",
    )
    parser.add_argument(
        "--server",
        default="",
        metavar="PROFILE",
        help="the server, given as the device is; default: a measured profile of the whole model "
        "given as --device, without its slowdown, else tesla-k40",
    )
    add_link(parser)

    # What the planner minimises, and how it chooses.
    parser.add_argument(
        "--objective",
        default="latency",
        help=f"what to minimise: {', '.join(OBJECTIVES)}; default latency",
    )
    parser.add_argument(
        "--limit",
        action="append",
        default=[],
        dest="limits",
        metavar="METRIC=VALUE",
        help="what a cut may cost at most, such as memory=64MB or energy=2J; repeat it for several",
    )
    parser.add_argument(
        "--rule",
        choices=PolicyNames(),
        default="exact",
        dest="policy",
        help="how the cut is chosen: exact (default), or by the policy of a paper or of a package "
        "('irsplit plugins' lists them)",
    )
    parser.add_argument(
        "--pattern",
        choices=PATTERNS,
        default="single",
        help="one cut (default), several for the client to choose from at run time, or any number "
        "back and forth",
    )

    parser.add_argument(
        "--load",
        type=positive,
        default=100,
        metavar="PERCENT",
        help="server load; 100 (default) is idle",
    )
