"""Re-encode videos to small ordinary files that are fast to read from at random places.

Every file carries, as its comment, what it was made with and from. So a second run knows what is done, and there is no
list beside the videos that could contradict them.
"""

import contextlib
import dataclasses
import itertools
import json
import logging
import multiprocessing
import os
import re
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, get_args

import av
import numpy as np

from videomae.data.manifest import Manifest, read_manifest
from videomae.data.unreadable import UNREADABLE_NAME, write_unreadable
from videomae.errors import DataError, VideoError
from videomae.files import atomic_write
from videomae.video.backends.pyav import moving_pictures
from videomae.video.reader import TIME_TOLERANCE, VideoReader

CLOCK = 120_000  # ticks per second; a frame lasts a whole number of them at all usual rates, 24000/1001 too
CHUNK = 32  # frames held in memory
# Without deblocking, arithmetic coding and weighted prediction a decoder needs less than half the time. Seven of eight
# frames are such that no other refers to them: a reader of every fourth frame skips most of these.
FAST_TO_DECODE = {"tune": "fastdecode", "bf": "7", "b_strategy": "0", "b-pyramid": "none"}
MARK = "videomae_prepare"  # in the comment of a file: it was made here, and by which version of this format
SAMPLED_FILES, SAMPLED_FRAMES = 8, 96
COMPARED_FRAMES = 8
MIN_PSNR = 20.0  # dB; even poor encodings lie above, other pictures far below
LEFTOVER = re.compile(r"\.[0-9a-f]{12}\..+\.mp4")  # as `atomic_write` names what it has not finished

log = logging.getLogger(__name__)

Preset = Literal["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"]
Progress = Callable[[int], object]


@dataclasses.dataclass(frozen=True)
class Encoding:
    """How the files are encoded."""

    short_side: int = 256
    """Pixels of the shorter side; smaller videos keep their size."""

    max_fps: float | None = None
    """Frames per second, at most; by default those of the source. A clip's stride then counts the frames kept."""

    key_frame_distance: int = 33
    """Frames from one key frame to the next, at most. Fewer make larger files, but reading hardly faster; best is one
    more than a multiple of 8."""

    crf: int = 23
    """Quality, x264's constant rate factor: 0 is the best, 51 the worst."""

    preset: Preset = "medium"
    """Of x264: slower ones take longer to make smaller files."""

    def __post_init__(self) -> None:
        if self.short_side < 2 or self.key_frame_distance < 1 or not 0 <= self.crf <= 51:
            raise ValueError(f"short_side must be 2 or more, key_frame_distance 1 or more, crf 0 to 51, got {self}.")
        if self.max_fps is not None and self.max_fps <= 0:
            raise ValueError(f"max_fps must be above 0, got {self.max_fps}. Leave it out to keep all frames.")
        if self.preset not in get_args(Preset):
            raise ValueError(f"preset must be one of {get_args(Preset)}, got {self.preset!r}.")


@dataclasses.dataclass(frozen=True)
class Job:
    """One file to make.

    Attributes:
        path: the source as the manifest names it.
        source: where the source lies.
        target: where its small version belongs.
        encoding: how to encode it.
        is_done: it is there already, made from this source with these settings.
    """

    path: str
    source: Path
    target: Path
    encoding: Encoding
    is_done: bool = False

    def fingerprint(self) -> dict[str, Any]:
        """Return what the file is made with and from, as far as that changes it, and as far as the source is there."""
        about = {MARK: 2, **dataclasses.asdict(self.encoding)}
        if not self.source.is_file():  # removed after it was prepared
            return about
        status = self.source.stat()
        return about | {"source_bytes": status.st_size, "source_modified_ns": status.st_mtime_ns}


@dataclasses.dataclass(frozen=True)
class Plan:
    """What there is to do for a data set.

    Attributes:
        manifest: the data set as it will be, of the prepared files.
        jobs: one for each source file, in the order of the manifest.
    """

    manifest: Manifest
    jobs: tuple[Job, ...]

    @property
    def out(self) -> Path:
        """Folder of the prepared files."""
        return self.manifest.root

    @property
    def todo(self) -> list[Job]:
        """The files still to be made."""
        return [job for job in self.jobs if not job.is_done]


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What the files still to be made will take.

    Attributes:
        files: number of files that this is calculated from; 0 if none could be encoded.
        source_bytes: size of all sources.
        target_bytes: size of all files to be.
        seconds: time for all with the given number of processes.
    """

    files: int
    source_bytes: int
    target_bytes: int
    seconds: float


@dataclasses.dataclass(frozen=True)
class Report:
    """What a run did.

    Attributes:
        made: number of files encoded, or encoded anew.
        kept: number of files that were there already.
        unreadable: path of each source that could not be prepared, and the reason.
        psnr: path of each source that was verified, and the likeness of its file in dB: of the frames looked at, the
            worst.
    """

    made: int
    kept: int
    unreadable: dict[str, str]
    psnr: dict[str, float]


def prepare(
    data: str | Path,
    out: str | Path,
    *,
    encoding: Encoding | None = None,
    format: str = "auto",
    videos: str | Path | None = None,
    fold: int = 1,
    redo: bool = False,
    verify: bool = False,
    workers: int | None = None,
    progress: Progress = lambda count: None,
) -> Report:
    """Make a small version of a data set: the same videos, labels, splits and times, as H.264 in .mp4.

    Frames are turned upright, their pixels made square and their sides even; sound is dropped. Frames keep their times,
    so the ``start`` and ``end`` of a manifest hold as they are. Files appear whole or not at all, and a run that was
    killed goes on where it stopped. Only one run at a time may write to a folder.

    Processes are spawned: a script calls this below ``if __name__ == "__main__":``.

    Args:
        data: folder, manifest or list; as for `read_manifest`.
        out: folder to write to. Files lie in it as they do in ``data``; ``manifest.csv`` names them, with all columns;
            ``unreadable.csv`` names the videos that are left out, if any.
        encoding: how to encode; the defaults if None.
        format: of ``data``; as for `read_manifest`.
        videos: folder of the videos; as for `read_manifest`.
        fold: of UCF101 and HMDB51; as for `read_manifest`.
        redo: make those files anew that were made with other settings or from other sources.
        verify: compare all files, those of earlier runs too, with their sources: the number and times of the frames,
            and some of the pictures. A file of an earlier run that differs is made anew.
        workers: number of processes; one per processor if None.
        progress: called with 1 after each file.

    Raises:
        DataError: if ``data`` cannot be used, or ``out`` holds files that may not be replaced.
    """
    planned = plan(data, out, encoding=encoding, format=format, videos=videos, fold=fold, redo=redo)
    return run(planned, verify=verify, workers=workers, progress=progress)


def plan(
    data: str | Path,
    out: str | Path,
    *,
    encoding: Encoding | None = None,
    format: str = "auto",
    videos: str | Path | None = None,
    fold: int = 1,
    redo: bool = False,
) -> Plan:
    """Find out what there is to do, without doing it; arguments and errors as for `prepare`."""
    manifest, out = read_manifest(data, format=format, videos=videos, fold=fold), Path(os.path.abspath(out))
    if Path(data).is_dir() and out.is_relative_to(os.path.abspath(data)):
        raise DataError(f"{out} lies in {data}, where it would be taken for data. Name a folder outside.")
    if os.path.abspath(data) in (str(out / "manifest.csv"), str(out / UNREADABLE_NAME)):
        raise DataError(f"{data} would be replaced by the list of the prepared videos. Name another folder than {out}.")
    sources = {_location(sample.file): sample.path for sample in manifest}
    targets = _targets(list(sources), Path(os.path.abspath(manifest.root)), out)
    jobs = [Job(sources[source], source, target, encoding or Encoding()) for source, target in targets.items()]
    samples = [
        dataclasses.replace(sample, path=file.relative_to(out).as_posix(), file=file)
        for sample in manifest
        for file in [targets[_location(sample.file)]]
    ]
    return Plan(Manifest(tuple(samples), manifest.classes, out), tuple(_look_up(jobs, redo=redo)))


def estimate(plan: Plan, *, workers: int | None = None) -> Estimate:
    """Encode some frames of some files, and calculate what all will take.

    A file's chance to be tried is that of its share of all bytes, so what comes of a byte is the mean of those tried.

    Args:
        plan: what there is to do.
        workers: number of processes; one per processor if None.
    """
    jobs = sorted((job.source.stat().st_size, job.path, job) for job in plan.todo if job.source.is_file())
    ends = np.cumsum([size for size, _, _ in jobs])
    total = int(ends[-1]) if jobs else 0
    places = np.unique(np.searchsorted(ends, (np.arange(SAMPLED_FILES) + 0.5) / SAMPLED_FILES * total))
    with _pool(workers) as pool:
        tried = [result for result in pool.map(_try, [jobs[place][2] for place in places if jobs]) if result]
    if not tried:
        return Estimate(0, total, 0, 0.0)
    bytes_per_byte, seconds_per_byte = np.mean(tried, axis=0).tolist()
    seconds = seconds_per_byte * total / min(_count(workers), len(jobs))
    return Estimate(len(tried), total, round(bytes_per_byte * total), seconds)


def run(
    plan: Plan, *, verify: bool = False, workers: int | None = None, progress: Progress = lambda count: None
) -> Report:
    """Do what is planned; arguments as for `prepare`."""
    for file in plan.out.rglob(".*.mp4"):
        if LEFTOVER.fullmatch(file.name):
            file.unlink()
    unreadable: dict[str, str] = {}
    psnr: dict[str, float] = {}
    remade = 0
    with _pool(workers) as pool:
        futures = {pool.submit(_work, job, verify=verify): job for job in (plan.jobs if verify else plan.todo)}
        for future in as_completed(futures):
            job = futures[future]
            try:
                was_made, likeness = future.result()
            except VideoError as error:
                unreadable[job.path] = str(error)
            else:
                remade += was_made and job.is_done
                if likeness is not None:
                    psnr[job.path] = likeness
            progress(1)
    left_out = {job.target for job in plan.jobs if job.path in unreadable}
    samples = tuple(sample for sample in plan.manifest if sample.file not in left_out)
    _keep_other_list(plan.out, {sample.path for sample in samples})
    dataclasses.replace(plan.manifest, samples=samples).to_csv(plan.out / "manifest.csv")
    write_unreadable(plan.out / UNREADABLE_NAME, sorted(unreadable.items()))
    kept = sum(job.is_done and job.path not in unreadable for job in plan.jobs) - remade
    return Report(len(plan.jobs) - len(unreadable) - kept, kept, unreadable, psnr)


def _keep_other_list(out: Path, paths: set[str]) -> None:
    """Move a list aside that names videos which the new one does not, such as those of another split."""
    old = out / "manifest.csv"
    if not old.exists() or {sample.path for sample in read_manifest(old)} <= paths:
        return
    number = next(n for n in itertools.count(1) if not (out / f"manifest-{n}.csv").exists())
    old.rename(out / f"manifest-{number}.csv")
    log.warning("%s names other videos than this run's: it is kept as manifest-%d.csv", old, number)


# ------------------------------------------------------------------------------------------- what lies where


def _location(file: Path) -> Path:
    return Path(os.path.abspath(file))


def _targets(sources: list[Path], root: Path, out: Path) -> dict[Path, Path]:
    """Give every source its place below ``out``: as below the root, or below what all have in common."""
    if not all(source.is_relative_to(root) for source in sources):
        root = Path(os.path.commonpath([source.parent for source in sources]))
    inner = [source.relative_to(root) for source in sources]
    names = [name.with_suffix(".mp4") for name in inner]
    count = Counter(str(name).lower() for name in names)
    for i, name in enumerate(inner):  # where only the endings tell some apart, all but an .mp4 keep theirs
        if count[str(names[i]).lower()] > 1 and name.suffix != ".mp4":
            names[i] = name.with_name(f"{name.name}.mp4")
    return {source: out / name for source, name in zip(sources, names, strict=True)}


def _look_up(jobs: list[Job], *, redo: bool) -> Iterator[Job]:
    """Mark what is done, and refuse to replace what was made otherwise."""
    changed: dict[Path, str] = {}
    for job in jobs:
        if not job.target.exists():
            yield job
            continue
        found, now = _fingerprint_of(job.target), job.fingerprint()
        if found is None:
            raise DataError(f"{job.target} exists, and was not made by `prepare`. Name another folder, or remove it.")
        differing = [f"{name} {found.get(name)}, now {now[name]}" for name in now if found.get(name) != now[name]]
        if differing:
            changed[job.target] = "; ".join(differing)
        yield dataclasses.replace(job, is_done=not differing)
    if gone := sum(job.target.exists() and not job.source.is_file() for job in jobs):
        log.warning("%d sources are gone: what was made of them before is kept", gone)
    if changed and not redo:
        file, difference = next(iter(changed.items()))
        raise DataError(
            f"{len(changed)} of {len(jobs)} files were made with other settings or from other sources, such as {file} "
            f"({difference}). Name another folder, or make these anew with redo."
        )


def _fingerprint_of(file: Path) -> dict[str, Any] | None:
    """Read from a file's comment what it was made with and from; None if it was not made here."""
    try:
        with av.open(str(file), metadata_errors="replace") as container:
            found = json.loads(container.metadata.get("comment", ""))
    except (av.FFmpegError, json.JSONDecodeError):
        return None
    return found if isinstance(found, dict) and MARK in found else None


# ------------------------------------------------------------------------------------------- in the processes


def _count(workers: int | None) -> int:
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}. Leave it out for one per processor.")
    return workers or os.cpu_count() or 1


@contextlib.contextmanager
def _pool(workers: int | None) -> Iterator[ProcessPoolExecutor]:
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(_count(workers), mp_context=context, initializer=_start_worker)
    try:
        yield pool
    except BrokenProcessPool as error:
        raise DataError(
            "a process that encoded videos was ended from outside, or by a fault in FFmpeg. Run again to go on; with "
            "one worker, the first file that is missing then is the one."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    """Let this process end with its parent, however that ends."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _try(job: Job) -> tuple[float, float] | None:
    """Encode frames from the middle; return the bytes and the seconds that a byte of the source costs."""
    with tempfile.TemporaryDirectory() as folder:
        file, begin = Path(folder) / "sample.mp4", time.perf_counter()
        try:
            made, total = _encode(job, file, max_frames=SAMPLED_FRAMES)
        except VideoError:
            return None
        source_bytes = job.source.stat().st_size * made / total
        return file.stat().st_size / source_bytes, (time.perf_counter() - begin) / source_bytes


def _work(job: Job, *, verify: bool) -> tuple[bool, float | None]:
    """Make and verify a file; return whether it had to be made, and its likeness to the source if verified."""
    if job.is_done:
        if not verify:
            return False, None
        with contextlib.suppress(VideoError):
            return False, _compare(job, job.target) if job.source.is_file() else None
        job.target.unlink()  # or a next run would take it for good, should this one fail
    with atomic_write(job.target) as temporary:
        _encode(job, temporary)
        return True, _compare(job, temporary) if verify else None


def _encode(job: Job, file: Path, *, max_frames: int | None = None) -> tuple[int, int]:
    """Encode a source, or frames from its middle; return how many frames these were, and how many there are."""
    with (
        VideoReader(job.source, threads=1) as reader,
        av.open(str(file), "w", options={"movflags": "faststart"}) as out,
    ):
        ranks, stamps = _schedule(reader, job.encoding)
        size = _size(reader, job)
        out.metadata["comment"] = json.dumps(job.fingerprint())
        rate = Fraction(min(reader.fps, job.encoding.max_fps or reader.fps)).limit_denominator(1001)
        options = {
            "crf": str(job.encoding.crf),
            "preset": job.encoding.preset,
            "g": str(job.encoding.key_frame_distance),
        }
        stream = out.add_stream("libx264", rate=rate, options=options | FAST_TO_DECODE)
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, CLOCK)
        stream.codec_context.thread_count = 1  # files are encoded side by side
        total = len(ranks) if max_frames is None else min(max_frames, len(ranks))
        first = (len(ranks) - total) // 2
        for begin in range(first, first + total, CHUNK):
            chunk = slice(begin, min(begin + CHUNK, first + total))
            for image, stamp in zip(reader.frames_at(ranks[chunk]), stamps[chunk].tolist(), strict=True):
                frame = _resized(image, size, "yuv420p")
                frame.pts, frame.time_base = stamp, Fraction(1, CLOCK)
                out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return total, len(ranks)


def copy_file(source: Path, target: Path, encoding: Encoding, *, max_frames: int | None = None) -> int:
    """Make a small version of one file, in this process; return the number of its frames.

    Args:
        source: the file.
        target: the file to be.
        encoding: how to encode it.
        max_frames: take so many from the middle of a longer source.

    Raises:
        VideoError: if the source cannot be read.
    """
    return _encode(Job(str(source), source, target, encoding), target, max_frames=max_frames)[0]


def _schedule(reader: VideoReader, encoding: Encoding) -> tuple[np.ndarray, np.ndarray]:
    """Choose the frames to keep: their numbers and their stamps on the clock, both (T,) int64 and rising."""
    times, ranks = reader.times, np.arange(len(reader))
    if encoding.max_fps is not None and reader.fps > encoding.max_fps * 1.001:
        span = times[-1] - times[0]
        times = times[0] + np.arange(int(span * encoding.max_fps + TIME_TOLERANCE) + 1) / encoding.max_fps
        shown = np.searchsorted(reader.times, times + TIME_TOLERANCE, side="right") - 1
        ranks, first = np.unique(shown, return_index=True)
        times = times[first]
    stamps = np.rint(times * CLOCK).astype(np.int64)
    order = np.arange(len(stamps))
    return ranks, np.maximum.accumulate(stamps - order) + order - min(stamps[0], 0)  # MP4 begins at 0 or later


def _size(reader: VideoReader, job: Job) -> tuple[int, int]:
    """Return height and width for square pixels, a short side that is not larger than asked for, and even numbers."""
    with av.open(str(job.source), metadata_errors="replace") as container:
        aspect = float(moving_pictures(container)[0].sample_aspect_ratio or 1)
    if reader.rotation in (90, 270):
        aspect = 1 / aspect
    height, width = reader.height / min(aspect, 1), reader.width * max(aspect, 1)
    scale = min(1, job.encoding.short_side / min(height, width))
    height, width = (2 * max(1, int(side * scale / 2 + 1e-6)) for side in (height, width))
    return height, width


def _resized(image: np.ndarray, size: tuple[int, int], pixel_format: str) -> av.VideoFrame:
    """(H, W, 3) uint8 RGB -> a frame of this (height, width) and format."""
    height, width = size
    return av.VideoFrame.from_ndarray(image, format="rgb24").reformat(width, height, pixel_format)


def _compare(job: Job, file: Path) -> float:
    """Compare what was made with its source, and return the PSNR in dB of the worst of some pictures."""
    with VideoReader(job.source, threads=1) as source, VideoReader(file, threads=1) as made:
        ranks, stamps = _schedule(source, job.encoding)
        if len(made) != len(ranks) or np.abs(made.times * CLOCK - stamps).max() > 1:
            raise VideoError(
                f"{job.target} must show {len(ranks)} frames at the times of {job.source}, but has {len(made)}, or at "
                "other times. It was left out; run again, or leave this video out."
            )
        chosen = np.unique(np.linspace(0, len(ranks) - 1, COMPARED_FRAMES).astype(int))
        size = made.height, made.width
        expected = [_resized(image, size, "rgb24").to_ndarray() for image in source.frames_at(ranks[chosen])]
        differences = np.stack(expected).astype(float) - made.frames_at(chosen)
    worst = (differences**2).mean(axis=(1, 2, 3)).max()
    psnr = float(10 * np.log10(255**2 / max(worst, 1e-3)))
    if psnr < MIN_PSNR:
        raise VideoError(
            f"{job.target} must look like {job.source}, but a picture differs ({psnr:.1f} dB, {MIN_PSNR:g} are the "
            "least). It was left out; run again with a lower crf."
        )
    return psnr
