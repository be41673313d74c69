"""The models that `videomae train` chooses from."""

from typing import NamedTuple

from videomae.config import VideoMAEConfig
from videomae.training.schedule import divisors


class Size(NamedTuple):
    """A model, by its preset and by what it sees of a clip."""

    preset: str
    image_size: int
    patch_size: int
    num_frames: int
    tubelet_size: int

    @property
    def config(self) -> VideoMAEConfig:
        """The configuration; a ValueError where the numbers do not go together."""
        fields = self._asdict()
        return VideoMAEConfig.preset(fields.pop("preset"), **fields)


# From small to large.
SIZES = (
    Size("nano", 48, 8, 16, 4),
    Size("tiny", 64, 8, 8, 2),
    Size("tiny", 112, 16, 16, 2),
    Size("small", 112, 16, 16, 2),
    Size("small", 224, 16, 16, 2),
    Size("base", 224, 16, 16, 2),
)


def candidate_sizes(
    *,
    preset: str | None = None,
    image_size: int | None = None,
    patch_size: int | None = None,
    num_frames: int | None = None,
) -> list[Size]:
    """Return the sizes that fit what is asked for, from small to large; None leaves a choice.

    Raises:
        ValueError: if there is none.
    """
    known = [size for size in SIZES if preset in (None, size.preset)]
    sizes = [size for size in known if image_size in (None, size.image_size)]
    if not sizes and image_size is not None:
        sizes = [_nearest(known, image_size)]
    fitting, refusal = [], None
    for size in sizes:
        asked = size._replace(patch_size=patch_size or size.patch_size, num_frames=num_frames or size.num_frames)
        try:
            asked.config  # noqa: B018
        except ValueError as error:
            refusal = error
        else:
            fitting.append(asked)
    if not fitting and refusal is not None:
        raise refusal
    return fitting


def _nearest(sizes: list[Size], image_size: int) -> Size:
    """Return the size with the nearest frames, at other ones, with about as many patches."""
    usual = min(sizes, key=lambda size: abs(size.image_size - image_size))
    wanted = image_size * usual.patch_size / usual.image_size
    patches = [patch for patch in divisors(image_size) if 2 / 3 < patch / wanted < 1.5]
    patch_size = min(patches, key=lambda patch: abs(patch - wanted), default=usual.patch_size)
    return usual._replace(image_size=image_size, patch_size=patch_size)
