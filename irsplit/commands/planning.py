"""Arguments of the planner, which `plan` and `compile` share."""

from argparse import ArgumentParser

from irsplit.commands.arguments import add_link, positive
from irsplit.passes.choose_cut import OBJECTIVES, PATTERNS
from irsplit.passes.planning.policies import PolicyNames


def add_plan_arguments(parser: ArgumentParser) -> None:
    """Everything but --max-tensors, which commands without a plan have too."""
    parser.add_argument(
        "--device",
        default="",
        metavar="PROFILE",
        help="device by name or .toml, or measured, of the model or a bundle of it: profile.json[,slowdown=4]",
    )
    parser.add_argument(
        "--server",
        default="",
        metavar="PROFILE",
        help="the same for the server; default: the device's profile without its slowdown, when it is measured of the "
        "whole model, else tesla-k40",
    )
    add_link(parser)
    parser.add_argument(
        "--objective", default="latency", help=f"one of {', '.join(OBJECTIVES)}; default latency"
    )
    parser.add_argument(
        "--limit",
        action="append",
        default=[],
        dest="limits",
        metavar="METRIC=VALUE",
        help="such as memory=64MB or energy=2J",
    )
    parser.add_argument(
        "--rule",
        choices=PolicyNames(),
        default="exact",
        dest="policy",
        help="exact (default), or the policy of a paper",
    )
    parser.add_argument(
        "--pattern",
        choices=PATTERNS,
        default="single",
        help="one cut (default), several for the client to choose from at run time, or any number to and fro",
    )
    parser.add_argument(
        "--load",
        type=positive,
        default=100,
        metavar="PERCENT",
        help="server load; 100 (default) is idle",
    )
