"""The options of `irsplit verify`, and of `verify` in build files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from irsplit.base.progress import Progress, silent
from irsplit.compilation.input_words import parse_inputs
from irsplit.compilation.verification import Requirements, Verification, verify
from irsplit.runtime.bundle.manifest import Manifest


@dataclass(frozen=True, slots=True)
class CheckOptions:
    """The arguments of `irsplit.verify`, as words and paths."""

    samples: Sequence[Path] = ()
    """Files with the inputs of several calls."""
    inputs: Sequence[str] = ()
    """NAME=FILE: an input of every call."""
    seed: int = 0
    dims: Sequence[str] = ()
    """NAME=N: sizes of open dimensions of inputs that are made up."""
    agreement_measure: str = ""
    requirements: Requirements = Requirements()
    allow_nothing: bool = False

    def run(
        self,
        bundle: Path | str,
        model: Path | str | None = None,
        progress: Progress = silent,
    ) -> Verification:
        """Verify a bundle. Raises what `irsplit.verify` raises."""
        return verify(
            bundle,
            model,
            samples=self.samples,
            inputs=parse_inputs(self.inputs, Manifest.load(bundle).inputs),
            seed=self.seed,
            dims=self.dims,
            agreement_measure=self.agreement_measure,
            requirements=self.requirements,
            allow_nothing=self.allow_nothing,
            progress=progress,
        )
