from __future__ import annotations

import os
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from peers.build import ensure
from sandbox.shell import SandboxError

SLOW = Path(__file__).parent / "slow.txt"
SHARED = Path(__file__).resolve().parent.parent.parent / "shared"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite", action="store_true", help="write the traces anew; read the diff")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what slow.txt names."""
    slow = set(SLOW.read_text().splitlines())
    for item in items:
        if item.nodeid in slow:
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def rewrite(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--rewrite"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a skip is a failure, whoever skips."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("CI") == "true":
        report.outcome = "failed"
        report.longrepr = f"in CI a skip is a failure: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def conformance() -> Path:
    """The independent cases; the tests that need them say so where the folder is absent."""
    folder = SHARED / "conformance"
    if not folder.is_dir():
        if os.environ.get("CI") == "true":
            pytest.fail("../shared/conformance is missing, and in CI a skip is a failure")
        pytest.skip("../shared/conformance is not there: independent cases are not run")
    return folder


@pytest.fixture(scope="session")
def peer() -> Callable[[str], Path]:
    """Builds one of tests/peers; where that can not be, its tests say so."""

    def build(module: str) -> Path:
        try:
            return ensure(module)
        except SandboxError as error:
            if os.environ.get("CI") == "true":
                raise
            return pytest.skip(f"{module} can not be built here: {error}")

    return build


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Show a line at the end of the run, whichever process the test ran in."""
    return lambda line: record_property("tell", line)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    lines = [
        str(value)
        for report in terminalreporter.getreports("passed")
        if report.when == "call"
        for name, value in report.user_properties
        if name == "tell"
    ]
    if lines:
        terminalreporter.section("independent cases and counts")
    for line in lines:
        terminalreporter.write_line(line)
