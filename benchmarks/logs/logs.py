"""Real logs against their labels: which faults are found, and what is said about healthy runs.

    python benchmarks/logs/logs.py FOLDER [--out DIR]

FOLDER holds ``index.jsonl`` (id, file, repo), ``labels.jsonl`` (id, verdict, labels with label, confidence
and why) and the logs that they name. Everything goes through the importers and the checks of a watched run.
Reports per label and per repository hits, misses and false alarms, and lists every disagreement; with
``--out`` as ``logs.json`` and ``logs.md``. Nothing of the package or its tests needs such a folder.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchwatch import diagnose
from torchwatch.errors import TorchwatchError

FOUND_BY = {
    "nan": ("loss-nonfinite", "gradient-nonfinite", "validation-nonfinite"),
    "diverged": ("loss-divergence", "loss-explosion", "loss-nonfinite"),
    "overfitting": ("overfitting",),
    "plateau": ("no-learning", "constant-loss", "loss-plateau"),
    "spike-recovered": ("loss-spike", "loss-explosion", "loss-divergence"),
    "gradient-explosion": ("exploding-gradients", "gradient-spike"),
    "lr-too-high": ("lr-too-high", "loss-divergence", "loss-explosion", "loss-spike"),
    "noisy": ("noisy-loss", "lr-too-high", "batch-too-small"),
    "converged-flat": ("loss-plateau", "diminishing-returns", "early-stop-opportunity", "constant-loss"),
    "suspicious": (),
}
"""Checks any of which finds what a label names. Other labels (healthy, resumed, too short) name no fault."""

ALSO_FAIR = {
    "spike-recovered": ("overfitting",),
    "lr-too-high": ("noisy-loss",),
    "suspicious": ("constant-loss", "no-learning", "loss-spike", "loss-divergence"),
}
"""Warnings that a label explains although they are not what it names."""

QUIET, FOUND = "clean logs without a warning", "found"
GOAL = 0.9


@dataclass(frozen=True)
class Judged:
    """One log: its labels and what was said about it, worst severity per check."""

    id: str
    repo: str
    verdict: str
    labels: tuple[dict[str, Any], ...]
    said: dict[str, dict[str, Any]]
    error: str | None = None

    @property
    def loud(self) -> dict[str, dict[str, Any]]:
        return {c: s for c, s in self.said.items() if s["severity"] != "info"}


def groups(label: dict[str, Any]) -> list[str]:
    """The rows of the report in which a label counts."""
    name = label["label"]
    rows = [name]
    if (
        name == "plateau"
        and ("ln(" in label["why"] or "ln2" in label["why"])
        and label["confidence"] == "high"
    ):
        rows.append("plateau at ln K")
    if name == "overfitting" and label["confidence"] == "high":
        rows.append("overfitting, high confidence")
    return rows


TARGETS = ("nan", "diverged", "plateau at ln K", "overfitting, high confidence")


def judge(folder: Path) -> list[Judged]:
    index = {r["id"]: r for r in read_lines(folder / "index.jsonl")}
    result = []
    for row in read_lines(folder / "labels.jsonl"):
        about = index[row["id"]]
        said, error = say(folder / about["file"])
        result.append(Judged(row["id"], about["repo"], row["verdict"], tuple(row["labels"]), said, error))
    return result


def say(path: Path) -> tuple[dict[str, dict[str, Any]], str | None]:
    """What the checks say about a log, and why it could not be read."""
    try:
        found = diagnose(path)
    except TorchwatchError as error:
        return {}, str(error)
    said: dict[str, dict[str, Any]] = {}
    for issue in found.issues:  # worst first
        fields = ("severity", "state", "since_step", "title", "detail")
        said.setdefault(issue.check, {n: getattr(issue, n) for n in fields})
    return said, None


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def is_hit(log: Judged, label: dict[str, Any], *, loud: bool = False) -> bool:
    return bool(set(FOUND_BY[label["label"]]) & (log.loud if loud else log.said).keys())


def false_alarms(log: Judged) -> list[str]:
    """Warnings that no label explains; in a log labelled clean, all of them."""
    if log.verdict == "clean":
        return sorted(log.loud)
    names = {label["label"] for label in log.labels}
    fair = {c for n in names for c in (*FOUND_BY.get(n, ()), *ALSO_FAIR.get(n, ()))}
    return sorted(set(log.loud) - fair)


def summary(logs: list[Judged]) -> dict[str, Any]:
    labels: dict[str, Counter[str]] = defaultdict(Counter)
    repositories: dict[str, Counter[str]] = defaultdict(Counter)
    disagreements = []
    for log in logs:
        mine = repositories[log.repo]
        mine["logs"] += 1
        for label in log.labels:
            if not FOUND_BY.get(label["label"]):
                continue
            hit, loud = is_hit(log, label), is_hit(log, label, loud=True)
            for row in groups(label):
                labels[row].update(labels=1, hits=hit, warnings=loud, misses=not hit)
            mine.update(hits=hit, misses=not hit)
            if not hit:
                disagreements.append(disagreement(log, "missed", label["label"], label))
        alarms = false_alarms(log)
        mine["false alarms"] += len(alarms)
        disagreements += [disagreement(log, "false alarm", check) for check in alarms]
        if log.error is not None:
            disagreements.append({"id": log.id, "repo": log.repo, "kind": "unreadable", "what": log.error})
    clean = [log for log in logs if log.verdict == "clean"]
    quiet = sum(not log.loud and log.error is None for log in clean)
    return {
        "logs": len(logs),
        "clean": len(clean),
        "quiet": quiet,
        "goals": goals(clean=len(clean), quiet=quiet, labels=labels),
        "labels": {name: dict(labels[name]) for name in sorted(labels)},
        "repositories": {name: dict(repositories[name]) for name in sorted(repositories)},
        "disagreements": disagreements,
        "said": {log.id: log.said for log in logs},
    }


def goals(*, clean: int, quiet: int, labels: dict[str, Counter[str]]) -> list[dict[str, Any]]:
    rows, none = [(QUIET, quiet, clean)], Counter[str]()
    rows += [
        (f"{name}: {FOUND}", labels.get(name, none)["hits"], labels.get(name, none)["labels"])
        for name in TARGETS
    ]
    return [
        {"goal": name, "reached": count, "of": total, "kept": count >= GOAL * total}
        for name, count, total in rows
    ]


def disagreement(log: Judged, kind: str, what: str, label: dict[str, Any] | None = None) -> dict[str, Any]:
    about: dict[str, Any] = {
        "id": log.id,
        "repo": log.repo,
        "verdict": log.verdict,
        "kind": kind,
        "what": what,
    }
    if label is not None:
        return about | {
            "confidence": label["confidence"],
            "from": label["from"],
            "to": label["to"],
            "why": label["why"],
            "said instead": {c: s["severity"] for c, s in log.said.items()},
        }
    said = log.said[what]
    labels = [f"{one['label']} ({one['confidence']})" for one in log.labels]
    return (
        about
        | {n: said[n] for n in ("severity", "state", "since_step", "title", "detail")}
        | {"labels": labels}
    )


def markdown(result: dict[str, Any]) -> str:
    lines = [
        "# Real logs",
        "",
        f"{result['logs']} logs, {result['clean']} of them labelled clean; a hit is a check of any severity.",
        "",
        *table(
            ("goal", "reached", "of", ""),
            ((g["goal"], g["reached"], g["of"], "kept" if g["kept"] else "MISSED") for g in result["goals"]),
        ),
        "",
        "## Per label",
        "",
        *table(
            ("label", "labels", "hits", "of them warnings", "misses"),
            (
                (n, c["labels"], c.get("hits", 0), c.get("warnings", 0), c.get("misses", 0))
                for n, c in result["labels"].items()
            ),
        ),
        "",
        "## Per repository",
        "",
        *table(
            ("repository", "logs", "hits", "misses", "false alarms"),
            (
                (n, c["logs"], c.get("hits", 0), c.get("misses", 0), c.get("false alarms", 0))
                for n, c in result["repositories"].items()
            ),
        ),
        "",
        "## Disagreements",
        "",
        *table(
            ("log", "verdict", "kind", "what", "evidence"),
            (
                (d["id"], d.get("verdict", ""), d["kind"], d["what"], evidence(d))
                for d in result["disagreements"]
            ),
        ),
    ]
    return "\n".join(lines) + "\n"


def evidence(row: dict[str, Any]) -> str:
    if row["kind"] == "missed":
        return f"{row['confidence']}, {row['from']} to {row['to']}: {row['why']}"
    if row["kind"] == "false alarm":
        return f"{row['severity']}, {row['state']}: {row['title']}; labelled {', '.join(row['labels'])}"
    return ""


def table(heads: Iterable[str], rows: Iterable[Iterable[Any]]) -> list[str]:
    heads = list(heads)
    body = [" | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in row) for row in rows]
    return [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}", *(f"| {row} |" for row in body)]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, help="write logs.json and logs.md there")
    options = parser.parse_args(arguments)
    result = summary(judge(options.folder))
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "logs.json").write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")
        (options.out / "logs.md").write_text(markdown(result), encoding="utf-8")
    print(markdown(result))
    return 0 if all(goal["kept"] for goal in result["goals"]) else 1


if __name__ == "__main__":
    sys.exit(main())
