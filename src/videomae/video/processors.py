"""Frames of any common form to the pixels that a model takes: resize, centre crop, scale, normalise.

Bit-equal to the processors of transformers on 8-bit frames, and without torchvision, which takes two seconds to import.
B clips · T frames · C channels · H height and W width in pixels
"""

import dataclasses
import functools
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

import numpy as np
from numpy.typing import NDArray

from videomae.config import nearest
from videomae.errors import CheckpointError
from videomae.files import write_json
from videomae.hub import fetch_file, find_file, read_json, split_hub_options, upload
from videomae.video import eight_bit
from videomae.video.frames import as_tensor, center_crop, from_pil, is_array, is_pil, on_white, resize, scaled_size

if TYPE_CHECKING:
    import torch
    from torch import Tensor


Size = int | Sequence[int] | Mapping[str, int]
Statistic = float | Sequence[float]

# PIL's numbers for its filters, which are what config files hold, and torch's names for the same filters.
_RESAMPLE = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3}
_INTERPOLATION = {0: "nearest-exact", 1: "lanczos", 2: "bilinear", 3: "bicubic"}

_LAYOUTS = ("channels_first", "channels_last")
WORTH_SHRINKING = 2  # pixels of a frame over those that it is resized to; less is done sooner for a whole clip
MAX_SIDE = 2048  # of a processed frame, pixels: a file that was made to harm may ask for any
_TYPE_FIELDS = ("image_processor_type", "video_processor_type", "feature_extractor_type")


class BatchFeature(dict[str, Any]):
    """What a processor returns: a dictionary, ready for ``model(**inputs)``, whose values are attributes as well."""

    def __getattr__(self, name: str) -> Any:
        if name not in self:
            raise AttributeError(f"there is no {name!r} here, only {', '.join(self)}.")
        return self[name]

    def to(self, device: "str | torch.device | torch.dtype | None" = None, dtype: "torch.dtype | None" = None) -> Self:
        """Move the tensors, in place, to a device and, where they hold floats, to a dtype; ``to(dtype)`` works too."""
        import torch

        if isinstance(device, torch.dtype):
            device, dtype = None, device

        def move(value: Any) -> Any:
            if isinstance(value, list):
                return [move(item) for item in value]
            if not isinstance(value, torch.Tensor):
                return value
            return value.to(device=device, dtype=dtype if value.is_floating_point() else None)

        self.update({name: move(value) for name, value in self.items()})
        return self


@dataclasses.dataclass(kw_only=True)
class VideoMAEImageProcessor:
    """Turn frames in memory into the input of a model.

    Every option can be given here, and again for one call; None stands for the default.

    Args:
        do_resize: whether to resize.
        size: size after resizing. {"shortest_edge": pixels}, or just a number, keeps the aspect ratio, the long edge
            rounded down; {"height": pixels, "width": pixels} or (height, width) does not.
        resample: "bilinear", "bicubic", "lanczos" or "nearest", or PIL's number for it. All but "nearest" antialias.
        do_center_crop: whether to cut out the middle; frames that are too small get a black margin first.
        crop_size: size of the crop: {"height": pixels, "width": pixels}, (height, width), or a number for a square.
        do_rescale: whether to multiply by ``rescale_factor``. Where all frames of a call are floats within 0-1, they
            count as scaled already and are left so, unless ``do_rescale`` is given with the call.
        rescale_factor: 1/255 brings 0-255 to 0-1.
        do_normalize: whether to subtract ``image_mean`` and divide by ``image_std``.
        image_mean: a value per channel, or one for all, in units after rescaling. Its length is the number of channels
            that the model expects: 3, 1 for grey clips, 5 for five spectral bands.
        image_std: as ``image_mean``; not 0.
        do_convert_rgb: whether grey frames are repeated for red, green and blue, transparent ones laid on white, and
            palettes resolved. None: where the model expects 3 channels. False: what does not fit is refused.
        input_data_format: "channels_first" or "channels_last". None: the axis, first or last, that is as long as the
            model expects, else one that is 3, 1 or 4 long; the first where both are.
        data_format: "channels_first" (as is None) returns (B, T, C, H, W); "channels_last" (B, T, H, W, C).
        device: where to process; None: where the frames are.

    Raises:
        TypeError: for an unknown option, with the nearest right name.
        ValueError: for a value that an option cannot have.
    """

    kind: ClassVar[str] = "image_processor"
    config_files: ClassVar[tuple[str, ...]] = ("preprocessor_config.json",)
    model_input_names: ClassVar[tuple[str, ...]] = ("pixel_values",)

    do_resize: bool = True
    size: Size = dataclasses.field(default_factory=lambda: {"shortest_edge": 224})
    resample: int | str = 2
    do_center_crop: bool = True
    crop_size: Size = dataclasses.field(default_factory=lambda: {"height": 224, "width": 224})
    do_rescale: bool = True
    rescale_factor: float = 1 / 255
    do_normalize: bool = True
    image_mean: Statistic = (0.5, 0.5, 0.5)
    image_std: Statistic = (0.5, 0.5, 0.5)
    do_convert_rgb: bool | None = None
    input_data_format: str | None = None
    data_format: str | None = None
    device: "str | torch.device | None" = None
    unknown: dict[str, Any] = dataclasses.field(default_factory=dict, init=False, repr=False)

    def __new__(cls, **options: Any) -> Self:
        """Refuse unknown options before the dataclass does, to suggest the right name."""
        for name in options.keys() - cls._defaults():
            raise TypeError(f"{cls.__name__} has no option {name!r}{nearest(name, cls._defaults())}.")
        return super().__new__(cls)

    def __post_init__(self) -> None:
        for name, default in self._defaults().items():
            if getattr(self, name) is None:
                setattr(self, name, default)
            elif name.startswith("do_") and not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be True or False, got {getattr(self, name)!r}.")
        self.size = _as_size("size", self.size, ("shortest_edge",))
        self.crop_size = _as_size("crop_size", self.crop_size, ("height", "width"))
        self.image_mean = _as_statistic("image_mean", self.image_mean)
        self.image_std = _as_statistic("image_std", self.image_std)
        if isinstance(self.resample, str):
            self.resample = _RESAMPLE.get(self.resample, -1)
        if not isinstance(self.resample, int) or self.resample not in _INTERPOLATION:
            raise ValueError(f"resample must be one of {', '.join(_RESAMPLE)}, or PIL's number for it (0 to 3).")
        lengths = {len(value) for value in (self.image_mean, self.image_std) if isinstance(value, tuple)}
        if len(lengths) > 1:
            raise ValueError(
                f"image_mean and image_std must not differ in length, got {self.image_mean} and {self.image_std}."
            )
        if not isinstance(self.rescale_factor, int | float) or not 0 < self.rescale_factor < math.inf:
            raise ValueError(f"rescale_factor must be positive, got {self.rescale_factor!r}.")
        for name in ("input_data_format", "data_format"):
            if getattr(self, name) not in (None, *_LAYOUTS):
                raise ValueError(f"{name} must be one of {', '.join(_LAYOUTS)}, got {getattr(self, name)!r}.")

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> Self:
        """Load the processor of a checkpoint.

        Args:
            pretrained_model_name_or_path: a folder, a JSON file, or the id of a model on the Hugging Face Hub.
            options: ``revision``, ``token``, ``cache_dir``, ``local_files_only``, ``force_download`` and
                ``subfolder`` choose what is fetched; everything else overrides an option of the processor.

        Raises:
            CheckpointError: if there is no such file, it cannot be read, or it belongs to another type of model.
        """
        hub_options, overrides = split_hub_options(options)
        source = str(pretrained_model_name_or_path)
        content = cls._read(source, hub_options)
        if not isinstance(content, Mapping):
            raise CheckpointError(f"{source!r} has no processor, but {content!r}. Save it again.")
        for found in (content.get(name) for name in _TYPE_FIELDS):
            if found is not None and not str(found).startswith("VideoMAE"):
                raise CheckpointError(f"{source!r} has a processor of type {found!r}, not one of VideoMAE.")
        return cls.from_dict(content, **overrides)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], **overrides: Any) -> Self:
        """Make a processor from the content of its file. Fields that nobody here knows are kept, to be written again.

        Args:
            content: what the file holds.
            overrides: options to set differently; unknown names are refused.
        """
        known = cls._defaults()
        processor = cls(**{name: value for name, value in content.items() if name in known} | overrides)
        processor.unknown = {name: content[name] for name in content.keys() - known.keys() - {*_TYPE_FIELDS}}
        return processor

    def to_dict(self) -> dict[str, Any]:
        """Return the content of the processor's file, which transformers reads as well."""
        content = self.unknown | {f"{self.kind}_type": type(self).__name__}
        for name in self._defaults():
            value = getattr(self, name)
            if value is not None:
                content[name] = list(value) if isinstance(value, tuple) else str(value) if name == "device" else value
        return content

    @classmethod
    def from_json_file(cls, json_file: str | Path) -> Self:
        """Read a file that ``to_json_file`` wrote; errors are those of ``from_pretrained``."""
        return cls.from_pretrained(json_file)

    def to_json_string(self) -> str:
        """Return the text of the processor's file."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"

    def to_json_file(self, json_file_path: str | Path) -> None:
        """Write the processor's file under a name of one's own."""
        write_json(json_file_path, self.to_dict())

    def save_pretrained(self, save_directory: str | Path) -> list[Path]:
        """Write the processor's file into a folder, which is made if needed, and return the paths written, one."""
        path = Path(save_directory) / self.config_files[0]
        write_json(path, self.to_dict())
        return [path]

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Upload the processor's file to the Hugging Face Hub; options and errors as of `videomae.hub.upload`."""
        return upload(self.save_pretrained, repo_id, **({"commit_message": "Upload processor"} | options))

    def __call__(self, videos: Any, *, return_tensors: str | None = None, **options: Any) -> BatchFeature:
        """Do what ``preprocess`` does."""
        return self.preprocess(videos, return_tensors=return_tensors, **options)

    def seen_box(self, height: int, width: int) -> tuple[float, float, float, float]:
        """Return which part of a frame the model sees: left, top, right and bottom, as fractions of its sides.

        Below 0 or above 1 is the margin of a frame that is smaller than the crop.
        """
        if not self.do_center_crop:
            return 0.0, 0.0, 1.0, 1.0
        (rows, columns), (crop_rows, crop_columns) = self._resized_size(height, width), self._crop_height_width
        top, left = (rows - crop_rows) // 2, (columns - crop_columns) // 2
        return left / columns, top / rows, (left + crop_columns) / columns, (top + crop_rows) / rows

    def preprocess(self, videos: Any, *, return_tensors: str | None = None, **options: Any) -> BatchFeature:
        """Turn one clip or several into the input of a model.

        Args:
            videos: a clip, several, or a batch (B, T, ...). A clip is a list of frames, or an array or tensor of them.
                A frame is a PIL image, (H, W, C), (C, H, W), or grey (H, W); uint8 in 0-255, or float in 0-255 or 0-1.
                A 3-D array is one frame if an axis can be its channels (see ``input_data_format``), else a grey clip;
                in place of a whole clip, its first axis counts frames unless it is as long as the model expects.
            return_tensors: "pt" for a tensor, "np" for a NumPy array, None for a list with a tensor per clip, which
                may differ in length.
            options: any option of the processor, for this call only.

        Returns:
            ``pixel_values`` (B, T, C, H, W), float32; uint8 if the frames are and are neither rescaled nor normalised.

        Raises:
            TypeError: for what is no frame, and for an unknown option.
            ValueError: for frames of a type, number of channels, value or size that cannot be processed.
        """
        if return_tensors not in (None, "pt", "np"):
            raise ValueError(f"return_tensors must be 'pt', 'np' or None, got {return_tensors!r}.")
        defaults = self._defaults()
        given = {name: value for name, value in options.items() if value is not None or defaults.get(name) is None}
        settings = dataclasses.replace(self, **given)
        clips = [[settings._frame(frame) for frame in clip] for clip in settings._clips(videos)]
        if _are_scaled([frame for clip in clips for frame in clip]) and "do_rescale" not in given:
            settings.do_rescale = False
        pixel_values = settings._pixel_values(clips, batched=return_tensors is not None)
        return BatchFeature(pixel_values=pixel_values.cpu().numpy() if return_tensors == "np" else pixel_values)

    def eight_bit(
        self, clip: Any, *, do_resize: bool | None = None, do_center_crop: bool | None = None
    ) -> NDArray[np.uint8]:
        """Resize and crop a clip of 8-bit frames without PyTorch, for a model that normalises them itself.

        Args:
            clip: as for ``preprocess``, of uint8 frames; tensors on the CPU.
            do_resize: in place of the processor's.
            do_center_crop: likewise.

        Returns:
            (T, H, W, C) uint8, up to the rounding of the last bit what ``preprocess`` gives without normalising.

        Raises:
            TypeError: for what is no frame.
            ValueError: for frames of a type, number of channels or size that cannot be processed.
        """
        clips = self._clips(clip)
        if len(clips) != 1:
            raise ValueError(f"one clip at a time, got {len(clips)}: call it for each.")
        crops = self.do_center_crop if do_center_crop is None else do_center_crop
        resizes = self.do_resize if do_resize is None else do_resize
        frames = []
        for given in clips[0]:
            axis = self._channel_axis(given.shape) if is_array(given) and given.ndim == 3 else None
            convert = self.do_convert_rgb is not False
            frame = eight_bit.as_frame(given, channels=self._channels, channel_axis=axis, convert=convert)
            if resizes:
                frame = eight_bit.resize(frame, self._resized_size(*frame.shape[:2]), cast(int, self.resample))
            frames.append(eight_bit.center_crop(frame, *self._crop_height_width) if crops else frame)
        if len(shapes := {frame.shape for frame in frames}) > 1:
            raise ValueError(
                f"the frames of a clip come out in different shapes, {sorted(shapes)}. Crop or resize them."
            )
        return np.stack(frames)

    def shrink(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Resize a frame (H, W, C) of 8 bits where that saves half of it; to process the result gives the same bits."""
        size = self._resized_size(*frame.shape[:2])
        if WORTH_SHRINKING * size[0] * size[1] > frame.shape[0] * frame.shape[1]:
            return frame
        pixels = as_tensor(np.ascontiguousarray(frame)).permute(2, 0, 1).to(self.device or "cpu")
        return resize(pixels, size, _INTERPOLATION[cast(int, self.resample)]).cpu().permute(1, 2, 0).numpy()

    def shrink_eight_bit(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Resize a frame (H, W, C) without PyTorch; `eight_bit` gives the same bits for the result."""
        return self.eight_bit([frame], do_center_crop=False)[0]

    @classmethod
    def _defaults(cls) -> dict[str, Any]:
        """Return the default of each option."""
        options = [option for option in dataclasses.fields(cls) if option.init]
        return {o.name: o.default_factory() if callable(o.default_factory) else o.default for o in options}

    @classmethod
    def _read(cls, path_or_id: str | Path, hub_options: dict[str, Any]) -> dict[str, Any]:
        """Read the first of the files that transformers looks for, in its order."""
        path = Path(path_or_id).expanduser()
        if path.is_file():
            return read_json(path)
        combined = find_file(path_or_id, "processor_config.json", **hub_options)
        if combined is not None and cls.kind in (content := read_json(combined)):
            return content[cls.kind]
        *first_choices, last = cls.config_files
        for name in first_choices:
            if (found := find_file(path_or_id, name, **hub_options)) is not None:
                return read_json(found)
        return read_json(fetch_file(path_or_id, last, **hub_options))

    @property
    def normalization(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mean and standard deviation, each (C,) or (1,), in the units of pixels as they come, such as 0-255.

        All that the processor does after resizing and cropping is (pixels - mean) / std.
        """
        # Normalising 0-255 with mean and std times 255 saves a pass, and rounds as transformers does.
        factor = 1.0 / self.rescale_factor if self.do_rescale else 1.0
        mean, std = (self.image_mean, self.image_std) if self.do_normalize else (0.0, 1.0)
        return tuple(np.atleast_1d(np.float32(value)) * np.float32(factor) for value in (mean, std))  # type: ignore

    @property
    def _channels(self) -> int | None:
        """Channels that the model expects; None if any number will do."""
        for statistic in (self.image_mean, self.image_std):
            if isinstance(statistic, tuple):
                return len(statistic)
        return 3 if self.do_convert_rgb else None

    def _clips(self, videos: Any) -> list[Any]:
        """Return the clips, each a sequence of frames."""
        if self._is_clip(videos):
            clips = [videos]
        elif self._is_frame(videos):
            clips = [[videos]]
        elif isinstance(videos, list | tuple) or (is_array(videos) and videos.ndim == 5):
            clips = list(videos)
        else:
            raise TypeError(_NO_CLIP.format(_describe(videos)))
        for clip in clips:
            if not self._is_clip(clip):
                raise TypeError(_NO_CLIP.format(_describe(clip)))
        if not clips or any(len(clip) == 0 for clip in clips):
            raise ValueError("there is a clip without frames. Leave it out, or look at how it was read.")
        return clips

    def _is_clip(self, value: Any) -> bool:
        if isinstance(value, list | tuple):
            return all(map(self._is_frame, value))
        if not is_array(value) or value.ndim != 3:
            return is_array(value) and value.ndim == 4
        # On its own, (4, H, W) is rather four grey frames than a transparent one.
        axis = self._channel_axis(value.shape)
        guessed = self.input_data_format is None and value.shape[0] != (self._channels or 3)
        return axis is None or (axis == 0 and guessed)

    def _is_frame(self, value: Any) -> bool:
        if not is_array(value):
            return is_pil(value)
        return value.ndim == 2 or (value.ndim == 3 and self._channel_axis(value.shape) is not None)

    def _channel_axis(self, shape: Sequence[int]) -> int | None:
        """Return which axis of a frame's shape holds the channels, 0 or 2; None if neither seems to."""
        if self.input_data_format is not None:
            return 0 if self.input_data_format == "channels_first" else 2
        for channels in (self._channels, 3, 1, 4):
            for axis in (0, 2):
                if shape[axis] == channels:
                    return axis
        return None

    def _frame(self, frame: Any) -> "Tensor":
        """Return a frame as (C, H, W), a view where possible, with the channels that the model expects."""
        if is_pil(frame):
            frame = from_pil(frame, convert=self.do_convert_rgb is not False and self._channels in (3, None))
        pixels = as_tensor(frame)
        if pixels.ndim == 2:
            pixels = pixels[None]
        elif pixels.ndim != 3 or (axis := self._channel_axis(pixels.shape)) is None:
            raise ValueError(
                f"cannot tell the channels of a frame of shape {tuple(pixels.shape)}: a frame is (H, W, C), (C, H, W) "
                "or (H, W). Say which with input_data_format, and give image_mean and image_std a value per channel."
            )
        elif axis == 2:
            pixels = pixels.permute(2, 0, 1)
        expected, channels = self._channels, len(pixels)
        if expected in (None, channels):
            return pixels
        convertible = expected == 3 and channels in (1, 4)
        if convertible and self.do_convert_rgb is not False:
            return pixels.expand(3, -1, -1) if channels == 1 else on_white(pixels)
        if self.do_normalize:
            raise ValueError(
                f"a frame has {channels} channels, but image_mean and image_std have {expected}"
                f"{' and do_convert_rgb is False' if convertible else ''}. Give both a value per channel"
                f"{', or allow do_convert_rgb' if convertible else ''}."
            )
        return pixels

    def _pixel_values(self, clips: "list[list[Tensor]]", batched: bool) -> Any:
        """Process the frames, each straight into its place in the result: the pixels pass through the cache once."""
        import torch

        shapes = [(len(clip), *self._output_shape(clip)) for clip in clips]
        if batched and len(set(shapes)) > 1:
            raise ValueError(
                f"the clips of a batch must agree in frames, channels, height and width; got {sorted(set(shapes))}. "
                "Take as many frames of each, or give return_tensors=None for a list."
            )
        first = clips[0][0]
        device = self.device or first.device
        unchanged = first.dtype == torch.uint8 and not self.do_rescale and not self.do_normalize
        empty = functools.partial(torch.empty, dtype=torch.uint8 if unchanged else torch.float32, device=device)
        results = empty((len(clips), *shapes[0])) if batched else [empty(shape) for shape in shapes]
        mean, std = (torch.from_numpy(values).to(device).view(-1, 1, 1) for values in self.normalization)
        for clip, result in zip(clips, results, strict=True):
            places = result.permute(0, 3, 1, 2) if self.data_format == "channels_last" else result
            for frame, pixels in zip(clip, places, strict=True):
                pixels.copy_(self._resize_and_crop(frame.to(device)))
                if self.do_normalize:
                    pixels.sub_(mean).div_(std)
                elif self.do_rescale:
                    pixels.mul_(self.rescale_factor)
        return results

    def _output_shape(self, clip: "list[Tensor]") -> tuple[int, ...]:
        """Return the shape of each processed frame of a clip."""
        shapes = set()
        for channels, *size in {tuple(frame.shape) for frame in clip}:
            height, width = self._crop_height_width if self.do_center_crop else self._resized_size(*size)
            shapes.add((height, width, channels) if self.data_format == "channels_last" else (channels, height, width))
        if len(shapes) > 1:
            raise ValueError(
                f"the frames of a clip come out in different shapes, {sorted(shapes)}. Crop or resize them."
            )
        return shapes.pop()

    def sizes_of(self, height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return the (height, width) of a frame after resizing, and after cropping."""
        resized = self._resized_size(height, width)
        return resized, self._crop_height_width if self.do_center_crop else resized

    @property
    def _crop_height_width(self) -> tuple[int, int]:
        crop = cast(dict[str, int], self.crop_size)
        return crop["height"], crop["width"]

    def _resized_size(self, height: int, width: int) -> tuple[int, int]:
        size = cast(dict[str, int], self.size)
        if not self.do_resize:
            return height, width
        if "shortest_edge" not in size:
            return size["height"], size["width"]
        return scaled_size(height, width, size["shortest_edge"])

    def _resize_and_crop(self, frame: "Tensor") -> "Tensor":
        frame = resize(frame, self._resized_size(*frame.shape[-2:]), _INTERPOLATION[cast(int, self.resample)])
        return center_crop(frame, *self._crop_height_width) if self.do_center_crop else frame


@dataclasses.dataclass(kw_only=True)
class VideoMAEVideoProcessor(VideoMAEImageProcessor):
    """Turn video files, or frames in memory, into the input of a model.

    As ``VideoMAEImageProcessor``, which also describes the other options, but ``videos`` may be the path of a video
    file or a list of paths, and the frames can be sampled.

    Args:
        do_convert_rgb: as there; True also makes 3 channels where the model does not say how many it expects.
        do_sample_frames: whether to take ``num_frames`` or ``fps`` of the frames, evenly spread from the first on.
            Giving one of these with a call is enough.
        num_frames: how many frames to take of each clip; a shorter clip repeats some.
        fps: how many frames to take of each second; for files only, where the rate is known.
    """

    kind: ClassVar[str] = "video_processor"
    config_files: ClassVar[tuple[str, ...]] = ("video_preprocessor_config.json", "preprocessor_config.json")

    do_convert_rgb: bool | None = True
    do_sample_frames: bool = False
    num_frames: int | None = None
    fps: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_frames is not None and self.fps is not None:
            raise ValueError(
                f"num_frames and fps exclude each other, got {self.num_frames} and {self.fps}. "
                "Give num_frames or fps, not both."
            )
        for name, value in (("num_frames", self.num_frames), ("fps", self.fps)):
            if value is not None and not (isinstance(value, int | float) and 0 < value < math.inf):
                raise ValueError(f"{name} must be positive, got {value}.")

    def preprocess(self, videos: Any, *, return_tensors: str | None = None, **options: Any) -> BatchFeature:
        """Do as ``VideoMAEImageProcessor.preprocess``, for the path of a video file or a list of paths as well.

        Raises:
            VideoError: if a file cannot be read.
        """
        if options.get("num_frames") is not None or options.get("fps") is not None:
            options = {"do_sample_frames": True, "num_frames": None, "fps": None} | options
        return super().preprocess(videos, return_tensors=return_tensors, **options)

    def _clips(self, videos: Any) -> list[Any]:
        if isinstance(videos, str | os.PathLike):
            videos = [videos]
        if isinstance(videos, list | tuple) and videos and all(isinstance(item, str | os.PathLike) for item in videos):
            return [self._frames_of_file(path) for path in videos]
        clips = super()._clips(videos)
        if not self.do_sample_frames:
            return clips
        return [[clip[index] for index in self._sampled(len(clip), None)] for clip in clips]

    def _frames_of_file(self, path: str | os.PathLike[str]) -> np.ndarray:
        from videomae.video.reader import VideoReader

        with VideoReader(path) as reader:
            total = reader.num_frames
            chosen = self._sampled(total, reader.fps) if self.do_sample_frames else list(range(total))
            return reader.frames_at(chosen, shrink=self.shrink)

    def _sampled(self, total: int, fps: float | None) -> list[int]:
        """Return which of ``total`` frames to take, as transformers does."""
        number = self.num_frames
        if self.fps is not None:
            if fps is None:
                raise ValueError(f"fps={self.fps} needs a video file, frames in memory have no rate. Give num_frames.")
            number = max(1, int(total / fps * self.fps))
        if number is None:
            raise ValueError("do_sample_frames needs num_frames or fps. Give one of them.")
        return [index * total // number for index in range(number)]


_NO_CLIP = (
    "a clip is a list of frames, or an array or tensor (T, H, W, C), (T, C, H, W) or (T, H, W); got {}. "
    "Only VideoMAEVideoProcessor takes the path of a video."
)


def _describe(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"a list of {', '.join(sorted({_describe(item) for item in value}))}"
    return f"shape {tuple(value.shape)}" if is_array(value) else type(value).__name__


def _are_scaled(frames: "list[Tensor]") -> bool:
    """Say whether all pixels are floats in 0-1, and refuse floats that are not finite."""
    floats = [frame for frame in frames if frame.is_floating_point()]
    if not floats:
        return False
    if len(floats) < len(frames):
        raise ValueError("some frames are uint8 and some float. Convert them to one type.")
    extremes = [extreme.item() for frame in floats for extreme in frame.aminmax()]
    if not np.isfinite(extremes).all():
        raise ValueError("a frame holds values that are not finite (NaN or infinity). Look at how it was made.")
    return min(extremes) >= 0 and max(extremes) <= 1


def _as_size(name: str, size: Any, number_means: tuple[str, ...]) -> dict[str, int]:
    """Return a size in the form of the config files; ``number_means`` are the edges that a single number sets."""
    if isinstance(size, int):
        size = dict.fromkeys(number_means, size)
    elif isinstance(size, list | tuple) and len(size) == 2:
        size = {"height": size[0], "width": size[1]}
    forms = {("height", "width"), number_means}
    is_mapping = isinstance(size, Mapping) and all(isinstance(edge, str) for edge in size)
    if not is_mapping or tuple(sorted(size)) not in forms or not all(map(_is_side, size.values())):
        shown = " or ".join(str(dict.fromkeys(form, "pixels")) for form in sorted(forms))
        raise ValueError(
            f"{name} must be a number, (height, width), or {shown}, all positive and at most {MAX_SIDE}, got {size!r}."
        )
    return {edge: int(pixels) for edge, pixels in size.items()}


def _is_side(value: Any) -> bool:
    return isinstance(value, int | float) and 0 < value <= MAX_SIDE


def _as_statistic(name: str, value: Any) -> float | tuple[float, ...]:
    """Return a mean or standard deviation as a number, or as a tuple with one per channel."""
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        array = np.empty(0)
    if array.ndim > 1 or array.size == 0 or not np.isfinite(array).all() or (name == "image_std" and not array.all()):
        rule = "a number or one per channel, finite" + (" and not 0" if name == "image_std" else "")
        raise ValueError(f"{name} must be {rule}, got {value!r}.")
    return tuple(array.tolist()) if array.ndim else float(array)
