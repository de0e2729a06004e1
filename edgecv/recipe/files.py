"""Where the files that come with edgecv are: ready recipes, calibration manifests, targets."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import edgecv
from edgecv.errors import Problem, RecipeError
from edgecv.recipe.typed import did_you_mean

Kind = Literal["recipes", "calibration", "targets"]


def data_folder(kind: Kind) -> Path:
    """The folder of the shipped files: inside the installed package, or at the root of a checkout."""
    package = Path(edgecv.__file__).resolve().parent
    installed = package / "_files" / kind
    return installed if installed.is_dir() else package.parent / kind


def list_recipes() -> dict[str, Path]:
    """The ready recipes: name (the file's name without .yaml) -> file, sorted by name."""
    found = {path.stem: path for path in data_folder("recipes").glob("*/*.yaml")}
    return dict(sorted(found.items()))


def find_recipe(name_or_path: str) -> Path:
    """A recipe file by its path, or a ready recipe by its name.

    Raises:
        RecipeError: neither a file nor the name of a ready recipe.
    """
    path = Path(name_or_path)
    if path.is_file():
        return path
    ready = list_recipes()
    if name_or_path in ready:
        return ready[name_or_path]
    hint = did_you_mean(name_or_path, ready)
    message = f"no such file, and no ready recipe of this name{hint}. Ready recipes: {', '.join(ready)}"
    raise RecipeError([Problem(name_or_path, None, "", message)])
