"""Distillation inside of a network: attention maps, where they are tapped, and that a student follows them."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from edgecv.core.recipe import Distill
from edgecv.errors import ModelError
from edgecv.optimize.capture import capture
from edgecv.optimize.features import attention, mark_features, tap_features, unmark_features

from .test_training import OBJECTIVE, PLAN, run
from .tiny_reader import tiny_net

FEATURES = Distill(weight=1.0, features=("2",))


def test_attention_is_the_energy_at_each_place_whatever_the_channels() -> None:
    values = torch.zeros(1, 2, 1, 2)
    values[0, :, 0, 0] = 3.0
    values[0, 0, 0, 1] = 1.0
    expected = nn.functional.normalize(torch.tensor([[9.0, 0.5]]), dim=1)
    assert torch.allclose(attention(values), expected)
    assert torch.allclose(attention(torch.cat([values, values], dim=1)), expected)
    assert attention(torch.ones(2, 5, 7)).shape == (2, 5)
    assert attention(torch.ones(2, 3)).shape == (2, 3)


def test_only_named_modules_that_both_have_are_tapped() -> None:
    pictures = torch.rand(2, 1, 8, 8)
    student, teacher = tiny_net(), tiny_net(seed=1)
    with tap_features(teacher, student, Distill(weight=0.5, features=("[02]",))) as taps:
        assert taps is not None
        student(pictures)
        teacher(pictures)
        assert sorted(taps.student) == ["0", "2"]
        assert taps.loss().item() > 0
    kept = dict(taps.student)
    student(pictures * 2)
    assert taps.student == kept  # nothing is kept any more
    with tap_features(teacher, student, Distill(weight=0.5)) as none:
        assert none is None


def test_a_name_that_fits_nothing_is_refused() -> None:
    with (
        pytest.raises(ModelError, match=r"'layer4' fits no module .* 0, 1, 2"),
        tap_features(tiny_net(), tiny_net(), Distill(features=("2", "layer4"))),
    ):
        pass


def test_maps_of_other_sizes_are_refused() -> None:
    other = nn.Sequential(nn.Identity(), nn.Identity(), nn.MaxPool2d(2))
    with tap_features(other, tiny_net(), FEATURES) as taps:
        assert taps is not None
        taps.student["2"], taps.teacher["2"] = torch.ones(1, 2, 4, 4), torch.ones(1, 2, 2, 2)
        with pytest.raises(ModelError, match=r"'2' gives \(1, 2, 4, 4\) .* \(1, 2, 2, 2\)"):
            taps.loss()


def test_training_brings_the_features_nearer() -> None:
    teacher = run(tiny_net(seed=5), dataclasses.replace(PLAN, epochs=6)).module
    pictures = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    away = {}
    for name, distill in (("plain", Distill(weight=0.5)), ("features", Distill(0.5, 4.0, ("2",), 50.0))):
        objective = dataclasses.replace(OBJECTIVE, teacher=teacher, distill=distill)
        student = run(tiny_net(seed=6), PLAN, objective=objective, validation=None).module
        with torch.no_grad():
            away[name] = float((attention(student[:3](pictures)) - attention(teacher[:3](pictures))).square().sum())
    assert away["features"] < 0.8 * away["plain"]


def test_a_captured_graph_is_tapped_where_the_module_was() -> None:
    module, pictures = tiny_net().eval(), torch.rand(2, 1, 8, 8)
    graph = capture(module, pictures)
    expected = graph(pictures)
    assert mark_features(graph, ("2", "6")) == 2
    with tap_features(module, graph, Distill(weight=1.0, features=("2",))) as taps:
        assert taps is not None
        assert torch.equal(graph(pictures), expected)
        assert torch.allclose(taps.student["2"], module[:3](pictures), atol=1e-5)
    unmark_features(graph)
    assert all(node.op != "call_module" for node in graph.graph.nodes)
    assert torch.equal(graph(pictures), expected)
