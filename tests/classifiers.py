"""Small models and the videos that they are asked about."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from videomae import VideoClassifier, VideoMAEConfig, VideoMAEForVideoClassification, VideoMAEImageProcessor
from videomae.config import IMAGENET_MEAN, IMAGENET_STD
from videomae.models.videomae import VideoMAEForPreTraining
from videomae.video.checkpoint_processor import make_processor
from videomae.video.encode import write_video
from videomae.video.synthetic import MOTIONS, motion_video

LIGHT = ("dark", "bright")
NUM_TEST_VIDEOS = 13
# The classes are not in the order of the data, which is alphabetical.
MOTION_CONFIG = VideoMAEConfig.preset(
    "tiny", image_size=32, num_frames=4, num_hidden_layers=2, id2label=dict(enumerate(MOTIONS))
)


class BrightModel:
    """Says "bright" where a clip's mean is above that of the pixels' range."""

    config = VideoMAEConfig(image_size=32, num_frames=4, id2label=dict(enumerate(LIGHT)))
    device, dtype = torch.device("cpu"), torch.float32

    def __call__(self, pixel_values: torch.Tensor, return_dict: bool) -> Any:
        mean = pixel_values.mean((1, 2, 3, 4))
        return SimpleNamespace(logits=20 * torch.stack([-mean, mean], dim=1))


def bright_classifier() -> VideoClassifier:
    return VideoClassifier(BrightModel(), make_processor(BrightModel.config, ((0.5,) * 3, (0.5,) * 3)))


SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


def save_light_model(folder: Path) -> Path:
    """Save a model of random weights that sees little but how bright a clip is, and says so."""
    torch.manual_seed(0)
    config = VideoMAEConfig(image_size=32, patch_size=16, num_frames=4, id2label=dict(enumerate(LIGHT)), **SMALL)
    model = VideoMAEForVideoClassification(config)
    with torch.no_grad():
        model.videomae.patch_embed.proj.weight[0] = 0.01
        model.classifier.weight[:, 0] = torch.tensor([-4.0, 4.0])
    model.save_pretrained(folder)
    make_processor(config, ((0.5,) * 3, (0.5,) * 3)).save_pretrained(folder)
    return folder


def save_small_pretrained(folder: Path) -> Path:
    """Save a pre-trained model, with its decoder, of random weights."""
    decoder = {"decoder_hidden_size": 16, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2}
    config = VideoMAEConfig(
        image_size=32, patch_size=16, num_frames=4, decoder_intermediate_size=32, **SMALL, **decoder
    )
    VideoMAEForPreTraining(config).save_pretrained(folder)
    make_processor(config, ((0.5,) * 3, (0.5,) * 3)).save_pretrained(folder)
    return folder


def long_video(path: Path) -> Path:
    """Write 10 seconds at 16 frames per second, bright from 4 to 7."""
    frames = np.full((160, 32, 48, 3), 20, np.uint8)
    frames[64:112] = 235
    write_video(path, frames)
    return path


def bright_until(error: BaseException) -> Iterator[tuple[float, np.ndarray]]:
    """Yield the frames of a camera that breaks off."""
    for i in range(100):
        yield i / 10, np.full((32, 48, 3), 235, np.uint8)
    raise error


def save_motions(folder: Path) -> Path:
    """Save a model of random weights, and a manifest of 13 wide test videos and one training video."""
    torch.manual_seed(0)
    model = VideoMAEForVideoClassification(MOTION_CONFIG)
    torch.nn.init.normal_(model.classifier.weight)
    model.save_pretrained(folder / "model")
    processor = VideoMAEImageProcessor(size=32, crop_size=32, image_mean=IMAGENET_MEAN, image_std=IMAGENET_STD)
    processor.save_pretrained(folder / "model")
    classes = tuple(MOTIONS)
    lines = ["path,label,split"]
    for i in range(NUM_TEST_VIDEOS + 1):
        motion = classes[i % len(classes)]
        frames = motion_video(motion, rng=np.random.default_rng(i), num_frames=24, size=40)
        name = f"{motion}/{i // len(classes)}.mp4"  # names repeat from folder to folder
        write_video(folder / "videos" / name, np.concatenate([frames, frames], axis=2))
        lines.append(f"{name},{motion},{'train' if i == NUM_TEST_VIDEOS else 'test'}")
    (folder / "videos" / "manifest.csv").write_text("\n".join(lines))
    return folder
