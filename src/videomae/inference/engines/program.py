"""The engine for programs of ``torch.export``: PyTorch, but none of this package's model code."""

from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from videomae.errors import CheckpointError
from videomae.inference.devices import choose_device
from videomae.inference.engines.base import METADATA_KEY, ExportedModel, ModelCard


class TorchProgramEngine(ExportedModel):
    """A program of ``torch.export``.

    Args:
        path: the .pt2 file.
        device: where to run; None takes a GPU if there is one.
        dtype: a program computes in what it was exported in; None or "auto".

    Raises:
        CheckpointError: if the file cannot be read.
        ValueError: if the device is not available, or another dtype is wanted.
    """

    name: ClassVar[str] = "torch"

    def __init__(self, path: Path, *, device: str | None = None, dtype: str | None = None) -> None:
        import torch

        self._device = choose_device(device)
        extra = {METADATA_KEY: ""}
        try:
            program = torch.export.load(path, extra_files=extra)
        except Exception as error:  # it raises what unzipping and parsing raise
            raise CheckpointError(f"PyTorch cannot read {path}: {error}. Export it again.") from error
        super().__init__(path, ModelCard.from_json(extra[METADATA_KEY] or None, path))
        if str(dtype).removeprefix("torch.") not in ("None", "auto", "float32", self.card.precision):
            raise ValueError(
                f"{path} computes in {self.card.precision}, got {dtype!r}: leave it out, or export with --precision."
            )
        if self._device.type != "cpu":
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, self._device)
        self._module = program.module()

    def run(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Run the model on frames that fit it."""
        import torch

        with torch.inference_mode():
            return self._module(torch.from_numpy(frames).to(self._device)).cpu().numpy()
