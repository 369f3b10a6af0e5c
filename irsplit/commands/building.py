"""irsplit compile FILE.toml: the targets of a build file."""

import os
from argparse import ArgumentError, ArgumentParser, Namespace
from pathlib import Path
from typing import Any, NoReturn

from irsplit.base.errors import IrsplitError, ParseError
from irsplit.commands import verify
from irsplit.commands.flags import in_flags, old_names, text_of
from irsplit.commands.log import Log, say
from irsplit.commands.options import options_of
from irsplit.commands.output import print_json
from irsplit.commands.progress import progress
from irsplit.compilation.build import OptionTable, Target, read_targets
from irsplit.compilation.build_worker import Event, Job
from irsplit.compilation.depfile import write_depfile
from irsplit.runtime.bundle.manifest import MANIFEST

_TEXTS = {
    "fresh": "unchanged",
    "verified": "verified on {calls} calls",
    "start": "compiling {model}",
    "done": "{bundle} ({seconds} s)",
    "error": "error: {text}",
}
"""How events are told to people; the others have a text of their own."""

_LAST = ("fresh", "done", "error")
"""Events after which a target is finished."""


class TargetParser(ArgumentParser):
    """Reads the options of a target: a mistake is the build file's, not the command line's."""

    def __init__(self) -> None:
        super().__init__(exit_on_error=False, add_help=False)

    def error(self, message: str) -> NoReturn:
        raise ArgumentError(None, message)


def run_build_file(arguments: Namespace, options: ArgumentParser) -> int:
    """Make the targets of a build file.

    Args:
        arguments: Those of `irsplit compile`.
        options: What a target may say: the arguments of one compilation.

    Returns:
        0 when every target is made or fresh, 1 when a bundle did not hold, 2 when one could not
        be made. The others are made all the same.
    """
    log = Log(structured=arguments.log_json)
    build, targets = read_targets(arguments.model, arguments.target)
    reader = _TargetReader(arguments, options)
    jobs = [reader.job(target) for target in targets]
    for note in reader.notes:
        log.note(note)

    finished: set[str] = set()
    with progress(shown=not log.structured) as show:

        def report(name: str, event: Event) -> None:
            if event["event"] in _LAST:
                finished.add(name)
            show(len(finished), len(jobs), name)
            _tell(log, name, event)

        failed = build.build(jobs, arguments.jobs or os.cpu_count() or 1, report)
    if failed:
        log.event("failed", targets=list(failed))
        return max(failed.values())

    if arguments.depfile is not None:
        files: dict[Path, None] = {}
        for target in targets:
            files.update(dict.fromkeys(build.inputs(target)))
        manifest = build.bundle(targets[0]) / MANIFEST
        write_depfile(arguments.depfile, manifest, [arguments.model, *files])
    if arguments.json:
        print_json({target.name: str(build.bundle(target)) for target in targets})
    return 0


def _tell(log: Log, target: str, event: Event) -> None:
    """Print an event of a target, as JSON or as a line for people."""
    name = event.pop("event")
    error = event.pop("error", None)
    if isinstance(error, IrsplitError):
        event["text"] = text_of(error)
    if name == "remark":
        event["text"] = in_flags(event["text"])
    if log.structured:
        log.event(name, target=target, **event)
        return

    text = _TEXTS.get(name, "{text}").format(**event)
    if name == "remark":
        text = f"{'warning' if event['warning'] else 'note'}: {text}"
    say(f"{target}: {text}")


class _TargetReader:
    """Turns targets into jobs, by the options that a compilation and a verification have."""

    def __init__(self, arguments: Namespace, options: ArgumentParser) -> None:
        self.path = arguments.model
        self.notes: list[str] = []
        """What there is to say about options."""
        self._werror = arguments.warnings_are_errors
        self._options = options
        self._verify = TargetParser()
        verify.add_arguments(self._verify)

    def job(self, target: Target) -> Job:
        """How to make a target. Raises ParseError for an option or a value that there is not."""
        where = f"{self.path}: target '{target.name}'"
        arguments = self._parsed(where, self._options, [target.model], target.options, "compile")
        options = options_of(arguments)
        if self._werror:
            options = options.replaced(warnings_are_errors=True)

        checks = None
        if target.verify is not None:
            words = self._parsed(where, self._verify, ["bundle"], target.verify, "verify")
            checks = verify.checks_of(words)
        calibration = tuple(arguments.calibration)
        return Job(target.name, target.model, options, calibration, checks)

    def _parsed(
        self,
        where: str,
        parser: ArgumentParser,
        positionals: list[str],
        table: OptionTable,
        command: str,
    ) -> Namespace:
        """The arguments that a table of options stands for."""
        words = [word for name, value in table.items() for word in _words(parser, name, value)]
        try:
            arguments, unknown = parser.parse_known_args([*positionals, *words])
        except ArgumentError as error:
            raise ParseError(str(error), where=where) from error
        if unknown:
            name = unknown[0].partition("=")[0].removeprefix("--")
            of = "" if command == "compile" else f" of {command}"
            raise ParseError(
                f"no option '{name}'{of}",
                where=where,
                remedy=f"'irsplit {command} --help' lists them",
            )
        self.notes += [f"{where}: {note.replace('--', '')}" for note in old_names(arguments)]
        return arguments


def _words(parser: ArgumentParser, name: str, value: bool | tuple[str, ...]) -> list[str]:
    """The words of one option: a flag for true, the option once for every value of a list."""
    flag = f"--{name}"
    if isinstance(value, bool):
        return [flag] if value else []
    actions: dict[str, Any] = {
        text: action for action in parser._actions for text in action.option_strings
    }
    if flag in actions and actions[flag].nargs == "+":
        return [flag, *value]
    return [f"{flag}={text}" for text in value]
