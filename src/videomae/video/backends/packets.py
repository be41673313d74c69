"""Which packet of a file is which frame, learned without decoding.

rank: the number of a frame in presentation order · position: the number of a packet in the file
"""

import os
import threading
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import Any, BinaryIO, NamedTuple

import av
import numpy as np
from av.packet import Packet
from av.video.stream import VideoStream

from videomae.errors import VideoError

# Smaller MPEG-4 packets are "not coded" pictures, for which no frame comes out.
SMALLEST_MPEG4_PICTURE = 16
NO_STAMP = -(1 << 63)  # as FFmpeg has it

FileState = tuple[str | int, ...]
FirstPacket = tuple[int | None, int]  # its stamp and size


class PacketIndex(NamedTuple):
    """Which packet of a file is which frame.

    Attributes:
        stamps: of each frame, rising.
        positions: of each frame's packet in the file.
        non_reference: ranks of the frames that no other frame refers to.
        key_positions: of the key frames' packets, rising.
        key_ranks: of the same frames.
        key_decode_stamps: when they are to be decoded; NO_STAMP where the file does not say.
        first_packet: its stamp and size.
        last_duration: of the last frame, in the units of the stamps.
        header: what the file's head says, as `header_of` gives it.
    """

    stamps: "array[int]"
    positions: "array[int]"
    non_reference: "array[int]"
    key_positions: "array[int]"
    key_ranks: "array[int]"
    key_decode_stamps: "array[int]"
    first_packet: FirstPacket
    last_duration: int | None
    header: tuple[Any, ...]

    def entry(self, rank: int) -> int:
        """Return the rank of the nearest key frame from which this frame can be decoded.

        Frames shown before a key frame but stored after it (leading frames of an open group of pictures) may refer to
        frames before it, so they need the key frame before.
        """
        number = bisect_right(self.key_positions, self.positions[rank]) - 1
        while number > 0 and self.key_ranks[number] > rank:
            number -= 1
        return self.key_ranks[number] if number > 0 else 0

    def skippable(self, ranks: Sequence[int]) -> dict[int | None, int]:
        """Return the stamps and ranks of frames that need not be decoded to get those of these rising ranks."""
        first, last = (bisect_left(self.non_reference, rank) for rank in (self.entry(ranks[0]), ranks[-1]))
        wanted = set(ranks)
        return {self.stamps[rank]: rank for rank in self.non_reference[first:last] if rank not in wanted}

    def seek_stamps(self, entry: int) -> list[int]:
        """Return the stamps by which a container may find a key frame.

        Some are searched by the time of showing (MP4, Matroska), some by that of decoding (MPEG-TS, AVI).
        """
        decode_stamp = self.key_decode_stamps[bisect_left(self.key_positions, self.positions[entry])]
        return [stamp for stamp in (self.stamps[entry], decode_stamp) if stamp != NO_STAMP]

    def is_at_or_before(self, stamp: int | None, entry: int) -> bool:
        """Tell whether the packet of this stamp lies in the file where that of a key frame does, or before it."""
        if stamp is None:
            return False
        rank = bisect_left(self.stamps, stamp)
        known = rank < len(self.stamps) and self.stamps[rank] == stamp
        return known and self.positions[rank] <= self.positions[entry]


def index_packets(
    packets: Iterable[Packet], stream: VideoStream, *, name: str
) -> tuple[FirstPacket, PacketIndex | None]:
    """Read all packets without decoding them.

    Args:
        packets: of the stream, from its first on.
        stream: what they belong to.
        name: of the file, for errors.

    Returns:
        Stamp and size of the first packet; and the index, or None where the packets' stamps are visibly not those of
        the frames.

    Raises:
        VideoError: if there is no packet.
    """
    rows = []
    is_whole = True
    extradata, is_vp8 = _extradata_of_avc(stream), codec_of(stream) == "vp8"
    try:
        for packet in packets:
            stamp, size = packet.pts, packet.size
            if size or stamp is not None:  # otherwise it marks the end
                shown = not packet.is_discard and not (is_vp8 and _is_hidden_vp8(packet))
                is_non_reference = extradata is not None and _is_unreferenced(memoryview(packet), extradata)
                flags = packet.is_keyframe, shown, packet.is_corrupt, is_non_reference
                rows.append((stamp, packet.dts, packet.duration, size, *flags))
    except av.FFmpegError:
        is_whole = False  # decoding will meet the same damage, and tell
    if not rows:
        raise VideoError(f"{name} must hold at least one frame, but holds none. Copy or download it again.")

    pts, dts, durations, sizes, is_key, is_shown, is_corrupt, non_reference = zip(*rows, strict=True)
    first_packet = pts[0], sizes[0]
    smallest = SMALLEST_MPEG4_PICTURE if codec_of(stream) == "mpeg4" else 1
    is_sound = not (None in pts or any(is_corrupt) or min(sizes) < smallest)
    if not (is_whole and is_sound and is_key[0] and any(is_shown)):
        return first_packet, None
    positions = np.flatnonzero(is_shown)
    stamps = np.array(pts, np.int64)[positions]
    order = np.argsort(stamps)
    are_unique = (np.diff(stamps[order]) > 0).all()
    # Frames are reordered, but their stamps are not: these must be stamps of decoding.
    are_unordered = stream.codec_context.has_b_frames and (np.diff(stamps) > 0).all()
    # A recording that was restarted, or several that were joined: their order is that of the file.
    decode_stamps = np.array([stamp for stamp, shown in zip(dts, is_shown, strict=True) if shown and stamp is not None])
    has_restarts = (np.diff(decode_stamps) < 0).any()
    if not are_unique or are_unordered or has_restarts or pts[0] > stamps.min():
        return first_packet, None
    places = positions[order].tolist()
    keys = sorted((position, rank) for rank, position in enumerate(places) if is_key[position])
    index = PacketIndex(
        stamps=array("q", stamps[order].tolist()),
        positions=array("q", places),
        non_reference=array("q", [rank for rank, position in enumerate(places) if non_reference[position]]),
        key_positions=array("q", [position for position, _ in keys]),
        key_ranks=array("q", [rank for _, rank in keys]),
        key_decode_stamps=array("q", [NO_STAMP if dts[position] is None else dts[position] for position, _ in keys]),
        first_packet=first_packet,
        last_duration=durations[places[-1]],
        header=header_of(stream),
    )
    return first_packet, index


def header_of(stream: VideoStream) -> tuple[Any, ...]:
    """Return what the head of the file says, which another file of the same name and size hardly shares."""
    context = stream.codec_context
    return stream.frames, stream.duration, stream.time_base, codec_of(stream), context.has_b_frames, context.extradata


def codec_of(stream: VideoStream) -> str:
    """Return FFmpeg's name of the codec, e.g. ``"h264"``."""
    return stream.codec_context.codec.canonical_name


def _extradata_of_avc(stream: VideoStream) -> bytes | None:
    """Return the header of H.264 in MP4 or Matroska, whose packets tell if other frames refer to theirs, else None.

    Containers have a flag for it too, but it need not be true.
    """
    context = stream.codec_context
    extradata = context.extradata or b""
    return extradata if codec_of(stream) == "h264" and context.has_b_frames and extradata[:1] == b"\x01" else None


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


def _is_hidden_vp8(packet: Packet) -> bool:
    """Tell a packet that only serves as a reference (RFC 6386, section 9.1: show_frame)."""
    return packet.size > 0 and not memoryview(packet)[0] & 0x10


class IndexCache(threading.local):
    """The indices of the files that a thread opened last: to read a small video's packets takes as long as six frames.

    A file is known by its path, where it lies on its disk, its size and when it was written.
    """

    def __init__(self, *, max_frames: int) -> None:
        self._max_frames = max_frames
        self._num_frames = 0
        self._kept: dict[FileState, PacketIndex] = {}  # the one used last at the end

    def get(self, state: FileState | None) -> PacketIndex | None:
        """Return what is kept of a file, which thereby is the one used last."""
        if state is None or state not in self._kept:
            return None
        index = self._kept[state] = self._kept.pop(state)
        return index

    def put(self, state: FileState, index: PacketIndex) -> None:
        """Keep an index as the one used last, and drop those not used for longest where there are too many."""
        self._drop(state)
        if len(index.stamps) > self._max_frames:
            return
        self._kept[state] = index
        self._num_frames += len(index.stamps)
        while self._num_frames > self._max_frames:
            self._drop(next(iter(self._kept)))

    def _drop(self, state: FileState) -> None:
        if state in self._kept:
            self._num_frames -= len(self._kept.pop(state).stamps)


INDICES = IndexCache(max_frames=1 << 19)  # about 10 MB


def state_of(source: str | BinaryIO | None) -> FileState | None:
    """Return what changes when a file does, or None for what is no file."""
    if not isinstance(source, str):
        return None
    try:
        status = os.stat(source)
    except (OSError, ValueError):  # a NUL in a name is a ValueError
        return None
    return os.path.abspath(source), status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
