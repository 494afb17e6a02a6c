"""The report's sections in their order, as blocks."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from torchwatch.check import all_checks
from torchwatch.report.autopsy import autopsy_sections
from torchwatch.report.configured import configured
from torchwatch.report.document import Block, Bullets, Callout, Code, Fold, Plot, Section, See, Table, Text
from torchwatch.report.incidents import incident_cards
from torchwatch.report.layers import layer_table
from torchwatch.report.measured import loss_table, machine_table
from torchwatch.report.verdict import counted
from torchwatch.report.words import NEEDS_MODEL, how_to_examine, not_examined

if TYPE_CHECKING:
    from torchwatch.report.report import Report
    from torchwatch.results import Autopsy

_MOST_ISSUES = 200


def sections(report: Report) -> list[Section]:
    """All sections: verdict first, configuration last."""
    return [
        Section("Verdict", "verdict", _verdict(report)),
        Section("Incidents", "incidents", _incidents(report)),
        Section("Loss and metrics", "loss", [Plot("loss"), *loss_table(report), Plot("metrics")]),
        Section("Layers", "layers", _layers(report)),
        Section("Throughput and memory", "machine", _machine(report)),
        Section("Alert timeline", "timeline", _timeline(report)),
        *(autopsy_sections(report.autopsy) if report.autopsy is not None else ()),
        Section("Checks", "checks", _checks(report)),
        *_not_examined(report),
        Section("How the run was configured", "configuration", configured(report)),
    ]


def _verdict(report: Report) -> list[Block]:
    verdict, end = report.verdict, report.found.end
    tone = {"crashed": "critical", "unfinished": "warning", "interrupted": "warning"}.get(
        verdict.status, "info"
    )
    blocks: list[Block] = []
    if tone != "info":
        blocks.append(Callout(tone, f"This run is not complete ({verdict.status}).", verdict.ended))
    if end is not None and end.traceback:
        blocks.append(Code(end.traceback, "text"))
    blocks += [Callout("warning", "The recording has gaps.", remark) for remark in verdict.remarks]
    if tone == "info":
        blocks.append(Text(verdict.ended))
    return blocks + _health(report) + _of_autopsy(report.autopsy)


def _of_autopsy(autopsy: Autopsy | None) -> list[Block]:
    """The autopsy's verdict in its one sentence, with the way to its section."""
    if autopsy is None or autopsy.verdict is None:
        return []
    return [See("autopsy-verdict", "the autopsy's verdict", autopsy.verdict.summary)]


def _health(report: Report) -> list[Block]:
    if not report.found.steps:
        return [
            Callout("info", "Nothing to judge.", "The file holds no training step, so no score is given.")
        ]
    worst = Counter(i.severity for i in report.diagnosis.issues)
    found = ", ".join(counted(worst[s], s) for s in ("critical", "warning", "info"))
    looked = _looked(report)
    score = f"Health score {report.diagnosis.health_score} of 100 ({report.diagnosis.band}): {found}."
    if worst["critical"] or worst["warning"]:
        return [Text(score)]
    names = ", ".join(looked) or "none"
    checked = f"{counted(len(looked), 'check').capitalize()} came to a verdict: {names}."
    calm = f"No warning, no critical. {checked}"
    return [Text(score), Callout("good", "Healthy as far as it was checked.", calm)]


def _looked(report: Report) -> list[str]:
    """Checks that came to a verdict."""
    return [slug for slug in all_checks() if slug not in report.diagnosis.not_run]


def _incidents(report: Report) -> list[Block]:
    cards = incident_cards(report)
    if cards:
        return list(cards)
    return [Text("None. What the checks looked at, and what they could not look at, is listed under Checks.")]


def _layers(report: Report) -> list[Block]:
    plots: list[Block] = [Plot(n) for n in ("gradient_flow", "activations", "update_ratios", "gradient_norm")]
    table = layer_table(report)
    missing = [what for what, key in _MAPS if key not in report.trace.maps]
    if missing:
        plots.append(Text(f"Not recorded per layer in this run: {', '.join(missing)}.", quiet=True))
    return [*table, *plots]


_MAPS = (("gradients", "gradients"), ("updates", "updates"), ("dead units", "dead"), ("zero outputs", "zero"))


def _machine(report: Report) -> list[Block]:
    return [*machine_table(report), Plot("throughput"), Plot("memory")]


def _timeline(report: Report) -> list[Block]:
    issues = report.diagnosis.issues
    if not issues:
        blocks: list[Block] = [Text("No alert was raised.")]
    else:
        rows = [
            [i.severity, i.check, i.layer or "–", str(i.since_step), _until(i.state, i.last_step), i.title]
            for i in sorted(issues, key=lambda i: i.since_step)[:_MOST_ISSUES]
        ]
        head = ["severity", "check", "layer", "since step", "until step", "what"]
        table = Table(head, rows, numeric=frozenset({3, 4}), names=frozenset({1, 2}), severity=0)
        cut = f" (the first {_MOST_ISSUES} of {len(issues)})" if len(issues) > _MOST_ISSUES else ""
        blocks = [
            Plot("timeline"),
            Fold(f"{counted(len(issues), 'issue').capitalize()} in order of onset{cut}", [table]),
        ]
    return blocks + _said(report)


def _until(state: str, last_step: int) -> str:
    return str(last_step) if state == "resolved" else "the end"


def _said(report: Report) -> list[Block]:
    """What the host logged and what torchwatch said about itself."""
    blocks: list[Block] = []
    if report.found.logs:
        rows = [[str(x.step), x.level, x.source, x.message] for x in report.found.logs]
        table = Table(["step", "level", "source", "message"], rows, numeric=frozenset({0}))
        blocks.append(Fold(f"{counted(len(rows), 'log message').capitalize()} of the program", [table]))
    if report.found.notes:
        rows = [[str(x.step), x.topic, x.message] for x in report.found.notes]
        table = Table(["step", "topic", "note"], rows, numeric=frozenset({0}))
        blocks.append(Fold(f"{counted(len(rows), 'note').capitalize()} of torchwatch about itself", [table]))
    return blocks


def _checks(report: Report) -> list[Block]:
    not_run, known = report.diagnosis.not_run, all_checks()
    found = {i.check for i in report.diagnosis.issues}
    fine = [[s, known[s].title] for s in _looked(report) if s not in found]
    blocks: list[Block] = []
    if not_run:
        rows = [[slug, why, known[slug].title if slug in known else "–"] for slug, why in not_run.items()]
        blocks += [
            Text("Not run is not passed. These checks could not come to a verdict:"),
            Table(["check", "why not", "what it would find"], rows, names=frozenset({0})),
        ]
    else:
        blocks.append(Text("Every check came to a verdict."))
    blocks += _replay(report)
    if fine:
        table = Table(["check", "what it looks for"], fine, names=frozenset({0}))
        blocks.append(Fold(f"{counted(len(fine), 'check').capitalize()} looked and found nothing", [table]))
    return blocks


def _replay(report: Report) -> list[Block]:
    """Whether the records give the alerts that were raised live; nothing where that cannot be expected."""
    diagnosis = report.diagnosis
    if diagnosis.replay_matches is None:
        return []
    if diagnosis.replay_matches:
        alerts = counted(diagnosis.recorded_alerts, "alert")
        return [
            Text(f"The checks ran over the records again and raised exactly what was raised live: {alerts}.")
        ]
    why = diagnosis.replay_difference or "the file does not say where"
    return [Callout("warning", "Live and now, the checks did not say the same.", why)]


def _not_examined(report: Report) -> list[Section]:
    """What was not asked for, and the command that runs it; nothing where all was examined."""
    left = not_examined(report.autopsy)
    if not left:
        return []
    blocks: list[Block] = []
    if report.autopsy is None:
        blocks = [Text(NEEDS_MODEL), Text(how_to_examine(report.path, report.found.header.recipe))]
    else:
        blocks = [Text("These examinations were not asked for.")]
    return [Section("Not examined", "not-examined", [*blocks, Bullets(left)])]
