"""Re-encode one video to a small ordinary file that is fast to read from at random places, and compare the two."""

import dataclasses
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import av
import numpy as np

from videomae.errors import VideoError
from videomae.video.damage import Damage
from videomae.video.encode import VideoWriter
from videomae.video.reader import TIME_TOLERANCE, VideoReader, past_damage

CLOCK = 120_000  # ticks per second; a frame lasts a whole number of them at all usual rates, 24000/1001 too
# Without deblocking, arithmetic coding and weighted prediction a decoder needs less than half the time. Seven of eight
# frames are such that no other refers to them: a reader of every fourth frame skips most of these.
FAST_TO_DECODE = {"tune": "fastdecode", "bf": "7", "b_strategy": "0", "b-pyramid": "none"}
COMPARED_FRAMES = 8
MIN_PSNR = 20.0  # dB; even poor encodings lie above, other pictures far below

Preset = Literal["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"]


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


class Copied(NamedTuple):
    """What became of a source.

    Attributes:
        frames: that were encoded.
        total: that a whole copy has.
        damage: stretches of the source that did not decode, and were skipped.
    """

    frames: int
    total: int
    damage: list[Damage]


def copy_file(
    source: Path,
    target: Path,
    encoding: Encoding,
    *,
    comment: str | None = None,
    max_frames: int | None = None,
    name: Path | None = None,
    **options: Any,
) -> Copied:
    """Make a small version of one file, in this process.

    Args:
        source: the file.
        target: the file to be.
        encoding: how to encode it.
        comment: kept in it.
        max_frames: take so many from the middle of a longer source.
        name: of the file in an error, where ``target`` is a temporary one.
        options: how the source is read, as for `past_damage`; by default its damage raises.

    Raises:
        VideoError: if the source cannot be read, or the file cannot be written.
    """

    def copy(reader: VideoReader) -> tuple[int, int]:
        ranks, stamps = _schedule(reader, encoding)
        total = len(ranks) if max_frames is None else min(max_frames, len(ranks))
        first = (len(ranks) - total) // 2
        with VideoWriter(
            target,
            size=_size(reader, encoding),
            fps=min(reader.fps, encoding.max_fps or reader.fps),
            crf=encoding.crf,
            clock=CLOCK,
            options={"preset": encoding.preset, "g": str(encoding.key_frame_distance), **FAST_TO_DECODE},
            container_options={"movflags": "faststart", "movie_timescale": str(CLOCK)},
            comment=comment,
            threads=1,  # files are encoded side by side
            name=name,
        ) as writer:
            chosen = slice(first, first + total)
            for image, stamp in zip(reader.frames_in_turn(ranks[chosen]), stamps[chosen].tolist(), strict=True):
                writer.write(image, tick=stamp)
        return total, len(ranks)

    (made, total), damage = past_damage(source, copy, threads=1, **({"on_error": "raise"} | options))
    return Copied(made, total, damage)


def compare_copy(source: Path, copy: Path, encoding: Encoding, *, name: Path | None = None, **options: Any) -> float:
    """Compare the number and the times of all frames of a copy with its source, and some of the pictures.

    Args:
        source: the file.
        copy: what `copy_file` made of it.
        encoding: with these settings.
        name: of the copy in an error, where its file has a temporary one.
        options: how the source was read, as for `copy_file`.

    Returns:
        PSNR in dB of the worst of the pictures.

    Raises:
        VideoError: if they differ, or one of them cannot be read.
    """
    name = name or copy

    def worst_difference(original: VideoReader) -> float:
        """Return the mean squared difference of the picture that differs most."""
        ranks, stamps = _schedule(original, encoding)
        if len(made) != len(ranks) or np.abs(made.times * CLOCK - stamps).max() > 1:
            raise VideoError(
                f"{name} must show {len(ranks)} frames at the times of {source}, but has {len(made)}, or at "
                "other times. It was left out; run again, or leave this video out."
            )
        chosen = np.unique(np.linspace(0, len(ranks) - 1, COMPARED_FRAMES).astype(int))
        expected = [
            av.VideoFrame.from_ndarray(image, format="rgb24").reformat(made.width, made.height).to_ndarray()
            for image in original.frames_in_turn(ranks[chosen])
        ]
        differences = np.stack(expected).astype(float) - made.frames_at(chosen)
        return float((differences**2).mean(axis=(1, 2, 3)).max())

    with VideoReader(copy, threads=1) as made:
        worst, _ = past_damage(source, worst_difference, threads=1, **({"on_error": "raise"} | options))
    psnr = float(10 * np.log10(255**2 / max(worst, 1e-3)))
    if psnr < MIN_PSNR:
        raise VideoError(
            f"{name} must look like {source}, but a picture differs ({psnr:.1f} dB, {MIN_PSNR:g} are the "
            "least). It was left out; run again with a lower crf."
        )
    return psnr


def _schedule(reader: VideoReader, encoding: Encoding) -> tuple[np.ndarray, np.ndarray]:
    """Choose the frames to keep: their numbers and their stamps on the clock, both (T,) int64 and rising."""
    times, ranks = reader.times, np.arange(len(reader))
    if encoding.max_fps is not None and reader.fps > encoding.max_fps * 1.001:
        # Of the moments at this rate, the first at which each frame is on show; frames without one are left out.
        first = np.ceil((times - times[0] - TIME_TOLERANCE) * encoding.max_fps)
        is_last_shown = first[-1] <= (times[-1] - times[0]) * encoding.max_fps + TIME_TOLERANCE
        ranks = np.flatnonzero(np.append(np.diff(first) > 0, is_last_shown))
        times = times[0] + first[ranks] / encoding.max_fps
    stamps = np.rint(times * CLOCK).astype(np.int64)
    order = np.arange(len(stamps))
    return ranks, np.maximum.accumulate(stamps - order) + order - min(stamps[0], 0)  # MP4 begins at 0 or later


def _size(reader: VideoReader, encoding: Encoding) -> tuple[int, int]:
    """Return height and width: a short side that is not larger than asked for, and even numbers."""
    scale = min(1, encoding.short_side / min(reader.height, reader.width))
    height, width = (2 * max(1, int(side * scale / 2 + 1e-6)) for side in (reader.height, reader.width))
    return height, width
