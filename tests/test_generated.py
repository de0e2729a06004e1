"""Generated parts of the repository are what their generators give now."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


def load_tool(root: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, root / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_readme_tables_are_current(root: Path) -> None:
    text = (root / "README.md").read_text(encoding="utf-8")
    assert load_tool(root, "readme_tables").generated(text) == text


def test_readme_names_every_target(root: Path) -> None:
    text = (root / "README.md").read_text(encoding="utf-8")
    missing = [path.stem for path in (root / "targets").glob("*.yaml") if f"`{path.stem}`" not in text]
    assert missing == []


def test_every_link_and_picture_of_the_readme_exists(root: Path) -> None:
    import re

    text = (root / "README.md").read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    assert links
    assert [link for link in links if not (root / link).exists()] == []


@pytest.mark.parametrize("command", ["demo", "test", "test-slow", "bench", "generated", "lint", "types", "format"])
def test_the_makefile_has_the_goals_that_the_docs_name(root: Path, command: str) -> None:
    lines = (root / "Makefile").read_text(encoding="utf-8").splitlines()
    assert any(line.startswith(f"{command}:") for line in lines)
