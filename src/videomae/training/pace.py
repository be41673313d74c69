"""How fast a run goes through its schedule: as many steps as planned, or fewer where its time is limited.

With a limit of time a step of the optimiser moves the run on by one step of the schedule or by more, so that the
schedule, and with it the learning rate's fall to its end, is through when the time is. How fast steps are is measured
all the while. What was decided is written down, and a run that was stopped goes on as it was decided.
"""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from videomae.errors import CheckpointError
from videomae.files import atomic_write
from videomae.training.checkpoint import RunState
from videomae.training.devices import on_main_process

if TYPE_CHECKING:
    from accelerate import Accelerator

PACE_NAME = "pace.jsonl"
DECISIONS = 100  # in a run
STEPS_MEASURED = 2  # at least, for a decision
STEPS_TOGETHER = 10  # between the steps at which several processes decide


class Decision(NamedTuple):
    """From a step on, how far each step moves the run.

    Attributes:
        step: of the optimiser, from 0.
        place: in the schedule, at this step.
        stride: steps of the schedule for each step from here on, at least 1.
        seconds: that the run had taken by then.
    """

    step: int
    place: float
    stride: float
    seconds: float


class Pace:
    """Tells where in its schedule a run is.

    Args:
        folder: the run directory, in which decisions are written down.
        accelerator: knows the main process, which decides for all.
        steps: of the schedule.
        budget: seconds for all steps, with what happens between them; None is no limit.
        done: what the run goes on from.

    Raises:
        CheckpointError: if decisions cannot be read or written.
    """

    def __init__(
        self, folder: Path, accelerator: "Accelerator", *, steps: int, budget: float | None, done: RunState
    ) -> None:
        self.steps, self.budget, self._accelerator = steps, budget, accelerator
        self._file = folder / PACE_NAME
        self._decisions = [Decision(0, 0.0, 1.0, 0.0)]
        if budget is not None:
            self._decisions += on_main_process(self._read) if done.step else []
            if accelerator.is_main_process:
                self._write(self._decisions[1:])
        self._began = self._measured_from = time.perf_counter()
        self._before, self._measured_at = done.seconds, done.step

    def place(self, step: int) -> float:
        """Return the step of the schedule, from 0, that a step of the optimiser stands for; ``steps`` is the end."""
        if self.budget is None:
            return step
        known = self._known(step)
        return min(known.place + (step - known.step) * known.stride, float(self.steps))

    @property
    def seconds(self) -> float:
        """What the run took up to now; what a killed one did after its last checkpoint does not count."""
        return self._before + time.perf_counter() - self._began

    def skip_pause(self) -> None:
        """Do not count what was between two steps, such as a validation, as the time of steps."""
        self._measured_from, self._measured_at = time.perf_counter(), -1

    def after_step(self, step: int) -> None:
        """Take note of the time, and decide anew now and then; every process calls this with the steps done."""
        if self.budget is None or step < self._decisions[-1].step or self.place(step) >= self.steps:
            return
        if self._measured_at < 0:
            self._measured_at = step
        steps = step - self._measured_at
        alone = self._accelerator.num_processes == 1
        if steps < STEPS_MEASURED or (not alone and step % STEPS_TOGETHER):
            return
        decision = None
        if self._accelerator.is_main_process:
            decision = self._decide(step, (time.perf_counter() - self._measured_from) / steps)
        if not alone:
            from accelerate.utils import broadcast_object_list

            decision = broadcast_object_list([decision])[0]
        if decision is not None:
            self._decisions.append(Decision(*decision))
            self._measured_from, self._measured_at = time.perf_counter(), step

    def _decide(self, step: int, step_seconds: float) -> Decision | None:
        """Return how far a step moves the run from here on, or None while the last decision is young."""
        assert self.budget is not None
        if self.seconds - self._decisions[-1].seconds < self.budget / DECISIONS and len(self._decisions) > 1:
            return None
        place = self.place(step)
        left = max((self.budget - self.seconds) / step_seconds, 1.0)
        decision = Decision(step, place, max((self.steps - place) / left, 1.0), self.seconds)
        self._write([*self._decisions[1:], decision])
        return decision

    def _write(self, decisions: list[Decision]) -> None:
        try:
            with atomic_write(self._file) as temporary:
                temporary.write_text("".join(json.dumps(decision) + "\n" for decision in decisions), encoding="utf-8")
        except OSError as error:
            raise CheckpointError(f"cannot write {self._file} ({error}): make room, or correct the rights.") from error

    def _known(self, step: int) -> Decision:
        return next(known for known in reversed(self._decisions) if known.step <= step)

    def _read(self) -> list[Decision]:
        if not self._file.exists():
            return []
        try:
            return [Decision(*json.loads(line)) for line in self._file.read_text(encoding="utf-8").splitlines()]
        except (OSError, ValueError, TypeError) as error:
            raise CheckpointError(
                f"cannot read {self._file} ({error}): remove it to let the rest of the run find its pace anew."
            ) from error
