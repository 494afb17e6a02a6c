"""Alerts over HTTP, against a real server on loopback: delivered once, in order, and the run never waits."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import random
import socket
import ssl
import threading
import time
import traceback
import urllib.error
from collections.abc import Callable, Iterable

import pytest

from tests.helpers_http import Server, serving
from tests.helpers_runs import alert, header, hostile_run, steps, whole_run
from torchwatch.errors import ConfigError
from torchwatch.records import Alert, Record
from torchwatch.sinks.webhook import TRIES, WebhookSink, style_of


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "TORCHWATCH_WEBHOOK_SECRET"):
        monkeypatch.delenv(name, raising=False)


Make = Callable[..., WebhookSink]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Make:
    def made(url: str, **options) -> WebhookSink:
        monkeypatch.setenv("TORCHWATCH_WEBHOOK_URL", url)
        options = {"pause": lambda _: True, "jitter": lambda: 1.0, "timeout_s": 5.0} | options
        return WebhookSink(**options)

    return made


def critical(step: int, **fields) -> Alert:
    return alert(severity="critical", check=f"check-{step}", step=step, title=f"title {step}", **fields)


def send(sink: WebhookSink, records: Iterable[Record], drain_s: float = 10.0) -> dict[str, int]:
    for record in (header(), *records):
        sink.write(record)
    sink.drain(drain_s)
    sink.close()
    return sink.counts()


def titles(server: Server) -> list[str]:
    return [told.json["alerts"][0]["title"] for told in server.taken]


def test_only_criticals_are_sent_in_order_with_the_run(make: Make) -> None:
    with serving() as server:
        told = send(make(server.url), [alert(), critical(1), *steps(1, 3), critical(2), critical(3)])
    assert told == {"delivered": 3, "undelivered": 0}
    assert titles(server) == ["title 1", "title 2", "title 3"]
    body = server.taken[0].json
    assert body["run"] == {"id": "r1", "name": "digits", "model": "SmallNet", "rank": 0, "world": 1}
    assert body["id"] == "r1-0-1" == server.taken[0].headers["Idempotency-Key"]
    assert body["alerts"][0]["kind"] == "alert"
    assert body["text"].startswith("CRITICAL · digits · step 1 · check-1\ntitle 1\nin conv2\nWhat to do: ")


@pytest.mark.parametrize(
    "first",
    [500, 503, 429, 408, "cut", (500, {"Retry-After": "0"}), (429, {"Retry-After": "not a time"})],
)
def test_what_fails_is_tried_again_and_nothing_overtakes_it(make: Make, first) -> None:
    with serving(first, first) as server:
        sink = make(server.url)
        told = send(sink, [critical(1), critical(2)])
    assert told == {"delivered": 2, "undelivered": 0}
    assert titles(server) == ["title 1", "title 2"]
    assert [c.headers["Idempotency-Key"] for c in server.came] == ["r1-0-1"] * 3 + ["r1-0-2"]
    assert all("trying again" in sentence for sentence in sink.said())


def test_a_server_that_never_answers_costs_its_timeout_and_then_the_next_try(make: Make) -> None:
    with serving("never") as server:
        told = send(make(server.url, timeout_s=0.1), [critical(1)])
    assert told == {"delivered": 1, "undelivered": 0}
    assert len(server.came) == 2


def test_retry_after_is_obeyed_in_seconds_and_as_a_date(make: Make) -> None:
    waited: list[float] = []
    answers = [
        (429, {"Retry-After": "17"}),
        (429, {"Retry-After": "Thu, 01 Jan 1970 00:02:10 GMT"}),
        (429, {"Retry-After": "1e99"}),
        (429, {"Retry-After": "-5"}),
        (429, {"Retry-After": "nan"}),
    ]
    with serving(*answers) as server:
        sink = make(server.url, pause=lambda s: waited.append(s) is None, clock=lambda: 100.0)
        assert send(sink, [critical(1)])["delivered"] == 1
    assert waited == [17.0, 30.0, 3600.0, 4.0, 8.0]


def test_waits_double_up_to_a_minute_half_of_each_random(make: Make) -> None:
    waited: list[float] = []
    for jitter in (0.0, 1.0):
        with serving(*[500] * 9) as server:
            pause = lambda s: waited.append(s) is None  # noqa: E731
            assert send(make(server.url, pause=pause, jitter=lambda j=jitter: j), [critical(1)])["delivered"]
    assert waited[:9] == [0.25, 0.5, 1, 2, 4, 8, 16, 30, 30]
    assert waited[9:] == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]


@pytest.mark.parametrize("status", [400, 401, 404, 410])
def test_what_no_try_can_mend_is_lost_at_once_counted_and_said(make: Make, status: int) -> None:
    with serving(status) as server:
        sink = make(server.url)
        told = send(sink, [critical(1), critical(2)])
    assert told == {"delivered": 1, "undelivered": 1}
    assert titles(server) == ["title 2"]
    assert sink.said() == [f"webhook: the server answers {status}: a message is lost"]


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(make: Make, status: int) -> None:
    with serving() as other, serving((status, {"Location": other.url})) as server:
        sink = make(server.url)
        assert send(sink, [critical(1)]) == {"delivered": 0, "undelivered": 1}
    assert other.came == []
    assert "use the address behind it" in sink.said()[0]


def test_a_message_that_nobody_takes_frees_the_queue_in_the_end(make: Make) -> None:
    with serving(*[500] * TRIES) as server:
        told = send(make(server.url), [critical(1), critical(2)])
    assert told == {"delivered": 1, "undelivered": 1}
    assert titles(server) == ["title 2"]


def test_a_dead_endpoint_holds_up_neither_run_nor_end(make: Make) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    sink = make(f"http://127.0.0.1:{port}/s3cret", pause=None)
    slowest, began = 0.0, time.perf_counter()
    sink.write(header())
    for n in range(300):
        before = time.perf_counter()
        sink.write(critical(n))
        slowest = max(slowest, time.perf_counter() - before)
    assert slowest < 1, "a busy machine, but no connection is waited for"
    sink.drain(0.3)
    sink.close()
    assert time.perf_counter() - began < 5
    assert sink.counts() == {"delivered": 0, "undelivered": 300}
    assert sink.said()[0] == "webhook: the server refuses the connection: trying again"


def test_a_server_that_hangs_is_left_behind_at_the_end(make: Make) -> None:
    with serving("never") as server:
        sink = make(server.url, pause=None)
        for record in (header(), critical(1), critical(2)):
            sink.write(record)
        began = time.perf_counter()
        sink.drain(0.2)
        assert time.perf_counter() - began < 4
    assert sink.counts() == {"delivered": 0, "undelivered": 2}


def test_once_a_wait_is_in_vain_nothing_more_is_tried(make: Make) -> None:
    with serving((429, {"Retry-After": "600"})) as server:
        sink = make(server.url, pause=None)
        for record in (header(), critical(1), critical(2), critical(3)):
            sink.write(record)
        began = time.perf_counter()
        sink.drain(20)
        assert time.perf_counter() - began < 10
    assert sink.counts() == {"delivered": 0, "undelivered": 3}
    assert len(server.came) == 1, "it was asked not to"


def test_layers_of_one_check_share_a_message(make: Make) -> None:
    many = [alert(severity="critical", layer=f"layer{i}") for i in range(30)]
    with serving() as server:
        send(make(server.url), [*many, critical(9)])
    bodies = [told.json for told in server.taken]
    assert [b["count"] for b in bodies] == [30, 1]
    assert len(bodies[0]["alerts"]) == 20
    assert "in layer0, layer1, layer2 and 27 more" in bodies[0]["text"]


def test_an_issue_is_told_when_it_opens_or_worsens_and_if_asked_for_when_it_ends(make: Make) -> None:
    course = [
        alert(severity="info", step=1),
        alert(severity="warning", state="updated", step=2),
        alert(severity="warning", state="updated", step=3),
        alert(severity="critical", state="updated", step=4),
        alert(severity="critical", state="resolved", step=5),
        alert(severity="critical", state="opened", step=6),
    ]
    seen = []
    for options in ({}, {"severity": "warning"}, {"severity": "info", "resolved": True}):
        with serving() as server:
            send(make(server.url, **options), course)
        seen.append([told.json["alerts"][0]["step"] for told in server.taken])
    assert seen == [[4, 6], [2, 4, 6], [1, 2, 4, 5, 6]]


def test_the_secret_signs_and_never_travels(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHWATCH_WEBHOOK_SECRET", "hush")
    with serving() as server:
        send(make(server.url), [critical(1)])
    (told,) = server.taken
    digest = hmac.new(b"hush", told.body, hashlib.sha256).hexdigest()
    assert told.headers["X-Torchwatch-Signature"] == f"sha256={digest}"
    assert b"hush" not in told.body + repr(told.headers).encode()


@pytest.mark.parametrize("answer", ["cut", "never", 404, 302, 500])
def test_the_address_is_never_said(make: Make, answer, caplog: pytest.LogCaptureFixture) -> None:
    with serving(*[answer] * (TRIES + 1)) as server:
        sink = make(server.url, timeout_s=0.02)
        send(sink, [critical(1)])
    sentences = sink.said()
    assert sentences
    told = " ".join([*sentences, repr(sink), str(vars(sink)), caplog.text])
    assert "s3cret" not in told
    assert "127.0.0.1" not in told


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ssl.SSLCertVerificationError("certificate is not valid for 's3cret'"), "(SSLCertVerificationError)"),
        (urllib.error.URLError(socket.gaierror(-2, "s3cret: not known")), "(gaierror)"),
        (urllib.error.URLError(TimeoutError("s3cret")), "does not answer"),
        (http.client.InvalidURL("/s3cret"), "cut the connection"),
        (ValueError("unknown url type: s3cret"), "(ValueError)"),
    ],
)
def test_no_error_repeats_the_address(make: Make, error: Exception, said: str) -> None:
    sink = make("https://host/")

    class Failing:
        def open(self, *_, **__):
            raise error

    sink._post._opener = Failing()  # what these libraries say cannot be provoked without a network
    assert send(sink, [critical(1)])["undelivered"] == 1
    (sentence, *_) = sink.said()
    assert said in sentence
    assert "s3cret" not in sentence


@pytest.mark.parametrize(
    "url",
    [
        "", "ftp://host/s3cret", "file:///etc/s3cret", "https:///s3cret", "s3cret", "http://[s3cret",
        "http://host:s3cret/", "https://user:s3cret@host/", "https://host/s3cret\nX: y",
        "https://host/s3 cret",
    ],
)  # fmt: skip
def test_an_address_that_cannot_be_used_is_refused_at_once_and_not_repeated(make: Make, url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make(url)
    assert "s3cret" not in "".join(traceback.format_exception_only(caught.value))


def test_an_address_in_place_of_the_variable_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError, match="name of an environment variable") as caught:
        WebhookSink("https://hooks.slack.com/services/s3cret")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("wrong", [{"style": "teams"}, {"severity": "fatal"}])
def test_unknown_options_name_the_known_ones(make: Make, wrong: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="one of"):
        make("https://host/", **wrong)


@pytest.mark.parametrize(
    ("url", "style"),
    [
        ("https://hooks.slack.com/services/T/B/x", "slack"),
        ("https://discord.com/api/webhooks/1/x", "discord"),
        ("https://canary.discord.com/api/webhooks/1/x", "discord"),
        ("https://example.org/hooks.slack.com", "json"),
        ("https://notdiscord.com/", "json"),
    ],
)
def test_the_style_follows_the_host(url: str, style: str) -> None:
    assert style_of(url) == style


@pytest.mark.parametrize("style", ["json", "slack", "discord"])
def test_any_text_of_a_run_gets_through(make: Make, style: str) -> None:
    with serving() as server:
        told = send(make(server.url, style=style, severity="info"), hostile_run('"\x00\ud800</s>@all'))
    assert told["undelivered"] == 0
    assert told["delivered"] == len(server.taken) >= 3


def test_a_healthy_run_starts_no_thread_and_connects_to_nobody(make: Make) -> None:
    before = threading.active_count()
    with serving() as server:
        serving_threads = threading.active_count()
        assert send(make(server.url), whole_run()) == {"delivered": 0, "undelivered": 0}
        assert threading.active_count() == serving_threads
    assert server.came == []
    assert threading.active_count() == before


def test_the_host_s_random_numbers_stay_what_they_are(make: Make) -> None:
    random.seed(3)
    expected = random.getstate()
    with serving(500, 500) as server:
        sink = make(server.url, jitter=None)
        send(sink, [critical(1)])
    assert random.getstate() == expected
