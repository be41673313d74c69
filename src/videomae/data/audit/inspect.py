"""What a video file holds and whether all of it decodes: the facts behind ``videomae check``.

S slots of 1/8 s · H, W pixels of an upright frame
"""

import hashlib
import io
import math
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.format import VideoFormatComponent
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from videomae.errors import VideoError
from videomae.video.backends.failures import described, library_errors
from videomae.video.backends.opening import choose_stream, moving_pictures, open_file
from videomae.video.backends.packets import codec_of
from videomae.video.damage import INCOMPLETE, Damage, PastDamage, packets_past_damage
from videomae.video.limits import ReadLimits
from videomae.video.reader import VideoReader, past_damage

# All looks at the content are taken at grey pictures of this side: small enough to be cheap at any resolution, and an
# average over so many pixels that noise and compression all but vanish. For motion, cells are twice as large.
PICTURE_SIDE = 32
# Grey levels (0-255). Frames that differ by no more in any cell are the same picture; one whose cells span no more is
# of one colour; one that nowhere is brighter is black.
SAME_LEVELS, PLAIN_LEVELS, BLACK_LEVEL = 3, 6, 32

# A fingerprint: 8 x 8 grey cells, averaged over each 1/8 s, of the first 64 s.
SLOTS_PER_SECOND, MAX_SLOTS, CELLS = 8, 512, 8

THUMBNAIL_SIDE = 160


@dataclass(frozen=True)
class VideoFacts:
    """One file; where it cannot be read, only the first fields are filled in.

    Attributes:
        file: path of the file.
        problem: None if frames can be read; else "missing", "empty" (0 bytes), "no-video" (such as sound only),
            "unreadable", "crashed" (ended the process that read it) or "timed-out".
        reason: what the problem is, in a sentence.
        damage: stretches that do not decode; the other frames can be used.
        size: bytes.
        digest: SHA-256 of the bytes.
        content: hash of all decoded frames; the same for copies in other containers.
        container: FFmpeg's name of the container format.
        codec: FFmpeg's name of the codec.
        pixel_format: FFmpeg's name of the stored pixel format.
        bits: of a colour value.
        has_alpha: has a transparency, which training ignores.
        width: pixels of an upright frame.
        height: pixels of an upright frame.
        rotation: degrees clockwise that the file asks to turn its frames.
        pixel_aspect: width of a pixel over its height, after the rotation.
        other_sizes: further sizes that its pictures have, width x height as stored; they are scaled to the first.
        streams: of a file with several videos, each one's codec and size, that which is read first.
        num_frames: decoded frames.
        stated_frames: frames by the header; None if it does not say.
        corrupt_frames: decoded frames that the decoder had to patch.
        duration: seconds of what decodes.
        stated_duration: seconds by the header; None if it does not say.
        fps: average frames per second.
        is_variable_rate: frames come at uneven distances.
        is_ordered: the stamps of the decoded frames rise.
        blank_fraction: fraction of the frames, 0-1, that are black or of one colour.
        black_fraction: fraction of the frames, 0-1, that are black.
        still_fraction: length of the longest stretch without motion over the whole length, 0-1.
        fingerprint: (S, 8, 8) float16, grey levels 0-255 of cells, averaged over 1/8 s each; S is 1 to 512 (64 s).
        gaps: seconds from and to which there is no picture, because the clock jumps.
        assumed_fps: the rate that times follow from where the file holds none; else None.
        times: (N,) float64, seconds at which each frame that decodes is shown.
        thumbnail: JPEG of the middle frame; empty if not asked for.
    """

    file: str
    problem: str | None = None
    reason: str | None = None
    damage: tuple[Damage, ...] = ()
    size: int = 0
    digest: str = ""
    content: str = ""
    container: str = ""
    codec: str = ""
    pixel_format: str = ""
    bits: int = 8
    has_alpha: bool = False
    width: int = 0
    height: int = 0
    rotation: int = 0
    pixel_aspect: float = 1.0
    other_sizes: tuple[str, ...] = ()
    streams: tuple[str, ...] = ()
    num_frames: int = 0
    stated_frames: int | None = None
    corrupt_frames: int = 0
    duration: float = 0.0
    stated_duration: float | None = None
    fps: float = 0.0
    is_variable_rate: bool = False
    is_ordered: bool = True
    blank_fraction: float = 0.0
    black_fraction: float = 0.0
    still_fraction: float = 0.0
    gaps: tuple[tuple[float, float], ...] = ()
    assumed_fps: float | None = None
    fingerprint: NDArray[np.float16] = field(
        default_factory=lambda: np.empty((0, CELLS, CELLS), np.float16), compare=False, repr=False
    )
    times: NDArray[np.float64] = field(default_factory=lambda: np.empty(0), compare=False, repr=False)
    thumbnail: bytes = field(default=b"", repr=False)


def inspect_video(file: str | Path, *, thumbnail: bool = False, fps: float | None = None) -> VideoFacts:
    """Decode a whole file once, holding one frame at a time; a damaged one again, past its damage.

    Args:
        file: path of the file.
        thumbnail: keep a small picture of the middle frame.
        fps: frames per second, where the file holds no times.

    Returns:
        What was found; no file is so bad that this raises, short of a decoder that crashes.
    """
    file = Path(file)
    if not os.path.isfile(file):
        reason = f"{file} must be an existing file, but there is none. Check the path."
        return VideoFacts(str(file), problem="missing", reason=reason)
    facts = VideoFacts(str(file), size=file.stat().st_size)
    try:
        with file.open("rb") as stream:
            facts = replace(facts, digest=hashlib.file_digest(stream, "sha256").hexdigest())

        def look(reader: VideoReader) -> VideoFacts:
            limits = ReadLimits.from_environment()
            with library_errors(str(file)), open_file(str(file), str(file), limits) as container:
                return _decode(container, reader, facts, thumbnail=thumbnail)

        found, damage = past_damage(file, look, threads=1, square_pixels=False, fps=fps)
        return replace(found, damage=(*damage, *found.damage))
    except (VideoError, OSError) as error:
        return replace(facts, problem=_problem(file, facts.size), reason=str(error))


def _decode(container: InputContainer, reader: VideoReader, facts: VideoFacts, *, thumbnail: bool) -> VideoFacts:
    """Add to the facts what the header states and what decoding all frames shows."""
    stream = choose_stream(container)
    if stream is None or stream.codec_context is None:
        raise VideoError(f"{facts.file} holds no video stream that can be decoded.")
    stream.codec_context.thread_count = 1
    content = _Content(reader, thumbnail=thumbnail)
    discarded, damage = 0, facts.damage

    def lose(reason: str, packet: Packet | None = None) -> None:
        if reader.on_error == "raise" and reason != INCOMPLETE:
            raise VideoError(f"{facts.file} is damaged at frame {content.num_frames} ({reason}).")

    decode = PastDamage(lose, clock=reader.clock, stream=stream)
    try:
        for packet in packets_past_damage(lambda: container.demux(stream), lose):
            discarded += packet.is_discard
            for frame in decode(packet):
                content.add(frame)
    except Exception as error:  # whatever the library raises, as in `library_errors`
        if reader.on_error == "raise":
            raise
        damage = (*damage, Damage(content.last_time, reader.end, described(error).removesuffix(".")))
    if not content.num_frames:
        raise VideoError(f"{facts.file} must hold at least one frame, but none decodes. Copy or download it again.")

    components = content.components
    aspect = float(stream.sample_aspect_ratio or 1) or 1.0
    seconds = stream.duration and stream.time_base and float(stream.duration * stream.time_base)
    return replace(
        facts,
        damage=damage,
        container=container.format.name,
        codec=reader.codec,
        pixel_format=reader.pixel_format,
        bits=max(component.bits for component in components),
        # VP8 and VP9 keep it in a second stream, which only the tag tells of.
        has_alpha=any(part.is_alpha for part in components) or stream.metadata.get("alpha_mode") == "1",
        width=reader.width,
        height=reader.height,
        rotation=reader.rotation,
        pixel_aspect=1 / aspect if reader.rotation in (90, 270) else aspect,
        streams=_streams(container, stream),
        stated_frames=max(stream.frames - discarded, 1) if stream.frames else None,
        stated_duration=seconds or (container.duration and container.duration / av.time_base) or None,
        duration=reader.duration,
        fps=reader.fps,
        is_variable_rate=_is_variable_rate(reader.times, reader.longest_step),
        gaps=tuple(reader.gaps),
        assumed_fps=reader.assumed_fps,
        times=reader.times[: content.num_frames],
        **content.facts(),
    )


class _Content:
    """What the frames of one video show; it holds one frame at a time."""

    def __init__(self, reader: VideoReader, *, thumbnail: bool) -> None:
        self.reader = reader
        self.thumbnail_at = {0, reader.num_frames // 2} if thumbnail else set()
        self.thumbnail = b""
        self.num_frames = self.corrupt = self.blank = self.black = self.still = self.longest_still = 0
        self.last_stamp: float = -math.inf
        self.sizes: dict[str, None] = {}
        self.is_ordered = True
        self.components: Sequence[VideoFormatComponent] = ()
        self.digest = hashlib.sha256()
        self.shrink = VideoReformatter()
        self.still_picture = np.full((CELLS * 2, CELLS * 2), -1000.0)  # unlike any
        self.cells = np.zeros((MAX_SLOTS, CELLS, CELLS))
        self.frames_in_slot = np.zeros(MAX_SLOTS, np.int64)

    def add(self, frame: VideoFrame) -> None:
        """Take in the next frame."""
        self.sizes[f"{frame.width}x{frame.height}"] = None
        stamp = math.nan if frame.pts is None else frame.pts
        self.is_ordered &= stamp > self.last_stamp
        self.last_stamp = stamp
        self.components = frame.format.components
        self.corrupt += frame.is_corrupt
        for checksum in _checksums(frame):
            self.digest.update(checksum.to_bytes(4, "big"))
        if self.num_frames in self.thumbnail_at:
            self.thumbnail = _jpeg(frame, self.reader.rotation)
        self._look_at(self._picture(frame))
        self.num_frames += 1

    def seconds(self, number: int) -> float:
        """Return the time of a frame since the first one."""
        times = self.reader.times
        return float(times[min(number, len(times) - 1)] - times[0])

    @property
    def last_time(self) -> float:
        """Second at which the last frame is shown."""
        return self.reader.start + self.seconds(self.num_frames - 1)

    def facts(self) -> dict[str, Any]:
        """Return what was seen, as fields of `VideoFacts`."""
        return {
            "content": self.digest.hexdigest(),
            "num_frames": self.num_frames,
            "other_sizes": tuple(self.sizes)[1:],
            "corrupt_frames": self.corrupt,
            "is_ordered": self.is_ordered,
            "blank_fraction": self.blank / self.num_frames,
            "black_fraction": self.black / self.num_frames,
            "still_fraction": self.longest_still / self.num_frames if self.num_frames > 1 else 0.0,
            "fingerprint": self._fingerprint(),
            "thumbnail": self.thumbnail,
        }

    def _picture(self, frame: VideoFrame) -> NDArray[np.int16]:
        side = PICTURE_SIDE
        small = self.shrink.reformat(frame, side, side, format="gray", interpolation=Interpolation.AREA, threads=1)
        return np.rot90(small.to_ndarray(), -self.reader.rotation // 90).astype(np.int16)

    def _look_at(self, picture: NDArray[np.int16]) -> None:
        is_black = bool(picture.max() < BLACK_LEVEL)
        self.black += is_black
        self.blank += is_black or bool(np.ptp(picture) <= PLAIN_LEVELS)
        # Compared with the first frame of the stretch: slow motion adds up.
        coarse = _pool(picture, CELLS * 2)
        if np.abs(coarse - self.still_picture).max() <= SAME_LEVELS:
            self.still += 1
        else:
            self.still, self.still_picture = 1, coarse
        self.longest_still = max(self.longest_still, self.still)

        slot = int(self.seconds(self.num_frames) * SLOTS_PER_SECOND)
        if slot < MAX_SLOTS:
            self.cells[slot] += _pool(picture, CELLS)
            self.frames_in_slot[slot] += 1

    def _fingerprint(self) -> NDArray[np.float16]:
        """Average each slot; one without a frame shows what is still on the screen."""
        filled = np.flatnonzero(self.frames_in_slot)
        means = self.cells[filled] / self.frames_in_slot[filled, None, None]
        shown = np.searchsorted(filled, np.arange(filled[-1] + 1), side="right") - 1
        return means.astype(np.float16)[shown]


def _streams(container: InputContainer, read: VideoStream) -> tuple[str, ...]:
    """Describe the videos of a file, if there are several, that which is read first."""
    others = [stream for stream in moving_pictures(container) if stream.index != read.index]
    return tuple(
        f"{codec_of(stream) if stream.codec_context else 'unknown'} {stream.width}x{stream.height}"
        for stream in ([read, *others] if others else ())
    )


def _pool(picture: NDArray[Any], side: int) -> NDArray[Any]:
    return picture.reshape(side, len(picture) // side, side, -1).mean((1, 3))


def _checksums(frame: VideoFrame) -> Iterator[int]:
    """Yield a CRC-32 of each plane without the padding of its rows."""
    components, is_packed = frame.format.components, len(frame.planes) == 1
    for number, plane in enumerate(frame.planes):
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
        if is_packed:
            used = -(-frame.width * frame.format.padded_bits_per_pixel // 8)
        else:
            used = sum(part.width * -(-part.bits // 8) for part in components if part.plane == number)
        yield zlib.crc32(rows[:, :used].tobytes())


def _is_variable_rate(times: NDArray[np.float64], longest_step: float) -> bool:
    """Tell whether frames come early or late, by more than a quarter of the usual distance, for 2 % of the time."""
    distances = np.diff(times)
    distances = distances[distances <= longest_step]
    if not distances.size:
        return False
    usual = float(np.median(distances))
    off = np.abs(distances - usual)
    is_uneven = off > usual / 4 + 0.002  # containers round stamps, Matroska to 1 ms
    return float(off[is_uneven].sum()) > 0.02 * float(distances.sum())


def _jpeg(frame: VideoFrame, rotation: int) -> bytes:
    from PIL import Image

    scale = THUMBNAIL_SIDE / max(frame.width, frame.height)
    width, height = (max(round(side * scale), 1) for side in (frame.width, frame.height))
    image = frame.reformat(width, height, "rgb24", interpolation=Interpolation.AREA, threads=1).to_ndarray()
    file = io.BytesIO()
    Image.fromarray(np.rot90(image, -rotation // 90)).save(file, "JPEG", quality=80)
    return file.getvalue()


def _problem(file: Path, size: int) -> str:
    if size == 0:
        return "empty"
    try:
        with (
            library_errors(str(file)),
            open_file(str(file), str(file), ReadLimits.from_environment()) as container,
        ):
            return "unreadable" if moving_pictures(container) else "no-video"
    except VideoError:
        return "unreadable"
