"""Artifacts that carry their proof, for tests of `edgecv verify`: made as the build makes them, broken as people do."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edgecv import backends, demo
from edgecv.build.blame import print_compiled
from edgecv.core.artifact import Chain, Manifest, file_entries, files_hash, read_manifest, write_manifest
from edgecv.core.contract import InputContract
from edgecv.core.protocols import CompileSource
from edgecv.core.recipe import FamilySpec
from edgecv.core.target import Target
from edgecv.measure.fingerprint import write_fingerprint
from edgecv.measure.golden import Golden, decoded, engine_inputs, load_golden, save_golden
from edgecv.measure.ladder import Outputs
from edgecv.runtime.importer import import_model
from edgecv.runtime.load import load_artifact
from edgecv.runtime.prove import CONTENTS, GOLDEN
from edgecv.vision.image import preprocess
from edgecv.vision.scenes import Scene, SceneSpec

DIGITS = InputContract((16, 16), color="rgb", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
TEN = FamilySpec(
    "classification", ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"), top_k=5
)


def scenes(count: int = 4, size: tuple[int, int] = (200, 403)) -> list[np.ndarray]:
    """Pictures with several things in them; a letterbox of 192 x 256 has an odd number of rows to spare for them."""
    frames = Scene(SceneSpec(size=size, objects=8, seed=77))
    return [frames.frame(40 * index).image for index in range(count)]


def give_proof(folder: Path, pictures: Sequence[np.ndarray], *, reference: Path | None = None) -> Path:
    """Add golden pictures and contents to the artifact in ``folder``; outputs are of ``reference`` (or its own)."""
    manifest = read_manifest(folder)
    inputs = np.stack([preprocess(picture, manifest.contract) for picture in pictures])
    with load_artifact(reference or folder, threads=1) as model:
        fed = [engine_inputs(model.subject.input, row[None]) for row in inputs]
        rows = [model.subject.dequantize(model.engine.run([one])) for one in fed]
    outputs = Outputs("Q/DQ torch", tuple(np.concatenate(column) for column in zip(*rows, strict=True)))
    results = decoded(outputs, pictures, manifest.family, manifest.contract)
    save_golden(folder / GOLDEN, Golden(tuple(pictures), inputs, outputs, results))
    proven = print_compiled(manifest.backend, folder / manifest.model, inputs[:1], manifest.inputs)
    assert proven is not None
    write_fingerprint(folder / CONTENTS, proven)
    rehash(folder)
    return folder


def rehash(folder: Path, **changes: Any) -> None:
    """Write the manifest anew with the files as they are: what a careless builder does after an edit."""
    manifest = read_manifest(folder)
    names = [entry.path for entry in changes.pop("files", manifest.files)]
    names += [name for name in (GOLDEN, CONTENTS) if (folder / name).is_file() and name not in names]
    entries = file_entries(folder, names)
    model = tuple(entry for entry in entries if entry.path not in (GOLDEN, CONTENTS))
    chain = replace(manifest.chain, file=files_hash(model))
    write_manifest(folder, replace(manifest, files=entries, chain=chain, **changes))


def detector(engine: str, folder: Path) -> Path:
    """The demo's detector, letterboxed, with its proof: outputs are those of ONNX Runtime for all engines."""
    contract = InputContract((192, 256), color="bgr", resize="letterbox", mean=(0.1, 0.0, 0.05), std=(1.1, 1.0, 0.9))
    for name in {engine, "onnxruntime"}:
        shutil.copytree(demo.artifact(name), folder / name)
        rehash(folder / name, contract=contract)
    give_proof(folder / engine, scenes(), reference=folder / "onnxruntime")
    return folder / engine


def classifier(engine: str, folder: Path, model: Any) -> Path:
    """The int8 Q/DQ network ``model`` (onnx ModelProto) compiled by ``engine``, with its proof."""
    backend = backends.get(engine)
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
    source, out = folder / "source.onnx", folder / "made"
    out.mkdir(parents=True)
    source.write_bytes(model.SerializeToString())
    made = backend.compile(CompileSource("int8", source, None), target=target, out=out, log=folder / "log")
    entries = file_entries(out, made.files)
    manifest = Manifest(
        name="ten",
        target="t",
        backend=engine,
        precision="int8",
        status="ready",
        family=TEN,
        contract=DIGITS,
        inputs=made.inputs,
        outputs=made.outputs,
        model=made.model,
        files=entries,
        chain=Chain(file=files_hash(entries)),
        engine_options=dict(made.options),
    )
    write_manifest(out, manifest)
    return give_proof(out, scenes(6, (48, 48)))


def edit_golden(folder: Path, change: Callable[[Golden], Golden]) -> None:
    """Write the golden file anew and hash it."""
    save_golden(folder / GOLDEN, change(load_golden(folder / GOLDEN)))
    rehash(folder)


def edit_onnx(folder: Path, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Another value for one initializer of ``model.onnx``, hashed."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(str(folder / "model.onnx"))
    item = next(item for item in model.graph.initializer if item.name == name)
    values = numpy_helper.to_array(item)
    item.CopyFrom(numpy_helper.from_array(np.array(change(values), dtype=values.dtype), name))
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    rehash(folder)


def edit_onnx_zero_point(folder: Path, tensor: str, value: int, *, shape: tuple[int, ...] = ()) -> None:
    """Another zero point for the Q/DQ pair behind ``tensor`` of ``model.onnx``, hashed."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(str(folder / "model.onnx"))
    pair = [node for node in model.graph.node if node.input[0] == tensor and node.op_type == "QuantizeLinear"]
    pair += [node for node in model.graph.node if node.input[0] == pair[0].output[0]]
    model.graph.initializer.append(numpy_helper.from_array(np.full(shape, value, np.uint8), "other"))
    for node in pair:
        node.input[2] = "other"
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    rehash(folder)


def edit_bytes(path: Path, before: np.ndarray, after: np.ndarray) -> None:
    """Put ``after`` where the bytes of ``before`` lie in the file: .bin and .tflite files keep weights as they are."""
    content = path.read_bytes()
    assert content.count(before.tobytes()) == 1
    path.write_bytes(content.replace(before.tobytes(), np.ascontiguousarray(after).tobytes()))
    rehash(path.parent)


def edit_openvino_zero_point(folder: Path, name: str, steps: int) -> None:
    """Move both limits of the FakeQuantize behind ``name`` by so many steps, and hash."""
    import openvino

    graph = openvino.Core().read_model(str(folder / "model.xml"))
    found = [op for op in graph.get_ops() if op.get_type_name() == "FakeQuantize"]
    behind = next(op for op in found if op.input(0).get_source_output().get_node().get_friendly_name() == name)
    limits = [behind.input(port).get_source_output().get_node().get_data() for port in (1, 2)]
    shift = (limits[1] - limits[0]) / (behind.get_attributes()["levels"] - 1) * steps
    for port in (1, 2, 3, 4):
        source = behind.input(port).get_source_output().get_node()
        moved = openvino.opset1.constant((source.get_data() + shift).astype(np.float32))
        behind.input(port).replace_source_output(moved.output(0))
    openvino.save_model(graph, str(folder / "new.xml"), compress_to_fp16=False)
    for suffix in ("xml", "bin"):
        (folder / f"new.{suffix}").replace(folder / f"model.{suffix}")
    rehash(folder)


def resnet8(data: Path, folder: Path) -> Path:
    """MLPerf Tiny's int8 ResNet-8 for CIFAR-10, with its proof on ten test pictures."""
    labels = sorted(path.name for path in (data / "cifar10-mini" / "test").iterdir())
    contract = InputContract((32, 32), color="rgb", range=(0.0, 255.0))
    file = data / "models" / "mlperf_tiny_resnet8_cifar10" / "pretrainedResnet_quant.tflite"
    family = FamilySpec("classification", tuple(labels), outputs="probabilities")
    import_model(file, out=folder, name="resnet8", family=family, contract=contract)
    read = [cv2.imread(str(data / "cifar10-mini" / "test" / label / "0000.jpg")) for label in labels]
    pictures = [picture for picture in read if picture is not None]
    assert len(pictures) == 10
    return give_proof(folder, pictures)


def edit_tflite_zero_point(folder: Path, steps: int) -> tuple[str, int, int]:
    """Another zero point for the output of the third operator: its name, and the zero points before and after."""
    from ai_edge_litert import schema_py_generated as schema

    path = folder / read_manifest(folder).model
    content = bytearray(path.read_bytes())
    model = schema.Model.GetRootAsModel(content, 0)
    tensor = model.Subgraphs(0).Tensors(int(model.Subgraphs(0).Operators(2).Outputs(0)))
    table = tensor.Quantization()
    before = int(table.ZeroPoint(0))
    # The values of a flatbuffer's vector lie in the file as they are, 8 bytes each.
    at = table._tab.Vector(table._tab.Offset(10))
    content[at : at + 8] = (before + steps).to_bytes(8, "little", signed=True)
    path.write_bytes(content)
    rehash(folder)
    return tensor.Name().decode(), before, before + steps
