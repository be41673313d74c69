"""Whatever the decoding library raises, and wherever, is a VideoError that names the file."""

import contextlib
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import pytest

from videomae.data.audit.inspect import inspect_video
from videomae.errors import VideoError
from videomae.video import stream as stream_module
from videomae.video.backends import conversion, packets
from videomae.video.backends import pyav as pyav_module
from videomae.video.reader import VideoReader
from videos import moving_square, write_video

NUM_FRAMES = 2
FFMPEG = [kind for _, kind in inspect.getmembers(av.error, inspect.isclass) if issubclass(kind, av.FFmpegError)]
# One of all that have the same base classes, and those that the package handles by name.
OF_LIBRARY = [*{kind.__bases__: kind for kind in FFMPEG}.values(), av.error.InvalidDataError, av.error.ExitError]
OF_PYTHON = [
    OSError,
    ValueError,
    RuntimeError,
    MemoryError,
    TypeError,
    AttributeError,
    IndexError,
    KeyError,
    OverflowError,
    NotImplementedError,
    AssertionError,
    EOFError,
    TimeoutError,
]
ERRORS = [kind(-5, "injected") for kind in OF_LIBRARY] + [kind("injected") for kind in OF_PYTHON]
ERRORS.append(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "injected"))
PARTS = {"InputContainer", "StreamContainer", "VideoStream", "Packet"}
VideoFormatter = conversion.VideoReformatter


class Faults:
    """Counts the calls of the library, and raises an error at one of them."""

    def __init__(self, error: Exception | None = None, at: int = -1) -> None:
        self.error, self.at, self.calls = error, at, 0

    def count(self) -> None:
        self.calls += 1
        if self.error is not None and self.calls == self.at:
            raise self.error

    def wrap(self, value: Any) -> Any:
        """Return an object of the library with its calls counted; frames stay as they are, for its own C code."""
        if isinstance(value, list | tuple):
            return type(value)(map(self.wrap, value))
        if inspect.isgenerator(value) or type(value).__name__ == "generator":
            return self._each(value)
        is_call = callable(value) and not isinstance(value, type)
        if is_call:
            return lambda *arguments, **options: self._call(value, arguments, options)
        return Part(value, self) if type(value).__name__ in PARTS else value

    def _call(self, function: Callable[..., Any], arguments: Any, options: dict[str, Any]) -> Any:
        self.count()
        options = {name: bare(value) for name, value in options.items()}
        return self.wrap(function(*map(bare, arguments), **options))

    def _each(self, items: Any) -> Any:
        try:
            for item in items:
                self.count()
                yield self.wrap(item)
        finally:
            items.close()


class Part:
    """A container, stream or packet whose calls are counted."""

    def __init__(self, bare: Any, faults: Faults) -> None:
        self.__dict__.update(bare=bare, faults=faults)

    def __getattr__(self, name: str) -> Any:
        return self.faults.wrap(getattr(self.bare, name))

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.bare, name, bare(value))

    def __iter__(self) -> Any:
        return map(self.faults.wrap, self.bare)

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *error: object) -> None:
        self.bare.close()


def bare(value: Any) -> Any:
    return value.__dict__["bare"] if isinstance(value, Part) else value


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    return write_video(tmp_path_factory.mktemp("faults") / "injected.mkv", moving_square(NUM_FRAMES)[:, :32, :32])


def read_file(path: Path) -> int:
    with VideoReader(path, threads=1) as reader:
        return len(reader.frames_at([NUM_FRAMES - 1, 0])) + len(list(reader))


def read_past_damage(path: Path) -> int:
    with VideoReader(path, threads=1, on_error="skip") as reader:
        return len(list(reader))


def read_stream(path: Path) -> int:
    return len(list(stream_module.stream_frames(path, on_error="raise")))


@pytest.fixture
def call_with(monkeypatch, video):
    """Return what calls a function of the video with faults; nothing is known of the file from before."""
    opened = av.open
    monkeypatch.setattr(stream_module, "is_stream", lambda source: True)

    def call(read: Callable[[Path], Any], faults: Faults) -> Any:
        class Reformatter:
            def __init__(self) -> None:
                self.real = VideoFormatter()

            def reformat(self, *arguments: Any, **options: Any) -> Any:
                faults.count()
                return self.real.reformat(*arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(av, "open", lambda *arguments, **options: faults._call(opened, arguments, options))
            patch.setattr(conversion, "VideoReformatter", Reformatter)
            patch.setattr(packets, "memoryview", lambda packet: memoryview(bare(packet)), raising=False)
            patch.setattr(pyav_module.INDICES, "get", lambda state: None)
            return read(video)

    return call


@contextlib.contextmanager
def naming_the_file() -> Iterator[None]:
    try:
        yield
    except VideoError as error:
        if "injected.mkv" not in str(error):
            raise AssertionError(f"no file is named: {error}") from error
        raise


@pytest.mark.parametrize("read", [read_file, read_past_damage, read_stream])
def test_any_error_at_any_call_is_a_video_error_that_names_the_file(read, call_with):
    """A seek that FFmpeg refuses has another way, and what is skipped no error; all else is one."""
    sound = Faults()
    assert call_with(read, sound) >= NUM_FRAMES
    assert sound.calls > 2 * NUM_FRAMES
    with pytest.raises(VideoError):
        call_with(read, Faults(RuntimeError(), 1))
    for at in range(1, sound.calls + 1):
        for error in ERRORS:
            with contextlib.suppress(VideoError), naming_the_file():
                call_with(read, Faults(error, at))


def test_a_check_tells_of_any_error_at_any_call(call_with):
    sound = Faults()
    assert call_with(inspect_video, sound).num_frames == NUM_FRAMES
    for at in range(1, sound.calls + 1):
        for error in ERRORS:
            facts = call_with(inspect_video, Faults(error, at))
            assert facts.problem or facts.num_frames
            assert all("injected.mkv" in text for text in (facts.reason, facts.damage) if text)
