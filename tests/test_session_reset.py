"""A session that is reset computes as a new one: what stateful segments kept is forgotten."""

from pathlib import Path

import pytest

import corpus
import irsplit
from irsplit.passes.analysis.cuts import legal_cuts
from stock_engines import same_bits

STATEFUL = [model for model in corpus.models("models") if model.stateful]


@pytest.mark.parametrize("model", corpus.cases(STATEFUL))
def test_reset_forgets_the_state(model: corpus.CorpusModel, tmp_path: Path) -> None:
    entry = irsplit.read_model(model.path).entry
    cuts = legal_cuts(entry)
    irsplit.compile_model(
        model.path, tmp_path / "bundle", [cuts[len(cuts) // 2].id], remember=False
    )
    session = irsplit.LocalSession(tmp_path / "bundle")
    names = [value.name for value in entry.inputs]
    calls = [dict(zip(names, feed, strict=True)) for feed in corpus.feeds(model, calls=3)]
    first, *_ = [list(session.run(call).values()) for call in calls]
    again = list(session.run(calls[0]).values())
    assert not same_bits(first, again)
    session.reset()
    assert same_bits(first, list(session.run(calls[0]).values()))
