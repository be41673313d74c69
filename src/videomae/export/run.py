"""Export a model: write it, compare it with its source, and keep it only if it agrees and is no slower."""

import dataclasses
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from videomae.config import CONFIG_NAME, nearest
from videomae.data.settings import DataSource, read_data
from videomae.errors import CheckpointError, DataError
from videomae.export.clips import Clips, made_clips, read_samples, split
from videomae.export.quantize import Calibration
from videomae.export.targets import TARGETS, require_writer
from videomae.export.verify import TOLERANCES, Tolerance, Verification, verify, write_report
from videomae.files import is_utf8
from videomae.inference.engines.base import ModelCard
from videomae.inference.engines.formats import FORMATS, EngineName, Precision, open_exported
from videomae.inference.engines.pytorch import ProcessedEngine, TorchEngine
from videomae.inference.loading import open_model

if TYPE_CHECKING:
    from videomae.models.pretrained import PretrainedModel

ROUNDING = 1e-2  # of the largest output: what comes of pixels that are resized by another rule for their last bit
Task = Literal["classification", "encoder"]


@dataclasses.dataclass(frozen=True)
class Export:
    """What ``export`` wrote.

    Attributes:
        path: the exported file.
        card: what it says of itself.
        verification: how it compares with its source.
    """

    path: Path
    card: ModelCard
    verification: Verification


def export(
    model: str | Path,
    to: EngineName,
    out: str | Path | None = None,
    *,
    precision: Precision = "float32",
    task: Task | None = None,
    data: DataSource | None = None,
    source_size: tuple[int, int] | None = None,
    calibration_clips: int = 128,
    verified_clips: int = 32,
    accuracy_aware: bool | None = None,
    max_drop: float = 0.01,
    tolerance: float | None = None,
    agreement: float | None = None,
    allow_slower: bool = False,
) -> Export:
    """Export a classifier or an encoder to a file for another runtime, and verify it.

    The file takes 8-bit frames (B, T, H, W, C) of the model's size, normalises them inside, and says itself what its
    classes are and how clips are chosen. Any number of clips goes through at once. The report, `Verification`, lies
    beside it.

        >>> done = export("run/model", "torch", "exported", allow_slower=True)
        >>> done.path.name, done.verification.top1_agreement
        ('model.pt2', 1.0)

    Args:
        model: directory, weights file, or id on the Hugging Face Hub.
        to: "openvino", "onnx" or "torch" (a program of ``torch.export``).
        out: directory to write to; None is that of the model, or a new one named after it and the target.
        precision: "float32", "float16" or "bfloat16", or "int8", which needs ``data``.
        task: "classification" or "encoder"; None is what the model is for.
        data: videos to verify with, and to calibrate int8 with: a folder, a manifest, a list. None takes made clips.
        source_size: (height, width) of the video's frames, to resize and crop them inside the file as well.
        calibration_clips: how many clips int8 is calibrated with.
        verified_clips: how many clips both models are shown; others than those of the calibration, if there are enough.
        accuracy_aware: whether int8 leaves those layers in floating point that cost accuracy on the labels of
            ``data``; None does where there are labels of the model's classes.
        max_drop: with it, the loss of top-1 that is accepted, as a fraction.
        tolerance: largest difference of an output, as a fraction of the largest; None is that of the precision.
        agreement: fraction of clips with the same best class, at least; None is that of the precision.
        allow_slower: keep a file that is slower than its source on this machine.

    Raises:
        CheckpointError: if the model cannot be read, or the file exists already.
        DataError: if int8 has no clips, or none of the videos can be read.
        ExportError: if the exported model disagrees with its source, or is slower; nothing is written then.
        MissingPackageError: if a package that the target needs is not installed.
        ValueError: for a precision that the target does not have, and other settings that make no sense.
    """
    from videomae.export.module import FramesIn
    from videomae.models.videomae import MODELS
    from videomae.models.weights import open_checkpoint

    _check(to, precision, data, min(calibration_clips, verified_clips))
    path = _destination(model, to, out, precision)
    if not is_utf8(os.path.abspath(path)):
        raise ValueError(f"exported files need a path in UTF-8, which {path} is not. Name another --out.")
    chosen = task or ("classification" if open_checkpoint(model).task == "classification" else "encoder")
    opened = open_model(model, MODELS[chosen], device="cpu")
    source: PretrainedModel = opened.model.eval()
    card = ModelCard(chosen, precision, source.config, opened.processor, source_size)
    calibration, clips = _choose_clips(card, data, calibration_clips, verified_clips)
    if accuracy_aware and calibration.labels is None:
        raise DataError("accuracy_aware needs a label of one of the model's classes for every video of the data.")
    labels = None if accuracy_aware is False else calibration.labels
    with tempfile.TemporaryDirectory(prefix=".export-", dir=_existing_parent(path)) as folder:
        made = Path(folder) / path.name
        module = FramesIn(source, opened.processor, source_size=source_size).eval()
        quantised_by = Calibration(calibration.frames, labels, max_drop) if precision == "int8" else None
        TARGETS[to](module, card, made, quantised_by)
        exported = open_exported(made, chosen)
        if exported is None:
            raise CheckpointError(f"{made.name} is no exported file.")
        verification = verify(
            (TorchEngine if source_size is None else ProcessedEngine)(source, opened.processor, dtype=source.dtype),
            exported,
            clips.frames,
            clips=clips.source,
            source_bytes=sum(p.numel() * p.element_size() for p in source.parameters()),
        )
        standard = TOLERANCES[precision]
        limits = Tolerance(
            standard.difference + (ROUNDING if source_size else 0.0) if tolerance is None else tolerance,
            standard.agreement if agreement is None else agreement,
        )
        verification.check(limits, allow_slower=allow_slower, path=path)
        del exported  # some systems move no open files
        about = {
            "source": str(model),
            "target": to,
            "precision": precision,
            "task": chosen,
            "tolerance": limits.difference,
        }
        if quantised_by is not None:
            how = "accuracy-aware" if labels is not None else "post-training"
            about["quantisation"] = f"{how}, calibrated with {calibration.source}"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_report(verification, about, path)
        for file in sorted(Path(folder).iterdir(), key=lambda file: file.name == path.name):  # what belongs to it first
            os.replace(file, path.with_name(file.name))
    root = path.parents[len(Path(FORMATS[to].files[precision]).parts) - 1]
    for name, part in ((CONFIG_NAME, source.config), ("preprocessor_config.json", opened.processor)):
        if not (root / name).exists():
            part.save_pretrained(root)
    return Export(path, card, verification)


def _check(to: str, precision: str, data: DataSource | None, fewest: int) -> None:
    if to not in FORMATS:
        raise ValueError(f"there is no target {to!r}{nearest(to, FORMATS)}. Known: {', '.join(FORMATS)}.")
    kind = FORMATS[to]
    if precision not in kind.files:
        raise ValueError(f"{kind.title} has no precision {precision!r} here: use one of {', '.join(kind.files)}.")
    if precision == "int8" and data is None:
        raise DataError(
            "int8 is calibrated with clips: name a folder or list of videos like those it will see (--data)."
        )
    if fewest < 1:
        raise ValueError(f"calibration_clips and verified_clips must be at least 1, got {fewest}.")
    require_writer(to, quantized=precision == "int8")


def _destination(model: str | Path, to: str, out: str | Path | None, precision: str) -> Path:
    """Return the file to write."""
    if out is None:
        out = model if Path(model).is_dir() else f"{Path(model).stem}-{to}"
    path = Path(out) / FORMATS[to].files[precision]
    if path.exists():
        raise CheckpointError(f"{path} exists already: remove it, or name another directory to write to.")
    return path


def _existing_parent(path: Path) -> Path:
    """Return the nearest folder above that exists: on the same disk as the path, so that files can be moved there."""
    return next(folder for folder in path.absolute().parents if folder.is_dir())


def _choose_clips(
    card: ModelCard, data: DataSource | None, calibration_clips: int, verified_clips: int
) -> tuple[Clips, Clips]:
    """Return the clips to calibrate with, and those to verify with."""
    if data is None:
        made = made_clips(card)
        return made, made
    count = verified_clips + (calibration_clips if card.precision == "int8" else 0)
    found = read_samples(read_data(data)[0], card, count)
    return split(found, verified_clips) if card.precision == "int8" else (found, found)
