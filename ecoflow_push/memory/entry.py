"""Entry: one record on its way, and the form of its file."""

from __future__ import annotations

import struct
import zlib
from functools import lru_cache

from ecoflow_push.config.kinds import is_serial
from ecoflow_push.memory.files import MAX_FILE_BYTES, MOST_VALUES, values_in

MAGIC = b"ecoflow-push spool 1\n"
# Of the compressed content behind it: its length, its CRC-32.
HEADER = struct.Struct(">II")
# No snapshot comes near; what is larger was not written by us.
MOST_BYTES = MAX_FILE_BYTES
# Bytes of a piece that is kept; that of a record of 1,500 names is shorter.
MOST_REMEMBERED = 256 * 1024


class Entry:
    """One record, on its way: in memory, in the spool, or in both."""

    __slots__ = (
        *("content", "device", "has_file", "is_fresh", "is_stored"),
        *("samples", "series", "size", "time_ms"),
    )

    def __init__(
        self,
        time_ms: int,
        samples: int,
        device: str,
        body: bytes | tuple[bytes, bytes, bytes] | None = None,
        size: int = 0,
    ) -> None:
        self.time_ms = time_ms
        self.samples = samples
        self.device = device
        #: What goes into its file; None where it is only there.
        self.content = None if body is None else framed(body)
        #: Bytes of the file, 0 as long as nobody has looked.
        self.size = size
        self.has_file = body is None
        #: The file will outlast a power cut.
        self.is_stored = body is None
        #: Of this run.
        self.is_fresh = body is not None
        #: Its record's fingerprint, 0 if that is not known.
        self.series = 0

    @property
    def name(self) -> str:
        """That of its file; a device's records go out in the order of their names."""
        return f"{self.time_ms:015d}.{self.samples}.{self.device}"


def entry_named(name: str) -> Entry | None:
    """Return the entry that a file's name tells of, None for a foreign file."""
    time_ms, samples, device = [*name.split(".", 2), "", ""][:3]
    numbers = time_ms + samples
    is_ours = numbers.isdecimal() and is_serial(device)
    if not (is_ours and name.isascii() and len(numbers) < 25):
        return None
    entry = Entry(int(time_ms or 0), int(samples or 0), device)
    return entry if entry.name == name else None


def framed(body: bytes | tuple[bytes, bytes, bytes]) -> bytes:
    """Return what a file holds of a record.

    Of one in three pieces the second comes again in others: it is compressed once.
    """
    content = _packed(*body) if isinstance(body, tuple) else zlib.compress(body, 1)
    return MAGIC + HEADER.pack(len(content), zlib.crc32(content)) + content


def _packed(begin: bytes, middle: bytes, end: bytes) -> bytes:
    """Return what zlib.compress might of the three together (RFC 1950).

    Behind a full flush nothing refers to what was before.
    """
    # Both are short: to clear tables for long ones would cost as much as all else.
    packer = zlib.compressobj(1, wbits=-13, memLevel=6)
    before = packer.compress(begin) + packer.flush(zlib.Z_FULL_FLUSH)
    behind = packer.compress(end) + packer.flush()
    known = _block if len(middle) <= MOST_REMEMBERED else _block.__wrapped__
    total = zlib.adler32(end, zlib.adler32(middle, zlib.adler32(begin)))
    return b"".join(
        (b"\x78\x01", before, known(middle), behind, total.to_bytes(4, "big"))
    )


@lru_cache(maxsize=32)
def _block(piece: bytes) -> bytes:
    packer = zlib.compressobj(1, wbits=-zlib.MAX_WBITS)
    return packer.compress(piece) + packer.flush(zlib.Z_FULL_FLUSH)


def unframed(data: bytes) -> bytes:
    """Return what `framed` was given; raises ValueError for anything else."""
    start = len(MAGIC) + HEADER.size
    content = data[start:]
    if data[: len(MAGIC)] != MAGIC or len(data) < start:
        raise ValueError("not a record of this version")
    if (len(content), zlib.crc32(content)) != HEADER.unpack(data[len(MAGIC) : start]):
        raise ValueError("damaged")
    decompressor = zlib.decompressobj()
    try:
        body = decompressor.decompress(content, MOST_BYTES)
    except zlib.error as exc:
        raise ValueError("damaged") from exc
    # A value has a byte at least: mostly nothing is to be counted.
    is_large = len(body) > MOST_VALUES and values_in(body) > MOST_VALUES
    if not decompressor.eof or is_large:
        raise ValueError("larger than any record")
    return body
