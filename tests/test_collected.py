"""That pytest finds every test of this folder, and that processes side by side share no build."""

from __future__ import annotations

from pathlib import Path

import pytest


def test_no_folder_of_tests_is_left_out(pytestconfig: pytest.Config) -> None:
    """pytest leaves out folders by name, by default those named build: nothing of tests/build ran."""
    patterns = pytestconfig.getini("norecursedirs")
    folders = {folder for file in Path(__file__).parent.rglob("test_*.py") for folder in file.parents}
    left_out = {folder for folder in folders for pattern in patterns if folder.match(pattern)}
    assert {folder for folder in left_out if folder.is_relative_to(Path(__file__).parent)} == set()


@pytest.mark.xdist_group("grouped")
def test_tests_of_one_group_run_in_one_process(request: pytest.FixtureRequest) -> None:
    """pytest-xdist 3.8 names a test's group in its id; pytest 9.2 does not read it, and each process built all."""
    started = getattr(request.config, "workerinput", {}).get("mainargv", [])
    if "loadgroup" in started:
        assert request.node.nodeid.endswith("@grouped")
    else:
        assert not request.node.nodeid.endswith("@grouped")
