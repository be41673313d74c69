import copy
import json

import pytest
import torch

from videomae import CheckpointError, VideoMAEConfig, VideoMAEModel
from videomae.config import PRESETS


def test_defaults_are_those_of_base():
    config = VideoMAEConfig()
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (768, 12, 12)
    assert config.grid == (8, 14, 14)
    assert config.num_tubelets == 1568
    assert config.pixels_per_tubelet == 1536


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_valid_and_v1s_epsilon(name):
    config = VideoMAEConfig.preset(name, num_labels=3)
    assert config.layer_norm_eps == config.output_norm_eps == 1e-6
    assert config.num_labels == 3


def test_giant_has_patch_14():
    config = VideoMAEConfig.preset("giant")
    assert config.pixels_per_tubelet == 1176
    assert config.grid == (8, 16, 16)


def test_an_unknown_preset_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'enormous'.*tiny, small"):
        VideoMAEConfig.preset("enormous")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_size": 770}, "hidden_size must be divisible by num_attention_heads, got 770 and 12"),
        ({"decoder_hidden_size": 100}, "decoder_hidden_size must be divisible"),
        ({"image_size": 225}, "divisible by that of patch_size, got 225 and 16"),
        ({"image_size": (224, 230)}, "the width of image_size"),
        ({"num_frames": 15}, "num_frames must be divisible by tubelet_size, got 15 and 2"),
        ({"num_hidden_layers": 0}, "num_hidden_layers must be a positive whole number, got 0"),
        ({"num_channels": True}, "num_channels must be a positive whole number"),
        ({"image_size": 0}, "image_size must be a positive"),
        ({"patch_size": (8, 8, 8)}, "patch_size must be a positive"),
        ({"drop_path": 1.0}, "drop_path must be at least 0 and below 1"),
        ({"hidden_act": "gleu"}, "hidden_act must be one of 'gelu'"),
        ({"attn_implementation": "flash"}, "attn_implementation must be one of"),
        ({"problem_type": "ranking"}, "problem_type must be one of"),
        ({"image_mean": (0.5,)}, "image_mean needs one value per channel"),
        ({"position_embedding": "interpolate"}, "needs position_grid"),
        ({"num_labels": 3, "id2label": {0: "a"}}, "num_labels is 3, but 1 class names"),
        ({"id2label": {0: "a", 2: "b"}}, "without gaps"),
        ({"num_labels": -1}, "must not be negative"),
        ({"image_size": (224,)}, "image_size must be a positive whole number or"),
        ({"layer_norm_eps": "1e-6"}, "layer_norm_eps must be a number above 0"),
        ({"label_smoothing": "a"}, "label_smoothing must be at least 0"),
        ({"id2label": ["a", "b"]}, "id2label must map numbers to class names"),
        ({"id2label": 0}, "id2label must map numbers to class names"),
        ({"label2id": [1]}, "label2id must map class names to numbers"),
        ({"label2id": {"a": []}}, "label2id must map class names to numbers"),
    ],
)
def test_impossible_values_are_refused_when_made(fields, message):
    with pytest.raises(ValueError, match=message):
        VideoMAEConfig(**fields)


def test_an_unknown_field_is_refused_with_the_nearest_name():
    with pytest.raises(TypeError, match=r"no field 'hidden_sise' \(did you mean 'hidden_size'\?\)"):
        VideoMAEConfig(hidden_sise=3)


def test_qkv_bias_stands_for_qv_bias():
    assert VideoMAEConfig(qkv_bias=False).qv_bias is False


def test_labels_can_be_given_by_number_by_name_or_inversely():
    assert VideoMAEConfig(num_labels=2).id2label == {0: "LABEL_0", 1: "LABEL_1"}
    config = VideoMAEConfig(label2id={"swim": 1, "run": 0})
    assert config.id2label == {0: "run", 1: "swim"}
    assert VideoMAEConfig(id2label={"0": "run", "1": "swim"}).label2id == config.label2id
    config.num_labels = 4
    assert config.num_labels == 4


def test_a_field_that_is_null_takes_its_default_and_the_caller_beats_the_file():
    config = VideoMAEConfig.from_dict({"drop_path": None, "attn_implementation": None, "qkv_bias": True}, qv_bias=False)
    assert (config.drop_path, config.attn_implementation, config.qv_bias) == (0.0, "sdpa", False)


def test_unknown_fields_of_a_file_are_kept(tmp_path):
    content = {"model_type": "videomae", "hidden_size": 768, "made_by": {"someone": 1}, "dtype": "float16"}
    (tmp_path / "config.json").write_text(json.dumps(content))
    VideoMAEConfig.from_pretrained(tmp_path).save_pretrained(tmp_path / "again")
    again = json.loads((tmp_path / "again" / "config.json").read_text())
    assert again["made_by"] == {"someone": 1}
    assert again["dtype"] == "float16"


def test_everything_survives_a_file(tmp_path):
    config = VideoMAEConfig(
        image_size=(64, 96), patch_size=(16, 8), position_embedding="interpolate", position_grid=(8, 4, 4),
        image_mean=(0.1, 0.2, 0.3), image_std=(1.0, 1.0, 1.0), drop_path=0.1, id2label={0: "a", 1: "b", 2: "c"},
    )  # fmt: skip
    config.save_pretrained(tmp_path)
    assert VideoMAEConfig.from_pretrained(tmp_path) == config


def test_what_any_configuration_of_transformers_holds_is_taken_and_kept(tmp_path):
    """`VideoMAEConfig(**content of a config.json)` is how configurations are copied there."""
    config = VideoMAEConfig(architectures=["VideoMAEModel"], is_decoder=False, dtype=torch.float16, num_labels=3)
    assert (config.architectures, config.is_encoder_decoder, config.torch_dtype) == (["VideoMAEModel"], False, None)
    assert VideoMAEConfig(**config.to_dict()) == VideoMAEConfig.from_dict(config.to_dict())
    config.to_json_file(tmp_path / "mine.json")
    assert VideoMAEConfig.from_json_file(tmp_path / "mine.json").to_dict() == config.to_dict()
    assert config.to_dict()["dtype"] == "float16"
    assert VideoMAEConfig().name_or_path == ""
    with pytest.raises(CheckpointError, match="'vit' model"):
        VideoMAEConfig(model_type="vit")


def test_a_configuration_that_is_not_there_is_an_oserror_as_in_transformers(tmp_path):
    with pytest.raises(OSError, match="holds no config"):
        VideoMAEConfig.from_pretrained(tmp_path)


def test_another_model_type_is_named():
    with pytest.raises(CheckpointError, match="'vit' model"):
        VideoMAEConfig.from_dict({"model_type": "vit"})


def test_overrides_replace_labels_of_the_file_whole():
    config = VideoMAEConfig.from_dict({"id2label": {"0": "a", "1": "b"}, "label2id": {"a": 0, "b": 1}}, num_labels=5)
    assert config.num_labels == 5
    assert config.replace(num_labels=3).num_labels == 3


def test_what_is_assigned_is_kept_saved_and_validated_when_a_model_is_made(tmp_path):
    config = VideoMAEConfig(image_size=32, num_frames=4, hidden_size=16, num_attention_heads=2, num_hidden_layers=1)
    config.label2id = {"run": 1, "jump": 0, "sit": 2}
    assert config.id2label == {0: "jump", 1: "run", 2: "sit"}
    assert config.num_labels == 3
    config.my_note = "kept"
    config._attn_implementation = "eager"
    assert config.attn_implementation == "eager"
    config.to_json_file(tmp_path / "config.json")
    back = VideoMAEConfig.from_pretrained(tmp_path)
    assert back.my_note == "kept"
    assert back.label2id == {"jump": 0, "run": 1, "sit": 2}
    assert copy.deepcopy(back) == back
    with pytest.raises(AttributeError, match=r"no field 'num_frame' \(did you mean 'num_frames'\?\)"):
        back.num_frame  # noqa: B018
    back.num_frames = 5
    with pytest.raises(ValueError, match="num_frames must be divisible by tubelet_size, got 5 and 2"):
        VideoMAEModel(back)
    with pytest.raises(ValueError, match="num_frames must be divisible by tubelet_size, got 5 and 2"):
        back.save_pretrained(tmp_path / "refused")
    assert not (tmp_path / "refused").exists()


def test_what_is_assigned_may_have_the_form_of_json():
    config = VideoMAEConfig()
    config.image_size, config.image_mean, config.id2label = [32, 48], [0.5, 0.5, 0.5], {"1": "b", "0": "a"}
    assert (config.image_size, config.image_mean, config.id2label) == ((32, 48), (0.5,) * 3, {0: "a", 1: "b"})
    config.validate()
    for name, value in (("id2label", ["a", "b"]), ("label2id", ["a", "b"]), ("label2id", {"a": 0, "b": 0})):
        with pytest.raises(ValueError, match=f"{name} must"):
            setattr(config, name, value)
    assert config.label2id == {"a": 0, "b": 1}


def test_copies_have_attributes_of_their_own(tmp_path):
    config = VideoMAEConfig()
    config.note = "first"
    other = copy.copy(config)
    other.note = "second"
    assert config.note == "first"
    config.save_pretrained(tmp_path)
    assert VideoMAEConfig.from_pretrained(tmp_path, note="third").note == "third"
