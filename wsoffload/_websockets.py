"""The adapter for the asyncio classes of `websockets`: serve and connect, guarded.

A connection is taken over in its `connection_made`, and guarded from its `start_keepalive` on,
which `websockets` calls after the handshake: the guard takes the place of its keepalive.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from typing import TYPE_CHECKING, Any, TypeVar, cast

from wsoffload._guard import (
    DEFAULT,
    TLS,
    Guard,
    GuardedTransport,
    GuardStatus,
    Unguardable,
    adopt,
    check_seconds,
)
from wsoffload._guard_report import logger, warn_unguarded

try:
    from websockets.asyncio import client, server
    from websockets.asyncio.connection import Connection
    from websockets.extensions.permessage_deflate import PerMessageDeflate
    from websockets.frames import CloseCode
    from websockets.protocol import Side
except ImportError as error:
    raise ImportError(
        "wsoffload.serve and wsoffload.connect need websockets 13.0 or later: "
        "pip install 'wsoffload[websockets]'",
        name="websockets",
    ) from error

if TYPE_CHECKING:
    from websockets.typing import PathLike

C = TypeVar("C", bound=Connection)


def _bound(size: float | None) -> int | None:
    """A limit of `websockets` as the guard takes it."""
    return None if size is None or size >= 2**63 else max(int(size), 0)


class _Pings:
    """What a connection knows of its Pings, in seconds."""

    __slots__ = ("guard_latency", "interval", "latency", "timeout")

    def __init__(self) -> None:
        self.interval: float | None = None
        self.timeout: float | None = None
        self.latency = 0.0
        # The guard's latency when that of the library was set: the later of both is shown.
        self.guard_latency = 0.0


class GuardedConnection(Connection):
    """What is the same on both sides: a mixin before a connection class of `websockets`."""

    # Few attributes, because Python keeps more than 29 of them in a dict of several times the size.
    _settings: Guard | None = DEFAULT
    _guarded: GuardedTransport | None = None
    _reason: str | None = None
    _refusal: Unguardable | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._pings = _Pings()
        super().__init__(*args, **kwargs)

    @property
    def guard(self) -> GuardStatus:
        """What the guard does and did for this connection."""
        if self._guarded is not None:
            return self._guarded.guard
        return GuardStatus("starting" if self._reason is None else "unguarded", self._reason)

    @property
    def ping_interval(self) -> float | None:
        """Seconds between two Pings of ours; None: none. May be set at any time."""
        return self._pings.interval

    @ping_interval.setter
    def ping_interval(self, seconds: float | None) -> None:
        check_seconds("ping_interval", seconds, least=0)
        self._pings.interval = seconds
        if self._guarded is not None:
            self._guarded.ping_interval = seconds

    @property
    def ping_timeout(self) -> float | None:
        """Seconds after a Ping without a byte from the peer until it is given up; None: never.

        May be set at any time.
        """
        return self._pings.timeout

    @ping_timeout.setter
    def ping_timeout(self, seconds: float | None) -> None:
        check_seconds("ping_timeout", seconds)
        self._pings.timeout = seconds
        if self._guarded is not None:
            self._guarded.ping_timeout = seconds

    @property
    def latency(self) -> float:
        """Seconds from the last Ping of ours that was answered to its Pong; 0 before there was."""
        measured = self._measured()
        return self._pings.latency if measured == self._pings.guard_latency else measured

    @latency.setter
    def latency(self, seconds: float) -> None:
        self._pings.latency = seconds
        self._pings.guard_latency = self._measured()

    def _measured(self) -> float:
        return 0.0 if self._guarded is None else self._guarded.latency

    async def handshake(self, *args: Any, **kwargs: Any) -> None:
        """Perform the opening handshake, unless a guard is required and cannot be had."""
        if self._refusal is not None:
            raise self._refusal
        await cast(Any, super()).handshake(*args, **kwargs)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._settings is None:
            self._reason = "it was made with guard=None"
        else:
            try:
                self._check_library()
                transport = self._guarded = adopt(
                    cast(asyncio.Transport, transport),
                    self,
                    role="server" if self.protocol.side is Side.SERVER else "client",
                    guard=self._settings,
                    on_dead=self._give_up,
                )
            except Unguardable as error:
                # Without a guard that is required, there is no handshake.
                self._refusal = self._go_unguarded(error)
        super().connection_made(transport)

    def start_keepalive(self) -> None:
        """The handshake has succeeded: let the guard take the place of the library's keepalive."""
        if self._guarded is not None:
            try:
                self._start(self._guarded)
            except Unguardable as error:
                self._guarded = None
                if self._go_unguarded(error) is not None:
                    self.transport.abort()
                    raise
            else:
                return
        super().start_keepalive()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._guarded is not None:
            self._guarded.flush_log()
        super().connection_lost(exc)

    def _check_library(self) -> None:
        """Raise if this is not the library, or not the class, whose keepalive can be replaced."""
        for owner, name in (
            (Connection, "start_keepalive"),
            (Connection, "keepalive"),
            (Connection, "send_context"),
            (self, "keepalive_task"),
            (self.protocol, "extensions"),
            (self.protocol, "fail"),
        ):
            if not hasattr(owner, name):
                raise Unguardable(f"this version of websockets has no {name}")
        for kind in type(self).__mro__:
            own = kind not in (GuardedConnection, Connection)
            if own and not vars(kind).keys().isdisjoint(("keepalive", "start_keepalive")):
                raise Unguardable(f"its class has a keepalive of its own: {kind.__qualname__}")

    def _go_unguarded(self, error: Unguardable) -> Unguardable | None:
        """Serve it unguarded; if a guard is required, return the error instead."""
        self._reason = error.reason
        if self._settings is not None and self._settings.required:
            logger.error("a connection is refused, because it cannot be guarded: %s", error.reason)
            return error
        warn_unguarded(error.reason)
        return None

    def _start(self, transport: GuardedTransport) -> None:
        """Begin to guard."""
        rsv = False
        for extension in self.protocol.extensions:
            if not isinstance(extension, PerMessageDeflate):
                raise Unguardable(f"the guard does not know the extension {extension.name}")
            rsv = True
        if self.keepalive_task is not None:
            raise Unguardable("the keepalive of websockets runs already")
        # Before websockets 16 there was one limit.
        protocol: Any = self.protocol
        one: float | None = getattr(protocol, "max_size", None)
        transport.start(
            rsv=rsv,
            max_message=_bound(getattr(protocol, "max_message_size", one)),
            max_fragment=_bound(getattr(protocol, "max_fragment_size", None)),
            ping_interval=self.ping_interval,
            ping_timeout=self.ping_timeout,
            log=self.logger.debug if self.debug else None,
        )

    def _give_up(self) -> None:
        """The peer is dead."""
        # In the place of the library's task, which connection_lost cancels.
        self.keepalive_task = self.loop.create_task(self._close_dead())

    async def _close_dead(self) -> None:
        # As Connection.keepalive does it after a timeout.
        try:
            if self.debug:
                self.logger.debug("- timed out waiting for keepalive pong")
            async with self.send_context():
                self.protocol.fail(CloseCode.INTERNAL_ERROR, "keepalive ping timeout")
        except Exception:
            self.logger.error("keepalive ping failed", exc_info=True)


class ServerConnection(GuardedConnection, server.ServerConnection):
    """A server's connection of `websockets` that is guarded.

    May be given to the ``create_connection=`` of `websockets`, or be subclassed.
    """


class ClientConnection(GuardedConnection, client.ClientConnection):
    """A client's connection of `websockets` that is guarded.

    May be given to the ``create_connection=`` of `websockets`, or be subclassed.
    """


def _combined(given: type[C]) -> type[C]:
    """The class of a user's with the guard before it: one for each, as long as it is in use."""
    bases = (GuardedConnection, given)
    for known in given.__subclasses__():
        if known.__bases__ == bases:
            return known
    return type(f"Guarded{given.__name__}", bases, {"__module__": given.__module__})


def _maker(base: type[C], ours: type[C], given: object, guard: Guard | None) -> Any:
    """What `websockets` shall make its connections with: of its class, or of ours."""
    if guard is not None and not isinstance(guard, Guard):
        raise TypeError(f"guard must be a wsoffload.Guard or None, not {guard!r}")
    if given is None:
        given = ours
    if not isinstance(given, type) or not issubclass(given, base):
        if guard is None:
            return given
        raise TypeError(
            f"create_connection must be a subclass of {base.__name__}, not {given!r}, so that the "
            "guard can be put before it: use a class, or guard=None for plain websockets"
        )
    kind: type[C] = given
    if not issubclass(kind, GuardedConnection):
        if guard is None:
            return kind
        kind = _combined(kind)

    def make(*args: Any, **kwargs: Any) -> C:
        connection = kind(*args, **kwargs)
        cast(GuardedConnection, connection)._settings = guard
        return connection

    return make


def _check_pings(arguments: dict[str, Any]) -> None:
    """Settings that no connection would take are refused here, where the caller sees it."""
    check_seconds("ping_interval", arguments.get("ping_interval"), least=0)
    check_seconds("ping_timeout", arguments.get("ping_timeout"))


def serve(
    handler: Callable[[ServerConnection], Awaitable[None]],
    host: str | None = None,
    port: int | None = None,
    *,
    guard: Guard | None = DEFAULT,
    create_connection: type[server.ServerConnection] | None = None,
    **kwargs: Any,
) -> server.Server:
    """As `websockets.asyncio.server.serve`, with all its arguments, for guarded connections.

    `guard`: what the guard may do; None for plain `websockets`. `create_connection`: a class of
    connections, to which the guard is added.

    Raises `TypeError` if `create_connection` is no such class, and `Unguardable` if a guard is
    required and ``ssl=`` is given.
    """
    made = _maker(server.ServerConnection, ServerConnection, create_connection, guard)
    _check_pings(kwargs)
    if guard is not None and guard.required and kwargs.get("ssl") is not None:
        raise Unguardable(TLS)
    return server.serve(cast(Any, handler), host, port, create_connection=made, **kwargs)


def unix_serve(
    handler: Callable[[ServerConnection], Awaitable[None]],
    path: PathLike | None = None,
    **kwargs: Any,
) -> server.Server:
    """As `serve`, listening on a Unix socket: see `websockets.asyncio.server.unix_serve`."""
    return serve(handler, unix=True, path=path, **kwargs)


# A class, and in lower case, as in websockets.
class connect(client.connect):  # noqa: N801
    """As `websockets.asyncio.client.connect`, with all its arguments, for a guarded connection.

    To be awaited, used as an asynchronous context manager, or iterated over to reconnect.

    `guard` and `create_connection` as in `serve`.
    """

    def __init__(
        self,
        uri: str,
        *,
        guard: Guard | None = DEFAULT,
        create_connection: type[client.ClientConnection] | None = None,
        **kwargs: Any,
    ) -> None:
        made = _maker(client.ClientConnection, ClientConnection, create_connection, guard)
        _check_pings(kwargs)
        super().__init__(uri, create_connection=made, **kwargs)

    if TYPE_CHECKING:

        def __await__(self) -> Generator[Any, None, ClientConnection]: ...

        async def __aenter__(self) -> ClientConnection: ...

        def __aiter__(self) -> AsyncIterator[ClientConnection]: ...


def unix_connect(path: PathLike | None = None, uri: str | None = None, **kwargs: Any) -> connect:
    """As `connect`, to a Unix socket: see `websockets.asyncio.client.unix_connect`."""
    if uri is None:
        uri = "ws://localhost/" if kwargs.get("ssl") is None else "wss://localhost/"
    return connect(uri, unix=True, path=path, **kwargs)
