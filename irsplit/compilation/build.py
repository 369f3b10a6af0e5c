"""Build pipelines: several bundles from one irsplit.toml, in parallel, each made again only when what it is made from
has changed.

    output = "build"                    # folder of the bundles; this is the default
    [defaults]                          # options of every target
    codec = "zstandard"
    [targets.digits-lte]                # one bundle: build/digits-lte
    model = "examples/digits/digits.onnx"
    device = "pixel-2"                  # any option of `irsplit compile`, by its long name
    link = "lte"
    limit = ["memory=64MB"]
    verify = {inputs = ["pictures"], min-agreement = 0.99}    # options of `irsplit verify`, or true

A target with `verify` takes the place of an older bundle only when its bundle holds.

Paths are relative to the file. What a bundle was made from is remembered in `.NAME.stamp` beside it.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from irsplit.base.atomic_files import new_folder, scratch_folder, write_file
from irsplit.base.errors import VERSION, BundleError, ParseError
from irsplit.base.reading import read_text, reading, record
from irsplit.compilation.depfile import read_depfile
from irsplit.runtime.bundle.manifest import MANIFEST, file_digest

_OPTION = re.compile(r"[a-z][a-z0-9-]*")
_LONGEST_NAME = 200
"""Bytes of a target's name: its bundle, stamp and temporary files have longer ones."""

Report = Callable[[str, dict[str, Any]], None]
"""Called with a target's name and an event of it: "fresh", "start", "done", or one of `irsplit compile --log-json`."""


@dataclass(frozen=True, slots=True)
class Target:
    """One bundle: `words` are the options of `irsplit compile`, `verify` those of `irsplit verify`, None without it."""

    name: str
    model: str
    words: tuple[str, ...]
    verify: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class BuildFile:
    """`folder` is where the file lies and its paths begin; `output` is the folder of the bundles."""

    folder: Path
    output: Path
    targets: tuple[Target, ...]

    @classmethod
    def load(cls, path: Path) -> "BuildFile":
        """Raises ParseError, naming the key, for what is no build file."""
        with reading(
            path,
            "is no TOML",
            "write a build file as in docs/how-to/build-pipelines.md",
            ParseError,
        ):
            data = tomllib.loads(read_text(path))
        unknown = sorted(set(data) - {"output", "defaults", "targets"})
        if unknown:
            raise ParseError(
                f"{path}: unknown key '{unknown[0]}'; known keys: output, defaults, targets"
            )
        output, defaults, tables = (
            data.get("output", "build"),
            data.get("defaults", {}),
            data.get("targets"),
        )
        if not isinstance(output, str) or "\0" in output or not isinstance(defaults, dict):
            raise ParseError(
                f"{path}: output is the name of a folder and defaults a table of options"
            )
        if (
            not isinstance(tables, dict)
            or not tables
            or not all(isinstance(each, dict) for each in tables.values())
        ):
            raise ParseError(f"{path}: has no target; add a table [targets.NAME] with a model")
        targets = [_target(path, name, {**defaults, **table}) for name, table in tables.items()]
        return cls(path.parent, path.parent / output, tuple(targets))

    def select(self, names: Sequence[str]) -> tuple[Target, ...]:
        """The targets of these names, or all. Raises ParseError for an unknown name."""
        known = {target.name: target for target in self.targets}
        missing = next((name for name in names if name not in known), None)
        if missing is not None:
            raise ParseError(f"there is no target '{missing}'; targets: {', '.join(known)}")
        return tuple(known[name] for name in names) if names else self.targets

    def bundle(self, target: Target) -> Path:
        return self.output / target.name

    def inputs(self, target: Target) -> list[Path]:
        """What the bundle was made from when it was made last."""
        stamp = _read_stamp(self._stamp(target))
        return [] if stamp is None else [self.folder / file for file in stamp.files]

    def build(
        self, targets: Iterable[Target], jobs: int, report: Report, flags: Sequence[str] = ()
    ) -> dict[str, int]:
        """Make the bundles of the targets that are not fresh; the names of those that failed, with their exit codes: 1
        where the bundle did not hold, 2 where there is none.

        `flags` are further words for every compilation, such as --werror.
        """
        try:
            self.output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BundleError(
                f"{self.output}: is no folder to write to: {error.strerror}; change output"
            ) from error
        with ThreadPoolExecutor(max(1, jobs)) as pool:
            made = {
                target.name: pool.submit(self._make, target, report, flags) for target in targets
            }
            return {name: code.result() for name, code in made.items() if code.result()}

    def _make(self, target: Target, report: Report, flags: Sequence[str]) -> int:
        words, stamp = (*target.words, *flags), self._stamp(target)
        key = _key(target, words)
        if self._is_fresh(target, key):
            report(target.name, {"event": "fresh", "bundle": str(self.bundle(target))})
            return 0
        report(target.name, {"event": "start", "model": target.model})
        depfile = self.output.resolve() / f".{target.name}.d"
        bundle = self.bundle(target).resolve()
        if target.verify is None:
            code = self._compile(target, bundle, depfile, words, report)
        else:
            code = self._compile_verified(target, target.verify, bundle, depfile, words, report)
        if code:
            return code
        sources = [*read_depfile(depfile), *(self._files_of(target.verify or ()))]
        files = {str(path): _state(self.folder / path) for path in sources}
        depfile.unlink()
        made = file_digest(self.bundle(target) / MANIFEST)
        text = json.dumps(asdict(_Stamp(key, made, files)), indent=1)
        write_file(stamp, lambda file: file.write(text.encode()))
        return 0

    def _compile(
        self, target: Target, bundle: Path, depfile: Path, words: Sequence[str], report: Report
    ) -> int:
        output = ["-o", str(bundle), "--log-json", "--depfile", str(depfile)]
        return _compile(
            self.folder, [target.model, *output, *words], lambda event: report(target.name, event)
        )

    def _compile_verified(
        self,
        target: Target,
        verify: Sequence[str],
        bundle: Path,
        depfile: Path,
        words: Sequence[str],
        report: Report,
    ) -> int:
        """Compile beside the bundle, and let the new one take its place when it holds."""
        done: list[dict[str, Any]] = []

        def report_all_but_the_end(name: str, event: dict[str, Any]) -> None:
            if event["event"] == "done":
                done.append(event | {"bundle": str(bundle)})
            else:
                report(name, event)

        with scratch_folder(bundle) as scratch:
            candidate = scratch / bundle.name
            code = self._compile(target, candidate, depfile, words, report_all_but_the_end)
            if code:
                return code
            code, outcome = _verify(self.folder, [str(candidate), "--model", target.model, *verify])
            if code:
                report(
                    target.name,
                    {"event": "error", "text": f"verify: {outcome.pop('text')}", **outcome},
                )
                depfile.unlink()
                return code
            report(target.name, {"event": "verified", **outcome})
            with new_folder(bundle) as new:
                for path in candidate.iterdir():
                    path.rename(new / path.name)
        for event in done:
            report(target.name, event)
        return 0

    def _files_of(self, words: Sequence[str]) -> list[str]:
        """Files that words of the command line name: themselves, behind NAME= or in front of :FUNCTION."""
        files: list[str] = []
        for word in words:
            for name in {
                word,
                word.partition("=")[2],
                word.rpartition("=")[2].rpartition(":")[0],
            } - {""}:
                path = self.folder / name
                inside = sorted(path.iterdir()) if path.is_dir() else [path]
                files += [os.path.relpath(file, self.folder) for file in inside if file.is_file()]
        return files

    def _stamp(self, target: Target) -> Path:
        return self.output / f".{target.name}.stamp"

    def _is_fresh(self, target: Target, key: str) -> bool:
        stamp, manifest = _read_stamp(self._stamp(target)), self.bundle(target) / MANIFEST
        return (
            stamp is not None
            and stamp.key == key
            and manifest.is_file()
            and stamp.manifest == file_digest(manifest)
            and all(_is_unchanged(self.folder / file, state) for file, state in stamp.files.items())
        )


def _target(path: Path, name: str, options: dict[str, Any]) -> Target:
    model = options.pop("model", None)
    if not isinstance(model, str):
        raise ParseError(f"{path}: target '{name}' has no model; add model = \"FILE\"")
    if (
        "/" in name
        or name.startswith(".")
        or not name.isprintable()
        or not 0 < len(name.encode()) <= _LONGEST_NAME
    ):
        raise ParseError(
            f"{path}: target '{name}': the name is a folder's; use a short one, no '/', no dot in front"
        )
    reserved = sorted({"output", "depfile", "json", "log-json", "werror"} & set(options))
    if reserved:
        raise ParseError(
            f"{path}: target '{name}': '{reserved[0]}' is not for a target; give it on the command line"
        )
    odd = next((option for option in options if not _OPTION.fullmatch(option)), None)
    if odd is not None:
        raise ParseError(
            f"{path}: target '{name}': no option '{odd}'; 'irsplit compile --help' lists them"
        )
    verify = _verify_words(path, name, options.pop("verify", False))
    words = [
        word
        for option, value in sorted(options.items())
        for word in _words(path, name, option, value)
    ]
    if any("\0" in word for word in (model, *words, *(verify or ()))):
        raise ParseError(f"{path}: target '{name}': a value holds a character of code 0; remove it")
    return Target(name, model, tuple(words), verify)


def _verify_words(path: Path, name: str, options: Any) -> tuple[str, ...] | None:
    """The words of `verify = {...}`; None without it."""
    if isinstance(options, bool):
        return () if options else None
    if not isinstance(options, dict):
        raise ParseError(
            f"{path}: target '{name}': verify must be true or a table, as {{min-agreement = 0.99}}"
        )
    table: dict[str, Any] = options
    if reserved := sorted({"model", "json"} & set(table)):
        raise ParseError(
            f"{path}: target '{name}': '{reserved[0]}' of verify is the target's own; leave it out"
        )
    return tuple(
        word
        for option, value in sorted(table.items())
        for word in _words(path, name, option, value)
    )


def _key(target: Target, words: Sequence[str]) -> str:
    """What a bundle is made of beside files."""
    described = [VERSION, target.model, *words]
    if target.verify is not None:
        described += ["verify", *target.verify]
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()


def _words(path: Path, name: str, option: str, value: Any) -> list[str]:
    """The words of one option: a flag for true, the option once for every item of a list."""
    flag = f"--{option}"
    match value:
        case bool():
            return [flag] if value else []
        case str() | int() | float():
            return [f"{flag}={value}"]
        case [*items] if not all(isinstance(item, str | int | float) for item in items):
            raise ParseError(
                f"{path}: target '{name}': {option} must be a list of text and numbers"
            )
        case [*items] if option in ("calibration", "inputs"):
            return [flag, *map(str, items)]
        case [*items]:
            return [f"{flag}={item}" for item in items]
        case _:
            raise ParseError(
                f"{path}: target '{name}': {option} must be text, a number, true or a list of those"
            )


def _compile(folder: Path, words: Sequence[str], report: Callable[[dict[str, Any]], None]) -> int:
    """Run `irsplit compile` in the build file's folder, so that names in bundles do not depend on where that lies."""
    command = [sys.executable, "-m", "irsplit", "compile", *words]
    with subprocess.Popen(
        command,
        cwd=folder,
        env=_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            report(_event(line))
    return process.returncode


def _verify(folder: Path, words: Sequence[str]) -> tuple[int, dict[str, Any]]:
    """Exit code of `irsplit verify`, and what to report of it; "text" says why where the code is not 0."""
    command = [sys.executable, "-m", "irsplit", "verify", "--json", *words]
    done = subprocess.run(
        command, cwd=folder, env=_environment(), capture_output=True, text=True, check=False
    )
    try:
        outcome = json.loads(done.stdout)
    except ValueError:
        return done.returncode or 2, {"text": done.stderr.strip().removeprefix("error: ")}
    told = {
        "lossless": outcome["lossless"],
        "calls": outcome["calls"],
        "agreement": outcome["agreement"],
    }
    reasons = {"text": "; ".join(outcome["failures"])} if done.returncode else {}
    return done.returncode, told | reasons


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join(entry or os.getcwd() for entry in sys.path)}


def _event(line: str) -> dict[str, Any]:
    """An event of `compile --log-json`; whatever else a library prints is one too."""
    try:
        event = json.loads(line)
    except ValueError:
        return {"event": "output", "text": line.rstrip("\n")}
    return (
        event
        if isinstance(event, dict) and "event" in event
        else {"event": "output", "text": line.rstrip("\n")}
    )


_State = tuple[int, int, str]
"""Size, time of the last change, and digest of a file."""


@dataclass(frozen=True, slots=True)
class _Stamp:
    """What a bundle was made of: `key` names version and options, `files` everything that was read."""

    key: str
    manifest: str
    files: dict[str, _State]


def _state(path: Path) -> _State:
    status = path.stat()
    return status.st_size, status.st_mtime_ns, file_digest(path)


def _is_unchanged(path: Path, state: _State) -> bool:
    """Size and time first: the digest of a large file is computed only when they differ."""
    size, time_ns, digest = state
    if not path.is_file():
        return False
    status = path.stat()
    if (status.st_size, status.st_mtime_ns) == (size, time_ns):
        return True
    return status.st_size == size and file_digest(path) == digest


def _read_stamp(path: Path) -> _Stamp | None:
    """None where there is none, or a damaged one: the bundle is made again."""
    try:
        with reading(path, "is no stamp", "compile again", ParseError):
            return record(_Stamp, json.loads(read_text(path)))
    except ParseError:
        return None


def read_targets(path: Path, names: Sequence[str]) -> tuple[BuildFile, tuple[Target, ...]]:
    """A build file and the targets of these names, or all of its targets."""
    if not path.is_file():
        raise BundleError(f"{path}: no such file; give a build file")
    build = BuildFile.load(path)
    return build, build.select(names)
