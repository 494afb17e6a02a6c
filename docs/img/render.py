"""Renders the pictures of the README from a real run of the demo.

``python docs/img/render.py`` writes ``terminal.svg`` and, where a Chromium is installed, ``report.png``
beside this file. Run it again when the terminal's or the report's look has changed.
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
WINDOW = "1180,1405"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def main() -> int:
    """Run the demo once and draw both pictures."""
    with tempfile.TemporaryDirectory() as directory:
        shown = run_demo(Path(directory))
        (HERE / "terminal.svg").write_text(terminal(shown), encoding="utf-8")
        browser = next(filter(None, map(shutil.which, BROWSERS)), None)
        if browser is None:
            sys.stderr.write("no Chromium found: report.png was not drawn\n")
            return 1
        screenshot(browser, Path(directory) / "demo" / "dead-relu" / "report.html")
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


def terminal(shown: str) -> str:
    """An SVG of a terminal; it names no font server, so that nothing is fetched when it is looked at."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text("$ torchwatch demo", "bold"))
    for line in re.sub(r"\x1b\[\?25[lh]", "", shown).splitlines():
        if line.strip():
            console.print(Text.from_ansi(line), soft_wrap=False)
    svg = console.export_svg(title="torchwatch", theme=MONOKAI)
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    return svg.replace("Fira Code", "ui-monospace, SFMono-Regular, Menlo, Consolas")


def screenshot(browser: str, page: Path) -> None:
    """The first screenful of the report."""
    command = [browser, "--headless", "--no-sandbox", "--hide-scrollbars", f"--window-size={WINDOW}"]
    command += [f"--screenshot={HERE / 'report.png'}", page.as_uri()]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)  # noqa: S603 - a browser from PATH


if __name__ == "__main__":
    sys.exit(main())
