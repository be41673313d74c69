"""The sizes and choices that define a VideoMAE model, read from and written to Hugging Face's config.json."""

import dataclasses
import difflib
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from videomae.errors import CheckpointError
from videomae.files import write_json
from videomae.hub import fetch_file, read_json, split_hub_options, upload

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

CONFIG_NAME = "config.json"

# What no model comes near, and a file that was made to harm may say: refused before anything is made of that size.
MAX_LABELS = 100_000
_MAX_DEPTH, _MAX_FIELD = 1024, 2**20
_MAX_TUBELETS, _MAX_CLIP_PIXELS = 2**16, 2**26

ATTENTION_IMPLEMENTATIONS = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flash_attention_4")
ACTIVATIONS = ("gelu", "gelu_pytorch_tanh", "relu", "silu")
PROBLEM_TYPES = ("single_label_classification", "multi_label_classification", "regression")
POSITIONS = ("rebuild", "interpolate")
SMALLEST_STD = 0.02  # of pixels in 0-1, to divide by: videos of one colour would be blown up to noise
CLIP_SAMPLINGS = ("dense", "uniform", "whole")

# What any configuration of transformers may hold, and what it holds where nothing is said. It means nothing here: it is
# accepted, kept and written again.
_OF_TRANSFORMERS: dict[str, Any] = {
    "_name_or_path": "",
    "architectures": None,
    "chunk_size_feed_forward": 0,
    "dtype": None,
    "is_decoder": False,
    "is_encoder_decoder": False,
    "torch_dtype": None,
    "transformers_version": None,
}

# Width, depth, heads, MLP width; decoder width, depth, heads, MLP width; patch size. The published ones are of
# VideoMAE and VideoMAE V2 (the decoders of v1; giant is v2's). There is no published tiny: it is this project's,
# for CPUs, tests and small data.
_PRESETS = {
    "nano": (128, 4, 4, 512, 96, 2, 6, 384, 4),
    "tiny": (192, 6, 3, 768, 96, 2, 3, 384, 16),
    "small": (384, 12, 6, 1536, 192, 4, 3, 768, 16),
    "base": (768, 12, 12, 3072, 384, 4, 6, 1536, 16),
    "large": (1024, 24, 16, 4096, 512, 12, 8, 2048, 16),
    "huge": (1280, 32, 16, 5120, 640, 12, 8, 2560, 16),
    "giant": (1408, 40, 16, 6144, 512, 4, 8, 2048, 14),
}
_PRESET_FIELDS = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "decoder_hidden_size",
    "decoder_num_hidden_layers",
    "decoder_num_attention_heads",
    "decoder_intermediate_size",
    "patch_size",
)
PRESETS = tuple(_PRESETS)

Size = int | tuple[int, int]


@dataclasses.dataclass(init=False)
class VideoMAEConfig:
    """Sizes and choices of a VideoMAE model; names and defaults are those of Hugging Face's ``VideoMAEConfig``.

    Attributes:
        image_size: height and width of a frame in pixels; one number for square frames.
        patch_size: height and width of a tubelet in pixels; one number for square ones.
        num_channels: colour channels of a frame.
        num_frames: frames of a clip.
        tubelet_size: frames of a tubelet.
        hidden_size: width of the encoder.
        num_hidden_layers: blocks of the encoder.
        num_attention_heads: attention heads of the encoder.
        intermediate_size: width of the encoder's MLP.
        hidden_act: activation of the MLPs: "gelu" (exact), "gelu_pytorch_tanh", "relu" or "silu".
        hidden_dropout_prob: dropout after attention and MLP, in [0, 1).
        attention_probs_dropout_prob: dropout of the attention weights, in [0, 1).
        initializer_range: standard deviation of the truncated normal that linear layers start from.
        layer_norm_eps: epsilon of the LayerNorms in the blocks and at the encoder's end (v1 and v2: 1e-6).
        output_norm_eps: epsilon of ``fc_norm`` and the decoder's last LayerNorm (Hugging Face: always 1e-5;
            v1 and v2: 1e-6).
        qv_bias: whether query and value have a bias; a key never has one. ``qkv_bias`` is accepted for it.
        use_mean_pooling: whether the classifier averages all tokens. False takes the first token, as a few
            checkpoints on the Hub were fine-tuned; never useful for a new model.
        attentive_pooling: whether a learned query looks at the normalised tokens instead of their being averaged (the
            attentive probe of V-JEPA, arXiv 2404.08471). transformers does not know it.
        decoder_hidden_size: width of the decoder.
        decoder_num_hidden_layers: blocks of the decoder.
        decoder_num_attention_heads: attention heads of the decoder.
        decoder_intermediate_size: width of the decoder's MLP.
        decoder_attention: "self": mask tokens and visible ones look at each other; "cross": mask tokens look at what
            the encoder's blocks made of visible ones only (CrossMAE, arXiv 2401.14391), in less time, and any part of
            the hidden tubelets can be predicted alone. transformers does not know it.
        norm_pix_loss: whether each tubelet's pixels are standardised, per channel, before they are a target.
        image_mean: mean, per channel, that the input was normalised with; the pre-training loss undoes it.
            None: ImageNet's for 3 channels, otherwise none is undone.
        image_std: standard deviation that goes with ``image_mean``.
        position_embedding: "rebuild" computes the 1-D sinusoid for the model's own grid; "interpolate" computes it
            for ``position_grid`` and resamples it linearly along time, height and width.
        position_grid: tubelets (time, height, width) that the weights were trained with; needed to interpolate.
        clip_sampling: how the frames of a clip were chosen in training, and are by default: "dense" takes every
            ``clip_stride``-th, "uniform" one of each of ``num_frames`` equal segments of the video, "whole" evenly
            spaced ones of nearly all of it.
        clip_stride: frames from one of a dense clip to the next; 4 in nearly all published models.
        clip_fps: frame rate that ``clip_stride`` is counted at; None counts the video's own frames.
        drop_path: rate of stochastic depth at the last encoder block; it rises linearly from 0 at the first.
        head_dropout: dropout before the classifier, in [0, 1).
        label_smoothing: fraction of a label spread over all classes, in [0, 1).
        problem_type: what labels mean: "single_label_classification", "multi_label_classification" or "regression";
            None lets their dtype decide, see ``classification_loss``.
        num_labels: number of classes; taken from ``id2label`` where that is given, otherwise 2.
        id2label: class names by index. ``label2id`` is its inverse.
        label2id: accepted in place of ``id2label``.
        output_attentions: default of the forward argument of this name.
        output_hidden_states: default of the forward argument of this name.
        return_dict: default of the forward argument of this name.
        attn_implementation: "sdpa" lets PyTorch choose a kernel, on CUDA mostly a flash one; "eager" computes attention
            weights; "flash_attention_2" is PyTorch's own flash kernel and no other (the package flash-attn is not
            used), "flash_attention_3" and "flash_attention_4" those of their packages, for the whole process. Not
            written to config.json.

    Raises:
        ValueError: for sizes that do not divide, values out of range and unknown choices.
        TypeError: for an unknown field, with the nearest right name.
    """

    model_type: ClassVar[str] = "videomae"
    sub_configs: ClassVar[dict[str, Any]] = {}

    image_size: Size = 224
    patch_size: Size = 16
    num_channels: int = 3
    num_frames: int = 16
    tubelet_size: int = 2
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    output_norm_eps: float = 1e-5
    qv_bias: bool = True
    use_mean_pooling: bool = True
    attentive_pooling: bool = False
    decoder_hidden_size: int = 384
    decoder_num_hidden_layers: int = 4
    decoder_num_attention_heads: int = 6
    decoder_intermediate_size: int = 1536
    decoder_attention: str = "self"
    norm_pix_loss: bool = True
    image_mean: tuple[float, ...] | None = None
    image_std: tuple[float, ...] | None = None
    position_embedding: str = "rebuild"
    position_grid: tuple[int, int, int] | None = None
    clip_sampling: str = "dense"
    clip_stride: float = 4.0
    clip_fps: float | None = None
    drop_path: float = 0.0
    head_dropout: float = 0.0
    label_smoothing: float = 0.0
    problem_type: str | None = None
    id2label: dict[int, str] = dataclasses.field(default_factory=dict)
    output_attentions: bool = False
    output_hidden_states: bool = False
    return_dict: bool = True
    attn_implementation: str = "sdpa"
    unknown: dict[str, Any] = dataclasses.field(default_factory=dict, repr=False)

    def __init__(self, **fields: Any) -> None:
        check_model_type(fields)
        fields.pop("model_type", None)
        kept = {name: fields.pop(name) for name in _OF_TRANSFORMERS if name in fields}
        fields = _resolve_aliases(fields) | {"unknown": (fields.get("unknown") or {}) | kept}
        known = {field.name: field for field in dataclasses.fields(self)}
        for name in fields:
            if name not in known:
                raise TypeError(f"VideoMAEConfig has no field {name!r}{nearest(name, known)}.")
        for name, field in known.items():
            default = field.default_factory() if callable(field.default_factory) else field.default
            setattr(self, name, default if fields.get(name) is None else fields[name])
        self.validate()

    def __setattr__(self, name: str, value: Any) -> None:
        """Set a field, brought into one form where JSON and callers have several (lists, numbers as text).

        An attribute of the caller's own is kept, and saved, with the fields nobody here knows.
        """
        if name in _TUPLES and isinstance(value, list):
            value = tuple(value)
        if name == "id2label":
            value = _numbered(value)
        if name in self.__dataclass_fields__ or name.startswith("_") or hasattr(type(self), name):
            super().__setattr__(name, value)
        else:
            self.unknown = self.unknown | {name: value}

    def __getattr__(self, name: str) -> Any:
        kept = _OF_TRANSFORMERS | self.__dict__.get("unknown", {})
        if name in kept:
            return kept[name]
        raise AttributeError(f"VideoMAEConfig has no field {name!r}{nearest(name, self.__dataclass_fields__)}.")

    @classmethod
    def of(cls, config: Any) -> Self:
        """Return a configuration as it is, and one that transformers made as one of this class."""
        return config if isinstance(config, cls) else cls.from_dict(config.to_dict())

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> Self:
        """Return the configuration of a named size.

        Args:
            name: "nano" or "tiny" (this project's own), "small", "base", "large", "huge" or "giant" (v2, patch 14).
            overrides: fields to set differently.

        Raises:
            ValueError: if there is no such preset.
        """
        if name not in _PRESETS:
            raise ValueError(f"there is no preset {name!r}: choose one of {', '.join(PRESETS)}.")
        fields = dict(zip(_PRESET_FIELDS, _PRESETS[name], strict=True)) | {
            "layer_norm_eps": 1e-6,
            "output_norm_eps": 1e-6,
        }
        return cls(**(fields | overrides))

    @property
    def frame_size(self) -> tuple[int, int]:
        """Height and width of a frame in pixels."""
        return _pair(self.image_size)

    @property
    def tubelet_shape(self) -> tuple[int, int, int]:
        """Frames, height and width of a tubelet."""
        return (self.tubelet_size, *_pair(self.patch_size))

    @property
    def grid(self) -> tuple[int, int, int]:
        """Tubelets of a clip along time, height and width."""
        frames, height, width = self.tubelet_shape
        return (self.num_frames // frames, self.frame_size[0] // height, self.frame_size[1] // width)

    @property
    def num_tubelets(self) -> int:
        """Tubelets of a clip: the length of a mask."""
        time, height, width = self.grid
        return time * height * width

    @property
    def pixels_per_tubelet(self) -> int:
        """Values that the decoder predicts for one tubelet: frames x height x width x channels."""
        frames, height, width = self.tubelet_shape
        return frames * height * width * self.num_channels

    @property
    def num_labels(self) -> int:
        """Number of classes."""
        return len(self.id2label)

    @num_labels.setter
    def num_labels(self, number: int) -> None:
        if number != len(self.id2label):
            self.id2label = _default_labels(number)

    @property
    def label2id(self) -> dict[str, int]:
        """Index of each class name."""
        return {label: index for index, label in self.id2label.items()}

    @label2id.setter
    def label2id(self, indices: Mapping[str, int]) -> None:
        self.id2label = _inverted(indices)

    @property
    def name_or_path(self) -> str:
        """Where the model with this configuration was loaded from."""
        return self._name_or_path

    @property
    def use_return_dict(self) -> bool:
        """Another name of ``return_dict``."""
        return self.return_dict

    @property
    def _attn_implementation(self) -> str:
        return self.attn_implementation

    @_attn_implementation.setter
    def _attn_implementation(self, implementation: str) -> None:
        self.attn_implementation = implementation

    def get_text_config(self, **options: Any) -> Self:
        """Return the configuration itself: there is no other one for text."""
        return self

    @property
    def pixel_statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """Mean and standard deviation of the input normalisation, or None where they are not known."""
        if self.image_mean is not None and self.image_std is not None:
            return self.image_mean, self.image_std
        return (IMAGENET_MEAN, IMAGENET_STD) if self.num_channels == 3 else None

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some fields changed, validated anew."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        if changes.get("num_labels", self.num_labels) != self.num_labels or "label2id" in changes:
            del fields["id2label"]
        return type(self)(**(fields | changes))

    def to_dict(self) -> dict[str, Any]:
        """Return the content of config.json: what transformers knows, what differs of ours, and unknown fields."""
        ours = {"output_norm_eps", "image_mean", "image_std", "position_embedding", "position_grid"}
        ours |= {"drop_path", "head_dropout", "label_smoothing", "attentive_pooling", "decoder_attention"}
        ours |= {"clip_sampling", "clip_stride", "clip_fps"}
        content: dict[str, Any] = dict(self.unknown) | {"model_type": self.model_type}
        content |= {name: _dtype_name(content[name]) for name in ("dtype", "torch_dtype") if content.get(name)}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in {"unknown", "attn_implementation"} or (field.name in ours and value == field.default):
                continue
            content[field.name] = list(value) if isinstance(value, tuple) else value
        content["id2label"] = {str(index): label for index, label in self.id2label.items()}
        content["label2id"] = self.label2id
        return content

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], **overrides: Any) -> Self:
        """Make a configuration from the content of a config.json; fields that nobody here knows are kept.

        Args:
            content: what the file holds.
            overrides: fields to set differently; unknown names are refused.

        Raises:
            CheckpointError: if it is the configuration of another type of model.
        """
        check_model_type(content)
        content = _from_videomae_v2(content) if "model_config" in content else content
        fields = {name: value for name, value in content.items() if name in CONFIG_FIELDS}
        others = content.keys() - CONFIG_FIELDS - {"model_type"}
        unknown = {name: overrides.pop(name, content[name]) for name in content if name in others}
        if "qv_bias" in overrides:
            fields.pop("qkv_bias", None)
        labels = {name: fields.pop(name) for name in list(fields) if name in ("num_labels", "label2id", "id2label")}
        names = labels.get("id2label") or labels.get("label2id")
        as_many = isinstance(names, Mapping) and overrides.get("num_labels") == len(names)
        if not overrides.keys() & {"id2label", "label2id"} and (overrides.get("num_labels") is None or as_many):
            fields |= labels
        return cls(**(fields | {"unknown": unknown} | overrides))

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> Self:
        """Read config.json from a directory or from the Hugging Face Hub.

        Args:
            pretrained_model_name_or_path: a directory, a config.json, or the id of a model on the Hub.
            options: ``revision``, ``token``, ``cache_dir``, ``local_files_only``, ``force_download`` and
                ``subfolder`` choose what is fetched; everything else overrides a field.

        Raises:
            CheckpointError: if there is no such file, or it cannot be read.
        """
        hub_options, overrides = split_hub_options(options)
        file = fetch_file(pretrained_model_name_or_path, CONFIG_NAME, **hub_options)
        return cls.from_dict(read_json(file), **overrides)

    @classmethod
    def from_json_file(cls, json_file: str | Path) -> Self:
        """Read a file that ``to_json_file`` wrote; errors are those of ``from_pretrained``."""
        return cls.from_dict(read_json(json_file))

    def save_pretrained(self, save_directory: str | Path) -> Path:
        """Write config.json into a directory, which is made if needed, and return its path.

        Raises:
            ValueError: as when a configuration is made, for fields that were assigned since.
        """
        self.validate()
        path = Path(save_directory) / CONFIG_NAME
        write_json(path, self.to_dict())
        return path

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Upload config.json to the Hugging Face Hub; options and errors are those of `videomae.hub.upload`."""
        return upload(self.save_pretrained, repo_id, **({"commit_message": "Upload config"} | options))

    def to_json_string(self) -> str:
        """Return the text of config.json."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"

    def to_json_file(self, json_file_path: str | Path) -> None:
        """Write the content of config.json to a file."""
        write_json(json_file_path, self.to_dict())

    def to_diff_dict(self) -> dict[str, Any]:
        """Return what differs from the defaults of the content of config.json."""
        default = type(self)().to_dict()
        return {name: v for name, v in self.to_dict().items() if name not in default or default[name] != v}

    def update(self, changes: Mapping[str, Any]) -> None:
        """Set several fields; the next model made with the configuration validates them."""
        for name, value in changes.items():
            setattr(self, name, value)

    def validate(self) -> None:
        """Raise a ValueError for sizes that do not divide, values out of range and unknown choices.

        Fields can be assigned one after the other: they need to fit when a model is made of them, or they are saved.
        """
        for name in ("image_size", "patch_size"):
            _check_size(name, getattr(self, name))
        for name in _POSITIVE_FIELDS:
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be a positive whole number, got {value!r}.")
            largest = _MAX_DEPTH if name.endswith("num_hidden_layers") else _MAX_FIELD
            if value > largest:
                raise ValueError(f"{name} must be at most {largest}, got {value}.")
        for name, field in self.__dataclass_fields__.items():
            if isinstance(field.default, bool) and not isinstance(flag := getattr(self, name), bool):
                raise ValueError(f"{name} must be true or false, got {flag!r}.")
        for width, heads in _WIDTHS_AND_HEADS:
            if getattr(self, width) % getattr(self, heads):
                raise ValueError(
                    f"{width} must be divisible by {heads}, got {getattr(self, width)} and {getattr(self, heads)}."
                )
        if self.attentive_pooling and not self.use_mean_pooling:
            raise ValueError("attentive_pooling=True needs use_mean_pooling=True: the first token is not pooled.")
        for size, patch, axis in zip(self.frame_size, self.tubelet_shape[1:], ("height", "width"), strict=True):
            if size % patch:
                raise ValueError(
                    f"the {axis} of image_size must be divisible by that of patch_size, got {size} and {patch}."
                )
        if self.num_frames % self.tubelet_size:
            raise ValueError(
                f"num_frames must be divisible by tubelet_size, got {self.num_frames} and {self.tubelet_size}: "
                "the frames left over would be dropped."
            )
        pixels = self.num_frames * math.prod(self.frame_size)
        if self.num_tubelets > _MAX_TUBELETS or pixels > _MAX_CLIP_PIXELS:
            raise ValueError(
                f"a clip of {self.num_frames} frames of {self.frame_size} pixels has {self.num_tubelets} tubelets; "
                f"there may be at most {_MAX_TUBELETS}, and {_MAX_CLIP_PIXELS} pixels in all: choose fewer frames, "
                "smaller ones, or larger patches."
            )
        for name in (
            "hidden_dropout_prob",
            "attention_probs_dropout_prob",
            "drop_path",
            "head_dropout",
            "label_smoothing",
        ):
            if not _is_number(getattr(self, name)) or not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, got {getattr(self, name)!r}.")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                shown = ", ".join(map(repr, choices))
                raise ValueError(f"{name} must be one of {shown}, got {getattr(self, name)!r}.")
        for name in ("layer_norm_eps", "output_norm_eps", "initializer_range", "clip_stride", "clip_fps"):
            if name == "clip_fps" and self.clip_fps is None:
                continue
            if not _is_number(getattr(self, name)) or not 0 < getattr(self, name) <= _MAX_FIELD:
                raise ValueError(
                    f"{name} must be a number above 0, and at most {_MAX_FIELD}, got {getattr(self, name)!r}."
                )
        if self.position_embedding == "interpolate" and not _is_grid(self.position_grid):
            raise ValueError(
                "position_embedding='interpolate' needs position_grid, the tubelets (time, height, width) that the "
                f"weights were trained with, at most {_MAX_TUBELETS} in all, got {self.position_grid!r}."
            )
        for name in ("image_mean", "image_std"):
            values = getattr(self, name)
            if values is not None and not (isinstance(values, tuple) and len(values) == self.num_channels):
                raise ValueError(f"{name} needs one value per channel ({self.num_channels}), got {values!r}.")
            if values is not None and not all(map(_is_number, values)):
                raise ValueError(f"{name} must hold finite numbers, got {values!r}.")
        if list(self.id2label) != list(range(len(self.id2label))):
            raise ValueError(
                f"id2label must name the classes 0, 1, 2, ... without gaps, got {list(self.id2label)[:10]}."
            )


CONFIG_FIELDS = {field.name for field in dataclasses.fields(VideoMAEConfig)} - {"unknown"}
CONFIG_FIELDS |= {"qkv_bias", "num_labels", "label2id"}  # other names
_TUPLES = ("image_size", "patch_size", "position_grid", "image_mean", "image_std")
_POSITIVE_FIELDS = ("num_channels", "num_frames", "tubelet_size", *_PRESET_FIELDS[:-1])
_WIDTHS_AND_HEADS = (
    ("hidden_size", "num_attention_heads"),
    ("decoder_hidden_size", "decoder_num_attention_heads"),
)
_CHOICES: dict[str, tuple[str | None, ...]] = {
    "hidden_act": ACTIVATIONS,
    "attn_implementation": ATTENTION_IMPLEMENTATIONS,
    "decoder_attention": ("self", "cross"),
    "position_embedding": POSITIONS,
    "clip_sampling": CLIP_SAMPLINGS,
    "problem_type": (None, *PROBLEM_TYPES),
}


def _resolve_aliases(fields: dict[str, Any]) -> dict[str, Any]:
    """Replace the names that stand for another field: qkv_bias, num_labels and label2id."""
    fields = dict(fields)
    if "qkv_bias" in fields:
        fields["qv_bias"] = fields.pop("qkv_bias")
    label2id = fields.pop("label2id", None)
    number = fields.pop("num_labels", None)
    named = None if label2id is None else _inverted(label2id)
    if fields.get("id2label") is None:
        fields["id2label"] = named or _default_labels(2 if number is None else number)
    fields["id2label"] = _numbered(fields["id2label"])
    if number is not None and number != len(fields["id2label"]):
        raise ValueError(f"num_labels is {number}, but {len(fields['id2label'])} class names are given.")
    return fields


def _numbered(id2label: Any) -> dict[int, str]:
    """Return class names by number, in order."""
    try:
        return dict(sorted((int(index), str(label)) for index, label in id2label.items()))
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"id2label must map numbers to class names, got {id2label!r}.") from error


def _inverted(label2id: Any) -> dict[int, str]:
    """Return the class names by number that a mapping of names to numbers stands for."""
    if not isinstance(label2id, Mapping) or not all(isinstance(index, int | str) for index in label2id.values()):
        raise ValueError(f"label2id must map class names to numbers, got {label2id!r}.")
    id2label = _numbered({index: label for label, index in label2id.items()})
    if len(id2label) < len(label2id):
        raise ValueError(f"label2id must give every class a number of its own, got {label2id!r}.")
    return id2label


def _default_labels(number: int) -> dict[int, str]:
    if not isinstance(number, int) or number < 0:
        raise ValueError(f"num_labels must be a whole number and must not be negative, got {number!r}.")
    if number > MAX_LABELS:
        raise ValueError(f"num_labels must be at most {MAX_LABELS}, got {number}.")
    return {index: f"LABEL_{index}" for index in range(number)}


def _dtype_name(dtype: Any) -> str:
    """Return "float16" for torch.float16, as config.json holds it."""
    return str(dtype).removeprefix("torch.")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf


def _is_grid(value: Any) -> bool:
    if not isinstance(value, tuple) or not all(isinstance(side, int) and side > 0 for side in value):
        return False
    return len(value) == 3 and math.prod(value) <= _MAX_TUBELETS


def _pair(size: Size) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


def _check_size(name: str, size: Any) -> None:
    sides = (size,) if isinstance(size, int) else size
    pair = isinstance(size, int) or (isinstance(sides, tuple) and len(sides) == 2)
    if not pair or not all(isinstance(side, int) and side > 0 for side in sides):
        raise ValueError(f"{name} must be a positive whole number or (height, width), got {size!r}.")


def check_model_type(content: Mapping[str, Any]) -> None:
    """Raise a CheckpointError if the content of a config.json is that of another type of model."""
    model_type = content.get("model_type", VideoMAEConfig.model_type)
    if model_type != VideoMAEConfig.model_type and not str(model_type).startswith("VideoMAEv2"):
        raise CheckpointError(f"this is a checkpoint of a {model_type!r} model, not of {VideoMAEConfig.model_type!r}.")


def _from_videomae_v2(content: Mapping[str, Any]) -> dict[str, Any]:
    """Translate the config.json of OpenGVLab's VideoMAEv2 folders, whose sizes stand under "model_config"."""
    theirs = content["model_config"]
    if not isinstance(theirs, Mapping) or not all(_is_number(theirs.get(name, 1)) for name in _V2_MLP):
        raise CheckpointError(f"model_config must hold the sizes of a VideoMAEv2 model, got {theirs!r}.")
    for name in ("use_learnable_pos_emb", "cos_attn"):
        if theirs.get(name):
            raise CheckpointError(f"VideoMAEv2 with {name}=true is not known here: load a checkpoint without it.")
    fields = {ours: theirs[name] for ours, name in _VIDEOMAE_V2_FIELDS if theirs.get(name) is not None}
    fields["intermediate_size"] = int(theirs.get("embed_dim", 768) * theirs.get("mlp_ratio", 4))
    fields["output_norm_eps"] = fields.setdefault("layer_norm_eps", 1e-6)
    return fields


_V2_MLP = ("embed_dim", "mlp_ratio")
_VIDEOMAE_V2_FIELDS = (
    ("image_size", "img_size"),
    ("patch_size", "patch_size"),
    ("num_channels", "in_chans"),
    ("num_labels", "num_classes"),
    ("hidden_size", "embed_dim"),
    ("num_hidden_layers", "depth"),
    ("num_attention_heads", "num_heads"),
    ("qv_bias", "qkv_bias"),
    ("hidden_dropout_prob", "drop_rate"),
    ("attention_probs_dropout_prob", "attn_drop_rate"),
    ("drop_path", "drop_path_rate"),
    ("layer_norm_eps", "layer_norm_eps"),
    ("tubelet_size", "tubelet_size"),
    ("num_frames", "num_frames"),
    ("use_mean_pooling", "use_mean_pooling"),
)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return " (did you mean ...?)" for a misspelt name, or nothing where no known name is near."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
