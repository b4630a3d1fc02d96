"""What a server is told at its start."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

MEBIBYTE = 2**20


@dataclass(kw_only=True, slots=True)
class ServeConfig:
    """Address, keys and limits of a server; times in seconds."""

    host: str = "127.0.0.1"
    """Address to listen on. Others than loopback need a key."""
    port: int = 8000
    """0 takes a free one."""
    api_keys: tuple[str, ...] = ()
    """Whoever sends one of them is let in; without any everybody is."""
    cors_origins: tuple[str, ...] = ()
    """Web pages of these origins may use the server from a browser."""
    allowed_hosts: tuple[str, ...] = ()
    """Names besides localhost by which a loopback server may be called."""
    max_body_bytes: int = 16 * MEBIBYTE
    """Largest request."""
    max_connections: int = 1024
    """Connections open at a time; more are refused with 503."""
    header_timeout_s: float = 10.0
    """Longest that a client may take to send a request's headers."""
    body_timeout_s: float = 30.0
    """Longest that a client may take to send a request's body."""
    send_timeout_s: float = 60.0
    """Longest that a client may leave an answer unread before it is dropped."""
    request_timeout_s: float = 600.0
    """Longest that a request may take in all, waiting included."""
    drain_timeout_s: float = 30.0
    """Longest that running requests are waited for when the server is told to stop."""
    retry_after_s: float = 5.0
    """When a client that was refused for draining should ask again."""
    log_prompts: bool = False
    """Whether the access log holds what was asked."""
    public_paths: list[str] = field(
        default_factory=lambda: ["/", "/assets/", "/health", "/docs", "/openapi.json"]
    )
    """Paths that may be read without a key; one that ends with / stands for all below it."""

    def __post_init__(self) -> None:
        self._require(0 <= self.port < 65536, "port", "lie between 0 and 65535")
        self._require(self.max_body_bytes >= 1, "max_body_bytes", "be at least 1")
        self._require(self.max_connections >= 1, "max_connections", "be at least 1")
        for name in ("header", "body", "send", "request", "drain"):
            name = f"{name}_timeout_s"
            self._require(getattr(self, name) > 0, name, "be above 0 seconds")
        for key in self.api_keys:
            if len(key) < 8 or not key.isascii() or not key.isprintable() or " " in key:
                raise ValueError(
                    "an API key is too short or holds spaces: take 8 printable characters or more"
                )
        if not self.api_keys and not self.is_local:
            raise ValueError(
                f"host is {self.host}, where everybody in the network could use the models: give "
                "an API key (GLM_API_KEY or --api-key-file), or listen on 127.0.0.1"
            )

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the server."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def _require(self, condition: bool, name: str, rule: str) -> None:
        if not condition:
            raise ValueError(f"{name} is {getattr(self, name)!r}: it must {rule}")
