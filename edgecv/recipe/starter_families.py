"""What `edgecv init --family` writes for families other than classification: labels, head, and data to judge by."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path

from edgecv import families
from edgecv.core.kinds import DATA_KINDS, FAMILY_KINDS, data_facts, family_facts
from edgecv.core.recipe import FamilySpec
from edgecv.core.tensor import TensorSpec
from edgecv.recipe.yaml_lines import plain_value

__all__ = ["data_section", "family_section", "fitting_heads", "judged_families", "onnx_outputs"]

_USUAL_COUNTS = (80, 20, 91, 1, 2, 3, 4, 5, 10)
"""Numbers of classes that are tried where a file does not tell; 80 are COCO's."""


def judged_families() -> tuple[str, ...]:
    """The families for which edgecv reads data with truths, so that a recipe of theirs can be run."""
    return tuple(kind for kind, facts in FAMILY_KINDS.items() if any(name in DATA_KINDS for name in facts.data))


def family_section(family: str, outputs: Sequence[tuple[int, ...]]) -> str:
    """The recipe's section ``family``; of several heads the first that fits ``outputs``, the others named beside it."""
    facts, module = family_facts(family), families.get(family)
    lines = ["", "family:", f"  kind: {family}"]
    heads = getattr(module, "HEAD_NAMES", ())
    if heads:
        fitting = [name for name, _ in fitting_heads(family, outputs)] or list(heads)
        why = "fits the file's outputs" if len(fitting) == 1 else "EDIT: how the outputs are laid out"
        others = f"; or {', '.join(fitting[1:])}" if len(fitting) > 1 else ""
        lines.append(f"  head: {fitting[0]}   # {why}{others}")
    if family == "detection":
        lines += [
            "  # Objects below this score are left out. 0.01 is for figures as COCO's; in a product 0.3 is usual.",
            "  score_threshold: 0.01",
            "  iou_threshold: 0.65   # of two boxes that overlap more, one is left out",
        ]
    if facts is not None and facts.labels:
        lines.append(f"  labels: [{', '.join(facts.labels)}]")
    else:
        counts = [count for _, count in fitting_heads(family, outputs)[:1]]
        many = f", {counts[0]} of them" if counts else ""
        lines.append(f"  labels: labels.txt   # EDIT: one class name a line, in output order{many}; or a list")
    return "\n".join(lines)


def data_section(family: str, data: str) -> str:
    """The recipe's section ``data`` below the folder ``data``: what the metric needs, and pictures for the scales."""
    facts = family_facts(family)
    kind = next(name for name in (facts.data if facts is not None else ()) if name in DATA_KINDS)
    spec, known = [f"kind: {kind}"], data_facts(kind)
    assert known is not None
    place = {"file": f"{data}/val.{'csv' if kind == 'csv' else 'json'}"}.get(known.path, f"{data}/val")
    spec += [f"path: {_text(place)}"] if known.path != "none" else []
    spec += [f"root: {_text(f'{data}/val')}"] if known.root and known.path == "file" else []
    spec += [f"truth: {_text(f'{data}/val-truth')}"] if known.truth else []
    what = f"   # path: {known.what}" if known.what else ""
    scales = kind if facts is not None and facts.clips else "images"
    return f"""
data:
  # Every compiled file is proven on all of eval.
  eval: {{{", ".join(spec)}}}{what}
  # Pictures that set the int8 scales: like those of eval, but others. They need no labels.
  calibration:
    source: {{kind: {scales}, path: {_text(f"{data}/train")}}}
    samples: 256
    select: random"""


def fitting_heads(family: str, outputs: Sequence[tuple[int, ...]]) -> list[tuple[str, int]]:
    """Heads of ``family`` that outputs of these shapes may be of, each with a number of classes that goes with it."""
    module, found = families.get(family), []
    specs = [TensorSpec(f"output{index}", shape, "float32") for index, shape in enumerate(outputs)]
    sizes = {size - extra for shape in outputs for size in shape for extra in (0, 1, 4, 5)}
    counts = dict.fromkeys((*_USUAL_COUNTS, *sorted(size for size in sizes if 0 < size <= 1000)))
    for head in getattr(module, "HEAD_NAMES", ()) if outputs else ():
        for count in counts:
            labels = tuple(f"class {index}" for index in range(count))
            if not module.problems(FamilySpec(family, labels, head=head), specs):  # type: ignore[arg-type]
                found.append((head, count))
                break
    return found


def onnx_outputs(path: Path) -> list[tuple[int, ...]]:
    """Shapes of an ONNX file's outputs; [] where it cannot be read or has open dimensions."""
    try:
        import onnx

        decode_error = importlib.import_module("google.protobuf.message").DecodeError
    except ImportError:
        return []
    try:
        graph = onnx.load(str(path), load_external_data=False).graph
    except (OSError, decode_error, ValueError):
        return []
    shapes = [tuple(int(item.dim_value) for item in value.type.tensor_type.shape.dim) for value in graph.output]
    return shapes if all(shape and min(shape) > 0 for shape in shapes) else []


def _text(value: str) -> str:
    return value if plain_value(value) == (value, None) and not set(value) & set(",{}[]: #") else f'"{value}"'
