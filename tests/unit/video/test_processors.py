import json
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import PIL.Image
import pytest
import torch

from hub_server import serve_hub
from videomae.errors import CheckpointError, VideoError
from videomae.video import processors
from videomae.video.processors import VideoMAEImageProcessor, VideoMAEVideoProcessor

BOTH = pytest.mark.parametrize(
    "processor", [VideoMAEImageProcessor(), VideoMAEVideoProcessor()], ids=["image", "video"]
)


def clip(frames=4, height=40, width=60, channels=3, seed=0):
    shape = (frames, height, width, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def pixels(processor, videos, **options):
    return processor(videos, return_tensors="pt", **options).pixel_values


def write_video(path, frames=12, rate=6):
    """Write a video whose frame i is of grey level 20 * i."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(rate))
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(frames):
            image = np.full((48, 64, 3), 20 * number, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def levels(pixel_values):
    """Which frame of ``write_video`` each frame is."""
    return (pixel_values[0].mean(dim=(1, 2, 3)) * 255 / 20).round().int().tolist()


AS_THEY_ARE = {"image_mean": [0.0] * 3, "image_std": [1.0] * 3}


@BOTH
def test_a_clip_becomes_normalised_pixels(processor):
    inputs = processor(clip(), return_tensors="pt")
    assert inputs.pixel_values.shape == (1, 4, 3, 224, 224)
    assert inputs.pixel_values.dtype == torch.float32
    assert inputs["pixel_values"] is inputs.pixel_values
    assert dict(**inputs).keys() == {"pixel_values"}
    assert -1 <= inputs.pixel_values.min() < inputs.pixel_values.max() <= 1


@BOTH
def test_a_batch_in_one_array_equals_the_list_of_its_clips(processor):
    batch = np.stack([clip(seed=1), clip(seed=2)])
    expected = pixels(processor, list(batch))
    assert expected.shape == (2, 4, 3, 224, 224)
    assert torch.equal(pixels(processor, batch), expected)
    assert torch.equal(pixels(processor, torch.from_numpy(batch).permute(0, 1, 4, 2, 3)), expected)


@BOTH
def test_one_frame_is_a_clip_of_one(processor):
    frame = clip()[0]
    expected = pixels(processor, [frame])
    for form in (frame, PIL.Image.fromarray(frame), torch.from_numpy(frame).permute(2, 0, 1)):
        assert torch.equal(pixels(processor, form), expected)


@BOTH
def test_arrays_that_are_read_only_or_run_backwards_are_taken(processor):
    frames = clip()
    expected = pixels(processor, np.ascontiguousarray(frames[:, :, ::-1]))
    backwards = frames[:, :, ::-1]
    assert torch.equal(pixels(processor, backwards), expected)
    frozen = np.ascontiguousarray(backwards)
    frozen.setflags(write=False)
    assert torch.equal(pixels(processor, frozen), expected)


@BOTH
def test_grey_frames_are_repeated_for_the_three_colours(processor):
    grey = clip(channels=1)
    expected = pixels(processor, grey.repeat(3, axis=-1))
    for form in (grey, grey[..., 0], list(grey[..., 0]), [PIL.Image.fromarray(frame) for frame in grey[..., 0]]):
        assert torch.equal(pixels(processor, form), expected)
    two = processor([grey[..., 0], clip(5, channels=1)[..., 0]]).pixel_values
    assert torch.equal(two[0], expected[0])
    assert two[1].shape == (5, 3, 224, 224)


@BOTH
@pytest.mark.parametrize("channels", [1, 2, 4, 5])
def test_a_mean_of_any_length_says_how_many_channels_there_are(processor, channels):
    mean, std = [0.1 * (c + 1) for c in range(channels)], [0.2] * channels
    options = {"image_mean": mean, "image_std": std, "do_resize": False, "crop_size": 16}
    frames = clip(channels=channels)
    found = pixels(processor, frames, **options)
    cropped = torch.from_numpy(frames[None, :, 12:28, 22:38]).permute(0, 1, 4, 2, 3)
    expected = (cropped / 255 - torch.tensor(mean).view(-1, 1, 1)) / 0.2
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert torch.equal(pixels(processor, frames.transpose(0, 3, 1, 2), **options), found)


@BOTH
def test_transparent_frames_are_laid_on_white(processor):
    rgba = np.zeros((2, 8, 8, 4), dtype=np.uint8)
    rgba[..., :3] = (200, 100, 0)
    rgba[:, :, 4:, 3] = 255
    options = AS_THEY_ARE | {"do_resize": False, "do_center_crop": False}
    for form in (rgba, [PIL.Image.fromarray(frame) for frame in rgba]):
        found = pixels(processor, form, **options)[0, 0] * 255
        torch.testing.assert_close(found[:, 0, 0], torch.tensor([255.0, 255.0, 255.0]))
        torch.testing.assert_close(found[:, 0, 7], torch.tensor([200.0, 100.0, 0.0]))
    floats = pixels(processor, rgba.astype(np.float32) / 255, **options)
    torch.testing.assert_close(floats[0, 0] * 255, found)


@BOTH
def test_frames_that_do_not_fit_are_refused_when_conversion_is_off(processor):
    for frames in (clip(channels=1), clip(channels=4), [PIL.Image.fromarray(clip(channels=4)[0])]):
        with pytest.raises(
            ValueError, match=r"channels, but image_mean and image_std have 3 and do_convert_rgb is False"
        ):
            processor(frames, do_convert_rgb=False)
    with pytest.raises(ValueError, match="mode 'P' has to be converted"):
        processor([PIL.Image.fromarray(clip()[0]).quantize(8)], do_convert_rgb=False)


@BOTH
def test_palettes_are_resolved_and_deep_pictures_refused(processor):
    palette = PIL.Image.fromarray(clip()[0]).quantize(8)
    assert torch.equal(pixels(processor, [palette]), pixels(processor, [palette.convert("RGB")]))
    with pytest.raises(ValueError, match="more than 8 bits"):
        processor([PIL.Image.fromarray(np.zeros((4, 4), dtype=np.uint16))])


@BOTH
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_in_0_to_1_are_not_scaled_again(processor, dtype):
    frames = clip()
    expected = pixels(processor, frames.astype(np.float32))
    found = pixels(processor, (frames / 255).astype(dtype))
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=0)
    asked = pixels(processor, (frames / 255).astype(dtype), do_rescale=True)
    assert asked.max() < -0.98


@BOTH
def test_a_dark_clip_in_0_to_255_is_not_taken_for_scaled_beside_a_bright_one(processor):
    bright = clip().astype(np.float32)
    both = pixels(processor, [np.ones_like(bright), bright])
    assert both[0].max() < -0.98


@BOTH
@pytest.mark.parametrize(
    ("videos", "message"),
    [
        ([], "without frames"),
        ([[], []], "without frames"),
        (np.zeros((0, 8, 8, 3), dtype=np.uint8), "without frames"),
        (np.zeros((0, 4, 8, 8, 3), dtype=np.uint8), "without frames"),
        (np.zeros((4, 0, 8, 3), dtype=np.uint8), "has no pixels"),
        (np.zeros((4, 8, 8, 3), dtype=np.int64), "must be uint8.* got int64"),
        (torch.zeros(4, 8, 8, 3, dtype=torch.int16), r"must be uint8.* got torch\.int16"),
        (np.zeros((4, 8, 8, 3), dtype=bool), "must be uint8.* got bool"),
        (np.full((4, 8, 8, 3), np.nan), "not finite"),
        (np.full((4, 8, 8, 3), np.inf), "not finite"),
        ([np.zeros((8, 8, 3), dtype=np.uint8), np.zeros((8, 8, 3))], "some frames are uint8 and some float"),
        (np.zeros((4, 8, 8, 7), dtype=np.uint8), r"cannot tell the channels of a frame of shape \(8, 8, 7\)"),
        (np.zeros((4, 8, 8, 1, 1, 1), dtype=np.uint8), r"shape \(4, 8, 8, 1, 1, 1\)"),
        (None, "NoneType"),
        ([1, 2], "int"),
        ([[1, 2]], "int"),
        ([clip()[0], clip()], r"shape \(40, 60, 3\)"),
        ([clip(), None], "NoneType"),
    ],
    ids=str,
)
def test_what_is_no_video_is_refused_with_the_reason(processor, videos, message):
    with pytest.raises((TypeError, ValueError), match=message):
        processor(videos)


@BOTH
def test_clips_of_different_length_come_as_a_list_but_not_as_a_batch(processor):
    videos = [clip(4), clip(6)]
    assert [len(values) for values in processor(videos).pixel_values] == [4, 6]
    with pytest.raises(ValueError, match=r"\(4, 3, 224, 224\), \(6, 3, 224, 224\).*return_tensors=None"):
        processor(videos, return_tensors="pt")


@BOTH
def test_frames_of_one_clip_may_differ_in_size_if_they_are_cropped(processor):
    frames = [clip()[0], clip(height=100, width=30)[0]]
    together = pixels(processor, frames)
    assert torch.equal(together[:, 1:], pixels(processor, frames[1:]))
    with pytest.raises(ValueError, match="frames of a clip come out in different shapes"):
        processor(frames, do_center_crop=False)


@BOTH
def test_the_layout_of_input_and_output_can_be_said(processor):
    frames = clip(height=3, width=20)
    options = {"do_resize": False, "crop_size": (3, 3)}
    assert not torch.equal(
        pixels(processor, frames, **options), pixels(processor, frames, input_data_format="channels_last", **options)
    )
    first = pixels(processor, clip())
    last = pixels(processor, clip(), data_format="channels_last")
    assert last.shape == (1, 4, 224, 224, 3)
    assert last.is_contiguous()
    assert torch.equal(last.permute(0, 1, 4, 2, 3), first)


@BOTH
def test_an_option_of_one_call_does_not_stay(processor):
    before = processor.to_dict()
    assert pixels(processor, clip(), size=64, crop_size=32).shape[-2:] == (32, 32)
    assert pixels(processor, clip(), size=None, do_resize=None).shape[-2:] == (224, 224)
    assert processor.to_dict() == before


@BOTH
def test_an_option_set_on_the_processor_holds_for_its_calls(processor):
    small = type(processor)(size=64, crop_size=(32, 48), resample="bicubic")
    assert (small.size, small.crop_size) == ({"shortest_edge": 64}, {"height": 32, "width": 48})
    assert torch.equal(pixels(small, clip()), pixels(processor, clip(), size=64, crop_size=(32, 48), resample=3))
    assert pixels(small, clip(), size=None).shape[-2:] == (32, 48)


@BOTH
@pytest.mark.parametrize("call", ["made", "called", "loaded"])
def test_a_misspelt_option_is_refused_with_the_right_name(processor, call):
    make = {"made": type(processor), "called": lambda **options: processor(clip(), **options)}
    make["loaded"] = lambda **options: type(processor).from_dict({}, **options)
    with pytest.raises(TypeError, match=r"no option 'image_means' \(did you mean 'image_mean'\?\)"):
        make[call](image_means=[0.5] * 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size must be"),
        ({"size": {"longest_edge": 224}}, "size must be .*'shortest_edge'"),
        ({"size": (1, 2, 3)}, "size must be"),
        ({"size": "224"}, "size must be"),
        ({"crop_size": {"shortest_edge": 224}}, "crop_size must be"),
        ({"crop_size": (224, -1)}, "crop_size must be"),
        ({"resample": "cubic"}, "resample must be one of nearest"),
        ({"resample": 5}, "resample must be"),
        ({"image_std": [0.5, 0.0, 0.5]}, "image_std must be .* not 0"),
        ({"image_mean": []}, "image_mean must be"),
        ({"image_mean": [0.5] * 4}, "differ in length"),
        ({"rescale_factor": 0}, "rescale_factor must be positive"),
        ({"do_resize": "yes"}, "do_resize must be True or False"),
        ({"input_data_format": "NCHW"}, "input_data_format must be one of channels_first"),
        ({"num_frames": 8, "fps": 2}, "num_frames or fps, not both"),
        ({"num_frames": 0}, "num_frames must be positive"),
    ],
    ids=str,
)
def test_an_impossible_value_is_refused_with_the_rule(options, message):
    with pytest.raises(ValueError, match=message):
        VideoMAEVideoProcessor(**options)
    with pytest.raises(ValueError, match="return_tensors must be"):
        VideoMAEVideoProcessor()(clip(), return_tensors="tf")


def test_inputs_move_to_a_dtype_or_device_in_place():
    inputs = VideoMAEImageProcessor()(clip(), return_tensors="pt")
    assert inputs.to(torch.float16) is inputs
    assert inputs.pixel_values.dtype == torch.float16
    assert inputs.to("cpu", dtype=torch.float64).pixel_values.dtype == torch.float64
    raw = VideoMAEImageProcessor()([clip(4), clip(6)], do_rescale=False, do_normalize=False).to("meta", torch.float16)
    assert [(values.device.type, values.dtype) for values in raw.pixel_values] == [("meta", torch.uint8)] * 2
    with pytest.raises(AttributeError, match="no 'pixels' here, only pixel_values"):
        _ = raw.pixels


def test_a_file_is_read_and_sampled_evenly(tmp_path):
    path = write_video(tmp_path / "a.mp4")
    processor = VideoMAEVideoProcessor(**AS_THEY_ARE)
    assert levels(pixels(processor, path)) == list(range(12))
    assert levels(pixels(processor, str(path), num_frames=4)) == [0, 3, 6, 9]
    assert levels(pixels(processor, [path], fps=3)) == [0, 2, 4, 6, 8, 10]
    assert levels(pixels(processor, path, do_sample_frames=False, num_frames=4)) == list(range(12))
    assert levels(pixels(processor, path, num_frames=16)) == [i * 12 // 16 for i in range(16)]
    sampling = VideoMAEVideoProcessor(do_sample_frames=True, num_frames=3, **AS_THEY_ARE)
    assert levels(pixels(sampling, path)) == [0, 4, 8]
    assert levels(pixels(sampling, path, fps=1)) == [0, 6]
    assert pixels(sampling, [path, write_video(tmp_path / "b.mp4", frames=5)]).shape == (2, 3, 3, 224, 224)


def test_frames_in_memory_are_sampled_by_number_but_not_by_rate():
    processor = VideoMAEVideoProcessor()
    expected = pixels(processor, clip(8)[::2])
    assert torch.equal(pixels(processor, clip(8), num_frames=4), expected)
    assert torch.equal(pixels(processor, list(clip(8)), num_frames=4), expected)
    with pytest.raises(ValueError, match="fps=2 needs a video file"):
        processor(clip(), fps=2)
    with pytest.raises(ValueError, match="do_sample_frames needs num_frames or fps"):
        processor(clip(), do_sample_frames=True)


def test_a_path_that_cannot_be_read_says_so(tmp_path):
    with pytest.raises(VideoError, match="nowhere"):
        VideoMAEVideoProcessor()(tmp_path / "nowhere.mp4")
    with pytest.raises(TypeError, match="Only VideoMAEVideoProcessor takes the path"):
        VideoMAEImageProcessor()("video.mp4")


@BOTH
def test_a_saved_processor_loads_again_with_what_nobody_knows(processor, tmp_path):
    ours = type(processor)
    content = {"image_mean": [0.1, 0.2, 0.3], "size": 256, "do_pad": None, "device": None, "their": {"own": [1, 2]}}
    (path,) = ours.from_dict(content, crop_size=200).save_pretrained(tmp_path / "made" / "here")
    assert path.name == ours.config_files[0]
    again = ours.from_pretrained(tmp_path / "made" / "here", do_resize=False)
    assert again.image_mean == (0.1, 0.2, 0.3)
    assert (again.size, again.crop_size) == ({"shortest_edge": 256}, {"height": 200, "width": 200})
    assert again.to_dict()["their"] == {"own": [1, 2]}
    assert again.do_resize is False
    assert ours.from_pretrained(path) == ours.from_dict(content, crop_size=200)
    again.to_json_file(tmp_path / "mine.json")
    assert ours.from_json_file(tmp_path / "mine.json") == again
    assert json.loads(again.to_json_string()) == json.loads((tmp_path / "mine.json").read_text())
    assert tuple(again(clip(), return_tensors="pt")) == ours.model_input_names


def test_files_are_read_in_the_order_of_transformers(tmp_path):
    def write(name, content):
        (tmp_path / name).write_text(json.dumps(content))

    write("preprocessor_config.json", {"size": 1})
    assert VideoMAEVideoProcessor.from_pretrained(tmp_path).size == {"shortest_edge": 1}
    write("video_preprocessor_config.json", {"size": 2})
    assert VideoMAEVideoProcessor.from_pretrained(tmp_path).size == {"shortest_edge": 2}
    write("processor_config.json", {"video_processor": {"size": 3}})
    assert VideoMAEVideoProcessor.from_pretrained(tmp_path).size == {"shortest_edge": 3}
    assert VideoMAEImageProcessor.from_pretrained(tmp_path).size == {"shortest_edge": 1}
    write("processor_config.json", {"image_processor": {"size": 4}})
    assert VideoMAEImageProcessor.from_pretrained(tmp_path).size == {"shortest_edge": 4}


def test_a_folder_without_a_processor_or_with_that_of_another_model_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"holds no preprocessor_config\.json"):
        VideoMAEVideoProcessor.from_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"image_processor_type": "ViTImageProcessor"}')
    with pytest.raises(CheckpointError, match="processor of type 'ViTImageProcessor', not one of VideoMAE"):
        VideoMAEImageProcessor.from_pretrained(tmp_path)


def test_a_processor_comes_from_the_hub(tmp_path, monkeypatch):
    VideoMAEImageProcessor(size=96).save_pretrained(tmp_path / "served" / "org" / "model")
    with serve_hub(tmp_path / "served") as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        loaded = VideoMAEVideoProcessor.from_pretrained("org/model", cache_dir=tmp_path / "cache", crop_size=64)
    assert (loaded.size, loaded.crop_size) == ({"shortest_edge": 96}, {"height": 64, "width": 64})


def test_neither_torch_nor_torchvision_nor_pil_is_imported_without_need():
    code = (
        "import sys, numpy as np; from videomae.video.processors import VideoMAEImageProcessor as P;"
        "assert not {'torch', 'torchvision', 'PIL', 'av', 'huggingface_hub'} & set(sys.modules);"
        "P()(np.zeros((2, 8, 8, 3), dtype=np.uint8), return_tensors='pt');"
        "assert not {'torchvision', 'PIL', 'av'} & set(sys.modules)"
    )
    source = str(Path(processors.__file__).parents[2])
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": source}, check=True)
