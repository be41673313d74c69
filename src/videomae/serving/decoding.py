"""From an upload to clips as a model takes them; runs in a decoding process, and trusts nothing.

T frames of H x W pixels
"""

import dataclasses
from collections.abc import Iterator
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from videomae.errors import VideoError
from videomae.inference.timeline import FrameCounter
from videomae.serving.limits import Limits
from videomae.serving.refusals import BAD_REQUEST, TOO_LARGE, UNREADABLE, Refusal
from videomae.video.backends.opening import choose_stream, open_file
from videomae.video.clips import slide
from videomae.video.damage import reading_notes
from videomae.video.limits import ReadLimits
from videomae.video.processors import VideoMAEImageProcessor
from videomae.video.reader import VideoReader
from videomae.video.sampling import ClipSampling
from videomae.video.source import is_stream
from videomae.video.stream import stream_frames

UPLOAD = "the upload"  # what it is called in answers
MAX_OVERLAP = 32  # windows that hold a frame at once

Item = tuple[dict[str, Any], NDArray[Any]]
NOTHING = np.empty(0, np.uint8)


@dataclasses.dataclass(frozen=True)
class ClipDecoder:
    """Turns uploads into clips (T, H, W, 3) uint8, resized and cropped as the model's processor does.

    Attributes:
        processor: of the model.
        sampling: which frames make a clip.
        num_frames: T.
        limits: what is above is refused.
    """

    processor: VideoMAEImageProcessor
    sampling: ClipSampling
    num_frames: int
    limits: Limits

    def to_dict(self) -> dict[str, Any]:
        """Return everything, ready for JSON."""
        return {
            "processor": self.processor.to_dict(),
            "sampling": dataclasses.asdict(self.sampling),
            "num_frames": self.num_frames,
            "limits": dataclasses.asdict(self.limits),
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Self:
        """Make a decoder from what `to_dict` returned."""
        return cls(
            VideoMAEImageProcessor.from_dict(content["processor"]),
            ClipSampling(**content["sampling"]),
            content["num_frames"],
            Limits(**content["limits"]),
        )

    def clip(
        self, path: str, *, stride: float | None = None, start: float | None = None, end: float | None = None
    ) -> Iterator[Item]:
        """Yield one clip, and where it is: seconds, size of the frames, the part that is seen.

        Args:
            path: of the upload.
            stride: frames from one of the clip to the next; by default as in the model's training.
            start: with ``end``, the seconds over which the frames are spread, in place of the middle of the video.
            end: see there.
        """
        with self._open(path) as reader:
            if start is None or end is None:
                sampling = self.sampling if stride is None else ClipSampling(stride=stride)
                ranks = sampling(reader.num_frames, video_fps=reader.fps, clip_frames=self.num_frames)[0]
                times, frames = reader.times[ranks], reader.frames_at(ranks, shrink=self.processor.shrink_eight_bit)
            else:
                if not 0 <= start < min(end, reader.end):
                    raise Refusal(
                        BAD_REQUEST,
                        f"start and end must lie in the video, of {reader.end:.3f} s, and start before end; got "
                        f"{start:g} and {end:g}.",
                    )
                times = start + (np.arange(self.num_frames) + 0.5) * (end - start) / self.num_frames
                frames = reader.frames_at_times(
                    times.clip(max=reader.times[-1]), shrink=self.processor.shrink_eight_bit
                )
            about = {
                "times": times.tolist(),
                "duration": reader.end,
                "width": reader.width,
                "height": reader.height,
                "box": self.processor.seen_box(reader.height, reader.width),
            }
            yield about, self._cut(frames)

    def windows(self, path: str, *, window: float, hop: float) -> Iterator[Item]:
        """Yield what is known of a video, then its windows, then the times of its frames.

        Args:
            path: of the upload, or of a pipe through which it comes.
            window: seconds that a window spans.
            hop: seconds from one to the next.
        """
        if window / hop > MAX_OVERLAP or hop > window:
            raise Refusal(
                BAD_REQUEST,
                f"hop must lie between window / {MAX_OVERLAP} and window, got {hop:g} and {window:g} seconds.",
            )
        live = is_stream(path)
        if live:
            yield {"duration": None}, NOTHING
        else:
            with self._open(path) as reader:
                self._check_windows(reader.end, hop)
                yield {"duration": reader.end, "width": reader.width, "height": reader.height}, NOTHING
        source = stream_frames(path)
        counter = FrameCounter(source)
        times: list[float] = []

        def counted() -> Iterator[tuple[float, NDArray[np.uint8]]]:
            for time, frame in counter:
                if live:
                    self._check(time, frame.shape[1], frame.shape[0])
                    self._check_windows(time, hop)
                times.append(time)
                yield time, frame

        form: dict[str, Any] = {"window": window, "hop": hop, "num_frames": self.num_frames}
        clips = slide(counted(), **form, is_gap=source.is_gap, shrink=self.processor.shrink_eight_bit)
        for begin, clip in clips:
            yield {"start": begin}, self._cut(clip)
        if not times:
            raise VideoError("the video has no frames to look at. Send another.")
        notes = reading_notes(source.damage, gaps=counter.gaps, assumed_fps=source.assumed_fps)
        about = {"end": counter.end, "gaps": counter.gaps, "notes": notes}
        yield about, np.asarray(times, np.float64)

    def _open(self, path: str) -> VideoReader:
        """Open an upload whose kind, and whose size by its header, are such that one may look further."""
        limits = ReadLimits(max_pixels=self.limits.max_pixels, open_seconds=self.limits.decode_seconds)
        with open_file(path, UPLOAD, ReadLimits(open_seconds=limits.open_seconds)) as container:
            if stream := choose_stream(container):
                self._check(0, stream.width, stream.height)
        reader = VideoReader(path, threads=1, limits=limits)
        try:
            self._check(reader.end, reader.width, reader.height)
        except Refusal:
            reader.close()
            raise
        return reader

    def _check(self, seconds: float, width: int, height: int) -> None:
        limits = self.limits
        if width * height > limits.max_pixels:
            raise Refusal(
                TOO_LARGE,
                f"frames must have at most {limits.max_pixels} pixels, got {width} x {height}. Send a smaller copy.",
            )
        if seconds > limits.max_seconds:
            raise Refusal(
                TOO_LARGE, f"a video must be at most {limits.max_seconds:g} s long, got {seconds:.1f} s. Send a part."
            )

    def _check_windows(self, seconds: float, hop: float) -> None:
        if seconds / hop > self.limits.max_windows:
            raise Refusal(
                TOO_LARGE,
                f"a timeline has at most {self.limits.max_windows} windows, got {seconds:.1f} s with a hop of {hop:g} "
                "s. Send a shorter video, or a longer hop.",
            )

    def _cut(self, clip: Any) -> NDArray[np.uint8]:
        return np.ascontiguousarray(self.processor.eight_bit(clip))


def refusal_of(error: Exception, path: str) -> Refusal:
    """Return what to tell a client whose upload gave this error."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == 12:
        return Refusal(UNREADABLE, "the video needs more memory to decode than it is given. Send a smaller copy.")
    if isinstance(error, VideoError | ValueError):
        return Refusal(UNREADABLE, str(error).replace(path, UPLOAD))
    return Refusal(UNREADABLE, f"the upload cannot be decoded ({type(error).__name__}). Re-encode it.")
