"""What is known of each ONNX operator: one table, from its name to the function that adds it to the graph."""

from __future__ import annotations

from edgecv.models.onnx_import.ops import indexing, layers, pointwise, reduce, resize, shapes
from edgecv.models.onnx_import.values import Converter

__all__ = ["OPS"]

OPS: dict[str, Converter] = {
    **indexing.OPS,
    **layers.OPS,
    **pointwise.OPS,
    **reduce.OPS,
    **resize.OPS,
    **shapes.OPS,
}
