"""The latency table: which layers it holds, its grids, what is kept on disk, and real engines."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from edgecv import backends
from edgecv.core.target import Target
from edgecv.optimize import prune_graph
from edgecv.optimize.latency_nets import network_of, surroundings_of
from edgecv.optimize.latency_probe import EngineProbe, interleaved_ms
from edgecv.optimize.latency_table import kept_points, make_table
from edgecv.optimize.prune_graph import Region
from edgecv.optimize.prune_layers import LayerShape, NetLayer, narrowable_layers

CONV = LayerShape("conv", 16, 32, (8, 8), (3, 3), (1, 1), (1, 1))
KEY = ("", "stem")


class Blocks:
    """A made-up engine that works on blocks of 16 channels; its time is counted, and it runs ``pace`` times slower."""

    def __init__(self, *, pace: float = 1.0) -> None:
        self.pace, self.asked = pace, list[LayerShape]()

    def environment(self) -> dict[str, Any]:
        return {"engine": "blocks"}

    def layers_ms(self, shapes: Sequence[LayerShape]) -> dict[LayerShape, float]:
        self.asked += shapes
        return {shape: self.pace * blocks(shape) for shape in shapes}

    def networks_ms(self, modules: Sequence[nn.Module], example: torch.Tensor) -> list[float]:
        raise NotImplementedError


def blocks(shape: LayerShape) -> float:
    area = shape.size[0] * shape.size[1] // (shape.stride[0] * shape.stride[1])
    wide = -(-shape.inputs // 4) * 4 if shape.groups else 1
    return area * wide * (-(-shape.outputs // 16) * 16) * shape.kernel[0] * shape.kernel[1] * 1e-7


def layer(shape: LayerShape = CONV, *, inputs: bool = False, outputs: bool = True) -> NetLayer:
    by = ((KEY, shape.inputs),) if inputs else (), ((KEY, shape.outputs),) if outputs else ()
    return NetLayer("layer", shape, *by)


class Net(nn.Module):
    """A stem, a depthwise layer, two branches that are joined, a flattened head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.depth = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.left, self.right = nn.Conv2d(16, 8, 1), nn.Conv2d(16, 12, 1)
        self.join, self.head = nn.Conv2d(20, 8, 1), nn.Linear(8 * 16, 4)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        found = torch.relu(self.depth(torch.relu(self.stem(inputs))))
        joined = torch.cat([self.left(found), self.right(found)], dim=1)
        return self.head(torch.relu(self.join(joined)).flatten(1))


def layers_of(module: nn.Module, example: torch.Tensor) -> dict[str, NetLayer]:
    region = Region("", example)
    groups = list(prune_graph.groups_of(module, region, protected=frozenset({"head"})))
    return {item.name: item for item in narrowable_layers(module, groups, example=example)}


def test_every_layer_knows_what_narrows_it() -> None:
    found = layers_of(Net().eval(), torch.zeros(1, 3, 8, 8))
    assert list(found) == ["stem", "depth", "left", "right", "join", "head"]
    stem = found["stem"].outputs_by[0][0]
    assert found["depth"].shape == LayerShape("conv", 16, 16, (4, 4), (3, 3), (1, 1), (1, 1), groups=0)
    half = found["depth"].narrowed({stem: 0.5})
    assert (half.inputs, half.outputs) == (8, 8)
    assert dict(found["join"].inputs_by) == {("", "left"): 8, ("", "right"): 12}
    assert found["join"].narrowed({("", "left"): 0.5, ("", "right"): 0.25}).inputs == 13
    assert found["head"].inputs_by == ((("", "join"), 128),)
    assert found["head"].outputs_by == ()
    assert found["head"].narrowed({("", "join"): 0.25}).inputs == 96


def test_the_widths_agree_with_a_real_cut() -> None:
    module, example = Net().eval(), torch.zeros(1, 3, 8, 8)
    found = layers_of(module, example)
    root = found["stem"].outputs_by[0][0][1]  # stem and depth go together; either may name the group
    cuts = [prune_graph.Cut(0, "", root, (0, 1, 2, 3)), prune_graph.Cut(0, "", "right", (1, 5, 7))]
    prune_graph.cut_channels(module, [Region("", example)], cuts)
    shares = {(cut.region, cut.layer): len(cut.indices) / {root: 16, "right": 12}[cut.layer] for cut in cuts}
    for name, item in layers_of(module, example).items():
        assert found[name].narrowed(shares) == item.shape, name


def test_points_between_are_interpolated_and_nothing_narrower_is_slower() -> None:
    class Uneven(Blocks):
        def layers_ms(self, shapes: Sequence[LayerShape]) -> dict[LayerShape, float]:
            times = {8: 1.0, 16: 3.0, 24: 2.0, 32: 4.0}
            return {shape: times[shape.outputs] for shape in shapes}

    table = make_table([layer()], {KEY: (8, 16, 24, 32)}, meter=Uneven())
    assert table.points == 4
    assert table.layer_cost(0, {}) == 4.0
    assert table.layer_cost(0, {KEY: 0.25}) == table.layer_cost(0, {KEY: 0.5}) == 2.5
    assert table.layer_cost(0, {KEY: 0.125}) == pytest.approx(3.25)
    assert table.layer_cost(0, {KEY: 0.9}) == 1.0


def test_few_points_are_asked_for_and_equal_layers_only_once() -> None:
    meter, wide = Blocks(), replace(CONV, inputs=512, outputs=512)
    widths = {KEY: tuple(range(104, 513, 8))}
    table = make_table([layer(wide), layer(wide)], widths, meter=meter)
    assert table.points == len(meter.asked) == 8
    assert {shape.outputs for shape in meter.asked} >= {104, 512}
    both = make_table([layer(wide, inputs=True)], widths, meter=Blocks())
    assert both.points == 16
    assert both.total_cost({}) == pytest.approx(blocks(wide))
    assert both.total_cost({KEY: 0.5}) == pytest.approx(blocks(wide) / 4, rel=0.2)
    deep = replace(wide, groups=0)
    assert make_table([layer(deep, inputs=True)], widths, meter=meter).points == 8


def test_points_are_kept_and_follow_the_pace_of_the_machine(tmp_path: Path) -> None:
    shapes = [replace(CONV, outputs=width) for width in (8, 16, 24, 32)]
    first = Blocks()
    assert kept_points(shapes, meter=first, cache=tmp_path)[CONV] == pytest.approx(blocks(CONV))
    assert len(first.asked) == 4
    later, more = Blocks(pace=2.0), replace(CONV, inputs=8)
    found = kept_points([*shapes, more], meter=later, cache=tmp_path)
    assert found[shapes[0]] == pytest.approx(2 * blocks(shapes[0]))
    assert found[more] == pytest.approx(2 * blocks(more))
    (path,) = tmp_path.glob("*.json")
    kept = json.loads(path.read_text(encoding="utf-8"))
    assert kept["environment"] == {"engine": "blocks"}
    assert kept["points_ms"][more.text] == pytest.approx(blocks(more))
    path.write_text("{", encoding="utf-8")
    assert kept_points(shapes, meter=Blocks(), cache=tmp_path)[CONV] == pytest.approx(blocks(CONV))
    assert kept_points([], meter=Blocks(), cache=None) == {}


def host(backend: Any) -> Target:
    options = {"delegate": "xnnpack"} if backend == "litert" else {}
    return Target(1, f"host-{backend}", "", backend, "host", ("fp32",), (), threads=1, engine_options=options)


@pytest.mark.parametrize(
    "shape",
    [
        CONV,
        replace(CONV, stride=(2, 2)),
        LayerShape("conv", 32, 32, (8, 8), (3, 3), (1, 1), (1, 1), groups=0),
        LayerShape("conv", 16, 16, (8, 8), (3, 3), (1, 1), (1, 1), groups=4),
        LayerShape("deconv", 16, 8, (8, 8), (2, 2), (2, 2)),
        LayerShape("linear", 64, 96, (10, 1)),
    ],
)
def test_both_forms_of_the_tiny_network_hold_the_layer(shape: LayerShape, tmp_path: Path) -> None:
    import onnx

    source = network_of(shape).source(tmp_path, program=False)
    assert source.onnx is not None
    model = onnx.load(source.onnx)
    onnx.checker.check_model(model, full_check=True)
    engine = backends.get("onnxruntime").load(source.onnx, options={}, threads=1)
    module = network_of(shape)._module().eval()
    with torch.no_grad():
        assert engine.outputs[0].shape == tuple(module(torch.zeros(engine.inputs[0].shape)).shape)
    engine.close()
    assert sum(isinstance(item, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)) for item in module) == 1 + (
        shape.kind != "linear"
    )
    assert surroundings_of(shape).layer is None


def test_a_larger_layer_takes_longer_on_a_real_engine() -> None:
    small, large = replace(CONV, inputs=32), replace(CONV, inputs=64, outputs=64, size=(32, 32))
    probe = EngineProbe(host("onnxruntime"))
    times = probe.layers_ms([large, small, small])
    assert 0 < times[small] < times[large]
    assert "python" not in probe.environment()["machine"]
    one, other = probe.networks_ms(
        [nn.Sequential(nn.Conv2d(3, 8, 3)), nn.Sequential(nn.Conv2d(3, 96, 5))], torch.zeros(1, 3, 48, 48)
    )
    assert one < other


def test_engines_take_turns() -> None:
    class Counting:
        inputs, outputs = (), ()

        def __init__(self, order: list[int], number: int) -> None:
            self.order, self.number = order, number

        def run(self, arrays: Any) -> list[Any]:
            self.order.append(self.number)
            return []

    order: list[int] = []
    engines: list[Any] = [Counting(order, 0), Counting(order, 1)]
    assert all(ms >= 0 for ms in interleaved_ms(engines, rounds=3))
    changes = sum(one != other for one, other in itertools.pairwise(order))
    assert changes == 1 + 2 * 3


@pytest.mark.build
@pytest.mark.parametrize("backend", ["openvino", "litert"])
def test_other_engines_are_timed_too(backend: str) -> None:
    shapes = [LayerShape("conv", 32, width, (32, 32), (3, 3), (1, 1), (1, 1)) for width in (8, 64)]
    times = EngineProbe(host(backend)).layers_ms(shapes)
    assert 0 < times[shapes[0]] < times[shapes[1]]
