"""Which targets get faster by zeros in the weights: known before anything is run, so it needs no torch."""

from __future__ import annotations

from collections.abc import Sequence

from edgecv.core.target import Target

__all__ = ["gain_note", "no_gain"]

_SPARSE_GPUS = ("Ampere", "Ada", "Hopper", "Blackwell")


def gain_note(targets: Sequence[Target], *, pattern: str) -> str:
    """For a plan: which of ``targets`` zeros of ``pattern`` do not make faster; "" where all of them gain."""
    slow = [target.name for target in targets if no_gain(target, pattern=pattern)]
    if not slow:
        return ""
    return (
        f"no target gets faster by it: {', '.join(slow)}"
        if len(slow) == len(targets)
        else (f"no faster on {', '.join(slow)}")
    )


def no_gain(target: Target, *, pattern: str) -> str:
    """Why zeros of ``pattern`` do not make ``target`` faster, in one sentence; "" where they do."""
    if pattern != "2:4":
        return (
            f"{target.name}: {target.backend} computes zeros like any other weight; only a compressed file is smaller."
        )
    if target.backend != "tensorrt":
        return f"{target.name}: {target.backend} has no 2:4 kernels; the artifact is neither faster nor smaller."
    if not any(name in target.accelerator for name in _SPARSE_GPUS):
        return f"{target.name}: its GPU has no sparse Tensor cores (Ampere or later): no gain."
    return ""
