"""The engine for ONNX files, with ONNX Runtime. It needs no PyTorch."""

from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from videomae.errors import CheckpointError
from videomae.inference.engines.base import METADATA_KEY, ExportedModel, ModelCard

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "mps": "CoreMLExecutionProvider"}


class ONNXEngine(ExportedModel):
    """An ONNX file.

    Args:
        path: the file.
        device: "cpu", "cuda" or "mps"; None is the CPU.
        dtype: an ONNX file computes in what it was exported in; None or "auto".

    Raises:
        CheckpointError: if the file cannot be read.
        ValueError: if the device is not available, or another dtype is wanted.
    """

    name: ClassVar[str] = "onnx"

    def __init__(self, path: Path, *, device: str | None = None, dtype: str | None = None) -> None:
        import onnxruntime

        provider = PROVIDERS.get(device or "cpu")
        available = [name for name, p in PROVIDERS.items() if p in onnxruntime.get_available_providers()]
        if provider is None or (device or "cpu") not in available:
            raise ValueError(f"ONNX Runtime has no device {device!r} on this machine: use {' or '.join(available)}.")
        try:
            self._session = onnxruntime.InferenceSession(path, providers=[provider])
        except Exception as error:  # its classes are those of each failure, with no base of their own
            reason = str(error).strip().splitlines()[0]
            raise CheckpointError(f"ONNX Runtime cannot read {path}: {reason} Export it again.") from error
        about = self._session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
        super().__init__(path, ModelCard.from_json(about, path))
        if dtype not in (None, "auto", "float32", self.card.precision):
            raise ValueError(
                f"{path} computes in {self.card.precision}, got {dtype!r}: leave it out, or export with --precision."
            )

    def run(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Run the model on frames that fit it."""
        (found,) = self._session.run(None, {self._session.get_inputs()[0].name: frames})
        return found
