"""int8 by edgecv against int8 by each engine's own tool, on the same calibration pictures, in one run.

For every model and engine: the metric of the float file, of our int8 file (one set of scales for all engines, found
by the repair ladder as `edgecv optimize` climbs it; the scheme, the training and the layers that IMDN's, LPRNet's and
YOLOX's recipes name and the rule of the face detectors' ranges are set by hand) and of the file that NNCF (OpenVINO,
ONNX), ONNX Runtime's quantize_static and ai-edge-quantizer (LiteRT) make; sizes; the loss with its paired bootstrap
interval; and the latency of float and int8, taken in turn. Needs EDGECV_TEST_DATA. Calibration pictures are never
evaluated. Absolute times belong to this machine; the ratio is the figure.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
from compression_cases import LIKE, SAME_IOU, Case, Likeness, cases, read, same_faces
from compression_ladder import quantised, words

from edgecv import backends, families
from edgecv.core.protocols import CompileSource, PartsMetric
from edgecv.core.target import BackendName, Target
from edgecv.errors import EdgecvError
from edgecv.measure.gate import judge_drop, judge_parts
from edgecv.measure.subject import Subject, subject
from edgecv.vision.boxes import iou
from edgecv.vision.image import preprocess

ENGINES: tuple[BackendName, ...] = ("onnxruntime", "openvino", "litert")
OURS, FLOAT = "edgecv", "float"
IN_DB = ("psnr",)
"""Metrics that are not shares."""
THEIRS = {"onnxruntime": ("ORT static", "NNCF onnx"), "openvino": ("NNCF ov",), "litert": ("ai-edge-q",)}


@contextlib.contextmanager
def silence(log: Path) -> Any:
    """Third-party chatter to a file."""
    with contextlib.ExitStack() as stack:
        stream = stack.enter_context(log.open("a"))
        stack.enter_context(contextlib.redirect_stdout(stream))
        stack.enter_context(contextlib.redirect_stderr(stream))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.callback(logging.disable, logging.NOTSET)
        logging.disable(logging.CRITICAL)
        yield


class Build:
    """The files of one case."""

    def __init__(self, case: Case, folder: Path) -> None:
        self.case, self.folder, self.log = case, folder, folder / "log.txt"
        folder.mkdir()
        self.inputs = [preprocess(read(path), case.contract)[np.newaxis] for path in case.calibration]

    def files(self) -> dict[tuple[str, str], tuple[Path, dict[str, Any]]]:
        """Model file and engine options by engine and maker; what a tool cannot make is left out and told."""
        made: dict[tuple[str, str], tuple[Path, dict[str, Any]]] = {}
        self._edgecv(made, FLOAT)
        self._edgecv(made, OURS)
        for maker, tool in (
            ("ORT static", self._ort),
            ("NNCF onnx", self._nncf_onnx),
            ("NNCF ov", self._nncf_openvino),
            ("ai-edge-q", self._ai_edge),
        ):
            engine = next(name for name, makers in THEIRS.items() if maker in makers)
            try:
                with silence(self.log):
                    made[engine, maker] = (tool(made), {})
            except Exception as error:  # noqa: BLE001 - other tools fail in their own ways: that is a result
                self._failed(maker, error)
        return made

    def _failed(self, maker: str, error: BaseException) -> None:
        with self.log.open("a") as stream:
            traceback.print_exception(error, file=stream)
        print(f"  {self.case.name}: {maker} fails: {type(error).__name__}: {str(error)[:120]!r}", flush=True)

    def _edgecv(self, made: dict[Any, Any], maker: str) -> None:
        import torch

        from edgecv.optimize.export import export_program, save_program, write_onnx

        case, folder = self.case, self.folder / maker
        folder.mkdir()
        example = torch.from_numpy(self.inputs[0])
        module = case.make()
        with silence(self.log):
            if maker == FLOAT:
                program = export_program(module, example)
            else:
                made_int8, climbed = quantised(case, module, self.inputs, log=self.log)
                program = made_int8.program
            save_program(program, folder / "model.pt2")
            write_onnx(program, folder / "model.onnx")
        precision: Literal["fp32", "int8"] = "fp32" if maker == FLOAT else "int8"
        if maker == OURS:
            print("\n".join(f"  {case.name}: {line}" for line in words(climbed)), flush=True)
        source = CompileSource(precision, folder / "model.onnx", folder / "model.pt2")
        for engine in ENGINES:
            out = folder / engine
            out.mkdir()
            target = Target(1, "bench", "bench", engine, "host", (precision,), (), threads=2)
            compiled = backends.get(engine).compile(source, target=target, out=out, log=self.log)
            made[engine, maker] = (out / compiled.model, dict(compiled.options))

    def _ort(self, made: dict[Any, Any]) -> Path:
        from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process

        class Feed(CalibrationDataReader):  # type: ignore[misc]
            def __init__(self, name: str, inputs: list[np.ndarray]) -> None:
                self._items = iter([{name: item} for item in inputs])

            def get_next(self) -> Any:
                return next(self._items, None)

        source = self.folder / FLOAT / "model.onnx"
        ready, out = self.folder / "ort-ready.onnx", self.folder / "ort-static.onnx"
        quant_pre_process(str(source), str(ready), skip_symbolic_shape=True)
        quantize_static(
            str(ready),
            str(out),
            Feed(_input_name(source), self.inputs),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
        )
        return out

    def _nncf_onnx(self, made: dict[Any, Any]) -> Path:
        import nncf
        import onnx

        source, out = self.folder / FLOAT / "model.onnx", self.folder / "nncf-onnx.onnx"
        name = _input_name(source)
        dataset = nncf.Dataset([{name: item} for item in self.inputs])
        onnx.save(nncf.quantize(onnx.load(str(source)), dataset, subset_size=len(self.inputs)), str(out))
        return out

    def _nncf_openvino(self, made: dict[Any, Any]) -> Path:
        import nncf
        import openvino

        model = openvino.Core().read_model(str(self.folder / FLOAT / "model.onnx"))
        quantised = nncf.quantize(model, nncf.Dataset(self.inputs), subset_size=len(self.inputs))
        out = self.folder / "nncf-openvino.xml"
        openvino.save_model(quantised, str(out), compress_to_fp16=False)
        return out

    def _ai_edge(self, made: dict[Any, Any]) -> Path:
        from ai_edge_quantizer import quantizer, recipe

        source, _ = made["litert", FLOAT]
        engine = backends.get("litert").load(source, options={}, threads=2)
        spec = engine.inputs[0]
        engine.close()
        tool = quantizer.Quantizer(str(source), recipe.static_wi8_ai8())
        feed = [
            np.ascontiguousarray(item.transpose(0, 2, 3, 1)) if spec.layout == "NHWC" else item for item in self.inputs
        ]
        names = _tflite_inputs(source)
        result = tool.quantize(tool.calibrate({names[0]: [{names[1]: item} for item in feed]}))
        out = self.folder / "ai-edge.tflite"
        result.export_model(str(out), overwrite=True)
        return out


def _input_name(path: Path) -> str:
    import onnx

    return str(onnx.load(str(path), load_external_data=False).graph.input[0].name)


def _tflite_inputs(path: Path) -> tuple[str, str]:
    """Name of the signature and of its first input."""
    from ai_edge_litert.interpreter import Interpreter

    signatures = Interpreter(str(path)).get_signature_list()
    key = next(iter(signatures))
    return key, signatures[key]["inputs"][0]


def open_subject(case: Case, engine: str, file: Path, options: dict[str, Any]) -> Subject:
    """The file with its engine and family."""
    loaded = backends.get(engine).load(file, options=options, threads=2)
    return subject(loaded, spec=case.family, contract=case.contract)


def answers(case: Case, model: Subject) -> list[Any]:
    """One result a picture."""
    buffer, found = model.input_buffer(), []
    for path in case.images:
        image = read(path)
        found.append(model.decode(model.run(image, buffer), picture=image.shape[:2]))
    return found


def counted(case: Case, found: list[Any], truths: Sequence[Any]) -> Any:
    """The metric with all answers in it."""
    like = LIKE.get(case.metric)
    metric = Likeness(like) if like is not None else families.get(case.family.kind).metric(case.family, case.metric)
    for result, truth in zip(found, truths, strict=True):
        metric.update(result, truth)
    return metric


def value_of(metric: Any) -> float:
    """The figure."""
    return float(np.mean(metric.scores)) if isinstance(metric, Likeness) else float(metric.compute().value)


def lost(one: Any, other: Any, *, times: float) -> str:
    """The loss with its interval, ``times`` what the metric says."""
    if isinstance(one, PartsMetric) and isinstance(other, PartsMetric):
        drop = judge_parts(one.parts(), other.parts(), max_drop=None, resamples=2000)
    elif isinstance(one, Likeness):
        drop = judge_drop(one.scores, other.scores, max_drop=None)
    else:
        drop = judge_drop(one.compute().per_sample, other.compute().per_sample, max_drop=None)
    return f"{times * drop.drop:6.2f} [{times * drop.interval.low:6.2f}, {times * drop.interval.high:6.2f}]"


def paired_ms(models: list[Subject], image: np.ndarray, *, runs: int) -> list[float]:
    """Median time of the engine call of each on ``image``, taken in turn."""
    buffers = []
    for model in models:
        buffers.append(model.input_buffer())
        model.preprocessor.into(model.pieces(image)[0], buffers[-1])
    times: list[list[float]] = [[] for _ in models]
    for turn in range(runs + 5):
        for index, model in enumerate(models):
            started_s = time.perf_counter()
            model.engine.run([buffers[index]])
            if turn >= 5:
                times[index].append((time.perf_counter() - started_s) * 1000)
    return [median(found) for found in times]


def table(case: Case, folder: Path, *, runs: int) -> None:
    """Build, evaluate, time and print one case."""
    build = Build(case, folder)
    files = build.files()
    truths: Sequence[Any] = case.truths
    for engine in ENGINES:
        makers = [maker for maker in (FLOAT, OURS, *THEIRS[engine]) if (engine, maker) in files]
        models, metrics = {}, {}
        for maker in makers:
            try:
                with silence(build.log):
                    models[maker] = open_subject(case, engine, *files[engine, maker])
                    found = answers(case, models[maker])
            except (EdgecvError, RuntimeError, ValueError) as error:
                models.pop(maker, None)
                print(f"  {case.name} {engine}: the file of {maker} does not run: {str(error)[:120]!r}", flush=True)
                continue
            if case.metric in LIKE and truths[0] is None:
                truths = found  # the float file of the first engine is what all are held against
            metrics[maker] = counted(case, found, truths)
            tell_unlike(case, engine, maker, found, truths)
        spent = dict(zip(models, paired_ms(list(models.values()), read(case.images[0]), runs=runs), strict=True))
        for maker, model in models.items():
            size = sum(
                path.stat().st_size for path in files[engine, maker][0].parent.glob(files[engine, maker][0].stem + ".*")
            )
            times = 1.0 if case.metric in IN_DB else 100.0
            loss = "" if maker == FLOAT else lost(metrics[FLOAT], metrics[maker], times=times)
            print(
                f"{case.name:11} {engine:12} {maker:11} {case.metric:10} {times * value_of(metrics[maker]):7.2f} "
                f"{loss:25} {size / 1e3:8.0f} kB {spent[maker]:8.2f} ms {spent[FLOAT] / spent[maker]:5.2f}x",
                flush=True,
            )
            model.engine.close()


def tell_unlike(case: Case, engine: str, maker: str, found: Sequence[Any], truths: Sequence[Any]) -> None:
    """Name the pictures with other faces, and how many are other ones: with eight pictures each is 12.5 points."""
    if case.metric != "same faces" or maker == FLOAT:
        return
    for path, one, other in zip(case.images, found, truths, strict=True):
        if not same_faces(one, other):
            lost, new = (int((iou(*boxes).max(axis=1, initial=0.0) < SAME_IOU).sum()) for boxes in _both(one, other))
            print(
                f"  {case.name} {engine} {maker}: {path.name} has {len(other)} faces in float, {lost} of them are "
                f"lost and {new} are new",
                flush=True,
            )


def _both(one: Any, other: Any) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    return (other.boxes, one.boxes), (one.boxes, other.boxes)


def main() -> int:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="models whose name holds this text")
    parser.add_argument("--runs", type=int, default=60, help="timed runs of each file")
    options = parser.parse_args()
    data = Path(os.environ["EDGECV_TEST_DATA"])
    print("values and losses in points of 100, psnr in dB (loss of the same engine's float file, 95 % interval)")
    with tempfile.TemporaryDirectory() as name:
        made = Path(name) / "pictures"
        made.mkdir()
        for case in cases(data, made):
            if options.only is None or options.only.lower() in case.name.lower():
                table(case, Path(name) / case.name, runs=options.runs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
