"""The documents: links lead somewhere, commands that are named exist, the roles' pages are true."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from farrier_agent.metrics.page import FAMILIES

from farrier.metrics_page import SUBJECTS

ROOT = Path(__file__).parents[2]


def tracked(*patterns: str) -> list[Path]:
    """Files of the project, new ones included, as git sees them."""
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-co", "--exclude-standard", *patterns],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [path for name in listed.stdout.splitlines() if (path := ROOT / name).is_file()]


PAGES = tracked("*.md")
TARGETS = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))


def outside_code(page: Path) -> str:
    text = page.read_text(encoding="utf-8")
    return re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)


def anchors(page: Path) -> set[str]:
    """GitHub's anchor of each heading."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in headings}


def test_there_are_the_pages_that_a_reader_expects() -> None:
    names = {str(page.relative_to(ROOT)) for page in PAGES}
    assert {
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "docs/architecture.md",
        "docs/operations.md",
        "docs/lab.md",
    } <= names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", outside_code(page)):
        if link.startswith(("http://", "https://")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{link} leads nowhere"
        if anchor:
            assert anchor in anchors(target), f"{link}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_make_targets_and_paths_that_are_named_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    code = re.findall(r"`([^`\n]+)`", text) + re.findall(r"^    (.+)$", text, re.MULTILINE)
    for words in code:
        for target in re.findall(r"(?:^|\s)make ([a-z-]+)", words):
            assert target in TARGETS, f"make {target}: the Makefile has no such target"
        for path in re.findall(
            r"^(?:farrier|roles|tests|agent|docs|scripts|deploys)/[\w./-]+", words
        ):
            assert (ROOT / path).exists(), f"{path} does not exist"


def test_the_readme_begins_with_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert (
        text.index("make demo") < text.index("make test") < text.index("## The path of a request")
    )
    assert "pyinfra inventory deploys/llm.py" in text


def test_make_without_a_target_lists_all_of_them() -> None:
    # These tests may be run by a make themselves, whose flags are not this one's.
    env = {
        key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))
    }
    shown = subprocess.run(
        ["make"], cwd=ROOT, env=env, capture_output=True, text=True, check=True
    ).stdout
    assert {line.split()[1] for line in shown.splitlines()} == TARGETS


def is_as_made(module: str) -> None:
    """*module* finds its pages as it would write them."""
    done = subprocess.run(
        [sys.executable, "-m", module, "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_pages_of_the_roles_are_as_the_roles_say() -> None:
    is_as_made("farrier.pages")


def test_the_page_of_metrics_is_as_the_families_say() -> None:
    is_as_made("farrier.metrics_page")


def test_the_page_of_engines_is_as_the_adapters_say() -> None:
    is_as_made("farrier.engines_page")


def test_the_page_of_fidelity_is_as_it_was_recorded() -> None:
    is_as_made("farrier.fidelity_page")


def test_every_metric_is_on_the_page_once() -> None:
    shown = [one.name for families in SUBJECTS.values() for one in families]
    assert sorted(shown) == sorted(one.name for one in FAMILIES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_metric_that_is_named_is_one_of_the_agents(page: Path) -> None:
    names = {one.name for one in FAMILIES}
    prefixes = "collector|gpu|health|host|nvml|replica|requests|unit"
    for name in re.findall(rf"\bfarrier_(?:{prefixes})_\w+\b(?!{{)", page.read_text("utf-8")):
        family = re.sub(r"_(?:bucket|count|sum)$", "", name)
        assert {name, family} & names, f"no metric {name}"


def test_the_project_is_not_of_one_machine() -> None:
    """No absolute path of a developer's own, in any file."""
    elsewhere = re.compile(r"(?<![\w.])/(?:work|home/[a-z]+|Users)/(?!farrier)\w")
    for path in tracked():
        if path.suffix in {".lock", ".txt"} or path == Path(__file__):
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        assert not elsewhere.search(text), f"{path.relative_to(ROOT)} names a path of one machine"
