"""A board may have another version of the engine than the one that an artifact was proven with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgecv import backends
from edgecv.measure.fingerprint import read_fingerprint, write_fingerprint
from edgecv.runtime.prove import CONTENTS, Proof, prove
from tests.backends.networks import GraphWriter, write_network
from tests.runtime import proofs

for needed in ("onnx", "onnxruntime", "openvino"):
    pytest.importorskip(needed, reason="the files of these engines are read")


def proven(folder: Path, engine: str, version: str) -> Proof:
    """The proof of an artifact whose first operator was recorded as another, by this version of the engine."""
    place = proofs.classifier(engine, folder, write_network(GraphWriter([], {})).model())
    recorded = read_fingerprint(place / CONTENTS)
    first = next(iter(recorded.operators))
    write_fingerprint(place / CONTENTS, replace(recorded, operators={**recorded.operators, first: "other"}))
    proofs.rehash(place, engine_version=version)
    return prove(place)


def test_the_same_version_reads_the_same_operators(tmp_path: Path) -> None:
    found = proven(tmp_path, "openvino", backends.get("openvino").version())
    assert found.ladder is not None
    assert found.ladder.first_broken == "weights and operators (graph)"


def test_another_version_may_read_other_operators(tmp_path: Path) -> None:
    assert proven(tmp_path, "openvino", "0.1").holds


def test_an_onnx_file_is_read_without_the_engine_so_its_version_is_no_excuse(tmp_path: Path) -> None:
    assert not proven(tmp_path, "onnxruntime", "0.1").holds
