"""Procedural video that teaches motion: textured shapes and jointed figures that move in front of a moving ground.

Nothing is downloaded and nothing is drawn by hand: textures, shapes and paths come from a random generator, so that
what is trained on them carries nobody's rights. Every clip comes with the truth about its motion: the classes of
what the main object does, what the camera does, and the optical flow in cells of a coarse grid.

The idea is that of arXiv 2410.24213 (video models from moving shapes and textures); figures, camera, occlusion,
light and the labels are this project's.

Coordinates: x to the right and y down, from -1 to 1 over a frame; angles in radians, positive is clockwise.
Shapes: B clips, n of them that have a layer, T frames, C channels, S pixels of a side, J limbs of a figure,
G flow cells of a side.
"""

import dataclasses
import math
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional as F

# ----------------------------------------------------------------------------------------------- what can happen


class Motion(NamedTuple):
    """What a motion changes of an object, as factors of the amount that is drawn for a clip.

    ``right``, ``down``, ``grow``, ``turn`` and ``open`` run from start to end; ``shake_x``, ``shake_y``, ``swing``,
    ``talk`` and ``wave`` go to and fro; ``orbit`` is a circle; ``appear`` lets the object come (1) or go (-1).
    """

    right: float = 0.0
    down: float = 0.0
    grow: float = 0.0
    turn: float = 0.0
    orbit: float = 0.0
    swing: float = 0.0
    shake_x: float = 0.0
    shake_y: float = 0.0
    appear: float = 0.0
    open: float = 0.0
    talk: float = 0.0
    wave: float = 0.0


_DIAGONAL = math.sqrt(0.5)

MOTIONS: dict[str, Motion] = {
    "still": Motion(),
    "right": Motion(right=1.0),
    "right_down": Motion(right=_DIAGONAL, down=_DIAGONAL),
    "down": Motion(down=1.0),
    "left_down": Motion(right=-_DIAGONAL, down=_DIAGONAL),
    "left": Motion(right=-1.0),
    "left_up": Motion(right=-_DIAGONAL, down=-_DIAGONAL),
    "up": Motion(down=-1.0),
    "right_up": Motion(right=_DIAGONAL, down=-_DIAGONAL),
    "grow": Motion(grow=1.0),
    "shrink": Motion(grow=-1.0),
    "clockwise": Motion(turn=1.0),
    "counterclockwise": Motion(turn=-1.0),
    "orbit_clockwise": Motion(orbit=1.0),
    "orbit_counterclockwise": Motion(orbit=-1.0),
    "swing": Motion(swing=1.0),
    "shake_sideways": Motion(shake_x=1.0),
    "shake_upright": Motion(shake_y=1.0),
    "appear": Motion(appear=1.0),
    "vanish": Motion(appear=-1.0),
    # Only figures have limbs for these.
    "open": Motion(open=1.0),
    "close": Motion(open=-1.0),
    "talk": Motion(talk=1.0),
    "wave": Motion(wave=1.0),
}
_LIMBLESS_MOTIONS = list(MOTIONS).index("open")
# A ground does not come or go; what a camera does, the scene does the other way round.
CAMERA_MOTIONS = (*tuple(MOTIONS)[: list(MOTIONS).index("orbit_clockwise")], "shake_sideways", "shake_upright")
FORMS = ("shape", "hand", "body", "mouth", "chain")
_LIMBS = 15


@dataclasses.dataclass(frozen=True)
class ProceduralSettings:
    """How often and how strongly things happen in procedural clips.

    Attributes:
        colour: whether clips have three channels; grey ones are made in two thirds of the time.
        figures: fraction of clips whose main object is a hand, a body, a mouth or a chain of limbs.
        second_motion: fraction of clips whose main object does something else in the second half.
        moving_camera: fraction of clips whose ground, and what stands on it, moves as a whole.
        plain_ground: fraction of clips on a ground without texture.
        drawing: fraction of clips that are a line drawing of the main object on a plain ground.
        bystander: fraction of clips with another shape behind the main object.
        partner: fraction of clips with another figure behind the main object.
        occluder: fraction of clips with a shape in front of the main object.
        passing: fraction of clips whose main object is there only while it moves.
        lighting: fraction of clips whose light changes over time and place.
        noise: largest standard deviation of the sensor's noise, of a full scale of 1.
        flow_cells: G, cells of the flow's grid along each side.
    """

    colour: bool = False
    figures: float = 0.55
    second_motion: float = 0.4
    moving_camera: float = 0.4
    plain_ground: float = 0.3
    drawing: float = 0.15
    bystander: float = 0.45
    partner: float = 0.15
    occluder: float = 0.2
    passing: float = 0.2
    lighting: float = 0.25
    noise: float = 0.06
    flow_cells: int = 8


@dataclasses.dataclass(frozen=True)
class MotionLabels:
    """The truth about a batch of procedural clips.

    Attributes:
        motion: (B, 2) int64 index into ``MOTIONS``: what the main object does first and then; "still" if nothing.
        camera: (B,) int64 index into ``CAMERA_MOTIONS``: how the ground moves in the picture.
        form: (B,) int64 index into ``FORMS``: what the main object is.
        fingers: (B,) int64 number of stretched fingers, 0 to 5; -1 where the main object is no hand.
        count: (B,) int64 number of objects, 1 to 4.
        speed: (B,) float, 0 (slow) to 1 (fast), of the main object.
        flow: (B, T, 2, G, G) float, mean motion (right, down) in each cell from a frame to the next, in half frames.
    """

    motion: Tensor
    camera: Tensor
    form: Tensor
    fingers: Tensor
    count: Tensor
    speed: Tensor
    flow: Tensor


# ------------------------------------------------------------------------------------------------------ the clips


def batch_generator(seed: int, index: int) -> Generator:
    """Return the source of randomness of one batch, so that a batch is a function of (seed, index) alone.

    Args:
        seed: of the run, 0 or more.
        index: of the batch, 0 or more; a run that resumes at a step asks for that step's batch.
    """
    # torch's CPU generator looks at 32 bits of a seed only.
    mixed = np.random.SeedSequence([seed, index]).generate_state(1)[0]
    return torch.Generator().manual_seed(int(mixed))


@torch.no_grad()
def procedural_clips(
    batch: int,
    *,
    num_frames: int = 16,
    size: int = 64,
    generator: Generator,
    settings: ProceduralSettings = ProceduralSettings(),
) -> tuple[Tensor, MotionLabels]:
    """Draw clips.

    Args:
        batch: B.
        num_frames: T, at least 2; motions fill the clip, however many frames it has.
        size: S, height and width in pixels; a multiple of ``settings.flow_cells``.
        generator: seeded source of randomness (see `batch_generator`).
        settings: how often things happen.

    Returns:
        (B, T, C, S, S) uint8, and the truth about them.

    Raises:
        ValueError: if the sizes do not fit.
    """
    if num_frames < 2 or size % settings.flow_cells:
        raise ValueError(
            f"num_frames must be at least 2 and size a multiple of flow_cells={settings.flow_cells}, "
            f"got num_frames={num_frames}, size={size}."
        )
    draw = _Draw(generator)
    scene = _Scene(draw, batch, num_frames, size, settings)
    time = torch.linspace(0, 1, num_frames)

    camera_index = draw.integers(batch, len(CAMERA_MOTIONS)) * draw.coin(batch, settings.moving_camera)
    camera = torch.tensor([list(MOTIONS).index(name) for name in CAMERA_MOTIONS])[camera_index]
    view = _camera_pose(draw, camera, time)
    drawing = draw.coin(batch, settings.drawing)
    scene.add_ground(view, drawing)

    figure = draw.coin(batch, settings.figures)
    form = draw.integers(batch, len(FORMS) - 1) + 1
    form = torch.where(figure, form, torch.zeros_like(form))
    motion = _draw_motions(draw, figure, settings.second_motion)

    bystander, occluder, partner = (
        draw.coin(batch, fraction) & ~drawing for fraction in (settings.bystander, settings.occluder, settings.partner)
    )
    outlined = draw.coin(batch, 0.15)
    _add_shape(scene, draw, bystander, outlined, _bystander_pose(draw, batch, time, view, (0.15, 0.6)))
    partner_form = draw.integers(batch, len(FORMS) - 1) + 1
    partner_act = _act(draw, _draw_motions(draw, partner, settings.second_motion), time, settings.passing)
    _add_figure(scene, draw, partner, outlined, partner_form, partner_act)

    act = _act(draw, motion, time, settings.passing)
    thin = drawing | draw.coin(batch, torch.where(figure, 0.35, 0.1))
    _add_shape(scene, draw, ~figure, thin, act.pose, act.present)
    fingers = _add_figure(scene, draw, figure, thin, form, act)
    _add_shape(scene, draw, occluder, outlined, _bystander_pose(draw, batch, time, view, (0.1, 0.35)))
    scene.add_light()

    count = 1 + bystander.long() + occluder.long() + partner.long()
    labels = MotionLabels(motion, camera_index, form, torch.where(form == 1, fingers, -1), count, act.speed, scene.flow)
    return scene.develop(), labels


# ---------------------------------------------------------------------------------------------------- the motions


@dataclasses.dataclass(frozen=True)
class _Pose:
    """Where an object is in every frame: (n, T) each."""

    x: Tensor
    y: Tensor
    scale: Tensor
    angle: Tensor

    def at(self, which: Tensor) -> "_Pose":
        return _Pose(self.x[which], self.y[which], self.scale[which], self.angle[which])

    def to_frame(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Bring points (n, T, ...) of the object into the frame."""
        x, y, scale, angle = (_like(value, u) for value in (self.x, self.y, self.scale, self.angle))
        cos, sin = angle.cos() * scale, angle.sin() * scale
        return x + cos * u - sin * v, y + sin * u + cos * v

    def to_object(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Bring points (n, T, ...) of the frame into the object."""
        x, y = x - _like(self.x, x), y - _like(self.y, y)
        cos, sin = _like(self.angle.cos() / self.scale, x), _like(self.angle.sin() / self.scale, x)
        return cos * x + sin * y, cos * y - sin * x

    def sampling_grid(self, size: int) -> Tensor:
        """Where each pixel lies in the object: (n * T, S, S, 2)."""
        cos, sin = self.angle.cos() / self.scale, self.angle.sin() / self.scale
        first = torch.stack([cos, sin, -(cos * self.x + sin * self.y)], -1)
        second = torch.stack([-sin, cos, sin * self.x - cos * self.y], -1)
        matrix = torch.stack([first, second], -2).flatten(0, 1)  # (n * T, 2, 3)
        return F.affine_grid(matrix, [len(matrix), 1, size, size], align_corners=False)


@dataclasses.dataclass(frozen=True)
class _Act:
    """What an object does: its pose, and (n, T) each of how far it is open, how its limbs wave, if it is present."""

    pose: _Pose
    open: Tensor
    wave: Tensor
    present: Tensor
    speed: Tensor

    def at(self, which: Tensor) -> "_Act":
        return _Act(self.pose.at(which), self.open[which], self.wave[which], self.present[which], self.speed[which])


def _draw_motions(draw: "_Draw", figure: Tensor, second: float) -> Tensor:
    choices = torch.where(figure, len(MOTIONS), _LIMBLESS_MOTIONS)[:, None]  # (B, 1)
    motion = (draw.uniform(len(figure), 2) * choices).long()
    first, then = motion.unbind(1)
    stays = ~draw.coin(len(figure), second) | (_motion_table()["appear"][motion] != 0).any(1)
    return torch.stack([first, torch.where(stays, torch.zeros_like(then), then)], 1)


@cache
def _motion_table() -> dict[str, Tensor]:
    """Each factor of `Motion` for all motions: name -> (motions,)."""
    return dict(zip(Motion._fields, torch.tensor(list(MOTIONS.values())).unbind(1), strict=True))


def _progress(draw: "_Draw", begin: Tensor, end: Tensor, time: Tensor) -> Tensor:
    """From 0 before ``begin`` to 1 after ``end``, faster and faster, slower and slower or evenly: (n, T)."""
    done = ((time - begin[:, None]) / (end - begin)[:, None]).clamp(0, 1)
    return done ** draw.uniform(len(begin), 1, low=-0.6, high=0.6).exp()


def _act(draw: "_Draw", motion: Tensor, time: Tensor, passing: float) -> _Act:
    """Turn the two motions (n, 2) of each object into curves over time."""
    n = len(motion)
    twice = motion[:, 1] != 0
    change = draw.uniform(n, low=0.4, high=0.6)
    begin, end = draw.uniform(n, high=0.2), draw.uniform(n, low=0.8, high=1.0)
    windows = ((begin, torch.where(twice, change - 0.03, end)), (torch.where(twice, change + 0.03, begin), end))
    speed = draw.uniform(n)
    amount = speed[:, None]
    travel, shake = 0.4 + 0.9 * amount, 0.15 + 0.35 * amount
    x = _drift(draw, n, time, 0.05)
    y, angle, zoom = _drift(draw, n, time, 0.05), _drift(draw, n, time, 0.08), _drift(draw, n, time, 0.05)
    opened, wave = torch.zeros_like(x), _drift(draw, n, time, 0.12)
    present = torch.ones_like(x)
    for which, (start, stop) in zip(motion.unbind(1), windows, strict=True):
        factor = {name: values[which][:, None] for name, values in _motion_table().items()}
        done = _progress(draw, start, stop, time)
        beat = (2 * math.pi * (1 + draw.integers(n, 3)[:, None]) * done).sin() * draw.sign(n)[:, None]
        round_ = 2 * math.pi * (0.6 + amount) * done * factor["orbit"] + draw.uniform(n, 1, high=2 * math.pi)
        radius = draw.uniform(n, 1, low=0.25, high=0.55) * factor["orbit"].abs()
        x = x + travel * factor["right"] * done + shake * factor["shake_x"] * beat + radius * round_.cos()
        y = y + travel * factor["down"] * done + shake * factor["shake_y"] * beat + radius * round_.sin()
        angle = angle + (0.8 + 2.7 * amount) * factor["turn"] * done + (0.4 + 0.6 * amount) * factor["swing"] * beat
        zoom = zoom + (0.5 + 0.8 * amount) * factor["grow"] * done
        opened = opened + 0.9 * factor["open"] * done + 0.45 * factor["talk"] * beat
        wave = wave + factor["wave"] * beat
        present = present * torch.where(factor["appear"] > 0, done > 0.4, (factor["appear"] == 0) | (done < 0.6))
    shown = (time >= begin[:, None] - 0.05) & (time <= end[:, None] + 0.05)
    present = present * (shown | ~draw.coin(n, passing)[:, None])
    pose = _Pose(
        x - _middle(x) + draw.uniform(n, 1, low=-0.4, high=0.4),
        y - _middle(y) + draw.uniform(n, 1, low=-0.4, high=0.4),
        (zoom - _middle(zoom)).exp() * draw.uniform(n, 1, low=0.3, high=0.85),
        angle + draw.uniform(n, 1, low=-0.9, high=0.9) + math.pi * draw.coin(n, 0.15)[:, None],
    )
    lowest, highest = opened.amin(1, keepdim=True), opened.amax(1, keepdim=True)
    rest = draw.uniform(n, 1, low=0.02, high=0.98) * (0.98 - (highest - lowest).clamp_max(0.96)) - lowest
    return _Act(pose, (opened + rest).clamp(0, 1), wave, present.float(), speed)


def _camera_pose(draw: "_Draw", motion: Tensor, time: Tensor) -> _Pose:
    """Return the pose of the scene as the camera sees it; most hands that hold one tremble a little."""
    n = len(motion)
    factor = {name: values[motion][:, None] for name, values in _motion_table().items()}
    done = _progress(draw, draw.uniform(n, high=0.2), draw.uniform(n, low=0.8, high=1.0), time)
    beat = (2 * math.pi * (1 + draw.integers(n, 4)[:, None]) * done).sin()
    amount = draw.uniform(n, 1, low=0.3, high=1.0)
    tremble = 0.03 * draw.coin(n, 0.3)[:, None]
    x = amount * (factor["right"] * (done - 0.5) + 0.3 * factor["shake_x"] * beat)
    y = amount * (factor["down"] * (done - 0.5) + 0.3 * factor["shake_y"] * beat)
    x, y = x + _drift(draw, n, time, 1.0) * tremble, y + _drift(draw, n, time, 1.0) * tremble
    return _Pose(x, y, (amount * factor["grow"] * (done - 0.5)).exp(), amount * factor["turn"] * (done - 0.5))


def _bystander_pose(draw: "_Draw", n: int, time: Tensor, view: _Pose, scales: tuple[float, float]) -> _Pose:
    """Return the pose of something that stands on the ground or, every other time, strolls about."""
    strolls = draw.coin(n, 0.5)[:, None]
    place_x, place_y = draw.uniform(n, 1, low=-0.9, high=0.9), draw.uniform(n, 1, low=-0.9, high=0.9)
    x = place_x + strolls * _drift(draw, n, time, 0.25)
    y = place_y + strolls * _drift(draw, n, time, 0.25)
    angle = draw.uniform(n, 1, high=2 * math.pi) + strolls * _drift(draw, n, time, 0.5)
    seen_x, seen_y = view.to_frame(x, y)
    scale = draw.uniform(n, 1, low=scales[0], high=scales[1])
    return _Pose(seen_x, seen_y, scale * view.scale, angle + view.angle)


def _drift(draw: "_Draw", n: int, time: Tensor, size: float) -> Tensor:
    """A slow, smooth wander of about ``size``: (n, T)."""
    pace, phase = draw.uniform(n, 1, low=1, high=6), draw.uniform(n, 1, high=2 * math.pi)
    return size * draw.uniform(n, 1, low=-1, high=1) * (pace * time + phase).sin()


def _middle(curve: Tensor) -> Tensor:
    return (curve.amin(1, keepdim=True) + curve.amax(1, keepdim=True)) / 2


# ------------------------------------------------------------------------------------------------------ the scene


class _Scene:
    """The pixels of a batch, onto which layers are put from the back to the front, and their flow.

    Args:
        draw: source of randomness.
        batch: B.
        num_frames: T.
        size: S.
        settings: how often things happen.
    """

    def __init__(self, draw: "_Draw", batch: int, num_frames: int, size: int, settings: ProceduralSettings) -> None:
        self.draw, self.batch, self.num_frames, self.size, self.settings = draw, batch, num_frames, size, settings
        self.channels = 3 if settings.colour else 1
        cells = settings.flow_cells
        self.flow = torch.zeros(batch, num_frames, 2, cells, cells)
        self.cell_centres = torch.arange(cells).add(0.5).mul(2 / cells).sub(1)

    def add_ground(self, view: _Pose, drawing: Tensor) -> None:
        """Fill the frames with a texture that the camera sees or, in a ``drawing`` too, with one brightness."""
        plain = self.draw.coin(self.batch, self.settings.plain_ground) | drawing
        level = self.draw.uniform(self.batch, self.channels, low=0.15, high=0.85)
        dark = self.draw.uniform(self.batch, 1, high=0.15).expand_as(level)
        self.level = torch.where((plain & self.draw.coin(self.batch, 0.6))[:, None], dark, level)
        contrast = self.draw.uniform(self.batch, self.channels, low=0.04, high=0.25) * ~plain[:, None]
        texture = self.draw.pick(_textures(), self.batch)  # (B, 128, 128)
        # The ground is larger than the frame; where a camera leaves it, it goes on mirrored.
        stretch = self.draw.uniform(self.batch, 1, low=1.2, high=3.0)
        seen = _sample(texture[:, None], dataclasses.replace(view, scale=view.scale * stretch), self.size, "reflection")
        self.pixels = _spread(self.level) + _spread(contrast) * seen  # (B, T, C, S, S)
        self.flow = self._flow_of(view) * ~plain[:, None, None, None, None]

    def put(self, which: Tensor, value: Tensor, alpha: Tensor, flow: Tensor) -> None:
        """Put a layer in front of those that are there.

        Args:
            which: (n,) int64, the clips that have it.
            value: (n, T, C, S, S) its pixels, of a full scale of 1.
            alpha: (n, T, S, S), 0 where one sees through it.
            flow: (n, T, 2, G, G) its motion.
        """
        self.pixels[which] = torch.lerp(self.pixels[which], value, alpha[:, :, None])
        cover = F.avg_pool2d(alpha, self.size // self.settings.flow_cells)[:, :, None]
        # A thin line hardly covers its cell, and yet it is what moves there.
        self.flow[which] = torch.lerp(self.flow[which], flow, (4 * cover).clamp_max(1))

    def colours(self, which: Tensor) -> tuple[Tensor, Tensor]:
        """Draw a layer's brightness, which differs from the ground's, and the contrast of its texture: (n, C) each."""
        n = len(which)
        away = self.draw.uniform(n, self.channels, low=0.25, high=0.75)
        level = (self.level[which] + away).remainder(1.0)
        return level, self.draw.uniform(n, self.channels, low=0.0, high=0.2)

    def add_light(self) -> None:
        """Let the light of some clips change, from one side to the other and over time."""
        which = self.draw.coin(self.batch, self.settings.lighting).nonzero()[:, 0]
        n, ticks = len(which), torch.linspace(-1, 1, self.size)
        time = torch.linspace(0, 1, self.num_frames)
        slope_x, slope_y = (_like(_drift(self.draw, n, time, 0.5), torch.empty(1, 1, 1, 1)) for _ in range(2))
        strength = _like(_drift(self.draw, n, time, 0.4), slope_x)
        light = (1 + strength + slope_x * ticks + slope_y * ticks[:, None]).clamp_min(0.1)  # (n, T, S, S)
        self.pixels[which] *= light[:, :, None]

    def develop(self) -> Tensor:
        """Add the sensor's noise and return bytes."""
        strength = self.draw.uniform(self.batch, 1, high=self.settings.noise) * self.draw.coin(self.batch, 0.7)[:, None]
        noise = _noise_frames(self.size)  # (frames, S, S)
        frames = self.draw.integers(self.batch * self.num_frames, len(noise))
        grain = noise[frames].unflatten(0, (self.batch, self.num_frames))[:, :, None]
        pixels = self.pixels.addcmul_(_spread(strength), grain)
        return pixels.mul_(255).round_().clamp_(0, 255).byte()

    def _flow_of(self, pose: _Pose) -> Tensor:
        """The motion of a rigid object in every cell: (n, T, 2, G, G); the last frame repeats the one before."""
        x = self.cell_centres.expand(*pose.x.shape, len(self.cell_centres), -1)
        y = x.transpose(-1, -2)
        u, v = pose.to_object(x, y)
        after = _Pose(*(_next(value) for value in (pose.x, pose.y, pose.scale, pose.angle)))
        next_x, next_y = after.to_frame(u, v)
        flow = torch.stack([next_x - x, next_y - y], 2)
        return torch.cat([flow[:, :-1], flow[:, -2:-1]], 1)


def _add_shape(
    scene: _Scene, draw: "_Draw", has: Tensor, thin: Tensor, pose: _Pose, present: Tensor | None = None
) -> None:
    """Put a textured shape into the clips that have one, of the thin ones only the outline; some bend."""
    which = has.nonzero()[:, 0]
    n, size = len(which), scene.size
    if not n:
        return
    pose = pose.at(which)
    level, contrast = scene.colours(which)
    grid = pose.sampling_grid(size).unflatten(0, (n, -1))  # (n, T, S, S, 2)
    bends = draw.coin(n, 0.3).nonzero()[:, 0]
    if len(bends):
        time = torch.linspace(0, 1, scene.num_frames)[None, :, None, None, None]
        pace, size_ = (draw.uniform(len(bends), 1, 1, 1, 1, low=a, high=b) for a, b in ((4, 14), (0.05, 0.2)))
        grid[bends] += size_ * (3 * grid[bends].flip(-1) + pace * time).sin()
    layer = torch.stack([draw.pick(_shapes(), n), draw.pick(_small_textures(), n)], 1)
    seen = F.grid_sample(
        layer.repeat_interleave(scene.num_frames, 0), grid.flatten(0, 1), padding_mode="border", align_corners=False
    ).unflatten(0, (n, -1))  # (n, T, 2, S, S)
    pixels = _like(pose.scale * (size / 2), seen[:, :, 0])
    depth = seen[:, :, 0] * pixels
    width = draw.uniform(n, 1, 1, 1, low=0.6, high=2.0)
    depth = torch.where(thin[which][:, None, None, None], width - depth.abs(), depth)
    alpha = (depth + 0.5).clamp(0, 1)
    if present is not None:
        alpha = alpha * _like(present[which], alpha)
    value = _spread(level) + _spread(contrast) * seen[:, :, 1:]
    scene.put(which, value, alpha, scene._flow_of(pose))


def _add_figure(scene: _Scene, draw: "_Draw", has: Tensor, thin: Tensor, form: Tensor, act: _Act) -> Tensor:
    """Put a jointed figure into the clips that have one, a thin one as lines.

    Returns:
        (B,) int64, stretched fingers of a hand.
    """
    fingers = draw.integers(len(has), 6)
    which = has.nonzero()[:, 0]
    n, size = len(which), scene.size
    if not n:
        return fingers
    act, form = act.at(which), form[which]
    ends, radius = _skeletons(draw, form, act, fingers[which])
    x, y = act.pose.to_frame(ends[..., 0], ends[..., 1])  # (n, T, J, 2)
    thin = thin[which][:, None]
    factor = draw.uniform(n, 1, low=0.6, high=1.3)
    radius = torch.where(thin, draw.uniform(n, 1, low=0.02, high=0.045) * (radius > 0), radius * factor)  # (n, J)
    radius = radius[:, None] * act.pose.scale[..., None] * (size / 2)  # (n, T, J), pixels
    depth = _depth(x * (size / 2), y * (size / 2), radius, size)
    alpha = (depth + 0.5).clamp(0, 1) * _like(act.present, depth)
    level, contrast = scene.colours(which)
    # Lines have one brightness; limbs are darker at the rim, as if they were round.
    shade = (depth / 6 + 0.7 + 0.3 * thin[:, :, None, None]).clamp_(0.5, 1)
    value = _spread(level) * shade[:, :, None]
    textured = (~thin[:, 0]).nonzero()[:, 0]
    if len(textured):
        texture = draw.pick(_small_textures(), len(textured))[:, None]
        value[textured] += _spread(contrast[textured]) * _sample(texture, act.pose.at(textured), size, "reflection")
    scene.put(which, value, alpha, _limb_flow(x, y, radius > 0, scene.cell_centres))
    return fingers


# ---------------------------------------------------------------------------------------------------- the figures


def _skeletons(draw: "_Draw", form: Tensor, act: _Act, fingers: Tensor) -> tuple[Tensor, Tensor]:
    """The limbs of figures.

    Args:
        draw: source of randomness.
        form: (n,) index into ``FORMS``.
        act: how far they are open and how they wave.
        fingers: (n,) stretched fingers, for hands.

    Returns:
        The ends of each limb (n, T, J, 2, 2) in the object's coordinates, and its radius (n, J); 0 for none.
    """
    beat = 2 * math.pi * torch.linspace(0, 1, act.open.shape[1])[None, :, None]  # (1, T, 1)
    opened, wave = act.open[..., None], act.wave[..., None]  # (n, T, 1)
    figures = [
        _hand(draw, opened, wave, beat, fingers),
        _body(opened, wave),
        _mouth(opened, wave),
        _chain(opened, wave, beat),
    ]
    joints = torch.stack([F.pad(ends, (0, 0, 0, 0, 0, _LIMBS - ends.shape[2])) for ends, _ in figures])
    radii = torch.stack([F.pad(radius, (0, _LIMBS - len(radius))) for _, radius in figures])  # (forms, J)
    clip = torch.arange(len(form))
    ends = joints[form - 1, clip]  # (n, T, J, 2, 2)
    mirrored = torch.stack([draw.sign(len(form)), torch.ones(len(form))], -1)
    return ends * mirrored[:, None, None, None], radii[form - 1]


def _hand(draw: "_Draw", opened: Tensor, wave: Tensor, beat: Tensor, fingers: Tensor) -> tuple[Tensor, Tensor]:
    """Five fingers of three limbs each: wrist to knuckle, knuckle to middle, middle to tip."""
    n = len(opened)
    order = draw.uniform(n, 5).argsort(1)
    in_a_row = (torch.tensor([4, 0, 1, 2, 3]) + torch.zeros(n, 5, dtype=torch.long)).argsort(1)
    order = torch.where(draw.coin(n, 0.7)[:, None], in_a_row, order)
    stretched = (order < fingers[:, None])[:, None]  # (n, 1, 5)
    curl = torch.where(stretched, 1 - opened, 0.85)  # (n, T, 5)
    fan = torch.tensor([-1.0, -0.35, -0.05, 0.25, 0.55]) * (0.55 + 0.6 * opened)
    angle = fan + 0.5 * wave * torch.tensor([1.0, -0.8, 0.6, -0.8, 1.0])
    length = torch.tensor([0.45, 0.6, 0.66, 0.6, 0.48])
    wrist_x, wrist_y = torch.zeros_like(angle), torch.full_like(angle, 0.6)
    reach = torch.tensor([0.35, 0.55, 0.55, 0.52, 0.5])
    knuckle = _step(wrist_x, wrist_y, angle, reach)
    middle = _step(*knuckle, angle, 0.5 * length * (1 - 0.5 * curl))
    tip = _step(*middle, angle + 2.6 * curl, 0.5 * length)
    points = [(wrist_x, wrist_y), knuckle, middle, tip]
    return _limbs([(points[i], points[i + 1]) for i in range(3)]), torch.tensor([0.13] * 5 + [0.09] * 5 + [0.08] * 5)


def _body(opened: Tensor, wave: Tensor) -> tuple[Tensor, Tensor]:
    """Head, trunk, two arms and two legs of two limbs each; open is with arms and legs spread."""
    one = torch.ones_like(opened)
    side = torch.tensor([-1.0, 1.0])
    shoulder = (0.14 * side * one, -0.38 * one.expand(*one.shape[:2], 2))
    hip = (0.09 * side * one, 0.18 * one.expand(*one.shape[:2], 2))
    arm = math.pi + side * (-0.25 - 2.0 * opened) + 0.9 * wave
    leg = math.pi + side * (-0.12 - 0.5 * opened) + 0.7 * side * wave
    elbow, knee = _step(*shoulder, arm, 0.3), _step(*hip, leg, 0.38)
    hand = _step(*elbow, arm - side * (0.4 + 0.5 * opened), 0.3)
    foot = _step(*knee, leg + 0.5 * (side * wave).clamp_min(0), 0.4)
    limbs = _limbs([(shoulder, elbow), (elbow, hand), (hip, knee), (knee, foot)])
    nothing = torch.zeros_like(one)
    trunk = _limbs([((nothing, -0.3 * one), (nothing, 0.12 * one)), ((nothing, -0.68 * one), (nothing, -0.66 * one))])
    return torch.cat([limbs, trunk], 2), torch.tensor([0.08] * 4 + [0.1] * 4 + [0.2, 0.15])


def _mouth(opened: Tensor, wave: Tensor) -> tuple[Tensor, Tensor]:
    """Two lips of six limbs each; waving draws them to a side and together."""
    along = torch.linspace(-1, 1, 7)
    gap = (0.06 + 0.5 * opened) * (1 - along.square())  # (n, T, 7)
    x = along * (0.85 - 0.2 * opened + 0.2 * wave) + 0.1 * wave
    lips = []
    for side in (-1.0, 1.0):
        y = side * gap + 0.12 * along.square()
        lips.append(_limbs([((x[..., :-1], y[..., :-1]), (x[..., 1:], y[..., 1:]))]))
    return torch.cat(lips, 2), torch.tensor([0.09] * 12)


def _chain(opened: Tensor, wave: Tensor, beat: Tensor) -> tuple[Tensor, Tensor]:
    """Eight limbs one after the other, thinner and thinner; closed is rolled up."""
    position = (torch.zeros_like(opened), torch.full_like(opened, 0.7))
    limbs = []
    for number in range(8):
        bend = number * (0.75 * (1 - opened) + 0.35 * wave) + 0.3 * wave * (beat - 0.8 * number).sin()
        after = _step(*position, bend, 0.19)
        limbs.append((position, after))
        position = after
    return _limbs(limbs), torch.linspace(0.13, 0.05, 8)


def _step(x: Tensor, y: Tensor, angle: Tensor, length: Tensor | float) -> tuple[Tensor, Tensor]:
    """Go ``length`` on from a point; angle 0 is up."""
    return x + angle.sin() * length, y - angle.cos() * length


def _limbs(pairs: list[tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]]) -> Tensor:
    """Join pairs of points, each (x, y) of (n, T, k), to limbs: (n, T, J, 2 ends, 2 coordinates)."""
    return torch.cat([torch.stack([torch.stack(a, -1), torch.stack(b, -1)], -2) for a, b in pairs], 2)


def _depth(x: Tensor, y: Tensor, radius: Tensor, size: int) -> Tensor:
    """How deep each pixel lies in the nearest limb, negative outside.

    Args:
        x: (n, T, J, 2) ends of the limbs, in pixels from the middle of the frame.
        y: likewise.
        radius: (n, T, J), pixels; 0 for no limb.
        size: S.

    Returns:
        (n, T, S, S), pixels.
    """
    n, num_frames, limbs = radius.shape
    ticks = torch.arange(size) + 0.5 - size / 2
    along_x, along_y = x[..., 1] - x[..., 0], y[..., 1] - y[..., 0]
    length = torch.hypot(along_x, along_y).clamp_min(1e-4)
    along_x, along_y = along_x / length, along_y / length
    depth = torch.full((n, num_frames, size, size), -1e3)
    for limb in range(limbs):
        which = (radius[:, 0, limb] > 0).nonzero()[:, 0]
        if not len(which):
            continue
        ax, ay, half, r = (value[which, :, limb, None] for value in (along_x, along_y, length / 2, radius))
        middle_x, middle_y = (value[which, :, limb].mean(-1, keepdim=True) for value in (x, y))
        dx, dy = ticks - middle_x, ticks - middle_y  # (n, T, S)
        # Along and across the limb are sums of what a column and what a row add.
        along = ((ax * dx)[:, :, None] + (ay * dy)[..., None]).abs_().sub_(half[..., None]).clamp_min_(0)
        across = (ax * dy)[..., None] - (ay * dx)[:, :, None]
        distance = across.square_().addcmul_(along, along).sqrt_()
        depth[which] = torch.maximum(depth[which], r[..., None] - distance)
    return depth


def _limb_flow(x: Tensor, y: Tensor, exists: Tensor, centres: Tensor) -> Tensor:
    """The motion of the limb that is nearest to the middle of each cell: (n, T, 2, G, G)."""
    cells = len(centres)
    px, py = centres.repeat(cells)[:, None], centres.repeat_interleave(cells)[:, None]  # (G * G, 1)
    (ax, bx), (ay, by) = x[:, :, None].unbind(-1), y[:, :, None].unbind(-1)  # (n, T, 1, J)
    lx, ly = bx - ax, by - ay
    part = (((px - ax) * lx + (py - ay) * ly) / (lx.square() + ly.square()).clamp_min(1e-8)).clamp(0, 1)
    distance = (ax + part * lx - px).square() + (ay + part * ly - py).square()
    nearest = distance.masked_fill(~exists[:, :, None], math.inf).argmin(-1, keepdim=True)  # (n, T, G * G, 1)
    part = part.gather(-1, nearest)
    flow = []
    for ends in (x, y):
        moved = (_next(ends) - ends)[:, :, None].expand(-1, -1, cells * cells, -1, -1)  # (n, T, G * G, J, 2)
        a, b = moved.gather(3, nearest[..., None].expand(-1, -1, -1, -1, 2))[..., 0, :].unbind(-1)
        flow.append((torch.lerp(a, b, part[..., 0])).unflatten(-1, (cells, cells)))
    stacked = torch.stack(flow, 2)
    return torch.cat([stacked[:, :-1], stacked[:, -2:-1]], 1)


# ------------------------------------------------------------------------------------------ textures and shapes


@cache
def _textures(count: int = 384, size: int = 128) -> Tensor:
    """Grounds of mean 0 and deviation 1: noise as in nature, leaves over leaves, stripes: (count, size, size).

    The amplitude of natural pictures falls with the frequency f as 1 / f^a, a about 1.
    """
    draw = _Draw(torch.Generator().manual_seed(20241024))
    third = count // 3
    leaves = _leaves(draw, third, size)
    textures = torch.cat([_noise(draw, count - third - third // 2, size), leaves, _stripes(draw, third // 2, size)])
    centred = textures - textures.mean((1, 2), keepdim=True)
    return centred / centred.std((1, 2), keepdim=True).clamp_min(1e-3)


@cache
def _small_textures() -> Tensor:
    """The same for objects, which are smaller: (count, 64, 64)."""
    small = F.avg_pool2d(_textures(), 2)
    return small / small.std((1, 2), keepdim=True)


@cache
def _noise_frames(size: int, count: int = 64) -> Tensor:
    """Frames of white noise; drawing them anew for every clip would take longer than all the rest."""
    return torch.randn(count, size, size, generator=torch.Generator().manual_seed(7))


def _noise(draw: "_Draw", count: int, size: int) -> Tensor:
    frequency = torch.fft.fftfreq(size)
    radius = torch.hypot(frequency[:, None], frequency[None]).clamp_min(1 / size)
    spectrum = torch.complex(draw.normal(count, size, size), draw.normal(count, size, size))
    return torch.fft.ifft2(spectrum * radius ** -draw.uniform(count, 1, 1, low=0.9, high=2.3)).real


def _leaves(draw: "_Draw", count: int, size: int, leaves: int = 80) -> Tensor:
    """Discs and bars of all sizes over one another, the "dead leaves" model of natural pictures."""
    ticks = torch.linspace(-1, 1, size)
    picture = torch.zeros(count, size, size)
    for _ in range(leaves):
        x, y, level = (draw.uniform(count, 1, 1, low=-1.1, high=1.1) for _ in range(3))
        across = draw.uniform(count, 1, 1, low=-3.2, high=-0.6).exp()
        down = across * draw.uniform(count, 1, 1, low=-0.9, high=0.9).exp()
        dx, dy = ((ticks - x) / across).abs(), ((ticks[:, None] - y) / down).abs()
        square = draw.coin(count, 0.4)[:, None, None]
        inside = (
            torch.where(square, torch.maximum(dx.expand_as(picture), dy.expand_as(picture)), torch.hypot(dx, dy)) < 1
        )
        picture = torch.where(inside, level.expand_as(picture), picture)
    return picture


def _stripes(draw: "_Draw", count: int, size: int) -> Tensor:
    """Stripes and checks."""
    ticks = torch.linspace(-1, 1, size)
    angle = draw.uniform(count, 1, 1, high=math.pi)
    pace = draw.uniform(count, 1, 1, low=4, high=24)
    first = (pace * (angle.cos() * ticks + angle.sin() * ticks[:, None]) + 6 * angle).sin()
    second = (pace * (angle.cos() * ticks[:, None] - angle.sin() * ticks)).sin()
    sharp = draw.uniform(count, 1, 1, low=1, high=8)
    return (sharp * torch.where(draw.coin(count, 0.5)[:, None, None], first * second, first)).tanh()


@cache
def _shapes(count: int = 512, size: int = 64) -> Tensor:
    """How deep each point lies in a shape (negative outside), in the shape's coordinates: (count, size, size).

    A depth, other than a mask, stays smooth at every scale: pixels at the rim are covered in part.
    """
    draw = _Draw(torch.Generator().manual_seed(2024))
    ticks = torch.linspace(-1, 1, size)
    x, y = ticks.expand(size, size), ticks[:, None].expand(size, size)
    radius, turn = torch.hypot(x, y), (torch.atan2(y, x) / (2 * math.pi)) % 1
    quarter = count // 4
    blobs = (0.7 - radius) * 2 + 0.5 * F.normalize(_noise(draw, quarter, size).flatten(1), dim=1).unflatten(
        1, (size, size)
    ) * size
    shapes = [F.avg_pool2d(blobs[:, None], 5, 1, 2, count_include_pad=False)[:, 0]]
    for _ in range(quarter):  # polygons with 3 to 8 corners at random distances
        corners = 3 + int(draw.integers(1, 6))
        edge = draw.uniform(corners, low=0.35, high=0.9)
        at = turn * corners
        corner, part = at.long() % corners, at.frac()
        shapes.append((torch.lerp(edge[corner], edge[(corner + 1) % corners], part) - radius)[None])
    arms = 2 + draw.integers(quarter, 6)[:, None, None]
    deep = draw.uniform(quarter, 1, 1, low=0.05, high=0.4)
    flowers = 0.5 + deep * (2 * math.pi * turn * arms).cos() - radius
    wide, high = draw.uniform(quarter, 1, 1, low=0.15, high=0.9), draw.uniform(quarter, 1, 1, low=0.15, high=0.9)
    boxes = torch.minimum(wide - x.abs(), high - y.abs())
    ellipses = 1 - torch.hypot(x / wide, y / high)
    depth = torch.cat([*shapes, flowers, torch.where(draw.coin(quarter, 0.5)[:, None, None], boxes, ellipses)])
    slope = torch.hypot(*torch.gradient(depth, spacing=2 / (size - 1), dim=(1, 2)))
    slope = F.avg_pool2d(slope[:, None], 3, 1, 1, count_include_pad=False)[:, 0]
    return (depth / slope.clamp_min(0.3)).clamp(-0.6, 0.6)


# -------------------------------------------------------------------------------------------------------- helpers


class _Draw:
    """Random numbers of the shapes and ranges that are needed here, from one generator."""

    def __init__(self, generator: Generator) -> None:
        self.generator = generator

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return torch.rand(shape, generator=self.generator) * (high - low) + low

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator)

    def integers(self, n: int, high: int) -> Tensor:
        return torch.randint(high, (n,), generator=self.generator)

    def coin(self, n: int, probability: float | Tensor) -> Tensor:
        return torch.rand(n, generator=self.generator) < probability

    def sign(self, n: int) -> Tensor:
        return self.coin(n, 0.5) * 2.0 - 1.0

    def pick(self, bank: Tensor, n: int) -> Tensor:
        return bank[self.integers(n, len(bank))]


def _sample(picture: Tensor, pose: _Pose, size: int, padding: str) -> Tensor:
    """Look at pictures (n, 1, h, w) in the poses (n, T): (n, T, 1, S, S)."""
    n, num_frames = pose.x.shape
    grid = pose.sampling_grid(size)
    seen = F.grid_sample(picture.repeat_interleave(num_frames, 0), grid, padding_mode=padding, align_corners=False)
    return seen.unflatten(0, (n, num_frames))


def _spread(colour: Tensor) -> Tensor:
    """(n, C) to (n, 1, C, 1, 1)."""
    return colour[:, None, :, None, None]


def _like(values: Tensor, other: Tensor) -> Tensor:
    """Give (n, T) values as many dimensions as another tensor has."""
    return values[(...,) + (None,) * (other.ndim - values.ndim)]


def _next(values: Tensor) -> Tensor:
    """(n, T, ...) shifted by a frame, the last one twice."""
    return torch.cat([values[:, 1:], values[:, -1:]], 1)
