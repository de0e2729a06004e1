"""A small real artifact: the null engine behind a three-class family."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from edgecv.core.artifact import Chain, Manifest, file_entries, files_hash, write_manifest
from edgecv.core.contract import InputContract
from edgecv.core.recipe import FamilySpec
from edgecv.core.tensor import Quantization, TensorSpec

LABELS = ("red", "green", "blue")
SPEC = FamilySpec(kind="classification", labels=LABELS)
CONTRACT = InputContract(size=(8, 10))
INPUT = TensorSpec("x", (1, 3, 8, 10), "int8", "NCHW", Quantization(1 / 255, -128))
OUTPUT = TensorSpec("y", (1, 3), "float32", "NC")


def null_file(folder: Path, *, input: TensorSpec = INPUT, output: TensorSpec = OUTPUT) -> Path:
    """Write a model file of the null engine, whose scores are the means of the channels."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.null"
    text = {"format": "edgecv-null-1", "inputs": [asdict(input)], "outputs": [asdict(output)]}
    path.write_text(json.dumps(text))
    return path


def manifest_of(folder: Path) -> Manifest:
    """The manifest of the null model in ``folder``."""
    entries = file_entries(folder, ["model.null"])
    return Manifest(
        name="colours",
        target="host",
        backend="null",
        precision="int8",
        status="ready",
        family=SPEC,
        contract=CONTRACT,
        inputs=(INPUT,),
        outputs=(OUTPUT,),
        model="model.null",
        files=entries,
        chain=Chain(file=files_hash(entries)),
        threads=2,
    )


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    return null_file(tmp_path / "bare")


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    folder = tmp_path / "colours"
    null_file(folder)
    write_manifest(folder, manifest_of(folder))
    return folder
