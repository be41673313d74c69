import pytest

from videomae.options import parse_duration, parse_seconds


@pytest.mark.parametrize(("text", "seconds"), [("2s", 2.0), ("2", 2.0), ("0.5s", 0.5)])
def test_seconds_are_read_with_and_without_their_unit(text, seconds):
    assert parse_seconds(text) == seconds


def test_what_is_no_number_of_seconds_is_refused():
    with pytest.raises(ValueError, match="'2 m' is no number of seconds: write it as 2s or 2"):
        parse_seconds("2 m")


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90.0), ("45m", 2700.0), ("1.5h", 5400.0)])
def test_a_duration_has_a_unit(text, seconds):
    assert parse_duration(text, name="--budget") == seconds


@pytest.mark.parametrize("text", ["45", "m", "0m", "-1h", "1d", ""])
def test_what_is_no_duration_is_refused_by_the_name_of_the_option(text):
    with pytest.raises(ValueError, match=r"--budget must be a number with s, m or h, such as 45m, got"):
        parse_duration(text, name="--budget")
