"""What is fixed when the server starts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ServerConfig:
    """How the server listens, and what it lets in."""

    host: str = "127.0.0.1"
    port: int = 8080
    api_key: str | None = None
    strict: bool = False  # refuse fields that nobody knows
    max_body_bytes: int = 8 * 2**20
    ping_seconds: float = 5.0  # of silence in a stream, after which a comment keeps it open
