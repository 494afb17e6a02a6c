from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from torchwatch.report.document import Block, Bullets, Callout, Card, Code, Fold, Plot, Section, Table, Text
from torchwatch.report.sections import sections
from torchwatch.report.words import NOT_EXAMINED


def words(blocks: list[Block]) -> Iterator[str]:
    """All text under the blocks."""
    for block in blocks:
        match block:
            case Text() | Code():
                yield block.text
            case Callout():
                yield from (block.title, block.text)
            case Bullets():
                yield from (x for item in block.items for x in item)
            case Table():
                yield from (cell for row in (block.head, *block.rows) for cell in row)
            case Fold():
                yield block.summary
                yield from words(block.blocks)
            case Card():
                yield block.heading
                yield from (x for fact in block.facts for x in fact)
                yield from words(block.blocks)


def section(report, anchor: str) -> Section:
    return next(s for s in sections(report) if s.anchor == anchor)


def said(report, anchor: str) -> str:
    return "\n".join(words(section(report, anchor).blocks))


def test_order_is_verdict_to_configuration(report_of):
    assert [s.anchor for s in sections(report_of("faulty"))] == [
        "verdict", "incidents", "loss", "layers", "machine", "timeline", "checks", "not-examined",
        "configuration",
    ]  # fmt: skip


def test_healthy_run_says_so_and_what_was_checked(report_of):
    report = report_of("healthy")
    text = said(report, "verdict")
    assert "No warning, no critical." in text
    assert "loss-nonfinite" in text
    assert "Health score 100 of 100 (excellent)" in text
    for slug in report.diagnosis.not_run:
        assert slug not in text
    assert "None." in said(report, "incidents")
    assert "No alert was raised." in said(report, "timeline")


def test_faulty_run_is_never_called_healthy(report_of):
    text = said(report_of("faulty"), "verdict")
    assert "Healthy" not in text
    assert "warning" in text


def test_crash_opens_with_its_traceback(report_of):
    blocks = section(report_of("crashed"), "verdict").blocks
    assert isinstance(blocks[0], Callout)
    assert blocks[0].tone == "critical"
    assert isinstance(blocks[1], Code)
    assert "train.py" in blocks[1].text


def test_unfinished_run_says_so_first(report_of):
    first = section(report_of("unfinished"), "verdict").blocks[0]
    assert isinstance(first, Callout)
    assert first.tone == "warning"
    assert "unfinished" in first.title


def test_a_run_without_steps_gets_no_score(report_of):
    text = said(report_of("empty"), "verdict")
    assert "no score is given" in text
    assert "Health score" not in text
    assert "Neither a loss nor a metric" in said(report_of("empty"), "loss")


def test_checks_that_did_not_run_are_listed_with_their_reason(report_of):
    report = report_of("no-columns")
    text = said(report, "checks")
    assert "Not run is not passed." in text
    assert "no `grad_norms`" in text or "no `grad_norm`" in text
    for slug, why in report.diagnosis.not_run.items():
        assert slug in text
        assert why in text


def test_every_check_is_found_fine_or_not_run(report_of):
    from torchwatch.check import all_checks

    report = report_of("faulty")
    text = said(report, "checks") + said(report, "timeline")
    for slug in all_checks():
        assert slug in text


def test_whether_live_and_replay_agree_is_said(report_of):
    report = report_of("faulty")
    assert report.diagnosis.replay_matches
    assert f"exactly what was raised live: {report.diagnosis.recorded_alerts} alerts." in said(
        report, "checks"
    )
    odd = dataclasses.replace(report.diagnosis, replay_matches=False, replay_difference="step 9: a, b")
    assert "step 9: a, b" in said(dataclasses.replace(report, diagnosis=odd), "checks")
    assert "live" not in said(report_of("unfinished"), "checks").lower()


def test_what_was_not_recorded_per_layer_is_said(report_of):
    assert "Not recorded per layer in this run: gradients, updates, dead units, zero outputs." in said(
        report_of("no-columns"), "layers"
    )


def test_not_examined_names_every_examination_and_the_recipe(report_of):
    text = said(report_of("healthy"), "not-examined")
    assert "made from the run file alone" in text
    assert "--use-recipe" in text
    assert "train.py:build" in text
    for name, tells in NOT_EXAMINED:
        assert name in text
        assert tells in text
    assert {"predictions", "attributions", "ablation", "attention"} <= {n for n, _ in NOT_EXAMINED}


def test_without_a_recipe_the_report_says_how_to_give_one(report_of):
    report = report_of("healthy")
    header = dataclasses.replace(report.found.header, recipe=None)
    other = dataclasses.replace(report, found=dataclasses.replace(report.found, header=header))
    assert 'Watcher(model, recipe="train.py:build")' in said(other, "not-examined")


def test_logs_and_notes_are_folded_under_the_timeline(report_of):
    folds = [b for b in section(report_of("hostile"), "timeline").blocks if isinstance(b, Fold)]
    assert any("log message" in f.summary for f in folds)
    assert any("of torchwatch about itself" in f.summary for f in folds)


def test_every_plot_has_a_place(report_of):
    from torchwatch.report.plots import NAMES

    placed = [b.name for s in sections(report_of("faulty")) for b in s.blocks if isinstance(b, Plot)]
    assert sorted(placed) == sorted(NAMES)
