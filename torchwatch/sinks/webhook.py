"""Alerts to a web address: Slack, Discord, or any server that takes JSON."""

from __future__ import annotations

import os
import random
import re
import time
import urllib.parse
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torchwatch.check import Severity
from torchwatch.errors import ConfigError
from torchwatch.records import Alert, RunHeader
from torchwatch.sinks._post import Answer, Post, require_address
from torchwatch.sinks._side import Side, SideSink
from torchwatch.sinks.payloads import STYLES
from torchwatch.sinks.scalars import severity_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from torchwatch.records import Record

URL_VARIABLE = "TORCHWATCH_WEBHOOK_URL"
SECRET_VARIABLE = "TORCHWATCH_WEBHOOK_SECRET"  # noqa: S105 - the name of a variable

_NOT_IN_KEY = re.compile(r"[^A-Za-z0-9_.-]")

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 60.0
TRIES = 20
"""So often a message is tried, for a quarter of an hour: one that nobody takes must free the queue."""


@dataclass(frozen=True, slots=True)
class _Message:
    key: str
    body: bytes


class WebhookSink(SideSink[_Message]):
    """Posts alerts in order, each until it is taken; the run never waits for it.

    A message is tried again after 0.5, 1, 2 … 60 s (half of it random), or as long as the server asks for in
    ``Retry-After``. A server that took a message and failed to say so gets it twice, with the same
    ``Idempotency-Key``. At the end of the run what is not delivered within a few seconds is given up, and
    counted in the end record.

    Address and secret come from environment variables alone, and are never written or shown.

    Args:
        url_variable: the variable that holds the address.
        secret_variable: the variable that holds the secret that signs the messages (header
            ``X-Torchwatch-Signature: sha256=…``, HMAC of the body); unset: they are not signed.
        style: ``"slack"``, ``"discord"`` or ``"json"`` (default: what the address looks like).
        severity: the least severe alerts that are sent.
        resolved: also send when an issue that was sent is over.
        timeout_s: how long a server may be silent (seconds).
        pause: waits so many seconds, False where that is in vain (default: in the sink's thread).
        jitter: a random number from 0 to 1 (default: from a generator of its own).

    Raises:
        ConfigError: no address, an address that cannot be used, an unknown style or severity.
    """

    name = "webhook"

    def __init__(
        self,
        url_variable: str = URL_VARIABLE,
        *,
        secret_variable: str = SECRET_VARIABLE,
        style: str | None = None,
        severity: str = "critical",
        resolved: bool = False,
        timeout_s: float = 10.0,
        pause: Callable[[float], bool] | None = None,
        jitter: Callable[[], float] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(Side(self.name, self._deliver))
        url = _address(url_variable)
        style = style or style_of(url)
        if style not in STYLES:
            raise ConfigError(f"a webhook's style is one of {', '.join(STYLES)}, not {style!r}")
        if severity not in (words := [s.word for s in Severity]):
            raise ConfigError(f"a webhook's severity is one of {', '.join(words)}, not {severity!r}")
        self._payload, self._least, self._resolved = STYLES[style], Severity[severity.upper()], resolved
        self._post = Post(url, os.environ.get(secret_variable) or None, timeout_s, clock)
        self._pause = pause or self.side.pause
        self._jitter = jitter or random.Random().random  # noqa: S311 - spreads tries; the host's is not touched
        self._header: RunHeader | None = None
        self._sent: dict[tuple[str, str | None], Severity] = {}
        self._held: list[Alert] = []
        self._number = 0
        self._in_vain = False

    # ------------------------------------------------------------------ the recorder's thread

    def write(self, record: Record) -> None:
        """Queue a message where an alert is news; alerts of one check at one step share one."""
        if isinstance(record, Alert):
            if self._is_news(record):
                if self._held and _together(self._held[0]) != _together(record):
                    self._send_held()
                self._held.append(record)
            return
        self._send_held()
        if isinstance(record, RunHeader):
            self._header = record

    def drain(self, seconds: float) -> None:
        """Send what is held back, and wait for the queue."""
        self._send_held()
        super().drain(seconds)

    def close(self) -> None:
        """Take nothing more."""
        self._send_held()
        super().close()

    def _is_news(self, alert: Alert) -> bool:
        """Whether it opens, or is worse than what was sent of it; or its end, where that is wanted."""
        issue = (alert.check, alert.layer)
        if alert.state == "resolved":
            return self._sent.pop(issue, None) is not None and self._resolved
        severity, before = severity_of(alert), self._sent.get(issue)
        if severity < self._least or (before is not None and severity <= before):
            return False
        self._sent[issue] = severity
        return True

    def _send_held(self) -> None:
        if not self._held:
            return
        self._number += 1
        header = self._header or RunHeader()
        key = f"{_NOT_IN_KEY.sub('_', header.run_id)[:100]}-{header.rank}-{self._number}"
        alerts, self._held = self._held, []
        self.put(_Message(key, self._payload(self._header, alerts, key)))

    # ------------------------------------------------------------------ the sink's thread

    def _deliver(self, message: _Message) -> bool:
        """Try until it is taken. After one message was given up for want of time, so are those behind it."""
        for tried in range(TRIES):
            if self._in_vain:
                return False
            answer = self._post(message.body, message.key)
            if answer.delivered:
                return True
            last = answer.final or tried == TRIES - 1
            self.say(f"webhook: {answer.said}: {'a message is lost' if last else 'trying again'}")
            if last:
                return False
            self._in_vain = not self._pause(self._wait_s(tried, answer))
        return False

    def _wait_s(self, tried: int, answer: Answer) -> float:
        longest = min(FIRST_WAIT_S * 2.0**tried, LONGEST_WAIT_S)
        return max(longest * (1 + self._jitter()) / 2, answer.retry_after_s)


def style_of(url: str) -> str:
    """``slack`` and ``discord`` by their addresses, else ``json``."""
    parts = urllib.parse.urlsplit(url)
    host = (parts.hostname or "").lower()
    if host == "hooks.slack.com":
        return "slack"
    if host in ("discord.com", "discordapp.com") or host.endswith(".discord.com"):
        return "discord"
    return "json"


def _address(variable: str) -> str:
    if "/" in variable or ":" in variable:
        raise ConfigError(
            "a webhook takes the name of an environment variable that holds the address, not the address"
        )
    url = os.environ.get(variable, "").strip()
    if not url:
        raise ConfigError(f"the webhook's address is read from the environment variable {variable}: set it")
    require_address(url)
    return url


def _together(alert: Alert) -> tuple[str, int, str]:
    return alert.check, alert.step, alert.state
