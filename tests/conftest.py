"""What the whole test run shares: it says in its summary whether the corpus of real models was there."""

import pytest

import corpus


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if corpus.folder() is None:
        terminalreporter.write_line(
            f"NO CORPUS: nothing was tested on real models; {corpus.DEFAULT} does not exist, set {corpus.VARIABLE}",
            red=True,
            bold=True,
        )


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update", action="store_true", help="rewrite what the pass cases in tests/cases expect")
