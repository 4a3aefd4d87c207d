"""Figures that tests measure and do not assert: told at the end of the run, whichever process ran the test."""

from __future__ import annotations

from collections.abc import Callable

import pytest


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Takes a line for whoever reads the run."""
    return lambda line: record_property("told", line)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    told = [
        f"{report.nodeid.rpartition('/')[2]}: {line}"
        for report in terminalreporter.getreports("passed")
        for name, line in report.user_properties
        if name == "told" and report.when == "call"
    ]
    if told:
        terminalreporter.section("figures")
        terminalreporter.write_line("\n".join(told))
