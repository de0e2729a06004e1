"""The command line: parses, calls one command, and turns every error into a message and an exit code.

Exit codes: 0 all budgets met, 1 a defect of edgecv, 2 usage or recipe error, 3 a budget failed,
4 measurement invalid or inconclusive, 5 toolchain or device missing, 6 artifact corrupt or not trusted.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import importlib
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn

import edgecv
from edgecv.errors import EdgecvError, RecipeError, ToolchainError

EXIT_CODES = """exit codes: 0 all budgets met; 1 a defect of edgecv; 2 usage or recipe error; 3 a budget failed;
4 measurement invalid or inconclusive; 5 toolchain or device missing; 6 artifact corrupt or not trusted"""


class _Parser(argparse.ArgumentParser):
    """Says what is allowed and where to look, with exit code 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"edgecv: {message}\nTry '{self.prog} --help'.\n")


def _command(module: str, function: str) -> Callable[[argparse.Namespace], int]:
    def call(options: argparse.Namespace) -> int:
        try:
            command = getattr(importlib.import_module(f"edgecv.commands.{module}"), function)
            result: int = command(options)
        except ModuleNotFoundError as error:
            if error.name is None or error.name.startswith("edgecv"):
                raise
            raise ToolchainError(
                f"`edgecv {options.command}` needs the package {error.name}, which is not installed here. "
                "On the build machine: pip install 'edgecv[host]'. A board needs only `import`, `build`, `run`, "
                "`eval`, `bench`, `verify`, `report` and `compare`."
            ) from error
        return result

    return call


def parser() -> argparse.ArgumentParser:
    """The whole command line; building it imports nothing beyond argparse."""
    top = _Parser(
        prog="edgecv", description="Take a vision model to a board, prove it, and run it there.", epilog=EXIT_CODES
    )
    top.add_argument("--version", action="version", version=f"edgecv {edgecv.__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Parser)
    _host_commands(commands)
    _device_commands(commands)
    _report_commands(commands)
    return top


def _add(commands: "argparse._SubParsersAction[_Parser]", name: str, help: str, module: str, function: str) -> _Parser:
    made: _Parser = commands.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".")
    made.set_defaults(call=_command(module, function))
    return made


def _host_commands(commands: "argparse._SubParsersAction[_Parser]") -> None:
    init = _add(commands, "init", "write a commented recipe for a model", "author", "init")
    init.add_argument(
        "source", help="torchvision:NAME, timm:NAME, transformers:NAME, python:module:function, onnx:FILE"
    )
    init.add_argument("--name", help="name of the recipe (default: from the source)")
    init.add_argument("--family", default="classification", help="what the outputs mean (default: classification)")
    init.add_argument("--out", help="file to write (default: NAME.yaml; '-' prints it)")
    init.add_argument("--force", action="store_true", help="replace the file if it is there")

    optimize = _add(
        commands, "optimize", "take a recipe to compiled, proven and measured artifacts", "optimize", "optimize"
    )
    optimize.add_argument("recipe", help="recipe.yaml")
    optimize.add_argument("--out", help="folder for artifacts and report (default: runs/NAME)")
    optimize.add_argument("--cache", help="folder of finished steps (default: the platform's cache folder)")
    optimize.add_argument(
        "--set", action="append", default=[], metavar="PATH=VALUE", help="change a value of the recipe"
    )
    optimize.add_argument(
        "--target", action="append", default=[], metavar="NAME", help="only these targets of the recipe"
    )
    optimize.add_argument("--dry-run", action="store_true", help="print the resolved plan and stop")
    optimize.add_argument("--json", action="store_true", help="print the plan or the report as JSON")
    optimize.add_argument(
        "--jobs",
        metavar="N",
        help="processes that compile beside the run: auto (two where there are two cores) or a number, 0 for none "
        "(default: EDGECV_JOBS, or auto)",
    )
    optimize.add_argument("--accelerator", default="auto", help="training: auto, cpu, cuda, mps")
    optimize.add_argument("--devices", default="auto", help="training: how many devices in each node")
    optimize.add_argument("--nodes", type=int, default=1, help="training: how many machines")
    optimize.add_argument("--strategy", default="auto", help="training: Lightning Fabric strategy, such as ddp or fsdp")

    _analyze_options(
        _add(commands, "analyze", "say what each layer loses in int8, and mend it", "analyze", "analyze_command")
    )

    calibrate = _add(commands, "calibrate", "pick a calibration set and write its manifest", "author", "calibrate")
    calibrate.add_argument("recipe", help="recipe whose model input, labels and data sets are used")
    calibrate.add_argument("--out", required=True, help="manifest to write, such as calibration/NAME.yaml")
    calibrate.add_argument("--samples", type=int, default=128, help="how many pictures (default: 128)")
    calibrate.add_argument("--select", choices=("random", "stratified", "k-center"), default="stratified")
    calibrate.add_argument("--seed", type=int, default=0)
    calibrate.add_argument("--licence", default="not stated", help="licence of the pictures")
    calibrate.add_argument(
        "--set", action="append", default=[], metavar="PATH=VALUE", help="change a value of the recipe"
    )
    calibrate.add_argument("--force", action="store_true", help="replace the file if it is there")

    lister = _add(
        commands, "list", "list targets, recipes, backends, families or calibration sets", "info", "list_things"
    )
    lister.add_argument("what", choices=("targets", "recipes", "backends", "families", "calibration"))
    lister.add_argument("--json", action="store_true")

    doctor = _add(commands, "doctor", "say what this machine can compile and run", "info", "doctor")
    doctor.add_argument("--json", action="store_true")


def _analyze_options(analyze: argparse.ArgumentParser) -> None:
    analyze.add_argument("recipe", metavar="RECIPE_OR_ARTIFACT", help="recipe.yaml, a ready recipe's name, an artifact")
    analyze.add_argument(
        "--recipe", dest="from_recipe", metavar="FILE", help="of an artifact: the recipe that it was built from"
    )
    analyze.add_argument("--out", help="folder for the table as JSON and HTML (default: runs/NAME)")
    analyze.add_argument("--cache", help="folder of finished steps (default: the platform's cache folder)")
    analyze.add_argument(
        "--set", action="append", default=[], metavar="PATH=VALUE", help="change a value of the recipe"
    )
    analyze.add_argument("--target", metavar="NAME", help="the target whose steps are taken (default: the first)")
    analyze.add_argument("--pictures", type=int, default=32, help="calibration pictures for the noise (default: 32)")
    analyze.add_argument(
        "--score", type=int, default=0, metavar="N", help="take the metric of every row on N evaluation pictures"
    )
    analyze.add_argument("--no-times", action="store_true", help="do not measure the layers' times")
    analyze.add_argument(
        "--repair", choices=("off", "ptq"), default="off", help="climb the repair ladder (default: off)"
    )
    analyze.add_argument("--write-back", action="store_true", help="write the found settings into the recipe")
    analyze.add_argument("--json", action="store_true", help="print the table as JSON")


def _bench_options(bench: argparse.ArgumentParser) -> None:
    bench.add_argument("artifact")
    _data_options(bench, default="synthetic")
    bench.add_argument(
        "--protocol", choices=("full", "quick", "smoke"), default="full", help="60 s, 10 s or 1 s (default: full)"
    )
    bench.add_argument("--fps", type=float, help="camera rate (default: 30 for the paced run, back to back for a soak)")
    bench.add_argument("--threads", type=int)
    bench.add_argument("--out", help="folder for the report (default: print only)")
    bench.add_argument("--json", action="store_true")
    soak = bench.add_argument_group("soak")
    soak.add_argument(
        "--soak", metavar="TIME", help="instead, run for 90s, 10m or 1h: sustained rate, heat, throttling, energy"
    )
    soak.add_argument("--min-fps", type=float, help="budget: frames per second that must be left at the end")
    soak.add_argument("--max-mj-per-frame", type=float, help="budget: energy per frame in millijoules, gross")


def _data_options(command: argparse.ArgumentParser, *, default: str | None = None) -> None:
    kinds = "imagefolder:FOLDER, csv:FILE, coco:FILE[,root=FOLDER,only=GLOB] or another kind of data, as in a recipe"
    if default is not None:
        kinds += ", frames:VIDEO or FOLDER, or synthetic:size=WIDTHxHEIGHT (default: synthetic)"
    command.add_argument("--data", required=default is None, default=default, metavar="KIND:PATH", help=kinds)
    command.add_argument("--root", help="csv, coco: folder of the images")
    command.add_argument("--file-column", default="file", help="csv: column with the image's path")
    command.add_argument("--label-column", default="label", help="csv: column with class name or number")
    command.add_argument("--limit", type=int, help="an even pick of so many samples")
    command.add_argument("--strict", action="store_true", help="refuse unreadable images instead of skipping them")


def _index_options(index: argparse.ArgumentParser) -> None:
    index.add_argument("artifact")
    _data_options(index)
    index.add_argument("--out", required=True, help="file to write, such as people.npz")
    index.add_argument(
        "--known-from",
        metavar="COSINE",
        help="whoever is less like all pictures is unknown; auto: as one stranger in a hundred would pass",
    )
    index.add_argument("--threads", type=int)
    index.add_argument("--json", action="store_true")


def _run_options(run: argparse.ArgumentParser) -> None:
    run.add_argument(
        "what",
        nargs="*",
        help="a pipeline's JSON file (flags replace its values), or an artifact's folder, with or without pictures",
    )
    run.add_argument("--demo", action="store_true", help="the bundled detector on the synthetic camera, with its score")
    first = run.add_argument_group("models")
    first.add_argument("--detect", action="append", metavar="DIR", help="detector; again for a ladder, fastest last")
    first.add_argument("--model", action="append", metavar="DIR", help="any family on the whole picture, instead")
    first.add_argument("--track", metavar="NAME", help="tracker: sort, bytetrack, ocsort, botsort")
    first.add_argument("--track-option", action="append", default=[], metavar="NAME=VALUE", help="VALUE is JSON")
    first.add_argument("--reid", metavar="DIR", help="model whose embeddings tell the tracker who is who")
    first.add_argument("--second", "--pose", dest="second", metavar="DIR", help="model that looks at each object")
    first.add_argument("--second-class", action="append", metavar="LABEL", help="only at objects of this class")
    first.add_argument("--gallery", metavar="FILE", help="of `edgecv index`, or a folder: whom an embedding shows")
    first.add_argument("--score", type=float, help="objects below this score are left out")
    first.add_argument("--threads", type=int, help="CPU threads of each engine")
    source = run.add_argument_group("camera")
    source.add_argument("--camera", help="0, /dev/video0, car.mp4, a folder, rtsp://..., gst:..., csi:0, synthetic:")
    source.add_argument("--camera-option", action="append", default=[], metavar="NAME=VALUE", help="such as fps=30")
    source.add_argument("--policy", choices=("auto", "latest", "every"), help="latest frame only, or every frame")
    source.add_argument("--max-age-ms", type=float, help="leave out frames that are older when their turn comes")
    source.add_argument("--deadline-ms", type=float, help="count frames whose results come later")
    source.add_argument("--frames", type=int, help="end after so many frames")
    source.add_argument("--seconds", type=float, help="end after so long")
    out = run.add_argument_group("results")
    out.add_argument(
        "--sink", action="append", metavar="KIND=PLACE", help="video=out.mp4, jsonl=FILE, csv=FILE, mot=FILE, ..."
    )
    out.add_argument(
        "--save", metavar="FOLDER", help="write each result as PNG: the picture that a model makes, else the overlay"
    )
    out.add_argument("--live", metavar="[HOST]:PORT", help="live page, /metrics and /health, such as :8080")
    out.add_argument("--live-token", metavar="TOKEN", help="token that viewers outside this machine need")
    out.add_argument("--report", metavar="DIR", help="folder for the report (default: print only)")
    out.add_argument("--timeline", metavar="FILE", help="Chrome-trace file of the last frames, for Perfetto")
    out.add_argument("--json", action="store_true", help="print each result as a line of JSON")
    out.add_argument("--quiet", action="store_true", help="no progress lines")


def _import_options(imported: argparse.ArgumentParser) -> None:
    imported.add_argument("file", help=".onnx, .tflite or .xml")
    imported.add_argument("--out", required=True, help="folder of the artifact; must not exist")
    imported.add_argument("--labels", help="text file, one class name a line (pose: not needed)")
    seen = imported.add_mutually_exclusive_group(required=True)
    seen.add_argument("--size", type=int, nargs=2, metavar=("H", "W"), help="network input in pixels")
    seen.add_argument("--vector", type=int, metavar="COUNT", help="the input is a row of so many numbers, no picture")
    imported.add_argument("--color", choices=("rgb", "bgr", "gray"), default="rgb")
    imported.add_argument("--mean", type=float, nargs="+", help="subtracted, per channel (default: 0)")
    imported.add_argument("--std", type=float, nargs="+", help="divided by, per channel (default: 1)")
    imported.add_argument(
        "--range",
        type=float,
        nargs=2,
        default=(0.0, 1.0),
        metavar=("LOW", "HIGH"),
        help="what pixel values 0 and 255 become before mean and std",
    )
    imported.add_argument("--resize", choices=("stretch", "letterbox", "letterbox-topleft", "crop"), default="stretch")
    imported.add_argument(
        "--clip",
        type=float,
        nargs=2,
        metavar=("FRAMES", "FPS"),
        help="the network sees so many frames of a video at once, so many of them in a second",
    )
    imported.add_argument("--interpolation", choices=("nearest", "linear", "cubic", "area"), default="linear")
    imported.add_argument("--crop-ratio", type=float, default=0.875)
    imported.add_argument(
        "--pad-value", type=int, default=114, help="letterbox: value of the border, 0 to 255 (default: 114)"
    )
    imported.add_argument(
        "--family", default="classification", help="what the outputs mean; `edgecv list families` names them"
    )
    imported.add_argument("--head", default="", help="layout of the outputs, such as yolo or fastestdet")
    imported.add_argument(
        "--option", action="append", default=[], metavar="NAME=VALUE", help="a setting of the head; VALUE is JSON"
    )
    imported.add_argument("--score", type=float, default=0.25, help="objects below this score are left out")
    imported.add_argument("--iou", type=float, default=0.45, help="of two boxes that overlap more, one is left out")
    imported.add_argument("--background", action="store_true", help="output 0 is a background class")
    imported.add_argument("--outputs", choices=("logits", "probabilities"), default="logits")
    imported.add_argument("--name", help="name of the artifact (default: the file's)")


def _device_commands(commands: "argparse._SubParsersAction[_Parser]") -> None:
    _import_options(_add(commands, "import", "make an artifact from a bare model file", "artifact", "import_file"))
    _index_options(
        _add(commands, "index", "make a gallery of known identities for an embedding model", "index", "index")
    )

    build = _add(commands, "build", "finish a deferred artifact on the device that will run it", "artifact", "build")
    build.add_argument("artifact")

    _run_options(_add(commands, "run", "run artifacts on a camera, a video or pictures", "run", "run"))

    track = _add(commands, "track", "give the objects of a detections file ids that last", "track", "track")
    track.add_argument("detections", help="MOT text file: frame, -1, left, top, width, height, score")
    track.add_argument("--tracker", default="bytetrack", help="sort, bytetrack, ocsort, botsort; none to only evaluate")
    track.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="an option of the tracker")
    track.add_argument("--fps", type=float, default=30.0, help="frame rate of the sequence (default: 30)")
    track.add_argument("--eval", metavar="TRUTH", help="MOT ground truth: print HOTA, MOTA, IDF1, IDSW")
    track.add_argument("--out", help="MOT text file to write")
    track.add_argument("--json", action="store_true")

    evaluate = _add(
        commands, "eval", "task metric of an artifact on a data set, through its engine", "artifact", "evaluate"
    )
    evaluate.add_argument("artifact")
    _data_options(evaluate)
    evaluate.add_argument("--metric", help="metric of the family (default: its first)")
    evaluate.add_argument("--threads", type=int)
    evaluate.add_argument("--json", action="store_true")

    _bench_options(_add(commands, "bench", "latency of an artifact on this machine, cold or hot", "bench", "bench"))

    verify = _add(commands, "verify", "check an artifact's files, chain and answers; name a fault", "verify", "verify")
    verify.add_argument("artifact")
    verify.add_argument("--threads", type=int)
    verify.add_argument("--json", action="store_true")


def _report_commands(commands: "argparse._SubParsersAction[_Parser]") -> None:
    report = _add(commands, "report", "print a report again, or render it anew", "reports", "report")
    report.add_argument("report", help="report.json, or the folder that holds it")
    report.add_argument("--format", choices=("text", "markdown", "html", "junit", "json"), default="text")
    report.add_argument("--out", help="file to write (default: print)")

    compare = _add(
        commands, "compare", "show what changed between two reports, and gate on a regression", "reports", "compare"
    )
    compare.add_argument("before", help="report.json, or the folder that holds it")
    compare.add_argument("after", help="report.json, or the folder that holds it")
    compare.add_argument("--max-accuracy-drop", type=float, default=0.005, help="0.005 = half a point")
    compare.add_argument("--max-latency-increase", type=float, default=0.10, help="0.10 = 10 %%")
    compare.add_argument("--max-size-increase", type=float, default=0.05, help="0.05 = 5 %%")
    compare.add_argument("--format", choices=("text", "markdown", "json"), default="text")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    options = parser().parse_args(arguments)
    try:
        code: int = options.call(options)
        sys.stdout.flush()
        return code
    except EdgecvError as error:
        _explain(error, as_json=getattr(options, "json", False))
        return error.exit_code
    except KeyboardInterrupt:
        print("edgecv: stopped; finished steps are kept", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        traceback.print_exc()
        print(
            f"edgecv: a defect of edgecv ({type(error).__name__}: {error}). Please report it with the lines above.",
            file=sys.stderr,
        )
        return 1


def _explain(error: EdgecvError, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"error": str(error), "kind": type(error).__name__, "exit_code": error.exit_code}))
    if isinstance(error, RecipeError):
        count = len(error.problems)
        print(f"edgecv: {count} problem{'s' if count != 1 else ''} found before any work:", file=sys.stderr)
        for problem in error.problems:
            print(f"  {problem}", file=sys.stderr)
    else:
        print(f"edgecv: {error}", file=sys.stderr)


def program() -> NoReturn:
    """The `edgecv` command: `main`, then the end of the process without taking its memory apart object by object.

    The interpreter needs 3 s for that after a build (the graphs of torch); the operating system needs none.
    """
    try:
        code = main()
    except SystemExit as stop:  # argparse's way to end
        code = stop.code if isinstance(stop.code, int) else 0
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
