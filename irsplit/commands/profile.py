"""irsplit profile MODEL -o profile.json, irsplit profile BUNDLE -o profile.json"""

import datetime
from argparse import ArgumentParser, Namespace
from pathlib import Path

from irsplit.base.atomic_files import write_file
from irsplit.base.errors import PlanError
from irsplit.commands.arguments import add_cuts
from irsplit.commands.engine import add_engine, engine_options
from irsplit.commands.inputs import add_dims, bundle_dims, model_dims, parse_inputs
from irsplit.commands.progress import progress
from irsplit.compilation.compiler import whole_model
from irsplit.dialects.registry import dialect_of
from irsplit.measure.bundle_profiling import profile_bundle, tensors_to_feed
from irsplit.measure.device_fit import device_toml, fit
from irsplit.measure.measurement import Effort
from irsplit.measure.profiling import profile_model
from irsplit.passes.planning.stages import chains
from irsplit.passes.preparation import prepared
from irsplit.planner import human
from irsplit.profiles.measured import Measured, ModelProfile, to_json
from irsplit.runtime.bundle.manifest import Manifest
from irsplit.runtime.bundle.store import is_bundle

EXAMPLES = """
irsplit profile examples/digits/digits.onnx -o build/profile.json --quick
irsplit plan examples/digits/digits.onnx --device build/profile.json,slowdown=8 --link lte
irsplit compile examples/digits/digits.onnx -o build/three --cut 4 --cut 8 --cut 11 --adaptive
irsplit profile build/three -o build/device.json --quick
irsplit plan examples/digits/digits.onnx --device build/device.json --link lte
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "model",
        type=Path,
        help="an .onnx or .tflite file; or a bundle (folder or packed side), of which those segments are measured "
        "that are there, without the model",
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE", help="the profile, .json"
    )
    add_cuts(parser)
    add_engine(parser)
    parser.add_argument(
        "--runs",
        type=int,
        default=15,
        help="runs of each part, of which the median counts; default 15",
    )
    parser.add_argument("--warmup", type=int, default=3, help="runs before those; default 3")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="measure in one process: ten times faster, memory is then a guess",
    )
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="real inputs; default: made up",
    )
    parser.add_argument(
        "--fit",
        type=Path,
        metavar="FILE.toml",
        help="also learn this machine's rates by operator class, as a device profile for other models",
    )
    add_dims(parser)


def run(arguments: Namespace) -> int:
    if min(arguments.threads, arguments.runs, arguments.warmup) < 1:
        raise PlanError("--threads, --runs and --warmup must be at least 1")
    if is_bundle(arguments.model):
        _profile_bundle(arguments)
    else:
        _profile_model(arguments)
    return 0


def _effort(arguments: Namespace, format: str) -> Effort:
    options = engine_options(arguments, format)
    return Effort(options, arguments.warmup, arguments.runs, fresh=not arguments.quick)


def _profile_model(arguments: Namespace) -> None:
    effort = _effort(arguments, dialect_of(arguments.model).name)
    infos = whole_model(arguments.model)[1]
    with progress() as told:
        profile = profile_model(
            arguments.model,
            inputs=parse_inputs(arguments.input, infos),
            dims=model_dims(arguments.dim, arguments.model),
            max_tensors=arguments.max_tensors,
            rematerialise=arguments.rematerialise,
            effort=effort,
            progress=told,
        )
    _write(arguments.output, profile)
    print(
        f"whole model: {human('latency', profile.whole.wall_ns)}, {human('memory', profile.whole.peak_bytes)}"
    )
    print(f"{len(profile.cuts)} cuts measured: {arguments.output}")
    if arguments.fit is not None:
        _fit(arguments, profile)


def _profile_bundle(arguments: Namespace) -> None:
    given = {"--fit": arguments.fit, "--max-tensors": arguments.max_tensors > 1}
    given["--no-rematerialise"] = not arguments.rematerialise
    if words := [word for word, value in given.items() if value]:
        raise PlanError(
            f"{', '.join(words)}: only for a model, and {arguments.model} is a bundle; leave it out"
        )
    manifest = Manifest.load(arguments.model)
    effort = _effort(arguments, manifest.segments[0].format)
    infos = tensors_to_feed(manifest)
    with progress() as told:
        profile = profile_bundle(
            arguments.model,
            inputs=parse_inputs(arguments.input, infos),
            dims=bundle_dims(arguments.dim, infos, manifest),
            effort=effort,
            progress=told,
        )
    _write(arguments.output, profile)
    for segment, load in zip(manifest.segments, profile.segments, strict=True):
        found = (
            f"{human('latency', load.wall_ns)}, {human('memory', load.peak_bytes)}"
            if load
            else "not here"
        )
        print(f"{segment.name}: {found}")
    count = sum(load is not None for load in profile.segments)
    print(
        f"{count} of {len(profile.segments)} segments of {profile.model} measured: {arguments.output}"
    )


def _write(path: Path, profile: Measured) -> None:
    write_file(path, lambda file: file.write(to_json(profile).encode()))
    print(f"{profile.machine}; {profile.engine}, {profile.threads} thread(s)")


def _fit(arguments: Namespace, profile: ModelProfile) -> None:
    dialect = dialect_of(arguments.model)
    model = dialect.read(arguments.model)
    context = prepared(model, dialect, rematerialise=arguments.rematerialise)
    found = fit(
        chains(context.cuts(model, arguments.max_tensors))[0], dialect.macs, profile, dialect.summed
    )
    text = device_toml(found, datetime.date.today())
    write_file(arguments.fit, lambda file: file.write(text.encode()))
    error = f"median error {100 * found.median_error:.0f} %, {100 * found.total_error:.0f} % in all"
    print(f"rates learned from {found.parts} parts, {error}: {arguments.fit}")
