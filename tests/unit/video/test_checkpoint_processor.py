"""A checkpoint's processor is the one beside it, or one that follows from the model's configuration."""

import pytest

from videomae.config import IMAGENET_MEAN, IMAGENET_STD, VideoMAEConfig
from videomae.errors import CheckpointError
from videomae.video.checkpoint_processor import load_processor, make_processor


def test_the_stored_processor_is_loaded_for_a_folder_and_for_a_file_in_it(tmp_path):
    stored = make_processor(VideoMAEConfig(image_size=32), ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6)))
    stored.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").touch()
    for place in (tmp_path, tmp_path / "model.safetensors"):
        assert load_processor(place, VideoMAEConfig()).to_dict() == stored.to_dict()


def test_without_one_the_frame_size_is_the_models_and_the_statistics_imagenets(tmp_path, caplog):
    processor = load_processor(tmp_path, VideoMAEConfig(image_size=32))
    assert (processor.image_mean, processor.image_std) == (IMAGENET_MEAN, IMAGENET_STD)
    assert processor.size == {"shortest_edge": 32}
    assert processor.crop_size == {"height": 32, "width": 32}
    assert "has no processor" in caplog.text


def test_without_one_the_statistics_of_other_channels_are_not_guessed(tmp_path):
    with pytest.raises(CheckpointError, match="5 channels are not known"):
        load_processor(tmp_path, VideoMAEConfig(num_channels=5))
