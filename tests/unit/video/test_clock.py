"""Time is what a player shows: from the start of the container, never back, and a gap is known as one."""

from fractions import Fraction

import numpy as np
import pytest

from support import shared_dir
from videomae.video.clock import Clock, Unwrapper
from videomae.video.reader import VideoReader
from videos import copy_with_sound, decode_in_sequence, moving_square, shift_packets, write_video

TICKS = Clock(
    Fraction(1, 1000), start=None, step=100, longest_step=10_000, reordered=4, fps=10, is_stamped=True
)  # a camera at 10 frames per second


def seconds_of(stamps, clock=TICKS):
    unwrap = Unwrapper(clock)
    return [unwrap(stamp) for stamp in stamps]


def test_time_follows_the_stamps_from_zero():
    assert seconds_of([100_000, 100_100, 100_400, 103_000]) == [0, 0.1, 0.4, 3]


def test_time_counts_from_the_start_of_the_container():
    assert seconds_of([5000, 5100], TICKS._replace(start=3000)) == [2, 2.1]


def test_stamps_that_go_back_go_on_from_frame_to_frame():
    assert seconds_of([5000, 5050, 5100, 0, 50, 100]) == [0, 0.05, 0.1, 0.15, 0.2, 0.25]


def test_stamps_that_jump_ahead_are_believed():
    assert seconds_of([0, 100, 36_000_000, 36_000_100]) == [0, 0.1, 36_000, 36_000.1]


def test_frames_without_stamps_follow_from_the_rate():
    assert seconds_of([None, None, 50_000, 50_100, None]) == [0, 0.1, 0.2, 0.3, 0.4]


def test_one_wrong_stamp_does_not_move_the_frames_behind_it():
    stamps = [0, 100, 200, 900, 300, 400, 500]
    assert seconds_of([*stamps, 1000, 1100])[-2:] == [1, 1.1]
    np.testing.assert_allclose(TICKS.times([*stamps, 1000, 1100])[-2:], [1, 1.1])


def test_a_stamp_that_was_far_ahead_does_not_hold_the_time_for_good():
    times = seconds_of([0, 100, 36_000_000, *range(200, 2000, 100)])
    assert times[-1] == pytest.approx(36_000 + 1.5)
    assert (np.diff(times) >= 0).all()


def test_stamps_of_decoding_are_no_restarts():
    clock = TICKS._replace(reordered=16)
    np.testing.assert_allclose(clock.times([0, 300, 200, 400, 100]), [0, 0.1, 0.2, 0.3, 0.4])


@pytest.mark.parametrize("name", ["a.ts", "a.vob", "a.flv"])
@pytest.mark.parametrize("offset", [0, 1.4, 36_000])
def test_a_clock_that_starts_late_shows_the_same_seconds(name, offset, tmp_path):
    codec = "mpeg2video" if name.endswith("vob") else "libx264"
    source = write_video(tmp_path / name, moving_square(50), codec=codec, b_frames=2)
    path = shift_packets(source, tmp_path / f"late-{name}", lambda number: offset)
    with VideoReader(path) as reader:
        np.testing.assert_allclose(reader.times, np.arange(50) / 25, atol=2e-3)
        np.testing.assert_array_equal(reader.frames_at([0, 49, 20]), decode_in_sequence(source)[0][[0, 49, 20]])
        assert (reader.start, reader.fps) == (0, 25)
        assert (reader.end, reader.duration) == pytest.approx((2, 2), abs=2e-3)


@pytest.mark.parametrize("name", ["sound.mp4", "sound.ts", "sound.mkv"])
def test_a_picture_that_starts_after_the_sound_starts_where_a_player_shows_it(name, tmp_path):
    path = copy_with_sound(write_video(tmp_path / "video.mp4", moving_square(50)), tmp_path / name, picture_at=2)
    with VideoReader(path) as reader:
        np.testing.assert_allclose(reader.times, 2 + np.arange(50) / 25, atol=0.03)  # of the sound's first packet
        assert reader.end == pytest.approx(4, abs=0.03)
        assert reader.duration == pytest.approx(2, abs=1e-6)
        np.testing.assert_array_equal(reader.frames_at_times([0.5, reader.start + 1]), reader.frames_at([0, 25]))


@pytest.mark.parametrize(("ending", "codec"), [("ts", "libx264"), ("vob", "mpeg2video"), ("mpg", "mpeg2video")])
def test_recordings_one_behind_the_other_stay_in_order(ending, codec, tmp_path):
    parts = [
        write_video(tmp_path / f"{seed}.{ending}", moving_square(count, seed=seed), codec=codec, b_frames=2)
        for seed, count in enumerate((40, 10, 49))
    ]
    path = tmp_path / f"joined.{ending}"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    expected, _ = decode_in_sequence(path)
    with VideoReader(path) as reader:
        assert len(reader) == len(expected) == 99
        np.testing.assert_allclose(reader.times, np.arange(99) / 25, atol=1e-6)
        assert (reader.fps, reader.gaps) == (25, [])
        for rank, (_, frame) in enumerate(reader):
            np.testing.assert_array_equal(frame, expected[rank])
        np.testing.assert_array_equal(reader.frames_at([98, 39, 40, 50]), expected[[98, 39, 40, 50]])


@pytest.mark.parametrize("jump", [60, 3600, 36_000])
@pytest.mark.parametrize("ending", ["ts", "mkv", "mp4"])
def test_a_clock_that_jumps_leaves_a_gap(ending, jump, tmp_path):
    source = write_video(tmp_path / f"source.{ending}", moving_square(100), b_frames=0)
    path = shift_packets(source, tmp_path / f"jumps.{ending}", lambda number: jump * (number >= 50))
    with VideoReader(path) as reader:
        assert len(reader) == 100
        assert reader.fps == pytest.approx(25)
        ((begin, end),) = reader.gaps
        assert (begin, end) == pytest.approx((2, 2 + jump), abs=2e-3)
        assert reader.duration == pytest.approx(4, abs=0.01)
        assert reader.end == pytest.approx(4 + jump, abs=0.01)


def test_a_picture_that_stays_is_no_gap(tmp_path):
    times = [*np.arange(10) / 10, *(30 + np.arange(10) / 10)]
    with VideoReader(write_video(tmp_path / "screen.mp4", moving_square(20), times=times)) as reader:
        assert reader.gaps == []
        np.testing.assert_allclose(reader.times, times, atol=1e-6)
        assert reader.duration == pytest.approx(31, abs=0.5)


def test_pictures_that_all_stay_long_are_no_gaps(tmp_path):
    with VideoReader(write_video(tmp_path / "slow.mkv", moving_square(6), fps=0.02, b_frames=0)) as reader:
        assert reader.gaps == []
        np.testing.assert_allclose(reader.times, 50 * np.arange(6), atol=1e-6)


@pytest.mark.parametrize(("name", "codec"), [("a.h264", "libx264"), ("a.mjpeg", "mjpeg")])
def test_a_file_without_times_says_what_rate_is_assumed_and_takes_another(name, codec, tmp_path):
    pixel_format = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = write_video(tmp_path / name, moving_square(30), codec=codec, pixel_format=pixel_format)
    with VideoReader(path) as reader:
        assert reader.assumed_fps == reader.fps == 25
        assert reader.duration == pytest.approx(1.2)
    with VideoReader(path, fps=5) as reader:
        assert (reader.assumed_fps, reader.fps) == (None, 5)
        np.testing.assert_allclose(reader.times, np.arange(30) / 5)
        assert reader.duration == pytest.approx(6)


def test_a_file_with_times_keeps_its_own_rate(tmp_path):
    with VideoReader(write_video(tmp_path / "video.mp4", moving_square(10)), fps=5) as reader:
        assert (reader.fps, reader.assumed_fps) == (25, None)


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf")])
def test_a_rate_without_sense_is_refused(fps, tmp_path):
    with pytest.raises(ValueError, match="fps must be above 0"):
        VideoReader(write_video(tmp_path / "video.mp4", moving_square(4)), fps=fps)


@pytest.mark.parametrize(
    ("name", "start", "duration", "gaps"),
    [
        ("starts_at_0.mp4", 0, 4, []),
        ("picture_2s_after_sound.mp4", 2, 4, []),
        ("clock_restarts_cat.ts", 0, 4, []),
        ("clock_jumps_60s.ts", 0, 4, [(2, 59.92)]),
        ("cut_without_reencoding.mp4", 0, 2.28, []),
    ],
)
def test_shared_files_have_the_time_of_a_player(name, start, duration, gaps):
    with VideoReader(shared_dir("faults") / name) as reader:
        assert (reader.start, reader.duration) == pytest.approx((start, duration))
        assert reader.gaps == [pytest.approx(gap) for gap in gaps]
