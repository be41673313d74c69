"""Which frames make a clip: functions from the number of frames of a video to frame numbers.

The one rule for short videos: a position past the end reads the last frame. Nothing is looped or stretched. The
functions that say so do as v1 does instead.

Random functions take a numpy ``generator``; without one they answer with the middle, as tests do
(`sample_frame_indices` keeps the contract of the usage example instead). Strides count frames and may be fractions;
`ClipSampling` turns a frame rate into one.

N frames in the video · T frames in a clip · V clips or windows
"""

from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from videomae.config import VideoMAEConfig

Indices = NDArray[np.int64]

SHORTEST_STRETCH = 0.7  # of a video, in `stretch_indices`
VIEW_STRETCH = 0.85  # in `stretch_view_indices`: the mean of what such a model saw in training


def dense_indices(
    num_frames: int, *, clip_frames: int = 16, stride: float = 4, generator: Generator | None = None
) -> Indices:
    """Take every ``stride``-th frame from a random start (K400, UCF101 and HMDB51; pre-training).

    Args:
        num_frames: frames in the video, at least 1.
        clip_frames: frames to take.
        stride: frames from one to the next.
        generator: draws the start, such that ``clip_frames * stride`` frames lie in the video; None is the middle.

    Returns:
        (T,) frame numbers.
    """
    room = max(num_frames - clip_frames * stride, 0)
    start = int(room / 2 if generator is None else generator.integers(int(room) + 1))
    return _within(start + stride * np.arange(clip_frames), num_frames)


def v1_finetune_indices(
    num_frames: int, *, clip_frames: int = 16, stride: int = 4, generator: Generator | None = None
) -> Indices:
    """Spread a clip over ``clip_frames * stride`` frames inclusive, as v1 fine-tunes: steps of about 4.27, not 4.

    Such clips are those of `sample_frame_indices`. A video no longer than that is spread over ``num_frames // stride``
    positions, and its last frame fills the clip. Arguments and result as in `dense_indices`.
    """
    span = clip_frames * stride
    if num_frames <= span:
        spread = np.linspace(0, num_frames, num=num_frames // stride)
        return _within(np.pad(spread, (0, clip_frames - len(spread)), constant_values=num_frames), num_frames)
    room = num_frames - span  # v1 draws the end below num_frames, so the last start is one short of the room
    start = int((room - 1) // 2 if generator is None else generator.integers(room))
    return _within(np.linspace(start, start + span, num=clip_frames), start + span)


def v1_pretrain_indices(
    num_frames: int, *, clip_frames: int = 16, stride: int = 4, generator: Generator | None = None
) -> Indices:
    """Sample as v1 pre-trains: `dense_indices`, except that a short video repeats the last position of the stride.

    That position, in v1, is a multiple of the stride that leaves at least one frame after it. Arguments and result as
    in `dense_indices`.
    """
    if num_frames >= clip_frames * stride:
        return dense_indices(num_frames, clip_frames=clip_frames, stride=stride, generator=generator)
    return np.minimum(stride * np.arange(clip_frames), stride * (max(num_frames - 2, 0) // stride))


def uniform_indices(num_frames: int, *, clip_frames: int = 16, generator: Generator | None = None) -> Indices:
    """Cut the video into equal segments and take one frame of each: TSN sampling (SSv2).

    v1 rounds the segments down in training, so that up to 15 frames at the end are never seen; here they are.

    Args:
        num_frames: frames in the video, at least 1. With fewer than ``clip_frames``, frames repeat.
        clip_frames: number of segments.
        generator: draws the place in each segment; None is the middle.

    Returns:
        (T,) frame numbers, never decreasing.
    """
    place = 0.5 if generator is None else generator.random(clip_frames)
    return _within((np.arange(clip_frames) + place) * (num_frames / clip_frames), num_frames)


def stretch_indices(num_frames: int, *, clip_frames: int = 16, generator: Generator) -> Indices:
    """Draw a stretch of 70 to 100 % of the video and take the middle frame of each of its equal segments.

    Unlike with `uniform_indices` the frames keep an even pace. `stretch_view_indices` are the test.

    Args:
        num_frames: frames in the video, at least 1. With fewer than ``clip_frames``, frames repeat.
        clip_frames: number of segments.
        generator: draws the stretch.

    Returns:
        (T,) frame numbers, never decreasing.
    """
    length = generator.uniform(SHORTEST_STRETCH, 1) * num_frames
    return _within(_middles(generator.uniform(0, num_frames - length), length, clip_frames), num_frames)


def stretch_view_indices(num_frames: int, *, num_clips: int = 3, clip_frames: int = 16) -> Indices:
    """Take stretches of 85 % of the video, the first at its start, the last at its end.

    Args:
        num_frames: frames in the video, at least 1.
        num_clips: number of clips; 1 is the whole video.
        clip_frames: number of equal segments of a stretch, of which the middle frames are taken.

    Returns:
        (V, T) frame numbers.
    """
    length = num_frames * (1 if num_clips == 1 else VIEW_STRETCH)
    starts = np.linspace(0, num_frames - length, num_clips)
    return _within(_middles(starts[:, None], length, clip_frames), num_frames)


def multi_view_indices(
    num_frames: int, *, num_clips: int = 5, clip_frames: int = 16, stride: float = 4, on_stride: bool = False
) -> Indices:
    """Spread dense clips evenly over the video, from its first frame to its last (v1's test on K400: 5 clips).

    Args:
        num_frames: frames in the video, at least 1.
        num_clips: number of clips; 1 is the middle.
        clip_frames: frames in each.
        stride: frames from one to the next.
        on_stride: a short video repeats its last multiple of the stride, as v1 tests, and not its last frame.

    Returns:
        (V, T) frame numbers. Clips start at multiples of the stride; in a short video all are the same.
    """
    positions = int(np.ceil(num_frames / stride))
    room = max(positions - clip_frames, 0)
    starts = [int(room / 2)] if num_clips == 1 else [int(clip * (room / (num_clips - 1))) for clip in range(num_clips)]
    chosen = np.add.outer(starts, np.arange(clip_frames))
    return _within(stride * (np.minimum(chosen, positions - 1) if on_stride else chosen), num_frames)


def uniform_view_indices(num_frames: int, *, num_clips: int = 2, clip_frames: int = 16) -> Indices:
    """Take one frame of each segment, each clip further on in it (v1's test on SSv2: 2 clips, start and middle).

    Args:
        num_frames: frames in the video, at least 1.
        num_clips: number of clips; 1 is the middle.
        clip_frames: number of segments.

    Returns:
        (V, T) frame numbers.
    """
    places = np.array([0.5]) if num_clips == 1 else np.arange(num_clips) / num_clips
    return _within(np.add.outer(places, np.arange(clip_frames)) * (num_frames / clip_frames), num_frames)


def sliding_windows(num_frames: int, *, clip_frames: int = 16, stride: float = 4, hop: int | None = None) -> Indices:
    """Lay dense clips over the whole video, so that every stretch of it is seen.

    Args:
        num_frames: frames in the video, at least 1.
        clip_frames: frames in each window.
        stride: frames from one to the next.
        hop: frames from one window's start to the next; by default windows do not overlap.

    Returns:
        (V, T) frame numbers, at least one window. The last window ends with the video, and so may overlap more.
    """
    span = clip_frames * stride
    hop = max(int(span), 1) if hop is None else hop
    if hop < 1:
        raise ValueError(f"hop must be at least 1 frame, got {hop}.")
    last = max(int(np.ceil(num_frames - span)), 0)
    starts = [*range(0, last, hop), last]
    return _within(np.add.outer(starts, stride * np.arange(clip_frames)), num_frames)


def sample_frame_indices(
    clip_len: int, frame_sample_rate: float, seg_len: int, *, generator: np.random.Generator | None = None
) -> NDArray[np.int64]:
    """Draw a clip of evenly spaced frames that starts at a random place.

    With ``np.random`` seeded, the indices are those of the usage example in VideoMAE's documentation, which fails on a
    video of ``clip_len * frame_sample_rate`` frames or fewer. Here such a video gives all it has, from its first frame
    at the same spacing, and repeats its last frame.

    Args:
        clip_len: number of frames in the clip, T.
        frame_sample_rate: frames of the video per frame of the clip.
        seg_len: number of frames in the video.
        generator: seeded source of randomness; by default NumPy's global one.

    Returns:
        (T,) int64 frame numbers, never decreasing, below ``seg_len``.

    Raises:
        ValueError: if an argument is not positive.
    """
    if min(clip_len, frame_sample_rate, seg_len) <= 0:
        raise ValueError(
            "clip_len, frame_sample_rate and seg_len must be positive, "
            f"got {clip_len}, {frame_sample_rate} and {seg_len}. An empty video has no clips."
        )
    span = int(clip_len * frame_sample_rate)
    if span >= seg_len:
        end = span
    elif generator is None:
        end = np.random.randint(span, seg_len)
    else:
        end = int(generator.integers(span, seg_len))
    start = end - span
    indices = np.linspace(start, end, num=clip_len)
    return np.clip(indices, start, min(end, seg_len) - 1).astype(np.int64)


METHODS = ("dense", "uniform", "whole", "v1_finetune", "v1_pretrain")
Method = Literal["dense", "uniform", "whole", "v1_finetune", "v1_pretrain"]
_OF_WHOLE_VIDEO = ("uniform", "whole")  # which know no stride


@dataclass(frozen=True)
class ClipSampling:
    """Which frames of a video make a clip, for videos of any length and frame rate.

    The one record of this choice: a setting of training, a part of a protocol, and what a trained model remembers.
    """

    method: Method = "dense"
    """How frames are chosen: dense takes every stride-th from a random start, uniform one of each segment; whole takes
    evenly spaced ones of 70 to 100 % of the video; v1_finetune and v1_pretrain as VideoMAE v1 does."""

    stride: float = 4.0
    """Frames from one of a clip to the next; not used by uniform and whole."""

    fps: float | None = None
    """Count the stride at this frame rate, whatever the video's own is, so that clips last equally long; None counts
    the video's own frames, as all published recipes do."""

    jitter: float = 0.0
    """Draw the stride of each training clip up to this fraction shorter or longer; for dense sampling. Tests keep
    it."""

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method must be one of {METHODS}, got {self.method!r}.")
        if self.stride <= 0:
            raise ValueError(f"stride must be above 0, got {self}.")
        if self.method.startswith("v1") and (self.fps is not None or self.stride != int(self.stride)):
            raise ValueError(f"{self.method!r} knows whole strides of frames only, got {self}. Use 'dense'.")
        if not 0 <= self.jitter < 1 or (self.jitter and self.method != "dense"):
            raise ValueError(f"jitter must lie in [0, 1), and be 0 unless the method is 'dense', got {self}.")

    @classmethod
    def of_model(cls, config: VideoMAEConfig, *, stride: float | None = None) -> Self:
        """Return the sampling that a model was trained with, or with ``stride`` every so many frames of a video."""
        if stride is not None:
            return cls(stride=stride)
        return cls(config.clip_sampling, config.clip_stride, config.clip_fps)  # type: ignore[arg-type]

    @property
    def is_of_whole_video(self) -> bool:
        """Whether a clip spans the video, however long that is."""
        return self.method in _OF_WHOLE_VIDEO

    def config_fields(self) -> dict[str, Any]:
        """Return the fields of a configuration by which a trained model remembers this; see `of_model`."""
        method = self.method if self.is_of_whole_video else "dense"
        return {"clip_sampling": method, "clip_stride": float(self.stride), "clip_fps": self.fps}

    def __call__(
        self,
        num_frames: int,
        *,
        video_fps: float,
        clip_frames: int = 16,
        num_clips: int = 1,
        generator: Generator | None = None,
    ) -> Indices:
        """Choose frames of one video.

        Args:
            num_frames: frames in the video, at least 1.
            video_fps: its frame rate.
            clip_frames: frames in a clip.
            num_clips: clips of the video in a test, spread over its length; 1 is the middle.
            generator: draws one random clip, for training; None gives the fixed clips of a test.

        Returns:
            (num_clips, clip_frames) frame numbers; a single clip with ``generator``.

        Raises:
            ValueError: if a number is not positive.
        """
        if clip_frames < 1 or num_clips < 1:
            raise ValueError(f"clip_frames and num_clips must be at least 1, got {clip_frames} and {num_clips}.")
        stride = self.stride if self.fps is None else self.stride * video_fps / self.fps
        if generator is None:
            if self.is_of_whole_video:
                views = uniform_view_indices if self.method == "uniform" else stretch_view_indices
                return views(num_frames, num_clips=num_clips, clip_frames=clip_frames)
            return multi_view_indices(
                num_frames,
                num_clips=num_clips,
                clip_frames=clip_frames,
                stride=stride,
                on_stride=self.method.startswith("v1"),
            )
        if self.method == "uniform":
            return uniform_indices(num_frames, clip_frames=clip_frames, generator=generator)[None]
        if self.method == "whole":
            return stretch_indices(num_frames, clip_frames=clip_frames, generator=generator)[None]
        if self.method == "dense":
            if self.jitter:
                stride *= 1 + self.jitter * generator.uniform(-1, 1)
            return dense_indices(num_frames, clip_frames=clip_frames, stride=stride, generator=generator)[None]
        v1 = v1_finetune_indices if self.method == "v1_finetune" else v1_pretrain_indices
        return v1(num_frames, clip_frames=clip_frames, stride=int(stride), generator=generator)[None]


def _middles(start: Any, length: float, segments: int) -> NDArray:
    """Return the middle of each of the equal segments of a stretch."""
    return start + (np.arange(segments) + 0.5) * (length / segments)


def _within(positions: NDArray, num_frames: int) -> Indices:
    """Round positions down, and let those past the end read the last frame."""
    if num_frames < 1:
        raise ValueError(f"a video needs at least 1 frame, got {num_frames}.")
    return np.minimum(np.floor(positions), num_frames - 1).astype(np.int64)
