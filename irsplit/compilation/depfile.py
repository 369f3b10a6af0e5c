"""Which files a bundle was made from, as a rule for make; ninja reads it with `deps = gcc`."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from irsplit.base.atomic_files import write_file
from irsplit.codec_training.agreement.measures import measure_file
from irsplit.compilation.compiler import Compiled
from irsplit.compilation.options import CompileOptions
from irsplit.engines.inputs import input_files


def made_from(
    compiled: Compiled, options: CompileOptions, calibration: Sequence[Path]
) -> list[Path]:
    """Every file that a compilation read: model, calibration inputs, profiles, and a measure."""
    files = [*compiled.source_files, *input_files(calibration)]
    if options.device:
        words = (options.device, options.server, options.link)
        # Only profiles that are files may change; the others are part of the package.
        paths = [Path(word.partition(",")[0]) for word in words]
        files += [path for path in paths if path.is_file()]
    measure = measure_file(options.agreement_measure)
    return files if measure is None else [*files, measure]


def write_depfile(path: Path, target: Path, files: Iterable[Path]) -> None:
    """Write the rule `target: files`.

    Raises:
        BundleError: The depfile cannot be written.
    """
    rule = " \\\n ".join([f"{_escaped(target)}:", *map(_escaped, files)]) + "\n"
    write_file(path, lambda file: file.write(rule.encode()))


def read_depfile(path: Path) -> list[Path]:
    """The files after the colon of a depfile that `write_depfile` wrote."""
    _, *lines = path.read_text(encoding="utf-8").rstrip("\n").split(" \\\n ")
    return [Path(_unescaped(line)) for line in lines]


_ESCAPES = {"\\ ": " ", "\\#": "#", "$$": "$"}


def _escaped(path: Path) -> str:
    text = str(path)
    for escape, plain in _ESCAPES.items():
        text = text.replace(plain, escape)
    return text


def _unescaped(text: str) -> str:
    for escape, plain in _ESCAPES.items():
        text = text.replace(escape, plain)
    return text
