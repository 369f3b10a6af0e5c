"""Some mutants for every reader (`benchmarks.fuzz_readers` has more); escapes are found."""

import pytest

import misbehaving
from benchmarks import fuzz_readers
from hostile.runner import fuzz
from hostile.target import Target, targets
from misbehaving import BEHAVIOURS

SEED = 20


@pytest.mark.parametrize("target", targets(), ids=lambda target: target.name)
def test_nothing_escapes(target: Target) -> None:
    result = fuzz(target, SEED, target.in_tests)
    assert [(escape.index, escape.what, escape.shown) for escape in result.escapes] == []
    assert result.tries == target.in_tests
    assert result.refused > 0


@pytest.mark.parametrize("target", targets(), ids=lambda target: target.name)
def test_a_seed_gives_the_same_mutants(target: Target) -> None:
    first, again, other = (list(map(repr, target.mutants(seed, 10))) for seed in (1, 1, 2))
    assert len(first) == 10
    assert first == again != other


WHAT = {
    2: "KeyError: 'raise'",
    3: "UserWarning: warn",
    4: "took longer than 0.5 s",
    5: "SystemExit: 3",
    6: "died of SIGABRT: about to abort",
    7: "MemoryError",
    8: "OSError: [Errno 27] File too large",
}


def test_escapes_are_found() -> None:
    (target,) = misbehaving.TARGETS
    result = fuzz(target, SEED, len(BEHAVIOURS), misbehaving.__name__)
    assert (result.refused, result.accepted, result.gave_up) == (1, 2, False)
    found = {escape.index: escape for escape in result.escapes}
    assert found.keys() == WHAT.keys()
    for index, what in WHAT.items():
        assert found[index].what.startswith(what)
        assert found[index].shown == f"{len(BEHAVIOURS[index])} bytes: {BEHAVIOURS[index].hex(' ')}"
    row = fuzz_readers.row(result)
    assert row.cells[:5] == ("self: behaviours", "10", "1", "2", "7")
    assert any(f"seed {SEED}, mutant 6: died of SIGABRT" in line for line in row.lines)
