"""Arguments of the planner, which `plan` and `compile` share."""

from argparse import ArgumentParser, Namespace

from irsplit.commands.arguments import add_link, positive
from irsplit.passes.choose_cut import OBJECTIVES, PATTERNS, ChooseCut
from irsplit.passes.planning.policies import POLICIES


def add_plan_arguments(parser: ArgumentParser) -> None:
    """Everything but --max-tensors, which commands without a plan have too."""
    parser.add_argument(
        "--device",
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
        metavar="METRIC=VALUE",
        help="such as memory=64MB or energy=2J",
    )
    parser.add_argument(
        "--rule",
        choices=POLICIES,
        default="exact",
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


def chooser(arguments: Namespace, codec: str = "", bits: int = 0) -> ChooseCut:
    """The pass that these arguments mean, for a boundary in this codec, floats quantized to so many bits."""
    return ChooseCut(
        device=arguments.device,
        server=arguments.server,
        link=arguments.link,
        objective=arguments.objective,
        limit=tuple(arguments.limit),
        rule=arguments.rule,
        pattern=arguments.pattern,
        max_tensors=arguments.max_tensors,
        load=arguments.load,
        codec=codec,
        bits=bits,
    )
