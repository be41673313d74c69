"""Which parts of a video a model looks at: named protocols of the published tests, and views of one's own."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from videomae.config import IMAGENET_MEAN, IMAGENET_STD, PRESETS, VideoMAEConfig, nearest
from videomae.video.processors import VideoMAEImageProcessor
from videomae.video.reader import VideoReader
from videomae.video.sampling import ClipSampling

if TYPE_CHECKING:
    import torch


@dataclasses.dataclass(frozen=True)
class Sampling:
    """Which parts of a video a model looks at.

    Attributes:
        choice: of the frames of a clip.
        clip_frames: of a clip.
        num_clips: spread over the video's length; a single one is its middle.
        num_crops: spread over the long side of a frame; 1 is the centre.
    """

    choice: ClipSampling
    clip_frames: int
    num_clips: int = 1
    num_crops: int = 1

    @classmethod
    def of(cls, config: VideoMAEConfig, *, views: str = "1x1", stride: float | None = None) -> Self:
        """Choose frames as in a model's training, or every ``stride``-th of the video's own."""
        return cls(ClipSampling.of_model(config, stride=stride), config.num_frames, *parse_views(views))

    def read(self, path: str | Path) -> list[NDArray[np.uint8]]:
        """Read the clips of a video file, each (T, H, W, 3) uint8; only what they need is decoded."""
        with VideoReader(path) as reader:
            indices = self.indices(reader.num_frames, video_fps=reader.fps)
            frames = reader.frames_at(indices.ravel())
        return list(frames.reshape(*indices.shape, *frames.shape[1:]))

    def pick(self, frames: Any) -> list[Any]:
        """Pick the clips out of frames in memory: a list of them, or an array (T, H, W, C) or (T, C, H, W)."""
        shape = getattr(frames, "shape", None)
        if shape is not None and len(shape) != 4:
            raise ValueError(f"a video must be a list of frames or an array of 4 axes, got the shape {tuple(shape)}")
        indices = self.indices(len(frames), video_fps=self.choice.fps or 1.0)  # their rate is not known
        return [[frames[i] for i in row] for row in indices.tolist()]

    def indices(self, num_frames: int, *, video_fps: float) -> NDArray[np.int64]:
        """Return the frame numbers of the clips, (num_clips, clip_frames)."""
        return self.choice(num_frames, video_fps=video_fps, clip_frames=self.clip_frames, num_clips=self.num_clips)


def parse_views(views: str) -> tuple[int, int]:
    """Read "5x3" as 5 clips in time, 3 crops in space."""
    clips, _, crops = views.partition("x")
    if not (clips.isdecimal() and crops.isdecimal() and int(clips) and int(crops)):
        raise ValueError(f"views must be CLIPSxCROPS, e.g. 5x3, got {views!r}")
    return int(clips), int(crops)


Method = Literal["dense", "uniform"]


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Everything that decides what a model sees of a video. Scores are the mean of the softmax over the views.

    Attributes:
        name: by which it is recorded.
        method: "dense" takes every ``stride``-th frame, clips spread over the video; "uniform" a frame from each of
            as many segments as the model has frames, each clip further on in them (TSN).
        stride: distance between the frames of a dense clip, in frames.
        clips: in time.
        crops: spread over the long side of a frame; 1 is the centre.
        fps: frame rate that the stride is counted at; None counts the video's own frames.
        resize: "processor" resizes as the model's processor does, so that a centre crop is what ``predict`` sees.
            "published" resizes as v1 tests: the short side to that of the crop, bilinear without antialiasing; larger
            frames are shrunk first, antialiased, to what the published data was stored at (320 for a crop of 224).
    """

    name: str
    method: Method = "dense"
    stride: float = 4
    clips: int = 1
    crops: int = 1
    fps: float | None = None
    resize: Literal["processor", "published"] = "processor"

    @property
    def views(self) -> list[tuple[int, int]]:
        """Each view as (clip, crop), from the middle outwards: the central crop of every clip, then the others."""

        def from_middle(view: tuple[int, int]) -> tuple[int, int]:
            clip, crop = view
            return abs(2 * crop - self.crops + 1), abs(2 * clip - self.clips + 1)

        return sorted(((clip, crop) for clip in range(self.clips) for crop in range(self.crops)), key=from_middle)

    @property
    def sampling(self) -> ClipSampling:
        """The choice of frames of a clip."""
        return ClipSampling(self.method, self.stride, self.fps)

    def departures(self, config: VideoMAEConfig, processor: VideoMAEImageProcessor) -> list[str]:
        """List what keeps a result from being compared with the published one, where there is one."""
        if self.name not in PUBLISHED:
            return []
        official = PROTOCOLS[self.name]
        found = [
            f"{field.name} is {getattr(self, field.name)}, the protocol has {getattr(official, field.name)}"
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != getattr(official, field.name)
        ]
        measured = {
            "frames of a clip": (config.num_frames, 16),
            "frame size": (config.frame_size, (224, 224)),
            "mean": (processor.image_mean, IMAGENET_MEAN),
            "standard deviation": (processor.image_std, IMAGENET_STD),
        }
        return found + [
            f"{what} is {ours}, published {theirs}" for what, (ours, theirs) in measured.items() if ours != theirs
        ]


# The tests of v1 and v2 (FACTS of the published evaluation: papers and scripts); "center" is what `predict` sees.
PROTOCOLS = {
    "center": Protocol("center"),
    "k400": Protocol("k400", clips=5, crops=3, resize="published"),
    "ssv2": Protocol("ssv2", method="uniform", clips=2, crops=3, resize="published"),
    "ucf101": Protocol("ucf101", clips=5, crops=3, resize="published"),
    "hmdb51": Protocol("hmdb51", clips=5, crops=3, resize="published"),
}

# Protocol: its number of classes, and by size of the model the published top-1, %, with what was trained.
PUBLISHED: dict[str, tuple[int, dict[str, dict[str, float]]]] = {
    "k400": (
        400,
        {
            "small": {"v1": 79.0},
            "base": {"v1": 81.5},
            "large": {"v1": 85.2},
            "huge": {"v1": 86.6},
            "giant": {"v2": 87.2},
        },
    ),
    "ssv2": (174, {"small": {"v1": 66.8}, "base": {"v1": 70.8}, "large": {"v1": 74.3}, "giant": {"v2": 77.0}}),
    "ucf101": (101, {"base": {"v1": 91.3, "v1, pre-trained on K400": 96.1}, "giant": {"v2": 99.6}}),
    "hmdb51": (51, {"base": {"v1": 62.6, "v1, pre-trained on K400": 73.3}, "giant": {"v2": 88.1}}),
}


def published_top1(protocol: str, config: VideoMAEConfig) -> dict[str, float]:
    """Return the published top-1, %, on the whole test set for models of this size, by what was trained; often none.

    Args:
        protocol: name of a protocol.
        config: of the model; it must have the classes of the benchmark.
    """
    num_classes, by_size = PUBLISHED.get(protocol, (0, {}))
    shape = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "tubelet_shape")
    for size in PRESETS:
        preset = VideoMAEConfig.preset(size)
        if config.num_labels == num_classes and all(getattr(preset, name) == getattr(config, name) for name in shape):
            return by_size.get(size, {})
    return {}


def find_protocol(name: str, config: VideoMAEConfig) -> Protocol:
    """Return a protocol by its name; "center" chooses frames as in the model's training."""
    if name not in PROTOCOLS:
        raise ValueError(f"there is no protocol {name!r}{nearest(name, PROTOCOLS)}. Known: {', '.join(PROTOCOLS)}.")
    if name != "center":
        return PROTOCOLS[name]
    method: Method = "uniform" if config.clip_sampling == "uniform" else "dense"
    return dataclasses.replace(PROTOCOLS[name], method=method, stride=config.clip_stride, fps=config.clip_fps)


@dataclasses.dataclass(frozen=True)
class ViewTransform:
    """Cut the views out of a clip: (T, C, H, W) uint8 to (crops, T, C, *frame_size).

    The result is normalised where the model's processor resizes, and uint8 where "published" does: a quarter of the
    bytes to move, normalised beside the model.
    """

    crops: int
    resize: str
    frame_size: tuple[int, int]
    processor: VideoMAEImageProcessor

    def __post_init__(self) -> None:
        height, width = self.frame_size
        if height != width and (self.crops > 1 or self.resize == "published"):
            raise ValueError(
                f"several crops, and the protocols of the benchmarks, need square frames; the model's are "
                f"{self.frame_size}. Use the protocol 'center', with one crop."
            )
        p = self.processor
        if self.resize == "published" and not (
            p.do_rescale and p.do_normalize and abs(p.rescale_factor * 255 - 1) < 1e-6
        ):
            raise ValueError(
                "the protocols of the benchmarks normalise pixels in 0-1, the model's processor does not. "
                "Use the protocol 'center'."
            )

    def __call__(self, clip: "torch.Tensor") -> "torch.Tensor":
        """Cut the views out of a clip."""
        from videomae.video.augment import ShrinkShortSide, eval_views

        size = self.frame_size[0]
        if self.resize == "published":
            stored = ShrinkShortSide(320 * size // 224)(clip)
            return eval_views(stored, short_side=size, image_size=size, crops=self.crops, antialias=False)
        layout = {"input_data_format": "channels_first", "data_format": "channels_first", "return_tensors": "pt"}
        if self.crops == 1:
            return self.processor(clip, **layout).pixel_values
        whole = self.processor(clip, do_center_crop=False, **layout).pixel_values[0]
        return eval_views(whole, short_side=min(whole.shape[-2:]), image_size=size, crops=self.crops)
