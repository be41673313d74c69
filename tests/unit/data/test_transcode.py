"""A small copy of a video shows the same frames at the same times."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from support import shared_dir
from videomae.data import transcode
from videomae.data.copies import CopyJob
from videomae.data.transcode import Encoding, compare_copy
from videomae.errors import VideoError
from videomae.video.reader import VideoReader
from videos import copy_with_sound, moving_square, shift_packets, write_video

SMALL = Encoding(short_side=32, crf=10, preset="ultrafast")


def encode_here(source: Path, target: Path, encoding: Encoding = SMALL) -> CopyJob:
    """Make one file in this process, and check that it shows what the source does."""
    job = CopyJob(source.name, source, target, encoding)
    assert job.run(verify=True)[0]
    return job


def test_frames_keep_their_number_times_and_looks(tmp_path):
    times = np.cumsum([0.04 + 0.1 * (number % 7 == 0) for number in range(24)])
    source = write_video(tmp_path / "a.mp4", moving_square(24), times=times)
    job = encode_here(source, tmp_path / "out" / "a.mp4", Encoding(crf=10))
    with VideoReader(source) as before, VideoReader(job.target) as after:
        assert np.abs(before.times - after.times).max() < 1e-3
        differences = before.frames_at(range(24)).astype(int) - after.frames_at(range(24))
        assert (after.codec, after.pixel_format) == ("h264", "yuv420p")
    assert np.abs(differences).mean() < 5


@pytest.mark.parametrize("fps", [24000 / 1001, 60000 / 1001, 12.5])
def test_times_are_exactly_those_of_the_source_at_usual_rates(fps, tmp_path):
    """Else a frame at the start or the end of a stretch would fall to the other side of it."""
    source = write_video(tmp_path / "a.mp4", moving_square(24), fps=fps)
    job = encode_here(source, tmp_path / "b.mp4")
    with VideoReader(source) as before, VideoReader(job.target) as after:
        np.testing.assert_array_equal(after.times, before.times)


@pytest.mark.parametrize(
    ("size", "short_side", "expected"),
    [((48, 96), 32, (32, 64)), ((96, 48), 32, (64, 32)), ((48, 96), 256, (48, 96)), ((50, 70), 32, (32, 44))],
)
def test_the_short_side_shrinks_and_never_grows(size, short_side, expected, tmp_path):
    source = write_video(tmp_path / "a.mp4", moving_square(4, *size))
    job = encode_here(source, tmp_path / "b.mp4", Encoding(short_side=short_side))
    with VideoReader(job.target) as reader:
        assert (reader.height, reader.width) == expected


def test_odd_sides_become_even(tmp_path):
    source = write_video(tmp_path / "a.mkv", moving_square(4, 35, 51), codec="ffv1", pixel_format="bgr0")
    with VideoReader(encode_here(source, tmp_path / "b.mp4", Encoding()).target) as reader:
        assert (reader.height, reader.width) == (34, 50)


def test_turned_videos_become_upright(tmp_path):
    source = write_video(tmp_path / "a.mp4", moving_square(4, 48, 96), rotation=90)
    with VideoReader(encode_here(source, tmp_path / "b.mp4", Encoding()).target) as reader:
        assert (reader.height, reader.width, reader.rotation) == (96, 48, 0)


def test_pixels_become_square(tmp_path):
    source = tmp_path / "a.mp4"
    with av.open(str(source), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 60, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(8, 5)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(moving_square(1, 48, 60)[0], format="rgb24")))
        container.mux(stream.encode())
    with VideoReader(encode_here(source, tmp_path / "b.mp4", Encoding()).target) as reader:
        assert (reader.height, reader.width) == (48, 96)


def test_key_frames_are_as_close_as_asked_for(tmp_path):
    source = write_video(tmp_path / "a.mp4", moving_square(30), gop=250)
    job = encode_here(source, tmp_path / "b.mp4", Encoding(key_frame_distance=5))
    with av.open(str(job.target)) as container:
        keys = [i for i, frame in enumerate(container.decode(video=0)) if frame.key_frame]
    assert np.diff(keys).max() <= 5


def test_a_lower_frame_rate_keeps_frames_near_their_times(tmp_path):
    source = write_video(tmp_path / "a.mp4", moving_square(50), fps=25)
    job = encode_here(source, tmp_path / "b.mp4", Encoding(max_fps=10))
    with VideoReader(source) as before, VideoReader(job.target) as after:
        assert len(after) == 20
        assert after.fps == pytest.approx(10)
        shown = before.frames_at_times(after.times[:-1] + 1e-3).astype(int)
        assert np.abs(shown - after.frames_at(range(19))).mean() < 8
    assert encode_here(source, tmp_path / "c.mp4", Encoding(max_fps=60)).target.exists()
    with VideoReader(tmp_path / "c.mp4") as same:
        assert len(same) == 50


@pytest.mark.parametrize("picture_at", [0, 2])
def test_a_copy_shows_its_frames_at_the_seconds_of_its_source(picture_at, tmp_path):
    """A copy has no sound, whose start was that of the source's clock."""
    video = write_video(tmp_path / "video.mp4", moving_square(50))
    source = copy_with_sound(video, tmp_path / "late.ts", picture_at=picture_at)
    job = encode_here(source, tmp_path / "copy.mp4")
    with VideoReader(source) as original, VideoReader(job.target) as copy:
        np.testing.assert_allclose(copy.times, original.times, atol=1e-4)
        assert copy.start == pytest.approx(picture_at, abs=0.05)


def test_a_lower_rate_of_joined_recordings_leaves_out_none_of_a_lower_one(tmp_path):
    parts = [write_video(tmp_path / f"{seed}.ts", moving_square(30, seed=seed), b_frames=2) for seed in range(2)]
    source = tmp_path / "joined.ts"
    source.write_bytes(parts[0].read_bytes() + parts[1].read_bytes())
    job = encode_here(source, tmp_path / "copy.mp4", Encoding(max_fps=25))
    with VideoReader(job.target) as copy:
        np.testing.assert_allclose(copy.times, np.arange(60) / 25, atol=1e-4)


def test_a_lower_rate_costs_what_there_are_frames_not_what_the_clock_says(tmp_path):
    source = write_video(tmp_path / "source.mkv", moving_square(50), b_frames=0)
    jumping = shift_packets(source, tmp_path / "jumps.mkv", lambda number: 10_000_000 * (number >= 25))
    with VideoReader(jumping) as reader:
        ranks, stamps = transcode._schedule(reader, Encoding(max_fps=12.5))
    np.testing.assert_array_equal(ranks, np.arange(0, 50, 2))
    assert stamps[13] / transcode.CLOCK == pytest.approx(10_000_001, abs=0.2)


def test_a_pause_that_an_mp4_cannot_hold_is_named_and_leaves_nothing_behind(tmp_path):
    source = write_video(tmp_path / "source.ts", moving_square(50), b_frames=0)
    jumping = shift_packets(source, tmp_path / "jumps.ts", lambda number: 36_000 * (number >= 25))
    with pytest.raises(VideoError, match=r"copy\.mp4 cannot hold frames 36000 s apart: .* at 0\.96 s"):
        encode_here(jumping, tmp_path / "copy.mp4")
    assert {file.name for file in tmp_path.iterdir()} == {"source.ts", "jumps.ts"}


def test_sound_is_dropped(tmp_path):
    job = encode_here(shared_dir("clips") / "eating_spaghetti.mp4", tmp_path / "b.mp4")
    with av.open(str(job.target)) as container:
        assert [stream.type for stream in container.streams] == ["video"]


def test_a_video_that_cannot_be_read_leaves_nothing_behind(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"not a video")
    with pytest.raises(VideoError, match=r"a\.mp4"):
        encode_here(tmp_path / "a.mp4", tmp_path / "out" / "a.mp4")
    assert list((tmp_path / "out").iterdir()) == []


def test_verification_notices_other_pictures_and_missing_frames(tmp_path):
    job = encode_here(write_video(tmp_path / "a.mp4", moving_square(24)), tmp_path / "out.mp4")
    write_video(job.source, 255 - moving_square(24))
    with pytest.raises(VideoError, match="a picture differs"):
        compare_copy(job.source, job.target, job.encoding)
    write_video(job.source, moving_square(23))
    with pytest.raises(VideoError, match="must show 23 frames"):
        compare_copy(job.source, job.target, job.encoding)


@pytest.mark.parametrize("options", [{"short_side": 1}, {"crf": 60}, {"max_fps": 0}, {"preset": "quick"}])
def test_impossible_settings_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Encoding(**options)
