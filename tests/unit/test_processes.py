import os
import subprocess
import sys

import pytest

from videomae import processes

NAMES = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


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
