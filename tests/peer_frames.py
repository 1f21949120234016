"""The strict WebSocket codec of the tests' peer (RFC 6455): looks at every byte, forgives nothing.

Standard library only, and nothing of the library under test.
"""

from __future__ import annotations

import base64
import hashlib
import os
import zlib
from collections.abc import Iterator
from typing import NamedTuple

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
_ACCEPT = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
# What a sender takes off each compressed message (RFC 7692, 7.2.1).
_FLUSHED = b"\0\0\xff\xff"


class ViolationError(Exception):
    """The other side broke a rule of the protocol."""


class Frame(NamedTuple):
    """One frame, unmasked."""

    opcode: int
    payload: bytes
    fin: bool
    rsv1: bool
    key: bytes  # the mask; empty if there was none


def accept_of(key: str) -> str:
    """The answer to a Sec-WebSocket-Key (4.2.2)."""
    return base64.b64encode(hashlib.sha1(key.encode() + _ACCEPT).digest()).decode()


def mask(payload: bytes, key: bytes) -> bytes:
    """Mask or unmask (5.3)."""
    if not payload:
        return payload
    whole = (key * (len(payload) // 4 + 1))[: len(payload)]
    mixed = int.from_bytes(payload, "little") ^ int.from_bytes(whole, "little")
    return mixed.to_bytes(len(payload), "little")


def encode(
    opcode: int, payload: bytes, *, masked: bool, fin: bool = True, rsv1: bool = False
) -> bytes:
    """One frame on the wire."""
    first = opcode | 0x80 * fin | 0x40 * rsv1
    size = len(payload)
    if size < 126:
        head = bytes([first, size | 0x80 * masked])
    elif size < 1 << 16:
        head = bytes([first, 126 | 0x80 * masked]) + size.to_bytes(2)
    else:
        head = bytes([first, 127 | 0x80 * masked]) + size.to_bytes(8)
    if not masked:
        return head + payload
    key = os.urandom(4)
    return head + key + mask(payload, key)


def _require(true: object, rule: str) -> None:
    if not true:
        raise ViolationError(rule)


class FrameParser:
    """Bytes in, whole frames out; what no endpoint may send raises."""

    def __init__(self, *, masked: bool, deflate: bool) -> None:
        self._masked = masked
        self._deflate = deflate
        self._waiting = bytearray()
        self._need = 2
        self._in_message = False
        self._closed = False

    def feed(self, data: bytes) -> Iterator[Frame]:
        self._waiting += data
        while len(self._waiting) >= self._need:
            header = self._header()
            if header is None:
                continue
            start, size = header
            self._need = start + size
            if len(self._waiting) < self._need:
                return
            frame = self._frame(start)
            del self._waiting[: self._need]
            self._need = 2
            # A Ping that was on its way may still be answered (5.5.2).
            _require(not self._closed or frame.opcode == PONG, "a frame after Close (5.5.1)")
            self._closed = self._closed or frame.opcode == CLOSE
            yield frame

    def between_frames(self) -> bool:
        """No frame has begun that did not end."""
        return not self._waiting

    def _header(self) -> tuple[int, int] | None:
        """Where the payload starts, and its size; None if more bytes are needed for that."""
        second = self._waiting[1]
        short = second & 0x7F
        extra = {126: 2, 127: 8}.get(short, 0)
        start = 2 + extra + 4 * self._masked
        _require(bool(second & 0x80) is self._masked, "masked by clients only and always (5.1)")
        if len(self._waiting) < start:
            self._need = start
            return None
        size = int.from_bytes(self._waiting[2 : 2 + extra]) if extra else short
        _require(extra != 2 or size >= 126, "the shortest length (5.2)")
        _require(extra != 8 or 1 << 16 <= size < 1 << 63, "the shortest length, below 2^63 (5.2)")
        return start, size

    def _frame(self, start: int) -> Frame:
        first = self._waiting[0]
        opcode, fin, rsv1 = first & 15, bool(first & 0x80), bool(first & 0x40)
        payload = bytes(self._waiting[start : self._need])
        key = b""
        if self._masked:
            key = bytes(self._waiting[start - 4 : start])
            payload = mask(payload, key)
        _require(not first & 0x30, "RSV2 and RSV3 (5.2)")
        _require(opcode in (0, 1, 2, 8, 9, 10), "opcode (5.2)")
        if opcode >= 8:
            _require(fin and not rsv1 and len(payload) <= 125, "control frame (5.5)")
            if opcode == CLOSE:
                _check_close(payload)
        else:
            _require(self._in_message is (opcode == CONTINUATION), "fragmentation (5.4)")
            _require(not rsv1 or (self._deflate and opcode), "RSV1 (RFC 7692, 6)")
            self._in_message = not fin
        return Frame(opcode, payload, fin, rsv1, key)


def _check_close(payload: bytes) -> None:
    _require(len(payload) != 1, "Close of one byte (5.5.1)")
    if payload:
        code = int.from_bytes(payload[:2])
        _require(code in {*range(1000, 1015)} - {1004, 1005, 1006} or 3000 <= code < 5000, "code")
        _require(_is_utf8(payload[2:]), "UTF-8 reason (5.5.1)")


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


class Messages:
    """Whole messages of one direction: how many, and one hash of all, in order."""

    def __init__(self) -> None:
        self.count = 0
        self._hash = hashlib.sha256()

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()

    def add(self, text: bool, payload: bytes) -> None:
        self.count += 1
        self._hash.update(b"%d %d " % (text, len(payload)))
        self._hash.update(payload)


class MessageParser:
    """Data frames in, messages hashed."""

    def __init__(self) -> None:
        self.messages = Messages()
        self._parts: list[bytes] = []
        self._text = False
        self._packed = False
        self._inflater = zlib.decompressobj(wbits=-15)

    def add(self, frame: Frame) -> None:
        if frame.opcode != CONTINUATION:
            self._text, self._packed = frame.opcode == TEXT, frame.rsv1
        self._parts.append(frame.payload)
        if not frame.fin:
            return
        payload = b"".join(self._parts)
        self._parts.clear()
        if self._packed:
            payload = self._inflater.decompress(payload + _FLUSHED)
        _require(not self._text or _is_utf8(payload), "UTF-8 (5.6)")
        self.messages.add(self._text, payload)


class MessageWriter:
    """Messages in, frames out; counted and hashed on the way."""

    def __init__(self, *, masked: bool) -> None:
        self.messages = Messages()
        self.deflate = False
        self._masked = masked
        self._deflater = zlib.compressobj(wbits=-15)

    def control(self, opcode: int, payload: bytes) -> bytes:
        return encode(opcode, payload, masked=self._masked)

    def frames(self, text: bool, payload: bytes, fragments: int) -> list[bytes]:
        self.messages.add(text, payload)
        if self.deflate:
            payload = self._deflater.compress(payload) + self._deflater.flush(zlib.Z_SYNC_FLUSH)
            payload = payload.removesuffix(_FLUSHED)
        step = -(-len(payload) // fragments) or 1
        pieces = [payload[i : i + step] for i in range(0, len(payload), step)] or [b""]
        return [
            encode(
                CONTINUATION if number else TEXT if text else BINARY,
                piece,
                masked=self._masked,
                fin=number == len(pieces) - 1,
                rsv1=self.deflate and not number,
            )
            for number, piece in enumerate(pieces)
        ]
