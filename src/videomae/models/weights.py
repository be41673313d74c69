"""A checkpoint of any family: its tensors by our names, and the configuration that is stored or inferred."""

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from videomae.config import CONFIG_NAME, VideoMAEConfig, check_model_type
from videomae.errors import CheckpointError
from videomae.hub import find_file, read_json
from videomae.models.weight_files import read_tensors, read_weights
from videomae.models.weight_names import Tensors, to_our_names

log = logging.getLogger(__name__)

# What shapes do not tell. Heads of a decoder are known where it is as wide as a published one.
_NOT_IN_SHAPES = ("num_frames", "image_size", "num_attention_heads")
_KNOWN_DECODERS = (192, 384, 512, 640)

# Heads by width where the published sizes are not width / 64.
_HEADS = {1280: 16, 1408: 16}
_DECODER_HEADS = {640: 8}


@dataclasses.dataclass
class Checkpoint:
    """What a checkpoint holds, in our names.

    Attributes:
        source: where it was read.
        family: key of ``FAMILIES``.
        task: "pretraining", "classification" or "encoder": what the tensors are for.
        tensors: our names; read from a memory-mapped file, not copied where the stored form is ours.
        config: content of config.json; empty for the families that have none.
    """

    source: str
    family: str
    task: str
    tensors: Tensors
    config: dict[str, Any]

    def resolve_config(self, *, task: str | None = None, **overrides: Any) -> VideoMAEConfig:
        """Return the configuration that is stored, or else inferred from the tensors' shapes.

        Args:
            task: of the model, by default the checkpoint's own: only one for pre-training asks for a decoder's heads.
            overrides: fields to set differently. With ``position_embedding="interpolate"`` the trained grid is the
                one of the configuration without the overrides, unless ``position_grid`` is given.

        Raises:
            CheckpointError: if shapes do not tell a size and no override does.
        """
        stored = dict(self.config)
        inferred = inferred_config(self.tensors, self.family)
        if not stored:
            stored, missing = inferred, [*_NOT_IN_SHAPES]
            if (task or self.task) == "pretraining" and inferred.get("decoder_hidden_size") not in _KNOWN_DECODERS:
                missing.append("decoder_num_attention_heads")
            if guessed := [name for name in missing if name in inferred and name not in overrides]:
                taken = ", ".join(f"{name}={stored[name]}" for name in guessed)
                log.warning("%s does not tell the clip size and the heads: taking %s", self.source, taken)
        elif "num_labels" in inferred and not stored.keys() & {"num_labels", "id2label", "label2id", "model_config"}:
            stored["num_labels"] = inferred["num_labels"]
        if overrides.get("position_embedding") == "interpolate" and "position_grid" not in overrides:
            trained = VideoMAEConfig.from_dict(stored)
            overrides["position_grid"] = trained.position_grid or trained.grid
        try:
            return VideoMAEConfig.from_dict(stored, **overrides)
        except ValueError as error:
            if self.config:
                raise
            raise CheckpointError(
                f"{self.source} does not tell {', '.join(_NOT_IN_SHAPES)}, and what was taken for them does not fit: "
                f"{str(error).rstrip('.')}. Give those that differ."
            ) from error

    def with_channels(self, number: int) -> "Checkpoint":
        """Return the checkpoint for clips of another number of channels.

        Each channel of the patch embedding becomes the mean of the trained ones, scaled so that their sum stays; each
        channel that the decoder predicts becomes their mean.
        """
        embedding = self.tensors["videomae.patch_embed.proj.weight"]  # (D, C, t, p, q)
        trained = embedding.shape[1]
        if trained == number:
            return self
        log.warning("%s was trained on %d channels: %d start from their mean", self.source, trained, number)
        tensors = dict(self.tensors)
        mean = embedding.mean(dim=1, keepdim=True) * (trained / number)
        tensors["videomae.patch_embed.proj.weight"] = mean.repeat(1, number, 1, 1, 1)
        for name in ("decoder.head.weight", "decoder.head.bias"):
            if name in tensors:  # (t*p*q*C, ...)
                mean = tensors[name].unflatten(0, (-1, trained)).mean(dim=1, keepdim=True)
                tensors[name] = mean.expand(-1, number, *mean.shape[2:]).flatten(0, 1).contiguous()
        return dataclasses.replace(self, tensors=tensors)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that config.json names, or that of the tensors."""
        name = str(self.config.get("dtype") or self.config.get("torch_dtype") or "").removeprefix("torch.")
        stored = getattr(torch, name, None)
        return stored if isinstance(stored, torch.dtype) else next(iter(self.tensors.values())).dtype


def open_checkpoint(path_or_id: str | Path, *, use_safetensors: bool | None = None, **hub_options: Any) -> Checkpoint:
    """Open a checkpoint of any family.

    Args:
        path_or_id: a directory with config.json and weights (also sharded), a weights file (.safetensors, .bin, .pth,
            .pt), or the id of a model on the Hugging Face Hub.
        use_safetensors: True takes safetensors only, False pickles only, None whatever is there, safetensors first.
        hub_options: passed to ``fetch_file``.

    Raises:
        CheckpointError: if nothing is found, the content is no checkpoint, or its names are of no known family.
    """
    path = Path(path_or_id)
    if path.is_file():
        if use_safetensors is not None and use_safetensors != (path.suffix == ".safetensors"):
            raise CheckpointError(f"{path} is not what use_safetensors={use_safetensors} asks for: leave it out.")
        family, tensors = to_our_names(read_tensors(path), source=str(path))
        beside = path.with_name(CONFIG_NAME)
        config = read_json(beside) if family in ("hf", "videomae") and beside.exists() else {}
        check_model_type(config)
    else:
        file = find_file(path_or_id, CONFIG_NAME, **hub_options)
        config = {} if file is None else read_json(file)
        check_model_type(config)
        family, tensors = to_our_names(read_weights(path_or_id, use_safetensors, **hub_options), source=str(path_or_id))
    return Checkpoint(str(path_or_id), family, _task(tensors), tensors, config)


def checkpoint_of(state_dict: Mapping[str, Tensor], *, source: str) -> Checkpoint:
    """Make a checkpoint of a state dict of any family; errors as of ``to_our_names``."""
    family, tensors = to_our_names(dict(state_dict), source=source)
    return Checkpoint(source, family, _task(tensors), tensors, {})


def inferred_config(tensors: Tensors, family: str) -> dict[str, Any]:
    """Read sizes off the tensors' shapes (v1, v2 and MMAction2 store no configuration).

    Frame size and number are not in the weights: 224 pixels and 16 frames are taken, and ``from_pretrained`` accepts
    others. So do heads, taken as width / 64 but for the published huge and giant.

    Args:
        tensors: by our names.
        family: key of ``FAMILIES``, for the epsilon of the LayerNorms.

    Returns:
        Fields of ``VideoMAEConfig``.

    Raises:
        CheckpointError: if a tensor that tells a size is missing.
    """
    needed = ["videomae.patch_embed.proj.weight", "videomae.blocks.0.mlp.fc1.weight"]
    if "decoder.norm.weight" in tensors:
        needed.append("decoder.blocks.0.mlp.fc1.weight")
    if missing := [name for name in needed if name not in tensors]:
        raise CheckpointError(f"the checkpoint lacks {', '.join(missing)}: it is incomplete.")
    width, channels, *tubelet = tensors["videomae.patch_embed.proj.weight"].shape
    fields: dict[str, Any] = {
        "num_frames": VideoMAEConfig.num_frames,
        "image_size": VideoMAEConfig.image_size,
        "hidden_size": width,
        "num_channels": channels,
        "tubelet_size": tubelet[0],
        "patch_size": tubelet[1] if tubelet[1] == tubelet[2] else tuple(tubelet[1:]),
        "num_hidden_layers": count_blocks(tensors, "videomae.blocks."),
        "num_attention_heads": _HEADS.get(width) or _nearest_divisor(width, width // 64),
        "intermediate_size": len(tensors["videomae.blocks.0.mlp.fc1.weight"]),
        "layer_norm_eps": 1e-12 if family == "hf" else 1e-6,
        "output_norm_eps": 1e-5 if family == "hf" else 1e-6,
        "use_mean_pooling": "videomae.norm.weight" not in tensors,
    }
    if "classifier.weight" in tensors:
        fields["num_labels"] = len(tensors["classifier.weight"])
    if "decoder.norm.weight" in tensors:
        decoder_width = len(tensors["decoder.norm.weight"])
        fields |= {
            "decoder_hidden_size": decoder_width,
            "decoder_num_hidden_layers": count_blocks(tensors, "decoder.blocks."),
            "decoder_num_attention_heads": _DECODER_HEADS.get(decoder_width)
            or _nearest_divisor(decoder_width, decoder_width // 64),
            "decoder_intermediate_size": len(tensors["decoder.blocks.0.mlp.fc1.weight"]),
            "decoder_attention": "cross" if "decoder.blocks.0.attn.kv.weight" in tensors else "self",
        }
    return fields


def count_blocks(tensors: Tensors, beginning: str) -> int:
    """Return how many blocks have tensors, whose names begin with such as "videomae.blocks."."""
    return len({name.removeprefix(beginning).split(".")[0] for name in tensors if name.startswith(beginning)})


def _task(tensors: Tensors) -> str:
    if any(name.startswith("decoder.") for name in tensors):
        return "pretraining"
    return "classification" if any(name.startswith(("classifier.", "fc_norm.")) for name in tensors) else "encoder"


def _nearest_divisor(width: int, number: int) -> int:
    return next(heads for heads in range(max(number, 1), 0, -1) if width % heads == 0)
