"""Hashes of sources and weights change when, and only when, the thing does."""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from edgecv.core.contract import InputContract
from edgecv.core.recipe import ModelSpec, Weights
from edgecv.errors import ModelError
from edgecv.models.fingerprint import source_fingerprint, weights_fingerprint

SPEC = ModelSpec(source="timm:resnet18", input=InputContract(size=(32, 32)))


def fingerprint(source: str, base: Path) -> str:
    return source_fingerprint(dataclasses.replace(SPEC, source=source), base=base)


def test_library_source_depends_on_name_options_and_channels(tmp_path: Path) -> None:
    first = source_fingerprint(SPEC, base=tmp_path)
    assert len(first) == 64
    assert first == source_fingerprint(SPEC, base=tmp_path)
    others = [
        dataclasses.replace(SPEC, source="timm:resnet34"),
        dataclasses.replace(SPEC, options={"drop_rate": 0.1}),
        dataclasses.replace(SPEC, input=InputContract(size=(32, 32), color="gray", mean=(0.0,), std=(1.0,))),
    ]
    assert len({first, *(source_fingerprint(other, base=tmp_path) for other in others)}) == 4


def test_python_source_is_its_file_and_is_not_run(tmp_path: Path) -> None:
    package = tmp_path / "my_package"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('this must not run')\n")
    (package / "nets.py").write_text("raise SystemExit('nor this')\n")
    first = fingerprint("python:my_package.nets:network", tmp_path)
    assert first == fingerprint("python:my_package.nets:network", tmp_path)
    (package / "nets.py").write_text("# changed\n")
    assert fingerprint("python:my_package.nets:network", tmp_path) != first
    assert "my_package" not in sys.modules


def test_installed_python_source_is_found(tmp_path: Path) -> None:
    assert len(fingerprint("python:edgecv.models.reference:digits_cnn", tmp_path)) == 64


@pytest.mark.parametrize("source", ["python:no_such.nets:network", "python:edgecv.no_such:network", "onnx:absent.onnx"])
def test_missing_sources_are_errors(source: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no"):
        fingerprint(source, tmp_path)


def test_onnx_and_local_transformers_depend_on_their_files(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    for name, source in (("net.onnx", "onnx:net.onnx"), ("net/config.json", "transformers:net")):
        (tmp_path / name).write_text("one")
        first = fingerprint(source, tmp_path)
        (tmp_path / name).write_text("two")
        assert fingerprint(source, tmp_path) != first


def test_weights_fingerprint(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(b"weights")
    plain = Weights(path="w.safetensors")
    assert weights_fingerprint(None, base=tmp_path) == ""
    assert weights_fingerprint(plain, base=tmp_path) == hashlib.sha256(b"weights").hexdigest()
    assert weights_fingerprint(Weights(url="https://a.example/w", sha256="ab" * 32), base=tmp_path) == "ab" * 32
    other = dataclasses.replace(plain, strip_prefix="module.")
    assert weights_fingerprint(other, base=tmp_path) not in ("", weights_fingerprint(plain, base=tmp_path))
    with pytest.raises(ModelError, match=r"there is no file .*absent"):
        weights_fingerprint(Weights(path="absent"), base=tmp_path)


def test_torch_is_not_imported() -> None:
    code = "import sys, edgecv.models.fingerprint; print('torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"
