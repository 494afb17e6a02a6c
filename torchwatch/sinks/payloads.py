"""Alerts as messages: generic JSON, Slack, Discord. What comes from a run is data and can mention nobody."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import orjson

from torchwatch.records import encode
from torchwatch.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torchwatch.records import Alert, RunHeader

MOST_ALERTS = 20
"""So many alerts are in a message of generic JSON; the others are counted."""

_DISCORD_LIMIT = 2000
_SLACK_LIMIT = 3000


def generic(header: RunHeader | None, alerts: Sequence[Alert], key: str) -> bytes:
    """The alerts as they stand in the run file, with the run they belong to.

    ``{"id", "torchwatch", "run": {"id", "name", "model", "rank", "world"}, "text", "count", "alerts"}``.
    """
    told = {} if header is None else orjson.loads(encode(header))
    body: dict[str, Any] = {
        "id": key,
        "torchwatch": told.get("torchwatch"),
        "run": {"id": told.get("run_id"), **{k: told.get(k) for k in ("name", "model", "rank", "world")}},
        "text": words(header, alerts),
        "count": len(alerts),
        "alerts": [orjson.loads(encode(a)) for a in alerts[:MOST_ALERTS]],
    }
    return orjson.dumps(body)


def slack(header: RunHeader | None, alerts: Sequence[Alert], key: str) -> bytes:  # noqa: ARG001 - one signature
    """A Slack incoming webhook, which Mattermost and Rocket.Chat read as well; nothing in it is formatted."""
    text = words(header, alerts)[:_SLACK_LIMIT]
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return orjson.dumps({"text": text.replace("@", "@\u200b"), "mrkdwn": False})


def discord(header: RunHeader | None, alerts: Sequence[Alert], key: str) -> bytes:  # noqa: ARG001 - one signature
    """A Discord webhook; Markdown is escaped and nobody is mentioned."""
    text = re.sub(r"([\\*_~`|<>\[\]()#@:-])", r"\\\1", words(header, alerts))
    if len(text) > _DISCORD_LIMIT:
        text = text[: _DISCORD_LIMIT - 1].rstrip("\\") + "…"
    return orjson.dumps({"content": text, "allowed_mentions": {"parse": []}})


STYLES: dict[str, Callable[[RunHeader | None, Sequence[Alert], str], bytes]] = {
    "json": generic,
    "slack": slack,
    "discord": discord,
}


def words(header: RunHeader | None, alerts: Sequence[Alert]) -> str:
    """Alerts of one check at one step, for people: severity, run, step, check, title, places, what to do."""
    first = alerts[0]
    state = "resolved" if first.state == "resolved" else printable(first.severity, 10)
    name = "" if header is None else printable(header.name or header.run_id, 100)
    if header is not None and header.world != 1:
        name += f" (rank {header.rank} of {header.world})"
    head = " · ".join(
        p for p in (state.upper(), name, f"step {first.step:,}", printable(first.check, 60)) if p
    )
    lines = [head, printable(first.title, 300)]
    places = [printable(a.layer, 120) or "the model itself" for a in alerts if a.layer is not None]
    if places:
        more = f" and {len(alerts) - 3} more" if len(alerts) > 3 else ""
        lines.append("in " + ", ".join(places[:3]) + more)
    if first.fix and first.state != "resolved":
        lines.append("What to do: " + printable(first.fix, 600))
    return "\n".join(lines)
