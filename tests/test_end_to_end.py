"""The race among cuts: the fastest wins by its median, and nobody runs who cannot win."""

from collections.abc import Callable
from itertools import chain, repeat

from benchmarks.end_to_end import race


def runner(*seconds: float) -> Callable[[], float]:
    """Runs that take these times, the last one ever after."""
    times = chain(seconds, repeat(seconds[-1]))
    return lambda: next(times)


def test_the_best_median_counts_without_the_first_run():
    runs = {
        "cold": runner(9.0, 1.0),
        "spiky": runner(0.9, 1.1, 0.9, 1.1, 0.9, 1.1),
        "late": runner(1.2),
    }
    assert race(runs, dict.fromkeys(runs, 0.5), 5, ()) == {"cold": 1.0, "spiky": 1.1, "late": 1.2}


def test_who_needs_longer_than_the_best_has_taken_is_not_run():
    ran: list[str] = []

    def watched(name: str, seconds: float) -> Callable[[], float]:
        return lambda: (ran.append(name), seconds)[1]

    runs = {
        name: watched(name, seconds)
        for name, seconds in {"near": 1.0, "far": 3.0, "planned": 4.0}.items()
    }
    found = race(runs, {"near": 0.5, "far": 2.0, "planned": 3.0}, 3, ("planned",))
    assert found == {"near": 1.0, "planned": 4.0}
    assert "far" not in ran


def test_the_slow_drop_out_unless_they_stay_always():
    runs = {"best": runner(1.0), "close": runner(1.1), "slow": runner(2.0), "planned": runner(2.5)}
    assert race(runs, dict.fromkeys(runs, 0.0), 4, ("planned",)) == {
        "best": 1.0,
        "close": 1.1,
        "planned": 2.5,
    }
