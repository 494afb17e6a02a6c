"""How alerts, notes and the end of a run look in a terminal; shared by the terminal sink and the commands.

Whatever comes from a run is made printable and put into rich ``Text``, never into markup.
"""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from torchwatch.records import Alert, Note, RunHeader
from torchwatch.text import band, duration, printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torchwatch.records import End, Record

SEVERITY_STYLE = {"critical": "bold red", "warning": "yellow", "info": "cyan", "resolved": "green"}
BAND_STYLE = {"excellent": "green", "good": "green", "warning": "yellow", "critical": "bold red"}
SEVERITIES = ("info", "warning", "critical")

INDENT = 10
SHOWN_PER_BURST = 3


class Terminal(Console):
    """A console that only prints: no markup, no emoji, no notebook output, and no say in a closed pipe.

    Rich would answer a closed pipe by ending the process and pointing its standard output at nothing.
    """

    def __init__(
        self, *, file: IO[str] | None = None, stderr: bool = False, width: int | None = None
    ) -> None:
        super().__init__(
            file=file,
            stderr=stderr,
            width=width,
            markup=False,
            emoji=False,
            highlight=False,
            force_jupyter=False,
        )

    def on_broken_pipe(self) -> None:
        """Let the error pass to whoever prints."""
        raise  # noqa: PLE0704 - rich calls this while it handles the error


def alert_text(alert: Alert, *, fix: bool = True) -> Text:
    """One alert: severity, step, check, layer and title; then, indented, what to do (unless resolved)."""
    word = "resolved" if alert.state == "resolved" else printable(alert.severity, INDENT - 1)
    text = _headline(alert, word, f"step {count(alert.step)}")
    text.append(_aside(alert), "dim")
    return _with_fix(text, alert) if fix and alert.state != "resolved" else text


def issue_text(alert: Alert, *, fix: bool = True) -> Text:
    """An issue looked back upon: its worst severity, since when, and whether it is over."""
    word = printable(alert.severity, INDENT - 1)
    text = _headline(alert, word, f"since step {count(alert.since_step)}")
    if alert.state == "resolved":
        text.append(f" (over at step {count(alert.last_step)})", "dim")
    return _with_fix(text, alert) if fix else text


def _headline(alert: Alert, word: str, when: str) -> Text:
    style = SEVERITY_STYLE.get(word, "")
    text = Text()
    text.append(f"{word.upper():<{INDENT}}", style)
    text.append(f"{when}  ", "dim")
    text.append(printable(alert.check, 60), style)
    title, layer = printable(alert.title), layer_name(alert.layer)
    if layer is not None and layer not in title:
        text.append(f"  {layer}", "bold")
    return text.append(f"  {title}")


def _with_fix(text: Text, alert: Alert) -> Text:
    if alert.fix:
        text.append(f"\n{'':{INDENT}}fix: ", "dim")
        text.append(printable(alert.fix, 1000))
    return text


def header_text(header: RunHeader) -> Text:
    """Which run this is: name, model, size, and when it began."""
    text = Text(f"{'run':<{INDENT}}")
    text.append(printable(header.name or header.run_id or "without a name", 100), "bold")
    parts = [f"{printable(header.model, 80)}, {count(header.parameters)} parameters"] if header.model else []
    parts += [f"started {printable(header.time, 40)}"] if header.time else []
    parts += [f"rank {count(header.rank)} of {count(header.world)}"] if header.world != 1 else []
    text.append("".join(f" · {part}" for part in parts))
    return text


def note_text(note: Note) -> Text:
    """Something torchwatch says about itself."""
    return Text(f"{'note':<{INDENT}}{printable(note.message, 1000)}", "dim")


def health_text(score: int | None, severities: Mapping[str, int]) -> Text:
    """The health score with its band, and how many issues of which severity there are."""
    word = band(score)
    text = Text(f"{'health':<{INDENT}}")
    if score is None:
        return text.append(f"{word}: the file holds no training step")
    text.append(f"{score}/100 ({word})", BAND_STYLE[word])
    nouns = {"critical": "critical issue", "warning": "warning", "info": "info"}
    parts = [plural(severities[s], noun) for s, noun in nouns.items() if severities.get(s)]
    return text.append(" · " + (" · ".join(parts) or "no issue"))


def end_text(end: End) -> Text:
    """How the run ended, and its health."""
    text = Text(f"{printable(end.status, INDENT - 1):<{INDENT}}", "bold")
    made = f"{plural(end.steps, 'step')}, {plural(end.epochs, 'epoch')}"
    text.append(f"{made} in {duration(seconds(end.time_s))}")
    if isinstance(end.health_score, int):
        word = band(end.health_score)
        text.append(" · health ")
        text.append(f"{end.health_score}/100 ({word})", BAND_STYLE[word])
    if end.complete is False:
        lost = f"{plural(end.lost_lines, 'line')} and {plural(end.dropped, 'step detail')}"
        text.append(f" · incomplete: {lost} lost")
    for name, told in (end.sinks or {}).items():
        if told.get("undelivered"):
            left = plural(told["undelivered"], "message")
            text.append(f" · {printable(name, 40)}: {left} not delivered", "yellow")
    if end.error:
        text.append(f"\n{'':{INDENT}}{printable(end.error, 1000)}", "red")
    return text


def show(console: Console, text: Text) -> None:
    """Print lines; on a terminal long ones are wrapped under their own indentation, elsewhere never."""
    if not console.is_terminal:
        console.print(text, soft_wrap=True, highlight=False)
        return
    for line in text.split("\n"):
        indent = max(len(line.plain) - len(line.plain.lstrip(" ")), INDENT)
        margin, body = line[:indent], line[indent:]
        for piece in body.wrap(console, max(console.width - indent, 20)) or [Text()]:
            console.print(margin + piece, soft_wrap=True, highlight=False)
            margin = Text(" " * indent)


def count(value: object) -> str:
    """A whole number with thousands separated; anything else as printable text."""
    return f"{value:,}" if isinstance(value, int) else printable(value, 20)


def plural(number_of: object, noun: str) -> str:
    """``1 step``, ``1,200 steps``."""
    return f"{count(number_of)} {noun}{'' if number_of == 1 else 's'}"


def seconds(value: object) -> float | None:
    """The value if it is a number, else None: a field of a damaged line may hold anything."""
    return value if isinstance(value, (int, float)) else None


def layer_name(layer: str | None) -> str | None:
    """A layer's name as shown; the root module has none of its own."""
    return None if layer is None else printable(layer, 120) or "(the model itself)"


def where(alert: Alert) -> str:
    """The layer, or what the alert says where it is about no layer."""
    return layer_name(alert.layer) or printable(alert.title, 60)


def more_text(check: str, places: list[str]) -> Text:
    """A line that counts what is not shown one by one."""
    names = ", ".join(places[:3]) + (" …" if len(places) > 3 else "")
    return Text(f"{'':{INDENT}}… and {len(places)} more of {printable(check, 60)}: {names}", "dim")


class AlertLines:
    """Turns the alerts of a run into lines that a person can follow.

    An update is shown where the severity rises, a resolution where a warning or worse was shown. Of many
    alerts of one check at one step (one per layer) the first three are shown and the others counted.
    """

    def __init__(self) -> None:
        self._worst: dict[tuple[str, str], int] = {}
        self._burst: tuple[str, int, str] | None = None
        self._shown = 0
        self._held: list[str] = []

    def feed(self, record: Record) -> list[Text]:
        """The lines due because of this record."""
        if isinstance(record, Alert):
            return self._alert(record)
        lines = self.finish()
        if isinstance(record, RunHeader):
            self._worst.clear()
        return [*lines, note_text(record)] if isinstance(record, Note) else lines

    def finish(self) -> list[Text]:
        """The line about alerts that were only counted, if there were any."""
        if not self._held or self._burst is None:
            self._burst = None
            return []
        text = more_text(self._burst[0], self._held)
        self._held, self._burst = [], None
        return [text]

    def _alert(self, alert: Alert) -> list[Text]:
        if not self._is_news(alert):
            return []
        burst = (alert.check, alert.step, alert.state)
        lines = [] if burst == self._burst else self.finish()
        if burst != self._burst:
            self._burst, self._shown = burst, 0
        self._shown += 1
        if self._shown > SHOWN_PER_BURST:
            self._held.append(where(alert))
            return lines
        return [*lines, alert_text(alert, fix=self._shown == 1)]

    def _is_news(self, alert: Alert) -> bool:
        issue = (str(alert.check), str(alert.layer))
        rank = rank_of(alert.severity)
        if alert.state == "resolved":
            return self._worst.pop(issue, 0) > 0
        before = self._worst.get(issue)
        self._worst[issue] = max(rank, before or 0)
        return alert.state != "updated" or before is None or rank > before


def rank_of(severity: object) -> int:
    """0 info, 1 warning, 2 critical; anything else counts as info."""
    return next((rank for rank, word in enumerate(SEVERITIES) if word == severity), 0)


def _aside(alert: Alert) -> str:
    """The onset, unless it is now or the title names it."""
    since = f"step {count(alert.since_step)}"
    if alert.since_step == alert.step or alert.state == "resolved" or since in alert.title:
        return ""
    return f" (since {since})"
