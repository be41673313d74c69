"""Small synthetic videos, really encoded, for all tests; and the plain decoding that readers are compared with."""

from collections.abc import Callable, Collection, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]  # (T, H, W, 3) RGB


def moving_square(num_frames: int = 60, height: int = 64, width: int = 96, *, seed: int = 0) -> Frames:
    """A bright square that moves to the right over a noisy background that gets lighter; no two frames are alike."""
    noise = np.random.default_rng(seed).integers(0, 60, (height, width, 3), dtype=np.uint8)
    frames = np.empty((num_frames, height, width, 3), np.uint8)
    side = max(min(height, width) // 4, 1)
    top = (height - side) // 2
    for number, frame in enumerate(frames):
        frame[:] = noise + number * 3 % 128
        left = number * 2 % (width - side + 1)
        frame[top : top + side, left : left + side] = (255, 200, number % 256)
    return frames


def write_video(
    path: Path | str,
    frames: Frames,
    *,
    fps: float = 25,
    codec: str = "libx264",
    gop: int = 12,
    b_frames: int | None = None,
    pixel_format: str = "yuv420p",
    times: Sequence[float] | None = None,
    rotation: int = 0,
    mirror: bool = False,
    pixel_aspect: Fraction | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """Encode frames; the ending of the path chooses the container.

    Args:
        path: file to write.
        frames: (T, H, W, 3) uint8 RGB; even sizes for ``yuv420p``.
        fps: frames per second.
        codec: name of an FFmpeg encoder.
        gop: frames from one key frame to the next, at most.
        b_frames: frames in a row that refer to later ones; the encoder's default if None.
        pixel_format: how pixels are stored.
        times: seconds of each frame, for a variable rate; to the millisecond.
        rotation: degrees clockwise that a player turns the picture: 0, 90, 180 or 270.
        mirror: a player swaps left and right, after the rotation.
        pixel_aspect: width of a stored pixel over its height.
        options: further options of the encoder.
    """
    with av.open(str(path), "w") as container:
        rate = Fraction(fps).limit_denominator(1001)
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixel_format
        stream.options = {"g": str(gop), **(options or {})}
        if pixel_aspect is not None:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        if b_frames is not None:
            stream.codec_context.max_b_frames = b_frames
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if rotation or mirror:
            stream.set_display_rotation(-rotation, hflip=mirror)
        for number, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.time_base = 1 / rate if times is None else Fraction(1, 1000)
            frame.pts = number if times is None else round(times[number] * 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return Path(path)


def decode_in_sequence(path: Path | str) -> tuple[Frames, list[float | None]]:
    """Decode a file from its start with nothing but PyAV, up to its end or its first damage.

    Returns the frames, and their times as the container has them, from its start on.
    """
    images, times = [], []
    with av.open(str(path)) as container:
        start = (container.start_time or 0) / av.time_base
        try:
            for frame in container.decode(video=0):
                images.append(frame.to_ndarray(format="rgb24"))
                times.append(None if frame.time is None else frame.time - start)
        except av.FFmpegError:
            pass
    return np.stack(images), times


def shift_packets(source: Path, target: Path, seconds: Callable[[int], float]) -> Path:
    """Copy a video without decoding it, each packet later by ``seconds(number of the packet)``."""
    options = {"mpegts_copyts": "1"} if target.suffix == ".ts" else {}
    with av.open(str(source)) as reading, av.open(str(target), "w", options=options) as writing:
        stream = writing.add_stream_from_template(reading.streams.video[0])
        for number, packet in enumerate(reading.demux(video=0)):
            if packet.dts is not None and packet.pts is not None and packet.time_base is not None:
                later = round(seconds(number) / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts + later, packet.dts + later, stream
                writing.mux(packet)
    return target


def copy_with_sound(source: Path, target: Path, *, picture_at: float) -> Path:
    """Copy a video without decoding it, and add a sound that starts so many seconds before the picture."""
    with av.open(str(source)) as reading, av.open(str(target), "w") as writing:
        picture = writing.add_stream_from_template(reading.streams.video[0])
        sound = writing.add_stream("mp2" if target.suffix == ".ts" else "aac", rate=48000, layout="mono")
        for start in range(0, 48000 * 4, 1024):
            noise = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            noise.pts, noise.sample_rate, noise.time_base = start, 48000, Fraction(1, 48000)
            writing.mux(sound.encode(noise))
        writing.mux(sound.encode())
        for packet in reading.demux(video=0):
            if packet.dts is not None and packet.pts is not None and packet.time_base is not None:
                later = round(picture_at / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts + later, packet.dts + later, picture
                writing.mux(packet)
    return target


def damage_packets(source: Path, target: Path, numbers: Collection[int]) -> Path:
    """Copy a file, with nonsense where the contents of some packets begin."""
    content = bytearray(source.read_bytes())
    with av.open(str(source)) as container:
        for number, packet in enumerate(container.demux(video=0)):
            if number in numbers:
                place = content.index(bytes(packet), packet.pos)
                content[place : place + 4] = b"\xff\xff\xff\xff"
    target.write_bytes(content)
    return target


def drop_ts_packets(source: Path, target: Path, *, fraction: float) -> Path:
    """Copy a .ts file without a fraction of its packets of 188 bytes, such as bad reception leaves out."""
    rng, content = np.random.default_rng(0), source.read_bytes()
    packets = [content[place : place + 188] for place in range(0, len(content), 188)]
    target.write_bytes(b"".join(p for number, p in enumerate(packets) if number < 5 or rng.random() > fraction))
    return target
