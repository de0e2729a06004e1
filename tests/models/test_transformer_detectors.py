"""DETR and RT-DETR as graphs: the same numbers as transformers' own forward, and no operator that an engine lacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from edgecv.core.contract import InputContract  # noqa: E402
from edgecv.core.recipe import FamilySpec, ModelSpec, Weights  # noqa: E402
from edgecv.errors import ModelError  # noqa: E402
from edgecv.models.deformable import DeformableAttention  # noqa: E402
from edgecv.models.load import load_model  # noqa: E402
from edgecv.models.transformer_detectors import DETECTOR_CLASSES, detector_graph, published_names  # noqa: E402
from edgecv.optimize.capture import capture  # noqa: E402

from .transformer_nets import OPTIONS, old_names, tiny  # noqa: E402

SIZE = (64, 96)


def pictures(count: int) -> Any:
    return torch.randn(count, 3, *SIZE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", DETECTOR_CLASSES)
def test_it_computes_what_transformers_computes(name: str) -> None:
    """For two pictures at once; the graph takes the layers over, so the network goes first."""
    network = tiny(name)
    with torch.no_grad():
        wanted = network(pictures(2))
        logits, boxes = detector_graph(network, SIZE)(pictures(2))
    torch.testing.assert_close(logits, wanted.logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(boxes, wanted.pred_boxes, atol=1e-4, rtol=1e-4)
    assert float((logits[0] - logits[1]).abs().max()) > 1e-3, "the picture does not matter"


@pytest.mark.parametrize("name", DETECTOR_CLASSES)
def test_every_stage_is_that_of_transformers(name: str) -> None:
    """The last is the answer; before it come the decoder's other layers, and the queries that RT-DETR starts from."""
    network = tiny(name)
    if name.startswith("Detr"):
        network.config.auxiliary_loss = True
    asked = {"labels": [{"class_labels": torch.tensor([0]), "boxes": torch.full((1, 4), 0.5)}] * 2}
    with torch.no_grad():
        found = network(pictures(2), **(asked if name.startswith("Detr") else {}))
        graph = detector_graph(network, SIZE)
        stages, answer = graph(pictures(2), every=True), graph(pictures(2))
    if name.startswith("Detr"):
        wanted = [(item["logits"], item["pred_boxes"]) for item in found.auxiliary_outputs]
    else:
        boxes = (found.enc_topk_bboxes, *found.intermediate_reference_points.unbind(1))
        wanted = list(zip((found.enc_topk_logits, *found.intermediate_logits.unbind(1)), boxes, strict=True))[:-1]
    assert len(stages) == len(wanted) + 1
    for mine, theirs in zip(stages, [*wanted, answer], strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.build
@pytest.mark.parametrize("name", ["DetrForObjectDetection", "RTDetrForObjectDetection"])
def test_its_graph_has_no_operator_that_an_engine_lacks(name: str) -> None:
    module = detector_graph(tiny(name), SIZE)
    graph = capture(module, pictures(1))
    found = {str(node.target).split(".")[1] for node in graph.graph.nodes if "aten" in str(node.target)}
    lacking = {"grid_sampler", "grid_sampler_2d", "new_ones", "gather", "index", "cumsum", "nonzero", "batch_norm"}
    assert not found & lacking
    with torch.no_grad():
        for one, other in zip(graph(pictures(1)), module(pictures(1)), strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_places_are_sampled_as_grid_sample_does() -> None:
    """Two levels, places inside, at the edges and far outside."""
    maps, heads, points, width, asked = ((4, 6), (2, 3)), 2, 3, 5, 7
    generator = torch.Generator().manual_seed(0)
    layer = DeformableAttention(layers(heads * width, heads, 2, points), maps=maps, heads=heads, points=points, scale=1)
    values = torch.randn(2, 30, heads, width, generator=generator)
    shape = (2, asked, heads, 2 * points)
    x, y = (torch.rand(shape, generator=generator) * 1.6 - 0.3 for _ in range(2))
    x[0, 0], y[0, 1] = 50.0, -1e9
    shares = torch.rand(shape, generator=generator)
    wanted = torch.zeros(2, asked, heads, width)
    start = 0
    for level, (high, wide) in enumerate(maps):
        part = slice(level * points, (level + 1) * points)
        cells = values[:, start : start + high * wide].permute(0, 2, 3, 1).reshape(2 * heads, width, high, wide)
        grid = torch.stack([x[..., part], y[..., part]], -1).permute(0, 2, 1, 3, 4).flatten(0, 1) * 2 - 1
        taken = torch.nn.functional.grid_sample(cells, grid, align_corners=False, padding_mode="zeros")
        weighted = taken * shares[..., part].permute(0, 2, 1, 3).flatten(0, 1)[:, None]
        wanted += weighted.sum(-1).view(2, heads, width, asked).permute(0, 3, 1, 2)
        start += high * wide
    torch.testing.assert_close(layer.sample(values, x, y, shares), wanted.flatten(2), atol=1e-5, rtol=1e-5)


def layers(width: int, heads: int, levels: int, points: int) -> Any:
    linear = torch.nn.Linear
    given = torch.nn.Module()
    given.sampling_offsets = linear(width, heads * levels * points * 2)
    given.attention_weights = linear(width, heads * levels * points)
    given.value_proj, given.output_proj = linear(width, width), linear(width, width)
    return given


@pytest.mark.parametrize("name", DETECTOR_CLASSES)
def test_published_weights_fit_under_their_old_names(name: str, tmp_path: Path) -> None:
    network = tiny(name)
    with torch.no_grad():
        wanted = network(pictures(1))
    state = network.state_dict()
    old = old_names(state)
    assert set(old) != set(state)
    torch.save(old, tmp_path / "weights.pth")
    spec = ModelSpec(
        f"transformers:{name}",
        InputContract(size=SIZE),
        weights=Weights(path=str(tmp_path / "weights.pth")),
        options=OPTIONS[name],
    )
    family = FamilySpec("detection", ("a", "b", "c"), head="detr")
    module = load_model(spec, family=family, base=tmp_path, cache=tmp_path, seed=0)
    with torch.no_grad():
        logits, boxes = module(pictures(1))
    torch.testing.assert_close(logits, wanted.logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(boxes, wanted.pred_boxes, atol=1e-4, rtol=1e-4)


def test_names_of_today_stay() -> None:
    state = {"model.decoder.layers.0.mlp.fc1.weight": torch.zeros(1), "model.encoder.aifi.0.layers.0.x": torch.ones(1)}
    assert published_names(state) == state


def test_frozen_norms_become_ordinary_ones_and_no_weight_stays_frozen() -> None:
    module = detector_graph(tiny("DetrForObjectDetection"), SIZE)
    assert all(weight.requires_grad for weight in module.parameters())
    kinds = {type(part).__name__ for part in module.modules()}
    assert "BatchNorm2d" in kinds
    assert not any("Frozen" in kind for kind in kinds)


def test_what_cannot_go_to_the_engines_is_said() -> None:
    with pytest.raises(ModelError, match="position_embedding_type is 'learned'"):
        detector_graph(tiny("DetrForObjectDetection", position_embedding_type="learned"), SIZE)
    with pytest.raises(ModelError, match="decoder_method is 'discrete'"):
        detector_graph(tiny("RTDetrV2ForObjectDetection", decoder_method="discrete"), SIZE)
