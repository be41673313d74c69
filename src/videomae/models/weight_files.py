"""The files of weights: found in a directory or on the Hub, read without running what is in them, and written."""

import argparse
import datetime
import pathlib
import pickle
import re
import types
import zipfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from videomae.config import CONFIG_NAME
from videomae.errors import CheckpointError
from videomae.files import atomic_write, utf8_address, write_json
from videomae.hub import fetch_file, find_file, read_json, refuse_placeholder
from videomae.models.weight_names import AVERAGED, Tensors, from_our_names, is_patch_embedding, without_doubles

_SAFETENSORS, _PICKLE = "model.safetensors", "pytorch_model.bin"
_WEIGHT_FILES = (_SAFETENSORS, _SAFETENSORS + ".index.json", _PICKLE, _PICKLE + ".index.json")

_NAMES_OF_A_WEIGHT = 8  # at most: a file may store one under several names
_SHARD = re.compile(r"\w[\w.-]*")
_WEIGHT_FILE = re.compile(r"(model|pytorch_model)(-\d+-of-\d+)?\.(safetensors|bin)(\.index\.json)?")


def read_weights(path_or_id: str | Path, use_safetensors: bool | None, **hub_options: Any) -> Tensors:
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
    return without_doubles((item for shard in files for item in read_tensors(shard).items()), str(path_or_id))


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

    Nothing of it grows: a list is not here, as a file of few bytes could have many copies made of a long one.
    """
    paths = [pathlib.PosixPath, pathlib.WindowsPath, pathlib.PurePosixPath, pathlib.PureWindowsPath]
    numbers = [type(np.dtype(code)) for code in "?bBhHiIlLqQefdgFDSUM"]
    made_by = [np._core.multiarray.scalar, np._core.multiarray._reconstruct]  # type: ignore[attr-defined]
    old_names = [(function, f"numpy.core.multiarray.{function.__name__}") for function in made_by]  # of NumPy 1
    containers = [argparse.Namespace, types.SimpleNamespace, defaultdict]
    times = [datetime.date, datetime.datetime, datetime.time, datetime.timedelta, datetime.timezone]
    return [*containers, *times, *paths, np.ndarray, np.dtype, *numbers, *made_by, *old_names]


def _state_dict(content: Any, file: Path) -> Tensors:
    """Return the weights in what a training script has saved, under whatever names it keeps them."""
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{file} holds a {type(content).__name__}, not a mapping of names to tensors.")
    held = _mappings_of_tensors(content)
    models = {where: t for where, t in held.items() if any(map(is_patch_embedding, t))} or held
    chosen = [where for where in models if not AVERAGED.search(where)] or list(models)
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
