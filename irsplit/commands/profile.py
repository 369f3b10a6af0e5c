"""irsplit profile MODEL|BUNDLE -o profile.json: measure on this device."""

import datetime
from argparse import ArgumentParser, Namespace
from pathlib import Path

from irsplit.base.atomic_files import write_file
from irsplit.base.errors import PlanError
from irsplit.commands.arguments import add_cuts
from irsplit.commands.engine import add_engine, engine_options
from irsplit.commands.inputs import add_dims
from irsplit.commands.progress import progress
from irsplit.compilation.input_words import parse_inputs
from irsplit.compilation.model_file import ModelFile
from irsplit.compilation.samples import input_infos
from irsplit.measure.bundle_profiling import tensors_to_feed
from irsplit.measure.device_fit import device_toml, fit
from irsplit.measure.interface import profile
from irsplit.measure.measurement import Effort
from irsplit.passes.planning.stages import chains
from irsplit.passes.preparation import prepared
from irsplit.planner import human
from irsplit.profiles.measured import BundleProfile, Measured, ModelProfile, to_json
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
    """Declare what the command takes."""
    parser.add_argument(
        "model",
        type=Path,
        help="an .onnx or .tflite file; or a bundle (folder or packed side), whose segments are "
        "measured without the model, as far as they are there",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="FILE",
        help="the profile to write, .json",
    )

    # What is measured, and how carefully.
    add_cuts(parser)
    add_engine(parser)
    parser.add_argument(
        "--runs",
        type=int,
        default=15,
        help="how often each stage runs; the median counts; default 15",
    )
    parser.add_argument(
        "--warmup", type=int, default=3, help="runs before those that count; default 3"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="measure in one process: ten times faster, but memory is then a guess",
    )

    # On which inputs, and what else is written.
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="a real input; without it, inputs are made up",
    )
    parser.add_argument(
        "--fit",
        type=Path,
        metavar="FILE.toml",
        help="also learn the rates of this device by operator class, and write them as a device "
        "profile for other models",
    )
    add_dims(parser)


def run(arguments: Namespace) -> int:
    """Measure a model or a bundle, and write the profile."""
    if min(arguments.threads, arguments.runs, arguments.warmup) < 1:
        raise PlanError("--threads, --runs and --warmup must be at least 1")
    if is_bundle(arguments.model):
        _profile_bundle(arguments)
    else:
        _profile_model(arguments)
    return 0


def _effort(arguments: Namespace, format: str) -> Effort:
    """Read how carefully to measure."""
    options = engine_options(arguments, format)
    return Effort(options, arguments.warmup, arguments.runs, fresh=not arguments.quick)


def _profile_model(arguments: Namespace) -> None:
    """Measure a model, and learn rates where --fit asks for them."""
    file = ModelFile.read(arguments.model)
    with progress() as show:
        measured = profile(
            file,
            inputs=parse_inputs(arguments.input, input_infos(file.model.entry)),
            dims=arguments.dims,
            max_tensors=arguments.max_tensors,
            rematerialise=arguments.rematerialise,
            effort=_effort(arguments, file.dialect.name),
            progress=show,
        )
    assert isinstance(measured, ModelProfile)

    _write(arguments.output, measured)
    latency = human("latency", measured.whole.wall_ns)
    print(f"whole model: {latency}, {human('memory', measured.whole.peak_bytes)}")
    print(f"{len(measured.cuts)} cuts measured: {arguments.output}")
    if arguments.fit is not None:
        _fit(arguments, file, measured)


def _profile_bundle(arguments: Namespace) -> None:
    """Measure a bundle. Raises PlanError for options that only a model has."""
    useless = {
        "--fit": arguments.fit is not None,
        "--max-tensors": arguments.max_tensors > 1,
        "--no-rematerialise": not arguments.rematerialise,
    }
    flags = [flag for flag, is_given in useless.items() if is_given]
    if flags:
        raise PlanError(
            f"{', '.join(flags)}: only for a model, and {arguments.model} is a bundle; leave it out"
        )

    manifest = Manifest.load(arguments.model)
    with progress() as show:
        measured = profile(
            arguments.model,
            inputs=parse_inputs(arguments.input, tensors_to_feed(manifest)),
            dims=arguments.dims,
            effort=_effort(arguments, manifest.segments[0].format),
            progress=show,
        )
    assert isinstance(measured, BundleProfile)

    _write(arguments.output, measured)

    for segment, load in zip(manifest.segments, measured.segments, strict=True):
        text = "not here"
        if load is not None:
            text = f"{human('latency', load.wall_ns)}, {human('memory', load.peak_bytes)}"
        print(f"{segment.name}: {text}")
    count = sum(load is not None for load in measured.segments)
    of = f"{len(measured.segments)} segments of {measured.model}"
    print(f"{count} of {of} measured: {arguments.output}")


def _write(path: Path, profile: Measured) -> None:
    """Write a profile, and print its conditions."""
    write_file(path, lambda file: file.write(to_json(profile).encode()))
    print(f"{profile.machine}; {profile.engine}, {profile.threads} thread(s)")


def _fit(arguments: Namespace, file: ModelFile, profile: ModelProfile) -> None:
    """Learn the rates of this device from a profile, and write them as one of their own."""
    context = prepared(file.model, file.dialect, rematerialise=arguments.rematerialise)
    stages = chains(context.cuts(file.model, arguments.max_tensors))[0]
    rates = fit(stages, file.dialect.macs, profile, file.dialect.summed)

    text = device_toml(rates, datetime.date.today())
    write_file(arguments.fit, lambda stream: stream.write(text.encode()))
    error = f"median error {100 * rates.median_error:.0f} %, {100 * rates.total_error:.0f} % in all"
    print(f"rates learned from {rates.parts} parts, {error}: {arguments.fit}")
