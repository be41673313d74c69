"""What a model sees of a video: its clips and their crops, as in training, as in a published test, or one's own."""

import dataclasses
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from videomae.config import IMAGENET_MEAN, IMAGENET_STD, PRESETS, VideoMAEConfig, nearest
from videomae.video.processors import VideoMAEImageProcessor
from videomae.video.sampling import ClipSampling

if TYPE_CHECKING:
    import torch

Resize = Literal["processor", "published"]
ProtocolName = Literal["center", "k400", "ssv2", "ucf101", "hmdb51"]


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Everything that decides what a model sees of a video. Scores are the mean of the softmax over the views.

    A view is one crop of one clip.

    Attributes:
        name: by which it is recorded.
        sampling: which frames make a clip.
        num_clips: spread over the video's length; 1 is the middle.
        num_crops: spread over the long side of a frame; 1 is the centre.
        resize: "processor" resizes as the model's processor does. "published" resizes as v1 tests: the short side to
            that of the crop, bilinear without antialiasing; larger frames are shrunk first, antialiased, to what the
            published data was stored at (320 for a crop of 224).
        square_pixels: scale frames whose pixels are not square, as training does; the published tests do not.
    """

    name: str
    sampling: ClipSampling = dataclasses.field(default_factory=ClipSampling)
    num_clips: int = 1
    num_crops: int = 1
    resize: Resize = "processor"
    square_pixels: bool = True

    @classmethod
    def of_model(cls, config: VideoMAEConfig, *, views: str = "1x1", stride: float | None = None) -> Self:
        """Return what a model saw in training, in the middle of a video; see `find_protocol` for the arguments."""
        num_clips, num_crops = parse_views(views)
        return cls("center", ClipSampling.of_model(config, stride=stride), num_clips, num_crops)

    @property
    def views(self) -> list[tuple[int, int]]:
        """Each view as (clip, crop), from the middle outwards: the central crop of every clip, then the others."""

        def from_middle(view: tuple[int, int]) -> tuple[int, int]:
            clip, crop = view
            return abs(2 * crop - self.num_crops + 1), abs(2 * clip - self.num_clips + 1)

        every = ((clip, crop) for clip in range(self.num_clips) for crop in range(self.num_crops))
        return sorted(every, key=from_middle)

    def to_dict(self) -> dict[str, Any]:
        """Return all choices, those of frames among them, ready for JSON."""
        content = dataclasses.asdict(self)
        sampling = content.pop("sampling")
        del sampling["jitter"]  # of training
        return content | sampling

    def departures(self, config: VideoMAEConfig, processor: VideoMAEImageProcessor) -> list[str]:
        """List what keeps a result from being compared with the published one, where there is one."""
        if self.name not in PUBLISHED:
            return []
        ours, official = self.to_dict(), _official(self.name, config).to_dict()
        found = [
            f"{name} is {ours[name]}, the protocol has {value}"
            for name, value in official.items()
            if ours[name] != value
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


def parse_views(views: str) -> tuple[int, int]:
    """Read "5x3" as 5 clips in time, 3 crops in space."""
    num_clips, _, num_crops = views.partition("x")
    if not (num_clips.isdecimal() and num_crops.isdecimal() and int(num_clips) and int(num_crops)):
        raise ValueError(f"views must be CLIPSxCROPS, e.g. 5x3, got {views!r}.")
    return int(num_clips), int(num_crops)


def _published(name: str, sampling: ClipSampling, num_clips: int) -> Protocol:
    return Protocol(name, sampling, num_clips, num_crops=3, resize="published", square_pixels=False)


# As the papers of v1 and v2 and their scripts test; "center" chooses frames as in the model's own training.
PROTOCOLS = {
    "center": Protocol("center"),
    "k400": _published("k400", ClipSampling("v1_finetune", stride=4), num_clips=5),
    "ssv2": _published("ssv2", ClipSampling("uniform"), num_clips=2),
    "ucf101": _published("ucf101", ClipSampling("v1_finetune", stride=4), num_clips=5),
    "hmdb51": _published("hmdb51", ClipSampling("v1_finetune", stride=4), num_clips=5),
}
# Of the size that V2 alone has published, where its script differs.
V2_PROTOCOLS = {"hmdb51": _published("hmdb51", ClipSampling("v1_finetune", stride=2), num_clips=5)}

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
    return by_size.get(_size_of(config), {}) if config.num_labels == num_classes else {}


def _size_of(config: VideoMAEConfig) -> str:
    """Return the name of the preset with the encoder of this model; "" where there is none."""
    shape = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "tubelet_shape")
    presets = {size: VideoMAEConfig.preset(size) for size in PRESETS}
    return next((size for size, p in presets.items() if all(getattr(p, n) == getattr(config, n) for n in shape)), "")


def _official(name: str, config: VideoMAEConfig) -> Protocol:
    """Return the protocol of this name that a model of this size was published with."""
    return V2_PROTOCOLS[name] if name in V2_PROTOCOLS and _size_of(config) == "giant" else PROTOCOLS[name]


def find_protocol(
    name: str, config: VideoMAEConfig, *, views: str | None = None, stride: float | None = None
) -> Protocol:
    """Return a protocol by its name.

    Args:
        name: one of ``PROTOCOLS``; "center" is what the model saw in training, in the middle of a video.
        config: of the model; V2 tests its giant model on HMDB51 with another stride than v1 its models.
        views: in place of the protocol's, such as "5x3": clips spread over the time x crops spread over the frame.
        stride: in place of the protocol's frames, every ``stride``-th of the video's own.

    Raises:
        ValueError: for an unknown name, or views or a stride that make no sense.
    """
    if name not in PROTOCOLS:
        raise ValueError(f"there is no protocol {name!r}{nearest(name, PROTOCOLS)}. Known: {', '.join(PROTOCOLS)}.")
    changes: dict[str, Any] = {}
    if name == "center" or stride is not None:
        changes["sampling"] = ClipSampling.of_model(config, stride=stride)
    if views is not None:
        changes["num_clips"], changes["num_crops"] = parse_views(views)
    return dataclasses.replace(_official(name, config), **changes)


def stored_short_side(crop: int) -> int:
    """Return the short side, in pixels, that videos of the benchmarks are stored with, for a square crop of a size."""
    return 320 * crop // 224


_UNCHANGED = {"do_resize": False, "do_center_crop": False, "do_rescale": False, "do_normalize": False}


@dataclasses.dataclass(frozen=True)
class ViewTransform:
    """Cut the views out of a clip, to (S, T, C, *frame_size).

    A clip is a tensor (T, C, H, W), an array (T, H, W, C), or a list of what else the processor takes as frames.

    The result is a tensor, normalised where the model's processor resizes, and uint8 where "published" does: a quarter
    of the bytes to move, normalised beside the model.

    Attributes:
        num_crops: S.
        resize: as in `Protocol`.
        frame_size: height and width that the model takes.
        processor: of the model.
    """

    num_crops: int
    resize: Resize
    frame_size: tuple[int, int]
    processor: VideoMAEImageProcessor

    def __post_init__(self) -> None:
        height, width = self.frame_size
        if height != width and (self.num_crops > 1 or self.resize == "published"):
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

    def check_room(self, height: int, width: int) -> None:
        """Raise a ValueError if a resized frame is smaller than a crop."""
        if min(height, width) < self.frame_size[0]:
            raise ValueError(
                f"several crops need frames of at least {self.frame_size[0]} pixels after resizing, got "
                f"{(height, width)}: set the processor's size, or use one crop."
            )

    def shrink(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Resize a frame (H, W, 3) of a file as the views of its clip will be, where that makes it smaller.

        A clip of frames that were shrunk as they were decoded gives the same views, to the bit, and takes less memory.
        """
        if self.resize == "processor":
            return self.processor.shrink(frame)
        import torch

        from videomae.video.augment import ShrinkShortSide

        pixels = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)
        return ShrinkShortSide(stored_short_side(self.frame_size[0]))(pixels).permute(1, 2, 0).numpy()

    def __call__(self, clip: Any) -> Any:
        """Cut the views out of a clip."""
        import torch

        if isinstance(clip, np.ndarray):  # of a file
            clip = torch.from_numpy(clip).permute(0, 3, 1, 2)
        is_tensor = isinstance(clip, torch.Tensor)
        layout = "channels_first" if is_tensor else None

        def process(**changes: bool) -> "torch.Tensor":
            options = {"input_data_format": layout, "data_format": "channels_first", **changes}
            return self.processor(clip, return_tensors="pt", **options).pixel_values

        if self.resize == "processor" and self.num_crops == 1:
            return process()
        from videomae.video.augment import ShrinkShortSide, eval_views

        size = self.frame_size[0]
        if self.resize == "processor":
            whole = process(do_center_crop=False)[0]
            self.check_room(*whole.shape[-2:])
            return eval_views(whole, short_side=min(whole.shape[-2:]), image_size=size, num_crops=self.num_crops)
        frames = clip if is_tensor else process(**_UNCHANGED)[0]
        if frames.dtype != torch.uint8:
            raise ValueError(f"the protocols of the benchmarks take frames of 8 bits, 0 to 255, got {frames.dtype}.")
        stored = ShrinkShortSide(stored_short_side(size))(frames)
        return eval_views(stored, short_side=size, image_size=size, num_crops=self.num_crops, antialias=False)
