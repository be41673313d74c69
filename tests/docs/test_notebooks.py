"""The notebooks of docs/ run from top to bottom, in a folder in which quickstart has run."""

import shutil
import warnings
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "docs" / "notebooks").glob("*.py"))


@pytest.fixture
def folder(finished_quickstart, tmp_path, monkeypatch):
    shutil.copytree(finished_quickstart, tmp_path / "quickstart")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda file: file.stem)
def test_the_notebook_runs(notebook, folder):
    with warnings.catch_warnings():
        warnings.simplefilter("default")  # as they are for readers
        exec(compile(notebook.read_text("utf-8"), notebook, "exec"), {"__name__": "notebook"})


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda file: file.stem)
def test_the_notebook_begins_with_its_title_and_says_what_each_step_is_for(notebook):
    text = notebook.read_text("utf-8")
    assert text.startswith("# %% [markdown]\n# # ")
    assert text.count("# %% [markdown]\n") >= 3


def test_the_list_of_notebooks_names_all():
    listed = (NOTEBOOKS[0].parent / "index.md").read_text("utf-8")
    assert [file.stem for file in NOTEBOOKS if f"({file.stem}.md)" not in listed] == []
