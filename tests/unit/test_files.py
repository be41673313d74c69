import json

import pytest

from videomae.files import atomic_write, write_json


def test_a_file_appears_whole_with_its_folders(tmp_path):
    path = tmp_path / "a" / "b" / "weights.bin"
    with atomic_write(path) as temporary:
        temporary.write_bytes(b"whole")
        assert not path.exists()
        assert temporary.parent == path.parent
        assert temporary.suffix == ".bin"
    assert path.read_bytes() == b"whole"
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "weights.bin"
    path.write_bytes(b"old")

    def fail_half_way():
        with atomic_write(path) as temporary:
            temporary.write_bytes(b"ha")
            raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        fail_half_way()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "weights.bin"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_json_is_sorted_and_readable_by_people(tmp_path):
    write_json(tmp_path / "config.json", {"b": 1, "a": {"label": "tāi chī"}})
    text = (tmp_path / "config.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"a": {"label": "tāi chī"}, "b": 1}
    assert text.index('"a"') < text.index('"b"')
    assert "tāi chī" in text


def test_a_place_that_cannot_be_written_to_is_named_as_it_was_given(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(
        OSError, match=r"cannot write .*file/a\.json \(.*\): correct the rights, or name another place\."
    ):
        write_json(tmp_path / "file" / "a.json", {})
    (tmp_path / "folder").mkdir()

    def write_where_the_folder_is_gone():
        with atomic_write(tmp_path / "folder" / "b.json") as temporary:
            (tmp_path / "folder").rmdir()
            temporary.write_text("{}")

    with pytest.raises(FileNotFoundError, match=r"cannot write .*folder/b\.json \(No such file or directory\)"):
        write_where_the_folder_is_gone()
