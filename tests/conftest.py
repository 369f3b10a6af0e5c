"""What the whole run shares: a cache, properties without a deadline, a word on a missing corpus."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

import corpus

# A busy machine is no finding: no example has a deadline, nor the making of one.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Where sources lie is remembered per test process: others may know other places."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if corpus.folder() is None:
        terminalreporter.write_line(
            (
                f"NO CORPUS: nothing was tested on real models; {corpus.DEFAULT} does not exist, "
                f"set {corpus.VARIABLE}"
            ),
            red=True,
            bold=True,
        )


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update",
        action="store_true",
        help="rewrite what the pass cases in tests/cases expect; no new errors",
    )
