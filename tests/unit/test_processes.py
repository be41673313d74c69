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
