"""While an artifact is made: what is wrong with a compiled file is found by the graph that it was compiled from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecv import backends
from edgecv.build.blame import (
    blame_compiled,
    blame_form,
    blame_labels,
    first_cause,
    print_compiled,
    write_source_print,
)
from edgecv.core.contract import InputContract
from edgecv.core.figures import Diagnosis, Rung
from edgecv.core.protocols import Compiled, CompileSource
from edgecv.core.recipe import FamilySpec
from edgecv.core.target import Target
from edgecv.core.tensor import FloatArray
from edgecv.measure.fingerprint import Fingerprint, read_fingerprint
from edgecv.measure.ladder import Judge, Outputs
from edgecv.vision.image import preprocess
from tests.backends.networks import GraphWriter, write_network
from tests.runtime import proofs

CONTRACT = InputContract((16, 16))
PICTURES = proofs.scenes(4, (40, 60))
INPUTS: FloatArray = np.stack([preprocess(picture, CONTRACT) for picture in PICTURES])
COMPILER = Rung("compiled onnxruntime", "Q/DQ torch", 4, 3.0, 1.0, 0.5, None, 20.0, "fail", "compiler")


@dataclass(frozen=True)
class Made:
    """A compiled network, the prints of its source, and the source's outputs."""

    engine: str
    folder: Path
    compiled: Compiled
    source: Fingerprint
    outputs: Outputs

    def run(self) -> Outputs:
        return run(self.engine, self.folder / self.compiled.model)

    def blame(self, rung: Rung = COMPILER, *, fed: FloatArray = INPUTS) -> tuple[Diagnosis, ...]:
        return blame_compiled(
            rung,
            expected=(INPUTS, self.outputs),
            given=(fed, self.run()),
            pictures=PICTURES,
            contract=CONTRACT,
            made=(self.folder, self.compiled),
            backend=self.engine,
            source=self.source,
        )


def run(engine: str, path: Path) -> Outputs:
    loaded = backends.get(engine).load(path, options={}, threads=1)
    try:
        return Outputs("x", (np.concatenate([loaded.run([row[None]])[0] for row in INPUTS]),))
    finally:
        loaded.close()


@pytest.fixture
def make(tmp_path: Path) -> Callable[[str], Made]:
    def build(engine: str) -> Made:
        exported, out = tmp_path / "exported", tmp_path / "made"
        exported.mkdir()
        out.mkdir()
        model: Any = write_network(GraphWriter([], {})).model()
        (exported / "model.onnx").write_bytes(model.SerializeToString())
        write_source_print(exported, INPUTS[:1], tmp_path / "source.json", int8=True)
        target = Target(
            target=1,
            name="t",
            title="T",
            backend=engine,  # type: ignore[arg-type]
            arch="host",
            precisions=("int8",),
            sources=(),
            threads=1,
        )
        source = CompileSource("int8", exported / "model.onnx", None)
        compiled = backends.get(engine).compile(source, target=target, out=out, log=tmp_path / "log")
        expected = run("onnxruntime", exported / "model.onnx")
        return Made(engine, out, compiled, read_fingerprint(tmp_path / "source.json"), expected)

    return build


def change(folder: Path, edit: Callable[[Any], None]) -> None:
    import onnx

    model = onnx.load(str(folder / "model.onnx"))
    edit(model)
    (folder / "model.onnx").write_bytes(model.SerializeToString())


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_sound_file_has_the_weights_of_its_source(make: Callable[[str], Made], engine: str) -> None:
    """Nothing is named but what differs: the compilers' own rewriting is no fault."""
    made = make(engine)
    (cause,) = made.blame()
    assert cause.what == "output 'logits_dq' has other values"
    np.testing.assert_allclose(made.run().arrays[0], made.outputs.arrays[0], atol=0.11)
    shared = {name for name, one in made.source.weights.items() if len(one.shape) >= 2}
    printed = print_compiled(engine, made.folder / made.compiled.model, INPUTS[:1], made.compiled.inputs)
    assert printed is not None
    assert len(shared & printed.weights.keys()) >= 3


def test_a_weight_that_a_compiler_transposed_is_named(make: Callable[[str], Made]) -> None:
    from onnx import numpy_helper

    made = make("onnxruntime")

    def transpose(model: Any) -> None:
        item = next(item for item in model.graph.initializer if item.name.startswith("w2") and len(item.dims) == 4)
        values = np.ascontiguousarray(numpy_helper.to_array(item).transpose(1, 0, 2, 3))
        item.CopyFrom(numpy_helper.from_array(values, item.name))

    change(made.folder, transpose)
    (cause,) = made.blame()
    assert cause.rung == "graph"
    assert cause.what.startswith("weight 'w2")
    assert cause.found.startswith("it is transposed")


def test_the_first_layer_that_a_compiler_broke_is_named(make: Callable[[str], Made]) -> None:
    made = make("onnxruntime")

    def subtract(model: Any) -> None:
        next(node for node in model.graph.node if node.op_type == "Add").op_type = "Sub"

    change(made.folder, subtract)
    (cause,) = made.blame()
    assert (cause.rung, cause.what) == ("compiler", "the first layer that gives other values is 'sum'")


def test_an_engine_that_is_fed_otherwise_is_named(make: Callable[[str], Made]) -> None:
    rung = Rung("engine input", "training input", 4, 9.0, 1.0, None, None, 40.0, "fail", "pre-processing")
    (cause,) = make("onnxruntime").blame(rung, fed=INPUTS[:, ::-1])
    assert (cause.what, cause.found, cause.expected) == ("channel order", "bgr", "rgb")


def test_truths_under_other_names_break_the_first_rung() -> None:
    spec = FamilySpec("classification", ("a", "b", "c"))
    form = Outputs("float torch", (np.tile(np.eye(3, dtype=np.float32) * 5, (6, 1)),))
    for truths, outcome in (([0, 1, 2] * 6, "not-checked"), ([1, 2, 0] * 6, "fail")):
        judge = Judge(spec, CONTRACT, truths, "top1")
        rung, causes = blame_labels(judge.base(form), judge, form, truths)
        assert rung.outcome == outcome
        assert [cause.what for cause in causes] == (["order of the labels"] if outcome == "fail" else [])


def test_a_form_is_blamed_on_its_own_rung_and_only_the_first_is_asked() -> None:
    one = np.random.default_rng(0).standard_normal((8, 20)).astype(np.float32)
    (cause,) = blame_form(Outputs("a", (one,)), Outputs("b", (one * 2 + 1,)), "graph")
    assert cause.rung == "graph"
    assert "scale and offset of output" in cause.what
    asked: list[str] = []

    def why(rung: Rung) -> tuple[Diagnosis, ...]:
        asked.append(rung.name)
        return (cause,)

    second = Rung("later", "x", 1, None, None, None, None, None, "fail", "compiler")
    assert first_cause([COMPILER, second], why) == (cause,)
    assert asked == ["compiled onnxruntime"]
    assert first_cause([], why) == ()
