"""What runs a model on clips: PyTorch, or the runtime of an exported file.

B clips · T frames · H height and W width in pixels · C channels · L classes · N tubelets · D width
"""

import dataclasses
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from videomae.config import VideoMAEConfig
from videomae.errors import CheckpointError
from videomae.inference.eight_bit_views import EightBitViews
from videomae.inference.protocols import ViewTransform
from videomae.video.processors import VideoMAEImageProcessor


class Engine(Protocol):
    """Runs a model on clips of 8-bit frames, one call at a time.

    Attributes:
        name: "torch", "openvino" or "onnx".
        config: sizes of the model, names of its classes, and how the frames of a clip are chosen.
        processor: resizes and crops frames to the model's size.
        dtype: what the model computes in.
        views: cuts the views out of a clip, in the form that this engine prefers.
    """

    name: ClassVar[str]
    views: ClassVar[type[ViewTransform]]

    @property
    def config(self) -> VideoMAEConfig: ...  # noqa: D102

    @property
    def processor(self) -> VideoMAEImageProcessor: ...  # noqa: D102

    @property
    def dtype(self) -> str: ...  # noqa: D102

    def load(self) -> None:
        """Make ready to run, where that was not done when the model was opened."""
        ...

    def __call__(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Run the model on (B, T, H, W, C) uint8 frames of its size, or on what ``views`` cuts, concatenated.

        Returns:
            Logits (B, L) of a classifier, tokens (B, N, D) of an encoder, float32.

        Raises:
            ValueError: if the frames do not fit the model.
        """
        ...


def join(parts: Sequence[Any]) -> Any:
    """Join what ``views`` of an engine cut, arrays or tensors, along the first axis."""
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    import torch

    return torch.cat(list(parts))


METADATA_KEY = "videomae"
"""The entry of an exported file that holds its `ModelCard` as JSON."""


@dataclasses.dataclass(frozen=True)
class ModelCard:
    """What an exported file says of itself, so that nothing beside it has to be known.

    Attributes:
        task: "classification" or "encoder".
        precision: "float32", "float16", "bfloat16" or "int8".
        config: of the model, with the names of its classes and how the frames of a clip are chosen.
        processor: that it was trained with; normalisation is inside the file.
        source_size: (height, width) of the frames that the file takes if resizing and cropping are inside it, too.
    """

    task: str
    precision: str
    config: VideoMAEConfig
    processor: VideoMAEImageProcessor
    source_size: tuple[int, int] | None = None

    @property
    def frame_size(self) -> tuple[int, int]:
        """Height and width of the frames that the file takes."""
        return self.source_size or self.config.frame_size

    @property
    def frames_shape(self) -> tuple[int, int, int, int]:
        """Shape (T, H, W, C) of the clips that the file takes."""
        return self.config.num_frames, *self.frame_size, self.config.num_channels

    def to_json(self) -> str:
        """Return the entry of the file's metadata."""
        clips = {name: getattr(self.config, name) for name in ("clip_sampling", "clip_stride", "clip_fps")}
        content = {
            "task": self.task,
            "precision": self.precision,
            "frames": {"dtype": "uint8", "shape": ["B", *self.frames_shape]},
            "source_size": self.source_size,
            "config": self.config.to_dict() | clips,
            "processor": self.processor.to_dict(),
        }
        return json.dumps(content, sort_keys=True, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str | None, path: Path) -> Self:
        """Read the entry of a file's metadata.

        Raises:
            CheckpointError: if there is none.
        """
        if text is None:
            raise CheckpointError(f"{path} was not written by `videomae export`: it does not say what it takes.")
        content = json.loads(text)
        return cls(
            task=content["task"],
            precision=content["precision"],
            config=VideoMAEConfig.from_dict(content["config"]),
            processor=VideoMAEImageProcessor.from_dict(content["processor"]),
            source_size=tuple(content["source_size"]) if content["source_size"] else None,
        )


class ExportedModel(ABC):
    """An exported file and the runtime for it; a subclass opens the file and runs it.

    Args:
        path: the file.
        card: what it says of itself.

    Attributes:
        config: of the card.
        processor: resizes and crops frames to what the file takes; nothing where it does that itself.
    """

    name: ClassVar[str]
    views: ClassVar[type[ViewTransform]] = EightBitViews

    def __init__(self, path: Path, card: ModelCard) -> None:
        self.path, self.card, self.config = path, card, card.config
        # What resizes and crops inside takes frames as they are.
        self.processor = card.processor
        if card.source_size is not None:
            self.processor = dataclasses.replace(card.processor, do_resize=False, do_center_crop=False)

    @property
    def dtype(self) -> str:
        """The precision that the file was exported in."""
        return self.card.precision

    def __call__(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Run the model; see `Engine`."""
        frames = np.asarray(frames)
        expected = self.card.frames_shape
        if frames.dtype != np.uint8 or frames.shape[1:] != expected:
            raise ValueError(
                f"{self.path} takes uint8 frames (B, {', '.join(map(str, expected))}), got {frames.dtype} of shape "
                f"{frames.shape}."
            )
        return self.run(np.ascontiguousarray(frames))

    def fingerprint(self) -> str:
        """Return a checksum of the file and of the weights beside it."""
        digest = hashlib.sha256()
        for file in sorted(self.path.parent.glob(f"{self.path.stem}.*")):
            if ".report" not in file.name:
                digest.update(file.read_bytes())
        return digest.hexdigest()[:32]

    def load(self) -> None:  # noqa: B027
        """Make ready to run, where opening the file did not do that; otherwise the first call does."""

    @abstractmethod
    def run(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Run the model on frames that fit it."""
