"""Passes for onnx-ir's PassManager.

They take the `model` of what `torch.onnx.export(..., dynamo=True)` returns:

    program = torch.onnx.export(network, arguments, dynamo=True)
    passes = [CommonSubexpressionEliminationPass(), SplitPass("build")]
    onnx_ir.passes.PassManager(passes)(program.model)

`SplitPass` writes a bundle and hands the model on; `SegmentPass` hands on one of its segments.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Unpack

import onnx_ir
from onnx_ir.passes import FunctionalPass, PassBase, PassResult

from irsplit.adapters.metadata import segment_properties
from irsplit.adapters.split_bytes import IN_MEMORY
from irsplit.base.errors import BundleError
from irsplit.compilation.compiler import Compiled, compile
from irsplit.compilation.options import CompileKeywords, CompileOptions
from irsplit.compilation.samples import SampleSource

_INLINE_LIMIT = 1 << 30
"""Bytes of weights from which on they are saved beside the model: protobuf cannot hold 2 GiB."""


class SplitPass(PassBase):
    """Write a bundle for the model, and leave the model as it is.

    Args:
        folder: Where the bundle goes.
        cut_names: Legal cuts by id or tensor name; by keyword they are `cuts`.
        options: How to cut, code and write, as for `irsplit.compile`.
        name: The model's name in the manifest.
        calibration: Inputs of several calls, as for `irsplit.compile`.
        **changes: Fields of `options` by name, which replace those of `options`.

    Example:
        >>> split = SplitPass("build/digits", ["bottleneck/relu"], codec="raw")
        >>> split(onnx_ir.load("examples/digits/digits.onnx")).modified
        False
        >>> len(split.compiled.manifest.segments)
        2
    """

    def __init__(
        self,
        folder: Path | str,
        cut_names: Sequence[str] = (),
        /,
        options: CompileOptions = IN_MEMORY,
        *,
        name: str = "model",
        calibration: SampleSource = (),
        **changes: Unpack[CompileKeywords],
    ) -> None:
        self.folder = Path(folder)
        self.options = _options(options, cut_names, changes)
        self.name = name
        self.calibration = calibration
        self.compiled: Compiled | None = None
        """What `irsplit.compile` returned, after the pass ran."""

    @property
    def in_place(self) -> Literal[True]:
        """The pass returns the model that it was given."""
        return True

    @property
    def changes_input(self) -> Literal[False]:
        """The pass changes nothing of the model."""
        return False

    def call(self, model: onnx_ir.Model) -> PassResult:
        """Write the bundle. Raises what `irsplit.compile` raises."""
        self.compiled = compile_ir(
            model, self.folder, self.options, name=self.name, calibration=self.calibration
        )
        return PassResult(model, False)


class SegmentPass(FunctionalPass):
    """Replace the model by the one segment of it that has a placement.

    The segment's metadata say what crosses (see `irsplit.adapters.metadata`). Two passes with
    equal arguments make the two sides of one bundle.

    Args:
        placement: "device" or "server".
        cut_names: Legal cuts by id or tensor name; by keyword they are `cuts`.
        options: How to cut and code, as for `irsplit.compile`.
        name: The model's name in the metadata.
        calibration: Inputs of several calls, as for `irsplit.compile`.
        **changes: Fields of `options` by name, which replace those of `options`.

    Example:
        >>> device = SegmentPass("device", ["bottleneck/relu"])
        >>> segment = device(onnx_ir.load("examples/digits/digits.onnx")).model
        >>> segment.metadata_props["irsplit.segment"]
        'device'
    """

    def __init__(
        self,
        placement: str,
        cut_names: Sequence[str] = (),
        /,
        options: CompileOptions = IN_MEMORY,
        *,
        name: str = "model",
        calibration: SampleSource = (),
        **changes: Unpack[CompileKeywords],
    ) -> None:
        self.placement = placement
        self.options = _options(options, cut_names, changes)
        self.name = name
        self.calibration = calibration

    def call(self, model: onnx_ir.Model) -> PassResult:
        """The segment. Raises what `irsplit.compile` raises; BundleError unless it is one."""
        with tempfile.TemporaryDirectory(prefix="irsplit-") as folder:
            bundle = Path(folder) / "bundle"
            compiled = compile_ir(
                model, bundle, self.options, name=self.name, calibration=self.calibration
            )
            manifest = compiled.manifest

            placements = [segment.placement for segment in manifest.segments]
            if placements.count(self.placement) != 1:
                raise BundleError(
                    f"{placements.count(self.placement)} segments run on the {self.placement}",
                    remedy="use SplitPass, which writes all",
                )
            index = placements.index(self.placement)
            segment = onnx_ir.load(manifest.path(manifest.segments[index].file))

            # The weights have to be in memory before the folder is gone.
            onnx_ir.external_data.load_to_model(segment)
            segment.metadata_props.update(segment_properties(manifest, index))
        return PassResult(segment, True)


def compile_ir(
    model: onnx_ir.Model,
    folder: Path | str,
    options: CompileOptions = IN_MEMORY,
    *,
    name: str = "model",
    calibration: SampleSource = (),
) -> Compiled:
    """Compile a model in memory into a bundle, as `irsplit.compile` does with a file.

    The model is saved first. Its weights go into the saved file, unless they are many or lie in
    files of their own. `onnx_ir.save` writes the same file, which `irsplit.verify` can take as
    the bundle's source.

    Args:
        model: The model.
        folder: Where the bundle goes.
        options: How to cut, code and write.
        name: The model's name in the manifest.
        calibration: Inputs of several calls.

    Raises:
        IrsplitError: The model, a cut, an option or the folder is at fault.
    """
    with tempfile.TemporaryDirectory(prefix="irsplit-") as temporary:
        source = Path(temporary) / f"{name}.onnx"
        onnx_ir.save(model, source, external_data=None if _fits_inline(model) else f"{name}.data")
        return compile(source, folder, options.replaced(remember=False), calibration=calibration)


def _options(
    options: CompileOptions, cuts: Sequence[str], changes: CompileKeywords
) -> CompileOptions:
    """The options with the cuts and the changes that a pass was given."""
    return (options.replaced(cuts=cuts) if cuts else options).replaced(**changes)


def _fits_inline(model: onnx_ir.Model) -> bool:
    """Whether all weights lie in the model itself, and are few enough for one file."""
    size = 0
    for graph in model.graphs():
        for value in graph.initializers.values():
            if isinstance(value.const_value, onnx_ir.ExternalTensor):
                return False
            size += 0 if value.const_value is None else value.const_value.nbytes
    return size < _INLINE_LIMIT
