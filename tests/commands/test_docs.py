from docs.make_commands import PAGE, page
from torchwatch.commands import TABLE


def test_page_says_what_help_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `python -m docs.make_commands`"


def test_every_command_has_a_section_with_an_example() -> None:
    sections = page().split("\n## ")[1:]
    assert [section.split("\n")[0] for section in sections] == list(TABLE)
    for name, section in zip(TABLE, sections, strict=True):
        assert f"Example:\n    torchwatch {name}" in section
        assert "--json" in section
