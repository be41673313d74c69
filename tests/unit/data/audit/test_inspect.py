"""Facts of single files."""

from pathlib import Path

import av
import numpy as np
import pytest

from support import shared_dir
from videomae.data.audit.inspect import VideoFacts, inspect_video
from videomae.data.audit.video_rules import video_findings
from videomae.data.manifest import Manifest, Sample
from videos import moving_square, write_video

# What sets each of these apart; all others must not have it.
ODD_CLIPS = {
    "zero_bytes.webm": {"problem": "empty"},
    "audio_only.mp3": {"problem": "no-video"},
    "corrupted_28_of_50.mp4": {"num_frames": 49, "stated_frames": 50},
    "header_444_decodes_68.avi": {"num_frames": 68, "stated_frames": 444, "is_variable_rate": True},
    "no_duration.webm": {"stated_duration": None, "has_alpha": True, "black_fraction": 1.0},
    "nonmonotonic_pts.mp4": {"is_ordered": False},
    "variable_rate.mp4": {"is_variable_rate": True},
    "pendulum.gif": {"is_variable_rate": True, "has_alpha": True},
    "alpha.webm": {"has_alpha": True},
    "h264_10bit.mp4": {"bits": 10},
    "hevc_10bit.mp4": {"bits": 10},
    "rotation_90.mov": {"rotation": 90},
    "rotation_180.mov": {"rotation": 180},
    "rotation_270.mov": {"rotation": 270},
    "one_pixel.mp4": {"width": 1, "height": 1},
    "tiny_4_frames_unordered.mov": {"num_frames": 4, "width": 50},
    "arm_wrestling_340x256.mp4": {"pixel_aspect": 64 / 51},
    "av1.mkv": {"codec": "av1"},
}
PLAIN_CLIPS = ["eating_spaghetti.mp4", "flipping_a_pancake.mkv", "goat_mpeg4.mp4", "rate_29_97.mp4", "rotation_0.mov"]


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return write_video(tmp_path / "video.mp4", moving_square(30))


def test_a_sound_video_is_described(video: Path):
    facts = inspect_video(video, thumbnail=True)
    assert (facts.problem, facts.damage, facts.is_ordered, facts.is_variable_rate) == (None, (), True, False)
    assert (facts.width, facts.height, facts.num_frames, facts.stated_frames) == (96, 64, 30, 30)
    assert facts.fps == pytest.approx(25)
    assert facts.duration == facts.stated_duration == pytest.approx(1.2)
    assert (facts.codec, facts.pixel_format, facts.bits, facts.pixel_aspect) == ("h264", "yuv420p", 8, 1.0)
    assert facts.blank_fraction == facts.black_fraction == 0
    assert facts.still_fraction < 0.2
    assert facts.fingerprint.shape == (10, 8, 8)
    assert facts.thumbnail.startswith(b"\xff\xd8")


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [("a.mp4", b"", "empty"), ("b.mp4", b"not a video" * 50, "unreadable"), ("c.mp4", None, "missing")],
)
def test_what_is_no_video_has_a_problem_and_a_reason(tmp_path: Path, name: str, content: bytes | None, problem: str):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    facts = inspect_video(tmp_path / name)
    assert facts.problem == problem
    assert name in (facts.reason or "")


def test_a_folder_with_the_name_of_a_video_is_missing(tmp_path: Path):
    assert inspect_video(tmp_path).problem == "missing"


def test_a_file_that_was_cut_off_tells_how_much_is_left(tmp_path: Path):
    whole = write_video(tmp_path / "whole.mkv", moving_square(60, seed=1), gop=6)
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    facts = inspect_video(cut)
    assert facts.problem is None
    assert facts.stated_duration is not None
    assert 0 < facts.duration < 0.7 * facts.stated_duration


def test_any_damaged_file_gives_facts(video: Path, tmp_path: Path):
    content = video.read_bytes()
    for seed in range(20):
        rng = np.random.default_rng(seed)
        broken = bytearray(content[: int(rng.integers(1, len(content)))] if seed % 2 else content)
        for place in rng.integers(len(broken), size=5):
            broken[place] ^= 0xFF
        file = tmp_path / f"{seed}.mp4"
        file.write_bytes(broken)
        facts = inspect_video(file)
        assert facts.problem or facts.num_frames


def test_black_plain_and_frozen_videos_are_told_apart(tmp_path: Path):
    noisy = moving_square(30)
    black = np.random.default_rng(0).integers(0, 16, noisy.shape, dtype=np.uint8)
    plain = np.full_like(noisy, 128)
    frozen = np.repeat(noisy[:1], 30, 0)
    fractions = {}
    for name, frames in {"black": black, "plain": plain, "frozen": frozen}.items():
        facts = inspect_video(write_video(tmp_path / f"{name}.mp4", frames))
        fractions[name] = facts.black_fraction, facts.blank_fraction, facts.still_fraction
    assert fractions == {"black": (1, 1, 1), "plain": (0, 1, 1), "frozen": (0, 0, 1)}


def test_equal_frames_have_one_content_whatever_the_container(video: Path, tmp_path: Path):
    copy = tmp_path / "copy.mkv"
    with av.open(str(video)) as old, av.open(str(copy), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                new.mux(packet)
    other = write_video(tmp_path / "other.mp4", moving_square(30, seed=1))
    a, b, c = (inspect_video(file) for file in (video, copy, other))
    assert a.digest != b.digest
    assert a.content == b.content != c.content


@pytest.mark.parametrize("pixel_format", ["yuv420p10le", "yuv444p"])
def test_content_does_not_depend_on_the_padding_of_rows(tmp_path: Path, pixel_format: str):
    frames = moving_square(8, height=50, width=70)
    # One file, decoded anew: at this width two encodings of the same frames may differ.
    file = write_video(tmp_path / "odd.mp4", frames, pixel_format=pixel_format)
    assert len({inspect_video(file).content for _ in range(5)}) == 1


def test_a_turned_copy_has_the_fingerprint_of_the_upright_one(tmp_path: Path):
    frames = moving_square(16, height=64, width=64)
    turned = np.rot90(frames, axes=(1, 2))
    upright = inspect_video(write_video(tmp_path / "a.mp4", frames))
    flagged = inspect_video(write_video(tmp_path / "b.mp4", turned, rotation=90))
    assert np.abs(upright.fingerprint - flagged.fingerprint).max() < 5


@pytest.mark.parametrize("name", ODD_CLIPS)
def test_what_is_odd_about_a_clip_is_found(name: str):
    facts = inspect_video(shared_dir("clips") / name)
    assert {field: getattr(facts, field) for field in ODD_CLIPS[name]} == pytest.approx(ODD_CLIPS[name])
    assert (facts.damage != ()) == (name == "corrupted_28_of_50.mp4")


@pytest.mark.parametrize("name", PLAIN_CLIPS)
def test_nothing_odd_is_found_where_nothing_is(name: str):
    facts = inspect_video(shared_dir("clips") / name)
    defaults = VideoFacts("")
    for field in ("problem", "damage", "bits", "has_alpha", "rotation", "pixel_aspect", "is_ordered"):
        assert getattr(facts, field) == getattr(defaults, field)
    assert not facts.is_variable_rate


def test_a_file_with_several_videos_names_them_and_that_which_is_read(tmp_path: Path):
    file = tmp_path / "several.mkv"
    with av.open(str(file), "w") as container:
        for size in (64, 32):
            stream = container.add_stream("mpeg4", rate=25)
            stream.width = stream.height = size
        for number, image in enumerate(moving_square(10, 64, 64)):
            for stream in container.streams.video:
                frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(
                    stream.width, stream.height, "yuv420p"
                )
                frame.pts = number
                container.mux(stream.encode(frame))
        for stream in container.streams.video:
            container.mux(stream.encode())
    facts = inspect_video(file)
    assert (facts.width, facts.streams) == (64, ("mpeg4 64x64", "mpeg4 32x32"))
    findings = {f.kind: f for f in video_findings(Manifest((Sample("s.mkv", file),), (), tmp_path), {file: facts})}
    assert findings["several-streams"].items[0].detail == "mpeg4 64x64 is read, not mpeg4 32x32"


def test_a_change_of_size_is_no_damage(tmp_path: Path):
    """A call over the network changes its size where it has less room; all its frames are read, in the first size."""
    parts = [write_video(tmp_path / f"{side}.h264", moving_square(20, side, side), b_frames=0) for side in (128, 64)]
    file = tmp_path / "call.h264"
    file.write_bytes(b"".join(part.read_bytes() for part in parts))
    facts = inspect_video(file)
    assert (facts.num_frames, facts.width, facts.other_sizes, facts.damage) == (40, 128, ("64x64",), ())
    findings = {f.kind: f for f in video_findings(Manifest((Sample("call.h264", file),), (), tmp_path), {file: facts})}
    assert findings["other-sizes"].items[0].detail == "128x128, then 64x64"
