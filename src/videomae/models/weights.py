"""Checkpoints of every family: what their tensors are called, how they are read and how they are written.

Other projects' weight names live in this file only. Inside the project a checkpoint is a mapping of *our* names, with
the encoder's under "videomae.", whatever family it came from.
"""

import argparse
import dataclasses
import datetime
import logging
import pathlib
import pickle
import re
import types
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from videomae.config import CONFIG_NAME, VideoMAEConfig, check_model_type
from videomae.errors import CheckpointError
from videomae.files import atomic_write, utf8_address, write_json
from videomae.hub import fetch_file, find_file, read_json, refuse_placeholder
from videomae.models.patches import sinusoid_table

log = logging.getLogger(__name__)

Tensors = dict[str, Tensor]


@dataclasses.dataclass(frozen=True)
class Family:
    """How one project names its tensors.

    Attributes:
        title: what people call it.
        modules: (ours, theirs) beginnings of names outside blocks, the first match counts.
        block: (ours, theirs) names inside a block.
        split_qkv: whether query, key and value are stored as separate matrices.
    """

    title: str
    modules: tuple[tuple[str, str], ...]
    block: tuple[tuple[str, str], ...] = ()
    split_qkv: bool = False


FAMILIES = {
    "hf": Family(
        "Hugging Face",
        modules=(
            ("videomae.patch_embed.proj.", "videomae.embeddings.patch_embeddings.projection."),
            ("videomae.blocks.", "videomae.encoder.layer."),
            ("videomae.norm.", "videomae.layernorm."),
            ("decoder.blocks.", "decoder.decoder_layers."),
        ),
        block=(
            ("norm1.", "layernorm_before."),
            ("norm2.", "layernorm_after."),
            ("attn.qkv.", "attention.attention.qkv."),
            ("attn.q_bias", "attention.attention.q_bias"),
            ("attn.v_bias", "attention.attention.v_bias"),
            ("attn.proj.", "attention.output.dense."),
            ("mlp.fc1.", "intermediate.dense."),
            ("mlp.fc2.", "output.dense."),
        ),
        split_qkv=True,
    ),
    "v1-pretraining": Family("VideoMAE v1/v2 pre-training", modules=(("videomae.", "encoder."),)),
    "v1-classification": Family(
        "VideoMAE v1/v2 fine-tuning", modules=(("videomae.", ""), ("fc_norm.", "fc_norm."), ("classifier.", "head."))
    ),
    "videomae": Family("this project", modules=()),
    "mmaction2": Family(
        "MMAction2",
        modules=(
            ("videomae.patch_embed.proj.", "backbone.patch_embed.projection."),
            ("fc_norm.", "backbone.fc_norm."),
            ("classifier.", "cls_head.fc_cls."),
            ("videomae.", "backbone."),
        ),
        block=(("mlp.fc1.", "mlp.layers.0.0."), ("mlp.fc2.", "mlp.layers.1.")),
    ),
}

# How a name ends that is there in every checkpoint of a family, the first match counts. What stands before it was put
# there by a wrapper: "module." (DataParallel), "model." or "net." (Lightning, OpenGVLab), "backbone.", "ema." ...
_PATCH_EMBEDDINGS = (
    ("hf", "videomae.embeddings.patch_embeddings.projection.weight"),
    ("hf", "embeddings.patch_embeddings.projection.weight"),
    ("mmaction2", "backbone.patch_embed.projection.weight"),
    ("videomae", "videomae.patch_embed.proj.weight"),
    ("v1-pretraining", "encoder.patch_embed.proj.weight"),
    ("v1-classification", "patch_embed.proj.weight"),
)
_V1_HEADS = ("fc_norm.weight", "head.weight")
# Wrappers that may stand anywhere in a name: of torch.compile, FSDP and activation checkpointing.
_INNER_WRAPPERS = re.compile(r"(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
# An average of the weights, beside them or around them, counts where there is nothing else.
_AVERAGED = re.compile(r"ema|teacher|averag|swa|momentum", re.IGNORECASE)
# What training adds to a model, and merges into it or drops at the end: low-rank additions, parts of a student.
_OF_TRAINING = re.compile(r"(^|\.)(lora_\w+|base_layer|modules_to_save)\.|^(batch_norm|hints)\.")

# Newer transformers shows these names in memory; some files on the Hub were written with them.
_HF_SPELLINGS = (("attention.query.bias", "attention.q_bias"), ("attention.value.bias", "attention.v_bias"))
_BLOCK = re.compile(r"(.*blocks\.\d+\.)(.+)")
_HF_BLOCK = re.compile(r"(.*(?:encoder\.layer|decoder\.decoder_layers)\.\d+\.)(.+)")

_SAFETENSORS, _PICKLE = "model.safetensors", "pytorch_model.bin"
_WEIGHT_FILES = (_SAFETENSORS, _SAFETENSORS + ".index.json", _PICKLE, _PICKLE + ".index.json")

_NAMES_OF_A_WEIGHT = 8  # at most: a file may store one under several names
_SHARD = re.compile(r"\w[\w.-]*")
_WEIGHT_FILE = re.compile(r"(model|pytorch_model)(-\d+-of-\d+)?\.(safetensors|bin)(\.index\.json)?")

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
        family, tensors = to_our_names(
            _read_weights(path_or_id, use_safetensors, **hub_options), source=str(path_or_id)
        )
    return Checkpoint(str(path_or_id), family, _task(tensors), tensors, config)


def checkpoint_of(state_dict: Mapping[str, Tensor], *, source: str) -> Checkpoint:
    """Make a checkpoint of a state dict of any family; errors as of ``to_our_names``."""
    family, tensors = to_our_names(dict(state_dict), source=source)
    return Checkpoint(source, family, _task(tensors), tensors, {})


def read_tensors(file: Path) -> Tensors:
    """Read the tensors of one file, memory-mapped where its format allows; nothing in it is executed.

    Raises:
        CheckpointError: if the file is not what its name says (an HTML page, a Git LFS pointer, cut short ...).
    """
    refuse_placeholder(file)
    if not file.stat().st_size:
        raise CheckpointError(f"{file} is empty: download it again.")
    if file.suffix == ".safetensors":
        try:
            with utf8_address(file) as address, safe_open(address, framework="pt") as opened:
                return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a mapping
        except SafetensorError as error:
            raise CheckpointError(f"{file} is not a readable safetensors file ({error}): download it again.") from error
    return _state_dict(_load_pickle(file), file)


def to_our_names(raw: Tensors, *, source: str) -> tuple[str, Tensors]:
    """Find out the family of a state dict and rename its tensors.

    Returns:
        Key of ``FAMILIES``, and the tensors by our names with query, key and value joined.

    Raises:
        CheckpointError: if the names are of no family, if a matrix of query, key and value is missing, or if they are
            those of a model in training, with parts that the trained one has not.
    """
    if added := [name for name in raw if _OF_TRAINING.search(name)]:
        raise CheckpointError(
            f"{source} is no model yet: it holds {added[0]} and others that training adds ({len(added)} tensors). They "
            "are merged or dropped when a run ends: load its folder model/, or run the same command again to end it. "
            "Of a model of peft, save what merge_and_unload() returns."
        )
    family, raw = _unwrap(raw, source)
    if family == "hf":
        return family, _from_hf(raw, source)
    table = raw.pop("backbone.pos_embed", None)
    if table is not None:
        _check_position_table(table, source)
    return family, _without_doubles(((_rename(name, family), tensor) for name, tensor in raw.items()), source)


def from_our_names(tensors: Tensors, family: str) -> Tensors:
    """Rename tensors from ours to another family's names; the inverse of ``to_our_names``, bit for bit."""
    renamed = {_rename(name, family, inverse=True): tensor for name, tensor in tensors.items()}
    if not FAMILIES[family].split_qkv:
        return renamed
    split: Tensors = {}
    for name, tensor in renamed.items():
        if name.endswith(".qkv.weight"):
            stem = name.removesuffix("qkv.weight")
            parts = zip(("query", "key", "value"), tensor.chunk(3), strict=True)
            split |= {f"{stem}{part}.weight": matrix.clone() for part, matrix in parts}
        else:
            split[name] = tensor
    return split


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
        }
    return fields


def save_hf(
    directory: Path,
    tensors: Tensors,
    config: Mapping[str, Any],
    *,
    max_shard_size: int | str = "50GB",
    save_function: Callable[..., Any] | None = None,
) -> None:
    """Write a directory that ``from_pretrained``, here and in transformers, loads.

    Args:
        directory: made if needed; files of the same names are replaced, each in one step, and shards of an earlier
            save are removed.
        tensors: by our names.
        config: content of config.json.
        max_shard_size: bytes of one file, or such as "5GB".
        save_function: writes pytorch_model.bin instead of safetensors.
    """
    from huggingface_hub import split_torch_state_dict_into_shards

    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in from_our_names(tensors, "hf").items()}
    name = _SAFETENSORS if save_function is None else _PICKLE
    stem, suffix = name.split(".")
    plan = split_torch_state_dict_into_shards(
        stored, filename_pattern=f"{stem}{{suffix}}.{suffix}", max_shard_size=max_shard_size
    )
    for file, names in plan.filename_to_tensors.items():
        with atomic_write(directory / file) as temporary:
            shard = {tensor: stored[tensor] for tensor in names}
            try:
                if save_function is None:
                    with utf8_address(temporary) as address:
                        save_file(shard, address, metadata={"format": "pt"})
                else:
                    save_function(shard, temporary)
            except SafetensorError as error:
                raise CheckpointError(
                    f"cannot write the model to {directory}: {error}. Make room, and run the same command again."
                ) from error
    written = set(plan.filename_to_tensors)
    if plan.is_sharded:
        write_json(
            directory / f"{name}.index.json",
            {"metadata": {"total_size": sum(t.nbytes for t in stored.values())}, "weight_map": plan.tensor_to_filename},
        )
        written.add(f"{name}.index.json")
    for path in directory.iterdir():
        if path.name not in written and _WEIGHT_FILE.fullmatch(path.name):
            path.unlink()
    write_json(directory / CONFIG_NAME, config)


def save_v1(file: Path, tensors: Tensors, *, task: str) -> None:
    """Write a .pth file that the scripts of VideoMAE v1 and v2 load.

    Args:
        file: to write; its folder is made if needed.
        tensors: by our names.
        task: "pretraining" or "classification".
    """
    stored = {name: tensor.detach().cpu() for name, tensor in from_our_names(tensors, f"v1-{task}").items()}
    with atomic_write(file) as temporary:
        torch.save({"model": stored}, temporary)


def _unwrap(raw: Tensors, source: str) -> tuple[str, Tensors]:
    """Return a family and the tensors by its names, without what wrappers have put in front of them."""
    weights = ((name, tensor) for name, tensor in raw.items() if tensor.ndim)  # wrappers count in tensors of no shape
    raw = _without_doubles(((_INNER_WRAPPERS.sub("", name), tensor) for name, tensor in weights), source)
    for family, ending in _PATCH_EMBEDDINGS:
        found = [n.removesuffix(ending) for n in raw if f".{n}".endswith(f".{ending}")]
        encoder = ending.removesuffix("patch_embed.proj.weight")  # "encoder.": with a head in it, the name of a wrapper
        found = [p for p in found if not (encoder and any(f"{p}{encoder}{head}" in raw for head in _V1_HEADS))]
        chosen = [prefix for prefix in found if not _AVERAGED.search(prefix)] or found
        if len(chosen) > 1:
            raise CheckpointError(
                f"{source} holds {len(chosen)} models, in front of whose names stand {', '.join(map(repr, chosen))}. "
                "Save one of them alone."
            )
        if chosen:
            others = tuple(prefix for prefix in found if prefix not in chosen)
            kept = {n: t for n, t in raw.items() if not (others and n.startswith(others))}
            return family, _without_doubles(((_without(chosen[0], name), t) for name, t in kept.items()), source)
    shown = ", ".join(list(raw)[:4]) or "nothing"
    raise CheckpointError(
        f"{source} is not a checkpoint of VideoMAE: its tensors are called {shown} ... Known families: "
        + ", ".join(family.title for family in FAMILIES.values())
        + "."
    )


def _without_doubles(items: Iterable[tuple[str, Tensor]], source: str) -> Tensors:
    """Make a dict, and refuse two tensors of one name, of which one would be lost silently."""
    tensors: Tensors = {}
    for name, tensor in items:
        if name in tensors:
            raise CheckpointError(
                f"{source} holds two tensors for {name}, such as with and without a beginning that wrappers put there: "
                "remove one of them."
            )
        tensors[name] = tensor
    return tensors


def _without(prefix: str, name: str) -> str:
    """Remove a prefix "a.b." from a name, or else the part of it "a." that the name has."""
    parts = prefix.split(".")[:-1]
    for length in range(len(parts), 0, -1):
        beginning = ".".join(parts[:length]) + "."
        if name.startswith(beginning):
            return name[len(beginning) :]
    return name


def _rename(name: str, family: str, *, inverse: bool = False) -> str:
    """Translate one name from a family's to ours, or back with ``inverse``."""
    names = FAMILIES[family]
    modules, block = names.modules, names.block
    if not inverse:
        modules = tuple((theirs, ours) for ours, theirs in modules)
        block = tuple((theirs, ours) for ours, theirs in block)
        # Where the encoder's beginning is empty ("" in v1 fine-tuning) it must be asked last.
        modules = tuple(sorted(modules, key=lambda pair: -len(pair[0])))
    pattern = _HF_BLOCK if family == "hf" and not inverse else _BLOCK
    if match := pattern.fullmatch(name):
        name = match[1] + _replace_beginning(match[2], block)
    return _replace_beginning(name, modules)


def _replace_beginning(name: str, pairs: Iterable[tuple[str, str]]) -> str:
    for old, new in pairs:
        if name.startswith(old):
            return new + name[len(old) :]
    return name


def _from_hf(raw: Tensors, source: str) -> Tensors:
    base = "embeddings.patch_embeddings.projection.weight" in raw  # saved by VideoMAEModel, without "videomae."
    for spelling, stored in _HF_SPELLINGS:
        raw = _without_doubles(((name.replace(spelling, stored), tensor) for name, tensor in raw.items()), source)
    for name in [name for name in raw if name.endswith(".query.weight")]:
        stem = name.removesuffix("query.weight")
        parts = [f"{stem}{part}.weight" for part in ("query", "key", "value")]
        if missing := [part for part in parts if part not in raw]:
            raise CheckpointError(f"{source} lacks {', '.join(missing)}: it is incomplete.")
        raw[f"{stem}qkv.weight"] = torch.cat([raw.pop(part) for part in parts])
    names = {name: _rename(f"videomae.{name}" if base else name, "hf") for name in raw}
    return _without_doubles(((names[name], tensor) for name, tensor in raw.items()), source)


def _task(tensors: Tensors) -> str:
    if any(name.startswith("decoder.") for name in tensors):
        return "pretraining"
    return "classification" if any(name.startswith(("classifier.", "fc_norm.")) for name in tensors) else "encoder"


def count_blocks(tensors: Tensors, beginning: str) -> int:
    """Return how many blocks have tensors, whose names begin with such as "videomae.blocks."."""
    return len({name.removeprefix(beginning).split(".")[0] for name in tensors if name.startswith(beginning)})


def _nearest_divisor(width: int, number: int) -> int:
    return next(heads for heads in range(max(number, 1), 0, -1) if width % heads == 0)


def _check_position_table(table: Tensor, source: str) -> None:
    """Refuse a stored table (1, N, D) that is not the sinusoid which the model computes: it would be lost silently."""
    expected = sinusoid_table((1, 1, table.shape[1]), table.shape[2]) if table.ndim == 3 else None
    if expected is None or not torch.allclose(table[0].float(), expected, atol=1e-5):
        raise CheckpointError(
            f"{source} has a position table of its own (learned?): only the fixed sinusoid is known here."
        )


def _read_weights(path_or_id: str | Path, use_safetensors: bool | None, **hub_options: Any) -> Tensors:
    """Read the weights of a directory or a model on the Hub, from one file or from shards."""
    names = [name for name in _WEIGHT_FILES if use_safetensors in (None, name.startswith(_SAFETENSORS))]
    file = _find_weights(path_or_id, names, **hub_options)
    if not file.name.endswith(".index.json"):
        return read_tensors(file)
    shards = read_json(file).get("weight_map")
    if not isinstance(shards, dict):
        raise CheckpointError(f"{file} has no 'weight_map' that tells which shard holds what: fetch it again.")
    for shard in shards.values():
        if not isinstance(shard, str) or not _SHARD.fullmatch(shard):
            raise CheckpointError(f"{file} names the shard {shard!r}, which is no file of its folder: fetch it again.")
    files = (fetch_file(path_or_id, shard, **hub_options) for shard in sorted(set(shards.values())))
    return _without_doubles((item for shard in files for item in read_tensors(shard).items()), str(path_or_id))


def _find_weights(path_or_id: str | Path, names: Sequence[str], **hub_options: Any) -> Path:
    for name in names:
        file = find_file(path_or_id, name, **hub_options)
        if file is not None:
            return file
    if Path(path_or_id, "adapter_config.json").exists():
        raise CheckpointError(
            f"{path_or_id} holds an adapter alone: load the model it was made for, then "
            f"peft.PeftModel.from_pretrained(model, {str(path_or_id)!r})."
        )
    config = fetch_file(path_or_id, CONFIG_NAME, **hub_options)  # to hear what the folder or the Hub has instead
    if Path(path_or_id).exists():
        raise CheckpointError(f"{config.parent} has no weights: one of {', '.join(names)} is needed.")
    return fetch_file(path_or_id, names[0], **hub_options)  # to hear from the Hub why there is none


def _load_pickle(file: Path) -> Any:
    with file.open("rb") as opened:
        magic = opened.read(2)
    if magic not in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        raise CheckpointError(f"{file} is not a PyTorch checkpoint: its content is of another kind.")
    try:
        is_archive = zipfile.is_zipfile(file)
        if is_archive:
            with zipfile.ZipFile(file) as archive:
                _refuse_growth(sum(info.file_size for info in archive.infolist()), file)
        with torch.serialization.safe_globals(_harmless()):
            return torch.load(file, map_location="cpu", weights_only=True, mmap=is_archive)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{file} is not a plain checkpoint: it holds Python objects other than tensors, which would run code. "
            "Where you trust it, save its state dict alone, and load that."
        ) from error
    except CheckpointError:
        raise
    except Exception as error:  # PyTorch's reader believes what the file says, and fails in any way where it is wrong
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise CheckpointError(f"{file} is not a readable PyTorch checkpoint ({reason}): download it again.") from error


def _refuse_growth(size: int, file: Path) -> None:
    """Refuse a file that would take more memory than it is long: compressed, or with tensors that repeat themselves."""
    if size > file.stat().st_size:
        raise CheckpointError(
            f"{file} has {file.stat().st_size} bytes, but unpacks to {size} and more: save the state dict with "
            "torch.save, uncompressed, each tensor with its own values."
        )


def _harmless() -> list[Any]:
    """List what may lie beside weights and is plain data: arguments, paths, times, and numbers and arrays of NumPy.

    Nothing of it grows: a range is not here, of which a file of 100 bytes could have a list made.
    """
    paths = [pathlib.PosixPath, pathlib.WindowsPath, pathlib.PurePosixPath, pathlib.PureWindowsPath]
    numbers = [type(np.dtype(code)) for code in "?bBhHiIlLqQefdgFDSUM"]
    made_by = [np._core.multiarray.scalar, np._core.multiarray._reconstruct]  # type: ignore[attr-defined]
    old_names = [(function, f"numpy.core.multiarray.{function.__name__}") for function in made_by]  # of NumPy 1
    containers = [argparse.Namespace, types.SimpleNamespace, defaultdict, frozenset, dict, list, set]
    times = [datetime.date, datetime.datetime, datetime.time, datetime.timedelta, datetime.timezone]
    return [*containers, *times, *paths, int, float, str, np.ndarray, np.dtype, *numbers, *made_by, *old_names]


def _state_dict(content: Any, file: Path) -> Tensors:
    """Return the weights in what a training script has saved, under whatever names it keeps them."""
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{file} holds a {type(content).__name__}, not a mapping of names to tensors.")
    held = _mappings_of_tensors(content)
    models = {where: t for where, t in held.items() if any(map(_is_patch_embedding, t))} or held
    chosen = [where for where in models if not _AVERAGED.search(where)] or list(models)
    if not chosen:
        raise CheckpointError(f"{file} holds no tensors.")
    if len(chosen) > 1 and models is not held:
        raise CheckpointError(
            f"{file} holds {len(chosen)} models, under {', '.join(map(repr, chosen))}. Save one of them alone."
        )
    tensors = models[chosen[0]]
    for name, tensor in tensors.items():
        if tensor.layout is not torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
            raise CheckpointError(f"{file}: {name} is not a dense tensor of numbers. Save it as one.")
    _refuse_growth(sum(t.numel() * t.element_size() for t in tensors.values()) // _NAMES_OF_A_WEIGHT, file)
    return tensors


def _mappings_of_tensors(content: Mapping[Any, Any]) -> dict[str, Tensors]:
    """Find the mappings of names to tensors in nested ones, by the keys that lead there: {"ema.module": {...}}."""
    found, waiting, seen = {}, [("", content)], set()
    for where, mapping in waiting:  # which grows on the way; a mapping may hold itself
        if id(mapping) in seen:
            continue
        seen.add(id(mapping))
        named = [(key, value) for key, value in mapping.items() if isinstance(key, str)]
        if tensors := {key: value for key, value in named if isinstance(value, Tensor)}:
            found[where] = tensors
        beginning = f"{where}." if where else ""
        waiting += [(beginning + key, value) for key, value in named if isinstance(value, Mapping)]
    return found


def _is_patch_embedding(name: str) -> bool:
    return any(f".{_INNER_WRAPPERS.sub('', name)}".endswith(f".{ending}") for _, ending in _PATCH_EMBEDDINGS)
