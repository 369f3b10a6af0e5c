"""Passes for onnx-ir's PassManager, and so for the `model` of what `torch.onnx.export(..., dynamo=True)` returns.

    program = torch.onnx.export(network, arguments, dynamo=True)
    onnx_ir.passes.PassManager([CommonSubexpressionEliminationPass(), SplitPass("build")])(program.model)

`SplitPass` writes a bundle and hands the model on; `SegmentPass` hands on one of its segments.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import onnx_ir
from onnx_ir.passes import FunctionalPass, PassBase, PassResult

from irsplit.adapters.metadata import segment_properties
from irsplit.base.errors import BundleError
from irsplit.compilation.compiler import Compiled, compile_model

_INLINE_LIMIT = 1 << 30
"""Bytes of weights from which on they are saved beside the model: protobuf cannot hold 2 GiB."""


class SplitPass(PassBase):
    """Write a bundle for the model into `folder`, leaving the model as it is.

    `cuts` and `options` are those of `irsplit.compile_model`. `compiled` is what it returned, after the pass ran.
    """

    def __init__(
        self, folder: Path | str, cuts: Sequence[str] = (), *, name: str = "model", **options: Any
    ) -> None:
        self.folder = Path(folder)
        self.cuts = tuple(cuts)
        self.name = name
        self.options = options
        self.compiled: Compiled | None = None

    @property
    def in_place(self) -> Literal[True]:
        return True

    @property
    def changes_input(self) -> Literal[False]:
        return False

    def call(self, model: onnx_ir.Model) -> PassResult:
        self.compiled = compile_ir(model, self.folder, self.cuts, name=self.name, **self.options)
        return PassResult(model, False)


class SegmentPass(FunctionalPass):
    """The model becomes the segment of itself that runs at `place`: "device" or "server".

    Its metadata say what crosses (see `irsplit.adapters.metadata`); both sides come from passes with equal arguments.
    """

    def __init__(
        self, place: str, cuts: Sequence[str] = (), *, name: str = "model", **options: Any
    ) -> None:
        self.placement = place
        self.cuts = tuple(cuts)
        self.name = name
        self.options = options

    def call(self, model: onnx_ir.Model) -> PassResult:
        with tempfile.TemporaryDirectory(prefix="irsplit-") as folder:
            manifest = compile_ir(
                model, Path(folder) / "bundle", self.cuts, name=self.name, **self.options
            ).manifest
            found = [
                index
                for index, segment in enumerate(manifest.segments)
                if segment.placement == self.placement
            ]
            if len(found) != 1:
                raise BundleError(
                    f"{len(found)} segments run on the {self.placement}; use SplitPass, which writes all"
                )
            segment = onnx_ir.load(manifest.path(manifest.segments[found[0]].file))
            onnx_ir.external_data.load_to_model(segment)  # the folder goes
            segment.metadata_props.update(segment_properties(manifest, found[0]))
        return PassResult(segment, True)


def compile_ir(
    model: onnx_ir.Model,
    folder: Path | str,
    cuts: Sequence[str] = (),
    *,
    name: str = "model",
    **options: Any,
) -> Compiled:
    """`irsplit.compile_model` for a model in memory.

    Its weights are inside of the file that is compiled unless they are many or already lie in files of their own:
    `onnx_ir.save` gives the same file, with which `irsplit verify --model` compares.
    """
    with tempfile.TemporaryDirectory(prefix="irsplit-") as temporary:
        source = Path(temporary) / f"{name}.onnx"
        onnx_ir.save(model, source, external_data=None if _fits_inline(model) else f"{name}.data")
        return compile_model(source, folder, cuts, remember=False, **options)


def _fits_inline(model: onnx_ir.Model) -> bool:
    weights = [
        value.const_value for graph in model.graphs() for value in graph.initializers.values()
    ]
    return all(not isinstance(weight, onnx_ir.ExternalTensor) for weight in weights) and (
        sum(weight.nbytes for weight in weights if weight is not None) < _INLINE_LIMIT
    )
