"""Change single values of a recipe: ``--set a.b=c`` for all targets, ``overrides:`` for some.

An override may change what is per target: the values of the quantize step, the budgets and how
latency is measured. The model, its family, the data and the training steps are the same for all
targets of a recipe, because the targets share one trained model and are compared with each other; a
board that needs another network gets a recipe of its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from edgecv.core.recipe import Override
from edgecv.errors import Problem, RecipeError
from edgecv.recipe.typed import part, shown
from edgecv.recipe.yaml_lines import Document, KeyPath, dotted, parse_yaml


@dataclasses.dataclass(frozen=True)
class Setting:
    """One new value, and where the user wrote it."""

    keys: str
    value: Any
    file: str
    line: int | None


@dataclasses.dataclass(frozen=True)
class Origins:
    """A document after settings: each changed place knows which setting changed it."""

    document: Document
    changed: tuple[tuple[KeyPath, Setting], ...] = ()

    def problem(self, path: KeyPath, message: str, *, inside: bool = False) -> Problem:
        """A problem at ``path``, placed at the setting that changed it, or at its line in the file.

        ``inside``: a setting that changed something inside the value at ``path`` counts too.
        """
        for place, setting in reversed(self.changed):
            if path[: len(place)] == place or (inside and place[: len(path)] == path):
                return Problem(setting.file, setting.line, dotted(path), message)
        return self.document.problem(path, message)


def parse_sets(sets: Sequence[str]) -> tuple[list[Setting], list[Problem]]:
    """``a.b.c=value`` texts as settings; values are YAML, so lists and mappings work too."""
    settings, problems = [], []
    for text in sets:
        name = f"--set {text[:80]}"
        keys, equals, value = text.partition("=")
        if not equals or not keys.strip():
            problems.append(Problem(name, None, "", "write --set path.to.value=VALUE, such as seed=3"))
            continue
        try:
            document = parse_yaml(value, file=name) if value.strip() else Document(name, None)
        except RecipeError as error:
            problems += [dataclasses.replace(problem, line=None) for problem in error.problems]
            continue
        problems += [dataclasses.replace(problem, line=None) for problem in document.problems]
        settings.append(Setting(keys.strip(), document.value, name, None))
    return settings, problems


def apply(plain: dict[str, Any], setting: Setting) -> tuple[dict[str, Any], KeyPath, str | None]:
    """A copy of ``plain`` with the new value, the path that was new or changed, and what is wrong.

    Missing mappings on the way are made (``budgets.latency.p95_ms`` needs no ``budgets:``); list
    positions must exist.
    """
    names = setting.keys.split(".")
    if not all(names):
        return plain, (), f"{setting.keys!r} has an empty part; write names with single dots between them"
    done = {**plain}
    here: Any = done
    path: list[str | int] = []
    changed: KeyPath | None = None
    for position, name in enumerate(names):
        key, wrong = _key(here, name, tuple(path))
        if wrong is not None:
            return plain, tuple(path), wrong
        path.append(key)
        exists = isinstance(here, list) or here.get(key) is not None
        if changed is None and not exists:
            changed = tuple(path)
        if position == len(names) - 1:
            here[key] = setting.value
            break
        child = here[key] if exists else {}
        if not isinstance(child, (dict, list)):
            return plain, tuple(path), f"{dotted(tuple(path))} is {shown(child)}; it holds no {names[position + 1]!r}"
        here[key] = child.copy()
        here = here[key]
    return done, changed or tuple(path), None


def _key(here: Any, name: str, path: KeyPath) -> tuple[str | int, str | None]:
    """``name`` as a key of ``here``, and what is wrong with it."""
    if isinstance(here, list):
        if not name.isdecimal() or len(name) > 6 or int(name) >= len(here):
            have = f"0 to {len(here) - 1}" if here else "none, the list is empty"
            return name, f"{dotted(path)} is a list and {name!r} is not a position in it; allowed: {have}"
        return int(name), None
    if len(path) == 2 and path[0] == "steps" and isinstance(path[1], int) and name not in here:
        return name, f"{dotted(path)} is a {'/'.join(map(str, here)) or 'nameless'} step, not {name!r}"
    return name, None


def override_settings(origins: Origins, overrides: Any, targets: Sequence[str]) -> tuple[list[Setting], list[Problem]]:
    """All settings of the ``overrides`` section that are allowed, and the problems of the others.

    ``targets`` are the names of the recipe's targets; an override that matches none is a problem.
    """
    problems: list[Problem] = []
    settings: list[Setting] = []
    for index, item in enumerate(overrides if isinstance(overrides, list) else []):
        override = part(Override, item)
        if override is None:
            continue
        where: KeyPath = ("overrides", index)
        if targets and not any(fnmatchcase(target, override.select) for target in targets):
            message = f"{override.select!r} matches no target of this recipe; its targets: {', '.join(targets)}"
            problems.append(origins.problem((*where, "select"), message))
        for keys in override.set:
            place = origins.problem((*where, "set", keys), "")
            settings.append(Setting(keys, override.set[keys], place.file, place.line))
            if not _per_target(keys):
                message = (
                    "is the same for all targets; an override may set budgets.*, measure.* and "
                    "steps.N.quantize.*. For another model or other data write a recipe of its own"
                )
                problems.append(dataclasses.replace(place, where=keys, message=message))
    return settings, problems


def settings_for(settings: Sequence[Setting], overrides: Any, target: str) -> list[Setting]:
    """Those of ``settings`` (all, in order) whose override matches ``target`` and may set its value."""
    flat: list[bool] = []
    for item in overrides if isinstance(overrides, list) else []:
        override = part(Override, item)
        if override is not None:
            flat += [fnmatchcase(target, override.select)] * len(override.set)
    return [setting for setting, match in zip(settings, flat, strict=True) if match and _per_target(setting.keys)]


def _per_target(keys: str) -> bool:
    names = keys.split(".")
    return names[0] in ("budgets", "measure") or (len(names) > 2 and names[0] == "steps" and names[2] == "quantize")
