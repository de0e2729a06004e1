"""Fixtures that all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# As `edgecv optimize` does: test processes side by side must not spin.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# The tests themselves fill the cores.
os.environ.setdefault("EDGECV_JOBS", "0")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's folder."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real images and pretrained models; in CI its absence is a failure, elsewhere a skip."""
    folder = Path(os.environ.get("EDGECV_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"{folder} is missing; set EDGECV_TEST_DATA to the folder of test data")
        pytest.skip(f"{folder} is missing; set EDGECV_TEST_DATA to the folder of test data")
    return folder
