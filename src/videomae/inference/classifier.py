"""A fine-tuned model with its processor: a video in, labels out.

B clips · T frames · L classes
"""

import dataclasses
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from videomae.config import VideoMAEConfig
from videomae.data.sources import find_videos
from videomae.errors import VideoError
from videomae.inference.engines.base import Engine, ExportedModel, join
from videomae.inference.engines.formats import EngineName, find_exported, open_exported
from videomae.inference.engines.pytorch import TorchEngine
from videomae.inference.loading import DEFAULT_MODEL, open_model
from videomae.inference.protocols import Protocol, ViewTransform, find_protocol
from videomae.video.checkpoint_processor import load_processor
from videomae.video.clips import read_ahead, read_clips
from videomae.video.damage import Damage, OnError, reading_notes
from videomae.video.processors import VideoMAEImageProcessor
from videomae.video.reader import VideoReader, past_damage
from videomae.video.source import shown

if TYPE_CHECKING:
    import torch

    from videomae.models.videomae import VideoMAEForVideoClassification


@dataclasses.dataclass(frozen=True)
class Prediction:
    """One class and its score.

    Attributes:
        label: name of the class.
        score: probability in 0-1, the mean of the softmax over all views.
    """

    label: str
    score: float


@dataclasses.dataclass(frozen=True)
class PredictionResult:
    """What came out for one file.

    Attributes:
        path: of the file; credentials of a URL are masked.
        predictions: the best classes, best first; none if it could not be read.
        error: why it could not be read, or None.
        damage: stretches that did not decode, or that the decoder patched, as far as they were met.
        assumed_fps: the rate that times follow from where the file holds none; else None.
    """

    path: str
    predictions: list[Prediction]
    error: str | None = None
    damage: Sequence[Damage] = ()
    assumed_fps: float | None = None

    @property
    def is_whole(self) -> bool:
        """Whether the file was read, and all of it that was looked at decoded."""
        return self.error is None and not self.damage

    def notes(self) -> list[str]:
        """Return what a reader should know of the file, in words."""
        return reading_notes(self.damage, assumed_fps=self.assumed_fps)

    def to_dict(self) -> dict[str, Any]:
        """Return all of it, ready for JSON."""
        return dataclasses.asdict(self) | {"damage": [damage._asdict() for damage in self.damage]}


class VideoClassifier:
    """A fine-tuned model with its processor: a video in, labels out.

        >>> classify = VideoClassifier.from_pretrained("run/model")
        >>> [(p.label, 0 < p.score < 1) for p in classify("clip.mp4", top_k=1)]
        [('moving_up', True)]

    Args:
        model: the classifier, on the device where it should run; or an exported one.
        processor: turns frames into its input.
        dtype: of the parameters, where it was asked for; with None a CUDA GPU computes in bfloat16 where it has that.
    """

    def __init__(
        self,
        model: "VideoMAEForVideoClassification | ExportedModel",
        processor: VideoMAEImageProcessor,
        *,
        dtype: "torch.dtype | str | None" = None,
    ) -> None:
        self.model = model
        self.processor = processor
        self.engine: Engine = model if isinstance(model, ExportedModel) else TorchEngine(model, processor, dtype=dtype)

    @property
    def config(self) -> VideoMAEConfig:
        """Sizes of the model, names of its classes, and how the frames of a clip are chosen."""
        return self.model.config

    @classmethod
    def from_pretrained(
        cls,
        path_or_id: str | Path = DEFAULT_MODEL,
        *,
        engine: EngineName | None = None,
        device: "torch.device | str | None" = None,
        dtype: "torch.dtype | str | None" = None,
        processor: VideoMAEImageProcessor | None = None,
        **options: Any,
    ) -> Self:
        """Load a fine-tuned checkpoint of any family, or what ``videomae export`` made of one.

        Args:
            path_or_id: a directory, a weights file, an exported file, or the id of a model on the Hugging Face Hub.
            engine: "torch", or "openvino" or "onnx", which run exported files without importing PyTorch; None takes the
                checkpoint where there is one, and otherwise the exported file that is there.
            device: where to run; None takes a GPU if there is one, with OpenVINO and ONNX the CPU.
            dtype: of the parameters and of the computation, e.g. "bfloat16", or "float32" for exactness; with None the
                parameters are float32, and a CUDA GPU that has bfloat16 computes in it. An exported file is in that of
                its export.
            processor: in place of the checkpoint's own; an exported file keeps its own.
            options: as for ``VideoMAEForVideoClassification.from_pretrained``; for an exported file those of the Hub.

        Raises:
            CheckpointError: if the checkpoint cannot be read, or has no classifier.
            MissingPackageError: if the engine's package is not installed.
            ValueError: if the engine has no such device or dtype.
        """
        exported = open_exported(path_or_id, "classification", engine, device=device, dtype=dtype, **options)
        if exported is not None:
            return cls(exported, exported.processor)
        from videomae.models.videomae import VideoMAEForVideoClassification

        about: dict[str, Any] = {"device": device, "dtype": dtype, "processor": processor}
        opened = open_model(path_or_id, VideoMAEForVideoClassification, **about, **options)
        return cls(opened.model, opened.processor, dtype=dtype)

    def __call__(
        self,
        video: str | Path | Any,
        *,
        top_k: int = 5,
        protocol: str | Protocol = "center",
        views: str | None = None,
        stride: float | None = None,
        batch_size: int = 8,
    ) -> list[Prediction]:
        """Classify one video.

        Args:
            video: a path; or its frames: uint8 (T, H, W, 3), a list of images, or what else the processor takes as a
                clip. Frames are sampled from the latter as from a file.
            top_k: how many classes to return.
            protocol: what the model sees of the video: "center" is the middle, its frames chosen as in training
                (``config.clip_sampling``, ``clip_stride`` and ``clip_fps``); "k400", "ssv2", "ucf101" and "hmdb51" are
                what the published tests show; or a `Protocol`, which leaves nothing to ``views`` and ``stride``.
            views: in place of the protocol's: "5x3" is 5 clips spread over the time, 3 crops over the long side.
            stride: in place of the protocol's frames: every so many of the video's own.
            batch_size: views that go through the model at once.

        Returns:
            The ``top_k`` best classes, best first.

        Raises:
            VideoError: if the file cannot be read.
            ValueError: if an option makes no sense.
        """
        if isinstance(protocol, str):
            protocol = find_protocol(protocol, self.config, views=views, stride=stride)
        clips = read_clips(
            video,
            protocol.sampling,
            clip_frames=self.config.num_frames,
            num_clips=protocol.num_clips,
            square_pixels=protocol.square_pixels,
            shrink=self.view_transform(protocol).shrink,
        )
        return self.rank(self.scores(clips, protocol, batch_size=batch_size), top_k)

    def view_transform(self, protocol: Protocol) -> ViewTransform:
        """Return what cuts the views out of a clip, in the form that the engine takes."""
        return self.engine.views(protocol.num_crops, protocol.resize, self.config.frame_size, self.processor)

    def scores(self, clips: Sequence[Any], protocol: Protocol, *, batch_size: int = 8) -> NDArray[np.float32]:
        """Return the probability of every class, (L,), averaged over the views of a video.

        Args:
            clips: of one video, as `read_clips` returns them.
            protocol: says how they are resized and cropped.
            batch_size: views that go through the model at once.
        """
        cut = self.view_transform(protocol)
        return np.asarray(self.probabilities([cut(clip) for clip in clips], batch_size=batch_size)).mean(axis=0)

    def probabilities(self, pixels: Any, *, batch_size: int = 8) -> Any:
        """Return the probability of every class for every clip, (B, L) float32 on the CPU.

        Args:
            pixels: 8-bit frames of the model's size, (B, T, H, W, C) uint8; or a tensor (B, T, C, H, W), normalised
                floats, or uint8 in 0-255, normalised beside the model; or a list of such parts of the batch.
            batch_size: clips that go through the model at once.

        Returns:
            A tensor for tensors, an array otherwise.

        Raises:
            ValueError: if the model answers with NaN.
        """
        pixels = join(pixels) if isinstance(pixels, list) else pixels
        logits = np.concatenate([self.engine(pixels[i : i + batch_size]) for i in range(0, len(pixels), batch_size)])
        exponents = np.exp(logits - logits.max(axis=-1, keepdims=True))
        scores = exponents / exponents.sum(axis=-1, keepdims=True)
        if not np.isfinite(scores).all():
            raise ValueError(
                "the model answers with NaN: its weights are damaged, or too large for float16 (try float32)."
            )
        if isinstance(pixels, np.ndarray):
            return scores
        import torch

        return torch.from_numpy(scores)

    def rank(self, scores: NDArray[np.float32], top_k: int) -> list[Prediction]:
        """Return the ``top_k`` best classes of (L,) scores, best first."""
        _check_top_k(top_k)
        labels = self.config.id2label
        return [Prediction(labels[i], float(scores[i])) for i in np.argsort(-scores, kind="stable")[:top_k].tolist()]


def predict(
    videos: Sequence[str | Path],
    *,
    model: str | Path | VideoClassifier = DEFAULT_MODEL,
    top_k: int = 5,
    protocol: str = "center",
    views: str | None = None,
    stride: float | None = None,
    batch_size: int = 8,
    engine: EngineName | None = None,
    device: "torch.device | str | None" = None,
    dtype: "torch.dtype | str | None" = None,
    on_error: OnError = "skip",
    fps: float | None = None,
) -> Iterator[PredictionResult]:
    """Classify files, decoding the next one while the model looks at this one.

        >>> for result in predict(["clip.mp4"], model="run/model"):
        ...     print(result.path, result.predictions[0].label)
        clip.mp4 moving_up

    Args:
        videos: files, http and https URLs, and folders that are searched for videos.
        model: a directory, a weights file, an exported file, the id of a model on the Hugging Face Hub, or a
            classifier.
        top_k: as for ``VideoClassifier``, like all that follows.
        protocol: name of a protocol.
        views: in place of the protocol's.
        stride: in place of the protocol's frames.
        batch_size: views that go through the model at once.
        engine: as for ``VideoClassifier.from_pretrained``; a classifier stays what it is.
        device: where to run; a classifier stays where it is.
        dtype: as for ``VideoClassifier.from_pretrained``; a classifier stays what it is.
        on_error: what to do where a video does not decode: "skip" goes on behind the damage, "truncate" ends before it,
            "raise" gives a result with an error. Frames are then chosen of those that remain.
        fps: frames per second of files that hold no times; others keep their own.

    Yields:
        A result per file, in order; a file that cannot be read gives a result with an error.

    Raises:
        CheckpointError: if the model cannot be loaded.
        DataError: if a folder holds no videos.
        ValueError: if an option makes no sense.
    """
    _check_top_k(top_k)
    files = find_videos(videos)
    load = partial(VideoClassifier.from_pretrained, engine=engine, device=device, dtype=dtype)
    # A checkpoint tells the length of a clip before its weights are loaded; a file of weights alone does not.
    if not isinstance(model, VideoClassifier) and (Path(model).is_file() or find_exported(model, engine)):
        model = load(model)
    if isinstance(model, VideoClassifier):
        config, processor, transform = model.config, model.processor, model.engine.views
    else:
        config = VideoMAEConfig.from_pretrained(model)
        processor, transform = load_processor(model, config), TorchEngine.views
        load = partial(load, processor=processor)
    chosen = find_protocol(protocol, config, views=views, stride=stride)
    shrink = transform(chosen.num_crops, chosen.resize, config.frame_size, processor).shrink

    def choose(reader: VideoReader) -> tuple[list[Any], float | None]:
        numbers: dict[str, Any] = {"clip_frames": config.num_frames, "num_clips": chosen.num_clips}
        return read_clips(reader, chosen.sampling, **numbers, shrink=shrink), reader.assumed_fps

    def read(file: str | Path) -> tuple[tuple[list[Any], float | None], list[Damage]] | VideoError:
        try:
            return past_damage(file, choose, on_error=on_error, fps=fps, square_pixels=chosen.square_pixels)
        except VideoError as error:
            return error

    upcoming = read_ahead(map(read, files))  # the first is decoded while the weights are loaded
    classifier = model if isinstance(model, VideoClassifier) else load(model)
    classifier.engine.load()
    for file, found in zip(files, upcoming, strict=True):
        if isinstance(found, VideoError):
            yield PredictionResult(shown(file), [], str(found))
            continue
        (clips, assumed_fps), damage = found
        best = classifier.rank(classifier.scores(clips, chosen, batch_size=batch_size), top_k)
        yield PredictionResult(shown(file), best, damage=damage, assumed_fps=assumed_fps)


def _check_top_k(top_k: int) -> None:
    if top_k < 1:
        raise ValueError(f"top_k must be at least 1, got {top_k}.")
