"""What projects call the tensors of VideoMAE, and what wrappers put in front of their names.

Other projects' weight names live in this file only. Inside the project a checkpoint is a mapping of *our* names, with
the encoder's under "videomae.", whatever family it came from.
"""

import dataclasses
import re
from collections.abc import Iterable

import torch
from torch import Tensor

from videomae.errors import CheckpointError
from videomae.models.patches import sinusoid_table

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
AVERAGED = re.compile(r"ema|teacher|averag|swa|momentum", re.IGNORECASE)
# What training adds to a model, and merges into it or drops at the end: low-rank additions, parts of a student.
_OF_TRAINING = re.compile(r"(^|\.)(lora_\w+|base_layer|modules_to_save)\.|^(batch_norm|hints)\.")

# Newer transformers shows these names in memory; some files on the Hub were written with them.
_HF_SPELLINGS = (("attention.query.bias", "attention.q_bias"), ("attention.value.bias", "attention.v_bias"))
_BLOCK = re.compile(r"(.*blocks\.\d+\.)(.+)")
_HF_BLOCK = re.compile(r"(.*(?:encoder\.layer|decoder\.decoder_layers)\.\d+\.)(.+)")


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
    return family, without_doubles(((_rename(name, family), tensor) for name, tensor in raw.items()), source)


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


def is_patch_embedding(name: str) -> bool:
    """Tell whether a name, whatever stands before it, is of the tensor that every checkpoint has."""
    return any(f".{_INNER_WRAPPERS.sub('', name)}".endswith(f".{ending}") for _, ending in _PATCH_EMBEDDINGS)


def without_doubles(items: Iterable[tuple[str, Tensor]], source: str) -> Tensors:
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


def _unwrap(raw: Tensors, source: str) -> tuple[str, Tensors]:
    """Return a family and the tensors by its names, without what wrappers have put in front of them."""
    weights = ((name, tensor) for name, tensor in raw.items() if tensor.ndim)  # wrappers count in tensors of no shape
    raw = without_doubles(((_INNER_WRAPPERS.sub("", name), tensor) for name, tensor in weights), source)
    for family, ending in _PATCH_EMBEDDINGS:
        found = [n.removesuffix(ending) for n in raw if f".{n}".endswith(f".{ending}")]
        encoder = ending.removesuffix("patch_embed.proj.weight")  # "encoder.": with a head in it, the name of a wrapper
        found = [p for p in found if not (encoder and any(f"{p}{encoder}{head}" in raw for head in _V1_HEADS))]
        chosen = [prefix for prefix in found if not AVERAGED.search(prefix)] or found
        if len(chosen) > 1:
            raise CheckpointError(
                f"{source} holds {len(chosen)} models, in front of whose names stand {', '.join(map(repr, chosen))}. "
                "Save one of them alone."
            )
        if chosen:
            others = tuple(prefix for prefix in found if prefix not in chosen)
            kept = {n: t for n, t in raw.items() if not (others and n.startswith(others))}
            return family, without_doubles(((_without(chosen[0], name), t) for name, t in kept.items()), source)
    shown = ", ".join(list(raw)[:4]) or "nothing"
    raise CheckpointError(
        f"{source} is not a checkpoint of VideoMAE: its tensors are called {shown} ... Known families: "
        + ", ".join(family.title for family in FAMILIES.values())
        + "."
    )


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
        raw = without_doubles(((name.replace(spelling, stored), tensor) for name, tensor in raw.items()), source)
    for name in [name for name in raw if name.endswith(".query.weight")]:
        stem = name.removesuffix("query.weight")
        parts = [f"{stem}{part}.weight" for part in ("query", "key", "value")]
        if missing := [part for part in parts if part not in raw]:
            raise CheckpointError(f"{source} lacks {', '.join(missing)}: it is incomplete.")
        raw[f"{stem}qkv.weight"] = torch.cat([raw.pop(part) for part in parts])
    names = {name: _rename(f"videomae.{name}" if base else name, "hf") for name in raw}
    return without_doubles(((names[name], tensor) for name, tensor in raw.items()), source)


def _check_position_table(table: Tensor, source: str) -> None:
    """Refuse a stored table (1, N, D) that is not the sinusoid which the model computes: it would be lost silently."""
    expected = sinusoid_table((1, 1, table.shape[1]), table.shape[2]) if table.ndim == 3 else None
    if expected is None or not torch.allclose(table[0].float(), expected, atol=1e-5):
        raise CheckpointError(
            f"{source} has a position table of its own (learned?): only the fixed sinusoid is known here."
        )
