"""What a message looks like, and that text from a run stays text."""

from __future__ import annotations

import json

import pytest

from tests.helpers_runs import HOSTILE, alert, header, is_harmless
from torchwatch.sinks.payloads import STYLES, discord, generic, slack, words


def test_generic_json_holds_the_alert_as_the_run_file_does() -> None:
    body = json.loads(generic(header(), [alert(value=float("nan"), worst=2.5)], "k-1"))
    assert sorted(body) == ["alerts", "count", "id", "run", "text", "torchwatch"]
    (told,) = body["alerts"]
    assert (told["check"], told["value"], told["nonfinite"], told["worst"]) == (
        "dead-units",
        None,
        {"value": "nan"},
        2.5,
    )


def test_slack_reads_no_markup_and_mentions_nobody() -> None:
    text = "<!channel> @here &amp; *bold* <https://x|y>"
    body = json.loads(slack(header(name=text), [alert(title=text, layer=text, fix=text)], "k"))
    assert body["mrkdwn"] is False
    assert "<" not in body["text"]
    assert ">" not in body["text"]
    assert "@here" not in body["text"]
    assert "&amp;amp; *bold*" in body["text"]


def test_discord_escapes_markdown_and_mentions_nobody() -> None:
    text = "@everyone <@1> **b** [t](http://x) `c` ||s||"
    body = json.loads(discord(header(), [alert(title=text)], "k"))
    assert body["allowed_mentions"] == {"parse": []}
    assert r"\@everyone \<\@1\> \*\*b\*\* \[t\]\(http\://x\) \`c\` \|\|s\|\|" in body["content"]


@pytest.mark.parametrize("style", sorted(STYLES))
@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_printable_and_short_enough(style: str, text: str) -> None:
    alerts = [alert(title=text, layer=text, fix=text, check=text, severity=text)] * 3
    body = json.loads(STYLES[style](header(name=text), alerts, "k"))
    shown = body.get("text") or body["content"]
    assert is_harmless(shown.replace("@\u200b", "@"))
    assert len(shown) <= 3500
    assert len(body.get("content", "")) <= 2000


def test_words_say_which_rank_and_when_it_is_over() -> None:
    over = words(header(rank=3, world=8), [alert(state="resolved", step=1200, layer=None)])
    assert over == "RESOLVED · digits (rank 3 of 8) · step 1,200 · dead-units\n92 % of units are dead"
    assert words(None, [alert()]).startswith("WARNING · step 60 · dead-units\n")
