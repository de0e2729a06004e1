"""What about a model file is not as it was proven: a weight, an operator, a scale or zero point, a layer, an output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edgecv.backends.contents import Contents
from edgecv.core.figures import Diagnosis
from edgecv.core.tensor import Array, FloatArray, TensorSpec
from edgecv.measure.fingerprint import Fingerprint, ScalePrint, change_of, same_samples, scale_print
from edgecv.measure.ladder import sqnr_db

GRAPH, QUANTISATION, COMPILER = "graph", "quantisation", "compiler"
LAYER_MIN_DB = 15.0
"""A layer whose sampled values are below this against those recorded is another one; rounding leaves 20 dB and more."""
_SATURATED = 0.05
_FITTED = 0.05
_MOST = 5


def diagnose_graph(recorded: Fingerprint, found: Contents) -> tuple[Diagnosis, ...]:
    """Weights and operators that are not those recorded, in the order of the graph; at most five.

    What has no counterpart of its name is left aside, but for operators: a file may be read by another version of
    its engine, which adds names of its own.
    """
    causes = []
    for name, one in recorded.weights.items():
        value = found.weights.get(name)
        if value is None or value.dtype.name != one.dtype or value.size != int(np.prod(one.shape)):
            continue
        change = change_of(one, value)
        if change:
            what = f"weight {name!r}"
            evidence = f"{value.dtype.name} {value.shape}; {_samples_text(one.samples, value)}"
            causes.append(Diagnosis(GRAPH, what, change, "as it was proven", evidence))
    for name, digest in recorded.operators.items():
        other = found.operators.get(name)
        if other is not None and other != digest:
            causes.append(
                Diagnosis(GRAPH, f"operator that makes {name!r}", "other inputs or settings", "as it was proven")
            )
    return tuple(causes[:_MOST])


def diagnose_scales(recorded: Mapping[str, ScalePrint], found: Contents) -> tuple[Diagnosis, ...]:
    """Scales and zero points that are not those recorded, in the order of the graph; at most five."""
    causes: list[Diagnosis] = []
    for name, one in recorded.items():
        pair = found.scales.get(name)
        if pair is None:
            continue
        other = scale_print(*pair)
        if other.sha256 == one.sha256 or other.count != one.count:
            continue
        known = len(causes)
        for what, before, now in (("zero point", one.zero_point, other.zero_point), ("scale", one.scale, other.scale)):
            if not np.allclose(before, now, rtol=1e-6, atol=0):
                causes.append(_scale_change(f"{what} of {name!r}", before, now, one.count))
        if len(causes) == known:
            causes.append(Diagnosis(QUANTISATION, f"scales of {name!r}", "others", "as they were proven"))
    return tuple(causes[:_MOST])


def diagnose_edges(kind: str, manifest: Sequence[TensorSpec], engine: Sequence[TensorSpec]) -> tuple[Diagnosis, ...]:
    """Scales and zero points of the manifest's ``kind`` ("input", "output") tensors that are not the engine's."""
    causes = []
    for one, other in zip(manifest, engine, strict=True):
        mine, theirs = one.quantization, other.quantization
        if mine is None or theirs is None:
            if mine is not theirs:
                shown = ["float" if each is None else f"{each.scale:.6g}, {each.zero_point}" for each in (mine, theirs)]
                causes.append(Diagnosis(QUANTISATION, f"scale and zero point of {kind} {one.name!r}", *shown))
            continue
        evidence = "the manifest's value is found, the model file's expected"
        if mine.zero_point != theirs.zero_point:
            what = f"zero point of {kind} {one.name!r}"
            causes.append(Diagnosis(QUANTISATION, what, str(mine.zero_point), str(theirs.zero_point), evidence))
        if not np.isclose(mine.scale, theirs.scale, rtol=1e-6, atol=0):
            what = f"scale of {kind} {one.name!r}"
            causes.append(Diagnosis(QUANTISATION, what, f"{mine.scale:.6g}", f"{theirs.scale:.6g}", evidence))
    return tuple(causes)


def diagnose_outputs(
    expected: Sequence[FloatArray],
    found: Sequence[FloatArray],
    specs: Sequence[TensorSpec],
    *,
    recorded: Fingerprint | None = None,
    layers: Mapping[str, Array] | None = None,
) -> tuple[Diagnosis, ...]:
    """Why the engine's outputs are not those expected, `(N, ...)` each.

    Tried in turn: outputs in another order; a first layer that gives other values than ``recorded`` (where the engine
    shows its ``layers`` for the first golden picture); stored values of an output read with a wrong scale or zero
    point, or cut off at the ends of their type; else the output that differs most.
    """
    order = _order(expected, found)
    if order:
        return order
    layer = first_layer(recorded, layers or {})
    causes = []
    worst = min(range(len(found)), key=lambda index: sqnr_db([expected[index]], [found[index]]))
    for one, other, spec in zip(expected, found, specs, strict=True):
        causes += _scaled(one, other, spec)
    if causes:
        return tuple(causes)
    decibel = sqnr_db([expected[worst]], [found[worst]])
    name = specs[worst].name
    if layer is not None:
        what = f"the first layer that gives other values is {layer[0]!r}"
        evidence = f"{layer[1]:.1f} dB against the values recorded of it; output {name!r} has {decibel:.1f} dB"
        return (Diagnosis(COMPILER, what, "", "", evidence),)
    evidence = f"{decibel:.1f} dB; it is neither scaled, shifted, cut off nor in another order"
    return (Diagnosis(COMPILER, f"output {name!r} has other values", "", "", evidence),)


def first_layer(recorded: Fingerprint | None, layers: Mapping[str, Array]) -> tuple[str, float] | None:
    """The first layer whose sampled values are not those recorded, and its SQNR in dB; None where none differs."""
    for name, one in recorded.layers.items() if recorded is not None else ():
        value = layers.get(name)
        if value is not None and value.shape == one.shape:
            decibel = same_samples(one.samples, value)
            if decibel < LAYER_MIN_DB and any(one.samples):
                return name, decibel
    return None


def _order(expected: Sequence[FloatArray], found: Sequence[FloatArray]) -> tuple[Diagnosis, ...]:
    if len(found) < 2:
        return ()
    places = []
    for one in found:
        near = [sqnr_db([other], [one]) if other.shape == one.shape else float("-inf") for other in expected]
        places.append(int(np.argmax(near)))
    if sorted(places) != list(range(len(found))) or places == list(range(len(found))):
        return ()
    right = list(range(len(found)))
    return (Diagnosis(COMPILER, "order of the outputs", str(places), str(right), "each is compared with all others"),)


def _scaled(expected: FloatArray, found: FloatArray, spec: TensorSpec) -> list[Diagnosis]:
    """A wrong scale or zero point of one output: its values are ``a * expected + b``."""
    if not np.isfinite(found).all():
        return []
    x, y = expected.astype(np.float64).ravel(), found.astype(np.float64).ravel()
    spread = float(y.std())
    if spread == 0.0 or x.std() == 0.0 or x.size < 8:
        return []
    stored = None if spec.quantization is None else spec.quantize(found)
    if stored is not None:
        ends = np.iinfo(spec.dtype)
        cut = float(np.mean((stored == ends.min) | (stored == ends.max)))
        before = spec.quantize(expected)
        was = float(np.mean((before == ends.min) | (before == ends.max)))
        if cut - was > _SATURATED:
            evidence = f"of {stored.size} stored values; {was:.0%} of the expected ones"
            what = f"output {spec.name!r} is cut off at the ends of {spec.dtype}"
            return [Diagnosis(QUANTISATION, what, f"{cut:.0%}", f"{was:.0%}", evidence)]
    a, b = np.polyfit(x, y, 1)
    rest = float(np.sqrt(np.mean((y - a * x - b) ** 2)) / spread)
    if rest > _FITTED or (abs(a - 1) < 0.02 and abs(b) < 0.02 * spread):
        return []
    evidence = f"found = {a:.4g} x expected {b:+.4g}; the fit leaves {rest:.1%} of the spread"
    if spec.quantization is None:
        return [
            Diagnosis(QUANTISATION, f"scale and offset of output {spec.name!r}", f"{a:.4g}, {b:+.4g}", "1, 0", evidence)
        ]
    causes = []
    scale, zero = spec.quantization.scale, spec.quantization.zero_point
    real = scale / a
    if abs(a - 1) >= 0.02:
        causes.append(
            Diagnosis(QUANTISATION, f"scale of output {spec.name!r}", f"{scale:.6g}", f"{real:.6g}", evidence)
        )
    right = zero + round(b / scale)
    if right != zero:
        causes.append(Diagnosis(QUANTISATION, f"zero point of output {spec.name!r}", str(zero), str(right), evidence))
    return causes


def _scale_change(what: str, before: Sequence[float], now: Sequence[float], count: int) -> Diagnosis:
    places = [index for index, (one, other) in enumerate(zip(before, now, strict=True)) if one != other]
    at = places[0] if places else 0
    evidence = "" if count == 1 else f"{len(places)} of {len(before)} channels looked at; these are of the first"
    return Diagnosis(QUANTISATION, what, f"{now[at]:.6g}", f"{before[at]:.6g}", evidence or "read from the model file")


def _samples_text(recorded: Sequence[float], value: Array) -> str:
    first = float(np.asarray(value).ravel()[0])
    return f"its first value is {first:.4g}, proven with {recorded[0]:.4g}" if recorded else "it is empty"
