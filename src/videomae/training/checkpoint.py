"""Checkpoints to go on from: written aside and renamed when whole, so that a killed run leaves the old ones intact."""

import dataclasses
import os
import pickle
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError

from videomae.errors import CheckpointError
from videomae.files import write_json
from videomae.hub import read_json

if TYPE_CHECKING:
    from accelerate import Accelerator

_STATE = "state.json"


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
    """

    step: int = 0
    bad_steps: int = 0
    bad_in_row: int = 0
    best_step: int | None = None
    best_score: float | None = None
    waited: int = 0


class Checkpoints:
    """The checkpoints of a run, ``step-00000500`` and so on.

    Args:
        folder: of the checkpoints; made when the first one is written.
        accelerator: what is saved: its prepared model, optimiser, loss scaler and registered objects.
        keep_last: how many of the newest stay, beside the best one.
    """

    def __init__(self, folder: Path, accelerator: "Accelerator", *, keep_last: int) -> None:
        if keep_last < 1:
            raise ValueError(f"run.keep_last must be at least 1, got {keep_last}.")
        self.folder = folder
        self.accelerator = accelerator
        self.keep_last = keep_last

    def steps(self) -> list[int]:
        """Return the steps that there are checkpoints of, in order."""
        return list_steps(self.folder)

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
            self.accelerator.save_state(str(aside))
            self.accelerator.wait_for_everyone()
            if main:
                write_json(aside / _STATE, dataclasses.asdict(state))
                _flush_tree(aside)
                aside.rename(final)
                _flush(self.folder)
                self._remove_old(state)
        except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors have errors of their own
            shutil.rmtree(aside, ignore_errors=True)
            there = self.steps()
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
            self.accelerator.load_state(str(path))
            return RunState(**read_json(path / _STATE))
        except (
            OSError, EOFError, RuntimeError, ValueError, TypeError, LookupError, AssertionError,
            pickle.UnpicklingError, SafetensorError,
        ) as error:  # fmt: skip
            raise CheckpointError(
                f"cannot read the checkpoint {path} ({type(error).__name__}: {error}). If it is of this very run, "
                "it is damaged: move it away to go on from an older one."
            ) from error

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:08}"

    def _remove_old(self, state: RunState) -> None:
        for step in self.steps()[: -self.keep_last]:
            if step != state.best_step:
                shutil.rmtree(self._path(step))


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
