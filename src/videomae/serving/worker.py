"""The program of a decoding process: it answers questions about uploads until its server ends.

It is started anew after a file that crashes it or takes too long, so what it can do is small: it holds no model and no
secret, writes no file, and dies with its server even while a decoder hangs.
"""

import logging
import os
import signal
import socket
import sys
from typing import Any

from videomae.serving.channel import receive, send
from videomae.serving.decoding import ClipDecoder, refusal_of

GRACE = 5.0  # seconds that the server has to end a process before it ends itself


def serve(descriptor: int) -> None:
    """Answer questions that come through a socket.

    The first message is what `ClipDecoder.to_dict` returned. A question is ``{"ask": "clip" or "windows", ...}`` with
    an open file, or the end of a pipe. The answer is a message for each array, and one with ``"last"``, which says
    ``"status"`` and ``"error"`` where something is wrong.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server decides
    logging.disable()  # what is wrong with a file is told to the one who sent it
    channel = socket.socket(fileno=descriptor)
    if (setup := receive(channel)) is None:
        return
    decoder = ClipDecoder.from_dict(setup[0])
    confine(memory=decoder.limits.decode_memory)
    send(channel, {"ready": True})
    while (question := receive(channel)) is not None:
        options, files = question
        try:
            answer(channel, decoder, options, files[0])
        except BrokenPipeError:
            return
        finally:
            for file in files:
                os.close(file)


def answer(channel: socket.socket, decoder: ClipDecoder, options: dict[str, Any], file: int) -> None:
    """Send the clips of one upload."""
    path = f"/dev/fd/{file}"
    longest = decoder.limits.decode_seconds + GRACE
    if options["ask"] == "windows" and options.pop("live"):
        longest += decoder.limits.upload_seconds  # it waits for what is to come
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    try:
        signal.setitimer(signal.ITIMER_REAL, longest)
        for about, clip in getattr(decoder, options.pop("ask"))(path, **options):
            signal.setitimer(signal.ITIMER_REAL, 0)  # the server may take its time
            send(channel, about | {"shape": clip.shape, "dtype": clip.dtype.name}, clip)
            signal.setitimer(signal.ITIMER_REAL, longest)
        send(channel, {"last": True})
    except BrokenPipeError:
        raise
    except Exception as error:
        refusal = refusal_of(error, path)
        send(channel, {"last": True, "status": refusal.status, "error": refusal.message})
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def confine(*, memory: int) -> None:
    """Take from this process what decoding does not need: memory, writing files, leaving a picture of itself."""
    import resource  # not on Windows, where nothing is served

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    if sys.platform == "linux":
        with open("/proc/self/statm") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + memory, used + memory))


PROGRAM = f"import sys; from {__name__} import serve; serve(int(sys.argv[1]))"
