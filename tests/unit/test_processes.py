import os
import subprocess
import sys

import pytest

from videomae import processes

NAMES = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
SRUN = ("SLURM_STEP_TASKS_PER_NODE", "SLURM_CPUS_ON_NODE")


def test_without_a_launcher_there_is_one_process(monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    assert (processes.world_size(), processes.rank(), processes.local_rank()) == (1, 0, None)
    assert processes.local_world_size(3) == 3


def test_a_launcher_says_which_process_this_is(monkeypatch):
    for name, value in zip(NAMES, ("8", "5", "1", "4"), strict=True):
        monkeypatch.setenv(name, value)
    assert (processes.world_size(), processes.rank(), processes.local_rank()) == (8, 5, 1)
    assert processes.local_world_size(3) == 4


@pytest.mark.parametrize(("before", "after"), [({}, "passive"), ({"OMP_WAIT_POLICY": "active"}, "active")])
def test_threads_of_a_command_do_not_spin_unless_asked_to(before, after):
    code = (
        "import os, sys; from videomae import cli; cli.run = lambda arguments: 'torch' in sys.modules\n"
        "try: cli.main(['x'])\nexcept SystemExit as end: print(end.code, os.environ['OMP_WAIT_POLICY'])"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"} | before
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", after]


@pytest.mark.parametrize(
    ("quota", "expected"), [("max 100000", 12), ("350000 100000", 3), ("1000 100000", 1), (None, 12)]
)
def test_processors_are_those_that_this_process_may_use(monkeypatch, tmp_path, quota, expected):
    """A scheduler binds a process to some, and a container has a share of their time."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(12)), raising=False)
    monkeypatch.setattr(processes, "_QUOTA", tmp_path / "cpu.max")
    if quota is not None:
        (tmp_path / "cpu.max").write_text(quota + "\n")
    assert processes.processors() == expected


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, 3),  # of 8 processes of which nobody knows where they are
        ({"LOCAL_WORLD_SIZE": "4"}, 6),
        ({"SLURM_STEP_TASKS_PER_NODE": "2(x4)", "SLURM_CPUS_ON_NODE": "24"}, 12),
        ({"SLURM_STEP_TASKS_PER_NODE": "2(x4)", "SLURM_CPUS_ON_NODE": "48"}, 24),  # bound to its own
        ({"LOCAL_WORLD_SIZE": "100"}, 1),
    ],
)
def test_processes_share_the_processors_of_their_machine(monkeypatch, environment, expected):
    for name in (*NAMES, *SRUN):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(processes, "processors", lambda: 24)
    assert processes.own_processors(8) == expected
