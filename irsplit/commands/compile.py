"""irsplit compile MODEL -o DIR, irsplit compile FILE.toml: make bundles."""

import time
from argparse import ArgumentParser, Namespace
from pathlib import Path

from irsplit.base.errors import BundleError, IrsplitError, ParseError, short
from irsplit.commands.arguments import add_cuts, add_dims, add_state, positive
from irsplit.commands.building import TargetParser, run_build_file
from irsplit.commands.coding import add_coding
from irsplit.commands.flags import text_of
from irsplit.commands.log import Log
from irsplit.commands.options import options_of
from irsplit.commands.output import print_json, size
from irsplit.commands.planning import add_plan_arguments
from irsplit.commands.progress import progress
from irsplit.compilation.compiler import compile
from irsplit.compilation.depfile import made_from, write_depfile
from irsplit.runtime.bundle.manifest import MANIFEST, Manifest

EXAMPLES = """
irsplit compile examples/digits/digits.onnx -o build/digits
irsplit compile examples/digits/digits.onnx -o build/digits --quantize int8 \
--calibration examples/digits/pictures
irsplit compile examples/digits/digits.onnx -o build/digits --device pixel-2 --link wifi \
--limit memory=100kB
irsplit compile examples/ci/irsplit.toml --jobs 2
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument(
        "model", type=Path, help="an .onnx or .tflite file, or a build file (.toml)"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="DIR",
        help="the bundle's folder; a build file names its own",
    )

    # Where to cut, and where each segment runs.
    parser.add_argument(
        "--cut",
        action="append",
        default=[],
        dest="cuts",
        metavar="ID",
        help="a cut by id or tensor name (see 'irsplit cuts'); repeat it for several cuts; "
        "default: the smallest boundary below the size of the input, or with --device the "
        "planner's choice",
    )
    add_plan_arguments(parser)
    add_cuts(parser)
    parser.add_argument(
        "--place",
        action="append",
        default=[],
        dest="places",
        metavar="PLACE",
        help="where each segment runs, in order: device or server; default: the first on the "
        "device, the others on the server",
    )
    parser.add_argument(
        "--autonomous",
        action="store_true",
        help="give the device side the server's segments too, so that it finishes alone when the "
        "link is down",
    )
    parser.add_argument(
        "--adaptive",
        action="store_true",
        help="give the device side all segments but the last, so that with several cuts the client "
        "chooses among them while it runs (--autonomous does that too)",
    )

    # How what crosses is coded, and what the inputs are.
    add_coding(parser)
    add_state(parser)
    add_dims(
        parser,
        "; a state begins with this size (default 0 for a history: past, length, ...; else 1)",
    )

    parser.add_argument(
        "--pipeline",
        default="",
        metavar="TEXT",
        help="the passes to run, instead of the options above except --calibration; the "
        "manifest of a bundle has its pipeline",
    )

    # What is written.
    parser.add_argument(
        "--external-over",
        type=positive,
        metavar="BYTES",
        help="put the weights of a segment that would be larger into a file beside it; default: "
        "only where the format forces it",
    )
    parser.add_argument(
        "--share-weights",
        action="store_true",
        help="let segments refer to the data files of an ONNX model, which are linked into the "
        "bundle instead of copied",
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
    """Declare the arguments for builds: warnings, logs, dependencies and build files."""
    parser.add_argument(
        "--werror",
        action="store_true",
        dest="warnings_are_errors",
        help="treat warnings as errors: nothing is written then",
    )
    parser.add_argument(
        "--log-json", action="store_true", help="write the log as JSON, one object per line"
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
        help="make only this target of a build file; repeat it for several",
    )
    parser.add_argument(
        "-j",
        "--jobs",
        type=int,
        default=0,
        metavar="N",
        help="how many targets of a build file to make at a time",
    )


_SAID_BY_PIPELINE = (
    "cuts",
    "places",
    "device",
    "quantize",
    "boundary_ops",
    "agreement_measure",
    "codec",
    "max_tensors",
    "rematerialise",
    "state",
    "dims",
)
"""Arguments that the text of a pipeline says already."""

_OF_A_PLAN = ("server", "link", "objective", "limits", "policy", "pattern", "load")
"""Arguments that need --device."""

_OF_BUILD_FILES = ("target", "jobs")
"""Arguments that only build files have."""

_WITH_BUILD_FILES = (*_OF_BUILD_FILES, "json", "warnings_are_errors", "log_json", "depfile")
"""Arguments that may be given with a build file."""


def run(arguments: Namespace) -> int:
    """Compile a model, or make the targets of a build file.

    Errors go to the log, so that --log-json has them too.
    """
    log = Log(structured=arguments.log_json)
    try:
        _refuse_useless(arguments)
        if arguments.model.suffix == ".toml":
            options = TargetParser()
            add_arguments(options)
            return run_build_file(arguments, options)
        return _run_model(arguments, log)
    except IrsplitError as error:
        log.error(text_of(error))
        return 2


def _run_model(arguments: Namespace, log: Log) -> int:
    """Compile one model, and print its bundle. Raises IrsplitError where that fails."""
    if arguments.output is None:
        raise BundleError("say where the bundle goes with -o DIR")

    begun = time.monotonic()
    options = options_of(arguments)
    with progress(shown=not arguments.log_json) as show:
        compiled = compile(
            arguments.model,
            arguments.output,
            options,
            calibration=arguments.calibration,
            progress=show,
        )
    for remark in compiled.remarks:
        log.remark(remark)

    if arguments.depfile is not None:
        files = made_from(compiled, options, arguments.calibration)
        write_depfile(arguments.depfile, arguments.output / MANIFEST, files)

    seconds = round(time.monotonic() - begun, 3)
    bundle, digest = str(arguments.output), compiled.manifest.digest
    log.event("done", bundle=bundle, digest=digest, seconds=seconds)
    if arguments.json:
        print_json(compiled.manifest.raw)
    else:
        _print(compiled.manifest)
    return 0


def _print(manifest: Manifest) -> None:
    """Print the segments in order, with what crosses between them."""
    for index, segment in enumerate(manifest.segments):
        path = manifest.path(segment.file)
        print(f"{segment.placement:7} {path}  {size(path.stat().st_size)}")
        if index == len(manifest.boundaries):
            continue
        for spec in manifest.boundaries[index].tensors:
            shape = "x".join("?" if dim is None else str(dim) for dim in spec.shape)
            bits = f"{spec.quantization.bits} bits, " if spec.quantization is not None else ""
            print(f"   |    {short(spec.name)}  {spec.dtype}[{shape}]  {bits}{spec.codec}")


def _refuse_useless(arguments: Namespace) -> None:
    """Raise ParseError for options that mean nothing beside the others."""
    flags = _given_flags(arguments)
    if arguments.model.suffix == ".toml":
        words = [flag for name, flag in flags.items() if name not in _WITH_BUILD_FILES]
        if words:
            raise ParseError(
                f'{", ".join(words)}: a build file has these itself: the folder as output = "DIR" '
                "at its top, options in [defaults] or a target",
                where=str(arguments.model),
                remedy="write them there",
            )
        return

    words = [flags[name] for name in _OF_BUILD_FILES if name in flags]
    if words:
        raise ParseError(
            f"{', '.join(words)}: only for build files (.toml), and this is a model; leave it out"
        )

    words = [flags[name] for name in _SAID_BY_PIPELINE if name in flags]
    if words and arguments.pipeline:
        raise ParseError(
            f"--pipeline says which passes run, and {', '.join(words)} would too; put the option "
            "into the pipeline"
        )

    words = [flags[name] for name in _OF_A_PLAN if name in flags]
    if words and not arguments.device:
        raise ParseError(
            f"{', '.join(words)}: only for a plan, which needs --device PROFILE; give it"
        )


def _given_flags(arguments: Namespace) -> dict[str, str]:
    """Return the flags of the arguments that are not at their defaults, by name."""
    parser = ArgumentParser()
    add_arguments(parser)
    defaults = vars(parser.parse_args([str(arguments.model)]))
    flags: dict[str, str] = {}
    for action in parser._actions:
        name = action.dest
        if name in defaults and name != "model" and getattr(arguments, name) != defaults[name]:
            # What switches a default off is written last.
            is_switch = len(action.option_strings) > 1 and defaults[name] is True
            flags.setdefault(name, action.option_strings[-1 if is_switch else 0])
    return flags
