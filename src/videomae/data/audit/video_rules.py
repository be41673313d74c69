"""What can be wrong with a single video: one entry of `_RULES` each, and its length beside that of a clip."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from videomae.data.audit.findings import ERROR, NOTE, WARNING, Finding, Item
from videomae.data.audit.inspect import VideoFacts
from videomae.data.manifest import Manifest, Sample
from videomae.video.damage import reading_notes

# Where the boundaries lie that no standard gives.
MISSING_FRACTION, MISSING_SECONDS = 0.01, 0.5  # of the frames, or of the time, that a header may promise too much
EMPTY_FRACTION = 0.9  # of the frames of a video that is called black, plain or still
STILL_SECONDS = 0.5  # in less time, little moves anywhere
SMALL_SIDE = 112  # pixels, half of what the published models take
ELONGATED = 3.0  # long over short side: a centre crop shows a third of the picture


@dataclass(frozen=True)
class _Rule:
    """A finding about single videos: ``detail`` tells what was measured, or None where all is well."""

    kind: str
    severity: str
    title: str
    advice: str
    detail: Callable[[VideoFacts], str | None]


def _has_problem(name: str) -> Callable[[VideoFacts], str | None]:
    return lambda video: (video.reason or name) if video.problem == name else None


def _truncated(video: VideoFacts) -> str | None:
    stated, seconds = video.stated_frames or 0, video.stated_duration or 0.0
    if video.damage:
        return None
    if stated - video.num_frames > max(2, MISSING_FRACTION * stated):
        return f"the header states {stated} frames, {video.num_frames} decode"
    seconds -= sum(end - start for start, end in video.gaps)
    if seconds - video.duration > MISSING_SECONDS + 0.1 * seconds:  # the time of a container may be that of its sound
        return f"the header states {seconds:.2f} s, {video.duration:.2f} s decode"
    return None


def _damaged(video: VideoFacts) -> str | None:
    if not video.damage:
        return None
    return f"{video.num_frames} of {video.stated_frames or '?'} frames; it {'; '.join(reading_notes(video.damage))}"


def _gaps(video: VideoFacts) -> str | None:
    return "; ".join(f"nothing from {start:.2f} s to {end:.2f} s" for start, end in video.gaps) or None


def _elongated(video: VideoFacts) -> str | None:
    shown = video.width * video.pixel_aspect
    ratio = max(shown, video.height) / min(shown, video.height)
    return f"{video.width}x{video.height}" if ratio >= ELONGATED else None


_PROBLEMS = (
    _Rule(
        "missing",
        ERROR,
        "Files that are not there",
        "Correct the paths or the folder that they are relative to, or remove the lines from the manifest.",
        _has_problem("missing"),
    ),
    _Rule(
        "empty",
        ERROR,
        "Files of 0 bytes",
        "Copy or download them again, or remove them.",
        _has_problem("empty"),
    ),
    _Rule(
        "no-video",
        ERROR,
        "Files without a picture, such as sound only",
        "Remove them: there is nothing to train on.",
        _has_problem("no-video"),
    ),
    _Rule(
        "unreadable",
        ERROR,
        "Files of which no frame can be read",
        "Copy or download them again, or remove them. Training skips them, and stops if they are too many.",
        _has_problem("unreadable"),
    ),
    _Rule(
        "crashed",
        ERROR,
        "Files that crash the decoder",
        "Remove or re-encode them: in training they would end a worker of the loader.",
        _has_problem("crashed"),
    ),
    _Rule(
        "timed-out",
        ERROR,
        "Files that take too long to read",
        "Cut or re-encode them, or give a larger --timeout if they are just very long.",
        _has_problem("timed-out"),
    ),
)
_RULES = (
    _Rule(
        "damaged",
        ERROR,
        "Videos that do not decode whole",
        "Copy or download them again. Clips that touch the damage fail, and training then skips the video; `videomae "
        "prepare` leaves it out. With --on-error skip both go on behind it.",
        _damaged,
    ),
    _Rule(
        "other-sizes",
        WARNING,
        "Videos whose pictures change their size",
        "All are scaled to the first size. Re-encode those where the shape changes as well.",
        lambda video: (
            f"{video.width}x{video.height}, then {', '.join(video.other_sizes)}" if video.other_sizes else None
        ),
    ),
    _Rule(
        "several-streams",
        NOTE,
        "Files with several videos",
        "One is read: what moves, the default one, what FFmpeg calls best. Copy another into a file of its own.",
        lambda video: f"{video.streams[0]} is read, not {', '.join(video.streams[1:])}" if video.streams else None,
    ),
    _Rule(
        "gaps",
        WARNING,
        "Videos whose clock jumps",
        "Nothing is shown in the gap: no window or event of `predict --window` lies in it, but a clip of a few frames "
        "may reach across it. Cut the videos there if that matters.",
        _gaps,
    ),
    _Rule(
        "no-times",
        WARNING,
        "Videos that hold no times",
        "A frame rate is assumed, so seconds may be wrong. Put them into a container at their true rate, such as .mp4.",
        lambda video: f"{video.assumed_fps:g} frames per second are assumed" if video.assumed_fps else None,
    ),
    _Rule(
        "truncated",
        WARNING,
        "Videos shorter than their header states",
        "They were probably cut off in copying: download them again. What decodes can be used.",
        _truncated,
    ),
    _Rule(
        "patched",
        WARNING,
        "Videos with frames that the decoder had to patch",
        "Look at them; copy or download them again if they show blocks or smears.",
        lambda video: f"{video.corrupt_frames} of {video.num_frames} frames" if video.corrupt_frames else None,
    ),
    _Rule(
        "black",
        WARNING,
        "Black videos",
        "Remove them, or cut the black part off with the columns start and end.",
        lambda video: f"{video.black_fraction:.0%} of the frames" if video.black_fraction >= EMPTY_FRACTION else None,
    ),
    _Rule(
        "plain",
        WARNING,
        "Videos of one colour",
        "Remove them: there is nothing to see.",
        lambda video: (
            f"{video.blank_fraction:.0%} of the frames"
            if video.blank_fraction >= EMPTY_FRACTION > video.black_fraction
            else None
        ),
    ),
    _Rule(
        "frozen",
        WARNING,
        "Videos in which nothing moves",
        "Look at them: a still picture teaches nothing about motion. Remove them unless stillness is the class.",
        lambda video: (
            f"{video.still_fraction:.0%} of {video.duration:.1f} s"
            if video.still_fraction >= EMPTY_FRACTION > video.blank_fraction and video.duration >= STILL_SECONDS
            else None
        ),
    ),
    _Rule(
        "small",
        WARNING,
        f"Videos with a side below {SMALL_SIDE} pixels",
        "They are scaled up to the size of the model. Get them in a higher resolution, or train a model for smaller "
        "frames.",
        lambda video: f"{video.width}x{video.height}" if min(video.width, video.height) < SMALL_SIDE else None,
    ),
    _Rule(
        "elongated",
        WARNING,
        f"Videos at least {ELONGATED:g} times as long as wide",
        "A centre crop loses most of the picture. Crop them to what matters, or test with several crops.",
        _elongated,
    ),
    _Rule(
        "unordered",
        WARNING,
        "Videos with missing or disordered time stamps",
        "Frames come out right, but each clip decodes the file from its start: `videomae prepare` makes them fast.",
        lambda video: None if video.is_ordered else "the stamps of the frames do not rise",
    ),
    _Rule(
        "variable-rate",
        NOTE,
        "Videos with a variable frame rate",
        "A stride counts frames, so clips last differently long. `videomae prepare --max-fps` makes the rate constant.",
        lambda video: f"{video.fps:.4g} fps on average" if video.is_variable_rate else None,
    ),
    _Rule(
        "no-duration",
        NOTE,
        "Videos whose header states no length",
        "Nothing to do: frames are counted here. Other tools may refuse them.",
        lambda video: None if video.stated_duration or video.stated_frames else f"{video.duration:.2f} s decode",
    ),
    _Rule(
        "anamorphic",
        NOTE,
        "Videos with pixels that are not square",
        "Nothing to do: frames are scaled to square pixels. Published recipes and protocols see the stored ones.",
        lambda video: f"pixels {video.pixel_aspect:.3g}:1" if abs(video.pixel_aspect - 1) > 0.01 else None,
    ),
    _Rule(
        "rotated",
        NOTE,
        "Videos that ask to be turned",
        "Nothing to do: frames are turned upright here. Other tools may show them on their side.",
        lambda video: f"{video.rotation} degrees clockwise" if video.rotation else None,
    ),
    _Rule(
        "deep-colour",
        NOTE,
        "Videos with more than 8 bits a colour",
        "Nothing to do: they are read as 8 bits. HDR looks flat then.",
        lambda video: f"{video.pixel_format}, {video.bits} bits" if video.bits > 8 else None,
    ),
    _Rule(
        "alpha",
        NOTE,
        "Videos with transparency",
        "It is ignored: what lies under transparent places shows. Flatten them onto a background if that looks wrong.",
        lambda video: video.pixel_format if video.has_alpha else None,
    ),
)


def video_findings(manifest: Manifest, facts: Mapping[Path, VideoFacts]) -> Iterator[Finding]:
    """Apply the rules to every video."""
    items: dict[str, dict[str, Item]] = defaultdict(dict)
    strict = {sample.path for sample in manifest if sample.on_error in (None, "raise")}
    for sample in manifest:
        video = facts[sample.file]
        for rule in _PROBLEMS if video.problem else _RULES:
            detail = rule.detail(video)
            if detail is not None:
                items[rule.kind][sample.path] = Item((sample.path,), detail)
    for rule in (*_PROBLEMS, *_RULES):
        if rule.kind in items:
            found = tuple(items[rule.kind].values())
            is_skipped = rule.kind == "damaged" and not strict & items[rule.kind].keys()
            yield Finding(rule.kind, WARNING if is_skipped else rule.severity, rule.title, rule.advice, found)


def short_videos(
    manifest: Manifest, facts: Mapping[Path, VideoFacts], *, clip_frames: int, stride: float
) -> Iterator[Finding]:
    """Find stretches without a frame, and videos that are too short for a clip."""
    span = clip_frames * stride
    readable = [(sample, facts[sample.file]) for sample in manifest if not facts[sample.file].problem]
    reasons = ((sample, why_unreadable(sample, video)) for sample, video in readable)
    if outside := tuple(Item((sample.path,), why) for sample, why in reasons if why):
        title, advice = "Stretches of time without a frame", "Correct start and end: training skips them as unreadable."
        yield Finding("no-frames", ERROR, title, advice, outside)
    if beyond := tuple(Item((sample.path,), why) for sample, video in readable if (why := _beyond(sample, video))):
        title, advice = (
            "Stretches that reach beyond their video",
            "Correct start and end: the part that is there is used.",
        )
        yield Finding("beyond-the-end", WARNING, title, advice, beyond)
    lengths = {sample: _num_frames(sample, video) for sample, video in readable}
    short = [Item((sample.path,), f"{count} frames") for sample, count in lengths.items() if 0 < count < span]
    if short:
        fitting = int(np.percentile(list(lengths.values()), 5) // clip_frames)
        hint = f" A stride of {fitting} fits 95 % of the videos." if 1 <= fitting < stride else ""
        advice = f"The last frame is repeated to fill a clip.{hint} Leave out videos that are mostly repetition."
        title = f"Videos too short for a clip of {clip_frames} frames, every {stride:g}"
        yield Finding("short", WARNING, title, advice, tuple(short))


def _beyond(sample: Sample, video: VideoFacts) -> str | None:
    """Tell of a stretch that begins before the first frame, or ends after the last, by more than a frame."""
    if (sample.start is None and sample.end is None) or why_unreadable(sample, video):
        return None
    frame = 1 / video.fps
    first, end = float(video.times[0]), float(video.times[-1]) + frame
    is_early = sample.start is not None and sample.start < first - 1.5 * frame
    is_late = sample.end is not None and sample.end > end + 1.5 * frame
    return f"{sample.name}: it runs from {first:.2f} s to {end:.2f} s" if is_early or is_late else None


def _num_frames(sample: Sample, video: VideoFacts) -> int:
    if sample.start is None and sample.end is None:
        return video.num_frames
    return len(sample.frames_of(video.times))


def why_unreadable(sample: Sample, video: VideoFacts) -> str | None:
    """Return why no frame of a sample can be read, or None if some can."""
    if video.problem:
        return video.reason or ""
    return None if _num_frames(sample, video) else sample.nothing_between(video.times)
