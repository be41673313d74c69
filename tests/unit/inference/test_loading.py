import pytest
import torch

from videomae import (
    CheckpointError,
    VideoClassifier,
    VideoMAEConfig,
    VideoMAEForPreTraining,
    VideoMAEForVideoClassification,
    VideoMAEImageProcessor,
    VideoMAEModel,
)
from videomae.inference.loading import open_model
from videomae.models.pretrained import PretrainedModel

CONFIG = VideoMAEConfig.preset("tiny", image_size=32, num_frames=4, num_labels=6, num_hidden_layers=2)


@pytest.fixture
def classifier(tmp_path):
    VideoMAEForVideoClassification(CONFIG).save_pretrained(tmp_path)
    VideoMAEImageProcessor(size=32, crop_size=32, image_mean=[0.4, 0.5, 0.6]).save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize("model_class", [VideoMAEForVideoClassification, VideoMAEModel])
def test_model_and_processor_are_those_of_the_checkpoint(classifier, model_class):
    opened = open_model(classifier, model_class, device="cpu", dtype="bfloat16")
    assert type(opened.model) is model_class
    assert not opened.model.training
    assert opened.model.dtype == torch.bfloat16
    assert opened.processor.image_mean == (0.4, 0.5, 0.6)


def test_the_base_of_all_models_is_what_the_checkpoint_is_for(classifier):
    assert type(open_model(classifier, PretrainedModel, device="cpu").model) is VideoMAEForVideoClassification


def test_a_checkpoint_without_decoder_is_refused(classifier):
    with pytest.raises(CheckpointError, match="for classification, without a decoder, it cannot reconstruct"):
        open_model(classifier, VideoMAEForPreTraining)


def test_a_checkpoint_without_classifier_is_refused(tmp_path):
    VideoMAEForPreTraining(CONFIG).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="for pretraining, it has no classifier: fine-tune it first"):
        VideoClassifier.from_pretrained(tmp_path)


@pytest.mark.parametrize("content", ['{"image_processor_type": "ViTImageProcessor"}', '{"image_mean": [0.5,'])
def test_a_bad_processor_file_is_an_error_and_not_replaced(content, tmp_path):
    VideoMAEForVideoClassification(CONFIG).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"ViTImageProcessor|as JSON"):
        VideoClassifier.from_pretrained(tmp_path, device="cpu")
