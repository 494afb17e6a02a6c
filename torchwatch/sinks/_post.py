"""One HTTP POST of JSON, and what its answer means. Nothing here ever says where it went.

The standard library is enough: ``urllib.request`` knows proxies and certificates. A client with retries of
its own would sleep where nobody can wake it, and the end of a run must not wait for it.
"""

from __future__ import annotations

import email.utils
import hashlib
import hmac
import http.client
import time
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torchwatch.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

_LONGEST_WAIT_S = 3600.0
_TRY_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504, 507, 509, 520, 521, 522, 523, 524, 529})


@dataclass(frozen=True, slots=True)
class Answer:
    """How a post went.

    Attributes:
        delivered: the server took it.
        final: another try would go the same way.
        said: the reason where it was not delivered, for people, without the address.
        retry_after_s: how long the server asks to wait (seconds).
    """

    delivered: bool = False
    final: bool = False
    said: str = ""
    retry_after_s: float = 0.0


class Post:
    """Posts bodies to one address. A redirect is not followed: the body could end at another host.

    Args:
        url: ``https://…`` or ``http://…``.
        secret: signs each body; the receiver recomputes HMAC-SHA256 of the body (RFC 2104) and compares.
        timeout_s: how long the server may be silent (seconds).
        clock: seconds since the epoch, for a ``Retry-After`` that names a date.

    Raises:
        ConfigError: the address cannot be used. The message does not repeat it.
    """

    def __init__(
        self,
        url: str,
        secret: str | None = None,
        timeout_s: float = 10.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        require_address(url)
        self._url, self._secret, self._timeout_s, self._clock = url, secret, timeout_s, clock
        self._opener = urllib.request.OpenerDirector()
        for handler in (
            urllib.request.ProxyHandler,
            urllib.request.HTTPHandler,
            urllib.request.HTTPSHandler,
        ):
            self._opener.add_handler(handler())

    def __call__(self, body: bytes, key: str, agent: str = "torchwatch") -> Answer:
        """Post once.

        Args:
            body: JSON.
            key: the same for every try of one message, so that the receiver can tell a repetition.
            agent: the ``User-Agent``.
        """
        headers = {"Content-Type": "application/json", "User-Agent": agent, "Idempotency-Key": key}
        if self._secret is not None:
            digest = hmac.new(self._secret.encode(), body, hashlib.sha256).hexdigest()
            headers["X-Torchwatch-Signature"] = f"sha256={digest}"
        request = urllib.request.Request(self._url, body, headers, method="POST")  # noqa: S310 - see require_address
        try:
            with self._opener.open(request, timeout=self._timeout_s) as response:
                return self._answer(response.status, response.headers.get("Retry-After"))
        except TimeoutError:
            return Answer(said="the server does not answer")
        except (OSError, http.client.HTTPException, ValueError) as error:
            return Answer(said=_without_address(error))

    def _answer(self, status: int, retry_after: str | None) -> Answer:
        if 200 <= status < 300:
            return Answer(delivered=True)
        if 300 <= status < 400:
            said = f"the server answers {status}, a redirect; it is not followed: use the address behind it"
            return Answer(final=True, said=said)
        return Answer(
            final=status not in _TRY_AGAIN,
            said=f"the server answers {status}",
            retry_after_s=_seconds(retry_after, self._clock()),
        )


def require_address(url: str) -> None:
    """Check an address.

    Raises:
        ConfigError: it is none of http or https, has no host, or holds a user name. It is not repeated.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or True)
        named = parts.username is not None
        clean = url.isascii() and url.isprintable() and " " not in url
    except ValueError:
        good = named = clean = False
    if not good or not clean:
        raise ConfigError("the webhook's address must begin with https:// or http:// and name a host")
    if named:
        raise ConfigError("the webhook's address must not hold a user name: the secret signs the messages")


def _without_address(error: Exception) -> str:
    """Why a connection failed; messages of some errors repeat the address, so only the kind is told."""
    reason = getattr(error, "reason", error)  # urllib wraps what the socket raised
    if isinstance(reason, TimeoutError):
        return "the server does not answer"
    if isinstance(reason, (http.client.HTTPException, ConnectionResetError, BrokenPipeError)):
        return "the server cut the connection"
    if isinstance(reason, ConnectionRefusedError):
        return "the server refuses the connection"
    return f"the connection fails ({type(reason).__name__})"


def _seconds(retry_after: str | None, now: float) -> float:
    """``Retry-After`` (RFC 9110, section 10.2.3) as seconds from now: a number of them or a date."""
    if not retry_after:
        return 0.0
    try:
        wait = float(retry_after)
    except ValueError:
        try:
            wait = email.utils.parsedate_to_datetime(retry_after).timestamp() - now
        except (ValueError, OverflowError):
            return 0.0
    return min(max(wait, 0.0), _LONGEST_WAIT_S) if wait == wait else 0.0
