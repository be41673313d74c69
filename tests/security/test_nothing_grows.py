"""Small files that claim to be large: refused before anything of that size is made."""

import json
import time
import tracemalloc
import zipfile

import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file

from videomae import VideoMAEConfig, VideoMAEForVideoClassification, VideoMAEImageProcessor
from videomae.data.manifest import read_manifest
from videomae.errors import CheckpointError, DataError
from videomae.hub import read_json
from videomae.models.patches import sinusoid_table

MOST_BYTES, MOST_SECONDS = 200e6, 5.0


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    config = VideoMAEConfig.preset("tiny", image_size=32, num_frames=4, num_labels=3, num_hidden_layers=2)
    VideoMAEForVideoClassification(config).save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def little_memory_and_time(model):
    """What is refused costs next to nothing: sizes are looked at before anything is made of them."""
    before, began = psutil.Process().memory_info(), time.monotonic()
    yield
    after = psutil.Process().memory_info()
    assert time.monotonic() - began < MOST_SECONDS
    assert max(after.rss - before.rss, after.vms - before.vms) < MOST_BYTES


def changed(model, folder, **fields):
    """Copy the model with other fields in its config.json."""
    content = json.loads((model / "config.json").read_text())
    for name in fields:
        if name == "num_labels":
            del content["id2label"], content["label2id"]
    (folder / "config.json").write_text(json.dumps(content | fields))
    (folder / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes())
    return folder


@pytest.mark.parametrize(
    "fields",
    [
        {"num_hidden_layers": 100_000},
        {"num_hidden_layers": 1000},
        {"decoder_num_hidden_layers": 10**9},
        {"num_labels": 10**9},
        {"num_labels": "9" * 100},
        {"image_size": 32_000},
        {"image_size": [16, 2**40]},
        {"num_frames": 2**20},
        {"patch_size": 1, "image_size": 1024},
        {"hidden_size": 2**40, "num_attention_heads": 1},
        {"hidden_size": 10**30},
        {"intermediate_size": 2**19},
        {"tubelet_size": 4, "patch_size": 32},
        {"position_embedding": "interpolate", "position_grid": [10**4, 10**4, 10**4]},
        {"clip_stride": 1e300},
        {"clip_stride": float("inf")},
        {"clip_fps": float("nan")},
        {"model_config": {"embed_dim": [0] * 10, "mlp_ratio": 10**9}},
    ],
    ids=lambda fields: ",".join(f"{name}={str(value)[:20]}" for name, value in fields.items()),
)
def test_sizes_of_a_config_are_compared_before_a_model_is_made(model, tmp_path, fields):
    with pytest.raises((CheckpointError, ValueError)):
        VideoMAEForVideoClassification.from_pretrained(changed(model, tmp_path, **fields))


@pytest.mark.parametrize("name", ["size", "crop_size"])
@pytest.mark.parametrize("value", [10**6, {"height": 224, "width": 1e300}, [224, float("nan")], "224", None, {"x": 1}])
def test_sizes_of_a_processor_are_bounded(tmp_path, name, value):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({name: value}))
    if value is None:  # the default
        VideoMAEImageProcessor.from_pretrained(tmp_path)
        return
    with pytest.raises(ValueError, match=f"{name} must be"):
        VideoMAEImageProcessor.from_pretrained(tmp_path)


def test_a_compressed_archive_is_not_unpacked(model, tmp_path):
    torch.save({"model": {"a": torch.zeros(2**22)}}, tmp_path / "plain.pth")
    small = zipfile.ZipFile(tmp_path / "small.pth", "w", zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(tmp_path / "plain.pth") as plain, small:
        for name in plain.namelist():
            small.writestr(name, plain.read(name))
    assert (tmp_path / "small.pth").stat().st_size < 100_000
    with pytest.raises(CheckpointError, match=r"bytes, but unpacks to 16.* and more"):
        VideoMAEForVideoClassification.from_pretrained(tmp_path / "small.pth")


def test_a_tensor_that_repeats_its_values_is_not_spread_out(model, tmp_path):
    torch.save({"model": {"patch_embed.proj.weight": torch.zeros(1).expand(10**10)}}, tmp_path / "wide.pth")
    with pytest.raises(CheckpointError, match="unpacks to"):
        VideoMAEForVideoClassification.from_pretrained(tmp_path / "wide.pth")


def test_a_block_of_a_high_number_makes_no_blocks_below_it(model, tmp_path):
    tensors = load_file(model / "model.safetensors")
    name = "videomae.encoder.layer.1.layernorm_before.weight"
    tensors[name.replace("layer.1.", "layer.1000000.")] = tensors[name].clone()
    save_file(tensors, tmp_path / "high.safetensors")
    with pytest.raises(CheckpointError, match=r"layer|blocks"):
        VideoMAEForVideoClassification.from_pretrained(tmp_path / "high.safetensors", image_size=32, num_frames=4)


def test_a_list_cannot_number_more_classes_than_there_may_be(tmp_path):
    for label in (10**12, 10**5, "9" * 5000):
        (tmp_path / "train.csv").write_text(f"a.mp4 {label}\n")
        with pytest.raises(DataError, match=r"at most|neither 'path label'"):
            read_manifest(tmp_path / "train.csv")


def test_deep_json_is_an_error_of_the_file(tmp_path):
    (tmp_path / "config.json").write_text("[" * 100_000)
    with pytest.raises(CheckpointError, match="as JSON"):
        read_json(tmp_path / "config.json")


# ---- accounting


def test_two_tensors_of_one_name_are_refused(model, tmp_path):
    tensors = load_file(model / "model.safetensors")
    tensors["module.classifier.weight"] = torch.zeros_like(tensors["classifier.weight"])
    wrapped = {f"module.{name}": tensor for name, tensor in tensors.items() if not name.startswith("module.")}
    wrapped["classifier.weight"] = torch.zeros_like(tensors["classifier.weight"])
    for name, content in (("a", tensors), ("b", wrapped)):
        save_file(content, tmp_path / f"{name}.safetensors")
        with pytest.raises(CheckpointError, match="classifier"):
            VideoMAEForVideoClassification.from_pretrained(
                tmp_path / f"{name}.safetensors", image_size=32, num_frames=4
            )


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_weights_that_are_no_floating_point_numbers_are_refused(model, tmp_path, dtype):
    tensors = load_file(model / "model.safetensors")
    tensors["classifier.bias"] = torch.ones(3).to(dtype)
    changed(model, tmp_path)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=f"classifier.bias is {dtype}"):
        VideoMAEForVideoClassification.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "shard", ["../other/x.safetensors", "/etc/passwd", "..\\x", "a/../../x", "~/x", "", 5, None, ".."]
)
def test_shards_lie_in_the_folder(model, tmp_path, shard):
    (tmp_path / "inner").mkdir()
    changed(model, tmp_path / "inner")
    (tmp_path / "inner" / "model.safetensors").rename(tmp_path / "x.safetensors")
    index = {"weight_map": {"classifier.weight": shard}}
    (tmp_path / "inner" / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="which is no file of its folder"):
        VideoMAEForVideoClassification.from_pretrained(tmp_path / "inner")


def test_a_position_table_takes_its_own_memory_and_little_more():
    """Its size is that of the configuration, which a stranger may have written."""
    tracemalloc.start()
    table = sinusoid_table((16, 64, 64), 64)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert table.shape == (65536, 64)
    assert peak < 1.2 * table.nbytes
