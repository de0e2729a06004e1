from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from edgecv.optimize.capture import capture
from edgecv.optimize.rules import Plan, plan_graph

from .quantize_nets import example, residual


def plan_of(module: nn.Module, *, inputs: torch.Tensor | None = None, keep: tuple[str, ...] = ()) -> Plan:
    return plan_graph(capture(module.eval(), example() if inputs is None else inputs), keep_float=keep)


def owners(plan: Plan) -> dict[str, str]:
    """Quantised node -> node whose scale it uses, by name."""
    return {node.name: owner.name for node, owner in plan.outputs.items()}


def edges(plan: Plan) -> list[tuple[str, str]]:
    return [(source.name, layer.name) for source, layer in plan.edges]


class Net(nn.Module):
    """A layer, then what the test says, then a layer."""

    def __init__(self, middle: object) -> None:
        super().__init__()
        self.first, self.last, self.middle = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1), middle

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.last(self.middle(self.first(image)))


def test_everything_in_a_plain_network_is_int8_from_input_to_output() -> None:
    plan = plan_of(residual())
    assert set(owners(plan)) >= {"image", "relu", "conv2d_1", "relu_1", "conv2d_2", "hardsigmoid", "mul", "linear"}
    assert not plan.edges
    assert not plan.floats
    assert len(plan.weights) == 4


def test_no_scale_stands_between_a_layer_and_its_clamp() -> None:
    for clamp in (functional.relu, functional.relu6, functional.hardtanh):
        found = owners(plan_of(Net(clamp)))
        assert "conv2d" not in found
        assert len(found) == 3  # input, clamp, output


def test_other_activations_read_int8_and_have_a_scale_of_their_own() -> None:
    for activation in (functional.hardswish, functional.silu, functional.leaky_relu):
        found = owners(plan_of(Net(activation)))
        assert len(found) == 4
        assert all(node == owner for node, owner in found.items())


def test_a_clamp_that_is_not_the_only_reader_is_apart() -> None:
    found = owners(plan_of(Net(lambda value: value * functional.relu(value))))
    assert {"conv2d", "relu", "mul"} <= set(found)


def test_a_sum_and_its_inputs_share_one_scale() -> None:
    found = owners(plan_of(residual()))
    assert found["relu"] == found["conv2d_1"] == found["relu_1"] == "relu"
    assert found["image"] == "image"


def test_with_own_sums_each_has_its_own_scale() -> None:
    plan = plan_graph(capture(residual().eval(), example()), own_sums=True)
    found = owners(plan)
    assert all(found[name] == name for name in ("relu", "conv2d_1", "relu_1"))
    moved = plan_graph(capture(Net(lambda value: value.transpose(2, 3)).eval(), example()), own_sums=True)
    assert owners(moved)["transpose"] != "transpose", "what only moves values keeps its scale"


def test_a_sum_that_only_a_norm_reads_is_float() -> None:
    """The first sum of DETR: its widest channel made the steps of all others, and of the layers before it."""

    def normed(value: torch.Tensor) -> torch.Tensor:
        return functional.layer_norm(value + functional.hardswish(value), (16, 16))

    plan = plan_of(Net(normed))
    found = owners(plan)
    assert "add" not in found
    assert plan.why["add"] == "float, as the norm is that reads it"
    assert found["conv2d"] == "conv2d"
    assert found["hardswish"] == "hardswish"
    both = owners(plan_of(Net(lambda value: (value + (both := value + value)) + 0 * normed(both))))
    assert "add" in both, "another reader wants it in int8"


def test_a_product_has_a_scale_of_its_own() -> None:
    found = owners(plan_of(residual()))
    assert found["mul"] == "mul"


def test_a_square_stays_float_and_a_double_does_not() -> None:
    """LPRNet divides by means of squares; in eight bits they cost 2.4 dB at its outputs."""
    plan = plan_of(Net(lambda value: value * value))
    assert "mul" not in owners(plan)
    assert plan.why["mul"] == "float, as squares need more bits"
    assert "add" in owners(plan_of(Net(lambda value: value + value)))


def test_a_sum_with_a_constant_or_a_number_stays_float() -> None:
    for middle in (lambda value: value + 1.0, lambda value: value * torch.ones(1, 4, 1, 1)):
        plan = plan_of(Net(middle))
        assert len(edges(plan)) == 1
        assert edges(plan)[0][1] == "conv2d_1"


def test_operators_that_move_values_keep_one_scale() -> None:
    moves = (
        lambda value: functional.max_pool2d(value, 2),
        lambda value: functional.avg_pool2d(value, 2),
        lambda value: functional.interpolate(value, scale_factor=2, mode="nearest"),
        lambda value: functional.interpolate(value, scale_factor=2, mode="bilinear"),
        lambda value: functional.pad(value, (1, 1, 0, 0)),
        lambda value: value.transpose(2, 3)[:, :, ::2],
        lambda value: torch.cat([value[:, 2:], value[:, :2]], 1),
        lambda value: torch.cat(torch.chunk(value, 2, 1)[::-1], 1),
    )
    for move in moves:
        found = owners(plan_of(Net(move)))
        assert {owner for node, owner in found.items()} == {"image", "conv2d", "conv2d_1"}, move
        assert len(found) > 3


def test_a_concatenation_brings_its_sources_to_one_scale() -> None:
    found = owners(plan_of(Net(lambda value: torch.cat([value[:, :2], functional.hardswish(value[:, 2:])], 1))))
    assert found["hardswish"] == found["cat"] == found["conv2d"]


def test_padding_with_another_value_than_zero_stays_float() -> None:
    plan = plan_of(Net(lambda value: functional.pad(value, (1, 1, 1, 1), value=-1.0)))
    assert "pad" not in owners(plan)
    assert edges(plan) == [("pad", "conv2d_1")]


def test_sigmoid_tanh_softmax_and_gelu_stay_float() -> None:
    for name in ("sigmoid", "tanh", "gelu"):
        plan = plan_of(Net(getattr(functional, name) if name == "gelu" else getattr(torch, name)))
        assert name not in owners(plan)
        assert edges(plan) == [(name, "conv2d_1")]
    assert "softmax" not in owners(plan_of(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Softmax(1))))


def test_layers_between_float_operators_still_give_int8() -> None:
    """LiteRT computes a layer with float output in float."""
    module = nn.Sequential(nn.Flatten(), nn.LayerNorm(768), nn.Linear(768, 8), nn.GELU(), nn.Linear(8, 4))
    plan = plan_of(module)
    assert edges(plan) == [("layer_norm", "linear"), ("gelu", "linear_1")]
    assert set(owners(plan)) == {"linear", "linear_1"}


def test_an_input_that_no_layer_reads_as_int8_stays_float() -> None:
    assert "input" not in str(owners(plan_of(nn.Sequential(nn.Sigmoid(), nn.Conv2d(3, 4, 1)))))


def test_modules_are_kept_float_by_glob() -> None:
    plan = plan_of(residual(), keep=("body.*", "head"))
    assert {layer.name for layer, _, _ in plan.weights} == {"conv2d", "conv2d_2"}
    assert plan.floats == {"conv2d_1": "kept float by 'body.*'", "linear": "kept float by 'head'"}
    assert {"conv2d_1", "linear"}.isdisjoint(owners(plan))


def test_weights_have_their_output_channel_axis() -> None:
    module = nn.Sequential(
        nn.ConvTranspose2d(3, 4, 2), nn.ConvTranspose2d(4, 4, 2, groups=2), nn.Conv2d(4, 4, 1), nn.Flatten()
    )
    assert [axis for _, _, axis in plan_of(module).weights] == [1, None, 0]


def test_a_layer_with_computed_weights_stays_float() -> None:
    class Dynamic(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return functional.conv2d(image, image[:, :, :3, :3])

    plan = plan_of(Dynamic())
    assert not plan.weights
    assert list(plan.floats.values()) == ["its weight is not a constant"]


def test_every_quantised_tensor_has_a_reason() -> None:
    plan = plan_of(residual())
    assert all(plan.why[node.name] for node in plan.outputs)
    assert plan.why["relu"] == "output of conv2d stem.0 + relu stem.2"
    assert plan.why["image"] == "input image"


def test_a_layer_whose_result_is_only_moved_before_float_work_stays_int8() -> None:
    """As in ConvNeXt: engines would compute the layer in float, and store its weights so."""

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 5)
            self.gain = nn.Parameter(torch.rand(5, 1, 1))

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            made: torch.Tensor = self.layer(image.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            return made * self.gain

    plan = plan_graph(capture(Scaled().eval(), torch.rand(1, 3, 8, 8)))
    assert "linear" in {node.name for node in plan.outputs}


def test_what_is_joined_to_float_values_stays_float() -> None:
    """A detector's boxes beside its scores: the boxes' layer gives float, its input and weights are int8."""

    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.boxes, self.scores = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1), nn.Conv2d(8, 2, 1)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            found = self.body(image).relu()
            return torch.cat([self.boxes(found).flatten(2), self.scores(found).sigmoid().flatten(2)], 1)

    graph = capture(Head().eval(), torch.zeros(1, 3, 8, 8))
    plan = plan_graph(graph)
    made = {node.name for node in plan.outputs}
    assert {"image", "relu", "conv2d_2"} <= made
    assert "conv2d_1" not in made
    assert not [name for name in made if name.startswith(("cat", "flatten", "view"))]
    assert plan.why["conv2d_1"] == "float, as it is joined to float values"
    assert len(plan.weights) == 3


def test_an_open_batch_axis_changes_no_rule() -> None:
    """Its length is a number that shapes are made of, and no value that would have to be int8."""

    def fold(values: torch.Tensor) -> torch.Tensor:
        return values.reshape(values.shape[0], -1, *values.shape[1:])[:, -1]

    images = torch.cat([example(), example()])
    plans = [plan_graph(capture(Net(fold).eval(), images, dynamic_batch=is_open)) for is_open in (False, True)]
    assert sorted(plans[0].why.values()) == sorted(plans[1].why.values())
    assert not plans[1].edges
