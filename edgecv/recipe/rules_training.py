"""Rules of steps that train: what they need, what they learn from, and how their pictures may change."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from edgecv.core.kinds import family_facts
from edgecv.core.recipe import Distill, Finetune, Fit, Prune, Quantize, Step
from edgecv.core.steps import Augment, augment_of

__all__ = ["is_taught", "needs_training", "reads_labels", "trained_problems"]


def needs_training(step: Step) -> str:
    """What of a step needs training data, in words; empty where nothing does."""
    if isinstance(step, Finetune) and step.epochs > 0:
        return "finetune"
    if isinstance(step, Fit):
        return "fit"
    if isinstance(step, Quantize) and step.method == "qat":
        return "method qat"
    if isinstance(step, Prune) and step.needs_training:
        return "repair" if step.repair else f"importance {step.importance}"
    return ""


def reads_labels(step: Step, family: dict[str, Any]) -> bool:
    """Whether a step that trains needs the truths of data.train."""
    if isinstance(step, Prune):
        return step.needs_training and step.importance == "taylor"
    if isinstance(step, Fit):
        return False
    mends = isinstance(step, Quantize) and step.method == "ptq" and step.repair == "full"
    return (mends or bool(needs_training(step))) and _has_loss(step, family) and _teaching(step) < 1


def is_taught(step: Step) -> bool:
    """Whether a step trains, or may train, with a teacher."""
    if not isinstance(step, Finetune | Quantize):
        return False
    may = bool(needs_training(step)) or (isinstance(step, Quantize) and step.repair == "full")
    return may and _teaching(step) > 0


def _has_loss(step: Finetune | Quantize, family: dict[str, Any]) -> bool:
    facts, head = family_facts(family.get("kind")), family.get("head", "")
    if facts is None:
        return False
    return facts.trains(head) or (isinstance(step, Finetune) and head in facts.part_heads)


def _teaching(step: Finetune | Quantize) -> float:
    """The teacher's share, 0..1."""
    return step.distill.weight if isinstance(step.distill, Distill) else float(step.distill)


def trained_problems(step: Finetune | Quantize, family: dict[str, Any]) -> Iterator[str]:
    """What is wrong with a step that may train, in words."""
    kind, head = family.get("kind"), family.get("head", "")
    facts = family_facts(kind)
    if facts is not None:
        if needs_training(step) and head in facts.part_heads:
            yield from _by_parts(step, head)
        elif needs_training(step) and not facts.trains(head) and _teaching(step) == 0:
            name = f"{kind}, head {head}," if head else kind
            yield f"{name} learns from the original network alone, and distill is 0; set distill: 1.0"
        yield from _augmented(augment_of(step.augment), kind, facts.augment)
    if isinstance(step, Quantize) and step.method == "qat" and step.freeze_norms > step.freeze_ranges:
        yield (
            f"freeze_norms is {step.freeze_norms} and freeze_ranges {step.freeze_ranges}; ranges must not stand still "
            "while batch norms still change the weights: freeze_norms can be at most freeze_ranges"
        )


def _by_parts(step: Finetune | Quantize, head: str) -> Iterator[str]:
    """Two-stage networks learn from labels by their parts, in finetune alone and without a teacher.

    The graph that is exported, and so qat, takes one picture, and what the first stage thought of its anchors is not
    among its outputs. The teacher's rows are compared with that graph's.
    """
    share, tuned = _teaching(step), isinstance(step, Finetune)
    if tuned and share == 0:
        return
    if tuned and share < 1:
        yield (
            f"distill is {share:g}, and head {head} learns from labels (distill: 0) or from the original network "
            "(distill: 1.0): its graph does not show what the first stage's loss needs; set one of them"
        )
    elif share == 0:
        yield f"the graph of head {head} shows too little to learn from labels, and distill is 0; set distill: 1.0"
    if share > 0 and step.batch_size > 1:
        way = "distill: 0 to learn from labels in batches" if tuned else "method: ptq"
        size = step.batch_size
        yield f"batch_size is {size}, and the graph of head {head} takes one picture; set batch_size: 1, or {way}"


def _augmented(changes: Augment | None, kind: Any, allowed: tuple[str, ...]) -> Iterator[str]:
    """Changes of pictures that would leave the truths of this kind of family wrong, or are out of range."""
    if changes is None:
        return
    alien = [name for name in changes.parts if name not in allowed]
    if alien:
        takes = ", ".join(allowed) or "none"
        yield f"augment changes pictures by {', '.join(alien)}, which {kind} does not take; allowed: {takes}"
    low, high = changes.scale
    if not 0.1 <= low <= high <= 10:
        yield f"augment.scale is {list(changes.scale)}; two factors from 0.1 to 10, the smaller one first, are needed"
