"""Writes a report into a directory."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from torchwatch.errors import UsageError
from torchwatch.report import html, jsonfile, markdown
from torchwatch.report.autopsy import autopsy_sections, draw_autopsy
from torchwatch.report.plots import Failure, Picture, draw_all
from torchwatch.report.sections import sections
from torchwatch.runfile.opening import private_folder
from torchwatch.text import duration, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from torchwatch.report.document import Section
    from torchwatch.report.report import Report
    from torchwatch.results import Autopsy


def default_directory(run: Path) -> Path:
    """Where a run's report goes: the run file's path without its suffixes (``.jsonl``, ``.jsonl.gz``)."""
    name = run.name
    for suffix in (".gz", ".jsonl"):
        name = name.removesuffix(suffix)
    return run.with_name(name if name and name != run.name else f"{run.name}-report")


def write_report(report: Report, out: Path, progress: Callable[[str], None] = lambda _: None) -> list[Path]:
    """Write ``report.md``, ``report.html``, ``report.json`` and the plots; their paths, the page first.

    Files and new directories are readable by their owner alone, as the run file is.

    Args:
        report: what to write.
        out: a directory, made if it is not there.
        progress: called with what is being done.

    Raises:
        UsageError: the directory cannot be made or written.
    """
    pictures = draw_all(report, progress)
    if report.autopsy is not None:
        pictures |= draw_autopsy(report.autopsy, progress)
    progress("writing the report")
    return _write(out, report.title, _summary(report), sections(report), pictures, jsonfile.render(report))


def write_autopsy(
    autopsy: Autopsy, out: Path, progress: Callable[[str], None] = lambda _: None
) -> list[Path]:
    """The same of an autopsy without a run: its sections, its plots, and ``report.json`` with ``autopsy``.

    Raises:
        UsageError: the directory cannot be made or written.
    """
    pictures = draw_autopsy(autopsy, progress)
    progress("writing the report")
    data = jsonfile.indented({"autopsy": autopsy.as_json()})
    title = f"Autopsy of {autopsy.about.model}"
    return _write(out, title, _summary_of(autopsy), autopsy_sections(autopsy), pictures, data)


def _write(
    out: Path,
    title: str,
    summary: Mapping[str, object],
    content: list[Section],
    pictures: Mapping[str, Picture | Failure],
    data: bytes,
) -> list[Path]:
    files = {
        "report.html": html.render(title, summary, content, pictures).encode(),
        "report.md": markdown.render(title, content, pictures).encode(),
        "report.json": data,
    }
    files |= {
        f"{name}.png": picture.light for name, picture in pictures.items() if isinstance(picture, Picture)
    }
    try:
        private_folder(out)
        return [write_private(out / name, data) for name, data in files.items()]
    except OSError as error:
        raise UsageError(
            f"the report cannot be written to {printable(out)}: {error.strerror or error}"
        ) from error


def check_writable(out: Path) -> None:
    """Say before minutes of work that a report cannot be written there; nothing is made.

    Raises:
        UsageError: it, or the nearest folder above it that exists, is no folder or cannot be written.
    """
    nearest = next(p for p in (out, *out.absolute().parents) if p.exists())
    reason = "Not a directory" if not nearest.is_dir() else "Permission denied"
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise UsageError(f"the report cannot be written to {printable(out)}: {reason}")


def write_private(path: Path, data: bytes) -> Path:
    """Through a new file of private mode, so that an old report is never half replaced."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    return path


def _summary(report: Report) -> dict[str, object]:
    found, header = report.found, report.found.header
    facts = [
        ("model", header.model or "–"),
        ("parameters", f"{header.parameters:,}"),
        ("steps", f"{found.steps:,}"),
        ("time", duration(found.time_s)),
        ("ended", report.verdict.status),
        ("started", header.time[:16].replace("T", " ") or "–"),
    ]
    return {
        "score": report.diagnosis.health_score,
        "band": report.diagnosis.band,
        "tone": report.verdict.tone,
        "headline": report.verdict.headline,
        "facts": facts,
        "footer": _footer(report),
    }


def _footer(report: Report) -> str:
    if report.autopsy is None:
        return f"Made by torchwatch from {report.path.name} alone, without the model or data."
    about = report.autopsy.about
    return f"Made by torchwatch from {report.path.name} and {about.samples:,} samples on {about.device}."


def _summary_of(autopsy: Autopsy) -> dict[str, object]:
    about, verdict = autopsy.about, autopsy.verdict
    worst = {r.severity for o in autopsy.outcomes for r in getattr(o.result, "remarks", ())}
    tone = "critical" if "critical" in worst else "warning" if "warning" in worst else "info"
    facts = [
        ("model", about.model),
        ("parameters", f"{about.parameters:,}"),
        ("task", about.task),
        ("samples", f"{about.samples:,}"),
        ("device", about.device),
        ("time", duration(about.duration_s)),
    ]
    return {
        "score": None if verdict is None else round(100 * verdict.first.share),
        "band": "no verdict" if verdict is None else verdict.first.name,
        "tone": tone,
        "headline": "No verdict was reached." if verdict is None else verdict.summary,
        "facts": facts,
        "footer": f"Made by torchwatch from {about.samples:,} samples on {about.device}.",
    }
