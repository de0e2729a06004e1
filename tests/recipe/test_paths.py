from __future__ import annotations

from pathlib import Path

import pytest

from edgecv.core.recipe import DataSpec
from edgecv.recipe.paths import expand, path_problem, resolve_data


def test_relative_absolute_and_outside(tmp_path: Path) -> None:
    base = tmp_path / "recipes"
    assert expand("a/b", base=base, env={}) == (base / "a/b", None)
    assert expand("../b", base=base, env={}) == (tmp_path / "b", None)
    assert expand("/x/y", base=base, env={}) == (Path("/x/y"), None)


def test_a_variable_at_the_start(tmp_path: Path) -> None:
    env = {"DATA": "/data", "REL": "below"}
    assert expand("${DATA}/a", base=tmp_path, env=env) == (Path("/data/a"), None)
    assert expand("${REL}/a", base=tmp_path, env=env) == (tmp_path / "below/a", None)
    assert expand("x/${DATA}", base=tmp_path, env=env) == (tmp_path / "x/${DATA}", None)


@pytest.mark.parametrize("env", [{}, {"DATA": ""}])
def test_an_unset_variable_tells_how_to_set_it(tmp_path: Path, env: dict[str, str]) -> None:
    path, wrong = expand("${DATA}/a", base=tmp_path, env=env)
    assert path is None
    assert wrong is not None
    assert "environment variable DATA is not set" in wrong
    assert "export DATA=" in wrong


@pytest.mark.parametrize("text", ["", "  "])
def test_an_empty_path(tmp_path: Path, text: str) -> None:
    assert expand(text, base=tmp_path, env={})[0] is None


def test_missing_and_wrong_kinds_show_the_resolved_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert path_problem("file", tmp_path / "file", wanted="file") is None
    assert path_problem(".", tmp_path, wanted="folder") is None
    assert str(tmp_path / "no") in str(path_problem("no", tmp_path / "no", wanted="file"))
    assert "is a file; a folder is needed" in str(path_problem("file", tmp_path / "file", wanted="folder"))
    assert path_problem("n" * 5000, tmp_path / ("n" * 5000), wanted="file") is not None


def test_data_paths_by_kind(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("file,label\n")
    spec, found = resolve_data(DataSpec("csv", path="list.csv", root="."), base=tmp_path, env={})
    assert found == []
    assert (spec.path, spec.root) == (str(tmp_path / "list.csv"), str(tmp_path))
    spec, found = resolve_data(DataSpec("csv", path="gone.csv", root="gone"), base=tmp_path, env={})
    assert [where for where, _ in found] == [("path",), ("root",)]
    assert spec.path == "gone.csv"
    spec, found = resolve_data(DataSpec("sklearn-digits"), base=tmp_path, env={})
    assert (spec, found) == (DataSpec("sklearn-digits"), [])
