"""A run goes through its schedule in its time, however fast the steps are, and goes on as it was decided."""

from types import SimpleNamespace

import pytest

from training_runs import run, start, write_data
from videomae.errors import CheckpointError
from videomae.training import pace as pace_module
from videomae.training.checkpoint import RunState, list_steps
from videomae.training.metrics_log import read_metrics
from videomae.training.pace import PACE_NAME, Pace

ALONE = SimpleNamespace(is_main_process=True, num_processes=1, wait_for_everyone=lambda: None)


class Clock:
    """Stands in for the module ``time``."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(pace_module, "time", clock)
    return clock


def walk(pace, clock, step_seconds, *, first=0, last=10**9):
    """Run steps to the end, or up to ``last``, and return the places that they stood for."""
    places, step = [], first
    while pace.place(step) < pace.steps and step < last:
        places.append(pace.place(step))
        clock.now += step_seconds(pace.place(step) / pace.steps)
        step += 1
        pace.after_step(step)
    return places


@pytest.mark.parametrize(
    "step_seconds",
    [
        lambda done: 0.5,
        lambda done: 0.05 if done < 0.87 else 0.15,  # a part of the steps takes longer
        lambda done: 0.02 if done < 0.5 else 0.5,  # another process begins
        lambda done: 30.0,
    ],
)
def test_the_schedule_ends_with_the_time(tmp_path, clock, step_seconds):
    pace = Pace(tmp_path, ALONE, steps=10_000, budget=600, done=RunState())
    places = walk(pace, clock, step_seconds)
    assert clock.now == pytest.approx(600, rel=0.1)
    assert places == sorted(places)
    assert places[-1] > 9000  # so that the learning rate has fallen


def test_a_run_with_time_enough_takes_every_step(tmp_path, clock):
    pace = Pace(tmp_path, ALONE, steps=50, budget=600, done=RunState())
    assert walk(pace, clock, lambda done: 1.0) == list(range(50))


def test_pauses_are_of_the_budget_but_not_of_the_steps(tmp_path, clock):
    pace = Pace(tmp_path, ALONE, steps=10_000, budget=600, done=RunState())
    step = 0
    while pace.place(step) < pace.steps:
        clock.now += 1.0
        step += 1
        pace.after_step(step)
        if step % 50 == 0:
            clock.now += 30.0
            pace.skip_pause()
    assert clock.now == pytest.approx(600, rel=0.1)


def test_a_run_goes_on_as_it_was_decided(tmp_path, clock):
    whole = walk(Pace(tmp_path, ALONE, steps=1000, budget=100, done=RunState()), clock, lambda done: 1.0)
    decided = (tmp_path / PACE_NAME).read_text()
    clock.now = 7000.0
    again = Pace(tmp_path, ALONE, steps=1000, budget=100, done=RunState(step=40, seconds=40.0))
    replayed = walk(again, clock, lambda done: 5.0, first=40)
    assert len(whole) > 95
    assert replayed[:50] == whole[40:90]
    assert (tmp_path / PACE_NAME).read_text().startswith(decided[: len(decided) // 2])


def test_a_fresh_run_forgets_what_was_decided_before(tmp_path, clock):
    walk(Pace(tmp_path, ALONE, steps=1000, budget=100, done=RunState()), clock, lambda done: 1.0)
    slow = walk(Pace(tmp_path, ALONE, steps=1000, budget=100, done=RunState()), clock, lambda done: 10.0)
    assert len(slow) < 13


def test_a_damaged_record_is_named(tmp_path):
    (tmp_path / PACE_NAME).write_text("[1, 2")
    with pytest.raises(CheckpointError, match=r"pace.jsonl .* remove it"):
        Pace(tmp_path, ALONE, steps=10, budget=1, done=RunState(step=1))


KILL = (
    "import os; from videomae.training.metrics_log import MetricsLog as C; "
    "C.advance = lambda self, reached: reached > 1500 and os.kill(os.getpid(), 9)"
)


def test_a_killed_run_with_a_budget_goes_on_to_the_end_of_its_schedule(tmp_path):
    data = write_data(tmp_path)
    options = ("--run.budget", "3s", "--run.epochs", "1000", "--run.save-every", "2", "--optim.name", "muon")
    start("pretrain", data, tmp_path / "run", *options, line=KILL)
    saved = list_steps(tmp_path / "run" / "checkpoints")[-1]
    decided = (tmp_path / "run" / PACE_NAME).read_text().splitlines()
    result = run("pretrain", data, tmp_path / "run", *options)
    assert saved < result.steps < 1500  # of 3000
    assert (tmp_path / "run" / PACE_NAME).read_text().splitlines()[: len(decided)] == decided
    rates = [line["lr"] for line in read_metrics(tmp_path / "run") if "lr" in line]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.1 * rates[0]
    assert result.seconds < 6
