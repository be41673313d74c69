"""Messages between the server and a decoding process: an object of JSON, and bytes.

A process that reads hostile files may fall into hostile hands. So nothing that it says is unpickled: it is read as JSON
and as pixels, of bounded length.
"""

import asyncio
import json
import os
import socket
import struct
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

HEAD = struct.Struct(">II")  # bytes of the JSON, bytes that follow it
MAX_TEXT, MAX_BYTES = 2**20, 2**28

Message = tuple[dict[str, Any], bytes]


def send(
    channel: socket.socket, text: dict[str, Any], content: "bytes | NDArray[Any]" = b"", files: Iterable[int] = ()
) -> None:
    """Send a message, and open files with it.

    Args:
        channel: a Unix socket.
        text: what JSON can hold.
        content: bytes, or an array that lies in one piece.
        files: descriptors, which the other side gets as its own.
    """
    data = content if isinstance(content, bytes) else content.reshape(-1).view(np.uint8).data
    encoded = json.dumps(text).encode()
    head = HEAD.pack(len(encoded), len(data))
    if files := list(files):
        socket.send_fds(channel, [head], files)
    else:
        channel.sendall(head)
    channel.sendall(encoded)
    channel.sendall(data)


def receive(channel: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """Wait for a message without bytes; return it and the files that came with it, or None at the end."""
    head, files, _, _ = socket.recv_fds(channel, HEAD.size, 1)
    try:
        length, _ = HEAD.unpack(head + _exactly(channel, HEAD.size - len(head)))
        return json.loads(_exactly(channel, length)), list(files)
    except EOFError:
        for file in files:
            with suppress(OSError):
                os.close(file)
        return None


async def receive_async(reader: asyncio.StreamReader) -> Message:
    """Wait for a message.

    Raises:
        EOFError: if the other side has ended, or says what is no message.
    """
    length, size = HEAD.unpack(await reader.readexactly(HEAD.size))
    if length > MAX_TEXT or size > MAX_BYTES:
        raise EOFError(f"a message of {length} and {size} bytes is longer than any should be.")
    try:
        return dict(json.loads(await reader.readexactly(length))), await reader.readexactly(size)
    except ValueError as error:
        raise EOFError("a message is no JSON.") from error


def _exactly(channel: socket.socket, length: int) -> bytes:
    received = bytearray()
    while len(received) < length:
        part = channel.recv(length - len(received))
        if not part:
            raise EOFError("the other side has ended.")
        received += part
    return bytes(received)
