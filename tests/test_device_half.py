"""The device half on the oldest Python, in an environment that has numpy, OpenCV and one engine, nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .test_generated import load_tool

pytestmark = [pytest.mark.build, pytest.mark.xdist_group("device")]

DEVICE_TESTS = (
    "tests/core",
    "tests/vision",
    "tests/families",
    "tests/measure",
    "tests/report",
    "tests/track",
    "tests/runtime",
)


@pytest.fixture(scope="module")
def board(root: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    tool = load_tool(root, "device_env")
    python = tool.oldest_python()
    if python is None:
        if os.environ.get("CI"):
            pytest.fail(f"Python {tool.OLDEST} is missing; the device half must be tested on it")
        pytest.skip(f"Python {tool.OLDEST} is not installed")
    tests = ("pytest>=9", "pytest-timeout", "hypothesis")
    made: str = tool.make_device_env(tmp_path_factory.mktemp("board") / "venv", python=python, more=tests)
    return made


def test_it_runs_the_demo_model(board: str, root: Path, tmp_path: Path) -> None:
    """An ONNX file becomes an artifact and answers, on the board's own environment."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = numpy_helper.from_array(np.eye(3, dtype=np.float32), "w")
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["x"], ["p"]),
            helper.make_node("Flatten", ["p"], ["f"]),
            helper.make_node("MatMul", ["f", "w"], ["y"]),
        ],
        "colours",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(tmp_path / "colours.onnx"))
    (tmp_path / "labels.txt").write_text("red\ngreen\nblue\n", encoding="utf-8")
    code = (
        "import cv2, numpy as np, sys; p = np.zeros((20, 20, 3), np.uint8); p[..., 1] = 200; "
        "cv2.imwrite(sys.argv[1], p)"
    )
    subprocess.run([board, "-c", code, str(tmp_path / "green.png")], check=True)
    edgecv = [board, "-m", "edgecv"]
    artifact = str(tmp_path / "artifact")
    words = ["import", str(tmp_path / "colours.onnx"), "--out", artifact, "--labels", str(tmp_path / "labels.txt")]
    subprocess.run([*edgecv, *words, "--size", "8", "8"], check=True, cwd=tmp_path)
    done = subprocess.run(
        [*edgecv, "run", artifact, str(tmp_path / "green.png"), "--json"],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert json.loads(done.stdout)["classes"][0]["label"] == "green"
    assert subprocess.run([*edgecv, "verify", artifact], check=False, cwd=tmp_path).returncode == 0
    assert subprocess.run([*edgecv, "optimize", "digits"], check=False, capture_output=True).returncode == 5


def test_the_camera_loop_runs_there(board: str, tmp_path: Path) -> None:
    words = ["run", "--demo", "--frames", "600", "--quiet", "--report", str(tmp_path / "out")]
    done = subprocess.run([board, "-m", "edgecv", *words], check=True, capture_output=True, text=True, cwd=tmp_path)
    score = next(line for line in done.stdout.splitlines() if line.startswith("MOTA"))
    assert float(score.split()[1]) >= 0.95
    assert (tmp_path / "out" / "report.html").is_file()


def test_it_has_nothing_of_the_host_half(board: str) -> None:
    code = (
        "import importlib.util, sys, edgecv.runtime.load, edgecv.commands.artifact, edgecv.report.render; "
        "print(sys.version_info[:2], [m for m in ('torch', 'onnx', 'yaml', 'pydantic') if importlib.util.find_spec(m)])"
    )
    done = subprocess.run([board, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "(3, 10) []"


def test_its_own_tests_pass_there(board: str, root: Path) -> None:
    words = [board, "-m", "pytest", "-m", "not browser and not build and not slow", *DEVICE_TESTS]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("COV", "PYTEST"))}
    done = subprocess.run(words, cwd=root, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert sys.version_info >= (3, 11)
