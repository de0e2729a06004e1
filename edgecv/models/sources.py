"""Where a network comes from: ``torchvision:``, ``timm:``, ``transformers:``, ``python:`` or ``onnx:``.

The libraries are only asked for the architecture; they never fetch weights. An ONNX file brings its own.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from edgecv.core.recipe import ModelSpec
from edgecv.errors import ModelError, ToolchainError
from edgecv.models.detector_graphs import DETECTOR_OPTIONS, raw_detector
from edgecv.models.outputs import TensorOutputs
from edgecv.models.transformer_detectors import DETECTOR_CLASSES, detector_graph
from edgecv.models.two_stage import OPTION_NAMES, two_stage

__all__ = ["build_module", "split_source"]


HEADS = {
    "Image": ("ForImageClassification", "ForSemanticSegmentation", "ForDepthEstimation", "ForPoseEstimation"),
    "Video": ("ForVideoClassification",),
}
"""How the classes of transformers end that give plain maps or scores, by what they look at."""


def split_source(source: str) -> tuple[str, str]:
    """``"timm:resnet18"`` -> ``("timm", "resnet18")``.

    Raises:
        ModelError: there is no such kind of source.
    """
    kind, _, name = source.partition(":")
    if kind not in _BUILDERS or not name:
        raise ModelError(
            f"model.source is {source!r}; allowed are torchvision:NAME, timm:NAME, transformers:NAME, "
            "python:MODULE:FUNCTION and onnx:FILE" + _near(kind, [*_BUILDERS])
        )
    return kind, name


def build_module(spec: ModelSpec, *, num_classes: int | None, base: Path) -> nn.Module:
    """The network of ``spec.source`` with random weights (``onnx:``: those of the file), in evaluation mode.

    ``num_classes`` goes to the constructor unless ``spec.options`` has its own; ``base`` is the
    folder of the recipe, from which relative paths and the user's modules are found. A network of
    transformers is wrapped so that it takes the picture tensor and gives tensors.

    Raises:
        ModelError: unknown name, wrong options, the user's function failed, or the ONNX file cannot be imported.
        ToolchainError: the library is not installed.
    """
    kind, name = split_source(spec.source)
    with _quiet():
        module = _BUILDERS[kind](name, spec, num_classes, base)
    return module.eval()


def _torchvision(name: str, spec: ModelSpec, num_classes: int | None, base: Path) -> nn.Module:
    models = _library("torchvision.models")
    if name not in models.list_models():
        raise ModelError(f"torchvision has no model {name!r}" + _near(name, models.list_models()))
    ours = {key: value for key, value in spec.options.items() if key in (*DETECTOR_OPTIONS, *OPTION_NAMES)}
    given = {key: value for key, value in spec.options.items() if key not in ours}
    options: dict[str, Any] = {"weights": None, **_classes("num_classes", num_classes, spec), **given}
    if "weights_backbone" in inspect.signature(models.get_model_builder(name)).parameters:
        options.setdefault("weights_backbone", None)  # else torchvision fetches them
    for key in ("weights", "weights_backbone"):
        if options.get(key) is not None:
            raise ModelError(f"model.options.{key} is {options[key]!r}; give trained weights under model.weights")
    built = _construct(spec, lambda: models.get_model(name, **options))
    fixed = two_stage(built, size=spec.input.size, options=ours, source=spec.source)
    return fixed if fixed is not built else raw_detector(built, options=ours, source=spec.source)


def _timm(name: str, spec: ModelSpec, num_classes: int | None, base: Path) -> nn.Module:
    timm = _library("timm")
    if ":" in name or "/" in name or not timm.is_model(name):
        known = timm.list_models()
        raise ModelError(f"timm has no model {name!r}" + _near(name.rpartition(":")[2], known))
    if spec.options.get("pretrained"):
        raise ModelError("model.options.pretrained is set; give trained weights under model.weights")
    options = {**_classes("num_classes", num_classes, spec), **spec.options, "pretrained": False}
    if spec.input.channels != 3:
        options.setdefault("in_chans", spec.input.channels)
    return _construct(spec, lambda: timm.create_model(name, **options))


def _transformers(name: str, spec: ModelSpec, num_classes: int | None, base: Path) -> nn.Module:
    transformers = _library("transformers")
    labels = _classes("num_labels", num_classes, spec)
    what = "Image" if spec.input.clip is None else "Video"
    if spec.input.clip is not None:
        labels = {"num_frames": spec.input.clip.frames, **labels}
    folder = base / name
    if (folder / "config.json").is_file():

        def from_folder() -> nn.Module:
            config = transformers.AutoConfig.from_pretrained(
                str(folder), local_files_only=True, trust_remote_code=False, **{**labels, **spec.options}
            )
            heads = (*DETECTOR_CLASSES, *HEADS[what])
            named = [item for item in config.architectures or () if item.endswith(heads)]
            if named:
                return getattr(transformers, named[0])(config)
            general = getattr(transformers, f"AutoModelFor{what}Classification")
            return general.from_config(config, trust_remote_code=False)

        return _transformers_graph(_construct(spec, from_folder), spec)
    known = [item for item in dir(transformers) if item.endswith(HEADS[what]) and not item.startswith("Auto")]
    known += DETECTOR_CLASSES
    if name not in known:
        raise ModelError(
            f"{name!r} is neither a network of transformers for {what.lower()}s (...{', ...'.join(HEADS[what])}), nor "
            f"one of {', '.join(DETECTOR_CLASSES)}, nor a folder with config.json below {base}; models are named by "
            "their class, such as ViTForImageClassification" + _near(name, known)
        )

    def from_class() -> nn.Module:
        architecture = getattr(transformers, name)
        return architecture(_configured(architecture.config_class, {**labels, **spec.options}))

    return _transformers_graph(_construct(spec, from_class), spec)


def _configured(config_class: Any, options: dict[str, Any]) -> Any:
    """A configuration; that of the backbone may be a plain mapping with its ``model_type``."""
    backbone = options.get("backbone_config")
    if isinstance(backbone, dict) and "model_type" in backbone:
        transformers = _library("transformers")
        own = {key: value for key, value in backbone.items() if key != "model_type"}
        options = {**options, "backbone_config": transformers.AutoConfig.for_model(backbone["model_type"], **own)}
    return config_class(**options)


def _transformers_graph(network: nn.Module, spec: ModelSpec) -> nn.Module:
    if type(network).__name__ in DETECTOR_CLASSES:
        return _construct(spec, lambda: detector_graph(network, spec.input.size))
    return TensorOutputs(network)


def _python(name: str, spec: ModelSpec, num_classes: int | None, base: Path) -> nn.Module:
    module_name, _, function_name = name.partition(":")
    if not module_name or not function_name:
        raise ModelError(f"model.source is {spec.source!r}; write python:MODULE:FUNCTION")
    with _importable(base):
        module = _user_module(module_name, spec)
        function = getattr(module, function_name, None)
        if not callable(function):
            known = [item for item, value in vars(module).items() if callable(value) and not item.startswith("_")]
            raise ModelError(f"{module_name} has no function {function_name!r}" + _near(function_name, known))
        options = dict(spec.options)
        if num_classes is not None and _accepts(function, "num_classes"):
            options.setdefault("num_classes", num_classes)
        known_sizes = {"frames": spec.input.clip.frames, "height": spec.input.size[0]} if spec.input.clip else {}
        for key, value in known_sizes.items():
            if key in inspect.signature(function).parameters:
                options.setdefault(key, value)
        built = _construct(spec, lambda: function(**options))
    if not isinstance(built, nn.Module):
        raise ModelError(f"{spec.source} gave a {type(built).__name__}; it must return a torch.nn.Module")
    return built


def _onnx(name: str, spec: ModelSpec, num_classes: int | None, base: Path) -> nn.Module:
    _library("onnx")
    _library("onnxruntime")
    from edgecv.models.onnx_import import import_onnx

    if spec.options:
        raise ModelError(f"model.options is {spec.options}; an ONNX file is a finished network and takes none")
    return import_onnx(base / name, spec.input)


_BUILDERS: dict[str, Callable[[str, ModelSpec, int | None, Path], nn.Module]] = {
    "torchvision": _torchvision,
    "timm": _timm,
    "transformers": _transformers,
    "python": _python,
    "onnx": _onnx,
}


def _classes(key: str, num_classes: int | None, spec: ModelSpec) -> dict[str, Any]:
    return {} if num_classes is None or key in spec.options else {key: num_classes}


def _library(name: str) -> Any:
    top = name.partition(".")[0]
    try:
        importlib.import_module(top)
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != top:
            raise
        raise ToolchainError(
            f"{top} is not installed; run: pip install 'edgecv[host]' (or: pip install {top})"
        ) from None


def _user_module(module_name: str, spec: ModelSpec) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        if module_name == missing or module_name.startswith(missing + "."):
            raise ModelError(
                f"there is no Python module {module_name!r} for {spec.source}; install it, or put it beside the recipe"
            ) from None
        raise ToolchainError(f"{spec.source} needs the Python package {missing!r}, which is not installed") from error
    except Exception as error:  # the user's module runs here and can raise anything
        raise ModelError(f"{spec.source}: importing {module_name} failed: {_reason(error)}") from error


def _construct(spec: ModelSpec, build: Callable[[], Any]) -> Any:
    try:
        return build()
    except Exception as error:  # constructors run code of others and can raise anything
        options = f" with options {spec.options}" if spec.options else ""
        raise ModelError(f"{spec.source} cannot be built{options}: {_reason(error)}") from error


def _accepts(function: Callable[..., Any], name: str) -> bool:
    if getattr(function, "__init__", None) is nn.Module.__init__:
        return False  # a class without a constructor of its own: torch's takes **kwargs only to refuse them
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    return any(item.name == name or item.kind is inspect.Parameter.VAR_KEYWORD for item in parameters)


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _near(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    return f". Did you mean {', '.join(close)}?" if close else ""


@contextmanager
def _importable(base: Path) -> Iterator[None]:
    """Modules in the recipe's folder can be imported while the network is built."""
    folder = str(base.resolve())
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        if folder in sys.path:
            sys.path.remove(folder)


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
