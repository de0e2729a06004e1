"""One graph for all targets: the engines must give the same answers, and the answers must stay right."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from edgecv import backends
from edgecv.core.contract import InputContract
from edgecv.core.protocols import CompileSource
from edgecv.core.recipe import Quantize
from edgecv.core.target import Target
from edgecv.models.onnx_import import import_onnx
from edgecv.models.reference import cifar_resnet20
from edgecv.optimize.export import save_program, write_onnx
from edgecv.optimize.ptq import quantize_ptq
from edgecv.optimize.quantized import QuantizedGraph
from edgecv.vision.image import preprocess

from .quantize_nets import batches, images, sqnr_db

ENGINES = ("onnxruntime", "openvino", "litert")
CONTRACT = InputContract(size=(32, 32), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
MAX_DROP = 0.007
MOST_OTHER = 0.002
"""Share of pictures for which two engines may give other numbers: a float sum that ends at a tie by chance."""


@dataclass(frozen=True)
class Exported:
    """A quantised network as the compilers take it."""

    made: QuantizedGraph
    source: CompileSource

    def run_torch(self, arrays: np.ndarray) -> np.ndarray:
        return run_module(self.made.program.module(), arrays)

    def run(self, engine: str, arrays: np.ndarray, folder: Path) -> np.ndarray:
        """Compile for an engine and run it on every array: `(N, classes)` float32."""
        out = folder / engine
        out.mkdir()
        backend = backends.get(engine)
        compiled = backend.compile(self.source, target=target(engine), out=out, log=folder / "log.txt")
        loaded = backend.load(out / compiled.model, options=compiled.options, threads=1)
        first = loaded.inputs[0]
        inputs = arrays.transpose(0, 2, 3, 1) if first.layout == "NHWC" else arrays
        results = []
        for array in inputs:
            stored = loaded.run([np.ascontiguousarray(first.quantize(array[None]))])[0]
            results.append(loaded.outputs[0].dequantize(stored))
        loaded.close()
        return np.concatenate(results)


def target(engine: str) -> Target:
    return Target(
        target=1, name="test", title="Test", backend=engine, arch="host", precisions=("int8",), sources=(), threads=1
    )  # type: ignore[arg-type]


def run_module(module: nn.Module, arrays: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return np.concatenate([module(torch.from_numpy(array[None])).numpy() for array in arrays])


def export(
    module: nn.Module, calibration: np.ndarray, folder: Path, *, scheme: Any = "portable", **settings: Any
) -> Exported:
    sample = torch.from_numpy(calibration[:1])
    step = Quantize("ptq", scheme=scheme, **settings)
    made = quantize_ptq(module, sample, step=step, calibration=batches(calibration))
    save_program(made.program, folder / "model.pt2")
    write_onnx(made.program, folder / "model.onnx")
    return Exported(made, CompileSource("int8", folder / "model.onnx", folder / "model.pt2"))


def read_cifar(folder: Path, *, count: int) -> tuple[np.ndarray, np.ndarray]:
    """``count`` pictures spread evenly over all classes, and their class indices."""
    classes = sorted(item for item in folder.iterdir() if item.is_dir())
    paths = [(path, index) for index, item in enumerate(classes) for path in sorted(item.iterdir())]
    chosen = paths[:: len(paths) // count][:count]
    arrays = [preprocess(cv2.imread(str(path)), CONTRACT, layout="NCHW") for path, _ in chosen]
    return np.stack(arrays), np.asarray([index for _, index in chosen])


@dataclass(frozen=True)
class Cifar:
    """ResNet-20 with trained weights: its outputs `(1000, 10)` in every form on 1,000 test pictures."""

    truths: np.ndarray
    outputs: dict[str, np.ndarray]

    def top1(self, form: str) -> float:
        return float((self.outputs[form].argmax(1) == self.truths).mean())


@pytest.fixture(scope="module")
def cifar(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Cifar:
    folder = tmp_path_factory.mktemp("resnet20")
    module = cifar_resnet20()
    weights = shared_data / "models" / "resnet20_cifar10" / "resnet20-12fca82f.th"
    state = torch.load(weights, map_location="cpu", weights_only=True)["state_dict"]
    module.load_state_dict({name.removeprefix("module."): value for name, value in state.items()})
    calibration, _ = read_cifar(shared_data / "cifar10-mini" / "train", count=300)
    arrays, truths = read_cifar(shared_data / "cifar10-mini" / "test", count=1000)
    exported = export(module.eval(), calibration, folder)
    outputs = {"float": run_module(module, arrays), "torch": exported.run_torch(arrays)}
    outputs |= {engine: exported.run(engine, arrays, folder) for engine in ENGINES}
    return Cifar(truths, outputs)


@pytest.mark.build
@pytest.mark.xdist_group("cifar")
def test_the_float_network_is_the_published_one(cifar: Cifar) -> None:
    assert cifar.top1("float") == pytest.approx(0.804, abs=0.003)


@pytest.mark.build
@pytest.mark.parametrize("form", ["torch", *ENGINES])
@pytest.mark.xdist_group("cifar")
def test_int8_loses_at_most_0_7_points(cifar: Cifar, form: str) -> None:
    assert cifar.top1(form) >= cifar.top1("float") - MAX_DROP


@pytest.mark.build
@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(("torch", *ENGINES), 2)))
@pytest.mark.xdist_group("cifar")
def test_any_two_engines_give_the_same_numbers(cifar: Cifar, one: str, other: str) -> None:
    """Not only the same classes: without scales that keep ties away a quarter of the outputs differ."""
    apart = np.abs(cifar.outputs[one] - cifar.outputs[other]).max(axis=1)
    assert (apart > 1e-4 * np.abs(cifar.outputs["torch"]).max()).mean() <= MOST_OTHER


def make(name: str) -> tuple[nn.Module, np.ndarray]:
    """A network with random weights, settled batch norms, and pictures of 64x64."""
    import timm
    import torchvision

    torch.manual_seed(0)
    source, _, name = name.partition(":")
    options: dict[str, Any] = {"img_size": 64} if name.startswith(("deit", "swin")) else {}
    options |= {"window_size": 2} if name.startswith("swin") else {}
    module = torchvision.models.get_model(name) if source == "torchvision" else timm.create_model(name, **options)
    arrays = images(8, size=64)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = None
            part.reset_running_stats()
    with torch.no_grad():
        module.train()(torch.from_numpy(arrays))
    return module.eval(), arrays


def check(name: str, engines: Sequence[str], folder: Path) -> None:
    """Every engine must take the graph and stay nearer to it than rounding steps that add up explain."""
    module, arrays = make(name)
    exported = export(module, arrays, folder)
    reference = exported.run_torch(arrays[:4])
    floats = run_module(module, arrays[:4])
    for engine in engines:
        found = exported.run(engine, arrays[:4], folder)
        print(f"{name} {engine}: {sqnr_db(reference, found):.1f} dB to the Q/DQ graph")
        assert found.shape == reference.shape
        assert sqnr_db(reference, found) > min(20.0, sqnr_db(floats, reference))


@pytest.mark.build
def test_a_deep_network_gives_the_same_numbers_on_every_engine(tmp_path: Path) -> None:
    """MobileNetV2: 52 layers one behind the other, where one value that rounds apart becomes half of all values."""
    module, arrays = make("torchvision:mobilenet_v2")
    # Pictures have few different values, none of them at a tie of the input's scale.
    arrays = (np.round(arrays * 40) / 40).astype(np.float32)
    exported = export(module, arrays, tmp_path)
    wanted = exported.run_torch(arrays)
    for engine in ENGINES:
        found = exported.run(engine, arrays, tmp_path)
        assert sqnr_db(wanted, found) > 100, engine


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "contract"),
    [
        ("fastestdet/FastestDet.onnx", InputContract(size=(352, 352), color="bgr", interpolation="area")),
        (
            "yolox_nano/yolox_nano.onnx",
            InputContract(size=(416, 416), color="bgr", range=(0.0, 255.0), resize="letterbox-topleft"),
        ),
    ],
)
def test_detectors_give_the_same_numbers_on_every_engine(
    file: str, contract: InputContract, shared_data: Path, tmp_path: Path
) -> None:
    paths = sorted((shared_data / "coco-mini" / "images").glob("*.jpg"))[:24]
    arrays = np.stack([preprocess(cv2.imread(str(path)), contract, layout="NCHW") for path in paths])
    exported = export(import_onnx(shared_data / "models" / file, contract), arrays[:16], tmp_path, scheme="affine")
    wanted = exported.run_torch(arrays[16:])
    for engine in ENGINES:
        found = exported.run(engine, arrays[16:], tmp_path)
        assert sqnr_db(wanted, found.reshape(wanted.shape)) > 100, engine


@pytest.mark.build
def test_every_engine_takes_resnet18(tmp_path: Path) -> None:
    check("torchvision:resnet18", ENGINES, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "torchvision:mobilenet_v3_small",
        "torchvision:shufflenet_v2_x0_5",
        "torchvision:densenet121",
        "torchvision:efficientnet_b0",
        "torchvision:resnet18",
        "timm:ghostnet_100",
        "timm:mobilenetv4_conv_small",
        "timm:deit_tiny_patch16_224",
        "timm:convnext_tiny",
        "timm:swin_tiny_patch4_window7_224",
    ],
)
def test_every_engine_takes_every_network(name: str, tmp_path: Path) -> None:
    check(name, ENGINES, tmp_path)
    module, arrays = make(name)
    exported = export(module, arrays, tmp_path)
    (tmp_path / "coreml").mkdir()
    compiled = backends.get("coreml").compile(
        exported.source, target=target("coreml"), out=tmp_path / "coreml", log=tmp_path / "log.txt"
    )
    assert compiled.files


@pytest.mark.build
def test_affine_runs_on_every_cpu_engine(tmp_path: Path) -> None:
    from .quantize_nets import residual

    arrays = images(16)
    exported = export(residual(), arrays, tmp_path, scheme="affine")
    reference = exported.run_torch(arrays)
    for engine in ENGINES:
        assert sqnr_db(reference, exported.run(engine, arrays, tmp_path)) > 35, engine


class Distilling(nn.Module):
    """A block of IMDN: a part of each result goes on, the others are joined; the first layer of it may stay float."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.one = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(12, 12, 3, padding=1)
        self.two, self.three = nn.Conv2d(9, 12, 3, padding=1), nn.Conv2d(9, 3, 3, padding=1)
        self.join, self.last = nn.Conv2d(9, 12, 1), nn.Conv2d(12, 8, 3, padding=1)
        self.act = nn.LeakyReLU(0.05)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        start = self.first(image)
        one, rest = self.act(self.one(start)).split((3, 9), dim=1)
        two, rest = self.act(self.two(rest)).split((3, 9), dim=1)
        joined: torch.Tensor = self.join(torch.cat([one, two, self.three(rest)], dim=1))
        result: torch.Tensor = self.last(joined + start)
        return result


@pytest.mark.build
@pytest.mark.parametrize("keep_float", [(), ("one",), ("two",)])
def test_joined_values_of_a_float_layer_are_right_on_every_engine(keep_float: tuple[str, ...], tmp_path: Path) -> None:
    torch.manual_seed(0)
    exported = export(Distilling().eval(), images(24), tmp_path, scheme="affine", keep_float=keep_float)
    arrays = images(8, seed=9)
    wanted = exported.run_torch(arrays)
    for engine in ENGINES:
        assert sqnr_db(wanted, exported.run(engine, arrays, tmp_path)) > 60, engine


@pytest.mark.build
@pytest.mark.parametrize(("inputs", "outputs"), [(6, 9), (9, 6)])
def test_a_transposed_convolution_has_a_scale_for_each_output(inputs: int, outputs: int, tmp_path: Path) -> None:
    """Its outputs are the weight's second axis; NNCF would give each input a scale, which no engine computes."""
    torch.manual_seed(0)
    wide = nn.ConvTranspose2d(inputs, outputs, 4, 2, 1)
    with torch.no_grad():
        wide.weight *= (2.0 ** torch.linspace(-5, 5, outputs)).reshape(1, -1, 1, 1)
    module = nn.Sequential(nn.Conv2d(3, inputs, 3), nn.ReLU(), wide, nn.Conv2d(outputs, 4, 1)).eval()
    with torch.no_grad():
        module[3].weight /= (2.0 ** torch.linspace(-5, 5, outputs)).reshape(1, -1, 1, 1)
    exported = export(module, images(16), tmp_path)
    steps = [node for node in exported.made.program.graph.nodes if "quantize_per_channel" in str(node.target)]
    assert {
        node.args[3]
        for node in steps
        if node.args[0].meta["val"].shape[1] == outputs and node.args[0].meta["val"].shape[0] == inputs
    } == {1}
    arrays = images(4, seed=9)
    wanted = exported.run_torch(arrays)
    for engine in ENGINES:
        assert sqnr_db(wanted, exported.run(engine, arrays, tmp_path)) > 30, engine
