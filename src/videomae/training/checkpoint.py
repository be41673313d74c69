"""Checkpoints to go on from: written aside and renamed when whole, so that a killed run leaves the old ones intact.

A checkpoint is model.safetensors, optimizer.safetensors, ema.safetensors where there is an average, and state.json, for
any strategy but DeepSpeed's. Reading one runs no code, whoever wrote it.
"""

import dataclasses
import math
import os
import pickle
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from videomae.errors import CheckpointError
from videomae.files import utf8_address, write_json
from videomae.hub import read_json
from videomae.processes import environment
from videomae.training.devices import on_main_process
from videomae.training.optim import Ema
from videomae.training.state_tensors import (
    Tensors,
    gathered,
    load_moments,
    load_weights,
    moments_of,
    weights_of,
)

if TYPE_CHECKING:
    from accelerate import Accelerator

_STATE, _MODEL, _OPTIMIZER, _EMA = "state.json", "model.safetensors", "optimizer.safetensors", "ema.safetensors"


@dataclasses.dataclass
class RunState:
    """Where a run is.

    With the weights and the optimiser's state this is all there is to it: data order, masks and dropout are functions
    of (seed, step).

    Attributes:
        step: optimiser steps that are done.
        bad_steps: how many of them were skipped.
        bad_in_row: how many of the last ones were skipped.
        best_step: the step of the best validation.
        best_score: its score.
        waited: validations since then.
        seconds: that the run took, without what was lost when it was killed.
    """

    step: int = 0
    bad_steps: int = 0
    bad_in_row: int = 0
    best_step: int | None = None
    best_score: float | None = None
    waited: int = 0
    seconds: float = 0.0


class Checkpoints:
    """The checkpoints of a run, ``step-00000500`` and so on.

    Args:
        folder: of the checkpoints; made when the first one is written.
        accelerator: knows the processes, and holds a loss scaler where there is one.
        model: as the accelerator has prepared it.
        optimizer: likewise.
        ema: the average of the weights, if there is one.
        keep_last: how many of the newest stay, beside the best one.
        describe: writes what the model is into the folder of a checkpoint, so that it can be loaded from there.
    """

    def __init__(
        self,
        folder: Path,
        accelerator: "Accelerator",
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        ema: Ema | None = None,
        *,
        keep_last: int,
        describe: Callable[[Path], None] | None = None,
    ) -> None:
        if keep_last < 1:
            raise ValueError(f"run.keep_last must be at least 1, got {keep_last}.")
        self.folder = folder
        self.accelerator = accelerator
        self.model, self.optimizer, self.ema = accelerator.unwrap_model(model), optimizer, ema
        self.keep_last = keep_last
        self.describe = describe

    def steps(self) -> list[int]:
        """Return the steps that there are checkpoints of, in order; every process calls this."""
        return on_main_process(partial(list_steps, self.folder))

    def save(self, state: RunState) -> None:
        """Write a checkpoint, then remove those that are no longer wanted; every process calls this.

        Raises:
            CheckpointError: if it cannot be written; the old ones are intact.
        """
        final = self._path(state.step)
        aside = final.with_name(f".{final.name}")
        main = self.accelerator.is_main_process
        try:
            if main:
                for left_over in self.folder.glob(".step-*"):
                    shutil.rmtree(left_over)
                aside.mkdir(parents=True)
            self.accelerator.wait_for_everyone()
            self._write(aside)
            self.accelerator.wait_for_everyone()
            if main:
                write_json(aside / _STATE, dataclasses.asdict(state) | self._numbers())
                if self.describe is not None:
                    self.describe(aside)
                _flush_tree(aside)
                aside.rename(final)
                _flush(self.folder)
                self._remove_old(state)
        except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors have errors of their own
            shutil.rmtree(aside, ignore_errors=True)
            there = list_steps(self.folder)
            raise CheckpointError(
                f"cannot write the checkpoint of step {state.step} to {self.folder}: {error}. "
                + (f"That of step {there[-1]} is intact. " if there else "There is none before it. ")
                + f"{_free_space(self.folder)} Make room, or correct the rights, and run the same command again."
            ) from error
        self.accelerator.wait_for_everyone()

    def load(self, step: int) -> RunState:
        """Load the checkpoint of a step into what the accelerator holds; every process calls this.

        Raises:
            CheckpointError: if it cannot be read.
        """
        path = self._path(step)
        try:
            return self._read(path)
        except (
            OSError, EOFError, RuntimeError, ValueError, TypeError, LookupError, AssertionError,
            pickle.UnpicklingError, SafetensorError,
        ) as error:  # fmt: skip
            reason = f"{type(error).__name__}: {str(error).rstrip('.')}"
            raise CheckpointError(
                f"cannot read the checkpoint {path} ({reason}). If it is of this very run, it is damaged: move it away "
                "to go on from an older one."
            ) from error

    @property
    def _is_deepspeed(self) -> bool:
        return self.accelerator.distributed_type == "DEEPSPEED"

    def _write(self, folder: Path) -> None:
        """Write all tensors; every process calls this."""
        if self._is_deepspeed:
            self.accelerator.save_state(str(folder))
            return
        self._write_file(folder / _MODEL, weights_of(self.model))
        self._write_file(folder / _OPTIMIZER, moments_of(self.model, self.optimizer))
        if self.ema is not None:
            self._write_file(folder / _EMA, self.ema.average)

    def _write_file(self, file: Path, tensors: Tensors) -> None:
        whole = gathered(tensors, keep=self.accelerator.is_main_process)
        if self.accelerator.is_main_process:
            with utf8_address(file) as address:
                save_file(whole, address, metadata={"format": "pt"})

    def _read(self, folder: Path) -> RunState:
        """Read everything into what the run holds, each process for itself."""
        content = read_json(folder / _STATE)
        updates, scaler = content.pop("ema_updates", 0), content.pop("loss_scaler", None)
        state = _checked(content)
        if self._is_deepspeed:
            with _plain_data_only():
                self.accelerator.load_state(str(folder))
            return state
        if not (folder / _OPTIMIZER).exists() and (old := sorted(folder.glob("*.bin")) + sorted(folder.glob("*.pkl"))):
            raise ValueError(
                f"{old[0].name} is of an earlier format, whose reading can run code. End the run with the version that "
                "began it, or name another --out."
            )
        load_weights(self.model, _tensors(folder / _MODEL))
        load_moments(self.model, self.optimizer, _tensors(folder / _OPTIMIZER))
        if self.ema is not None:
            self.ema.load_state_dict({"average": _tensors(folder / _EMA), "updates": updates})
        if self.accelerator.scaler is not None and scaler is not None:
            self.accelerator.scaler.load_state_dict(scaler)
        return state

    def _numbers(self) -> dict[str, Any]:
        """Return what is no tensor, beside the state of the run."""
        ema, scaler = self.ema, self.accelerator.scaler
        return ({} if ema is None else {"ema_updates": int(ema.updates)}) | (
            {} if scaler is None or self._is_deepspeed else {"loss_scaler": scaler.state_dict()}
        )

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:08}"

    def _remove_old(self, state: RunState) -> None:
        for step in list_steps(self.folder)[: -self.keep_last]:
            if step != state.best_step:
                shutil.rmtree(self._path(step))


def _tensors(file: Path) -> Tensors:
    with utf8_address(file) as address:
        return load_file(address)


def _checked(content: dict[str, Any]) -> RunState:
    """Make a state of the content of state.json.

    Raises:
        ValueError: if a value is no number of its kind.
    """
    for name, value in content.items():
        is_real = isinstance(value, float | int) and math.isfinite(value)
        is_score = is_real and (name == "best_score" or (name == "seconds" and value >= 0))
        is_count = type(value) is int and value >= 0
        if not (is_score or is_count or (name.startswith("best") and value is None)):
            raise ValueError(f"{name} must be a number of its kind, got {value!r}.")
    return RunState(**content)


@contextmanager
def _plain_data_only() -> Iterator[None]:
    """Let ``torch.load``, whoever calls it, read nothing but tensors, numbers and DeepSpeed's own records."""
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    records = [DynamicLossScaler, LossScaler, ZeroStageEnum, fragment_address]
    with environment("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "1"), torch.serialization.safe_globals(records):
        yield


def list_steps(folder: Path) -> list[int]:
    """Return the steps whose checkpoints lie in a folder, in order; half-written ones do not count."""
    if not folder.is_dir():
        return []
    found = (re.fullmatch(r"step-(\d+)", path.name) for path in folder.iterdir())
    return sorted(int(match[1]) for match in found if match)


def _flush_tree(folder: Path) -> None:
    for path in folder.rglob("*"):
        _flush(path)
    _flush(folder)


def _flush(path: Path) -> None:
    """Have a file or folder written to the disk itself, so that the rename does not overtake its content."""
    if path.is_dir() and os.name != "posix":  # Windows cannot open folders
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _free_space(folder: Path) -> str:
    """Say how much room the disk has."""
    place = next(path for path in (folder, *folder.parents) if path.exists())
    return f"{shutil.disk_usage(place).free / 1e9:.1f} GB are free there."
