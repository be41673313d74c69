"""Folders, manifests and official lists become the same thing; whatever is wrong is named with its line."""

import json
from pathlib import Path

import pytest

from data_lists import files, named, write
from support import shared_dir
from videomae.data.manifest import Sample, read_manifest
from videomae.errors import DataError

# ---- folders


def test_split_folders_beside_others_are_not_taken_for_classes(tmp_path):
    files(tmp_path, "train/cat/a.mp4", "test/cat/b.mp4", "samples/c.mp4")
    with pytest.raises(DataError, match=r"folders for splits, and beside them \['samples'\]"):
        read_manifest(tmp_path)


def test_names_of_ucf101_and_kinetics_tell_the_group(tmp_path):
    files(tmp_path, "a/v_Archery_g01_c02.avi", "a/v_Archery_g01_c03.avi", "b/-abcdefghij_000012_000022.mp4", "b/x.mp4")
    groups = [sample.group for sample in read_manifest(tmp_path)]
    assert groups == ["Archery_g01", "Archery_g01", "-abcdefghij", None]


def test_a_folder_per_class_is_a_data_set(tmp_path):
    files(tmp_path, "run/a.mp4", "run/deep/b.MKV", "jump/a.mp4", "jump/.hidden.mp4", ".cache/x.mp4", "run/notes.txt")
    manifest = read_manifest(tmp_path)
    assert named(manifest) == {"jump/a.mp4": "jump", "run/a.mp4": "run", "run/deep/b.MKV": "run"}
    assert manifest.classes == ("jump", "run")
    assert manifest.samples[0].file == tmp_path / "jump/a.mp4"


def test_split_folders_become_splits(tmp_path):
    files(tmp_path, "train/run/a.mp4", "train/jump/b.mp4", "validation/run/c.mp4", "test/jump/d.mp4")
    manifest = read_manifest(tmp_path)
    assert manifest.splits == ("test", "train", "val")
    assert manifest.classes == ("jump", "run")
    assert named(manifest.split("val")) == {"validation/run/c.mp4": "run"}


def test_a_flat_folder_has_no_labels(tmp_path):
    manifest = read_manifest(files(tmp_path, "a.mp4", "b.webm"))
    assert named(manifest) == {"a.mp4": None, "b.webm": None}
    assert manifest.classes == ()


def test_loose_videos_beside_class_folders_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"beside them 1 videos without one, such as 'c.mp4'"):
        read_manifest(files(tmp_path, "run/a.mp4", "c.mp4"))


def test_links_are_followed_but_not_in_circles(tmp_path):
    files(tmp_path / "data", "run/a.mp4")
    files(tmp_path / "more", "b.mp4")
    (tmp_path / "data" / "walk").symlink_to(tmp_path / "more")
    (tmp_path / "data" / "run" / "up").symlink_to(tmp_path / "data")
    assert named(read_manifest(tmp_path / "data")) == {"run/a.mp4": "run", "walk/b.mp4": "walk"}


def test_a_folder_without_videos_is_refused(tmp_path):
    with pytest.raises(DataError, match="names no video"):
        read_manifest(files(tmp_path, "run/a.txt"))


def test_a_missing_path_is_refused(tmp_path):
    with pytest.raises(DataError, match="there is no"):
        read_manifest(tmp_path / "nothing")


def test_an_unknown_format_names_the_nearest(tmp_path):
    with pytest.raises(ValueError, match="ucf101"):
        read_manifest(files(tmp_path, "a.mp4"), format="ucf10")


# ---- CSV


def test_a_manifest_keeps_every_column(tmp_path):
    text = 'path,label,split,start,end,group,camera\n"my, clip é.mp4",run,train,1.5,4,src1,roof\nb.mp4,jump,val,,,,\n'
    first, second = read_manifest(write(tmp_path / "m.csv", text))
    assert first == Sample(
        "my, clip é.mp4", tmp_path / "my, clip é.mp4", 1, "train", 1.5, 4.0, "src1", {"camera": "roof"}
    )
    assert (second.label, second.start, second.end, second.group, second.extra) == (0, None, None, None, {"camera": ""})


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path):
    path = write(tmp_path / "m.csv", "path,label\r\na b.mp4,x\r\nc.mp4,y\r\n", encoding="utf-8-sig")
    assert named(read_manifest(path)) == {"a b.mp4": "x", "c.mp4": "y"}


def test_a_folder_with_a_manifest_is_read_from_it(tmp_path):
    files(tmp_path, "run/a.mp4", "run/b.mp4")
    write(tmp_path / "manifest.csv", "path,label\nrun/a.mp4,other\n")
    assert named(read_manifest(tmp_path)) == {"run/a.mp4": "other"}


def test_a_manifest_without_labels_is_for_pretraining(tmp_path):
    assert named(read_manifest(write(tmp_path / "m.csv", "path\na.mp4\n"))) == {"a.mp4": None}


def test_number_labels_keep_their_order(tmp_path):
    manifest = read_manifest(write(tmp_path / "m.csv", "path,label\na.mp4,10\nb.mp4,9\n"))
    assert manifest.classes == ("9", "10")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\na.mp4,x\n", r"no column 'path', only \['file', 'label'\]"),
        ("a.mp4,x\nb.mp4,y\n", r"no column 'path'"),
        ("path,label\na.mp4,x\n,y\n", r"line 3: the path is empty"),
        ("path,label\na.mp4,x\nb.mp4,\n", r"line 3: the label is empty"),
        ("path,label\na.mp4,x\na.mp4,y\n", r"names 1 videos more than once, such as \['a.mp4'\]"),
        ("path,start\na.mp4,soon\n", r"line 2: start 'soon' is not a time"),
        ("path,start\na.mp4,-1\n", r"line 2: start '-1' is not a time"),
        ("path,end\na.mp4,nan\n", r"line 2: end 'nan' is not a time"),
        ("path,start,end\na.mp4,5,5\n", r"line 2: end 5.0 is not after start 5.0"),
        ("path,label\nmy, clip.mp4,x\n", r"line 2: more fields than columns"),
        ('path,label\n"a.mp4"b,x\n', r"line 2: .*quotes"),
        ("path,label,label\na.mp4,x,y\n", r"names a column twice"),
        ("path, label\na.mp4, x\n", r"names a column ' label': it must be 'label'"),
        ("path,Split\na.mp4,train\n", r"names a column 'Split': it must be 'split'"),
        ("path,label\n", r"names no video"),
    ],
)
def test_a_faulty_manifest_is_refused_with_its_line(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read_manifest(write(tmp_path / "m.csv", text))


def test_a_manifest_in_another_encoding_is_refused(tmp_path):
    with pytest.raises(DataError, match="UTF-8"):
        read_manifest(write(tmp_path / "m.csv", "path,label\né.mp4,x\n", encoding="latin-1"))


def test_a_single_video_is_not_taken_for_a_list(tmp_path):
    video = tmp_path / "a.mp4"
    video.write_bytes(b"\x00\xb7")
    with pytest.raises(DataError, match=r"a\.mp4 is a video. Give the folder"):
        read_manifest(video)


def test_a_manifests_labels_and_splits_are_stripped_and_splits_have_one_name(tmp_path):
    lines = "path,label,split\na.mp4,cat,Train\nb.mp4,cat ,validation\nc.mp4, dog,my split\n"
    manifest = read_manifest(write(tmp_path / "m.csv", lines))
    assert manifest.classes == ("cat", "dog")
    assert [sample.split for sample in manifest] == ["train", "val", "my split"]


# ---- official lists


def test_the_kinetics_list_finds_videos_by_their_official_names(tmp_path):
    files(tmp_path / "videos", "abseiling/---QUuC4vJs_000084_000094.mp4")
    text = "label,youtube_id,time_start,time_end,split\nabseiling,---QUuC4vJs,84,94,validate\n"
    text += '"air drumming",gone,0,10,val\n'
    manifest = read_manifest(write(tmp_path / "val.csv", text), videos=tmp_path / "videos")
    assert named(manifest) == {
        "abseiling/---QUuC4vJs_000084_000094.mp4": "abseiling",
        "gone_000000_000010.mp4": "air drumming",
    }
    first = manifest.samples[0]
    assert (first.split, first.group, first.start, first.extra["time_start"]) == ("val", "---QUuC4vJs", None, "84")
    with pytest.raises(DataError, match="none of the 2 videos"):
        read_manifest(tmp_path / "val.csv", videos=tmp_path / "elsewhere")


def test_the_something_something_list_takes_its_classes_from_the_templates(tmp_path):
    files(tmp_path, "videos/78687.webm", "videos/7.webm")
    entries = [{"id": "78687", "label": "holding potato", "template": "Holding [something] up"}]
    write(tmp_path / "labels.json", json.dumps({"Putting something": "0", "Holding something up": "1"}))
    write(tmp_path / "something-something-v2-train.json", json.dumps(entries))
    manifest = read_manifest(tmp_path / "something-something-v2-train.json", videos=tmp_path / "videos")
    assert named(manifest) == {"78687.webm": "Holding something up"}
    assert manifest.classes == ("Putting something", "Holding something up")
    assert manifest.splits == ("train",)
    write(tmp_path / "something-something-v2-test.json", json.dumps([{"id": "7"}]))
    assert named(read_manifest(tmp_path / "something-something-v2-test.json", videos=tmp_path / "videos")) == {
        "7.webm": None
    }


def test_the_ucf101_lists_know_classes_splits_and_groups(tmp_path):
    write(tmp_path / "classInd.txt", "1 Zebra\r\n2 ApplyEyeMakeup\r\n")
    write(tmp_path / "trainlist01.txt", "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 2\nZebra/v_Zebra_g08_c02.avi 1\n")
    write(tmp_path / "testlist01.txt", "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi\n")
    manifest = read_manifest(tmp_path, videos="/data/ucf")
    assert manifest.classes == ("Zebra", "ApplyEyeMakeup")
    assert [(s.split, s.label, s.group) for s in manifest] == [
        ("train", 1, "v_ApplyEyeMakeup_g08"),
        ("train", 0, "v_Zebra_g08"),
        ("test", 1, "v_ApplyEyeMakeup_g01"),
    ]
    assert manifest.samples[0].file == Path("/data/ucf/ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi")
    assert len(read_manifest(tmp_path / "testlist01.txt")) == 1


def test_the_hmdb51_lists_leave_out_the_videos_of_other_folds(tmp_path):
    write(tmp_path / "brush_hair_test_split1.txt", "April_09_brush_hair.avi 1 \nb.avi 2 \nc.avi 0 \n")
    write(tmp_path / "wave_test_split1.txt", "d #1.avi 1 \n")
    manifest = read_manifest(tmp_path)
    assert named(manifest) == {
        "brush_hair/April_09_brush_hair.avi": "brush_hair",
        "brush_hair/b.avi": "brush_hair",
        "wave/d #1.avi": "wave",
    }
    assert [s.split for s in manifest] == ["train", "test", "train"]


def test_the_space_separated_lists_of_v1_are_read_from_the_right(tmp_path):
    path = write(tmp_path / "train.csv", "/data/my clip 3.mp4 2\n/data/b.mp4 0\n")
    manifest = read_manifest(path)
    assert named(manifest) == {"/data/my clip 3.mp4": "2", "/data/b.mp4": "0"}
    assert manifest.classes == ("0", "1", "2")
    assert manifest.samples[0].file == Path("/data/my clip 3.mp4")
    unlabelled = read_manifest(write(tmp_path / "pretrain.csv", "/data/my clip.mp4 0 -1\n/data/b 0 -1\n"))
    assert named(unlabelled) == {"/data/my clip.mp4": None, "/data/b": None}


def test_frame_folders_of_v1_lists_are_refused(tmp_path):
    with pytest.raises(DataError, match="line 1: '/data/frames' is a folder of 120 images"):
        read_manifest(write(tmp_path / "train.csv", "/data/frames 0 120\n"))


# ---- a real one


def test_the_gestures_are_read_with_their_splits():
    manifest = read_manifest(shared_dir("data") / "gestures17")
    assert (len(manifest), len(manifest.classes), manifest.splits) == (886, 17, ("train", "test"))
    assert all(s.file.is_file() for s in manifest)
