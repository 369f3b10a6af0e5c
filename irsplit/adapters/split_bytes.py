"""Bytes in, bytes out: a split behind a converter that returns a model as bytes.

    split = irsplit.split_bytes(tf.lite.TFLiteConverter.from_keras_model(network).convert())
    firmware, service = split.device, split.server

No file of the caller's is touched: the model is compiled in a temporary folder, as `irsplit compile` does it.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from irsplit.base.atomic_files import new_folder
from irsplit.base.errors import BundleError, IrsplitError, ModelError
from irsplit.compilation.compiler import compile_model
from irsplit.runtime.bundle.manifest import Manifest

_TFLITE_MAGIC = slice(4, 8), b"TFL3"


@dataclass(frozen=True, slots=True)
class SplitSegment:
    """A part of the model: where it runs, its file as bytes, and its tensors by original name, in the file's order."""

    name: str
    placement: str
    model: bytes = field(repr=False)
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SplitModel:
    """A bundle in memory. `boundaries` are the descriptors that the runtime opens, one between two segments."""

    segments: tuple[SplitSegment, ...]
    boundaries: tuple[bytes, ...] = field(repr=False)
    warnings: tuple[str, ...]
    files: Mapping[str, bytes] = field(repr=False)
    """Every file of the bundle, the manifest included, by its path in the bundle's folder."""

    @property
    def device(self) -> bytes:
        """The model file of the device's segment. Raises BundleError when the device has none or several."""
        return self._only("device")

    @property
    def server(self) -> bytes:
        """The model file of the server's segment. Raises BundleError when the server has none or several."""
        return self._only("server")

    def save(self, folder: Path | str) -> Manifest:
        """Write the bundle, which the sessions run; it is the one that `compile_model` writes."""
        with new_folder(Path(folder)) as build:
            for name, data in self.files.items():
                path = build / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
        return Manifest.load(folder)

    def _only(self, place: str) -> bytes:
        found = [segment for segment in self.segments if segment.placement == place]
        if len(found) != 1:
            raise BundleError(
                f"{len(found)} segments run on the {place}; take them from `segments`"
            )
        return found[0].model


def split_bytes(
    model: bytes | bytearray, cuts: Sequence[str] = (), *, name: str = "model", **options: Any
) -> SplitModel:
    """Split a model that is held in memory: a .tflite file, or an .onnx file with its weights inside.

    `cuts` and `options` are those of `compile_model`; `name` is the model's name in the manifest. Raises what
    `compile_model` raises, and ModelError when the bytes are no model.
    """
    with tempfile.TemporaryDirectory(prefix="irsplit-") as folder:
        source = Path(folder) / f"{Path(name).stem}{_extension(model)}"
        source.write_bytes(model)
        try:
            compiled = compile_model(
                source, Path(folder) / "bundle", cuts, remember=False, **options
            )
        except IrsplitError as error:
            raise type(error)(str(error).replace(f"{folder}/", "")) from error
        manifest = compiled.manifest
        files = {_relative(path, manifest): path.read_bytes() for path in _files(manifest)}
    segments = [
        SplitSegment(
            segment.name, segment.placement, files[segment.file], segment.inputs, segment.outputs
        )
        for segment in manifest.segments
    ]
    return SplitModel(
        tuple(segments),
        tuple(boundary.to_bytes() for boundary in manifest.boundaries),
        tuple(remark.text for remark in compiled.remarks if remark.warning),
        files,
    )


def _extension(model: bytes | bytearray) -> str:
    if not model:
        raise ModelError("the model has no bytes; give what the converter returned")
    place, magic = _TFLITE_MAGIC
    return ".tflite" if model[place] == magic else ".onnx"


def _files(manifest: Manifest) -> list[Path]:
    return sorted(path for path in manifest.folder.rglob("*") if path.is_file())


def _relative(path: Path, manifest: Manifest) -> str:
    return path.relative_to(manifest.folder).as_posix()
