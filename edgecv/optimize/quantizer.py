"""The quantizer: hands the plan of `edgecv.optimize.rules` to torchao and NNCF as annotations.

Two schemes. ``portable``: activations int8 per tensor with zero point 0, which every target takes
(TensorRT takes nothing else). ``affine``: activations int8 per tensor with a zero point, more exact
behind ReLU. In both, weights are int8 per output channel within -127..127 with zero point 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch.fx import GraphModule, Node

from edgecv.errors import EdgecvError
from edgecv.optimize.clip_ranges import ClipRangeObserver
from edgecv.optimize.pt2e import (
    FakeQuantize,
    MinMaxObserver,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    PerChannelMinMaxObserver,
    QuantizationAnnotation,
    QuantizationSpec,
    Quantizer,
    SharedQuantizationSpec,
)
from edgecv.optimize.rules import Plan, plan_graph

__all__ = ["ANNOTATION", "EdgeQuantizer", "Scheme"]

Scheme = Literal["portable", "symmetric", "affine"]
"""``portable`` is symmetric here: which targets there are is known to the plan of a build only."""
ANNOTATION = "quantization_annotation"
RANGE_AVERAGING = 0.1
"""Share of the newest batch in a moving range: small sets have few steps, and a slow range would clip what it lags."""


class EdgeQuantizer(Quantizer):
    """Annotates a captured graph for ``prepare_pt2e``, ``prepare_qat_pt2e`` or NNCF's ``quantize_pt2e``.

    ``training`` asks for fake quantisers instead of observers, with ``clips`` for such as observe whole clips
    (`edgecv.optimize.clip_ranges`); ``sums`` is a step's. After `annotate`, ``plan`` tells what was decided and why.
    (Derives from torchao's ``Quantizer`` because both tools ask for its subclasses.)
    """

    def __init__(
        self,
        *,
        scheme: Scheme,
        keep_float: Iterable[str] = (),
        sums: Literal["shared", "own"] = "shared",
        training: bool = False,
        clips: bool = False,
    ) -> None:
        super().__init__()
        self.plan = Plan()
        self._keep_float = tuple(keep_float)
        self._activation = _activation_spec(scheme, training=training, clips=clips)
        self._training, self._own_sums = training, sums == "own"

    def annotate(self, model: GraphModule) -> GraphModule:
        """Write the annotations of the plan into the nodes' metadata; returns ``model``."""
        self.plan = plan_graph(model, keep_float=self._keep_float, own_sums=self._own_sums)
        inputs: dict[Node, dict[Node, Any]] = {}
        for source, layer in self.plan.edges:
            inputs.setdefault(layer, {})[source] = self._activation
        for layer, weight, axis in self.plan.weights:
            inputs.setdefault(layer, {})[weight] = _weight_spec(axis, training=self._training)
        for node in model.graph.nodes:
            owner = self.plan.outputs.get(node)
            if owner is None and node not in inputs:
                continue
            spec = None
            if owner is not None:
                spec = self._activation if owner is node else SharedQuantizationSpec(owner)
            node.meta[ANNOTATION] = QuantizationAnnotation(
                input_qspec_map=inputs.get(node, {}), output_qspec=spec, _annotated=True
            )
        return model

    def validate(self, model: GraphModule) -> None:
        """Check that no tensor would be quantised between a layer and the clamp that is fused into it.

        Raises:
            EdgecvError: an annotation breaks the rules; a defect of edgecv.
        """
        for layer, _, _ in self.plan.weights:
            users = list(layer.users)
            annotation = layer.meta[ANNOTATION]
            if annotation.output_qspec is not None and len(users) == 1 and users[0] in self.plan.outputs:
                name = getattr(users[0].target, "__name__", "")
                if name.split(".")[0] in ("relu", "relu6", "hardtanh"):
                    raise EdgecvError(f"{layer.name} is quantised before its {name}; expected one step for both")

    def get_nncf_quantization_setup(self, model: GraphModule, nncf_graph: Any) -> Any:
        """What NNCF asks for in place of `annotate`: the same plan in its own words.

        NNCF would give results of a ReLU an unsigned range, which means zero point -128; the portable
        scheme forbids that, so its ranges are forced to be signed.
        """
        from nncf.experimental.torch.fx.quantization.quantizer.torch_ao_adapter import TorchAOQuantizerAdapter

        setup = TorchAOQuantizerAdapter(self).get_quantization_setup(model, nncf_graph)
        for point in setup.quantization_points.values():
            point.qconfig.signedness_to_force = True
        return setup


def _activation_spec(scheme: Scheme, *, training: bool, clips: bool) -> QuantizationSpec:
    qscheme = torch.per_tensor_affine if scheme == "affine" else torch.per_tensor_symmetric
    observer: Any = MinMaxObserver
    if training:
        tracker: Any = ClipRangeObserver if clips else MovingAverageMinMaxObserver
        observer = FakeQuantize.with_args(observer=tracker.with_args(averaging_constant=RANGE_AVERAGING))
    return QuantizationSpec(
        dtype=torch.int8, observer_or_fake_quant_ctr=observer, quant_min=-128, quant_max=127, qscheme=qscheme
    )


def _weight_spec(axis: int | None, *, training: bool) -> QuantizationSpec:
    """One scale per output channel at ``axis``, or one per tensor."""
    qscheme = torch.per_tensor_symmetric if axis is None else torch.per_channel_symmetric
    observer: Any = MinMaxObserver if axis is None else PerChannelMinMaxObserver
    if training:  # averaging_constant 1: the range follows the weights, it is not their history
        tracker: Any = MovingAverageMinMaxObserver if axis is None else MovingAveragePerChannelMinMaxObserver
        observer = FakeQuantize.with_args(observer=tracker.with_args(averaging_constant=1.0))
    return QuantizationSpec(
        dtype=torch.int8,
        observer_or_fake_quant_ctr=observer,
        quant_min=-127,
        quant_max=127,
        qscheme=qscheme,
        ch_axis=axis,
    )
