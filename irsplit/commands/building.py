"""irsplit compile FILE.toml: the targets of a build file."""

import os
from argparse import ArgumentError, ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from irsplit.base.errors import ParseError
from irsplit.commands import verify
from irsplit.commands.log import Log, say
from irsplit.commands.output import print_json
from irsplit.commands.progress import progress
from irsplit.compilation.build import Target, read_targets
from irsplit.compilation.depfile import write_depfile
from irsplit.runtime.bundle.manifest import MANIFEST

_SAID = {
    "fresh": "unchanged",
    "verified": "verified on {calls} calls",
    "start": "compiling {model}",
    "done": "{bundle} ({seconds} s)",
    "error": "{text}",
}
"""What people read of an event; other events, such as remarks, have a text of their own."""
_LAST = ("fresh", "done", "error")
"""Events after which a target is finished."""


def run_build_file(arguments: Namespace, options: ArgumentParser) -> int:
    """Make the targets of a build file, whose keys are the `options` of one compilation.

    0 when every target is made or fresh, 1 when a bundle did not hold (`verify`), 2 when one could not be made; the
    others are made all the same."""
    build, targets = read_targets(arguments.model, arguments.target)
    for target in targets:
        _check(arguments.model, target, options)
    log = Log(structured=arguments.log_json)

    ended: set[str] = set()
    with progress(shown=not log.structured) as told:

        def report(target: str, event: dict[str, Any]) -> None:
            name = event.pop("event")
            ended.update({target} if name in _LAST else ())
            told(len(ended), len(targets), target)
            if log.structured:
                log.event(name, target=target, **event)
                return
            kind = {
                "error": "error: ",
                "remark": "warning: " if event.get("warning") else "note: ",
            }.get(name, "")
            say(f"{target}: {kind}{_SAID.get(name, '{text}').format(**event)}")

        flags = ["--werror"] if arguments.werror else []
        failed = build.build(targets, arguments.jobs or os.cpu_count() or 1, report, flags)
    if failed:
        log.event("failed", targets=list(failed))
        return max(failed.values())
    if arguments.depfile is not None:
        files = dict.fromkeys(file for target in targets for file in build.inputs(target))
        write_depfile(
            arguments.depfile, build.bundle(targets[0]) / MANIFEST, [arguments.model, *files]
        )
    if arguments.json:
        print_json({target.name: str(build.bundle(target)) for target in targets})
    return 0


def _check(path: Path, target: Target, options: ArgumentParser) -> None:
    """Raises ParseError for an option that a compilation does not have, or a value that it does not take."""
    where = f"{path}: target '{target.name}'"
    unknown_to_verify: list[str] = []
    try:
        unknown = options.parse_known_args([target.model, *target.words])[1]
        if target.verify is not None:
            of_verify = ArgumentParser(exit_on_error=False)
            verify.add_arguments(of_verify)
            unknown_to_verify = of_verify.parse_known_args(["bundle", *target.verify])[1]
    except ArgumentError as error:
        raise ParseError(f"{where}: {error}") from error
    if unknown:
        name = unknown[0].partition("=")[0].removeprefix("--")
        raise ParseError(f"{where}: no option '{name}'; 'irsplit compile --help' lists them")
    if unknown_to_verify:
        name = unknown_to_verify[0].partition("=")[0].removeprefix("--")
        raise ParseError(
            f"{where}: no option '{name}' of verify; 'irsplit verify --help' lists them"
        )
