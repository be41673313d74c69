"""Both processors give the very bits that transformers' give, from the same files."""

import json

import numpy as np
import PIL.Image
import pytest
import torch

from videomae.video.processors import VideoMAEImageProcessor, VideoMAEVideoProcessor

transformers = pytest.importorskip("transformers")
# transformers makes arrays of tensors in a way that NumPy deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
PAIRS = [(VideoMAEImageProcessor, "VideoMAEImageProcessor"), (VideoMAEVideoProcessor, "VideoMAEVideoProcessor")]
BOTH = pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=["image", "video"])


def clip(frames=3, height=90, width=120, seed=0):
    """Noise over a ramp: hard on rounding, and unlike in the three channels."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 160, width)[None, None, :, None] * [1.0, 0.5, 0.2]
    return (ramp + rng.integers(0, 96, (frames, height, width, 3))).astype(np.uint8)


def assert_same_bits(ours, theirs, videos, **options):
    expected = getattr(transformers, theirs)()(videos, return_tensors="pt", **options).pixel_values
    found = ours()(videos, return_tensors="pt", **options).pixel_values
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert torch.equal(found, expected)


FORMS = {
    "array": lambda c: c,
    "list of arrays": list,
    "list of PIL images": lambda c: [PIL.Image.fromarray(frame) for frame in c],
    "channels first": lambda c: c.transpose(0, 3, 1, 2),
    "contiguous channels first": lambda c: list(np.ascontiguousarray(c.transpose(0, 3, 1, 2))),
    "tensor": torch.from_numpy,
    "list of tensors": lambda c: [torch.from_numpy(frame).permute(2, 0, 1) for frame in c],
}


@BOTH
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_clip_gives_the_same_bits(ours, theirs, form):
    assert_same_bits(ours, theirs, FORMS[form](clip()), **IMAGENET)


@BOTH
@pytest.mark.parametrize("form", FORMS)
def test_a_batch_gives_the_same_bits(ours, theirs, form):
    assert_same_bits(ours, theirs, [FORMS[form](clip(seed=seed)) for seed in range(2)])


@BOTH
def test_clips_of_different_sizes_give_the_same_bits(ours, theirs):
    assert_same_bits(ours, theirs, [clip(height=90, width=120), clip(height=301, width=173), clip(height=64, width=64)])


@BOTH
@pytest.mark.parametrize(
    ("height", "width"),
    [(360, 640), (640, 360), (256, 340), (97, 131), (131, 97), (224, 224), (224, 301), (223, 225), (33, 500), (2, 9)],
)
def test_every_size_gives_the_same_bits(ours, theirs, height, width):
    assert_same_bits(ours, theirs, clip(2, height, width), **IMAGENET)


@BOTH
@pytest.mark.parametrize(
    "options",
    [
        {"size": 100, "crop_size": 96},
        {"size": {"shortest_edge": 57}},
        {"size": {"height": 70, "width": 101}, "crop_size": {"height": 63, "width": 150}},
        {"size": (300, 50), "crop_size": (33, 40)},
        {"do_resize": False},
        {"do_center_crop": False},
        {"do_resize": False, "do_center_crop": False, "do_normalize": False},
        {"do_normalize": False},
        {"do_rescale": False},
        {"do_rescale": False, "do_normalize": False},
        {"rescale_factor": 1 / 127.5, "image_mean": [1.0, 1.0, 1.0], "image_std": [1.0, 1.0, 1.0]},
        {"image_mean": 0.5, "image_std": 0.25},
        {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]},
        {"resample": 0},
        {"resample": 1},
        {"resample": 3},
        {"resample": 3, "size": 60},
        {"resample": PIL.Image.Resampling.BICUBIC},
        {"input_data_format": "channels_last"},
    ],
    ids=str,
)
def test_every_option_gives_the_same_bits(ours, theirs, options):
    assert_same_bits(ours, theirs, list(clip()), **options)


@BOTH
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_floats_in_0_to_255_give_the_same_bits(ours, theirs, dtype):
    assert_same_bits(ours, theirs, list(clip().astype(dtype)))


@BOTH
def test_floats_in_0_to_1_equal_those_that_transformers_is_told_not_to_rescale(ours, theirs):
    scaled = (clip() / 255).astype(np.float32)
    expected = getattr(transformers, theirs)()(list(scaled), do_rescale=False, return_tensors="pt").pixel_values
    assert torch.equal(ours()(list(scaled), return_tensors="pt").pixel_values, expected)
    assert_same_bits(ours, theirs, list(scaled), do_rescale=True)


@BOTH
def test_a_processor_without_fast_8_bits_gives_the_same_bits(ours, theirs, monkeypatch):
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "DEFAULT")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert_same_bits(ours, theirs, list(clip()))


@BOTH
def test_an_ambiguous_layout_is_read_as_transformers_reads_it(ours, theirs):
    frames = clip(2, 3, 40)
    assert_same_bits(ours, theirs, list(frames), do_resize=False, crop_size=8)
    assert_same_bits(ours, theirs, list(frames), do_resize=False, crop_size=8, input_data_format="channels_last")


@BOTH
def test_arrays_come_back_as_arrays_and_lists_as_lists(ours, theirs):
    expected = getattr(transformers, theirs)()(list(clip()), return_tensors="np").pixel_values
    found = ours()(list(clip()), return_tensors="np").pixel_values
    assert isinstance(found, np.ndarray)
    np.testing.assert_array_equal(found, expected)
    (listed,) = ours()(list(clip())).pixel_values
    np.testing.assert_array_equal(listed.numpy(), expected[0])


def test_grey_and_transparent_frames_are_those_that_transformers_makes_rgb():
    grey = clip()[..., :1]
    assert_same_bits(VideoMAEVideoProcessor, "VideoMAEVideoProcessor", grey)
    assert_same_bits(VideoMAEImageProcessor, "VideoMAEImageProcessor", list(grey), do_convert_rgb=True)
    rgba = [PIL.Image.fromarray(np.dstack([frame, frame[..., 0]])) for frame in clip()]
    assert_same_bits(VideoMAEImageProcessor, "VideoMAEImageProcessor", rgba, do_convert_rgb=True)
    palette = [PIL.Image.fromarray(frame).quantize(16) for frame in clip()]
    assert_same_bits(VideoMAEImageProcessor, "VideoMAEImageProcessor", palette, do_convert_rgb=True)
    arrays = np.stack([np.array(frame) for frame in rgba])
    options = {"input_data_format": "channels_last", "image_std": [1.0] * 3, "return_tensors": "pt"}
    found = VideoMAEVideoProcessor()(arrays, **options).pixel_values
    kept = transformers.VideoMAEVideoProcessor()(arrays, **options).pixel_values
    torch.testing.assert_close(found, kept, atol=1.5 / 255, rtol=0)  # transformers leaves the blend unrounded


@BOTH
@pytest.mark.parametrize(
    "options", [{}, IMAGENET | {"size": 96, "crop_size": 80, "resample": 3}], ids=["default", "own"]
)
def test_a_folder_saved_by_either_loads_in_the_other_and_back(ours, theirs, options, tmp_path):
    theirs = getattr(transformers, theirs)
    theirs(**options).save_pretrained(tmp_path / "theirs")
    loaded = ours.from_pretrained(tmp_path / "theirs")
    (file,) = loaded.save_pretrained(tmp_path / "ours")
    saved = json.loads((tmp_path / "theirs" / file.name).read_text())
    assert json.loads(file.read_text()) == saved
    assert theirs.from_pretrained(tmp_path / "ours").to_dict() == theirs(**options).to_dict()
    frames = list(clip())
    expected = theirs(**options)(frames, return_tensors="pt").pixel_values
    assert torch.equal(loaded(frames, return_tensors="pt").pixel_values, expected)


@pytest.mark.parametrize("kind", ["image", "video"])
def test_auto_classes_of_transformers_find_what_is_saved_here(kind, tmp_path):
    ours = VideoMAEImageProcessor if kind == "image" else VideoMAEVideoProcessor
    ours(**IMAGENET).save_pretrained(tmp_path)
    auto = transformers.AutoImageProcessor if kind == "image" else transformers.AutoVideoProcessor
    assert type(auto.from_pretrained(tmp_path)).__name__ == ours.__name__
