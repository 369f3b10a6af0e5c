"""irsplit plugins: list the installed passes, dialects and codecs."""

from argparse import ArgumentParser, Namespace

from irsplit.commands.output import print_json, shorten, table
from irsplit.plugins import plugins

EXAMPLES = """
irsplit plugins
irsplit plugins --json
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: Namespace) -> int:
    """Print the plugins. Returns 1 when one of them cannot be used, else 0."""
    installed = plugins()
    if arguments.json:
        print_json([plugin.to_json() for plugin in installed])
    else:
        rows = [
            (p.kind, p.name, p.origin, p.value, shorten(p.problem or p.summary, 100))
            for p in installed
        ]
        print(table(("kind", "name", "from", "object", "what it is"), rows))
    return 1 if any(plugin.problem for plugin in installed) else 0
