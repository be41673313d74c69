"""The models to choose from."""

from videomae.pipeline.sizes import candidate_sizes


def test_a_frame_size_of_its_own_keeps_the_rest_of_its_preset():
    for side, patch in ((24, 4), (32, 4), (48, 8), (60, 10)):
        assert candidate_sizes(preset="nano", image_size=side) == [("nano", side, patch, 16, 4)]
    sizes = candidate_sizes(num_frames=10)
    assert {preset for preset, *_ in sizes} == {"tiny", "small", "base"}
