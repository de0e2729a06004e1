"""What has been proven for each family on each engine, in int8. A test builds every pair and holds this table true."""

from __future__ import annotations

from typing import Literal

from edgecv.core.kinds import FAMILY_KINDS, FamilyKind

Proof = Literal["measured", "compiles", "deferred", "not possible"]

ENGINES: tuple[str, ...] = ("onnxruntime", "openvino", "litert", "coreml", "tensorrt")

_USUAL: dict[str, Proof] = {
    "onnxruntime": "measured",
    "openvino": "measured",
    "litert": "measured",
    "coreml": "compiles",
    "tensorrt": "deferred",
}
_EXCEPT: dict[tuple[FamilyKind, str], Proof] = {}

SUPPORT: dict[FamilyKind, dict[str, Proof]] = {
    kind: {engine: _EXCEPT.get((kind, engine), _USUAL[engine]) for engine in ENGINES} for kind in FAMILY_KINDS
}
"""``measured``: int8 files of the family run on the engine where edgecv is tested, and give the answers of the
quantised graph that they were made from. ``compiles``: the engine's file is made, and can be run on other systems only.
``deferred``: the engine is built on the device that runs it, from a checked graph. ``not possible``: the engine has no
such operators."""


def in_words(kind: FamilyKind) -> str:
    """The row of ``kind`` on one line: ``measured on onnxruntime, openvino; compiles for coreml``."""
    row = SUPPORT[kind]
    said = {"measured": "measured on", "compiles": "compiles for", "deferred": "deferred to", "not possible": "not on"}
    parts = [(words, [engine for engine in ENGINES if row[engine] == proof]) for proof, words in said.items()]
    return "; ".join(f"{words} {', '.join(engines)}" for words, engines in parts if engines)
