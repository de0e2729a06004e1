"""The result of quantisation: records of tensors, saturation."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgecv.core.protocols import Batches
from edgecv.optimize.capture import capture
from edgecv.optimize.pt2e import convert_pt2e, prepare_qat_pt2e
from edgecv.optimize.quantized import (
    SATURATION_MARGIN,
    SATURATION_SAMPLES,
    QuantizedGraph,
    TensorRecord,
    wrap_up,
)
from edgecv.optimize.quantizer import EdgeQuantizer, Scheme

from .quantize_nets import batches, example, images, residual

pytestmark = pytest.mark.build

SHAPE = (3, 16, 16)


def plain() -> nn.Module:
    """Two layers; `residual` costs seconds to trace."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()


def quantised(
    observed: np.ndarray,
    *,
    module: nn.Module | None = None,
    calibration: Batches | None = None,
    scheme: Scheme = "portable",
    keep_float: tuple[str, ...] = (),
) -> QuantizedGraph:
    """`wrap_up` of a network with the ranges of ``observed``; saturation is judged by ``calibration``."""
    quantizer = EdgeQuantizer(scheme=scheme, keep_float=keep_float, training=True)
    graph = prepare_qat_pt2e(capture(module or residual(), example()), quantizer)
    with torch.no_grad():
        for picture in torch.from_numpy(observed).split(1):
            graph(picture)
        converted = convert_pt2e(graph, fold_quantize=False)
        return wrap_up(converted, plan=quantizer.plan, example=example(), calibration=calibration or batches(observed))


def by_name(made: QuantizedGraph) -> dict[str, TensorRecord]:
    return {record.node: record for record in made.plan}


def quantising(made: QuantizedGraph) -> list[Any]:
    nodes = made.program.graph.nodes
    return [node for node in nodes if str(node.target).startswith("quantized_decomposed.quantize_")]


@pytest.fixture(scope="module")
def portable() -> QuantizedGraph:
    return quantised(images(8))


def test_every_quantised_tensor_has_one_record_and_the_scale_of_its_node(portable: QuantizedGraph) -> None:
    nodes = quantising(portable)
    kinds = ["weight" if isinstance(node.args[1], torch.fx.Node) else "activation" for node in nodes]
    assert [record.kind for record in portable.plan] == kinds
    for node, record in zip(nodes, portable.plan, strict=True):
        if record.kind == "activation":
            assert record.scale_min == record.scale_max == pytest.approx(node.args[1], rel=1e-6)
            assert record.zero_point == node.args[2]


def test_weight_records_span_the_scales_of_the_channels(portable: QuantizedGraph) -> None:
    record = by_name(portable)["gate.weight"]
    rows = residual().get_parameter("gate.weight").detach().abs().amax((1, 2, 3)) / 127
    assert record.kind == "weight"
    assert record.scale_min == pytest.approx(float(rows.min()), rel=2e-3)
    assert record.scale_max == pytest.approx(float(rows.max()), rel=2e-3)


def test_a_weight_with_one_scale_says_so() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ConvTranspose2d(4, 4, 2, groups=2)).eval()
    records = by_name(quantised(images(4), module=module))
    assert records["0.weight"].why == "one scale per output channel"
    assert records["1.weight"].why == "one scale per tensor"
    assert records["1.weight"].scale_min == records["1.weight"].scale_max


def test_portable_has_no_zero_points_and_affine_has() -> None:
    assert {record.zero_point for record in quantised(images(4), module=plain()).plan} == {0}
    affine = quantised(images(4), module=plain(), scheme="affine").plan
    assert {record.zero_point for record in affine if record.kind == "weight"} == {0}
    assert any(record.zero_point != 0 for record in affine if record.kind == "activation")


def test_weights_use_minus_127_to_127(portable: QuantizedGraph) -> None:
    limits = [node.args[-3:-1] for node in quantising(portable) if "per_channel" in str(node.target)]
    assert limits == [(-127, 127)] * 4


def test_what_stays_float_is_recorded_with_its_reason() -> None:
    records = by_name(quantised(images(4), keep_float=("gate",)))
    kept = [record for record in records.values() if record.kind == "float"]
    assert [(record.why, record.scale_min, record.scale_max) for record in kept] == [("kept float by 'gate'", 0.0, 0.0)]
    assert "gate.weight" not in records


def test_the_program_has_batch_1_and_computes_what_its_graph_says(portable: QuantizedGraph) -> None:
    with torch.no_grad():
        expected = residual()(example())
        found = portable.program.module()(example())
    assert found.shape == (1, 10)
    ratio = float((expected**2).sum() / ((found - expected) ** 2).sum())
    assert 10 * math.log10(ratio) > 15


def test_pictures_within_the_ranges_do_not_saturate() -> None:
    arrays = images(1)
    assert quantised(arrays, module=plain(), calibration=batches(arrays * 0.5)).saturated == ()


def test_pictures_far_outside_the_ranges_saturate_and_the_share_is_right() -> None:
    arrays = images(1)
    wide = arrays * 4
    made = quantised(arrays, module=plain(), calibration=batches(wide))
    shares = {item.node: item.share for item in made.saturated}
    scale = by_name(made)["input_1"].scale_max
    steps = wide / scale
    margin = SATURATION_MARGIN * 255 / 2
    expected = float(((steps < -128 - margin) | (steps > 127 + margin)).mean())
    assert expected > 0.1
    assert shares["input_1"] == pytest.approx(expected, abs=2 / steps.size)
    assert all(0.001 < share <= 1.0 for share in shares.values())


def test_pictures_just_past_the_ranges_do_not_saturate() -> None:
    arrays = images(1)
    assert quantised(arrays, module=plain(), calibration=batches(arrays * 1.05)).saturated == ()


def test_a_few_values_outside_the_range_are_no_saturation() -> None:
    arrays = images(1)
    spiked = arrays.copy()
    spiked[0, 0, 0, 0] = 1000.0  # 1 of 768 values is 0.13 %; over two pictures 0.065 %
    one = quantised(arrays, module=plain(), calibration=batches(spiked))
    two = quantised(arrays, module=plain(), calibration=batches(np.concatenate([spiked, arrays])))
    assert "input_1" in {item.node for item in one.saturated}
    assert "input_1" not in {item.node for item in two.saturated}


def test_saturation_and_ties_are_judged_by_the_first_pictures_only() -> None:
    arrays = images(1)
    taken: list[int] = []

    def endless() -> Iterator[tuple[np.ndarray, Any]]:
        while True:
            taken.append(1)
            yield np.concatenate([arrays * 0.5] * 8), None

    assert quantised(arrays, module=plain(), calibration=endless).saturated == ()
    assert len(taken) == 2 * SATURATION_SAMPLES // 8, "once for saturation, once for the ties of the input's scale"


def test_a_network_without_int8_tensors_has_a_program_and_no_records() -> None:
    made = quantised(images(2), module=nn.Sequential(nn.Sigmoid(), nn.Softmax(1)).eval())
    assert (made.plan, made.saturated) == ((), ())
    with torch.no_grad():
        assert torch.allclose(made.program.module()(example()), torch.softmax(torch.sigmoid(example()), 1))
