"""The table of backends: names, suffixes, and that looking at them loads no engine."""

from __future__ import annotations

import subprocess
import sys

import pytest

from edgecv import backends
from edgecv.errors import UsageError

HEAVY = (
    "torch",
    "onnx",
    "onnxruntime",
    "openvino",
    "ai_edge_litert",
    "litert_torch",
    "coremltools",
    "tensorrt",
    "yaml",
)


@pytest.mark.parametrize("name", backends.BACKENDS)
def test_every_backend_offers_what_the_protocol_asks(name: str) -> None:
    backend = backends.get(name)
    assert name == backend.NAME
    for part in ("missing", "version", "compile", "load"):
        assert callable(getattr(backend, part))
    assert {suffix for suffix, owner in backends.SUFFIXES.items() if owner == name} == set(backend.SUFFIXES)


def test_unknown_backend_suggests_the_nearest_name() -> None:
    with pytest.raises(UsageError, match="did you mean 'openvino'"):
        backends.get("openvno")
    with pytest.raises(UsageError, match="allowed: onnxruntime, openvino"):
        backends.get("x")


@pytest.mark.parametrize(
    ("path", "name"), [("a/model.onnx", "onnxruntime"), ("M.TFLITE", "litert"), ("x.mlpackage", "coreml")]
)
def test_backend_for_file_goes_by_suffix(path: str, name: str) -> None:
    assert backends.backend_for_file(path) == name


def test_backend_for_file_names_the_suffixes_it_knows() -> None:
    with pytest.raises(UsageError, match=r"'\.pth'; engines load \.onnx, \.xml"):
        backends.backend_for_file("weights.pth")


def test_asking_all_backends_for_version_and_missing_parts_imports_no_engine() -> None:
    code = (
        "import sys\nfrom edgecv import backends\n"
        "for name in backends.BACKENDS:\n"
        "    backend = backends.get(name)\n"
        "    backend.version(), backend.missing(to='run'), backend.missing(to='compile')\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
