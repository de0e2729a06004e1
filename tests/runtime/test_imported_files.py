"""Every model file of the data pack by command, against the manifest's figures: the rows of tools/bench/imported.py."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

TOOL = Path(__file__).resolve().parents[2] / "tools" / "bench" / "imported.py"
LONG = ("mobilenet-v2-int8", "mobilenet-v1-0.5-int8", "mobilenet-v1-0.25", "mobilenet-v1-0.25-int8", "yolox-nano")
"""Those that take more than some seconds."""


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_imported", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(TOOL.parent)  # as it is where the tool runs
        spec.loader.exec_module(module)
    return module


BENCH = _load()


def test_every_file_has_its_row(shared_data: Path) -> None:
    files = {row.file for row in BENCH.ROWS}
    there = (path.relative_to(shared_data / "models").as_posix() for path in (shared_data / "models").rglob("*"))
    assert files == {name for name in there if name.endswith((".tflite", ".onnx"))}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(row.name, marks=[pytest.mark.build, *([pytest.mark.slow] if row.name in LONG else [])])
        for row in BENCH.ROWS
    ],
)
def test_the_figure_is_the_manifests(shared_data: Path, name: str) -> None:
    row = next(row for row in BENCH.ROWS if row.name == name)
    ours = BENCH.measured(row, shared_data)
    assert ours == pytest.approx(row.known, abs=row.within) if row.known is not None else ours > 0.9
