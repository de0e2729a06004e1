"""What depends on no picture is computed before quantisation, and engines never see it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import nn
from torch.fx import GraphModule
from torch.nn import functional

from edgecv import backends
from edgecv.core.protocols import CompileSource
from edgecv.core.recipe import Quantize
from edgecv.optimize.capture import capture
from edgecv.optimize.export import save_program, write_onnx
from edgecv.optimize.graph import LINEAR
from edgecv.optimize.ptq import quantize_ptq
from edgecv.optimize.qat import quantize_qat
from edgecv.optimize.training import FitResult, Hooks

from .quantize_nets import batches, example, images
from .test_engines_agree import ENGINES, target

pytestmark = pytest.mark.build

WIDTH, QUERIES = 16, 5


class Attention(nn.Module):
    """Two heads; questions `(B, N, 16)`, and what is asked `(B, M, 16)`."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, questions: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        batch = questions.shape[0]
        one, two, three = (
            layer(item).view(batch, -1, 2, WIDTH // 2).transpose(1, 2)
            for layer, item in ((self.q, questions), (self.k, keys), (self.v, values))
        )
        found = functional.scaled_dot_product_attention(one, two, three)
        return self.o(found.transpose(1, 2).reshape(batch, -1, WIDTH))


class Queries(nn.Module):
    """The first layer of a DETR's decoder: learned queries ask one another, then the picture."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patch = nn.Conv2d(3, WIDTH, 4, stride=4)
        self.queries, self.places = (nn.Parameter(torch.randn(1, QUERIES, WIDTH)) for _ in range(2))
        self.own, self.cross, self.norm = Attention(), Attention(), nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, 6)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        tokens = self.patch(image).flatten(2).transpose(1, 2)
        queries, places = (item.expand(image.shape[0], -1, -1) for item in (self.queries, self.places))
        asking = queries + places
        hidden = self.norm(queries + self.own(asking, asking, queries))
        return self.head(hidden + self.cross(hidden + places, tokens, tokens))


def names(graph: GraphModule) -> list[str]:
    """Of the constants that were computed."""
    found = [str(node.target) for node in graph.graph.nodes if node.op == "get_attr"]
    return [name for name in found if name.startswith("constant_")]


def test_queries_are_computed_up_to_where_they_meet_the_picture() -> None:
    module = Queries().eval()
    graph = capture(module, example())
    layers = [node for node in graph.graph.nodes if node.target is LINEAR]
    assert len(layers) == 4, "k, v and o of the second attention, and the head; the five others are gone"
    assert not any(name.startswith("own.") for name in graph.state_dict())
    assert len(names(graph)) == 2, "the queries, and what they ask"
    with torch.no_grad():
        assert torch.allclose(graph(example()), module(example()), atol=1e-6)


def test_a_graph_that_will_be_trained_keeps_its_parameters() -> None:
    class Placed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.shift = nn.Conv2d(3, 4, 1), nn.Parameter(torch.ones(4, 1, 1))

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.layer(image) + 2 * self.shift

    assert names(capture(Placed(), example())) == ["constant_mul"]
    pair = torch.cat([example(), example()])
    graph = capture(Placed(), pair, dynamic_batch=True)
    assert names(graph) == []
    assert "shift" in graph.state_dict()


def test_what_is_only_repeated_or_is_random_stays() -> None:
    class Repeated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.row = nn.Parameter(torch.randn(1, 3, 1, 16))

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return torch.cat([image, (self.row * 2).expand(1, 3, 16, 16), torch.rand(1, 3, 16, 16)], dim=1)

    graph = capture(Repeated(), example())
    assert names(graph) == ["constant_mul"]
    assert graph.constant_mul.shape == (1, 3, 1, 16)
    with torch.no_grad():
        one, other = graph(example()), graph(example())
    assert torch.equal(one[:, :6], other[:, :6])
    assert not torch.equal(one[:, 6:], other[:, 6:])


def test_computed_weights_are_weights() -> None:
    """A layer with weight normalisation has constant weights once it is trained, and is int8 like others."""
    module = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), nn.ReLU(), nn.Conv2d(4, 2, 1))
    made = quantize_ptq(module, example(), step=Quantize("ptq"), calibration=batches(images(8)))
    assert sum(record.kind == "weight" for record in made.plan) == 2
    assert not any(record.kind == "float" for record in made.plan)


def untrained(module: nn.Module, _: Hooks) -> FitResult:
    """In place of a training: all stays as it was."""
    return FitResult(module, 0, 0, None, ())


def in_int8(step: Quantize) -> Any:
    """The network after post-training quantisation, or as training without an epoch leaves it."""
    module, calibration = Queries().eval(), batches(images(16))
    if step.method == "ptq":
        return quantize_ptq(module, example(), step=step, calibration=calibration).program
    return quantize_qat(module, example(), step=step, calibration=calibration, fit=untrained)[0].program


@pytest.mark.parametrize("method", ["ptq", "qat"])
@pytest.mark.parametrize("keep", [(), ("own.o", "cross.q")])
def test_every_engine_answers_alike_for_one_picture_after_the_other(
    keep: tuple[str, ...], method: Literal["ptq", "qat"], tmp_path: Path
) -> None:
    """OpenVINO refused what the queries were computed with in int8, or was wrong from the second picture on."""
    program = in_int8(Quantize(method, scheme="affine", ranges="minmax", smooth_quant=method == "ptq", keep_float=keep))
    assert sum(node.target is LINEAR for node in program.graph.nodes) == 4
    save_program(program, tmp_path / "model.pt2")
    write_onnx(program, tmp_path / "model.onnx", log=tmp_path / "log")
    source, graph = CompileSource("int8", tmp_path / "model.onnx", tmp_path / "model.pt2"), program.module()
    for name in ENGINES:
        backend, out = backends.get(name), tmp_path / name
        out.mkdir()
        compiled = backend.compile(source, target=target(name), out=out, log=tmp_path / "log")
        engine = backend.load(out / compiled.model, options=compiled.options, threads=1)
        for array in images(3, seed=3):
            given = array[None] if engine.inputs[0].layout == "NCHW" else array[None].transpose(0, 2, 3, 1)
            found = engine.run([np.ascontiguousarray(engine.inputs[0].quantize(given))])[0]
            with torch.no_grad():
                wanted = graph(torch.from_numpy(array[None])).numpy()
            assert np.abs(engine.outputs[0].dequantize(found) - wanted).max() < 0.02 * np.abs(wanted).max(), name
        engine.close()
