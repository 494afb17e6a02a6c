"""``make check`` writes its last result into docs/checked.md: date, commit, machine, figures.

    python benchmarks/check_all.py
    python benchmarks/check_all.py --only steady --only replay     # the other parts keep what they had

Runs the slow tests and the benches one after the other; a failure is written down and fails the command.
Every part says when and of which commit it is.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
PYTHON = sys.executable
PAGE = ROOT / "docs" / "checked.md"
PARTS: dict[str, list[str]] = {
    "fast tests": ["-m", "pytest", "-q", "-n", "2", "-m", "not slow and not gpu"],
    "slow tests": ["-m", "pytest", "-q", "-n", "2", "-m", "slow and not gpu"],
    "false alarms and misses of the loss checks": ["benchmarks/checks/false_alarms.py"],
    "planted faults and healthy trainings, quick": ["-m", "benchmarks.faults.run", "--quick"],
    "replay: diagnosis of 1,000,000 steps": ["benchmarks/replay/replay.py"],
    "steady: 200,000 steps": ["benchmarks/steady/steady.py"],
    "file size": ["benchmarks/filesize/filesize.py"],
    "autopsy: the worked example": ["-m", "benchmarks.autopsy.whole"],
    "autopsy: ablation": ["-m", "benchmarks.autopsy.ablation", "--rounds", "3"],
    "autopsy: attributions": ["-m", "benchmarks.autopsy.attributions"],
    "overhead, quick": ["benchmarks/overhead/overhead.py", "--quick"],
    "overhead: Lightning callback": ["benchmarks/overhead/lightning_callback.py"],
}


def run(command: list[str]) -> tuple[int, str, float]:
    started = time.perf_counter()
    done = subprocess.run([PYTHON, *command], cwd=ROOT, capture_output=True, text=True, check=False)
    return (
        done.returncode,
        done.stdout + (done.stderr if done.returncode else ""),
        time.perf_counter() - started,
    )


def commit() -> str:
    head = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    changed = subprocess.run(
        ["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return head.stdout.strip() + (" with uncommitted changes" if changed.stdout.strip() else "")


def sections(page: str) -> dict[str, str]:
    """The parts of a page by name: what follows its heading, up to the next one."""
    found = {}
    for part in page.split("\n## ")[1:]:
        name = next((name for name in PARTS if part.startswith(name)), None)
        if name is not None:
            found[name] = "## " + part.strip() + "\n"
    return found


def told(name: str, command: list[str]) -> tuple[int, str]:
    """Run a part; its exit code and its section."""
    print(f"{name} …", flush=True)
    code, output, seconds = run(command)
    state = "passed" if code == 0 else f"FAILED (exit code {code})"
    tail = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in output.strip().splitlines()][-60:]
    if "pytest" in command:
        tail = tail[-1:] if code == 0 else tail[-25:]
    print(f"{name}: {state} in {seconds:.0f} s", flush=True)
    when = f"{dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M} UTC, commit {commit()}"
    lines = [f"## {name}: {state}, {seconds:.0f} s", "", when, "", "```", *tail, "```"]
    return code, "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="append", default=[], help="a part, by the beginning of its name")
    only = parser.parse_args().only
    chosen = [name for name in PARTS if not only or any(name.startswith(word) for word in only)]
    if not chosen:
        parser.error(f"no part begins like that; there are: {'; '.join(PARTS)}")
    page = sections(PAGE.read_text()) if only and PAGE.exists() else {}
    failed = 0
    for name in chosen:
        code, page[name] = told(name, PARTS[name])
        failed += code != 0
    head = [
        "# Last `make check`",
        "",
        "Written by `benchmarks/check_all.py`; what it saw, also where it misses a goal.",
        "",
        f"Machine: {platform.system()} {platform.machine()}, {os.cpu_count()} cores, no GPU used.",
        f"Python {platform.python_version()}.",
        "",
    ]
    PAGE.write_text("\n".join([*head, *(page[name] for name in PARTS if name in page)]))
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
