"""A finished run of quickstart, as small as it may be, for all that begins with one."""

import pytest

from videomae.pipeline.quickstart import QuickstartSettings, quickstart

SMALL = {"videos_per_class": 4, "pretrain_epochs": 1, "finetune_epochs": 2}


@pytest.fixture(scope="session")
def finished_quickstart(tmp_path_factory):
    folder = tmp_path_factory.mktemp("begun") / "quickstart"
    quickstart(QuickstartSettings(out=folder, **SMALL))
    return folder
