"""The engine for OpenVINO's files, on Intel's processors and GPUs. It needs no PyTorch."""

from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from videomae.errors import CheckpointError
from videomae.inference.engines.base import METADATA_KEY, ExportedModel, ModelCard

# What is computed in; by itself OpenVINO takes bfloat16 on many processors, also where that is slower.
_HINTS = {"float32": "f32", "float16": "f32", "bfloat16": "bf16", "int8": "f32"}


class OpenVINOEngine(ExportedModel):
    """A file of OpenVINO, compiled when it is first needed.

    Args:
        path: the .xml, beside its .bin.
        device: a name of OpenVINO, such as "cpu" or "gpu"; None is the CPU.
        dtype: "bfloat16" computes in it whatever the file holds; None is as exported.

    Raises:
        CheckpointError: if the file cannot be read.
        ValueError: if the device is not available, or OpenVINO does not compute in such a dtype.
    """

    name: ClassVar[str] = "openvino"

    def __init__(self, path: Path, *, device: str | None = None, dtype: str | None = None) -> None:
        import openvino

        self._core = openvino.Core()
        self._device = (device or "cpu").upper()
        available = self._core.available_devices
        if self._device.split(".")[0].split(":")[0] not in {*available, "AUTO"}:
            raise ValueError(f"OpenVINO has no device {device!r} on this machine: use one of {', '.join(available)}.")
        try:
            self._model = self._core.read_model(path)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise CheckpointError(f"OpenVINO cannot read {path}: {reason} Export it again.") from error
        about = self._model.get_rt_info(METADATA_KEY).astype(str) if self._model.has_rt_info(METADATA_KEY) else None
        super().__init__(path, ModelCard.from_json(about, path))
        if dtype not in (None, "auto", "float32", "bfloat16"):
            raise ValueError(f"OpenVINO computes in float32 or bfloat16, got {dtype!r}: leave it out.")
        self._hint = "bf16" if dtype == "bfloat16" else _HINTS[self.card.precision]

    def load(self) -> None:
        """Compile the file for this machine."""
        _ = self._compiled

    @cached_property
    def _compiled(self) -> Any:
        hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": self._hint}
        return self._core.compile_model(self._model, self._device, hints)

    def run(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Run the model on frames that fit it."""
        return self._compiled(frames)[0].copy()  # the next call writes to the same memory
