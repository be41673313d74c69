"""Small copies of a whole data set: what there is to make, what it will take, and the processes that make it.

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
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from videomae.console import Progress, no_progress
from videomae.data.formats import MANIFEST_NAME
from videomae.data.manifest import Manifest, read_manifest
from videomae.data.settings import DataSource, read_data
from videomae.data.transcode import Encoding, compare_copy, copy_file
from videomae.data.unreadable import UNREADABLE_NAME, write_unreadable
from videomae.errors import DataError, VideoError
from videomae.files import atomic_write, fitting_name
from videomae.processes import processors, safe_path, working_in
from videomae.video.backends.opening import open_file
from videomae.video.damage import Damage, reading_notes
from videomae.video.limits import ReadLimits

MARK = "videomae_prepare"  # in the comment of a file: it was made here, and by which version of this format
SAMPLED_FILES, SAMPLED_FRAMES = 8, 96
LEFTOVER = re.compile(r"\.[0-9a-f]{12}\..+\.mp4")  # as `atomic_write` names what it has not finished

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class CopyJob:
    """One file to make.

    Attributes:
        path: the source as the manifest names it.
        source: where the source lies.
        reading: how it is read, ``fps`` and ``on_error`` as for `past_damage`.
        target: where its small version belongs.
        encoding: how to encode it.
        is_done: it is there already, made from this source with these settings.
    """

    path: str
    source: Path
    target: Path
    encoding: Encoding
    reading: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    is_done: bool = False

    def fingerprint(self) -> dict[str, Any]:
        """Return what the file is made with and from, as far as that changes it, and as far as the source is there."""
        about = {MARK: 2, **dataclasses.asdict(self.encoding), **self.reading}
        if not os.path.isfile(self.source):  # removed after it was prepared
            return about
        status = self.source.stat()
        return about | {"source_bytes": status.st_size, "source_modified_ns": status.st_mtime_ns}

    def run(self, *, verify: bool) -> "CopyOutcome":
        """Make and verify the file.

        Raises:
            VideoError: if the source cannot be read, or the file cannot be written or differs from it; then there is
            no file.
        """
        if self.is_done:
            if not verify:
                return CopyOutcome(was_made=False)
            with contextlib.suppress(VideoError):
                is_there = os.path.isfile(self.source)
                return CopyOutcome(was_made=False, psnr=self._compare(self.target) if is_there else None)
            self.target.unlink()  # or a next run would take it for good, should this one fail
        if not os.path.isfile(self.source):  # before a folder of its name is made
            raise VideoError(f"{self.source} must be an existing file, but there is none. Check the path.")
        with atomic_write(self.target) as temporary:
            comment = json.dumps(self.fingerprint())
            about: dict[str, Any] = {"comment": comment, "name": self.target, **self._reading}
            damage = copy_file(self.source, temporary, self.encoding, **about).damage
            return CopyOutcome(was_made=True, psnr=self._compare(temporary) if verify else None, damage=damage)

    def _compare(self, copy: Path) -> float:
        return compare_copy(self.source, copy, self.encoding, name=self.target, **self._reading)

    @property
    def _reading(self) -> dict[str, Any]:
        return {name: value for name, value in self.reading.items() if value is not None}


class CopyOutcome(NamedTuple):
    """What a job did.

    Attributes:
        was_made: whether the file had to be made.
        psnr: its likeness in dB, if it was verified.
        damage: stretches of the source that did not decode, and were skipped.
    """

    was_made: bool
    psnr: float | None = None
    damage: Sequence[Damage] = ()


@dataclasses.dataclass(frozen=True)
class CopyPlan:
    """What there is to do for a data set.

    Attributes:
        manifest: the data set as it will be, of the prepared files.
        jobs: one for each source file, in the order of the manifest.
    """

    manifest: Manifest
    jobs: tuple[CopyJob, ...]

    @property
    def out(self) -> Path:
        """Folder of the prepared files."""
        return self.manifest.root

    @property
    def todo(self) -> list[CopyJob]:
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
class CopyReport:
    """What a run did.

    Attributes:
        made: number of files encoded, or encoded anew.
        kept: number of files that were there already.
        unreadable: path of each source that could not be prepared, and the reason.
        psnr: path of each source that was verified, and the likeness of its file in dB: of the frames looked at, the
            worst.
        damaged: path of each source that was read past its damage, and what was skipped, in words.
    """

    made: int
    kept: int
    unreadable: dict[str, str]
    psnr: dict[str, float]
    damaged: dict[str, list[str]] = dataclasses.field(default_factory=dict)


def prepare(
    data: DataSource,
    out: str | Path,
    *,
    encoding: Encoding | None = None,
    redo: bool = False,
    verify: bool = False,
    workers: int | None = None,
    progress: Progress = no_progress,
) -> CopyReport:
    """Make a small version of a data set: the same videos, labels, splits and times, as H.264 in .mp4.

    Frames are turned upright, their pixels made square and their sides even; sound is dropped. Frames keep their times,
    so the ``start`` and ``end`` of a manifest hold as they are. Files appear whole or not at all, and a run that was
    killed goes on where it stopped. Only one run at a time
    writes to a folder.

    Processes are spawned: a script calls this below ``if __name__ == "__main__":``.

    Args:
        data: folder, manifest or list.
        out: folder to write to. Files lie in it as they do in ``data``; ``manifest.csv`` names them, with all columns;
            ``unreadable.csv`` names the videos that are left out, if any.
        encoding: how to encode; the defaults if None.
        redo: make those files anew that were made with other settings or from other sources.
        verify: compare all files, those of earlier runs too, with their sources: the number and times of the frames,
            and some of the pictures. A file of an earlier run that differs is made anew.
        workers: number of processes; one per processor if None.
        progress: called after each file.

    Raises:
        DataError: if ``data`` cannot be used, or ``out`` holds files that may not be replaced.
    """
    return run(plan(data, out, encoding=encoding, redo=redo), verify=verify, workers=workers, progress=progress)


def plan(data: DataSource, out: str | Path, *, encoding: Encoding | None = None, redo: bool = False) -> CopyPlan:
    """Find out what there is to do, without doing it; arguments and errors as for `prepare`."""
    manifest, path = read_data(data)
    out = Path(os.path.abspath(out))
    place = Path(os.path.abspath(path or manifest.root / MANIFEST_NAME))
    if place.is_dir() and out.is_relative_to(place):
        raise DataError(f"{out} lies in {path}, where it would be taken for data. Name a folder outside.")
    if place in (out / MANIFEST_NAME, out / UNREADABLE_NAME):
        raise DataError(
            f"{place} would be replaced by the list of the prepared videos. Name another folder than {out}."
        )
    sources = {_location(sample.file): sample for sample in manifest}
    targets = _targets(list(sources), Path(os.path.abspath(manifest.root)), out)
    jobs = [
        CopyJob(
            sources[source].path,
            source,
            target,
            encoding or Encoding(),
            reading={"fps": sources[source].fps, "on_error": sources[source].on_error},
        )
        for source, target in targets.items()
    ]
    samples = [
        dataclasses.replace(sample, path=file.relative_to(out).as_posix(), file=file, fps=None, on_error=None)
        for sample in manifest
        for file in [targets[_location(sample.file)]]
    ]
    return CopyPlan(Manifest(tuple(samples), manifest.classes, out), tuple(_look_up(jobs, redo=redo)))


def estimate(plan: CopyPlan, *, workers: int | None = None) -> Estimate:
    """Encode some frames of some files, and calculate what all will take.

    The larger a file, the likelier it is tried, so what becomes of a byte is the mean of those tried.

    Args:
        plan: what there is to do.
        workers: number of processes; one per processor if None.
    """
    jobs = sorted((job.source.stat().st_size, job.path, job) for job in plan.todo if os.path.isfile(job.source))
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
    plan: CopyPlan, *, verify: bool = False, workers: int | None = None, progress: Progress = no_progress
) -> CopyReport:
    """Do what is planned; arguments as for `prepare`."""
    with working_in(plan.out):
        return _run(plan, verify=verify, workers=workers, progress=progress)


def _run(plan: CopyPlan, *, verify: bool, workers: int | None, progress: Progress) -> CopyReport:
    for file in plan.out.rglob(".*.mp4"):
        if LEFTOVER.fullmatch(file.name):
            file.unlink()
    unreadable: dict[str, str] = {}
    psnr: dict[str, float] = {}
    damaged: dict[str, list[str]] = {}
    remade = 0
    with _pool(workers) as pool:
        futures = {pool.submit(job.run, verify=verify): job for job in (plan.jobs if verify else plan.todo)}
        for done, future in enumerate(as_completed(futures), start=1):
            job = futures[future]
            try:
                outcome = future.result()
            except VideoError as error:
                unreadable[job.path] = str(error)
            else:
                remade += outcome.was_made and job.is_done
                if outcome.psnr is not None:
                    psnr[job.path] = outcome.psnr
                if outcome.damage:
                    damaged[job.path] = reading_notes(outcome.damage)
            progress(done, len(futures))
    left_out = {job.target for job in plan.jobs if job.path in unreadable}
    samples = tuple(sample for sample in plan.manifest if sample.file not in left_out)
    _keep_other_list(plan.out, {sample.path for sample in samples})
    dataclasses.replace(plan.manifest, samples=samples).to_csv(plan.out / MANIFEST_NAME)
    write_unreadable(plan.out / UNREADABLE_NAME, sorted(unreadable.items()))
    kept = sum(job.is_done and job.path not in unreadable for job in plan.jobs) - remade
    return CopyReport(len(plan.jobs) - len(unreadable) - kept, kept, unreadable, psnr, damaged)


def _keep_other_list(out: Path, paths: set[str]) -> None:
    """Move a list aside that names videos which the new one does not, such as those of another split."""
    old = out / MANIFEST_NAME
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
    names = [name.with_name(fitting_name(name.stem, ".mp4")) for name in inner]
    count = Counter(str(name).lower() for name in names)
    for i, name in enumerate(inner):  # where only the endings tell some apart, all but an .mp4 keep theirs
        if count[str(names[i]).lower()] > 1 and name.suffix != ".mp4":
            names[i] = name.with_name(fitting_name(name.name, ".mp4"))
    return {source: out / name for source, name in zip(sources, names, strict=True)}


def _look_up(jobs: list[CopyJob], *, redo: bool) -> Iterator[CopyJob]:
    """Mark what is done, and refuse to replace what was made otherwise."""
    changed: dict[Path, str] = {}
    for job in jobs:
        if not os.path.exists(job.target):
            yield job
            continue
        found, now = _fingerprint_of(job.target), job.fingerprint()
        if found is None:
            raise DataError(f"{job.target} exists, and was not made by `prepare`. Name another folder, or remove it.")
        differing = [f"{name} {found.get(name)}, now {now[name]}" for name in now if found.get(name) != now[name]]
        if differing:
            changed[job.target] = "; ".join(differing)
        yield dataclasses.replace(job, is_done=not differing)
    if gone := sum(os.path.exists(job.target) and not os.path.isfile(job.source) for job in jobs):
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
        with open_file(str(file), str(file), ReadLimits.from_environment()) as container:
            found = json.loads(container.metadata.get("comment", ""))
    except (VideoError, json.JSONDecodeError):
        return None
    return found if isinstance(found, dict) and MARK in found else None


# ------------------------------------------------------------------------------------------- in the processes


def _count(workers: int | None) -> int:
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}. Leave it out for one per processor.")
    return workers or processors()


@contextlib.contextmanager
def _pool(workers: int | None) -> Iterator[ProcessPoolExecutor]:
    context = multiprocessing.get_context("spawn")
    with safe_path():  # it starts its processes when there is work for them
        pool = ProcessPoolExecutor(_count(workers), mp_context=context, initializer=_start_worker)
        try:
            yield pool
        except BrokenProcessPool as error:
            raise DataError(
                "a process that encoded videos was ended from outside, or by a fault in FFmpeg. Run again to go on; "
                "with one worker, the first file that is missing then is the one."
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


def _try(job: CopyJob) -> tuple[float, float] | None:
    """Encode frames from the middle; return the bytes and the seconds that a byte of the source costs."""
    with tempfile.TemporaryDirectory() as folder:
        file, begin = Path(folder) / "sample.mp4", time.perf_counter()
        try:
            made, total, _ = copy_file(job.source, file, job.encoding, max_frames=SAMPLED_FRAMES, **job._reading)
        except VideoError:
            return None
        source_bytes = job.source.stat().st_size * made / total
        return file.stat().st_size / source_bytes, (time.perf_counter() - begin) / source_bytes
