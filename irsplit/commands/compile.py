"""irsplit compile MODEL -o DIR, irsplit compile FILE.toml"""

import time
from argparse import ArgumentError, ArgumentParser, Namespace
from pathlib import Path
from typing import NoReturn

from irsplit.base.errors import BundleError, IrsplitError, ParseError, short
from irsplit.codec_training.agreement.measures import measure_file
from irsplit.commands.arguments import add_cuts, add_dims, add_state, positive
from irsplit.commands.building import run_build_file
from irsplit.commands.coding import add_coding
from irsplit.commands.log import Log
from irsplit.commands.output import print_json, size
from irsplit.commands.planning import add_plan_arguments, chooser
from irsplit.commands.progress import progress
from irsplit.compilation.compiler import compile_model, whole_model
from irsplit.compilation.depfile import write_depfile
from irsplit.dialects.base import WriteOptions
from irsplit.engines.inputs import input_files, load_calls
from irsplit.passes.targets import boundary_bits
from irsplit.runtime.bundle.manifest import MANIFEST

EXAMPLES = """
irsplit compile examples/digits/digits.onnx -o build/digits
irsplit compile examples/digits/digits.onnx -o build/digits --boundary int8 --calibration examples/digits/pictures
irsplit compile examples/digits/digits.onnx -o build/digits --device pixel-2 --link wifi --limit memory=100kB
irsplit compile examples/ci/irsplit.toml --jobs 2
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "model", type=Path, help="an .onnx or .tflite file, or a build file (.toml)"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="DIR",
        help="the bundle's folder; a build file has its own",
    )
    parser.add_argument(
        "--cut",
        action="append",
        default=[],
        metavar="ID",
        help="a cut by id or tensor name (see 'irsplit cuts'); give it several times for several cuts; "
        "default: the smallest boundary below the input's size, or with --device the best by the planner",
    )
    add_plan_arguments(parser)
    add_cuts(parser)
    parser.add_argument(
        "--place",
        action="append",
        default=[],
        metavar="PLACE",
        help="where each segment runs, in order: device or server; default: the first on the device",
    )
    parser.add_argument(
        "--autonomous",
        action="store_true",
        help="the device's side carries the server's segments too, and finishes alone when the link is down",
    )
    parser.add_argument(
        "--adaptive",
        action="store_true",
        help="the device's side carries all segments but the last: with several cuts, the client chooses among them "
        "while it runs (--autonomous does that too)",
    )
    add_coding(parser)
    add_state(parser)
    add_dims(
        parser, "; a state begins with it (default 0 for a history: past, length, ...; else 1)"
    )
    parser.add_argument(
        "--pipeline",
        default="",
        metavar="TEXT",
        help="the passes themselves instead of the options above, --calibration apart; a bundle's manifest has its own",
    )
    parser.add_argument(
        "--external-over",
        type=positive,
        metavar="BYTES",
        help="weights go into a file beside a segment that would be larger; default: only where the format forces it",
    )
    parser.add_argument(
        "--share-weights",
        action="store_true",
        help="segments refer to the data files of an ONNX model, which are linked into the bundle instead of copied",
    )
    parser.add_argument(
        "--no-report",
        action="store_false",
        dest="report",
        help="leave out report.html and report.json, which compare this cut with all others",
    )
    parser.add_argument("--json", action="store_true", help="print the manifest")
    _add_build_arguments(parser)


def _add_build_arguments(parser: ArgumentParser) -> None:
    """For build pipelines."""
    parser.add_argument(
        "--werror", action="store_true", help="warnings are errors: nothing is written then"
    )
    parser.add_argument(
        "--log-json", action="store_true", help="say what happens as JSON, one object a line"
    )
    parser.add_argument(
        "--depfile",
        type=Path,
        metavar="FILE.d",
        help="write what the bundle was made from, as make and ninja read it",
    )
    parser.add_argument(
        "--target",
        action="append",
        default=[],
        metavar="NAME",
        help="of a build file: this target only; repeatable",
    )
    parser.add_argument(
        "-j", "--jobs", type=int, default=0, metavar="N", help="of a build file: targets at a time"
    )


_SAID_BY_PIPELINE = (
    "cut",
    "place",
    "device",
    "boundary",
    "boundary_ops",
    "agreement_measure",
    "codec",
    "max_tensors",
    "rematerialise",
    "state",
    "dim",
)
"""Options whose meaning is in the pipeline's text."""
_OF_A_PLAN = ("server", "link", "objective", "limit", "rule", "pattern", "load")
_WRITTEN = {"output": "-o", "rematerialise": "--no-rematerialise"}
_OF_BUILD_FILES = ("target", "jobs")
_WITH_BUILD_FILES = (*_OF_BUILD_FILES, "json", "werror", "log_json", "depfile")


def run(arguments: Namespace) -> int:
    log = Log(structured=arguments.log_json)
    try:
        _refuse_useless(arguments)
        if arguments.model.suffix == ".toml":
            options = _Options(exit_on_error=False)
            add_arguments(options)
            return run_build_file(arguments, options)
        return _run_model(arguments, log)
    except IrsplitError as error:
        log.error(str(error))
        return 2


class _Options(ArgumentParser):
    """Those of a target: a mistake is the build file's, not the command line's."""

    def error(self, message: str) -> NoReturn:
        raise ArgumentError(None, message)


def _run_model(arguments: Namespace, log: Log) -> int:
    if arguments.output is None:
        raise BundleError("say where the bundle goes with -o DIR")
    begun = time.monotonic()
    calls = (
        load_calls(arguments.calibration, whole_model(arguments.model)[1])
        if arguments.calibration
        else []
    )
    with progress(shown=not arguments.log_json) as told:
        compiled = compile_model(
            arguments.model,
            arguments.output,
            arguments.cut,
            boundary=arguments.boundary,
            boundary_ops=arguments.boundary_ops,
            agreement_measure=arguments.agreement_measure,
            calibration=calls,
            max_tensors=arguments.max_tensors,
            places=arguments.place,
            codec=arguments.codec,
            state=arguments.state,
            dim=arguments.dim,
            rematerialise=arguments.rematerialise,
            autonomous=arguments.autonomous,
            adaptive=arguments.adaptive,
            choose=chooser(arguments, arguments.codec, boundary_bits(arguments.boundary))
            if arguments.device
            else None,
            pipeline=arguments.pipeline,
            options=WriteOptions(arguments.external_over, arguments.share_weights),
            report=arguments.report,
            warnings_are_errors=arguments.werror,
            progress=told,
        )
    for remark in compiled.remarks:
        log.remark(remark)
    if arguments.depfile is not None:
        files = [*compiled.source_files, *input_files(arguments.calibration), *_profiles(arguments)]
        files += [path for path in [measure_file(arguments.agreement_measure)] if path is not None]
        write_depfile(arguments.depfile, arguments.output / MANIFEST, files)
    seconds = round(time.monotonic() - begun, 3)
    log.event(
        "done", bundle=str(arguments.output), digest=compiled.manifest.digest, seconds=seconds
    )
    manifest = compiled.manifest
    if arguments.json:
        print_json(manifest.raw)
        return 0
    for index, segment in enumerate(manifest.segments):
        path = manifest.path(segment.file)
        print(f"{segment.placement:7} {path}  {size(path.stat().st_size)}")
        if index < len(manifest.boundaries):
            for spec in manifest.boundaries[index].tensors:
                shape = "x".join("?" if dim is None else str(dim) for dim in spec.shape)
                coded = f"{spec.quantization.bits} bits, " if spec.quantization is not None else ""
                print(f"   |    {short(spec.name)}  {spec.dtype}[{shape}]  {coded}{spec.codec}")
    return 0


def _profiles(arguments: Namespace) -> list[Path]:
    """Profiles that are files, not names: their changes may change the cut."""
    words = [arguments.device or "", arguments.server, arguments.link] if arguments.device else []
    return [path for word in words for path in [Path(word.partition(",")[0])] if path.is_file()]


def _refuse_useless(arguments: Namespace) -> None:
    """Raise ParseError for options that would mean nothing beside the others."""
    given = _given(arguments)
    if arguments.model.suffix == ".toml":
        if words := [word for name, word in given.items() if name not in _WITH_BUILD_FILES]:
            raise ParseError(
                f'{arguments.model}: {", ".join(words)}: a build file says it itself, the folder as output = "DIR" at '
                "its top, options in [defaults] or a target; write them there"
            )
        return
    if words := [given[name] for name in _OF_BUILD_FILES if name in given]:
        raise ParseError(
            f"{', '.join(words)}: only for build files (.toml), and this is a model; leave it out"
        )
    if words := [given[name] for name in _SAID_BY_PIPELINE if name in given and arguments.pipeline]:
        raise ParseError(
            f"--pipeline says which passes run, and {', '.join(words)} would too; put the option into the pipeline"
        )
    if words := [given[name] for name in _OF_A_PLAN if name in given and not arguments.device]:
        raise ParseError(
            f"{', '.join(words)}: only for a plan, which needs --device PROFILE; give it"
        )


def _given(arguments: Namespace) -> dict[str, str]:
    """Options that are not at their defaults, as they are written."""
    parser = ArgumentParser()
    add_arguments(parser)
    defaults = vars(parser.parse_args([str(arguments.model)]))
    given = [name for name, value in vars(arguments).items() if value != defaults[name]]
    return {name: _WRITTEN.get(name, f"--{name.replace('_', '-')}") for name in given}
