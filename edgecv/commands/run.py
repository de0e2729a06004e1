"""`edgecv run`: artifacts on a camera, a video or pictures."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from edgecv.commands.known import known_identities, with_known
from edgecv.commands.values import named_values
from edgecv.core.artifact import MANIFEST
from edgecv.core.contract import Clip
from edgecv.core.stream import FrameResult, LoopStatus
from edgecv.data.imagefile import load_image
from edgecv.data.video_file import VIDEOS, look_at, read_clip
from edgecv.errors import DataError, UsageError
from edgecv.runtime.gallery import open_gallery
from edgecv.runtime.load import load_artifact
from edgecv.runtime.session import Session, open_session
from edgecv.runtime.sinks.files import write_picture
from edgecv.runtime.spec import PipelineSpec, SecondStage, read_spec
from edgecv.vision.clips import check_clip, middle
from edgecv.vision.draw import picture_of
from edgecv.vision.image import Image

_LINE_EVERY_S = 2.0
_END_WITHIN_S = 10.0


def run(options: argparse.Namespace) -> int:
    """Pictures, the demo, or a camera loop until its stream ends or a signal comes."""
    if options.demo:
        from edgecv.runtime.demo import run_demo

        session, _ = run_demo(_spec(options), hold=_hold(options))
        return finish(session, as_json=options.json)
    if len(options.what) > 1:
        return _pictures(options)
    with with_known(_spec(options)) as spec:
        session = open_session(spec, on_result=_print_json if options.json else None)
    _hold(options)(session)
    return finish(session, as_json=options.json)


def finish(session: Session, *, as_json: bool) -> int:
    """Write the report, print it, and give the exit code: that of the error that ended the loop, or 0."""
    from edgecv.report.render import render_all, render_text

    report = session.report()
    if session.spec.report:
        render_all(report, Path(session.spec.report))
    print(render_text(report), file=sys.stderr if as_json else sys.stdout, end="")
    if session.spec.report:
        print(f"Report: {Path(session.spec.report) / 'report.html'}", file=sys.stderr if as_json else sys.stdout)
    if session.error is not None:
        raise session.error
    return 0


def _hold(options: argparse.Namespace) -> Callable[[Session], None]:
    """What keeps the main thread until the session is over: progress lines, signals, a bounded end."""

    def hold(session: Session) -> None:
        with session, _signals(session):
            session.start()
            for note in session.notes:
                print(note, file=sys.stderr, flush=True)
            shown_s = time.monotonic()
            while session.running:
                session.wait(0.2)
                if not options.quiet and time.monotonic() - shown_s >= _LINE_EVERY_S:
                    shown_s = time.monotonic()
                    _show(session.status())
                if session.stopping_for_s > _END_WITHIN_S:
                    break
            if not options.quiet and sys.stderr.isatty():
                print(file=sys.stderr)

    return hold


@contextmanager
def _signals(session: Session) -> Iterator[None]:
    """SIGINT and SIGTERM end the loop in order; a second one ends the process at once."""
    before: dict[int, Any] = {}

    def stop(number: int, _frame: FrameType | None) -> None:
        session.stop(f"signal {signal.Signals(number).name}")
        signal.signal(number, before[number])

    for wanted in (signal.SIGINT, signal.SIGTERM):
        before[int(wanted)] = signal.signal(wanted, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _show(status: LoopStatus) -> None:
    age = "" if status.age_p50_ms is None else f"  age {status.age_p50_ms:.0f} ms"
    heat = max(status.temperature_c.values(), default=None)
    warm = "" if heat is None else f"  {heat:.0f} °C"
    watts = status.power_w.get("total")
    drawn = "" if watts is None else f"  {watts:.1f} W"
    flags = f"  {'; '.join(status.flags)}" if status.flags else ""
    line = (
        f"{status.uptime_s:6.1f} s  frame {status.frames}  {status.fps:.1f} fps{age}  dropped {status.dropped}"
        f"{warm}{drawn}{'  ' + status.level if status.level else ''}{flags}"
    )
    if sys.stderr.isatty():
        print(f"\r\x1b[2K{line[:110]}", end="", file=sys.stderr, flush=True)
    else:
        print(line, file=sys.stderr, flush=True)


def _print_json(item: FrameResult) -> None:
    print(json.dumps(item.to_dict()), flush=True)


def _spec(options: argparse.Namespace) -> PipelineSpec:
    """The pipeline's file, if there is one, with the flags over it."""
    spec = PipelineSpec()
    if options.what and (Path(options.what[0]) / MANIFEST).is_file():
        spec = replace(spec, model=(options.what[0],))
    elif options.what:
        spec = read_spec(options.what[0])
    given: dict[str, Any] = {
        "detect": tuple(options.detect) if options.detect else None,
        "model": tuple(options.model) if options.model else None,
        "track": options.track,
        "reid": options.reid,
        "track_options": named_values(options.track_option, "--track-option") or None,
        "camera": options.camera,
        "camera_options": named_values(options.camera_option, "--camera-option") or None,
        "sinks": tuple(options.sink) if options.sink else None,
        "live": options.live,
        "live_token": options.live_token,
        "policy": options.policy,
        "max_age_ms": options.max_age_ms,
        "deadline_ms": options.deadline_ms,
        "frames": options.frames,
        "seconds": options.seconds,
        "threads": options.threads,
        "score": options.score,
        "report": options.report,
        "timeline": options.timeline,
    }
    spec = replace(spec, **{name: value for name, value in given.items() if value is not None})
    if options.save:
        spec = replace(spec, sinks=(*spec.sinks, f"results={options.save}"))
    if options.second:
        spec = replace(spec, second=SecondStage(options.second, classes=tuple(options.second_class or ())))
    if options.gallery:
        if spec.second is not None:
            spec = replace(spec, second=replace(spec.second, gallery=options.gallery))
        elif spec.detect:
            raise UsageError("--gallery names whom an embedding shows; add --second DIR, or take --model for --detect")
        else:
            spec = replace(spec, gallery=options.gallery)
    return spec


def _pictures(options: argparse.Namespace) -> int:
    """``edgecv run ARTIFACT PICTURE...``: one answer a picture (or video, for clips), each picture as it is."""
    folder, *names = options.what
    if not (Path(folder) / MANIFEST).is_file():
        raise UsageError(f"{folder} is no artifact (it has no {MANIFEST}); before pictures, name an artifact's folder")
    places = _places(Path(options.save), names) if options.save else {}
    known = known_identities(options.gallery or "", folder, threads=options.threads)
    with known as file, load_artifact(folder, threads=options.threads) as model:
        gallery = open_gallery(file, model) if file else None
        for name in names:
            clip = model.manifest.contract.clip
            if clip is None and Path(name).suffix.lower() in VIDEOS:
                how = f"edgecv run --model {folder} --camera {name}"
                raise UsageError(f"{name} is a video, and here pictures are named; run it as a camera: {how}")
            image = _load(name, clip)
            if clip is not None:
                check_clip(image, clip)
            result = model.predict(image)
            if gallery is not None:
                result = gallery.recognise(result)
            if name in places:
                write_picture(places[name], picture_of(middle(image), result))
            print(json.dumps({"image": name, **result.to_dict()}) if options.json else f"{name}: {result.words()}")
    return 0


def _load(name: str, clip: Clip | None) -> Image:
    """A picture; for a network that takes clips, the middle of a video or of a folder of frames.

    Raises:
        DataError: it cannot be read.
    """
    path = Path(name)
    if clip is None or not (path.is_dir() or path.suffix.lower() in VIDEOS):
        return load_image(name, noisy=True)
    try:
        return read_clip(path, look_at(path), clip)
    except ValueError as error:
        raise DataError(f"{name}: {error}") from error


def _places(folder: Path, names: Sequence[str]) -> dict[str, Path]:
    """Where each picture's result goes: its name in ``folder``, as PNG.

    Raises:
        UsageError: two pictures have the same name, a result would replace its picture, or the folder cannot be made.
    """
    places = {name: folder / f"{Path(name).stem}.png" for name in dict.fromkeys(names)}
    if len(set(places.values())) < len(places):
        raise UsageError(f"two of the pictures have the same name, so one result would replace the other in {folder}")
    for name, place in places.items():
        if place.resolve() == Path(name).resolve():
            raise UsageError(f"the result would replace {name}; name another folder with --save")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder} cannot be made ({error.strerror}); choose another place") from error
    return places
