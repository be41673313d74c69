"""Whether the features of an encoder become useful while it is trained: simple classifiers on labelled videos."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from videomae.config import VideoMAEConfig
from videomae.data.manifest import Manifest, read_manifest
from videomae.training.experiment import Run
from videomae.training.settings import LoaderSettings
from videomae.training.validation import build_eval_loader
from videomae.video.checkpoint_processor import Statistics

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn
    from torch.utils.data import DataLoader


@dataclasses.dataclass
class OnlineProbeSettings:
    """Whether the encoder learns anything of use, measured on labelled videos while it is trained."""

    data: Path | None = None
    """Labelled videos with the splits "train" and "test"; None does without. Needs scikit-learn."""

    every: int = 20
    """Epochs between two probes."""

    k: int = 10
    """Neighbours that vote."""

    c: float = 0.01
    """Inverse strength of the regularisation of logistic regression."""


def probe_videos(settings: OnlineProbeSettings) -> dict[str, Manifest] | None:
    """Return the labelled videos to train a probe on and to test it on, by split; None where there is to be none.

    Raises:
        DataError: if a split or a label is missing, or if there is but one class to tell.
        ValueError: for a number that makes no sense.
    """
    s = settings
    for name in ("every", "k"):
        if getattr(s, name) < 1:
            raise ValueError(f"probe.{name} must be at least 1, got {getattr(s, name)}.")
    if s.c <= 0:
        raise ValueError(f"probe.c must be above 0, got {s.c}.")
    if s.data is None:
        return None
    manifest = read_manifest(s.data)
    splits = {name: manifest.split(name) for name in ("train", "test")}
    splits["train"].require_classes(f"probe.data = {s.data}, split 'train'")
    splits["test"].require_labels(f"probe.data = {s.data}, split 'test'")
    return splits


def build_probe(
    settings: OnlineProbeSettings,
    loading: LoaderSettings,
    videos: Mapping[str, Manifest],
    config: VideoMAEConfig,
    statistics: Statistics,
    run: Run,
) -> "Callable[[nn.Module], dict[str, float]]":
    """Return what measures how well simple classifiers do on the encoder's features of the labelled videos.

    A video's features are the means over the time slots of its middle clip, one after the other. A test video that
    cannot be read counts as wrong; ``run.unreadable`` lists it.

    Args:
        settings: of the probe.
        loading: how videos are decoded.
        videos: as `probe_videos` returns them.
        config: of the model.
        statistics: mean and standard deviation of the input.
        run: knows the processes, which share the videos out, and how many of them one takes at once.
    """
    import numpy as np
    import torch
    from accelerate.utils import gather_object

    from videomae.models.probes import predict_knn, predict_linear
    from videomae.video.augment import normalize

    accelerator, slots = run.accelerator, config.grid[0]
    loaders = {
        split: build_eval_loader(
            loading,
            chosen,
            config,
            batch_size=run.schedule.per_device_batch,
            rank=accelerator.process_index,
            world_size=accelerator.num_processes,
            pin_memory=accelerator.device.type == "cuda",
        )
        for split, chosen in videos.items()
    }

    @torch.no_grad()
    def features(model: "nn.Module", loader: "DataLoader[Any]") -> "tuple[NDArray[Any], NDArray[Any]]":
        encoder = accelerator.unwrap_model(model).videomae
        found: list[tuple[NDArray[Any], int]] = []
        failed: list[tuple[str, str]] = []
        for batch in loader:
            failed += batch["unreadable"]
            if "pixel_values" not in batch:
                continue
            pixels = batch["pixel_values"].to(accelerator.device, non_blocking=True)
            pixels = normalize(pixels, mean=statistics[0], std=statistics[1])
            with accelerator.autocast():
                tokens = encoder(pixels).last_hidden_state
            means = tokens.float().unflatten(1, (slots, -1)).mean(dim=2).flatten(1).cpu().numpy()
            found += zip(means, batch["label"].tolist(), strict=True)
        run.unreadable.note(failed, "left out of the probe, or wrong where they test it")
        found = gather_object(found)
        width = slots * config.hidden_size
        return np.array([vector for vector, _ in found]).reshape(-1, width), np.array([label for _, label in found])

    def probe(model: "nn.Module") -> dict[str, float]:
        train, targets = features(model, loaders["train"])
        test, expected = features(model, loaders["test"])
        if len(np.unique(targets)) < 2 or not len(test):  # too little of it can be read
            return {"probe_knn": 0.0, "probe_linear": 0.0}
        right = {
            "probe_knn": predict_knn(train, targets, test, k=settings.k) == expected,
            "probe_linear": predict_linear(train, targets, test, c=settings.c) == expected,
        }
        return {name: float(hits.sum() / len(videos["test"])) for name, hits in right.items()}

    return probe
