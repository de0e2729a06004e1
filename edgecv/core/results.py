"""What a model says about a picture, as structs of arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Classification:
    """The scores of one picture.

    ``scores`` is `(C,)` float32, probabilities 0..1 where the model gives them or a softmax of its
    logits; ``class_ids`` is `(K,)` int64, the best classes, best first.
    """

    scores: npt.NDArray[np.float32]
    class_ids: npt.NDArray[np.int64]
    labels: tuple[str, ...] = ()

    @property
    def best(self) -> int:
        """Index of the best class."""
        return int(self.class_ids[0])

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: ``classes`` is a list of id, label and score, best first."""
        return {
            "classes": [
                {
                    "id": int(index),
                    "label": self.labels[index] if index < len(self.labels) else str(int(index)),
                    "score": float(self.scores[index]),
                }
                for index in self.class_ids
            ]
        }
