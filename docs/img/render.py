"""Renders the pictures of the README from a real run of the demo.

``python docs/img/render.py`` writes ``terminal.png`` and ``report.png`` beside itself; it needs a Chromium.
Run it again when the terminal's or the report's look has changed.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

HERE = Path(__file__).resolve().parent
COLUMNS = 112
REPORT_SIZE = (1180, 1405)
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def main() -> int:
    """Run the demo once and draw both pictures."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.stderr.write("no Chromium found: the pictures were not drawn\n")
        return 1
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        page, size = terminal(run_demo(directory))
        (directory / "terminal.html").write_text(page, encoding="utf-8")
        screenshot(browser, directory / "terminal.html", HERE / "terminal.png", size)
        screenshot(browser, directory / "demo/dead-relu/report.html", HERE / "report.png", REPORT_SIZE)
    return 0


def run_demo(directory: Path) -> str:
    """What the demo prints on a terminal, with its colours, without its progress bar."""
    colours = {"FORCE_COLOR": "1", "TTY_INTERACTIVE": "0", "COLUMNS": str(COLUMNS)}
    done = subprocess.run(
        [sys.executable, "-m", "torchwatch", "demo"],
        cwd=directory,
        env=os.environ | colours,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    )
    return done.stdout


def terminal(shown: str) -> tuple[str, tuple[int, int]]:
    """A page with the text as a terminal shows it, and its width and height (CSS pixels)."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text("$ torchwatch demo", "bold"))
    for line in re.sub(r"\x1b\[\?25[lh]", "", shown).splitlines():
        if line.strip():
            console.print(Text.from_ansi(line))
    svg = console.export_svg(title="torchwatch", theme=MONOKAI)
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL).replace("Fira Code", "DejaVu Sans Mono")
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    assert box is not None, "rich has changed its SVG"
    size = round(float(box[1])), round(float(box[2]))
    return f'<body style="margin:0">{svg}</body>', size


def screenshot(browser: str, page: Path, picture: Path, size: tuple[int, int]) -> None:
    """The page from its top, as large as ``size``."""
    command = [browser, "--headless", "--no-sandbox", "--hide-scrollbars"]
    command += ["--default-background-color=00000000", f"--window-size={size[0]},{size[1]}"]
    command += [f"--screenshot={picture}", page.as_uri()]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)  # noqa: S603 - a browser from PATH


if __name__ == "__main__":
    sys.exit(main())
