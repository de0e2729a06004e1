"""What an embedding network learns from identities: near for the same one, far for others. Host half."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgecv.core.recipe import FamilySpec
from edgecv.families.heads.common import Option, is_number, setting
from edgecv.families.retrieval import numbers_of

_LOSSES = ("contrastive", "triplet")

LOSS_OPTIONS: Mapping[str, Option] = {
    "loss": Option("contrastive", lambda value: value in _LOSSES, " or ".join(_LOSSES)),
    "temperature": Option(0.1, lambda value: is_number(value) and value > 0, "a number above 0"),
    "margin": Option(0.3, lambda value: is_number(value) and value > 0, "a number above 0"),
}
"""``loss``: contrastive (with its ``temperature``) or triplet (with its ``margin``, in cosine distance)."""


def embedding_loss(outputs: Any, truths: Sequence[Any], spec: FamilySpec) -> Any:
    """The loss of a batch, a scalar torch tensor; ``outputs`` `(N, D)` or `(N, D, 1, 1)`, ``truths`` N identities.

    ``contrastive``: the softmax over the cosines of a picture to all others of the batch, divided by the temperature,
    shall lie on those of its identity (the supervised contrastive loss, Khosla et al. 2020, arXiv:2004.11362).
    ``triplet``: the farthest picture of the same identity shall be nearer than the nearest of another one, by a margin
    (batch-hard, Hermans, Beyer and Leibe 2017, arXiv:1703.07737). A picture that is alone of its identity in the batch
    teaches only what others are not.
    """
    import torch
    from torch.nn import functional

    vectors = functional.normalize(outputs.flatten(1).float(), dim=1)
    numbers = torch.tensor(numbers_of(truths), device=vectors.device)
    same = numbers[:, None] == numbers[None, :]
    itself = torch.eye(len(numbers), dtype=torch.bool, device=vectors.device)
    pairs, cosines = same & ~itself, vectors @ vectors.T
    if setting(LOSS_OPTIONS, spec, "loss") == "triplet":
        return _triplet(cosines, pairs, same, margin=float(setting(LOSS_OPTIONS, spec, "margin")))
    logits = (cosines / float(setting(LOSS_OPTIONS, spec, "temperature"))).masked_fill(itself, float("-inf"))
    shares = functional.log_softmax(logits, dim=1).masked_fill(~pairs, 0.0)
    anchors = pairs.any(dim=1)
    if not anchors.any():
        return cosines.sum() * 0.0  # nothing to learn from in this batch
    return -(shares.sum(dim=1)[anchors] / pairs.sum(dim=1)[anchors]).mean()


def _triplet(cosines: Any, pairs: Any, same: Any, *, margin: float) -> Any:
    usable = pairs.any(dim=1) & (~same).any(dim=1)
    if not usable.any():
        return cosines.sum() * 0.0
    farthest = (1 - cosines).masked_fill(~pairs, float("-inf")).amax(dim=1)
    nearest = (1 - cosines).masked_fill(same, float("inf")).amin(dim=1)
    return (farthest[usable] - nearest[usable] + margin).clamp_min(0).mean()
