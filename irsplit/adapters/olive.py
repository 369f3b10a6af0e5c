"""Olive: a pass that splits, and a pass that checks what later passes made of the segments.

Olive finds them through a package config, which `irsplit olive-config` writes:

    olive run --config workflow.json --package-config olive-irsplit.json

`IrsplitSplit` gives a composite model with one component per segment. Olive passes on model files
alone, so their `metadata_props` say what crosses. `IrsplitCheck`, put last, refuses segments whose
boundary another pass has changed.
"""

import shutil
from pathlib import Path
from typing import Any

import onnx
from olive.hardware.accelerator import AcceleratorSpec
from olive.model import CompositeModelHandler, ONNXModelHandler
from olive.passes import Pass
from olive.passes.pass_config import BasePassConfig, PassConfigParam

from irsplit.adapters.metadata import check_segment, segment_properties
from irsplit.adapters.split_bytes import IN_MEMORY
from irsplit.compilation.compiler import compile
from irsplit.runtime.bundle.manifest import Manifest


class IrsplitSplit(Pass):
    """Split an ONNX model at legal cuts into a composite model, one component per segment."""

    @classmethod
    def _default_config(cls, accelerator_spec: AcceleratorSpec) -> dict[str, PassConfigParam]:
        return {
            "cuts": PassConfigParam(
                type_=list[str],
                default_value=[],
                description="Ids or tensor names; none: the smallest boundary.",
            ),
            "max_tensors": PassConfigParam(
                type_=int, default_value=1, description="Tensors that may cross at a cut."
            ),
            "codec": PassConfigParam(
                type_=str, default_value="zstandard", description="Lossless frame codec."
            ),
        }

    def _run_for_config(
        self, model: ONNXModelHandler, config: type[BasePassConfig], output_model_path: str
    ) -> CompositeModelHandler:
        options: Any = config
        folder = Path(output_model_path).with_suffix("")
        compiled = compile(
            model.model_path,
            folder / "bundle",
            IN_MEMORY,
            cuts=options.cuts,
            max_tensors=options.max_tensors,
            codec=options.codec,
        )
        manifest = compiled.manifest
        components = [
            _component(manifest, index, folder) for index in range(len(manifest.segments))
        ]
        return CompositeModelHandler(components, [segment.name for segment in manifest.segments])


class IrsplitCheck(Pass):
    """Refuse a segment that no longer gives or takes what its boundary says; change nothing."""

    @classmethod
    def _default_config(cls, accelerator_spec: AcceleratorSpec) -> dict[str, PassConfigParam]:
        return {}

    def _run_for_config(
        self, model: ONNXModelHandler, config: type[BasePassConfig], output_model_path: str
    ) -> ONNXModelHandler:
        check_segment(Path(model.model_path))
        return model


def _component(manifest: Manifest, index: int, folder: Path) -> ONNXModelHandler:
    """A copy of the segment's files with the properties; the bundle beside it stays as it is."""
    segment = manifest.segments[index]
    source = manifest.path(segment.file)
    target = folder / segment.name
    shutil.copytree(
        source.parent, target, ignore=shutil.ignore_patterns("*.irsd"), dirs_exist_ok=True
    )
    entries = [
        onnx.StringStringEntryProto(key=key, value=text)
        for key, text in segment_properties(manifest, index).items()
    ]
    # Protobuf merges messages whose bytes follow each other, so the weights need not be loaded.
    with (target / source.name).open("ab") as file:
        file.write(onnx.ModelProto(metadata_props=entries).SerializeToString())
    return ONNXModelHandler(model_path=str(target), onnx_file_name=source.name)
