import json
from importlib import metadata

import pytest

from videomae import cli
from videomae.pipeline import diagnosis


def test_it_says_what_is_installed_and_what_there_is(capsys):
    assert cli.run(["doctor", "--no-speed"]) == 0
    shown = capsys.readouterr().out
    for name in ("torch", "features", "cpu", "onnx", "pyav", "h264", "all that is always needed works"):
        assert name in shown


def test_a_program_is_told_the_same_with_how_fast_it_is(capsys, monkeypatch):
    monkeypatch.setenv("VIDEOMAE_TOKEN", "a secret")
    monkeypatch.setenv("VIDEOMAE_MAX_PIXELS", "1000000")
    assert cli.run(["doctor", "--json"]) == 0
    text = capsys.readouterr().out
    assert "secret" not in text
    found = json.loads(text)
    assert found["problems"] == []
    assert {package["name"] for package in found["packages"]} >= {"torch", "av", "tyro"}
    assert found["environment"]["VIDEOMAE_MAX_PIXELS"] == "1000000"
    assert found["codecs"] == dict.fromkeys([*diagnosis.CODECS, diagnosis.ENCODER], True)
    assert found["speed"].keys() == {"decoding_frames_per_s_256"} | {
        f"training_clips_per_s_{size}" for size in ("tiny_64", "small_112", "base_224")
    }
    assert all(value > 0 for value in found["speed"].values())


@pytest.mark.parametrize("version", [None, "0.1"])
def test_a_package_that_is_missing_or_too_old_is_a_problem(version, monkeypatch, capsys):
    real = metadata.version

    def installed(name):
        if name != "rich":
            return real(name)
        if version is None:
            raise metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(metadata, "version", installed)
    assert cli.run(["doctor", "--no-speed"]) == 1
    shown = capsys.readouterr().out
    assert f"problem: rich>=13 is needed, {version or 'none'} is installed: pip install 'rich>=13'." in shown


def test_without_the_encoder_there_is_a_problem(monkeypatch):
    monkeypatch.setattr(diagnosis, "ENCODER", "libnone")
    assert diagnosis.diagnose(speed=False).problems == [
        "FFmpeg has no libnone: install PyAV's own wheel (pip install av)."
    ]
