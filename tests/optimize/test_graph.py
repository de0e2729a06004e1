from __future__ import annotations

import pytest
import torch
from torch import nn

from edgecv.errors import ModelError
from edgecv.optimize.capture import capture
from edgecv.optimize.fold import spell_batch_norms
from edgecv.optimize.graph import get_constant, groups_of, module_path, set_constant

from .quantize_nets import example, images, residual, targets


def both(module: nn.Module, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """Output of the module, output of its graph, operators of the graph."""
    graph = capture(module, inputs)
    with torch.no_grad():
        return module(inputs), graph(inputs), targets(graph)


def test_a_captured_graph_computes_what_the_module_does() -> None:
    expected, found, _ = both(residual(), example())
    assert torch.allclose(expected, found, atol=1e-5)


def test_batch_norms_are_folded_and_no_ops_gone() -> None:
    _, _, operators = both(residual(), example())
    assert not {"_native_batch_norm_legit_no_training", "dropout", "clone", "alias"} & set(operators)
    assert operators.count("conv2d") == 3
    assert "relu_" not in operators


def test_global_pools_become_means() -> None:
    _, _, operators = both(residual(), example())
    assert operators.count("mean") == 2
    assert "adaptive_avg_pool2d" not in operators


@pytest.mark.parametrize("kernel", [(4, 4), 4, (2, 2)])
def test_only_pools_over_the_whole_picture_become_means(kernel: int | tuple[int, int]) -> None:
    expected, found, operators = both(nn.AvgPool2d(kernel), torch.rand(1, 2, 4, 4))
    assert operators == (["avg_pool2d"] if kernel == (2, 2) else ["mean"])
    assert torch.allclose(expected, found)


class Idle(nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        image = torch.ops.aten.alias(image).contiguous()[:, :, 0:].expand(1, 2, 4, 4)
        image = image.permute(0, 1, 2, 3).transpose(1, -3).to(torch.float32)
        return image.detach().clone().reshape(1, 2, 4, 4) + 1


def test_nodes_that_only_pass_on_are_removed() -> None:
    expected, found, operators = both(Idle(), torch.rand(1, 2, 4, 4))
    assert operators == ["add"]
    assert torch.equal(expected, found)


class Moves(nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image.transpose(2, 3).contiguous().view(1, 2, -1)[:, :, ::2].flip(2).clone()


def test_nodes_that_move_values_stay_and_run_without_the_copy_before_them() -> None:
    expected, found, operators = both(Moves(), torch.rand(1, 2, 3, 4))
    assert operators == ["transpose", "reshape", "slice", "flip"]
    assert torch.equal(expected, found)


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Sequential(nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4)), (2, 2, 5, 5)),
        (nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.BatchNorm2d(4, affine=False)), (2, 4, 5, 5)),
        (nn.Sequential(nn.ConvTranspose2d(2, 4, 2, 2), nn.BatchNorm2d(4)), (2, 2, 5, 5)),
        (nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)), (2, 4)),
    ],
)
def test_batch_norms_fold_into_every_kind_of_layer(module: nn.Module, shape: tuple[int, ...]) -> None:
    with torch.no_grad():
        for _ in range(5):
            module(torch.rand(8, *shape[1:]) * 3 + 1)
    expected, found, operators = both(module.eval(), torch.rand(shape))
    assert len(operators) == 1
    assert torch.allclose(expected, found, atol=1e-5)


def test_a_batch_norm_without_a_layer_stays_and_can_be_spelled_as_a_convolution() -> None:
    module = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 2, 1))
    with torch.no_grad():
        module(torch.from_numpy(images(8)))
    module.eval()
    graph = capture(module, example())
    assert "conv2d" in targets(graph)[1:]
    assert spell_batch_norms(graph) == 1
    assert targets(graph) == ["conv2d", "relu", "conv2d"]
    layer = next(node for node in graph.graph.nodes if node.op == "call_function")
    assert groups_of(layer) == 3
    with torch.no_grad():
        assert torch.allclose(module(example()), graph(example()), atol=1e-5)


def test_a_layer_whose_result_is_read_twice_keeps_its_batch_norm() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            result = self.layer(image)
            return result + self.norm(result)

    module = Twice().eval()
    module.norm.running_mean.fill_(2.0)
    expected, found, operators = both(module, example())
    assert "_native_batch_norm_legit_no_training" in operators
    assert torch.allclose(expected, found, atol=1e-5)


def test_two_norms_behind_one_shared_layer_get_weights_of_their_own() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.one, self.two = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.two(self.layer(torch.relu(self.one(self.layer(image)))))

    module = Shared().eval()
    module.one.running_var.fill_(4.0)
    expected, found, _ = both(module, example())
    assert torch.allclose(expected, found, atol=1e-5)


def test_capture_leaves_the_module_as_it_was() -> None:
    module = residual()
    module.train()
    module.stem.eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    graph = capture(module, example())
    with torch.no_grad():
        for parameter in graph.parameters():
            parameter.zero_()
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert module.training
    assert not module.stem[0].training


def test_an_open_batch_axis_takes_any_batch() -> None:
    module = residual()
    graph = capture(module, torch.cat([example(), example()]), dynamic_batch=True)
    pictures = torch.from_numpy(images(5))
    with torch.no_grad():
        assert torch.allclose(module(pictures), graph(pictures), atol=1e-5)


def test_a_module_that_cannot_be_traced_is_named() -> None:
    class Branch(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image if image.sum() > 0 else -image

    with pytest.raises(ModelError, match="cannot trace Branch on an input of shape"):
        capture(Branch(), example())


def test_nodes_know_the_module_that_they_came_from() -> None:
    graph = capture(residual(), example())
    layers = [node for node in graph.graph.nodes if node.name.startswith("conv2d")]
    assert [module_path(node)[-1] for node in layers] == ["stem.0", "body.0", "gate"]


def test_constants_are_set_and_read_by_dotted_name() -> None:
    graph = capture(residual(), example())
    set_constant(graph, "some.where.weight", torch.ones(2))
    with graph.graph.inserting_before(next(iter(graph.graph.nodes))):
        node = graph.graph.get_attr("some.where.weight")
    assert torch.equal(get_constant(graph, node), torch.ones(2))
    set_constant(graph, "some.where.weight", torch.tensor([3], dtype=torch.int8))
    assert get_constant(graph, node).dtype == torch.int8
