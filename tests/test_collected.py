"""That pytest finds every test of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest


def test_no_folder_of_tests_is_left_out(pytestconfig: pytest.Config) -> None:
    """pytest leaves out folders by name, by default those named build: nothing of tests/build ran."""
    patterns = pytestconfig.getini("norecursedirs")
    folders = {folder for file in Path(__file__).parent.rglob("test_*.py") for folder in file.parents}
    left_out = {folder for folder in folders for pattern in patterns if folder.match(pattern)}
    assert {folder for folder in left_out if folder.is_relative_to(Path(__file__).parent)} == set()
