"""Build pipelines: several bundles from one irsplit.toml, in parallel, each made only when needed.

    output = "build"                    # folder of the bundles; this is the default
    [defaults]                          # options of every target
    codec = "zstandard"
    [targets.digits-lte]                # one bundle: build/digits-lte
    model = "examples/digits/digits.onnx"
    device = "pixel-2"                  # any option of `irsplit compile`, by its long name
    link = "lte"
    limit = ["memory=64MB"]
    verify = {inputs = ["pictures"], min-agreement = 0.99}    # of `irsplit verify`, or true

A target is made again when its options, or the files that its bundle was made from, have changed.
What that was is remembered in `.NAME.stamp` beside the bundle. A target with `verify` takes the
place of an older bundle only when its bundle holds. Paths are relative to the file.
"""

import hashlib
import json
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from irsplit.base.atomic_files import new_folder, scratch_folder, write_file
from irsplit.base.errors import VERSION, BundleError, ParseError
from irsplit.base.reading import read_text, reading, record
from irsplit.codec_training.agreement.measures import measure_file
from irsplit.compilation.build_worker import DONE, Event, Job, run_job
from irsplit.compilation.checks import CheckOptions
from irsplit.engines.inputs import input_files
from irsplit.runtime.bundle.manifest import MANIFEST, file_digest

_OPTION = re.compile(r"[a-z][a-z0-9-]*")
_LONGEST_NAME = 200
"""Bytes of a target's name: its bundle, stamp and temporary files have longer ones."""

_KEYS = ("output", "defaults", "targets")
_NOT_OF_TARGETS = ("output", "depfile", "json", "log-json", "werror")
_NOT_OF_VERIFY = ("model", "json")

ReportEvent = Callable[[str, Event], None]
"""Called with a target's name and an event of it: "fresh", "start", or one of a worker's."""

OptionTable = dict[str, bool | tuple[str, ...]]
"""Options by long name: whether a flag is given, or the values."""


@dataclass(frozen=True, slots=True)
class Target:
    """One bundle: its model, and the options as they are written."""

    name: str
    model: str
    options: OptionTable
    verify: OptionTable | None = None
    """Options of the verification; None without one."""


@dataclass(frozen=True, slots=True)
class BuildFile:
    """A build file: `folder` is where it lies, `output` the folder of the bundles."""

    folder: Path
    output: Path
    targets: tuple[Target, ...]

    @classmethod
    def load(cls, path: Path | str) -> "BuildFile":
        """Read a build file.

        Raises:
            ParseError: It is no build file; the text names the key.
        """
        path = Path(path)
        remedy = "write a build file as in docs/how-to/build-pipelines.md"
        with reading(path, "is no TOML", remedy, ParseError):
            data = tomllib.loads(read_text(path))
        unknown = sorted(set(data) - set(_KEYS))
        if unknown:
            raise ParseError(
                f"unknown key '{unknown[0]}'",
                where=str(path),
                remedy=f"known keys: {', '.join(_KEYS)}",
            )

        output, defaults = data.get("output", "build"), data.get("defaults", {})
        if not isinstance(output, str) or "\0" in output or not isinstance(defaults, dict):
            raise ParseError(
                "output is the name of a folder and defaults a table of options", where=str(path)
            )
        targets = [
            _target(path, name, {**defaults, **table})
            for name, table in _target_tables(path, data.get("targets")).items()
        ]
        return cls(path.parent, path.parent / output, tuple(targets))

    def select(self, names: Sequence[str]) -> tuple[Target, ...]:
        """The targets of these names, or all.

        Raises:
            ParseError: There is no target of a name.
        """
        by_name = {target.name: target for target in self.targets}
        for name in names:
            if name not in by_name:
                raise ParseError(
                    f"there is no target '{name}'", remedy=f"targets: {', '.join(by_name)}"
                )
        return tuple(by_name[name] for name in names) if names else self.targets

    def bundle(self, target: Target | Job) -> Path:
        """Where the bundle of a target goes."""
        return self.output / target.name

    def inputs(self, target: Target | Job) -> list[Path]:
        """What the bundle of a target was made from when it was made last."""
        stamp = _read_stamp(self._stamp(target.name))
        return [] if stamp is None else [self.folder / file for file in stamp.files]

    def build(self, jobs: Iterable[Job], count: int, report: ReportEvent) -> dict[str, int]:
        """Make the bundles that are not fresh.

        Args:
            jobs: What to make.
            count: How many are made at a time.
            report: Called with every event, from several threads.

        Returns:
            The exit codes of the targets that failed, by name: 1 where the bundle did not hold,
            2 where there is none.

        Raises:
            BundleError: The output folder cannot be written.
        """
        try:
            self.output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BundleError(
                f"is no folder to write to: {error.strerror}",
                where=str(self.output),
                remedy="change output",
            ) from error

        # Each thread waits for the process of one job.
        with ThreadPoolExecutor(max(1, count)) as pool:
            codes = {job.name: pool.submit(self._make, job, report) for job in jobs}
        return {name: code.result() for name, code in codes.items() if code.result() != DONE}

    def _make(self, job: Job, report: ReportEvent) -> int:
        """Make one bundle unless it is fresh, and stamp it."""
        key = _key(job)
        if self._is_fresh(job, key):
            report(job.name, {"event": "fresh", "bundle": str(self.bundle(job))})
            return DONE

        report(job.name, {"event": "start", "model": job.model})
        code, files = self._make_bundle(job, report)
        if code != DONE:
            return code

        files += self._files_of_checks(job.verify)
        states = {file: _state(self.folder / file) for file in files}
        manifest = file_digest(self.bundle(job) / MANIFEST)
        text = json.dumps(asdict(_Stamp(key, manifest, states)), indent=1)
        write_file(self._stamp(job.name), lambda file: file.write(text.encode()))
        return DONE

    def _make_bundle(self, job: Job, report: ReportEvent) -> tuple[int, list[str]]:
        """The exit code of a job, and the files that its bundle was made from."""
        bundle = self.bundle(job).resolve()
        if job.verify is None:
            made = run_job(job, self.folder, bundle, lambda event: report(job.name, event))
            return made.code, [*made.files]

        # The new bundle is made beside the old one, whose place it takes when it holds.
        done: list[Event] = []

        def report_or_keep(event: Event) -> None:
            if event["event"] == "done":
                done.append(event | {"bundle": str(bundle)})
            else:
                report(job.name, event)

        with scratch_folder(bundle) as scratch:
            candidate = scratch / bundle.name
            made = run_job(job, self.folder, candidate, report_or_keep)
            if made.code != DONE:
                return made.code, []
            with new_folder(bundle) as new:
                for path in candidate.iterdir():
                    path.rename(new / path.name)
        for event in done:
            report(job.name, event)
        return DONE, [*made.files]

    def _files_of_checks(self, checks: CheckOptions | None) -> list[str]:
        """Files that a verification reads beside the bundle and its model."""
        if checks is None:
            return []
        paths = [self.folder / path for path in checks.samples]
        for word in checks.inputs:
            # Tensor names may hold '=', and so may paths: whichever is a file is meant.
            names = {word.partition("=")[2], word.rpartition("=")[2]} - {""}
            paths += [self.folder / name for name in names]
        measure = measure_file(checks.agreement_measure)
        paths += [] if measure is None else [self.folder / measure]
        files = dict.fromkeys(path for path in input_files(paths) if path.is_file())
        return [os.path.relpath(file, self.folder) for file in files]

    def _stamp(self, name: str) -> Path:
        return self.output / f".{name}.stamp"

    def _is_fresh(self, job: Job, key: str) -> bool:
        """Whether the bundle is what the job would make."""
        stamp, manifest = _read_stamp(self._stamp(job.name)), self.bundle(job) / MANIFEST
        if stamp is None or stamp.key != key:
            return False
        if not manifest.is_file() or stamp.manifest != file_digest(manifest):
            return False
        return all(_is_unchanged(self.folder / file, state) for file, state in stamp.files.items())


def read_targets(path: Path, names: Sequence[str]) -> tuple[BuildFile, tuple[Target, ...]]:
    """A build file and the targets of these names, or all of its targets.

    Raises:
        BundleError: There is no such file.
        ParseError: It is no build file, or has no target of a name.
    """
    if not path.is_file():
        raise BundleError("no such file", where=str(path), remedy="give a build file")
    build = BuildFile.load(path)
    return build, build.select(names)


# -- what is written in the file -------------------------------------------------------------------


def _target_tables(path: Path, tables: Any) -> dict[str, dict[str, Any]]:
    """The tables of the targets. Raises ParseError where they are none."""
    valid = isinstance(tables, dict) and bool(tables)
    if not valid or not all(isinstance(table, dict) for table in tables.values()):
        raise ParseError(
            "has no target", where=str(path), remedy="add a table [targets.NAME] with a model"
        )
    return tables


def _target(path: Path, name: str, table: dict[str, Any]) -> Target:
    """One target from its table, the defaults included."""
    where = f"{path}: target '{name}'"
    model = table.pop("model", None)
    if not isinstance(model, str):
        raise ParseError("has no model", where=where, remedy='add model = "FILE"')
    if not _is_folder_name(name):
        raise ParseError(
            "the name is a folder's",
            where=where,
            remedy="use a short one, without '/' and without a dot in front",
        )
    for option in _NOT_OF_TARGETS:
        if option in table:
            raise ParseError(
                f"'{option}' is not for a target",
                where=where,
                remedy="give it on the command line",
            )
    for option in table:
        if not _OPTION.fullmatch(option):
            raise ParseError(
                f"no option '{option}'", where=where, remedy="'irsplit compile --help' lists them"
            )

    verify = _verify_table(where, table.pop("verify", False))
    options = _option_table(where, table)
    if any("\0" in text for text in (model, *_texts(options), *_texts(verify or {}))):
        raise ParseError("a value holds a character of code 0", where=where, remedy="remove it")
    return Target(name, model, options, verify)


def _is_folder_name(name: str) -> bool:
    if "/" in name or name.startswith(".") or not name.isprintable():
        return False
    return 0 < len(name.encode()) <= _LONGEST_NAME


def _verify_table(where: str, table: Any) -> OptionTable | None:
    """The options of `verify = {...}`; None without it."""
    if isinstance(table, bool):
        return {} if table else None
    if not isinstance(table, dict):
        raise ParseError("verify must be true or a table, as {min-agreement = 0.99}", where=where)
    for option in _NOT_OF_VERIFY:
        if option in table:
            raise ParseError(
                f"'{option}' of verify is the target's own", where=where, remedy="leave it out"
            )
    return _option_table(where, table)


def _option_table(where: str, table: dict[str, Any]) -> OptionTable:
    """Options in the order of their names, so that the order in the file does not matter."""
    return {option: _option_value(where, option, table[option]) for option in sorted(table)}


def _option_value(where: str, option: str, value: Any) -> bool | tuple[str, ...]:
    match value:
        case bool():
            return value
        case str() | int() | float():
            return (str(value),)
        case [*items] if all(isinstance(item, str | int | float) for item in items):
            return tuple(map(str, items))
        case [*_]:
            raise ParseError(f"{option} must be a list of text and numbers", where=where)
        case _:
            raise ParseError(
                f"{option} must be text, a number, true or a list of those", where=where
            )


def _texts(options: OptionTable) -> list[str]:
    texts = [*options]
    for value in options.values():
        texts += [] if isinstance(value, bool) else value
    return texts


# -- what a bundle was made from -------------------------------------------------------------------


_State = tuple[int, int, str]
"""Size, time of the last change, and digest of a file."""


@dataclass(frozen=True, slots=True)
class _Stamp:
    """What a bundle was made from: `key` stands for version and options, `files` has the rest."""

    key: str
    manifest: str
    files: dict[str, _State]


def _key(job: Job) -> str:
    """A digest of everything but files that a bundle is made from."""
    described = json.dumps([VERSION, asdict(job)], default=str)
    return hashlib.sha256(described.encode()).hexdigest()


def _state(path: Path) -> _State:
    status = path.stat()
    return status.st_size, status.st_mtime_ns, file_digest(path)


def _is_unchanged(path: Path, state: _State) -> bool:
    """Whether a file is as it was; its digest is computed only where size or time differ."""
    size, time_ns, digest = state
    if not path.is_file():
        return False
    status = path.stat()
    if (status.st_size, status.st_mtime_ns) == (size, time_ns):
        return True
    return status.st_size == size and file_digest(path) == digest


def _read_stamp(path: Path) -> _Stamp | None:
    """A stamp; None where there is none, or a damaged one, and the bundle is made again."""
    try:
        with reading(path, "is no stamp", "compile again", ParseError):
            return record(_Stamp, json.loads(read_text(path)))
    except ParseError:
        return None
