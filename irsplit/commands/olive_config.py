"""irsplit olive-config: write the package config with which Olive finds our passes."""

import importlib.util
import json
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from irsplit.base.atomic_files import write_file
from irsplit.base.errors import EngineError

_MODULE = "irsplit.adapters.olive"
_PASSES = ("IrsplitSplit", "IrsplitCheck")
_ANYWHERE = {
    "supported_providers": ["*"],
    "supported_accelerators": ["*"],
    "supported_precisions": ["*"],
    "supported_algorithms": [],
    "supported_quantization_encodings": [],
}

EXAMPLES = """
irsplit olive-config -o olive-irsplit.json
olive run --config workflow.json --package-config olive-irsplit.json
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE.json", help="file to write"
    )


def run(arguments: Namespace) -> int:
    """Write Olive's own package config with our passes added, since ours replaces it."""
    spec = importlib.util.find_spec("olive")
    if spec is None or not spec.submodule_search_locations:
        raise EngineError("Olive is not installed; install it with: pip install olive-ai")

    own = Path(spec.submodule_search_locations[0]) / "olive_config.json"
    config: dict[str, Any] = json.loads(own.read_text(encoding="utf-8"))
    config["passes"] |= {
        name: {"module_path": f"{_MODULE}.{name}", **_ANYWHERE} for name in _PASSES
    }

    text = json.dumps(config, indent=1) + "\n"
    write_file(arguments.output, lambda file: file.write(text.encode()))
    return 0
