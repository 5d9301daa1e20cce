"""The configuration keys of HTTP/2, for servers and clients."""

from __future__ import annotations

from typing import Any

import attrs

from protocols.http2 import frames
from protocols.http2.limits import Http2Limits
from protocols.http2.state import Settings


def _between(low: int, high: int) -> Any:
    def check(instance: object, attribute: attrs.Attribute[Any], value: int | None) -> None:
        if value is not None and not low <= value <= high:
            raise ValueError(f"must be between {low} and {high}, not {value}")

    return check


def _ratio(instance: object, attribute: attrs.Attribute[Any], value: float) -> None:
    if not 0 < value < 1:
        raise ValueError(f"must be between 0 and 1, not {value}")


@attrs.frozen
class Common:
    """Keys of ``h2`` servers and clients. ``windowUpdateRatio`` has no effect: credit is given by the rule of ``stream.py``."""

    initial_stream_window_bytes: int = attrs.field(default=65535, validator=_between(1, frames.MAX_WINDOW))
    max_frame_bytes: int = attrs.field(default=16384, validator=_between(16384, (1 << 24) - 1))
    max_header_list_bytes: int | None = attrs.field(default=None, validator=_between(1024, 1 << 24))
    header_table_bytes: int = attrs.field(default=4096, validator=_between(0, 65536))
    window_update_ratio: float = attrs.field(
        default=0.99,
        validator=_ratio,
        metadata={"idle": "credit returns when half a window is due, or at once to a starved peer"},
    )

    def settings(self, streams: int = 1000) -> Settings:
        """What the connection announces."""
        return Settings(
            window=self.initial_stream_window_bytes,
            streams=streams,
            frame=self.max_frame_bytes,
            table=self.header_table_bytes,
            list_size=self.max_header_list_bytes or 65536,
        )


@attrs.frozen
class Keepalive:
    """``keepalive``, waypost's own, in gRPC's words: a PING after ``timeMs`` without a byte, an answer within ``timeoutMs``."""

    time_ms: int = attrs.field(validator=_between(100, 7_200_000))
    timeout_ms: int = attrs.field(default=20_000, validator=_between(10, 600_000))
    without_calls: bool = False


@attrs.frozen
class ClientConfig(Common):
    """Keys of an ``h2`` client."""

    keepalive: Keepalive | None = None


@attrs.frozen
class ServerConfig(Common):
    """Keys of an ``h2`` server. ``abuse`` is waypost's own."""

    max_concurrent_streams_per_connection: int = attrs.field(default=1000, validator=_between(1, 1_000_000))
    abuse: Http2Limits = attrs.field(factory=Http2Limits)

    def settings(self, streams: int = 0) -> Settings:
        """What the connection announces, and its limits."""
        made = super().settings(streams or self.max_concurrent_streams_per_connection)
        return attrs.evolve(made, limits=self.abuse)


@attrs.frozen
class RouterConfig:
    """Keys that ``h2`` adds to a router: none yet."""
