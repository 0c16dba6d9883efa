from __future__ import annotations

import os
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parent.parent.parent / "shared"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite", action="store_true", help="write the traces anew; read the diff")


@pytest.fixture
def rewrite(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--rewrite"))


@pytest.fixture(scope="session")
def conformance() -> Path:
    """The independent cases; the tests that need them say so where the folder is absent."""
    folder = SHARED / "conformance"
    if not folder.is_dir():
        if os.environ.get("CI") == "true":
            pytest.fail("../shared/conformance is missing, and in CI a skip is a failure")
        pytest.skip("../shared/conformance is not there: independent cases are not run")
    return folder
