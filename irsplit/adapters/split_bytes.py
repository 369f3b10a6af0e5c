"""Bytes in, bytes out: a split behind a converter that returns a model as bytes.

    split = irsplit.split_bytes(tf.lite.TFLiteConverter.from_keras_model(network).convert())
    firmware, service = split.device, split.server

No file of the caller's is touched: the model is compiled in a temporary folder.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Unpack

from irsplit.base.atomic_files import new_folder
from irsplit.base.errors import BundleError, IrsplitError, ModelError
from irsplit.compilation.compiler import Compiled, compile
from irsplit.compilation.options import CompileKeywords, CompileOptions
from irsplit.compilation.samples import SampleSource
from irsplit.runtime.bundle.manifest import Manifest

IN_MEMORY = CompileOptions(report=False, remember=False)
"""Options for models without a file of their own: no report, and no file to remember."""

_TFLITE_MAGIC = slice(4, 8), b"TFL3"


@dataclass(frozen=True, slots=True)
class SplitSegment:
    """A segment: its placement, its model file, and its tensors in the file's order.

    Tensors have the names that they have in the source model.
    """

    name: str
    placement: str
    model: bytes = field(repr=False)
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SplitModel:
    """A bundle in memory."""

    segments: tuple[SplitSegment, ...]
    boundaries: tuple[bytes, ...] = field(repr=False)
    """The descriptors that the runtime opens, one between two segments."""
    warnings: tuple[str, ...]
    files: Mapping[str, bytes] = field(repr=False)
    """Every file of the bundle, the manifest included, by its path in the bundle's folder."""

    @property
    def device(self) -> bytes:
        """The model file of the one segment on the device.

        Raises:
            BundleError: The device has no segment, or several.
        """
        return self._only("device")

    @property
    def server(self) -> bytes:
        """The model file of the one segment on the server.

        Raises:
            BundleError: The server has no segment, or several.
        """
        return self._only("server")

    def save(self, folder: Path | str) -> Manifest:
        """Write the bundle, byte for byte as `irsplit.compile` writes it.

        Raises:
            BundleError: The folder holds something else, or cannot be written.
        """
        with new_folder(Path(folder)) as build:
            for name, data in self.files.items():
                path = build / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
        return Manifest.load(folder)

    def _only(self, placement: str) -> bytes:
        models = [segment.model for segment in self.segments if segment.placement == placement]
        if len(models) != 1:
            raise BundleError(
                f"{len(models)} segments run on the {placement}",
                remedy="take them from `segments`",
            )
        return models[0]


def split_bytes(
    model: bytes | bytearray,
    cut_names: Sequence[str] = (),
    /,
    options: CompileOptions = IN_MEMORY,
    *,
    name: str = "model",
    calibration: SampleSource = (),
    **changes: Unpack[CompileKeywords],
) -> SplitModel:
    """Split a model that is held in memory.

    Args:
        model: A .tflite file, or an .onnx file with its weights inside.
        cut_names: Legal cuts by id or tensor name; by keyword they are `cuts`.
        options: How to cut, code and write, as for `irsplit.compile`.
        name: The model's name in the manifest.
        calibration: Inputs of several calls, as for `irsplit.compile`.
        **changes: Fields of `options` by name, which replace those of `options`.

    Returns:
        The segments, the descriptors between them, and all files of the bundle.

    Raises:
        ModelError: The bytes are no model.
        IrsplitError: A cut or an option is at fault.

    Example:
        >>> data = open("examples/digits/digits.tflite", "rb").read()
        >>> [segment.placement for segment in split_bytes(data).segments]
        ['device', 'server']
    """
    options = (options.replaced(cuts=cut_names) if cut_names else options).replaced(**changes)
    options = options.replaced(remember=False)
    with tempfile.TemporaryDirectory(prefix="irsplit-") as folder:
        source = Path(folder) / f"{Path(name).stem}{_extension(model)}"
        source.write_bytes(model)
        try:
            compiled = compile(source, Path(folder) / "bundle", options, calibration=calibration)
        except IrsplitError as error:
            raise _without_folder(error, folder) from error
        return _in_memory(compiled)


def _without_folder(error: IrsplitError, folder: str) -> IrsplitError:
    """The error without the temporary folder, of which the caller knows nothing."""
    what, where = (text.replace(f"{folder}/", "") for text in (error.what, error.where))
    return type(error)(what, where=where, remedy=error.remedy)


def _in_memory(compiled: Compiled) -> SplitModel:
    """A bundle that was written, read whole."""
    manifest = compiled.manifest
    paths = sorted(path for path in manifest.folder.rglob("*") if path.is_file())
    files = {path.relative_to(manifest.folder).as_posix(): path.read_bytes() for path in paths}

    segments: list[SplitSegment] = []
    for info in manifest.segments:
        model = files[info.file]
        segments.append(SplitSegment(info.name, info.placement, model, info.inputs, info.outputs))
    return SplitModel(
        tuple(segments),
        tuple(schema.to_bytes() for schema in manifest.boundaries),
        tuple(remark.text for remark in compiled.remarks if remark.warning),
        files,
    )


def _extension(model: bytes | bytearray) -> str:
    """How a file with these bytes is named; whatever is not TFLite is read as ONNX."""
    if not model:
        raise ModelError("the model has no bytes", remedy="give what the converter returned")
    place, magic = _TFLITE_MAGIC
    return ".tflite" if model[place] == magic else ".onnx"
