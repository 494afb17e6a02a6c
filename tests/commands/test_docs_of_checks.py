"""``docs/checks/`` and the checks agree, both ways."""

import dataclasses
import re

import pytest

from docs.make_checks import FOLDER, index, page, pages
from torchwatch.check import Category, all_checks
from torchwatch.commands.explain import HEADINGS

STALE = "run `python -m docs.make_checks`"


def test_every_check_has_its_page_and_every_page_its_check() -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(pages()), STALE
    assert set(pages()) == {"index.md", *(f"{slug}.md" for slug in all_checks())}


@pytest.mark.parametrize("name", pages())
def test_pages_say_what_the_code_says(name: str) -> None:
    assert (FOLDER / name).read_text(encoding="utf-8") == pages()[name], STALE


def test_index_lists_each_check_once_under_its_category() -> None:
    listed: dict[str, list[str]] = {}
    for section in index().split("\n## ")[1:]:
        listed[section.split("\n")[0]] = re.findall(r"^\| \[([a-z-]+)\]\(\1\.md\) \|", section, re.MULTILINE)
    assert list(listed) == [c.value for c in Category if c.value in listed]
    assert sorted(slug for slugs in listed.values() for slug in slugs) == list(all_checks())
    for category, slugs in listed.items():
        assert slugs == [s for s, check in all_checks().items() if check.category.value == category]


@pytest.mark.parametrize("slug", all_checks())
def test_a_page_has_all_sections_with_text_and_all_limits(slug: str) -> None:
    check = all_checks()[slug]
    text = page(check)
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert tuple(headings[:4]) == HEADINGS
    assert all(len(part.strip()) > 20 for part in re.split(r"^## .+$", text, flags=re.MULTILINE)[1:5])
    for sentence in check.doc.splitlines():
        if sentence not in HEADINGS:
            assert sentence.strip().replace("``", "`") in text
    for name, value in dataclasses.asdict(check.limits).items():
        assert f"| `{name}` | {value!r} |" in text
    assert check.fix in text


def test_links_lead_to_pages() -> None:
    names = set(pages())
    for text in pages().values():
        assert set(re.findall(r"\]\(([a-z-]+\.md)", text)) <= names
