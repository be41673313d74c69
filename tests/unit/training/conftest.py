"""What tests of training share."""

import pytest
import torch


@pytest.fixture
def one_thread():
    """As in other processes of a test: sums over several threads may round differently."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
