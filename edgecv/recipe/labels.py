"""Class names: a list in the recipe, a text file, or a known set by its name."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from edgecv.recipe.paths import expand, path_problem
from edgecv.recipe.typed import did_you_mean, shown

KNOWN_SETS = ("imagenet-1k",)
MAX_BYTES = 4_000_000


def resolve_labels(value: Any, *, base: Path, env: Mapping[str, str]) -> tuple[Any, str | None]:
    """``family.labels`` as a list of names, and what is wrong with it, if anything.

    ``value`` is a list (given back as it is), the name of a known set, or a path (relative to
    ``base``) of a UTF-8 text file with one name a line; empty lines do not count.
    """
    if not isinstance(value, str):
        return value, None
    if value == "imagenet-1k":
        return _imagenet(value)
    path, wrong = expand(value, base=base, env=env)
    if path is not None:
        wrong = path_problem(value, path, wanted="file")
    if path is None or wrong is not None:
        hint = did_you_mean(value, KNOWN_SETS)
        known = ", ".join(KNOWN_SETS)
        return value, f"{wrong}{hint}. Labels are a list, a text file with one name a line, or one of: {known}"
    try:
        if path.stat().st_size > MAX_BYTES:
            return value, f"is {value!r}, a file of more than {MAX_BYTES:,} bytes; one class name a line is needed"
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        return value, f"is {shown(value)}, which cannot be read as UTF-8 text: {error}"
    return [line.strip() for line in text.splitlines() if line.strip()], None


def _imagenet(name: str) -> tuple[Any, str | None]:
    labels = imagenet_labels()
    if labels is None:
        return name, "needs the class names that come with timm, which is not here: pip install 'edgecv[host]'"
    return list(labels), None


@lru_cache(maxsize=1)
def imagenet_labels() -> tuple[str, ...] | None:
    """The 1000 class names of ImageNet-1k in the usual order (by WordNet id); None without timm.

    A name is WordNet's first word for the class; where two classes share it, all its words, and
    the WordNet id where that is not enough. timm's data files are read without importing timm.
    """
    spec = importlib.util.find_spec("timm")
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(spec.submodule_search_locations[0]) / "data" / "_info"
    try:
        ids = (folder / "imagenet_synsets.txt").read_text(encoding="utf-8").split()
        rows = (folder / "imagenet_synset_to_lemma.txt").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    words = dict(row.split("\t", 1) for row in rows if "\t" in row)
    if len(ids) != 1000 or not all(item in words for item in ids):
        return None
    first = [words[item].split(", ")[0] for item in ids]
    seen = Counter(first)
    longer = [name if seen[name] == 1 else words[item] for name, item in zip(first, ids, strict=True)]
    seen = Counter(longer)
    return tuple(name if seen[name] == 1 else f"{name} ({item})" for name, item in zip(longer, ids, strict=True))
