"""Frames by number must be those of a plain decode from the start, whatever the container says."""

import ctypes
import gc
import os
import subprocess
import sys
import tracemalloc
from io import BytesIO
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from support import shared_dir
from videomae.data.transcode import FAST_TO_DECODE
from videomae.errors import VideoError
from videomae.video.backends.pyav import PyAVDecoder
from videomae.video.reader import VideoReader, read_video_pyav
from videos import decode_in_sequence, moving_square, write_video

OPEN_GOP = {"x264-params": "open-gop=1:scenecut=0:log-level=none"}
ENCODINGS = {
    "h264-b-frames.mp4": {"b_frames": 3},
    "h264-one-group.mp4": {"gop": 250},
    "h264-as-prepared.mp4": {"gop": 33, "options": FAST_TO_DECODE},
    "h264-open-groups.mp4": {"b_frames": 3, "options": OPEN_GOP},
    "h264-open-groups.mkv": {"b_frames": 3, "options": OPEN_GOP},
    "h264-intra-refresh.mkv": {"options": {"x264-params": "intra-refresh=1:keyint=20:log-level=none"}},
    "h264-b-frames.ts": {"b_frames": 3},
    "h264-b-frames.flv": {"b_frames": 3},
    "h264-stamps-of-decoding.avi": {"b_frames": 3},
    "h264-no-stamps.h264": {"b_frames": 3},
    "h264-10-bit.mp4": {"pixel_format": "yuv420p10le"},
    "hevc-open-groups.mp4": {"codec": "libx265", "options": {"x265-params": "keyint=12:log-level=none"}},
    "hevc-open-groups.ts": {"codec": "libx265", "options": {"x265-params": "keyint=12:log-level=none"}},
    "mpeg4.avi": {"codec": "mpeg4"},
    "mpeg4-b-frames.avi": {"codec": "mpeg4", "b_frames": 2},
    "mpeg2-b-frames.mpg": {"codec": "mpeg2video", "b_frames": 2},
    "vp8.webm": {"codec": "libvpx", "options": {"auto-alt-ref": "1", "lag-in-frames": "25", "deadline": "good"}},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"lag-in-frames": "25"}},
    "vp9-alpha.webm": {"codec": "libvpx-vp9", "pixel_format": "yuva420p"},
    "every-frame-a-key.avi": {"codec": "mjpeg", "pixel_format": "yuvj420p"},
    "animation.gif": {"codec": "gif", "pixel_format": "rgb8"},
    "variable-rate.mp4": {"times": np.cumsum([0.04 + 0.1 * (number % 7 == 0) for number in range(60)])},
}
# These must be read by seeking: falling back to the start would be right too, but slow.
DECODED_FROM_THE_START = {"h264-intra-refresh.mkv", "h264-stamps-of-decoding.avi", "h264-no-stamps.h264"}
CLIPS = [
    "alpha.webm",
    "arm_wrestling_340x256.mp4",
    "av1.mkv",
    "eating_spaghetti.mp4",
    "flipping_a_pancake.mkv",
    "goat_mpeg4.mp4",
    "h264_10bit.mp4",
    "header_444_decodes_68.avi",
    "hevc_10bit.mp4",
    "no_duration.webm",
    "nonmonotonic_pts.mp4",
    "one_pixel.mp4",
    "pendulum.gif",
    "rate_29_97.mp4",
    "rotation_0.mov",
    "rotation_180.mov",
    "rotation_270.mov",
    "rotation_90.mov",
    "tiny_4_frames_unordered.mov",
    "variable_rate.mp4",
]


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return write_video(tmp_path / "video.mp4", moving_square(), b_frames=3)


@pytest.fixture
def counted_decodings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files whose stamps were given up."""
    names = []
    count = PyAVDecoder.count_by_decoding
    monkeypatch.setattr(PyAVDecoder, "count_by_decoding", lambda video: (names.append(video.name), count(video))[1])
    return names


def check_every_way_to_read(reader: VideoReader, expected: np.ndarray, *, single_frames: int = 12) -> None:
    count = len(expected)
    assert len(reader) == reader.num_frames == len(reader.times) == count
    assert expected.shape[1:] == (reader.height, reader.width, 3)
    rng = np.random.default_rng(count)
    random = rng.integers(0, count, 8)
    window = np.arange(count * 2 // 3, min(count * 2 // 3 + 16, count))
    choices = [[0], [count - 1], random, np.sort(random), window, window[::-1], [count - 1, 0, 0, count // 2, 0], []]
    for indices in [*choices, *rng.integers(0, count, (single_frames, 1))]:
        got = reader.frames_at(indices)
        assert got.dtype == np.uint8
        np.testing.assert_array_equal(got, expected[np.asarray(indices, int)])
    for (seconds, frame), time, image in zip(reader, reader.times, expected, strict=True):
        assert seconds == time
        np.testing.assert_array_equal(frame, image)


@pytest.mark.parametrize("name", ENCODINGS)
def test_frames_are_those_of_a_plain_decode(name, tmp_path, counted_decodings):
    path = write_video(tmp_path / name, moving_square(), **ENCODINGS[name])
    expected, times = decode_in_sequence(path)
    with VideoReader(path) as reader:
        check_every_way_to_read(reader, expected)
        if None not in times:
            np.testing.assert_allclose(reader.times, sorted(times), rtol=0, atol=1e-9)
        assert (np.diff(reader.times) > 0).all()
    assert bool(counted_decodings) == (name in DECODED_FROM_THE_START)
    with VideoReader(path) as again:  # by what is remembered of the file
        check_every_way_to_read(again, expected)
        np.testing.assert_array_equal(again.times, reader.times)
        assert (again.fps, again.duration) == (reader.fps, reader.duration)


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_do_not_change_frames(threads, video):
    with VideoReader(video, threads=threads) as reader:
        check_every_way_to_read(reader, decode_in_sequence(video)[0])


@pytest.mark.parametrize("name", CLIPS)
def test_shared_clips_are_those_of_a_plain_decode(name):
    path = shared_dir("clips") / name
    expected, _ = decode_in_sequence(path)
    with VideoReader(path, square_pixels=False) as reader:
        upright = np.rot90(expected, -reader.rotation // 90, axes=(1, 2))
        check_every_way_to_read(reader, upright, single_frames=3)


@pytest.mark.parametrize(("name", "reason"), [("zero_bytes.webm", "is empty"), ("audio_only.mp3", "holds audio")])
def test_shared_clips_that_are_no_videos_are_refused(name, reason):
    with pytest.raises(VideoError, match=rf"{name} must .*{reason}"):
        VideoReader(shared_dir("clips") / name)


def test_a_damaged_file_is_refused_where_it_is_damaged():
    path = shared_dir("clips") / "corrupted_28_of_50.mp4"
    expected, _ = decode_in_sequence(path)
    with VideoReader(path) as reader:
        np.testing.assert_array_equal(reader.frames_at([20, 3]), expected[[20, 3]])
        with pytest.raises(VideoError, match=r"corrupted_28_of_50.mp4 is damaged at frame 28 .*on_error='truncate'"):
            reader.frames_at(range(50))
        np.testing.assert_array_equal(reader.frames_at([5]), expected[[5]])
        with pytest.raises(VideoError, match="damaged"):
            list(reader)


def test_a_damaged_file_ends_before_the_damage_on_request():
    path = shared_dir("clips") / "corrupted_28_of_50.mp4"
    expected, _ = decode_in_sequence(path)
    assert len(expected) == 28
    with VideoReader(path, on_error="truncate") as reader:
        check_every_way_to_read(reader, expected)


def test_truncating_leaves_a_sound_file_whole(video):
    with VideoReader(video, on_error="truncate") as reader:
        check_every_way_to_read(reader, decode_in_sequence(video)[0])


def test_a_file_cut_short_has_the_frames_it_still_holds(tmp_path):
    path = write_video(tmp_path / "video.mkv", moving_square(), b_frames=3)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    expected, _ = decode_in_sequence(path)
    assert len(expected) < 60
    with VideoReader(path, on_error="truncate") as reader:
        check_every_way_to_read(reader, expected)


def test_a_damaged_picture_is_patched_as_a_plain_decode_patches_it(tmp_path, counted_decodings):
    """FFmpeg patches with what it decoded before, so another way to the frame would give another picture."""
    path = write_video(tmp_path / "video.mp4", moving_square(), b_frames=3)
    with av.open(str(path)) as container:
        packet = next(packet for number, packet in enumerate(container.demux(video=0)) if number == 27)
    content = bytearray(path.read_bytes())
    content[packet.pos + packet.size // 3 : packet.pos + packet.size] = bytes(packet.size - packet.size // 3)
    path.write_bytes(content)
    with VideoReader(path) as reader:
        check_every_way_to_read(reader, decode_in_sequence(path)[0])
    assert counted_decodings


def copy_packets(source: Path, target: Path, change, **options: str) -> Path:
    """Copy a video without decoding it; ``change(number, packet)`` alters a packet or gives another in its place."""
    with av.open(str(source)) as reading, av.open(str(target), "w", options=options) as writing:
        stream = writing.add_stream_from_template(reading.streams.video[0])
        for number, packet in enumerate(reading.demux(video=0)):
            if packet.dts is not None:
                changed = change(number, packet) or packet
                changed.stream = stream
                writing.mux(changed)
    return target


def with_content(packet: av.Packet, content: bytes) -> av.Packet:
    changed = av.Packet(content)
    changed.pts, changed.dts, changed.time_base = packet.pts, packet.dts, packet.time_base
    return changed


def test_packets_that_repeat_a_picture_are_not_counted(tmp_path):
    """MPEG-4 has pictures that say only "as before"; FFmpeg gives no frame for them."""
    source = write_video(tmp_path / "source.avi", moving_square(), codec="mpeg4")
    not_coded = bytes([0, 0, 1, 0xB6, 0x50, 0xCF])
    path = copy_packets(
        source, tmp_path / "v.avi", lambda n, packet: with_content(packet, not_coded) if n == 5 else None
    )
    expected, _ = decode_in_sequence(path)
    assert len(expected) == 59
    with VideoReader(path) as reader:
        check_every_way_to_read(reader, expected)


def test_packets_that_are_only_referred_to_are_not_counted(tmp_path, counted_decodings):
    source = write_video(tmp_path / "source.webm", moving_square(), codec="libvpx")

    def hide(number, packet):
        content = bytes(packet)
        return with_content(packet, bytes([content[0] & ~0x10]) + content[1:]) if number in (5, 30) else None

    path = copy_packets(source, tmp_path / "video.webm", hide)
    expected, _ = decode_in_sequence(path)
    assert len(expected) == 58
    with VideoReader(path) as reader:
        check_every_way_to_read(reader, expected)
    assert not counted_decodings


@pytest.mark.parametrize("frames_cut", [5, 17])
def test_frames_that_an_edit_list_cuts_off_are_not_counted(frames_cut, tmp_path, counted_decodings):
    source = write_video(tmp_path / "source.mp4", moving_square(), b_frames=3)

    def move_back(number, packet):
        ticks = round(frames_cut / 25 / packet.time_base)
        packet.pts, packet.dts = packet.pts - ticks, packet.dts - ticks

    path = copy_packets(source, tmp_path / "video.mp4", move_back, avoid_negative_ts="disabled", use_editlist="1")
    expected, _ = decode_in_sequence(path)
    assert len(expected) == 60 - frames_cut
    with VideoReader(path) as reader:
        check_every_way_to_read(reader, expected)
    assert not counted_decodings


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_frames_are_turned_as_players_turn_them(rotation, mirror, tmp_path):
    path = write_video(tmp_path / "video.mp4", moving_square(4), rotation=rotation, mirror=mirror)
    stored, _ = decode_in_sequence(path)
    upright = np.rot90(stored, -rotation // 90, axes=(1, 2))
    with VideoReader(path) as reader:
        check_every_way_to_read(reader, upright[:, :, ::-1] if mirror else upright)
        if not mirror:
            assert reader.rotation == rotation


def test_the_facts_about_a_video_are_read(video):
    with VideoReader(video) as reader:
        assert (reader.width, reader.height, reader.rotation) == (96, 64, 0)
        assert (reader.codec, reader.pixel_format) == ("h264", "yuv420p")
        assert reader.fps == 25
        assert reader.duration == pytest.approx(60 / 25)
        np.testing.assert_allclose(reader.times, np.arange(60) / 25)


def test_the_header_is_not_believed_where_the_frames_contradict_it():
    with VideoReader(shared_dir("clips") / "header_444_decodes_68.avi") as reader:
        assert len(reader) == 68
        assert reader.fps == pytest.approx(67 / (443 * 0.066667))


def test_the_average_rate_of_a_variable_rate_is_that_of_its_times(tmp_path):
    times = np.cumsum([0.04, *[0.1] * 29])
    with VideoReader(write_video(tmp_path / "video.mkv", moving_square(30), times=times)) as reader:
        np.testing.assert_allclose(reader.times, times - times[0], atol=1e-9)
        assert reader.fps == pytest.approx(10)


def test_a_time_gives_the_frame_shown_then(tmp_path):
    times = [0, 0.1, 0.5, 0.52, 1.2]
    path = write_video(tmp_path / "video.mkv", moving_square(5), times=times)
    expected, _ = decode_in_sequence(path)
    with VideoReader(path) as reader:
        got = reader.frames_at_times([0, 0.09, 0.1, 0.49, 0.51, 1.2, 0.3])
        np.testing.assert_array_equal(got, expected[[0, 0, 1, 1, 2, 4, 1]])
        np.testing.assert_array_equal(reader.frames_at_times(reader.times), expected)
        np.testing.assert_array_equal(reader.frames_at_times(np.nextafter(reader.times, 0)[1:]), expected[1:])


@pytest.mark.parametrize("seconds", [-0.1, 2.5, float("nan")])
def test_a_time_outside_the_video_is_refused(seconds, video):
    with VideoReader(video) as reader, pytest.raises(VideoError, match=r"shows nothing at .* from 0 s to 2\.4 s"):
        reader.frames_at_times([0.5, seconds])


@pytest.mark.parametrize("index", [-1, 60, 10**9])
def test_an_index_outside_the_video_is_refused(index, video):
    with VideoReader(video) as reader, pytest.raises(VideoError, match=rf"has no frame {index}: .* from 0 to 59"):
        reader.frames_at([0, index])


def test_an_index_that_is_no_whole_number_is_refused(video):
    with VideoReader(video) as reader, pytest.raises(TypeError, match="integer"):
        reader.frames_at([1.5])


def test_reading_during_iteration_disturbs_nothing(video):
    expected, _ = decode_in_sequence(video)
    with VideoReader(video) as reader:
        for number, (_, frame) in enumerate(reader):
            other = (number * 37 + 11) % 60
            np.testing.assert_array_equal(frame, expected[number])
            np.testing.assert_array_equal(reader.frames_at([other]), expected[[other]])
        pairs = [(first[1], second[1]) for first, second in zip(reader, reader, strict=True)]
    for (first, second), image in zip(pairs, expected, strict=True):
        np.testing.assert_array_equal(first, image)
        np.testing.assert_array_equal(second, image)


def test_a_binary_file_object_is_read_and_left_open(tmp_path):
    for name in ("h264-b-frames.mp4", "h264-no-stamps.h264"):
        path = write_video(tmp_path / name, moving_square(), **ENCODINGS[name])
        file = BytesIO(path.read_bytes())
        with VideoReader(file) as reader:
            check_every_way_to_read(reader, decode_in_sequence(path)[0])
        assert not file.closed


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("text.mp4", b"These are not the bytes you are looking for.\n" * 50, "not one that FFmpeg can open"),
        ("text.txt", b"These are not the bytes you are looking for.\n" * 50, "is a picture or a text"),
        ("empty.mp4", b"", r"is empty \(0 bytes\)"),
        ("missing.mp4", None, "must be an existing file"),
    ],
)
def test_what_is_not_a_video_is_refused_in_a_sentence(name, content, reason, tmp_path):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(VideoError, match=reason) as caught:
        VideoReader(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(VideoError, match="is a folder"):
        VideoReader(tmp_path)


def test_a_picture_is_refused(tmp_path):
    for name in ("picture.png", "picture.jpg"):
        Image.new("RGB", (16, 16)).save(tmp_path / name)
        with pytest.raises(VideoError, match="is a picture"):
            VideoReader(tmp_path / name)


def test_a_frame_of_another_size_is_scaled_to_the_first(tmp_path, caplog):
    path = tmp_path / "video.ts"
    small = write_video(tmp_path / "small.ts", moving_square(5))
    large = write_video(tmp_path / "large.ts", moving_square(5, 128, 192))
    path.write_bytes(small.read_bytes() + large.read_bytes())
    with VideoReader(path) as reader:
        frames = reader.frames_at(range(10))
    with VideoReader(large) as reader:
        halved = reader.frames_at(range(5)).reshape(5, 64, 2, 96, 2, 3).mean((2, 4))
    assert frames.shape == (10, 64, 96, 3)
    assert np.abs(frames[5:] - halved).mean() < 4
    assert caplog.text.count("changes from (96, 64) to (192, 128) pixels: scaled to the first size") == 1


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"on_error": "ignore"}, "on_error must be one of"),
        ({"backend": "vhs"}, "backend must be"),
        ({"threads": 0}, "1"),
    ],
)
def test_an_impossible_option_is_refused(options, rule, video):
    with pytest.raises(ValueError, match=rule):
        VideoReader(video, **options)


def test_a_closed_reader_keeps_its_facts_and_refuses_to_read(video):
    with VideoReader(video) as reader:
        pass
    assert len(reader) == 60
    with pytest.raises(ValueError, match="is closed"):
        reader.frames_at([0])
    with pytest.raises(ValueError, match="is closed"):
        next(iter(reader))


def test_libav_writes_nothing_to_the_terminal(capfd):
    path = shared_dir("clips") / "corrupted_28_of_50.mp4"
    with VideoReader(path, on_error="truncate") as reader:
        reader.frames_at([0])
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files as Linux lists them")
def test_no_file_stays_open(tmp_path):
    paths = [
        write_video(tmp_path / name, moving_square(), **ENCODINGS[name]) for name in sorted(DECODED_FROM_THE_START)
    ]
    audio = shared_dir("clips") / "audio_only.mp3"
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for path in paths:
        with VideoReader(path) as reader:
            reader.frames_at([7, 50])
            next(iter(reader))
    kept = []
    with pytest.raises(VideoError) as caught:
        VideoReader(audio)
    kept.append(caught)
    assert len(os.listdir("/proc/self/fd")) == before


def test_without_peek_a_clip_is_the_same_and_the_size_known_when_asked_for(video):
    with VideoReader(video) as expected, VideoReader(video, peek=False) as reader:
        np.testing.assert_array_equal(reader.frames_at([40, 44]), expected.frames_at([40, 44]))
    assert (reader.width, reader.height, reader.rotation) == (expected.width, expected.height, expected.rotation)
    with VideoReader(video, peek=False) as reader:
        assert reader.frames_at([]).shape == (0, expected.height, expected.width, 3)
        assert reader.pixel_format == expected.pixel_format
    with VideoReader(video, peek=False) as reader:
        pass
    with pytest.raises(ValueError, match="closed"):
        _ = reader.width


def test_without_peek_damage_at_the_start_shows_when_it_is_read(tmp_path):
    video = write_video(tmp_path / "a.mp4", moving_square(60, 64, 96), codec="libx264", gop=30)
    data = bytearray(video.read_bytes())
    start = data.index(b"mdat") + 4
    for _ in ("encoder's settings", "first frame"):
        begin, length = start + 5, int.from_bytes(data[start : start + 4], "big")
        start += 4 + length
    data[begin:start] = b"\xff" * (length - 1)
    video.write_bytes(data)
    with pytest.raises(VideoError, match="damaged at frame 0"):
        VideoReader(video)
    with VideoReader(video, peek=False) as reader, pytest.raises(VideoError, match="damaged at frame 0"):
        reader.frames_at([0])


def test_a_closed_reader_leaves_nothing_for_the_garbage_collector(video):
    """Frames hold much memory outside Python's heap, so the collector would wait long with them."""
    gc.collect()
    gc.disable()
    try:
        with VideoReader(video) as reader:
            reader.frames_at([7, 50])
            next(iter(reader))
        del reader
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_iteration_holds_one_frame_at_a_time(tmp_path):
    path = write_video(tmp_path / "video.mp4", moving_square(200, 256, 256))
    frame_bytes = 256 * 256 * 3
    with VideoReader(path) as reader:
        tracemalloc.start()
        assert sum(1 for _ in reader) == 200
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 4 * frame_bytes


def test_importing_the_reader_needs_no_torch():
    code = "import sys, videomae.video.reader; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_usage_example_reads_the_same_frames(video):
    expected, _ = decode_in_sequence(video)
    with av.open(str(video)) as container:
        indices = np.arange(35, 51)
        np.testing.assert_array_equal(read_video_pyav(container, indices), expected[indices])
        np.testing.assert_array_equal(read_video_pyav(container, [7, 3, 3, 59]), expected[[7, 3, 3, 59]])
        assert read_video_pyav(container, []).shape == (0, 64, 96, 3)
        assert next(container.decode(video=0)).width == 96


def test_the_usage_example_pads_a_short_video_with_its_last_frame(tmp_path):
    path = write_video(tmp_path / "video.mp4", moving_square(5))
    expected, _ = decode_in_sequence(path)
    with av.open(str(path)) as container:
        got = read_video_pyav(container, range(8))
        np.testing.assert_array_equal(got, expected[[0, 1, 2, 3, 4, 4, 4, 4]])
        with pytest.raises(VideoError, match="must be 0 or more, got -2"):
            read_video_pyav(container, [0, -2])


class _MallocState(ctypes.Structure):
    """What glibc's mallinfo2 returns."""

    _fields_ = (
        *((name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "mapped", "usmblks", "fsmblks")),
        *((name, ctypes.c_size_t) for name in ("in_use", "fordblks", "keepcost")),
    )


def memory_in_use() -> int:
    """Return the bytes that C code of this process holds, which Python's own accounts do not know."""
    count = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if count is None:
        pytest.skip("only glibc from 2.33 on tells")
    count.restype = _MallocState
    gc.collect()
    state = count()
    return state.in_use + state.mapped


def test_reading_here_and_there_loses_no_memory(tmp_path):
    video = write_video(tmp_path / "keys.mp4", moving_square(60, 32, 32), codec="libx264", gop=1)

    def read(times: int) -> None:
        for _ in range(times):
            with VideoReader(video, threads=1) as reader:
                reader.frames_at(range(0, 60, 4))
            with av.open(str(video)) as container:
                read_video_pyav(container, [3])

    read(50)
    before = memory_in_use()
    read(200)
    lost = memory_in_use() - before
    assert lost < 100_000  # 150 bytes of each seek would be 480,000
