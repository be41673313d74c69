"""Video file -> frames with their times.

`VideoReader` is what the rest of the package uses: it checks what is asked for and says what is wrong with a file. A
back end below it knows one decoding library. To add a back end, write a class with the attributes and methods of
`_PyAV` that carry no underscore, and name it in `_BACKENDS`.

T frames · H height · W width · N frames in the file · rank: the number of a frame in presentation order
"""

import math
import operator
import os
import sys
import threading
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from fractions import Fraction
from itertools import chain
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple, Self

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.sidedata.sidedata import SideDataContainer
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import ArrayLike, NDArray

from videomae.errors import VideoError
from videomae.video.backends.torchcodec import TorchCodec

ON_ERROR = ("raise", "truncate")
TIME_TOLERANCE = 1e-6  # seconds; a time computed as i / fps must not fall on the frame before by a rounding error

COVER = av.stream.Disposition.attached_pic

# More threads only help videos larger than this package's use, and each adds a frame of delay before the first one.
MAX_THREADS = 8
# Skipping more frames than this by a seek is faster than decoding them; to seek at every frame would idle threads.
WORTH_A_SEEK = 2
# Smaller MPEG-4 packets are "not coded" pictures, for which no frame comes out.
SMALLEST_MPEG4_PICTURE = 16


class VideoReader:
    """The frames of a video file, by number, by time or as a stream.

    Frame ``i`` is the i-th that decoding the file from its start gives. To get there, the reader seeks to the key frame
    before it, and checks the stamp of every frame on the way; where a file's stamps prove wrong or are missing it
    decodes from the start instead. So frames are right in either case, and fast in a sound file. Only in a damaged one
    that FFmpeg decodes without an error may a patched picture depend on the way to it.

    Opening reads the file once without decoding it, and decodes the first frame (see ``peek``). A reader is a context
    manager, and not for use from several threads at once.

    Args:
        path: the file: a path, a URL that FFmpeg can seek in, or a seekable binary file object (it is not closed).
        threads: decoding threads; by default one per processor, at most 8. Use 1 in workers of a data loader.
        on_error: ``"raise"``, or ``"truncate"`` to keep the frames before the first damage: the video then ends there.
            Finding the damage costs decoding the whole file when it is opened.
        backend: the decoding library, ``"pyav"``, or ``"torchcodec"`` where that is installed.
        peek: decode the first frame at once. Without, a file that is damaged there is opened all the same, and size,
            rotation and pixel format are only known once a frame was decoded, or are asked for; a clip from the middle
            is there sooner.

    Attributes:
        name: the path, as errors give it.
        codec: FFmpeg's name of the codec, e.g. ``"h264"``.
        closed: whether `close` was called.

    Raises:
        VideoError: if the file is missing, not a video, or damaged before its first frame.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | BinaryIO,
        *,
        threads: int | None = None,
        on_error: str = "raise",
        backend: str = "pyav",
        peek: bool = True,
    ) -> None:
        if on_error not in ON_ERROR:
            raise ValueError(f"on_error must be one of {ON_ERROR}, got {on_error!r}.")
        if backend not in _BACKENDS:
            raise ValueError(f"backend must be one of {tuple(_BACKENDS)}, got {backend!r}.")
        if threads is not None and threads < 1:
            raise ValueError(f"threads must be at least 1, got {threads}. Leave it out for one per processor.")
        threads = threads or min(os.cpu_count() or 1, MAX_THREADS)
        self._backend = _BACKENDS[backend].open(path, threads=threads, truncate=on_error == "truncate")
        self.name = self._backend.name
        self.codec = self._backend.codec
        self.closed = False
        if peek:
            try:
                self._look()
            except BaseException:
                self.close()
                raise

    def __len__(self) -> int:
        return len(self._backend.times)

    @property
    def num_frames(self) -> int:
        """Number of frames N, counted, not read from the header."""
        return len(self)

    @property
    def width(self) -> int:
        """Pixels of an upright frame (after the rotation the file asks for)."""
        return self._look().width

    @property
    def height(self) -> int:
        """Pixels of an upright frame."""
        return self._look().height

    @property
    def rotation(self) -> int:
        """Degrees clockwise, 0, 90, 180 or 270, by which the stored frames are turned to be upright.

        Mirroring is undone too. Other angles are taken to the nearest of these.
        """
        return self._look().rotation

    @property
    def pixel_format(self) -> str:
        """FFmpeg's name of the stored pixel format, e.g. ``"yuv420p"``."""
        return self._look().pixel_format

    @property
    def times(self) -> NDArray[np.float64]:
        """Seconds at which each frame is shown, (N,) float64, never decreasing.

        As the file states them, so the first need not be 0. Where stamps are missing they follow from the frame rate.
        """
        return self._backend.times

    @property
    def fps(self) -> float:
        """Average frames per second: the header's rate where it agrees with the times, else that of the times."""
        stated = self._backend.stated_rate
        span = float(self.times[-1] - self.times[0])
        measured = (len(self) - 1) / span if span > 0 else stated
        return stated if abs(stated - measured) <= 0.01 * measured else measured

    @property
    def duration(self) -> float:
        """Seconds from the start of the first frame to the end of the last."""
        return float(self.times[-1] - self.times[0]) + (self._backend.last_duration or 1 / self.fps)

    def frames_at(self, indices: Sequence[int] | NDArray[np.integer]) -> NDArray[np.uint8]:
        """Return the frames of these numbers.

        Args:
            indices: T integers from 0 to N - 1, in any order, repeats allowed.

        Returns:
            (T, H, W, 3) uint8 RGB, in the order asked for; the values of PyAV's ``to_ndarray(format="rgb24")``.

        Raises:
            VideoError: if there is no frame of that number, or it cannot be decoded.
        """
        wanted = _whole_numbers(indices)
        outside = wanted[(wanted < 0) | (wanted >= len(self))]
        if outside.size:
            raise VideoError(
                f"{self.name} has no frame {outside[0]}: frames are numbered from 0 to {len(self) - 1}. "
                "Take indices below len(reader)."
            )
        return _gather(self._open_backend(), wanted)

    def frames_at_times(self, seconds: ArrayLike) -> NDArray[np.uint8]:
        """Return the frame a player shows at each of these times.

        Args:
            seconds: T times on the scale of `times`, from 0 to the end of the last frame (before the first frame's
                time, that frame is shown).

        Returns:
            (T, H, W, 3) uint8 RGB.

        Raises:
            VideoError: if a time is negative or after the end, or a frame cannot be decoded.
        """
        wanted = np.asarray(seconds, dtype=np.float64)
        begin, end = min(0.0, float(self.times[0])), float(self.times[0]) + self.duration
        outside = wanted[~((wanted >= begin) & (wanted < end))]
        if outside.size:
            raise VideoError(
                f"{self.name} shows nothing at {outside[0]} s: it runs from {begin:g} s to {end:.6g} s. "
                "Take times in this range."
            )
        ranks = np.searchsorted(self.times, wanted + TIME_TOLERANCE, side="right") - 1
        return self.frames_at(ranks.clip(min=0))

    def __iter__(self) -> Iterator[tuple[float, NDArray[np.uint8]]]:
        """Yield (seconds, (H, W, 3) uint8 RGB) for every frame in turn, holding one frame at a time."""
        return self.frames()

    def frames(self, first: int = 0, last: int | None = None) -> Iterator[tuple[float, NDArray[np.uint8]]]:
        """Yield (seconds, (H, W, 3) uint8 RGB) for the frames of a stretch in turn, holding one frame at a time.

        Args:
            first: number of the first frame; the reader seeks to it.
            last: number of the frame after the last one; None reads to the end.

        Raises:
            VideoError: if there is no such stretch, or a frame cannot be decoded.
        """
        last = len(self) if last is None else last
        if not 0 <= first <= last <= len(self):
            raise VideoError(
                f"{self.name} has no frames {first} to {last}: it has {len(self)}, numbered from 0. "
                "Take 0 <= first <= last <= len(reader)."
            )
        ranks = range(first, last)
        for rank, frame in zip(ranks, self._open_backend().read(ranks), strict=True):
            yield float(self.times[rank]), frame.copy()

    def close(self) -> None:
        """Release the file; what was learned about it stays readable."""
        self.closed = True
        self._backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _look(self) -> "Look":
        return (self._backend if self._backend.has_look else self._open_backend()).look()

    def _open_backend(self) -> "_PyAV":
        if self.closed:
            raise ValueError(f"{self.name} is closed. Read frames inside the `with` block.")
        return self._backend


def read_video_pyav(container: InputContainer, indices: Sequence[int] | NDArray[np.integer]) -> NDArray[np.uint8]:
    """Decode frames of an open PyAV container, as the usage example of VideoMAE's documentation does.

    Unlike there, repeated indices give repeated frames, their order is kept, a short video repeats its last frame, and
    frames are turned upright.

    Args:
        container: what ``av.open(path)`` returns; it stays open.
        indices: T integers, 0 or more.

    Returns:
        (T, H, W, 3) uint8 RGB.

    Raises:
        VideoError: if an index is negative, or the video cannot be decoded.
    """
    wanted = _whole_numbers(indices)
    if (wanted < 0).any():
        raise VideoError(f"indices must be 0 or more, got {wanted.min()}. Count frames from the start of the video.")
    try:
        container.seek(0)
    except av.FFmpegError as error:
        raise VideoError(f"{container.name} cannot go back to its start ({error}). Use VideoReader(path).") from error
    video = _PyAV(container, container.name)
    try:
        return _gather(video, wanted.clip(max=len(video.times) - 1))
    finally:
        video.end_reading()


def moving_pictures(container: InputContainer) -> list[VideoStream]:
    """Return the video streams, without the cover picture of a sound file, which is stored as one."""
    return [stream for stream in container.streams.video if not stream.disposition & COVER]


def _whole_numbers(indices: Sequence[int] | NDArray[np.integer]) -> NDArray[np.int64]:
    return np.asarray([operator.index(index) for index in indices], dtype=np.int64)


def _gather(video: "_PyAV", indices: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Decode each frame once, in rising order, and put it wherever it is wanted."""
    ranks, number_of = np.unique(indices, return_inverse=True)
    frames = None
    for number, frame in enumerate(video.read(ranks.tolist())):
        if frames is None:
            frames = np.empty((len(indices), *frame.shape), np.uint8)
        for place in np.flatnonzero(number_of == number):
            frames[place] = frame
    return np.empty((0, video.look().height, video.look().width, 3), np.uint8) if frames is None else frames


class _Index(NamedTuple):
    """Which packet of a file is which frame.

    Attributes:
        stamps: of each frame, rising.
        positions: of each frame's packet in the file.
        spare: ranks of the frames that no other frame refers to.
        key_positions: of the key frames' packets, rising.
        key_ranks: of the same frames.
        key_decode_stamps: when they are to be decoded; NO_STAMP where the file does not say.
        first_packet: its stamp and size.
        last_duration: of the last frame, in the units of the stamps.
        header: what the file's head says, as `_PyAV._header` gives it.
    """

    stamps: "array[int]"
    positions: "array[int]"
    spare: "array[int]"
    key_positions: "array[int]"
    key_ranks: "array[int]"
    key_decode_stamps: "array[int]"
    first_packet: tuple[int | None, int]
    last_duration: int | None
    header: tuple[Any, ...]


State = tuple[str | int, ...]
NO_STAMP = -(1 << 63)  # as FFmpeg has it


class _Indices(threading.local):
    """The indices of the files that a thread opened last: to read a small video's packets takes as long as six frames.

    A file is known by its path, where it lies on its disk, its size and when it was written.
    """

    def __init__(self, *, max_frames: int) -> None:
        self._max_frames = max_frames
        self._num_frames = 0
        self._kept: dict[State, _Index] = {}  # the one used last at the end

    def get(self, state: State | None) -> _Index | None:
        """Return what is kept of a file, which thereby is the one used last."""
        if state is None or state not in self._kept:
            return None
        index = self._kept[state] = self._kept.pop(state)
        return index

    def put(self, state: State, index: _Index) -> None:
        """Keep an index as the one used last, and drop those not used for longest where there are too many."""
        self._drop(state)
        if len(index.stamps) > self._max_frames:
            return
        self._kept[state] = index
        self._num_frames += len(index.stamps)
        while self._num_frames > self._max_frames:
            self._drop(next(iter(self._kept)))

    def _drop(self, state: State) -> None:
        if state in self._kept:
            self._num_frames -= len(self._kept.pop(state).stamps)


_INDICES = _Indices(max_frames=1 << 19)  # about 10 MB


def _state_of(source: str | BinaryIO | None) -> State | None:
    """Return what changes when a file does, or None for what is no file."""
    if not isinstance(source, str):
        return None
    try:
        status = os.stat(source)
    except OSError:
        return None
    return os.path.abspath(source), status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


class _PyAV:
    """One video stream, decoded by PyAV (FFmpeg).

    Shown packets sorted by stamp are the frames in presentation order, if every such packet gives one frame and the
    stamps are those of showing. `_index_packets` finds the files where this visibly fails. Where it fails otherwise,
    `_decode_from` finds out on the way to a frame, as it compares the stamps that come out with those expected. In both
    cases `_index_by_decoding` counts the frames, and every read decodes from the first packet.

    Attributes:
        times: seconds of each frame, (N,) float64.
        last_duration: seconds the last frame is shown, or None if the file does not say.
        stated_rate: frames per second by the header.
        codec: as in `VideoReader`.
    """

    def __init__(
        self,
        container: InputContainer,
        name: str,
        *,
        source: str | BinaryIO | None = None,
        state: State | None = None,
        threads: int | None = None,
        truncate: bool = False,
    ) -> None:
        self.name = name
        self._state = state  # of the file, from before it was opened
        self._container, self._source, self._threads, self._truncate = container, source, threads, truncate
        self._reformatter = VideoReformatter()
        self._packets: Any = None  # the generator that gives packets now
        self._walk: Iterator[tuple[int, VideoFrame]]
        self._position: int
        self._forget_position()
        self._unwanted: dict[int | None, int] = {}  # stamps and ranks of those that need not be decoded now
        self._left_out: set[int] = set()  # those that were not, on the way from the last key frame
        self._is_trusted = True  # are all packets' stamps those of the frames that come out?
        self._look: Look | None = None  # learned from the first frame decoded
        try:
            self._prepare()
        except BaseException:
            if source is not None:
                self.close()
            raise

    @classmethod
    def open(cls, path: str | os.PathLike[str] | BinaryIO, *, threads: int, truncate: bool) -> Self:
        """Open a file, or say in a sentence why it is not a video that can be read."""
        source = os.fspath(path) if isinstance(path, os.PathLike) else path
        name = source if isinstance(source, str) else repr(source)
        state = _state_of(source)
        container = _open_container(source, name)
        return cls(container, name, source=source, state=state, threads=threads, truncate=truncate)

    def read(self, ranks: Iterable[int]) -> Iterator[NDArray[np.uint8]]:
        """Yield views of the frames of these rising ranks, (H, W, 3) RGB, upright. Only these are converted."""
        ranks = list(ranks)
        self._plan(ranks)
        for rank in ranks:
            frame = self._frame(rank)
            size, look = (frame.width, frame.height), self.look()
            if size != look.stored_size:
                raise VideoError(
                    f"{self.name} changes from {look.stored_size} to {size} pixels at frame {rank}: all frames must "
                    "be of one size. Re-encode it to one size."
                )
            # One scaling thread: to start more takes longer than to convert a frame.
            plane = self._reformatter.reformat(frame, format="rgb24", threads=1).planes[0]
            image = np.ndarray((size[1], size[0], 3), np.uint8, memoryview(plane), strides=(plane.line_size, 3, 1))
            yield _upright(image, look.orientation)

    @property
    def has_look(self) -> bool:
        """Whether a frame was decoded, so that `look` needs none."""
        return self._look is not None

    def look(self) -> "Look":
        """Return what frames look like, from the first one decoded."""
        if self._look is None:
            self._frame(0)
        assert self._look is not None
        return self._look

    def close(self) -> None:
        """Release the file."""
        self.end_reading()
        self._container.close()

    def end_reading(self) -> None:
        """Release all but the container."""
        self._forget_position()
        self._end_packets()

    def _prepare(self) -> None:
        self._stream = self._choose_stream()
        self.codec = self._stream.codec_context.codec.canonical_name
        self.stated_rate = float(self._stream.average_rate or self._stream.guessed_rate or 1)

        self._index()
        if self._truncate or not self._is_trusted:
            self._index_by_decoding()

    def _choose_stream(self) -> VideoStream:
        container = self._container
        kind = container.format.name
        if kind in ("image2", "tty") or kind.endswith("_pipe"):
            raise VideoError(f"{self.name} is a picture or a text ({kind}), not a video. Leave it out.")
        streams = moving_pictures(container)
        if not streams:
            found = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
            raise VideoError(f"{self.name} must hold a video stream, but holds {found} ({kind}). Leave it out.")
        stream = streams[0]
        if stream.codec_context is None:
            raise VideoError(f"{self.name} is of a codec that this FFmpeg cannot decode. Re-encode it, e.g. to H.264.")
        if self._threads is not None:
            # Frame threads are faster, but patch damaged frames in another way than PyAV does by default.
            stream.thread_type = "AUTO" if self._is_trusted else "SLICE"
            stream.codec_context.thread_count = self._threads
        return stream

    # ---- which packet is which frame

    def _index(self) -> None:
        """Learn the frames' stamps and the key frames, from the packets or from what they were when last read."""
        index = _INDICES.get(self._state)
        if index is None or index.header != self._header():
            index = self._index_packets()
            if index is None:
                self._is_trusted = False
                return
            # A file that was replaced since would be known by a wrong index from now on.
            if self._state is not None and self._state == _state_of(self._source):
                _INDICES.put(self._state, index)
        self._stamps, self._positions, self._spare = index.stamps, index.positions, index.spare
        self._key_positions, self._key_ranks = index.key_positions, index.key_ranks
        self._key_decode_stamps, self._first_packet = index.key_decode_stamps, index.first_packet
        self.times = self._seconds(self._stamps)
        self.last_duration = float(self._seconds([index.last_duration])[0]) if index.last_duration else None

    def _index_packets(self) -> "_Index | None":
        """Read all packets without decoding them; None where their stamps are visibly not those of the frames."""
        rows = []
        is_whole = True
        extradata, is_vp8 = self._extradata_of_avc(), self.codec == "vp8"
        try:
            for packet in self._demux():
                stamp, size = packet.pts, packet.size
                if size or stamp is not None:  # otherwise it marks the end
                    shown = not packet.is_discard and not (is_vp8 and _is_hidden_vp8(packet))
                    spare = extradata is not None and _is_unreferenced(memoryview(packet), extradata)
                    flags = packet.is_keyframe, shown, packet.is_corrupt, spare
                    rows.append((stamp, packet.dts, packet.duration, size, *flags))
        except av.FFmpegError:
            is_whole = False  # decoding will meet the same damage, and tell
        if not rows:
            raise VideoError(f"{self.name} must hold at least one frame, but holds none. Copy or download it again.")

        pts, decode_stamps, durations, sizes, is_key, is_shown, is_corrupt, is_spare = zip(*rows, strict=True)
        self._first_packet = pts[0], sizes[0]
        smallest = SMALLEST_MPEG4_PICTURE if self.codec == "mpeg4" else 1
        is_sound = not (None in pts or any(is_corrupt) or min(sizes) < smallest)
        if not (is_whole and is_sound and is_key[0] and any(is_shown)):
            return None
        positions = np.flatnonzero(is_shown)
        stamps = np.array(pts, np.int64)[positions]
        order = np.argsort(stamps)
        are_unique = (np.diff(stamps[order]) > 0).all()
        # Frames are reordered, but their stamps are not: these must be stamps of decoding.
        are_unordered = self._stream.codec_context.has_b_frames and (np.diff(stamps) > 0).all()
        if not are_unique or are_unordered or pts[0] > stamps.min():
            return None
        places = positions[order].tolist()
        keys = sorted((position, rank) for rank, position in enumerate(places) if is_key[position])
        return _Index(
            stamps=array("q", stamps[order].tolist()),
            positions=array("q", places),
            spare=array("q", [rank for rank, position in enumerate(places) if is_spare[position]]),
            key_positions=array("q", [position for position, _ in keys]),
            key_ranks=array("q", [rank for _, rank in keys]),
            key_decode_stamps=array("q", [_or_no_stamp(decode_stamps[position]) for position, _ in keys]),
            first_packet=self._first_packet,
            last_duration=durations[places[-1]],
            header=self._header(),
        )

    def _header(self) -> tuple[Any, ...]:
        """Return what the head of the file says, which another file of the same name and size hardly shares."""
        stream, context = self._stream, self._stream.codec_context
        return stream.frames, stream.duration, stream.time_base, self.codec, context.has_b_frames, context.extradata

    def _extradata_of_avc(self) -> bytes | None:
        """Return the header of H.264 in MP4 or Matroska, whose packets tell if other frames refer to theirs, else None.

        Containers have a flag for it too, but it need not be true.
        """
        context = self._stream.codec_context
        extradata = context.extradata or b""
        return extradata if self.codec == "h264" and context.has_b_frames and extradata[:1] == b"\x01" else None

    def _index_by_decoding(self) -> None:
        """Count the frames by decoding all of them; their stamps are kept if all come out as expected."""
        was_trusted = self._is_trusted
        decoded: list[int | None] = []
        try:
            decoded.extend(frame.pts for _, frame in self._decode_from(0))
        except av.FFmpegError as error:
            if not self._truncate or not decoded:
                raise self._damaged(len(decoded), error) from error
        self._forget_position()
        if was_trusted and not self._is_trusted:
            return self._index_by_decoding()
        if not decoded:
            raise VideoError(f"{self.name} must hold at least one frame, but none decodes. Copy or download it again.")
        stamps = sorted(stamp for stamp in decoded if stamp is not None)
        is_stamped = len(stamps) == len(decoded)
        self.times = self._seconds(stamps) if is_stamped else np.arange(len(decoded)) / self.stated_rate
        self.last_duration = None
        return None

    def _seconds(self, stamps: Sequence[int]) -> NDArray[np.float64]:
        time_base = self._stream.time_base or Fraction(1)  # every demuxer sets one
        return np.asarray(stamps, np.float64) * time_base.numerator / time_base.denominator

    def _entry(self, rank: int) -> int:
        """Return the rank of the nearest key frame from which this frame can be decoded.

        Frames shown before a key frame but stored after it (leading frames of an open group of pictures) may refer to
        frames before it, so they need the key frame before.
        """
        if not self._is_trusted:
            return 0
        number = bisect_right(self._key_positions, self._positions[rank]) - 1
        while number > 0 and self._key_ranks[number] > rank:
            number -= 1
        return self._key_ranks[number] if number > 0 else 0

    # ---- decoding

    def _plan(self, ranks: Sequence[int]) -> None:
        """Choose the frames that need not be decoded: those that nobody asks for and no other frame refers to."""
        if not ranks or not self._is_trusted:
            return
        first, last = (bisect_left(self._spare, rank) for rank in (self._entry(ranks[0]), ranks[-1]))
        wanted = set(ranks)
        self._unwanted = {self._stamps[rank]: rank for rank in self._spare[first:last] if rank not in wanted}
        if any(rank >= ranks[0] for rank in self._left_out):
            self._forget_position()

    def _is_left_out(self, packet: Packet) -> bool:
        rank = self._unwanted.get(packet.pts) if self._is_trusted else None
        if rank is None:
            return False
        self._left_out.add(rank)
        return True

    def _frame(self, rank: int) -> VideoFrame:
        was_trusted = self._is_trusted
        frame = self._advance(rank)
        if frame is None and was_trusted:
            self._is_trusted = False
            self._index_by_decoding()
            frame = self._advance(rank) if rank < len(self.times) else None
        if frame is None:
            raise VideoError(
                f"{self.name} has no frame {rank}: more packets than frames, of which only {len(self.times)} decode. "
                "Take indices below len(reader)."
            )
        return frame

    def _advance(self, rank: int) -> VideoFrame | None:
        """Decode up to a frame, from where the decoder stands or from a key frame, whichever is nearer.

        None means that the frame did not come where its stamp promised it.
        """
        entry = self._entry(rank)
        if not self._position < rank or entry > self._position + WORTH_A_SEEK:
            self._walk = self._decode_from(entry)
        try:
            for position, frame in self._walk:
                self._position = position
                if position == rank:
                    return frame
        except av.FFmpegError as error:
            after = max(entry, self._position + 1) if self._position < rank else entry
            self._forget_position()
            raise self._damaged(after, error) from error
        self._forget_position()
        return None

    def _decode_from(self, entry: int) -> Iterator[tuple[int, VideoFrame]]:
        """Yield (rank, frame) from a key frame on; where a frame is not the one expected, distrust all stamps and stop.

        A damaged frame is not expected either: FFmpeg patches it with what was decoded before.
        """
        rank = entry
        self._left_out.clear()
        for packet in self._packets_from(entry):
            if self._is_left_out(packet):
                continue
            for frame in packet.decode():
                if self._look is None:
                    self._look = _look_of(frame)
                if self._is_trusted:
                    while rank in self._left_out:
                        rank += 1
                    if rank == entry and frame.pts is not None and frame.pts < self._stamps[entry]:
                        continue
                    is_expected = rank < len(self._stamps) and frame.pts == self._stamps[rank]
                    is_false_key = 0 < rank == entry and not frame.key_frame
                    if not is_expected or frame.is_corrupt or is_false_key:
                        self._is_trusted = False
                        return
                yield rank, frame
                rank += 1

    def _packets_from(self, entry: int) -> Iterator[Packet]:
        """Go to a key frame, or to one before it."""
        if entry == 0:
            return self._packets_from_start()
        position = self._positions[entry]
        decode_stamp = self._key_decode_stamps[bisect_left(self._key_positions, position)]
        # Some containers are searched by the time of showing (MP4, Matroska), some by that of decoding (MPEG-TS, AVI).
        for stamp in (self._stamps[entry], decode_stamp):
            with suppress(av.FFmpegError):
                if stamp == NO_STAMP:
                    continue
                self._container.seek(stamp, stream=self._stream)
                packets = self._demux()
                first = next(packets)
                if first.is_keyframe and self._is_at_or_before(first.pts, position):
                    return chain([first], packets)
        return self._packets_from_start()

    def _is_at_or_before(self, stamp: int | None, position: int) -> bool:
        if stamp is None:
            return False
        rank = bisect_left(self._stamps, stamp)
        return rank < len(self._stamps) and self._stamps[rank] == stamp and self._positions[rank] <= position

    def _packets_from_start(self) -> Iterator[Packet]:
        """Go back to the first packet, and make sure that it is the first."""
        if self._is_trusted or self._source is None:
            with suppress(av.FFmpegError):  # some cannot be sought in, e.g. a bare H.264 stream
                self._container.seek(min(self._first_packet[0] or 0, 0), stream=self._stream)
                packets = self._demux()
                first = next(packets)
                if (first.pts, first.size) == self._first_packet:
                    return chain([first], packets)
        if self._source is None:
            raise VideoError(f"{self.name} cannot go back to its start. Use VideoReader(path) instead of a container.")
        self._end_packets()
        self._container.close()
        if not isinstance(self._source, str):
            self._source.seek(0)
        self._container = _open_container(self._source, self.name)
        self._stream = self._choose_stream()
        return self._demux()

    def _demux(self) -> Iterator[Packet]:
        """Yield the packets from where the container stands, in place of those that were yielded before."""
        self._end_packets()
        packets = self._packets = self._container.demux(self._stream)
        return packets

    def _end_packets(self) -> None:
        """End the generator of packets: PyAV's loses memory for good where it is only dropped half-way."""
        if self._packets is not None:
            self._packets.close()

    def _forget_position(self) -> None:
        self._walk = iter(())
        self._position = sys.maxsize  # rank of the last frame decoded; no frame lies after this one

    def _damaged(self, frames: int, error: av.FFmpegError) -> VideoError:
        found = f"is damaged at frame {frames} ({error.strerror})"
        return VideoError(
            f"{self.name} {found}: every frame on the way to the one asked for must decode. "
            "Copy or download it again, or keep what comes before the damage with on_error='truncate'."
        )


def _or_no_stamp(stamp: int | None) -> int:
    return NO_STAMP if stamp is None else stamp


def _is_unreferenced(packet: memoryview, extradata: bytes) -> bool:
    """Look for the first slice in a packet of an MP4: its nal_ref_idc is 0 if no frame refers to it (H.264, 7.4.1)."""
    length_size = (extradata[4] & 3) + 1
    start = 0
    while start + length_size < len(packet):
        header = packet[start + length_size]
        if header & 31 in (1, 5):  # nal_unit_type: a slice
            return header & 0x60 == 0
        start += length_size + int.from_bytes(packet[start : start + length_size], "big")
    return False


_BACKENDS: dict[str, Any] = {"pyav": _PyAV, "torchcodec": TorchCodec}


def _open_container(source: str | BinaryIO, name: str) -> InputContainer:
    try:
        return av.open(source, mode="r", metadata_errors="replace")  # titles of old files are often not UTF-8
    except FileNotFoundError as error:
        raise VideoError(f"{name} must be an existing file, but there is none. Check the path.") from error
    except IsADirectoryError as error:
        raise VideoError(f"{name} must be a video file, but is a folder. Name the files in it.") from error
    except (av.FFmpegError, OSError) as error:
        is_empty = isinstance(source, str) and os.path.exists(source) and os.path.getsize(source) == 0
        found = "is empty (0 bytes)" if is_empty else f"is not one that FFmpeg can open ({error.strerror})"
        raise VideoError(f"{name} must be a video file, but {found}. Copy or download it again.") from error


def _is_hidden_vp8(packet: Packet) -> bool:
    """Tell a packet that only serves as a reference (RFC 6386, section 9.1: show_frame)."""
    return packet.size > 0 and not memoryview(packet)[0] & 0x10


class _Orientation(NamedTuple):
    """How a stored picture becomes upright: first the axes swap, then the new ones are flipped."""

    swap: bool = False
    flip_x: bool = False
    flip_y: bool = False


class Look(NamedTuple):
    """What the frames of a video look like: the properties of `VideoReader`, and how they are stored."""

    width: int
    height: int
    rotation: int
    pixel_format: str
    stored_size: tuple[int, int]
    orientation: _Orientation


def _look_of(frame: VideoFrame) -> Look:
    stored_size = frame.width, frame.height
    rotation, orientation = _orientation(frame)
    upright = stored_size[::-1] if orientation.swap else stored_size
    return Look(*upright, rotation, frame.format.name, stored_size, orientation)


def _orientation(frame: VideoFrame) -> tuple[int, _Orientation]:
    """Read the display matrix: x' = a x + c y, y' = b x + d y (ISO/IEC 14496-12, 6.2.2), y downwards."""
    # `frame.side_data` would tie the frame, and its memory, into a reference cycle.
    matrix: Any = SideDataContainer(frame).get("DISPLAYMATRIX")  # type: ignore[call-arg]  # a buffer
    if matrix is None:
        return 0, _Orientation()
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
    swap = abs(b) > abs(a)
    orientation = _Orientation(swap, flip_x=(c if swap else a) < 0, flip_y=(b if swap else d) < 0)
    mirrored = -1 if a * d < b * c else 1
    quarter_turns = round(math.atan2(mirrored * b, mirrored * a) / (math.pi / 2))
    return quarter_turns * 90 % 360, orientation


def _upright(image: NDArray[np.uint8], orientation: _Orientation) -> NDArray[np.uint8]:
    """(stored height, stored width, 3) -> (H, W, 3)."""
    if orientation.swap:
        image = image.transpose(1, 0, 2)
    return image[:: -1 if orientation.flip_y else 1, :: -1 if orientation.flip_x else 1]
