"""From raw results to figures: what was found, how soon, and what was said about healthy trainings."""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.faults.bench import CLASSES, FAULTS, HEALTHY, Case
from benchmarks.faults.rivals import RULES

ROOT = Path(__file__).parent.parent.parent
RANK = {"info": 0, "warning": 1, "critical": 2}
HALVES = {"mlp and tabular": ("mlp", "tabular"), "cnn, rnn and transformer": ("cnn", "rnn", "transformer")}
TUNED: tuple[str, ...] = (
    "`loss-explosion.settling` = 0.75, new (mlp half: new-classes-later, which was a twin then)",
    "`no-op-step.bare_steps` = 10, new (mlp half: zero-grad-after-backward, loss-detached)",
    "`overfitting.steady_sigmas` = 3, new: 5,000 simulated healthy curves, +1 alarm in 1,000 (few-samples)",
    "`overfitting`: a plain turn has a fall before it (mlp half: new-classes-later)",
    "`class-ignored`: 3 evaluations where only the training loss falls (mlp half: rare-class-ignored)",
    "`train-val-leakage` looks at the end of an epoch, too (mlp half: validated-on-training-data)",
    "`memory-growth.warm_up_intervals` = 1, not 3; `early_thirds`, `returns`, new (mlp half: graphs-kept)",
    "`saturated-activations`: saturated at the first look is a warning (mlp half: saturated-init)",
    "`loss-spike`: no warning before the loss came back (mlp half: new-classes-later)",
)
"""What was changed in checks because of a training of this bench, and of which half it is."""

Row = dict[str, Any]
_NO_LEARNING_STEPS = 200
_WARM_UP = 20  # steps in which the catalogue's checks of trends do not judge; an epoch may have one step
_LINE = 2  # steps: what happens within step n may be noticed when the file ends with step n − 2


def found(case: Case, row: Row) -> list[Any] | None:
    """The first alert that counts as finding the fault."""
    for alert in row["alerts"]:
        if (
            alert[0] in case.expect
            and RANK[alert[1]] >= RANK[case.severity]
            and alert[2] >= row["onset"] - _LINE
        ):
            return list(alert)
    return None


def named(case: Case, row: Row) -> bool:
    """Whether the first alert, or the root of the worst incident, names the cause."""
    least = RANK[case.severity]
    loud = [a for a in row["alerts"] if RANK[a[1]] >= min(least, 1) and a[2] >= row["onset"] - _LINE]
    incidents = [i for i in row["incidents"] if RANK[i[1]] >= min(least, 1)]
    worst = max(incidents, key=lambda i: (RANK[i[1]], -i[2]), default=None)
    return bool(loud and loud[0][0] in case.roots) or bool(worst and worst[0] in case.roots)


def onset(case: Case, row: Row) -> int:
    """When there is something to find: overfitting begins after the best validation."""
    if case.roots == {"overfitting"} and row.get("best_val"):
        return max(int(row["best_val"]) + 1, row["onset"])
    if case.kind == "numeric" and row["nonfinite"]:
        return int(row["nonfinite"])
    return int(row["onset"])


def delay(case: Case, row: Row) -> int | None:
    """Steps from the onset to the alert."""
    alert = found(case, row)
    return None if alert is None else max(0, alert[2] - onset(case, row))


def in_time(case: Case, row: Row) -> bool | None:
    """Whether the alert came as soon as the goal asks; None where nothing was found live."""
    alert = found(case, row)
    if alert is None or alert[6] == "read":
        return None
    late = max(0, alert[2] - onset(case, row))
    if case.kind == "wiring":
        return late <= case.stretch + 2
    if case.kind == "numeric" and row["nonfinite"]:
        return late <= 1
    start = onset(case, row) + (_NO_LEARNING_STEPS if "no-learning" in case.roots else 0)
    if case.kind == "dynamics":
        start = max(start, _WARM_UP)
    return sum(start < end <= alert[2] for end in row["intervals"]) <= 3


def harm(rows: Iterable[Row]) -> str:
    """Whether the fault is worse than its twin beyond seed noise: two standard errors of the means."""
    faulty, twin = ([r["score"] for r in rows if r["faulty"] is f] for f in (True, False))
    if not faulty or not twin:
        return "no twin"
    bad = [v for v in faulty if not math.isfinite(v)]
    good = [v for v in twin if math.isfinite(v)]
    if len(good) < len(twin):
        return "twin is not finite"
    if len(bad) == len(faulty):
        return "shown (not finite)"
    known = [v for v in faulty if math.isfinite(v)]
    if len(known) < 2:
        return "worse" if bad or known[0] > good[0] else "NOT SHOWN"
    error = math.sqrt(statistics.variance(known) / len(known) + statistics.variance(good) / max(len(good), 1))
    apart = statistics.mean(known) - statistics.mean(good)
    return "shown" if bad or apart > 2 * error else "NOT SHOWN"


def split(rows: Iterable[Row]) -> tuple[list[tuple[Case, Row]], list[Row]]:
    """Faulty runs with their case, and healthy ones (twins among them)."""
    whole = [r for r in rows if "broken" not in r]
    return [(FAULTS[r["slug"]], r) for r in whole if r["faulty"]], [r for r in whole if not r["faulty"]]


def loud(row: Row) -> list[Any]:
    """Incidents of warning or worse."""
    return [i for i in row["incidents"] if RANK[i[1]] >= 1]


def figures(rows: Iterable[Row]) -> dict[str, Any]:
    """All figures of some runs."""
    faulty, healthy = split(rows)
    hits = [(c, r) for c, r in faulty if found(c, r)]
    steps = sum(r["steps"] for r in healthy)
    alarms = [r for r in healthy if loud(r)]
    spoken = [i for r in healthy for i in loud(r)]
    speed = {}
    for kind in CLASSES:
        part = [(c, r) for c, r in faulty if c.kind == kind]
        delays = [d for c, r in part if (d := delay(c, r)) is not None]
        timely = [t for c, r in part if (t := in_time(c, r)) is not None]
        speed[kind] = {
            "runs": len(part), "recall": _share(sum(found(c, r) is not None for c, r in part), len(part)),
            "median_steps": statistics.median(delays) if delays else None,
            "in_time": _share(sum(timely), len(timely)),
            "root": _share(sum(named(c, r) for c, r in part), len(part)),
        }  # fmt: skip
    return {
        "faulty_runs": len(faulty), "healthy_runs": len(healthy), "healthy_steps": steps,
        "recall": _share(len(hits), len(faulty)),
        "root_top1": _share(sum(named(c, r) for c, r in faulty), len(faulty)),
        "precision": _share(len(hits), len(hits) + len(alarms)), "classes": speed,
        "false_incidents_per_10000": 1e4 * len(spoken) / steps if steps else None,
        "false_criticals": sum(i[1] == "critical" for i in spoken),
        "healthy_without_warning": _share(len(healthy) - len(alarms), len(healthy)),
        "replay_same": _share(sum(r["replay"] is True for r in (*(r for _, r in faulty), *healthy)),
                              len(faulty) + len(healthy)),
    }  # fmt: skip


def rival_figures(rows: Iterable[Row]) -> dict[str, dict[str, Any]]:
    """Recall, precision and false alarms of each set of rules, and of each rule."""
    faulty, healthy = split(rows)
    twins = {(r["slug"], r["seed"]): r for r in healthy}
    table = {}
    for group, rules in RULES.items():
        for name in ("all of them", *rules):

            def says(row: Row, prefix: str = f"{group}: " + ("" if name == "all of them" else name)) -> bool:
                return any(
                    k == prefix or (prefix.endswith(": ") and k.startswith(prefix)) for k in row["rivals"]
                )

            hits = [r for _, r in faulty if says(r)]
            alarms = [r for r in healthy if says(r)]
            apart = [r for r in hits if (t := twins.get((r["slug"], r["seed"]))) is not None and not says(t)]
            table[f"{group}: {name}"] = {
                "recall": _share(len(hits), len(faulty)), "apart_from_twin": _share(len(apart), len(faulty)),
                "precision": _share(len(hits), len(hits) + len(alarms)),
                "healthy_without_warning": _share(len(healthy) - len(alarms), len(healthy)),
            }  # fmt: skip
    return table


def per_case(rows: list[Row]) -> dict[str, dict[str, Any]]:
    """What became of each fault, and what was said about each healthy training."""
    of: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if "broken" not in row:
            of[row["slug"]].append(row)
    table: dict[str, dict[str, Any]] = {}
    for slug, part in of.items():
        healthy = [r for r in part if not r["faulty"]]
        said = dict(Counter(i[0] for r in healthy for i in loud(r)))
        if slug not in FAULTS:
            table[slug] = {"runs": len(part), "steps": sum(r["steps"] for r in part), "warnings": said}
            continue
        case, faulty = FAULTS[slug], [r for r in part if r["faulty"]]
        first = Counter(a[0] for r in faulty if (a := found(case, r)))
        table[slug] = {
            "class": case.kind, "arch": case.arch, "planted": case.planted,
            "runs": len(faulty), "harm": harm(part),
            "found": sum(found(case, r) is not None for r in faulty), "by": dict(first),
            "named": sum(named(case, r) for r in faulty), "steps": [delay(case, r) for r in faulty],
            "in_time": [in_time(case, r) for r in faulty], "twin_warnings": said,
            "missed_with": [sorted({a[0] for a in r["alerts"]}) for r in faulty if not found(case, r)],
        }  # fmt: skip
    return table


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f} %"


def line(row: Row) -> str:
    """A run and its alerts, for people."""
    if "broken" in row:
        return f"{row['slug']} {row['seed']} BROKEN {row['broken']}"
    kind = "fault" if row["faulty"] else "twin" if row["slug"] in FAULTS else "healthy"
    verdict = ""
    if row["faulty"]:
        case = FAULTS[row["slug"]]
        verdict = "found" if found(case, row) else "MISSED"
        verdict += f" {'named' if named(case, row) else 'NOT NAMED'} in {delay(case, row)}"
    elif loud(row):
        verdict = "FALSE ALARM"
    head = f"{row['slug']:32s} {row['seed']} {kind} {verdict}  score {row['score']:.4g}, "
    head += f"not finite at {row['nonfinite']}, {row['steps']} steps, {row['plain_s']:.1f} s, "
    head += f"watched {row['watched_s']:.1f} s, replay {row['replay']} {row['error'] or ''}"
    alerts = {(a[0], a[1]): a for a in reversed(row["alerts"])}
    lines = [
        f"    {a[1]:8s} {a[0]} at {a[2]} since {a[3]} {a[4] or ''}: {a[5]}" for a in reversed(alerts.values())
    ]
    return "\n".join([head, *lines, f"    rivals {row['rivals']}, not run {row['not_run']}"])


def text(rows: list[Row]) -> str:
    """The tables, as Markdown."""
    whole = [r for r in rows if "broken" not in r]
    parts = [_main(whole), _classes(figures(whole)), _halves(whole), _faults(per_case(whole)), _alarms(whole)]
    broken = [f"- {r['slug']} (seed {r['seed']}): {r['broken']}" for r in rows if "broken" in r]
    if broken:
        parts.append("Trainings that broke and count for nothing:\n\n" + "\n".join(broken))
    return "\n\n".join(parts)


def _main(rows: list[Row]) -> str:
    own, others = figures(rows), rival_figures(rows)
    head = [
        "| | recall | root named | precision | found, twin quiet | healthy, no warning | false per 10,000 |",
        "|---|---|---|---|---|---|---|",
    ]
    faulty, healthy = split(rows)
    twins = {(r["slug"], r["seed"]): r for r in healthy}
    apart = [
        r
        for c, r in faulty
        if found(c, r) and (r["slug"], r["seed"]) in twins and not loud(twins[r["slug"], r["seed"]])
    ]
    per = own["false_incidents_per_10000"]
    cells = [own["recall"], own["root_top1"], own["precision"], _share(len(apart), len(faulty))]
    cells.append(own["healthy_without_warning"])
    row = " | ".join(map(_percent, cells))
    head.append(f"| torchwatch | {row} | {'–' if per is None else format(per, '.2f')} |")
    for name, v in others.items():
        head.append(
            f"| {name} | {_percent(v['recall'])} | – | {_percent(v['precision'])} | "
            f"{_percent(v['apart_from_twin'])} | "
            f"{_percent(v['healthy_without_warning'])} | – |"
        )
    said = f"{own['faulty_runs']} faulty and {own['healthy_runs']} healthy runs (twins among them), "
    said += f"{own['healthy_steps']:,} healthy steps; "
    said += f"{own['false_criticals']} false criticals; a replay gives the same alerts "
    said += f"in {_percent(own['replay_same'])} of the runs."
    return said + "\n\n" + "\n".join(head)


def _classes(own: dict[str, Any]) -> str:
    lines = [
        "| class | runs | recall | root named | median steps to detection | within the goal |",
        "|---|---|---|---|---|---|",
    ]
    for kind, v in own["classes"].items():
        steps = "–" if v["median_steps"] is None else f"{v['median_steps']:g}"
        lines.append(
            f"| {kind} | {v['runs']} | {_percent(v['recall'])} | {_percent(v['root'])} | "
            f"{steps} | {_percent(v['in_time'])} |"
        )
    return "\n".join(lines)


def _halves(rows: list[Row]) -> str:
    lines = [
        "| half | faulty runs | recall | root named | healthy runs | without a warning |",
        "|---|---|---|---|---|---|",
    ]
    for name, kinds in HALVES.items():
        part = [r for r in rows if (FAULTS | HEALTHY)[r["slug"]].arch in kinds]
        v = figures(part)
        lines.append(
            f"| {name} | {v['faulty_runs']} | {_percent(v['recall'])} | "
            f"{_percent(v['root_top1'])} | {v['healthy_runs']} | "
            f"{_percent(v['healthy_without_warning'])} |"
        )
    tuned = "Changed in checks because of a training of this bench:\n\n" + "\n".join(f"- {t}" for t in TUNED)
    return "\n".join(lines) + "\n\n" + tuned


def _faults(table: dict[str, dict[str, Any]]) -> str:
    lines = ["| fault | class | harm | found | named | by | steps |", "|---|---|---|---|---|---|---|"]
    for slug, v in table.items():
        if slug in FAULTS:
            by = ", ".join(v["by"]) or "; ".join(" ".join(m) or "nothing said" for m in v["missed_with"][:1])
            known = [s for s in v["steps"] if s is not None]
            steps = f"{statistics.median(known):g}" if known else "–"
            lines.append(
                f"| {slug}: {v['planted']} | {v['class']} | {v['harm']} | {v['found']}/{v['runs']} "
                f"| {v['named']}/{v['runs']} | {by} | {steps} |"
            )
    return "\n".join(lines)


def _alarms(rows: list[Row]) -> str:
    said = []
    for row in split(rows)[1]:
        if loud(row):
            twin = " (twin)" if row["slug"] in FAULTS else ""
            roots = ", ".join(f"{i[0]} ({i[1]})" for i in loud(row))
            said.append(f"- {row['slug']}{twin}, seed {row['seed']}: {roots}")
    return "Warnings about healthy trainings:\n\n" + ("\n".join(said) or "none")


def record(rows: list[Row], note: str = "") -> None:
    """Keep the figures in last.json and the tables in docs/detection.md."""
    whole = [r for r in rows if "broken" not in r]
    kept = {
        "figures": figures(whole),
        "rivals": rival_figures(whole),
        "tuned": TUNED,
        "cases": per_case(whole),
    }
    Path(__file__).with_name("last.json").write_text(json.dumps(kept, indent=1) + "\n")
    seeds = len({r["seed"] for r in rows})
    page = PAGE.format(seeds=seeds, note=note, tables=text(rows))
    (ROOT / "docs" / "detection.md").write_text(page)


PAGE = """# What is found, and what is left alone

Written by `python -m benchmarks.faults.run --record`; {seeds} seed(s) of every training.{note}

Every fault is planted into a script whose twin is the same script without it. That a fault harms is shown in
plain torch, by the number that the script ends with (validation loss, unless said otherwise): worse than its
twin's beyond two standard errors of the seeds' means, or not finite. A fault is *found* when one of the
checks that may name it gives a warning (an info where the catalogue says info) at or after the step at which
the fault begins; its *root* is named when the first alert or the root of the worst incident is one of those
that name the cause.

The trainings are watched without a budget and with one line per step (`WatchConfig(budget=None,
fast_steps_per_s=1e9)`): steps of a millisecond, on which the default budget buys few looks, stand for steps
of ordinary size. The rules of others see the same trainings, from plain torch, with their published limits
(`benchmarks/faults/rivals.py` says from where, and what was left out). "Found" is for them that any rule of
the set spoke in a faulty run, whatever it said.

The goals of speed: wiring within the shortest stretch that the trigger needs and two steps, numeric within
one step of the first value that is not finite, others within three intervals of the onset (overfitting
begins after the best validation; no-learning may take 200 steps first; for dynamics the first 20 steps, the
catalogue's warm-up, do not count).

{tables}
"""
