"""The kinds of exported files: their names, what runs them, and finding one in a directory or on the Hub."""

import dataclasses
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from videomae.errors import CheckpointError
from videomae.hub import find_file, split_hub_options
from videomae.inference.engines.base import ExportedModel
from videomae.packages import require

EngineName = Literal["torch", "openvino", "onnx"]
Precision = Literal["float32", "float16", "bfloat16", "int8"]


@dataclasses.dataclass(frozen=True)
class Format:
    """A kind of exported file.

    Attributes:
        title: what people call it.
        files: by precision, where a file lies in its directory.
        weights: ending of a second file that belongs to each, always or where it is large; or nothing.
        engine: module and class that run it.
        package: that it needs, and the extra that brings it; None where it is no extra.
    """

    title: str
    files: dict[str, str]
    engine: tuple[str, str]
    weights: str = ""
    package: tuple[str, str] | None = None


# The names of ONNX files are those that users of the Hub expect.
FORMATS: dict[str, Format] = {
    "openvino": Format(
        "OpenVINO",
        {
            "float32": "openvino_model.xml",
            "float16": "openvino_model_fp16.xml",
            "bfloat16": "openvino_model_bf16.xml",
            "int8": "openvino_model_int8.xml",
        },
        ("openvino", "OpenVINOEngine"),
        weights=".bin",
        package=("openvino", "openvino"),
    ),
    "onnx": Format(
        "ONNX",
        {"float32": "onnx/model.onnx", "float16": "onnx/model_fp16.onnx", "int8": "onnx/model_quantized.onnx"},
        ("onnx", "ONNXEngine"),
        weights=".onnx.data",
        package=("onnxruntime", "onnx"),
    ),
    "torch": Format(
        "torch.export",
        {"float32": "model.pt2", "float16": "model_fp16.pt2", "bfloat16": "model_bf16.pt2"},
        ("program", "TorchProgramEngine"),
    ),
}
_ENDINGS = {".xml": "openvino", ".onnx": "onnx", ".pt2": "torch"}
_WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin", "*.pth")


def find_exported(
    path_or_id: str | Path, engine: EngineName | None = None, **hub_options: Any
) -> tuple[str, Path] | None:
    """Return the format and path of an exported file; None where a checkpoint is meant.

    Args:
        path_or_id: an exported file, a directory that holds some, or, with ``engine``, the id of a model on the Hub.
        engine: which to look for; None takes a checkpoint where there is one, and what is there otherwise.
        hub_options: as for ``fetch_file``.

    Raises:
        CheckpointError: if there is none for the engine, or several of which none is the plain one.
        ValueError: if the file is for another engine.
    """
    place = Path(path_or_id).expanduser()
    if place.is_file():
        found = _ENDINGS.get(place.suffix)
        if engine not in (None, found) and (found or engine != "torch"):
            runs = f"is for the engine {found!r}" if found else "is no exported file"
            raise ValueError(f"{place} {runs}, got the engine {engine!r}: leave it out.")
        return (found, place) if found else None
    if engine is None and not place.is_dir():
        return None
    if engine in (None, "torch") and (not place.is_dir() or any(file for p in _WEIGHTS for file in place.glob(p))):
        return None
    candidates = {
        (name, precision): file
        for name, kind in FORMATS.items()
        if engine in (None, name)
        for precision, file in kind.files.items()
        if find_file(path_or_id, file, **hub_options) is not None
    }
    plain = [key for key in candidates if key[1] == "float32"]
    chosen = plain if len(plain) == 1 else list(candidates)
    if len(chosen) > 1:
        raise CheckpointError(
            f"{path_or_id} holds several exported models, {', '.join(candidates.values())}: name one of the files, or "
            "the engine."
        )
    if not chosen:
        if engine in (None, "torch"):
            return None
        raise CheckpointError(
            f"{path_or_id} has nothing for {FORMATS[engine].title}: make it with "
            f"`videomae export {path_or_id} --to {engine}`."
        )
    name, _ = key = chosen[0]
    path = find_file(path_or_id, candidates[key], **hub_options)
    if FORMATS[name].weights:
        find_file(path_or_id, str(Path(candidates[key]).with_suffix(FORMATS[name].weights)), **hub_options)
    return name, Path(str(path))


def open_exported(
    path_or_id: str | Path,
    task: str,
    engine: EngineName | None = None,
    *,
    device: Any = None,
    dtype: Any = None,
    **options: Any,
) -> ExportedModel | None:
    """Find an exported file and open it with the engine for it; None where a checkpoint is meant.

    Args:
        path_or_id: as for `find_exported`.
        task: "classification" or "encoder".
        engine: as for `find_exported`.
        device: where to run; None is the engine's own choice.
        dtype: to compute in; None is as exported.
        options: of the Hub, as for ``fetch_file``.

    Raises:
        CheckpointError: if there is no such file, it cannot be read, or is for another task.
        MissingPackageError: if the engine's package is not installed.
        ValueError: if the engine has no such device or dtype, or sizes of the model are to be changed.
    """
    hub_options, overrides = split_hub_options(options)
    found = find_exported(path_or_id, engine, **hub_options)
    if found is None:
        return None
    name, path = found
    if overrides:
        raise ValueError(
            f"{', '.join(overrides)} cannot be changed in an exported model such as {path}: export the checkpoint anew."
        )
    kind = FORMATS[name]
    if kind.package is not None:
        package, extra = kind.package
        require(package, extra=extra, purpose=f"the engine {name!r} needs {package}")
    module, class_name = kind.engine
    open_file = getattr(import_module(f"videomae.inference.engines.{module}"), class_name)
    model: ExportedModel = open_file(path, device=device, dtype=dtype)
    if model.card.task != task:
        raise CheckpointError(
            f"{path} was exported for {model.card.task}, {task} is wanted: export with --task {task}."
        )
    return model
