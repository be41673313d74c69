"""How errors read: they end alike, and a package that is missing is one of ours."""

import ast
from pathlib import Path

import pytest

import videomae
from videomae.errors import MissingPackageError, VideoMAEError
from videomae.packages import require

SOURCE = Path(videomae.__file__).parent
NOT_SENTENCES = {"AttributeError", "KeyError", "SystemExit", "StopIteration"}  # for programs


def last_pieces(text):
    """Return the literals that the text of an error may end in."""
    if isinstance(text, ast.BinOp):
        return last_pieces(text.right)
    if isinstance(text, ast.IfExp):
        return last_pieces(text.body) + last_pieces(text.orelse)
    if isinstance(text, ast.JoinedStr):
        return last_pieces(text.values[-1])
    return [text.value] if isinstance(text, ast.Constant) and isinstance(text.value, str) else []


@pytest.mark.parametrize("file", sorted(SOURCE.rglob("*.py")), ids=lambda file: str(file.relative_to(SOURCE)))
def test_every_error_text_ends_like_a_sentence(file):
    raised = (node.exc for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, ast.Raise))
    calls = [call for call in raised if isinstance(call, ast.Call) and call.args]
    texts = [call.args[0] for call in calls if ast.unparse(call.func) not in NOT_SENTENCES]
    assert [piece for text in texts for piece in last_pieces(text) if not piece.rstrip().endswith((".", "?"))] == []


def test_a_missing_package_is_an_error_of_ours_that_says_what_to_install():
    with pytest.raises(
        MissingPackageError, match=r"needs snow, which is not .*pip install 'videomae\[ski\]'\."
    ) as error:
        require("no_such_package", extra="ski", purpose="skiing needs snow")
    assert isinstance(error.value, VideoMAEError)
    assert isinstance(error.value, ImportError)
    require("json", extra="ski", purpose="skiing needs snow")
