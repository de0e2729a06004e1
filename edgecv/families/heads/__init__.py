"""Heads of detectors by name. A new head is one function pair and one row of its module's table."""

from __future__ import annotations

from edgecv.families.heads import pairs, rcnn, retinanet, ssd, yolo, yunet
from edgecv.families.heads.common import Head

HEADS: dict[str, Head] = {**yolo.HEADS, **ssd.HEADS, **retinanet.HEADS, **pairs.HEADS, **yunet.HEADS, **rcnn.HEADS}
"""What `FamilySpec.head` of a detector can name."""
