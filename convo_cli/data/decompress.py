"""Bytes of a data file: plain, gzip or Zstandard, from a path or from stdin, and their writer."""

from __future__ import annotations

import gzip
import io
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, cast

import zstandard

STDIN = "-"
BUFFER_BYTES = 2**18
DAMAGED = (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError)
"""Exceptions for compressed data that is truncated or damaged."""


# A Zstandard block of 4 bytes can hold 128 KiB, so at most 8 MiB are unpacked at once.
_ZSTD_READ_BYTES = 2**8

OpenRaw: TypeAlias = Callable[[str], io.FileIO]


class WindowError(zstandard.ZstdError):
    """Zstandard data with a window of more than 128 MiB, as ``zstd --long=28`` makes."""


@contextmanager
def open_unpacked(
    source: str, open_raw: OpenRaw | None = None
) -> Iterator[tuple[io.BufferedReader[Any], io.BufferedReader[Any]]]:
    """Open the raw bytes and the unpacked text of a file.

    Of the raw bytes of a packed file, a caller may only peek. A file opened by ``open_raw`` stays
    open at the end.
    """
    if source == STDIN:
        stdin = io.BufferedReader(cast(Any, sys.stdin.buffer), BUFFER_BYTES)
        try:
            yield stdin, stdin
        finally:
            stdin.detach()
        return
    packed = io.BufferedReader((open_raw or io.FileIO)(source), BUFFER_BYTES)
    suffix = Path(source).suffix.lower()
    try:
        if suffix == ".gz":
            yield packed, io.BufferedReader(cast(Any, gzip.GzipFile(fileobj=packed)), BUFFER_BYTES)
        elif suffix == ".zst":
            yield packed, io.BufferedReader(_ZstdReader(packed), BUFFER_BYTES)
        else:
            yield packed, packed
    finally:
        if open_raw is None:
            packed.close()
        else:
            packed.detach()


@contextmanager
def packed(file: BinaryIO, suffix: str) -> Iterator[Callable[[bytes], object]]:
    """Yield a function that writes a line, compressed by the suffix of the file.

    A .gz file contains no name and no time, so equal lines give equal bytes.
    """
    if suffix == ".gz":
        with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
            yield packed.write
    elif suffix == ".zst":
        with zstandard.ZstdCompressor().stream_writer(file, closefd=False) as packed:
            yield packed.write
    else:
        yield file.write


class _ZstdReader(io.RawIOBase):
    """Unpacks Zstandard frames; python-zstandard's own reader accepts a truncated file as whole."""

    def __init__(self, packed: io.BufferedReader[Any]) -> None:
        self._packed = packed
        self._decoder = zstandard.ZstdDecompressor().decompressobj()
        self._is_inside_frame = False
        self._unpacked = memoryview(b"")
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._unpacked:
            block = self._rest or self._packed.read(_ZSTD_READ_BYTES)
            if not block:
                if self._is_inside_frame:
                    raise EOFError("the file ends in the middle of the data")
                return 0
            if self._decoder.eof:
                self._decoder = zstandard.ZstdDecompressor().decompressobj()
            try:
                self._unpacked = memoryview(self._decoder.decompress(block))
            except zstandard.ZstdError as error:
                if "too much memory" in str(error):
                    raise WindowError from None
                raise
            self._is_inside_frame = not self._decoder.eof
            self._rest = self._decoder.unused_data if self._decoder.eof else b""
        size = min(len(buffer), len(self._unpacked))
        buffer[:size] = self._unpacked[:size]
        self._unpacked = self._unpacked[size:]
        return size
