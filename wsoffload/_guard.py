"""The guard for whoever adapts a WebSocket library to it: its settings, and the taking over of a
connection from the transport of the event loop.
"""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import operator
import os
import socket
import sys
from asyncio import selector_events
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Final, Literal, cast

from wsoffload import _core
from wsoffload._guard_report import Sums, report_rescue, sums

#: The least that one connection may read ahead: a page.
LEAST_READ_AHEAD = 4096

#: Seconds between two looks at what the guard has to say to the log of a connection.
LOG_EVERY = 0.1

#: Why a TLS connection is not guarded.
TLS: Final = "it uses TLS, which the guard cannot read yet"

_OPCODES = {9: "PING", 10: "PONG"}

State = Literal["starting", "guarded", "ended", "unguarded"]

_STATES: dict[str, State] = {
    "new": "starting",
    "guarded": "guarded",
    "ended": "ended",
    "retired": "ended",
}


class Unguardable(RuntimeError):
    """A connection cannot be guarded; `reason` says why. It works without."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def check_seconds(name: str, seconds: float | None, *, least: float | None = None) -> None:
    """Raise if this is neither None nor a positive number of seconds; `least` may be 0."""
    if seconds is None:
        return
    try:
        valid = seconds > 0 or seconds == least
    except TypeError:
        raise TypeError(f"{name} must be None or a number of seconds, not {seconds!r}") from None
    if not valid:
        raise ValueError(
            f"{name} must be more than 0 seconds, not {seconds!r}: use None where it does not apply"
        )


def _check_bytes(name: str, value: int, least: int, cure: str) -> None:
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be a number of bytes, not {value!r}") from None
    if not least <= number < 2**63:
        raise ValueError(f"{name} must be at least {least} bytes, not {value!r}: {cure}")


@dataclass(frozen=True, kw_only=True)
class Guard:
    """What the guard may do for the connections that share this object.

    `max_stall`: for so many seconds after an event loop last turned, its connections are served;
    after that they fall silent, so that peers see that the program hangs. `read_ahead`: bytes, the
    most that may be read ahead for one connection. `read_ahead_total`: the same for all
    connections of this object together, not counting a page of 4096 bytes for each. `required`: a
    connection that cannot be guarded is refused.
    """

    max_stall: float = 300
    read_ahead: int = 2**20
    read_ahead_total: int = 2**26
    required: bool = False

    def __post_init__(self) -> None:
        if self.max_stall is None:
            raise TypeError("max_stall must be a number of seconds, not None: math.inf has no end")
        check_seconds("max_stall", self.max_stall)
        _check_bytes("read_ahead", self.read_ahead, LEAST_READ_AHEAD, "a page is the least")
        _check_bytes(
            "read_ahead_total",
            self.read_ahead_total,
            self.read_ahead,
            "it must have room for one connection's read_ahead",
        )
        if not isinstance(self.required, bool):
            raise TypeError(f"required must be True or False, not {self.required!r}")

    @cached_property
    def _memory(self) -> _core.ReadAhead:
        return _core.ReadAhead(self.read_ahead_total)

    def __getstate__(self) -> dict[str, object]:
        # A copy, perhaps in another process, has memory of its own.
        return dataclasses.asdict(self)


#: For connections about which nothing is said: they share its memory.
DEFAULT: Final = Guard()


@dataclass(frozen=True, slots=True)
class GuardStatus:
    """What the guard does and did for one connection, as of now."""

    #: "starting" until the handshake is over; "ended" when the peer's Close, its end or a wrong
    #: frame has come, or the connection is closed.
    state: State
    #: Why it is unguarded.
    reason: str | None = None
    pings_answered: int = 0
    pings_sent: int = 0
    #: Stalls in which the guard did something for this connection.
    rescues: int = 0
    #: Seconds.
    longest_rescue: float = 0.0
    bytes_read_ahead: int = 0


class GuardedTransport(_core.Transport):
    """An `asyncio.Transport` whose connection the guard can serve. `adopt` makes it.

    It works as the transport of the event loop until `start` is called, and afterwards too, except
    that Pings of the peer and Pongs for the guard's Pings do not reach the protocol.
    """

    __slots__ = ("_guard", "_log", "_on_dead", "_ping_interval", "_ping_timeout", "_reason")

    # Found through the class, because at the end of the interpreter the globals go first.
    _sums: ClassVar[Sums] = sums

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        protocol: asyncio.BaseProtocol,
        extra: dict[str, Any],
        /,
        *,
        role: Literal["server", "client"],
        at_upgrade: bool,
        received: bytes,
        guard: Guard,
        on_dead: Callable[[], object],
    ) -> None:
        self._guard = guard
        self._on_dead = on_dead
        self._log: Callable[[str], object] | None = None
        self._ping_interval: float | None = None
        self._ping_timeout: float | None = None
        self._reason: str | None = None
        super().__init__(
            loop,
            sock,
            protocol,
            extra,
            role=role,
            at_upgrade=at_upgrade,
            received=received,
            read_ahead=guard._memory,
            read_ahead_each=guard.read_ahead,
        )

    def __del__(self) -> None:
        self._sums.gone(self)
        cast(Any, super()).__del__()

    def start(
        self,
        *,
        rsv: bool,
        max_message: int | None,
        max_fragment: int | None,
        ping_interval: float | None,
        ping_timeout: float | None,
        log: Callable[[str], object] | None = None,
    ) -> None:
        """The library has accepted the handshake: answer and send Pings from now on.

        `rsv`: whether RSV1 may be set on the first frame of a message (RFC 7692). `max_message`
        and `max_fragment`: bytes, or None; a longer message or frame is the library's to judge and
        ends the guarding. `ping_interval` and `ping_timeout`: seconds, or None. `log`: called with
        a line for each Ping and Pong of the guard's.

        Raises `Unguardable` if it cannot be done; the transport works on without.
        """
        check_seconds("ping_interval", ping_interval, least=0)
        check_seconds("ping_timeout", ping_timeout)
        self._ping_interval, self._ping_timeout = ping_interval, ping_timeout
        try:
            self._start(
                rsv1=rsv,
                max_message=max_message,
                max_fragment=max_fragment,
                ping_interval=ping_interval or None,
                ping_timeout=ping_timeout,
                max_stall=self._guard.max_stall,
                log=log is not None,
                on_dead=self._on_dead,
            )
        except (RuntimeError, OSError, MemoryError) as error:
            self._reason = _words(error)
            raise Unguardable(self._reason) from error
        self._log = log
        if log is not None:
            self._keep_logging()

    @property
    def ping_interval(self) -> float | None:
        """Seconds between two Pings of ours; None or 0: none. May be set at any time."""
        return self._ping_interval

    @ping_interval.setter
    def ping_interval(self, seconds: float | None) -> None:
        check_seconds("ping_interval", seconds, least=0)
        self._ping_interval = seconds
        self._set_pings(seconds or None, self._ping_timeout)

    @property
    def ping_timeout(self) -> float | None:
        """Seconds after a Ping without a byte from the peer until it is given up; None: never."""
        return self._ping_timeout

    @ping_timeout.setter
    def ping_timeout(self, seconds: float | None) -> None:
        check_seconds("ping_timeout", seconds)
        self._ping_timeout = seconds
        self._set_pings(self._ping_interval or None, seconds)

    @property
    def latency(self) -> float:
        """Seconds from the last Ping of ours that was answered to its Pong; 0 before there was."""
        latency: float = self._counts()["latency"]
        return latency

    @property
    def guard(self) -> GuardStatus:
        """What the guard does and did for this connection."""
        if self._reason is not None:
            return GuardStatus("unguarded", self._reason)
        counts = self._counts()
        return GuardStatus(
            _STATES[counts["state"]],
            pings_answered=counts["answered"],
            pings_sent=counts["pinged"],
            rescues=counts["rescues"],
            longest_rescue=counts["longest_rescue"],
            bytes_read_ahead=counts["read_ahead"],
        )

    def flush_log(self) -> None:
        """Log now what the guard did since the last time, if `start` was given a `log`."""
        if self._log is None:
            return
        notes, missed = self._take_notes()
        for sent, opcode, payload in notes:
            arrow, name = ">" if sent else "<", _OPCODES[opcode]
            self._log(f"{arrow} {name} {payload.hex(' ')} [{len(payload)} bytes, the guard's]")
        if missed:
            self._log(f"% {missed} more of the guard's Pings and Pongs")

    def _keep_logging(self) -> None:
        # What the guard sends and answers passes no Python code: it is fetched now and then.
        self.flush_log()
        if self._counts()["state"] == "guarded":
            asyncio.get_running_loop().call_later(LOG_EVERY, self._keep_logging)


def _words(error: BaseException) -> str:
    """The error as a reason."""
    return str(error) or "there is not enough memory"


def _why_not(loop: asyncio.AbstractEventLoop, transport: asyncio.Transport) -> str | None:
    """Why this transport cannot be taken over, as far as can be seen beforehand."""
    if transport.get_extra_info("sslcontext") or transport.get_extra_info("ssl_object"):
        return TLS
    uvloop = sys.modules.get("uvloop")
    kinds: tuple[type, ...]
    if isinstance(loop, selector_events.BaseSelectorEventLoop):
        kinds = (selector_events._SelectorSocketTransport,)  # type: ignore[attr-defined]
    elif uvloop is not None and isinstance(loop, uvloop.Loop):
        kinds = (uvloop.loop.TCPTransport, uvloop.loop.UnixTransport)
    else:
        return "its event loop is neither asyncio's selector loop nor uvloop"
    # Another transport on the same socket may change the bytes on their way.
    if not isinstance(transport, kinds):
        return "its transport is not the one of the event loop for TCP and Unix sockets"
    if transport.is_closing():
        return "it is closing"
    if transport.get_write_buffer_size():
        return "its transport still holds output"
    return None


def _duplicate(transport: asyncio.BaseTransport) -> socket.socket:
    fd = os.dup(transport.get_extra_info("socket").fileno())
    try:
        sock = socket.socket(fileno=fd)
    except BaseException:
        os.close(fd)
        raise
    sock.setblocking(False)
    return sock


def _let_go(transport: asyncio.Transport) -> None:
    """Part an aborted transport of uvloop from the socket that its creator was given.

    `create_connection(sock=)` gives it that socket only after `connection_made`, hence after the
    end: nobody would tell the socket that its descriptor is closed. When it goes, it would close
    whatever has the number by then.
    """
    for held in gc.get_referents(transport):
        if isinstance(held, socket.socket):
            held.detach()


#: Takes what asyncio still tells of the transports that were taken over, and does nothing.
_KEEPER: Final = asyncio.Protocol()


def adopt(
    transport: asyncio.Transport,
    protocol: asyncio.BaseProtocol,
    *,
    role: Literal["server", "client"],
    at: Literal["start", "upgrade"] = "start",
    received: bytes = b"",
    guard: Guard = DEFAULT,
    on_dead: Callable[[], object],
) -> GuardedTransport:
    """Put a guarded transport in the place of the event loop's.

    To be called on the loop's thread, in the callback that hands `transport` over: the
    `connection_made` of `protocol`, or the upgrade of a library. The caller hands the result on.
    `transport` is aborted, and `protocol` hears nothing of it; the connection goes on.

    `at`: "start" if both directions begin with HTTP; "upgrade" if the peer's frames begin now, and
    ours with the HTTP head of the answer. `received`: what was read already and belongs to
    `protocol`. `on_dead`: called without arguments on the loop's thread, once at most, when the
    peer is given up (RFC 6455 leaves it to us when); it should close the connection.

    Raises `Unguardable` if it cannot be done; `transport` is then as it was.
    """
    if not isinstance(guard, Guard):
        raise TypeError(f"guard must be a wsoffload.Guard, not {guard!r}")
    if at not in ("start", "upgrade"):
        raise ValueError(f"at must be 'start' or 'upgrade', not {at!r}")
    if not callable(on_dead):
        raise TypeError(f"on_dead must be callable, not {on_dead!r}")
    loop = asyncio.get_running_loop()
    reason = _why_not(loop, transport)
    if reason is not None:
        raise Unguardable(reason)
    extra = {name: transport.get_extra_info(name) for name in ("peername", "sockname")}
    try:
        sock = _duplicate(transport)
        try:
            adopted = GuardedTransport(
                loop,
                sock,
                protocol,
                extra,
                role=role,
                at_upgrade=at == "upgrade",
                received=received,
                guard=guard,
                on_dead=on_dead,
            )
        except BaseException:
            sock.close()
            raise
    except (RuntimeError, OSError, MemoryError) as error:
        raise Unguardable(_words(error)) from error
    transport.set_protocol(_KEEPER)
    transport.abort()
    if not isinstance(loop, selector_events.BaseSelectorEventLoop):
        # In a turn after the next: the next ends create_connection.
        loop.call_soon(loop.call_soon, _let_go, transport)
    sums.adopted(adopted)
    return adopted


def _report(rescued: list[tuple[_core.Transport, float, int, int, int]]) -> None:
    for row in rescued:
        assert isinstance(row[0], GuardedTransport)
        row[0].flush_log()
    report_rescue(rescued)


_core._set_rescue_report(_report)
