"""The back end ``pyav`` of `VideoReader`: FFmpeg's decoders by way of PyAV.

H height · W width · N frames in the file · rank: the number of a frame in presentation order
"""

import dataclasses
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any, BinaryIO, Self

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from videomae.errors import VideoError
from videomae.video.backends.conversion import FrameConverter, check_size
from videomae.video.backends.failures import library_errors
from videomae.video.backends.opening import choose_stream, open_file, too_slow
from videomae.video.backends.orientation import FrameFormat
from videomae.video.backends.packets import INDICES, FileState, codec_of, header_of, index_packets, state_of
from videomae.video.clock import Clock
from videomae.video.damage import Damage, DamageLog, OnError, PastDamage, packets_past_damage
from videomae.video.limits import ReadLimits
from videomae.video.source import shown

# Skipping more frames than this by a seek is faster than decoding them; to seek at every frame would idle threads.
WORTH_A_SEEK = 2

# Each decoding thread holds a frame: so many pixels in all, which are 8 frames of 4K.
MOST_PIXELS_IN_THREADS = 8 * 3840 * 2160

PACKETS_PER_LOOK = 256  # packets of a file that are read between two looks at the clock


class PyAVDecoder:
    """One video stream, decoded by PyAV (FFmpeg).

    Shown packets sorted by stamp are the frames in presentation order, if every such packet gives one frame and the
    stamps are those of showing. `index_packets` finds the files where this visibly fails. Where it fails otherwise,
    `decode_from` finds out on the way to a frame, as it compares the stamps that come out with those expected. In both
    cases `count_by_decoding` counts the frames, and every read decodes from the first packet.

    Attributes:
        times: seconds of each frame, (N,) float64.
        last_duration: seconds the last frame is shown, or None if the file does not say.
        clock: of the container.
        codec: as in `VideoReader`.
        is_trusted: whether all packets' stamps are taken for those of the frames that come out.
        damage: stretches that did not decode, or not cleanly, as far as is known.
        left_out: ranks of the frames that were not decoded on the way from the last key frame.
    """

    def __init__(
        self,
        container: InputContainer,
        name: str,
        *,
        source: str | BinaryIO | None = None,
        state: FileState | None = None,
        threads: int | None = None,
        on_error: OnError = "raise",
        fps: float | None = None,
        square_pixels: bool = False,
        limits: ReadLimits | None = None,
    ) -> None:
        self.name = name
        self._state = state  # of the file, from before it was opened
        self._container, self._source, self._threads, self._on_error = container, source, threads, on_error
        self._fps = fps
        self._limits = limits or ReadLimits.from_environment()
        self._packets: Any = None  # the generator that gives packets now
        self._walk: Iterator[tuple[int, VideoFrame]]
        self._position: int
        self._forget_position()
        self._skippable: dict[int | None, int] = {}  # stamps and ranks of those that need not be decoded now
        self.left_out: set[int] = set()
        self.is_trusted = True
        self.damage: list[Damage] = []
        self._losses: list[tuple[int, int | None, str]] = []  # frames before it, stamp if known, reason
        self._next = 0  # rank of the frame that comes out next
        try:
            with library_errors(name, doing="be opened"):
                self._prepare(square_pixels)
        except BaseException:
            if source is not None:
                self.close()
            raise

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str] | BinaryIO,
        *,
        threads: int,
        on_error: OnError,
        fps: float | None = None,
        square_pixels: bool = True,
        limits: ReadLimits | None = None,
    ) -> Self:
        """Open a file, or say in a sentence why it is not a video that can be read."""
        source = os.fspath(path) if isinstance(path, os.PathLike) else path
        name = shown(source) if isinstance(source, str) else repr(source)
        limits = limits or ReadLimits.from_environment()
        with library_errors(name, doing="be opened"):
            state = state_of(source)
            container = open_file(source, name, limits)
        about: dict[str, Any] = {"on_error": on_error, "fps": fps, "square_pixels": square_pixels, "limits": limits}
        return cls(container, name, source=source, state=state, threads=threads, **about)

    def read(self, ranks: Iterable[int]) -> Iterator[NDArray[np.uint8]]:
        """Yield views of the frames of these rising ranks, (H, W, 3) RGB, upright. Only these are converted."""
        ranks = list(ranks)
        with library_errors(self.name):
            self._plan(ranks)
            for rank in ranks:
                yield self._convert(self.frame_at(rank))

    @property
    def has_frame_format(self) -> bool:
        """Whether a frame was decoded, so that `frame_format` needs none."""
        return self._convert.frame_format is not None

    def frame_format(self) -> FrameFormat:
        """Return the format of the frames, learned from the first one decoded."""
        with library_errors(self.name):
            return self._convert.frame_format or self._convert.learn(self.frame_at(0))

    def close(self) -> None:
        """Release the file."""
        with library_errors(self.name, doing="be closed"):
            self.end_reading()
            self._container.close()

    def end_reading(self) -> None:
        """Release all but the container."""
        self._forget_position()
        self._end_packets()

    def _prepare(self, square_pixels: bool) -> None:
        self._stream = self._choose_stream()
        self.stream_index = self._stream.index
        check_size(self.name, *self._stated_size(), self._limits.max_pixels)
        aspect = float(self._stream.sample_aspect_ratio or 1) if square_pixels else 1.0
        self._convert = FrameConverter(self.name, pixel_aspect=aspect, max_pixels=self._limits.max_pixels)
        self.codec = codec_of(self._stream)
        self.clock = Clock.of(self._container, self._stream, fps=self._fps)
        self._learn_index()
        if self._on_error != "raise" or not self.is_trusted:
            self.count_by_decoding()

    def _stated_size(self) -> tuple[int, int]:
        """Return width and height by the header; FFmpeg keeps them to itself where it found them too large."""
        if self._stream.width or self._source is None:
            return self._stream.width, self._stream.height
        unlimited = dataclasses.replace(self._limits, max_pixels=sys.maxsize >> 34)
        with open_file(self._source, self.name, unlimited) as container:
            stream = choose_stream(container)
            return (0, 0) if stream is None else (stream.width, stream.height)

    def _choose_stream(self) -> VideoStream:
        container = self._container
        kind = container.format.name
        if kind in ("image2", "tty") or kind.endswith("_pipe"):
            raise VideoError(f"{self.name} is a picture or a text ({kind}), not a video. Leave it out.")
        stream = choose_stream(container)
        if stream is None:
            found = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
            raise VideoError(f"{self.name} must hold a video stream, but holds {found} ({kind}). Leave it out.")
        if stream.codec_context is None:
            raise VideoError(f"{self.name} is of a codec that this FFmpeg cannot decode. Re-encode it, e.g. to H.264.")
        if self._source is not None:
            stream.codec_context.options = {"max_pixels": str(self._limits.decoder_pixels)}
        if self._threads is not None:
            # Frame threads are faster, but patch damaged frames in another way than PyAV does by default.
            stream.thread_type = "AUTO" if self.is_trusted else "SLICE"
            most = MOST_PIXELS_IN_THREADS // max(stream.width * stream.height, 1)
            stream.codec_context.thread_count = max(min(self._threads, most), 1)
        return stream

    # ---- which packet is which frame

    def _learn_index(self) -> None:
        """Learn the frames' stamps and the key frames, from the packets or from what they were when last read."""
        index = INDICES.get(self._state)
        if index is None or index.header != header_of(self._stream):
            self._first_packet, index = index_packets(self._within_limits(), self._stream, name=self.name)
            if index is None:
                self.is_trusted = False
                return
            # A file that was replaced since would be known by a wrong index from now on.
            if self._state is not None and self._state == state_of(self._source):
                INDICES.put(self._state, index)
        self._index, self._first_packet = index, index.first_packet
        self.times = self.clock.times(index.stamps)
        last = index.last_duration if self.clock.is_stamped else None
        self.last_duration = float(self.clock.seconds([last])[0]) if last else None

    def count_by_decoding(self) -> None:
        """Count the frames by decoding all of them; their stamps are kept if all come out as expected."""
        was_trusted = self.is_trusted
        decoded: list[int | None] = []
        patched: list[bool] = []
        try:
            for _, frame in self.decode_from(0):
                patched.append(frame.is_corrupt)
                decoded.append(frame.pts)
        except av.FFmpegError as error:
            if self._on_error == "raise" or not decoded:
                raise self._damaged(len(decoded), error) from error
            self._lose(str(error.strerror))
        self._forget_position()
        if was_trusted and not self.is_trusted:
            return self.count_by_decoding()
        if not decoded:
            raise VideoError(f"{self.name} must hold at least one frame, but none decodes. Copy or download it again.")
        self.times = self.clock.times(decoded)
        self.last_duration = None
        self.damage = self._stretches(decoded, patched)
        return None

    def _stretches(self, stamps: Sequence[int | None], patched: Sequence[bool]) -> list[Damage]:
        """Return where frames were lost, or patched, in the pass that counted them."""
        log = DamageLog(self.clock)
        for before, stamp, reason in self._losses:
            after = (stamps[before - 1], float(self.times[before - 1])) if before else (self.clock.start, 0.0)
            log.lost(reason, stamp, after=after)
            if before < len(self.times):
                log.shown(float(self.times[before]))
        for rank in np.flatnonzero(patched):
            log.patched(float(self.times[rank]))
        return log.found

    def _lose(self, reason: str, packet: Packet | None = None) -> None:
        self._losses.append((self._next, None if packet is None else packet.pts, reason))

    def _entry(self, rank: int) -> int:
        """Return the rank of the nearest key frame from which this frame can be decoded."""
        return self._index.entry(rank) if self.is_trusted else 0

    # ---- decoding

    def _plan(self, ranks: Sequence[int]) -> None:
        """Choose the frames that need not be decoded: those that nobody asks for and no other frame refers to."""
        if not ranks or not self.is_trusted:
            return
        self._skippable = self._index.skippable(ranks)
        if any(rank >= ranks[0] for rank in self.left_out):
            self._forget_position()

    def _is_left_out(self, packet: Packet) -> bool:
        rank = self._skippable.get(packet.pts) if self.is_trusted else None
        if rank is None:
            return False
        self.left_out.add(rank)
        return True

    def frame_at(self, rank: int) -> VideoFrame:
        """Return a decoded frame."""
        was_trusted = self.is_trusted
        frame = self._advance(rank)
        if frame is None and was_trusted:
            self.is_trusted = False
            self.count_by_decoding()
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
            self._walk = self.decode_from(entry)
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

    def decode_from(self, entry: int) -> Iterator[tuple[int, VideoFrame]]:
        """Yield (rank, frame) from a key frame on; where a frame is not the one expected, distrust all stamps and stop.

        A damaged frame is not expected either: FFmpeg patches it with what was decoded before.
        """
        rank = self._next = entry
        self.left_out.clear()
        self._losses = []
        raises = self._on_error != "skip"
        decode = PastDamage(self._lose, clock=self.clock, stream=self._stream, raises=raises)
        for packet in self._packets_from(entry):
            if self._is_left_out(packet):
                continue
            for frame in decode(packet):
                self._convert.learn(frame)
                if self.is_trusted:
                    while rank in self.left_out:
                        rank += 1
                    if rank == entry and frame.pts is not None and frame.pts < self._index.stamps[entry]:
                        continue
                    is_expected = rank < len(self._index.stamps) and frame.pts == self._index.stamps[rank]
                    is_false_key = 0 < rank == entry and not frame.key_frame
                    if not is_expected or frame.is_corrupt or is_false_key or self._losses:
                        self.is_trusted = False
                        return
                yield rank, frame
                rank = self._next = rank + 1

    def _packets_from(self, entry: int) -> Iterator[Packet]:
        """Go to a key frame, or to one before it."""
        if entry == 0:
            return self._packets_from_start()
        for stamp in self._index.seek_stamps(entry):
            with suppress(av.FFmpegError):
                self._container.seek(stamp, stream=self._stream)
                packets = self._demux()
                first = next(packets)
                if first.is_keyframe and self._index.is_at_or_before(first.pts, entry):
                    return chain([first], packets)
        return self._packets_from_start()

    def _packets_from_start(self) -> Iterator[Packet]:
        """Go back to the first packet, and make sure that it is the first."""
        if self.is_trusted or self._source is None:
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
        self._container = open_file(self._source, self.name, self._limits)
        self._stream = self._choose_stream()
        return self._demux()

    def _demux(self) -> Iterator[Packet]:
        """Yield the packets from where the container stands, in place of those that were yielded before."""
        self._end_packets()
        packets = self._container.demux(self._stream)
        if self._on_error == "skip":
            packets = packets_past_damage(lambda: self._container.demux(self._stream), self._lose)
        self._packets = packets
        return packets

    def _within_limits(self) -> Iterator[Packet]:
        """Yield all packets, or raise a VideoError where they are too many, or take too long to read."""
        size = os.path.getsize(self._source) if isinstance(self._source, str) and os.path.exists(self._source) else 0
        allowed = self._limits.seconds_for(size)
        end = time.monotonic() + allowed
        for number, packet in enumerate(self._demux()):
            if number >= self._limits.max_packets:
                raise VideoError(
                    f"{self.name} holds more than {self._limits.max_packets:,} packets. Cut it, or allow more with "
                    "VIDEOMAE_MAX_PACKETS."
                )
            if number % PACKETS_PER_LOOK == 0 and time.monotonic() > end:
                raise VideoError(too_slow(self.name, allowed))
            yield packet

    def _end_packets(self) -> None:
        """End the generator of packets: PyAV's loses memory for good where it is only dropped half-way."""
        if self._packets is not None:
            self._packets.close()

    def _forget_position(self) -> None:
        self._walk = iter(())
        self._position = sys.maxsize  # rank of the last frame decoded; no frame lies after this one

    def _damaged(self, frames: int, error: av.FFmpegError) -> VideoError:
        if isinstance(error, av.error.ArgumentError) and not self._stream.width:
            return VideoError(
                f"{self.name} has frames of a size that FFmpeg refuses, most likely far too large: "
                f"{self._limits.max_pixels:,} pixels are the limit. Re-encode it to a smaller size."
            )
        found = f"is damaged at frame {frames} ({error.strerror})"
        return VideoError(
            f"{self.name} {found}: every frame on the way to the one asked for must decode. "
            "Copy or download it again, or keep what comes before the damage with on_error='truncate'."
        )
