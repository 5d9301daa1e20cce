"""What the documentation shows is what happens."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from router.cli import main
from router.config.load import load_file
from router.config.plugins import Registry

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.yaml"))
SHOWN = [
    pytest.param(*re.fullmatch(r"\$ waypost (.*?)\n(.*)", block, re.DOTALL).groups(), id=f"{page.name}-{at}")  # type: ignore[union-attr]
    for page in sorted((ROOT / "docs").glob("*.md"))
    for at, block in enumerate(re.findall(r"```console\n(.*?)```", page.read_text("utf-8"), re.DOTALL))
]


@pytest.mark.parametrize(("command", "output"), SHOWN)
def test_commands_print_what_is_shown(monkeypatch: pytest.MonkeyPatch, command: str, output: str) -> None:
    monkeypatch.chdir(ROOT)
    assert CliRunner().invoke(main, shlex.split(command)).output == output


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_examples_are_good(monkeypatch: pytest.MonkeyPatch, example: Path) -> None:
    monkeypatch.chdir(ROOT)
    loaded = load_file(str(example), Registry())
    assert loaded.problems == (), loaded.render()


def test_the_page_shows_the_example_itself() -> None:
    text = (ROOT / "docs" / "examples" / "dtab.yaml").read_text("utf-8")
    assert f"```yaml\n{text}```" in (ROOT / "docs" / "dtab.md").read_text("utf-8")


def test_links_lead_somewhere() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    for page in pages:
        for link in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text("utf-8")):
            assert link.startswith("https://") or (page.parent / link).exists(), f"{page.name}: {link}"
