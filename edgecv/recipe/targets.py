"""The boards: ``targets/<name>.yaml`` of edgecv, and target files of the user's own."""

from __future__ import annotations

from pathlib import Path

from edgecv.core.target import Target
from edgecv.errors import Problem, RecipeError
from edgecv.recipe.files import data_folder
from edgecv.recipe.typed import did_you_mean, load_typed


def list_targets() -> dict[str, Path]:
    """The targets that come with edgecv: name -> file, sorted by name."""
    return {path.stem: path for path in sorted(data_folder("targets").glob("*.yaml"))}


def is_path(name: str) -> bool:
    """Whether a target or calibration is named by a file of the user's (ends in .yaml or .yml)."""
    return name.endswith((".yaml", ".yml"))


def name_problem(name: str, *, what: str) -> str | None:
    """What is wrong with a bare name: it must not be a path in disguise."""
    if "/" in name or "\\" in name or name in ("", ".", ".."):
        return f"{name!r} is not a {what} name; a path to a {what} file ends in .yaml"
    return None


def load_target(name_or_path: str, *, base: Path) -> Target:
    """Load a target by name, or from a .yaml file whose path is relative to the folder ``base``.

    Raises:
        RecipeError: there is no such target, its file has problems, or its name is not the file's.
    """
    if is_path(name_or_path):
        path = base / name_or_path
    else:
        known = list_targets()
        wrong = name_problem(name_or_path, what="target")
        if wrong is None and name_or_path not in known:
            hint = did_you_mean(name_or_path, known)
            wrong = f"unknown target {name_or_path!r}{hint}. Known targets: {', '.join(known)}; or name a .yaml file"
        if wrong is not None:
            raise RecipeError([Problem(name_or_path, None, "", wrong)])
        path = known[name_or_path]
    target = load_typed(path, Target)
    if target.name != path.stem:
        message = f"is {target.name!r}; it must be the file's name, {path.stem!r}"
        raise RecipeError([Problem(str(path), None, "name", message)])
    return target
