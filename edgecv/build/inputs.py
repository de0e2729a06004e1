"""Fingerprints of everything a recipe names, without opening images or loading torch: what plans hash."""

from __future__ import annotations

from dataclasses import asdict

from edgecv import backends
from edgecv.build.calibration import calibration_spec
from edgecv.build.plan import Inputs, code_fingerprint
from edgecv.build.store import hash_of
from edgecv.core.plain import to_plain
from edgecv.core.recipe import DataSpec
from edgecv.data.readers import spec_fingerprint
from edgecv.measure.host import machine_facts
from edgecv.models.fingerprint import source_fingerprint, weights_fingerprint
from edgecv.recipe.load import LoadedRecipe


def gather(loaded: LoadedRecipe) -> Inputs:
    """Hash what the recipe names.

    Raises:
        DataError: a data set is missing.
        ModelError: the model's source or its weights cannot be found.
    """
    recipe, base = loaded.recipe, loaded.base
    prints = {
        "source": source_fingerprint(recipe.model, base=base),
        "weights": weights_fingerprint(recipe.model.weights, base=base),
        "eval": _data(recipe.data.eval, loaded),
        "train": _data(recipe.data.train, loaded) if recipe.data.train else "",
        "validation": _data(recipe.data.validation, loaded) if recipe.data.validation else "",
        "unlabelled": _data(recipe.data.unlabelled, loaded) if recipe.data.unlabelled else "",
        "calibration": _calibration(loaded),
    }
    engines: dict[str, str] = {target.backend: backends.get(target.backend).version() for target in loaded.targets}
    return Inputs(prints, machine_facts(engines), code_fingerprint())


def _data(spec: DataSpec, loaded: LoadedRecipe) -> str:
    return spec_fingerprint(spec, base=loaded.base, labels=loaded.recipe.family.labels)


def _calibration(loaded: LoadedRecipe) -> str:
    if loaded.calibration is not None:
        # The source's own fingerprint counts too: a changed picture must be noticed, not hidden by the store.
        listed = to_plain([loaded.calibration.files, loaded.calibration.name])
        return hash_of([listed, _data(loaded.calibration.source, loaded)])
    spec = calibration_spec(loaded.recipe)
    if spec is None:
        return ""
    rule = {key: value for key, value in asdict(spec).items() if key != "source"}
    return hash_of([rule, _data(spec.source, loaded)])
