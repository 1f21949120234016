"""The core's frame tracker against the parser of websockets, on random streams in random pieces.

The guard answers a Ping only if the library would, had it seen the stream, and it goes on for as
long as the library does. What the library says after each piece is the measure of both.
"""

from __future__ import annotations

import ctypes
import os
import random
import shlex
import shutil
import struct
import subprocess
import sysconfig
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from websockets import frames
from websockets.exceptions import PayloadTooBig
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Opcode
from websockets.protocol import CLIENT, OPEN, SERVER, Protocol, Side
from websockets.version import version

CORE = Path(__file__).parent.parent / "csrc" / "core"
STREAMS = 1500
FIN, RSV1, RSV2, RSV3 = 0x80, 0x40, 0x20, 0x10
FRAMES, CLOSED, BROKEN = 1, 2, 3  # enum wso_phase
SEEN = {1: Opcode.PING, 2: Opcode.PONG, 3: Opcode.CLOSE}  # enum wso_seen
SIZES = [0, 0, 1, 2, 5, 30, 124, 125, 126, 127, 200, 65535, 65536]
WEIGHTS = [8, 8, 8, 8, 8, 8, 4, 4, 4, 4, 4, 1, 1]
MARKER = b"the last Ping"


class Tracker(ctypes.Structure):
    """struct wso_tracker."""

    _fields_ = (
        ("left", ctypes.c_uint64),
        ("max_message", ctypes.c_uint64),
        ("max_fragment", ctypes.c_uint64),
        ("message_size", ctypes.c_uint64),
        ("largest_message", ctypes.c_uint64),
        ("largest_fragment", ctypes.c_uint64),
        ("phase", ctypes.c_int),
        ("masked", ctypes.c_bool),
        ("rsv1", ctypes.c_bool),
        ("rsv1_seen", ctypes.c_bool),
        ("in_message", ctypes.c_bool),
        ("hold", ctypes.c_bool),
        ("held", ctypes.c_bool),
        ("matched", ctypes.c_uint8),
        ("frame_size", ctypes.c_uint8),
        ("frame", ctypes.c_uint8 * 131),
        ("payload", ctypes.c_uint8 * 125),
    )


class Sight(ctypes.Structure):
    """struct wso_sight."""

    _fields_ = (
        ("seen", ctypes.c_int),
        ("bytes", ctypes.c_void_p),
        ("size", ctypes.c_size_t),
        ("held", ctypes.c_bool),
        ("payload", ctypes.c_void_p),
        ("payload_size", ctypes.c_size_t),
    )


@dataclass(frozen=True)
class Terms:
    """What the handshake has settled; None: no bound."""

    deflate: bool
    max_message: int | None
    max_fragment: int | None

    @property
    def exact(self) -> bool:
        """No right stream is wrong for the tracker.

        Compressed, a message may be larger than what it is inflated to, and it is the latter that
        the library bounds. Before websockets 17 it let RSV1 pass in the middle of a message, which
        RFC 7692, section 6.1, forbids.
        """
        unbounded = self.max_message is self.max_fragment is None
        return not self.deflate or (unbounded and int(version.split(".")[0]) >= 17)


@dataclass(frozen=True)
class Frame:
    """A frame to be sent, right or wrong."""

    first: int  # its first byte
    payload: bytes
    mask: bytes
    length: int | None = None  # if it is not the payload's
    form: int = 0  # the length's field: 7, 126, 127; 0: the shortest

    def encode(self) -> bytes:
        length = len(self.payload) if self.length is None else self.length
        form = self.form or (7 if length < 126 else 126 if length < 65536 else 127)
        masked = FIN if self.mask else 0
        if form == 7:
            header = struct.pack("!BB", self.first, masked | length)
        else:
            field = "!BBH" if form == 126 else "!BBQ"
            header = struct.pack(field, self.first, masked | form, length)
        if not self.mask:
            return header + self.payload
        key = (self.mask * (len(self.payload) // 4 + 1))[: len(self.payload)]
        number = int.from_bytes(key, "big") ^ int.from_bytes(self.payload, "big")
        return header + self.mask + number.to_bytes(len(self.payload), "big")


class Tracked:
    """A tracker, and what it saw."""

    def __init__(self, core: ctypes.CDLL, masked: bool, terms: Terms, hold: bool) -> None:
        self.core = core
        self.tracker = Tracker()
        self.here = ctypes.byref(self.tracker)
        self.controls: list[tuple[Opcode, bytes]] = []
        self.passed = bytearray()
        core.wso_tracker_init(self.here, masked, False)
        bounds = (2**64 - 1 if b is None else b for b in (terms.max_message, terms.max_fragment))
        core.wso_tracker_limit(self.here, terms.deflate, *bounds)
        self.tracker.hold = hold

    def feed(self, piece: bytes) -> None:
        buffer = ctypes.create_string_buffer(piece, len(piece))
        at, left, sight = ctypes.addressof(buffer), len(piece), Sight()
        while left:
            taken = self.core.wso_tracker_feed(self.here, at, left, ctypes.byref(sight))
            assert 0 < taken <= left
            at, left = at + taken, left - taken
            if sight.size:
                self.passed += ctypes.string_at(sight.bytes, sight.size)
            if sight.seen:
                payload = ctypes.string_at(sight.payload, sight.payload_size)
                self.controls.append((SEEN[sight.seen], payload))

    def end(self) -> None:
        sight = Sight()
        self.core.wso_tracker_end(self.here, ctypes.byref(sight))
        self.passed += ctypes.string_at(sight.bytes, sight.size)


class Parsed:
    """An open connection of the library's, and what it saw."""

    def __init__(self, side: Side, terms: Terms) -> None:
        bounds = (terms.max_message, terms.max_fragment)
        self.protocol = Protocol(
            side, state=OPEN, max_size=bounds if has_fragment_bound() else bounds[0]
        )
        if terms.deflate:
            self.protocol.extensions = [PerMessageDeflate(False, False, 15, 15)]
        self.deflate = terms.deflate
        self.controls: list[tuple[Opcode, bytes]] = []

    def feed(self, piece: bytes) -> None:
        self.protocol.receive_data(piece)
        for event in self.protocol.events_received():
            assert isinstance(event, frames.Frame)
            if event.opcode in frames.CTRL_OPCODES:
                self.controls.append((event.opcode, bytes(event.data)))

    @property
    def error(self) -> Exception | None:
        error = self.protocol.parser_exc
        assert error is None or isinstance(error, Exception)
        return error

    @property
    def inflate_failed(self) -> bool:
        """What a compressed payload turns into is wrong or too big: no tracker can see that."""
        too_big = isinstance(self.error, PayloadTooBig)
        return self.deflate and (too_big or "decompression" in str(self.error))


def has_fragment_bound() -> bool:
    """Whether this version of websockets knows a bound for fragments."""
    return hasattr(Protocol(SERVER), "max_fragment_size")


def find_compiler() -> list[str] | None:
    """The command of a C compiler: the environment's, Python's own, or any."""
    for command in (os.environ.get("CC"), sysconfig.get_config_var("CC"), "cc", "gcc", "clang"):
        if command and shutil.which(shlex.split(command)[0]):
            return shlex.split(command)
    return None


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """frame.c as a library of its own."""
    compiler = find_compiler()
    if compiler is None:
        pytest.skip("there is no C compiler")
    library = tmp_path_factory.mktemp("frame") / "frame.so"
    flags = ["-std=c11", "-D_GNU_SOURCE", "-O1", "-fPIC", "-shared"]
    subprocess.run([*compiler, *flags, CORE / "frame.c", "-o", library], check=True)
    core = ctypes.CDLL(str(library))
    pointer, size, flag, bound = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_bool, ctypes.c_uint64
    core.wso_tracker_init.argtypes = [pointer, flag, flag]
    core.wso_tracker_limit.argtypes = [pointer, flag, bound, bound]
    core.wso_tracker_feed.argtypes = [pointer, pointer, size, pointer]
    core.wso_tracker_feed.restype = size
    core.wso_tracker_end.argtypes = [pointer, pointer]
    return core


# ---- Streams: right ones, and one frame of them made wrong.


def some_bytes(rng: random.Random) -> bytes:
    [size] = rng.choices(SIZES, WEIGHTS)
    return rng.randbytes(min(size, 8)) * (size // 8) + rng.randbytes(size % 8)


def some_control(rng: random.Random, mask: bytes, close: bool) -> Frame:
    if close:
        payload = rng.choice([b"", b"\x03\xe8", b"\x03\xe8bye", b"\x03\xf3\xff", b"\x03"])
        return Frame(FIN | Opcode.CLOSE, payload, mask)
    opcode = rng.choice([Opcode.PING, Opcode.PING, Opcode.PONG])
    return Frame(FIN | opcode, some_bytes(rng)[:125], mask)


def some_message(rng: random.Random, mask: bytes, deflate: bool) -> list[Frame]:
    """The frames of a message, with control frames among them."""
    first = int(rng.choice([Opcode.TEXT, Opcode.BINARY]))
    data = some_bytes(rng)
    if deflate and rng.random() < 0.7:
        first |= RSV1
        compressor = zlib.compressobj(wbits=-15)
        data = compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH)
        data = data[:-4]
    message: list[Frame] = []
    cuts = sorted(rng.randint(0, len(data)) for _ in range(rng.choice([0, 0, 1, 2, 3])))
    for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        form = rng.choice([0, 0, 0, 127])
        message.append(Frame(0 if message else first, data[begin:end], mask, form=form))
    message[-1] = replace(message[-1], first=message[-1].first | FIN)
    for place in range(len(message) - 1, 0, -1):
        if rng.random() < 0.4:
            message.insert(place, some_control(rng, mask, close=False))
    return message


def some_frames(rng: random.Random, masked: bool, deflate: bool) -> list[Frame]:
    sent = []
    for _ in range(rng.randint(1, 6)):
        mask = rng.randbytes(4) if masked else b""
        if rng.random() < 0.5:
            sent += some_message(rng, mask, deflate)
        else:
            sent.append(some_control(rng, mask, close=rng.random() < 0.1))
    return sent


Mutation = Callable[[random.Random, Frame], Frame]


def flip_mask(rng: random.Random, frame: Frame) -> Frame:
    return replace(frame, mask=b"" if frame.mask else rng.randbytes(4))


def long_control(rng: random.Random, frame: Frame) -> Frame:
    opcode = rng.choice([Opcode.PING, Opcode.PONG, Opcode.CLOSE])
    return replace(frame, first=FIN | opcode, payload=bytes(rng.choice([126, 127, 65536])), form=0)


def any_first(rng: random.Random, frame: Frame) -> Frame:
    return replace(frame, first=rng.randrange(256))


def with_opcode(frame: Frame, opcode: int) -> Frame:
    return replace(frame, first=frame.first & ~0x0F | opcode)


MUTATIONS: dict[str, Mutation] = {
    "nothing": lambda rng, frame: frame,
    "RSV1": lambda rng, frame: replace(frame, first=frame.first ^ RSV1),
    "RSV2": lambda rng, frame: replace(frame, first=frame.first | RSV2),
    "RSV3": lambda rng, frame: replace(frame, first=frame.first | RSV3),
    "FIN": lambda rng, frame: replace(frame, first=frame.first ^ FIN),
    "reserved opcode": lambda rng, frame: with_opcode(frame, rng.choice([3, 7, 11, 15])),
    "other data opcode": lambda rng, frame: with_opcode(frame, rng.randrange(3)),
    "any first byte": any_first,
    "mask": flip_mask,
    "long control frame": long_control,
    "top bit": lambda rng, frame: replace(frame, length=1 << 63 | rng.getrandbits(8), form=127),
    "huge": lambda rng, frame: replace(frame, length=rng.getrandbits(62), form=127),
    "longer than it says": lambda rng, frame: replace(frame, length=0, form=7),
    "shorter than it says": lambda rng, frame: replace(frame, length=125, form=7),
}


def some_terms(rng: random.Random) -> Terms:
    bounds = [None, None, None, 0, 10, 125, 200, 70000]
    fragment = rng.choice(bounds) if has_fragment_bound() else None
    return Terms(rng.random() < 0.4, rng.choice(bounds), fragment)


def pieces(rng: random.Random, stream: bytes) -> Iterator[bytes]:
    most = rng.choice([1, 3, 10, 200, 100_000]) if len(stream) < 3000 else 30_000
    while stream:
        size = rng.randint(1, most)
        yield stream[:size]
        stream = stream[size:]


# ---- The tests.


def check_same(tracked: Tracked, parsed: Parsed, terms: Terms) -> None:
    """Both are at the same place, as far as the bytes until now tell."""
    seen, phase = tracked.controls, tracked.tracker.phase
    if parsed.inflate_failed:
        # The tracker goes on, or has given up in time.
        assert seen[: len(parsed.controls)] == parsed.controls[: len(seen)]
        return
    if phase == CLOSED and parsed.error is not None:
        # A Close frame that the library fails the connection for.
        assert seen[-1][0] is Opcode.CLOSE
        seen = seen[:-1]
    if phase == BROKEN and not terms.exact:
        assert seen == parsed.controls[: len(seen)]
    else:
        assert seen == parsed.controls
    assert parsed.error is None or phase != FRAMES


@pytest.mark.parametrize("hold", [False, True], ids=["passed", "held"])
@pytest.mark.parametrize("side", [SERVER, CLIENT], ids=["server", "client"])
def test_the_tracker_agrees_with_the_library(core: ctypes.CDLL, side: Side, hold: bool) -> None:
    ends: Counter[tuple[str, int]] = Counter()
    for seed in range(STREAMS):
        rng = random.Random(f"{seed} {side} {hold}")
        terms, masked = some_terms(rng), side is SERVER
        sent = some_frames(rng, masked, terms.deflate)
        mutation, place = rng.choice(list(MUTATIONS)), rng.randrange(len(sent))
        sent[place] = MUTATIONS[mutation](rng, sent[place])
        sent.append(Frame(FIN | Opcode.PING, MARKER, bytes(4) if masked else b""))
        stream = b"".join(frame.encode() for frame in sent)

        tracked, parsed = Tracked(core, masked, terms, hold), Parsed(side, terms)
        for piece in pieces(rng, stream):
            tracked.feed(piece)
            parsed.feed(piece)
            check_same(tracked, parsed, terms)
        tracked.end()
        assert tracked.passed == stream
        ends[mutation, tracked.tracker.phase] += 1
    # Streams of each kind break at times, and right ones live or are closed.
    assert all(ends[mutation, BROKEN] > 5 for mutation in MUTATIONS), ends
    assert ends["nothing", FRAMES] > 20, ends
    assert ends["nothing", CLOSED] > 2, ends


def test_the_struct_is_the_cores(core: ctypes.CDLL) -> None:
    size = ctypes.sizeof(Tracker)
    buffer = (ctypes.c_uint8 * (size + 64))(*[0xFF] * (size + 64))
    core.wso_tracker_init(buffer, True, False)
    tracker = Tracker.from_buffer(buffer)
    assert tracker.phase == FRAMES
    assert tracker.masked
    assert tracker.rsv1
    assert not tracker.hold
    assert (tracker.max_message, tracker.max_fragment) == (2**64 - 1, 2**64 - 1)
    assert not any(tracker.payload)
    assert all(byte == 0xFF for byte in buffer[size:])
