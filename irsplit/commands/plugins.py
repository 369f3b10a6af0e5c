"""irsplit plugins"""

from argparse import ArgumentParser, Namespace

from irsplit.commands.output import print_json, shorten, table
from irsplit.plugins import plugins

EXAMPLES = """
irsplit plugins
irsplit plugins --json
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: Namespace) -> int:
    """1 when one of them cannot be used."""
    found = plugins()
    if arguments.json:
        print_json([plugin.to_json() for plugin in found])
    else:
        rows = [
            (p.kind, p.name, p.origin, p.value, shorten(p.problem or p.summary, 100)) for p in found
        ]
        print(table(("kind", "name", "from", "object", "what it is"), rows))
    return 1 if any(plugin.problem for plugin in found) else 0
