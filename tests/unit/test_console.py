import json

import pytest

from videomae import console


def test_notes_go_beside_the_output_and_names_are_shown_as_they_are(capsys):
    console.say(["a [b] c", "d"])
    console.output().print("result")
    out, err = capsys.readouterr()
    assert err == "a [b] c\nd\n"
    assert out == "result\n"


def test_an_object_is_one_line_of_json(capsys):
    console.print_json({"name": "Füße", "n": 1})
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert "Füße" in out
    assert json.loads(out) == {"name": "Füße", "n": 1}


def test_a_progress_bar_is_moved_by_what_it_yields_and_leaves_nothing_in_the_output(capsys):
    for shown in (True, False):
        with console.progress_bar("looking", shown=shown) as progress:
            progress(1, 2)
            progress(2, 2)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("terminal", [True, False])
def test_work_of_unknown_length_is_shown_on_a_terminal_only(terminal, monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR" if terminal else "NO_COLOR", "1")
    for shown in (True, False):
        with console.working("thinking", shown=shown):
            pass
        out, err = capsys.readouterr()
        assert out == ""
        assert ("thinking ..." in err) == (terminal and shown)
