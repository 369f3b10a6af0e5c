"""Pipelines as text, both ways; what a pass does wrong is named."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irsplit.base.errors import ParseError, PassError
from irsplit.ir import Model, parse_model
from irsplit.passes import Context, Pass, Pipeline, registry
from irsplit.passes.compress_boundary import CompressBoundary
from irsplit.passes.partition import Partition
from irsplit.passes.quantize_boundary import QuantizeBoundary
from irsplit.passes.remove_unused import RemoveUnused


@dataclass(frozen=True)
class Shuffle:
    """A pass of somebody else, with an option of every kind; it leaves the model invalid."""

    name: ClassVar[str] = "shuffle"
    seed: int
    share: float = 0.5
    at_once: bool = False
    only: str | None = None
    among: tuple[int, ...] = ()

    def run(self, model: Model, context: Context) -> bool:
        model.entry.nodes.reverse()
        return True


KNOWN: dict[str, type[Pass]] = {**registry(), Shuffle.name: Shuffle}
INTEGERS = st.integers(-(2**40), 2**40)
PASSES = st.one_of(
    st.builds(RemoveUnused),
    st.builds(CompressBoundary, st.text(), INTEGERS),
    st.builds(QuantizeBoundary, bits=INTEGERS),
    st.builds(Partition, st.lists(st.text()).map(tuple), INTEGERS, st.lists(st.text()).map(tuple)),
    st.builds(
        Shuffle,
        INTEGERS,
        st.floats(allow_nan=False, allow_infinity=False),
        st.booleans(),
        st.none() | st.text(),
        st.lists(INTEGERS).map(tuple),
    ),
)


@given(st.lists(PASSES).map(tuple))
def test_the_text_of_a_pipeline_parses_back(passes: tuple[Pass, ...]) -> None:
    pipeline = Pipeline(passes)
    assert Pipeline.parse(str(pipeline), KNOWN) == pipeline


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("partition{cut=12 cut=\"block 3/add\"} , remove-unused",
         'partition{cut=12 cut="block 3/add"},remove-unused'),
        ("shuffle{share=0.5 seed=1}", "shuffle{seed=1}"),
        (" shuffle{ seed=3 at-once=true } ", "shuffle{seed=3 at-once=true}"),
        ("", ""),
    ],
)  # fmt: skip
def test_pipelines_print_what_is_not_the_default(text: str, canonical: str) -> None:
    assert str(Pipeline.parse(text, KNOWN)) == canonical


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dce", "unknown pass 'dce'; known passes: "),
        ("remove-unused,", "column 15: expected a pass"),
        ("remove-unused partition", "column 15: expected ','"),
        ("remove-unused{all=true}", "pass 'remove-unused' has no option 'all'; its options: none"),
        (
            "partition{max_tensors=2}",
            "has no option 'max_tensors'; its options: cut, max-tensors, places",
        ),
        ("partition{max-tensors=few}", "option 'max-tensors' takes a value of type int, not 'few'"),
        (
            "partition{max-tensors=1 max-tensors=2}",
            "option 'max-tensors' of pass 'partition' is given twice",
        ),
        ("partition{cut}", "expected '='"),
        ('partition{cut="a}', "the string has no end"),
        ("partition{cut=a", "expected an option"),
        ("shuffle", "pass 'shuffle' needs option 'seed'; write shuffle{seed=VALUE}"),
        ("shuffle{seed=1 at-once=yes}", "option 'at-once' takes a value of type bool, not 'yes'"),
    ],
)
def test_what_does_not_parse_says_why(text: str, message: str) -> None:
    with pytest.raises(ParseError) as error:
        Pipeline.parse(text, KNOWN)
    assert message in str(error.value)
    assert str(error.value).startswith(f"pipeline '{text}', column ")


def test_a_pass_that_leaves_the_model_invalid_is_named() -> None:
    model = parse_model(
        "graph @main(%x: f32[1]) -> (%b) { %a = t.A(%x) : f32[1] %b = t.B(%a) : f32[1] }"
    )
    with pytest.raises(PassError) as error:
        Pipeline((RemoveUnused(), Shuffle(3))).run(model, Context())
    text = str(error.value)
    assert (
        "pass 'shuffle' (step 2 of 'remove-unused,shuffle{seed=3}') left the model invalid: "
        "input 0 (%a)"
    ) in text
    assert ">   0  %b = t.B(%a) : f32[1]" in text
