"""Read a recipe: every problem at once, each with its line, then one frozen value to build from."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgecv.core.calibration import CalibrationManifest
from edgecv.core.recipe import STEP_KEYS, Recipe
from edgecv.core.target import Target
from edgecv.errors import Problem, RecipeError
from edgecv.recipe.calibration import load_calibration, write_calibration
from edgecv.recipe.labels import resolve_labels
from edgecv.recipe.overrides import (
    Origins,
    Setting,
    apply,
    override_settings,
    parse_sets,
    settings_for,
)
from edgecv.recipe.paths import resolve_paths
from edgecv.recipe.rules import broken_rules, with_defaults
from edgecv.recipe.targets import load_target
from edgecv.recipe.typed import Found, did_you_mean, load_typed, shown, validate
from edgecv.recipe.yaml_lines import KeyPath, read_yaml

__all__ = [
    "LoadedRecipe",
    "load_calibration",
    "load_recipe",
    "load_typed",
    "recipe_for",
    "to_plain",
    "write_calibration",
]


@dataclasses.dataclass(frozen=True)
class LoadedRecipe:
    """A recipe without problems, and all that it names.

    In ``recipe`` every path is absolute. ``resolved`` holds the same values as the user wrote them
    (paths as written, labels and defaults filled in); ``sha256`` is the hash of its canonical JSON, so
    it is the same on every machine. ``targets`` are in the recipe's order. ``calibration`` is the
    manifest where the recipe names one; a selection stands in ``recipe.data.calibration``.
    ``per_target`` has the recipe after overrides, by target name.
    """

    recipe: Recipe
    path: Path
    base: Path
    resolved: dict[str, Any]
    sha256: str
    targets: tuple[Target, ...]
    calibration: CalibrationManifest | None
    per_target: Mapping[str, Recipe]


@dataclasses.dataclass
class _Work:
    """What one `load_recipe` call collects."""

    base: Path
    env: Mapping[str, str]
    check_files: bool
    origins: Origins
    problems: list[Problem]

    def add(self, found: Sequence[Found]) -> None:
        self.problems += [self.origins.problem(path, message) for path, message in found]


def load_recipe(
    path: Path, *, sets: Sequence[str] = (), env: Mapping[str, str] | None = None, check_files: bool = True
) -> LoadedRecipe:
    """Read, change by ``sets`` (``a.b.c=value``) and check a recipe.

    ``env`` replaces the environment for ``${NAME}`` at the start of paths. ``check_files=False`` accepts
    paths that do not exist and leaves them as written: enough to list a recipe, not to build it.

    Raises:
        RecipeError: every problem of the recipe, its targets, its calibration manifest and ``sets``.
    """
    document = read_yaml(path)
    if not isinstance(document.value, dict):
        message = f"holds {shown(document.value)}; a recipe is a mapping that starts with recipe: 1"
        raise RecipeError([*document.problems, Problem(document.file, 1, "", message)])
    base = Path(os.path.abspath(path)).parent
    environment = os.environ if env is None else env
    work = _Work(base, environment, check_files, Origins(document), list(document.problems))
    plain = _changed(document.value, sets, work)
    plain = with_defaults(_with_labels(plain, work))

    written, found = validate(Recipe, plain)
    found += broken_rules(plain)
    work.add(found)
    absolute = plain
    if check_files:
        absolute, missing = resolve_paths(plain, base=base, env=environment)
        work.add(missing)
    targets = _targets(plain, work)
    calibration = _calibration(plain, work)
    per_target = _per_target(absolute, set(found), targets, work)
    recipe, _ = validate(Recipe, absolute)
    if work.problems or written is None or recipe is None:
        raise RecipeError(_in_order(work.problems, document.file))
    resolved = to_plain(written)
    return LoadedRecipe(recipe, path, base, resolved, _sha256(resolved), targets, calibration, per_target)


def recipe_for(loaded: LoadedRecipe, target: str) -> Recipe:
    """The recipe for one of its targets (by the target's name), with that target's overrides applied.

    Raises:
        RecipeError: the recipe has no such target.
    """
    if target not in loaded.per_target:
        known = list(loaded.per_target)
        message = f"the recipe has no target {target!r}{did_you_mean(target, known)}; its targets: {', '.join(known)}"
        raise RecipeError([Problem(str(loaded.path), None, "targets", message)])
    return loaded.per_target[target]


def to_plain(recipe: Recipe) -> dict[str, Any]:
    """A recipe as the dicts and lists that its YAML has; `validate` reads them back as the same recipe."""
    names = {kind: name for name, kind in STEP_KEYS.items()}
    plain = dataclasses.asdict(recipe)
    plain["steps"] = [{names[type(step)]: dataclasses.asdict(step)} for step in recipe.steps]
    listed: dict[str, Any] = json.loads(json.dumps(plain))
    return listed


def _changed(value: dict[str, Any], sets: Sequence[str], work: _Work) -> dict[str, Any]:
    """The values with short forms written out and ``sets`` applied."""
    plain = _long_form(value)
    settings, problems = parse_sets(sets)
    work.problems += problems
    changed: list[tuple[KeyPath, Setting]] = []
    for setting in settings:
        plain, place, wrong = apply(plain, setting)
        if wrong is not None:
            work.problems.append(Problem(setting.file, None, "", wrong))
        else:
            changed.append((place, setting))
    work.origins = Origins(work.origins.document, tuple(changed))
    return _long_form(plain) if changed else plain


def _long_form(plain: dict[str, Any]) -> dict[str, Any]:
    """``weights: FILE`` and ``weights: URL#sha256=HASH`` as mappings."""
    model = plain.get("model")
    if not isinstance(model, dict) or not isinstance(model.get("weights"), str):
        return plain
    text = model["weights"]
    weights = {"path": text}
    if text.startswith(("https://", "http://")):
        url, _, sha256 = text.partition("#sha256=")
        weights = {"url": url, "sha256": sha256} if sha256 else {"url": url}
    return {**plain, "model": {**model, "weights": weights}}


def _with_labels(plain: dict[str, Any], work: _Work) -> dict[str, Any]:
    family = plain.get("family")
    if not isinstance(family, dict) or not isinstance(family.get("labels"), str):
        return plain
    labels, wrong = resolve_labels(family["labels"], base=work.base, env=work.env)
    if wrong is not None:
        if work.check_files:
            work.add([(("family", "labels"), wrong)])
        labels = [family["labels"]]
    return {**plain, "family": {**family, "labels": labels}}


def _targets(plain: dict[str, Any], work: _Work) -> tuple[Target, ...]:
    listed = plain.get("targets")
    names = listed if isinstance(listed, list) else []
    targets: list[Target] = []
    for index, name in enumerate(names):
        if not isinstance(name, str):
            continue
        where: KeyPath = ("targets", index)
        try:
            target = load_target(name, base=work.base)
        except RecipeError as error:
            _adopt(error, where, name, work)
            continue
        if any(target.name == other.name for other in targets) and names.count(name) == 1:
            work.add([(where, f"{name!r} is a second target with the name {target.name!r}; names must differ")])
        targets.append(target)
    return tuple(targets)


def _calibration(plain: dict[str, Any], work: _Work) -> CalibrationManifest | None:
    data = plain.get("data")
    name = data.get("calibration") if isinstance(data, dict) else None
    if not isinstance(name, str):
        return None
    try:
        return load_calibration(name, base=work.base, env=work.env, check_files=work.check_files)
    except RecipeError as error:
        if work.check_files:
            _adopt(error, ("data", "calibration"), name, work)
        return None


def _adopt(error: RecipeError, where: KeyPath, name: str, work: _Work) -> None:
    """Problems of a named file: one about the file as a whole is shown where the recipe names it."""
    for problem in error.problems:
        if problem.line is not None or problem.where:
            work.problems.append(problem)
        else:
            prefix = "" if problem.file == name else f"{problem.file}: "
            work.add([(where, prefix + problem.message)])


def _per_target(
    plain: dict[str, Any], known: set[Found], targets: Sequence[Target], work: _Work
) -> Mapping[str, Recipe]:
    """The recipe for each target; problems that only an override brings are added once."""
    overrides = plain.get("overrides")
    names = [target.name for target in targets]
    settings, problems = override_settings(work.origins, overrides, names)
    work.problems += problems
    recipes: dict[str, Recipe] = {}
    reported: set[Problem] = set()
    for name in names:
        mine, changed = plain, list(work.origins.changed)
        fresh: list[Problem] = []
        for setting in settings_for(settings, overrides, name):
            mine, place, wrong = apply(mine, setting)
            if wrong is None:
                changed.append((place, setting))
            else:
                fresh.append(Problem(setting.file, setting.line, setting.keys, wrong))
        recipe, found = validate(Recipe, mine)
        found += broken_rules(mine)
        origins = Origins(work.origins.document, tuple(changed))
        fresh += [origins.problem(*item, inside=True) for item in found if item not in known]
        work.problems += [problem for problem in fresh if problem not in reported]
        reported.update(fresh)
        if recipe is not None:
            recipes[name] = dataclasses.replace(recipe, overrides=())
    return recipes


def _in_order(problems: Sequence[Problem], file: str) -> list[Problem]:
    """Without repeats: the recipe's own problems by line, then those of other files and of ``--set``."""
    unique = list(dict.fromkeys(problems))
    return sorted(unique, key=lambda problem: (problem.file != file, problem.file, problem.line or 0))


def _sha256(plain: dict[str, Any]) -> str:
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
