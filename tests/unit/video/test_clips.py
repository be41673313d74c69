"""Clips one after the other: what they show, what is held meanwhile, and what is made ahead."""

import time
import tracemalloc

import numpy as np
import pytest

from videomae.data.transcode import Encoding, copy_file
from videomae.errors import VideoError
from videomae.video.clips import in_batches, read_ahead, read_clips, slide, spread_crops
from videomae.video.reader import VideoReader
from videomae.video.sampling import ClipSampling
from videos import decode_in_sequence, moving_square, write_video


def test_clips_of_a_file_and_of_its_frames_in_memory_are_the_same(tmp_path):
    file = write_video(tmp_path / "a.mp4", moving_square(40))
    frames, _ = decode_in_sequence(file)
    sampling, options = ClipSampling("dense", stride=2), {"clip_frames": 4, "num_clips": 3}
    rows = sampling(40, video_fps=25, **options)
    for video in (file, frames, list(frames)):
        clips = read_clips(video, sampling, **options)
        np.testing.assert_array_equal([np.stack(list(clip)) for clip in clips], frames[rows])


def test_an_array_that_is_no_video_is_refused():
    with pytest.raises(ValueError, match="an array of 4 axes"):
        read_clips(np.zeros((4, 8, 8), np.uint8), ClipSampling(), clip_frames=2)


@pytest.mark.parametrize(
    ("height", "width", "num_crops", "expected"),
    [
        (224, 298, 3, [(0, 0), (0, 37), (0, 74)]),
        (299, 224, 3, [(0, 0), (37, 0), (75, 0)]),
        (224, 299, 1, [(0, 37)]),
        (256, 339, 2, [(16, 0), (16, 115)]),
    ],
)
def test_crops_spread_over_the_long_side_with_fractions_dropped(height, width, num_crops, expected):
    """As v1 places them: int() of the middle, and of each step."""
    assert spread_crops(height, width, 224, num_crops) == expected


@pytest.mark.parametrize(("size", "num_crops"), [(225, 3), (0, 1), (224, 0)])
def test_crops_that_do_not_fit_are_refused(size, num_crops):
    with pytest.raises(ValueError, match="must be at least 1 and fit in the frame"):
        spread_crops(224, 298, size, num_crops)


def test_a_clip_holds_what_is_on_show_at_its_moments():
    frames = [(i / 10, i) for i in range(40)]
    clips = dict(slide(frames, window=1.0, hop=0.5, num_frames=4))
    assert clips[0.0] == [1, 3, 6, 8]
    assert clips[0.5] == [6, 8, 11, 13]
    assert sorted(clips) == [i / 2 for i in range(len(clips))]
    assert max(clips) == 3.0
    assert clips[3.0][-1] == 38


def test_a_video_shorter_than_a_window_gives_one_clip_that_repeats_its_last_frame():
    assert list(slide([(0.0, "a"), (0.1, "b")], window=4.0, hop=4.0, num_frames=3)) == [(0.0, ["b", "b", "b"])]


def test_held_frames_do_not_grow_with_the_length():
    alive, most = set(), 0

    class Frame:
        def __init__(self, i):
            self.i = i
            alive.add(i)

        def __del__(self):
            alive.discard(self.i)

    for _ in slide(((i / 10, Frame(i)) for i in range(3000)), window=2.0, hop=1.0, num_frames=4):
        most = max(most, len(alive))
    assert most < 25


@pytest.mark.parametrize("fps", [24, 25, 30])
def test_windows_counted_in_frames_take_evenly_spaced_frames(fps):
    frames = [(i / fps, i) for i in range(200)]
    for _, clip in list(slide(frames, window=64 / fps, hop=16 / fps, num_frames=16))[:8]:
        assert set(np.diff(clip)) == {4}


def test_the_next_item_is_made_meanwhile_and_order_and_errors_stay():
    made = []

    def items():
        for i in range(3):
            made.append(i)
            yield i
        raise VideoError("broke off")

    seen = []

    def work():
        for item in read_ahead(items()):
            deadline = time.monotonic() + 5
            while len(made) < min(item + 2, 3) and time.monotonic() < deadline:
                time.sleep(0.001)
            seen.append((item, len(made)))

    with pytest.raises(VideoError, match="broke off"):
        work()
    assert seen == [(0, 2), (1, 3), (2, 3)]


def test_one_frame_of_full_size_is_in_memory_at_a_time(tmp_path):
    """Of a clip, of windows that overlap, and of a copy: their memory does not grow with the size of the frames."""
    file, frame_bytes = write_video(tmp_path / "large.mp4", moving_square(40, 360, 640)), 360 * 640 * 3

    def shrink(frame):
        return frame[::8, ::8].copy()

    def windows():
        with VideoReader(file, threads=1) as reader:
            return list(slide(reader, window=0.8, hop=0.2, num_frames=8, shrink=shrink))

    sampling = ClipSampling(stride=2)
    for read in (
        lambda: read_clips(file, sampling, clip_frames=16, shrink=shrink),
        windows,
        lambda: copy_file(file, tmp_path / "copy.mp4", Encoding(short_side=32)),
    ):
        read()  # what is imported or remembered once
        tracemalloc.start()
        read()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 4 * frame_bytes


def test_a_frame_of_several_windows_is_shrunk_once():
    shrunk = []

    def shrink(frame):
        shrunk.append(frame)
        return -frame

    frames = [(i / 10, i) for i in range(30)]
    small = list(slide(iter(frames), window=1.0, hop=0.25, num_frames=5, shrink=shrink))
    assert small == [
        (begin, [-frame for frame in clip]) for begin, clip in slide(frames, window=1.0, hop=0.25, num_frames=5)
    ]
    assert len(shrunk) == len(set(shrunk)) < 30


def test_an_error_comes_after_what_was_made_before_it():
    def items():
        yield from range(5)
        raise VideoError("the source broke off.")

    batches = []
    with pytest.raises(VideoError):
        batches.extend(in_batches(items(), 3))
    assert batches == [[0, 1, 2], [3, 4]]
    assert list(in_batches(range(4), 2)) == [[0, 1], [2, 3]]
