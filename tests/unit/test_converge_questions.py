"""One command asks for everything, and what was changed meanwhile is asked again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from farrier.converge.packages import InstalledPackages
from farrier.converge.paths import PathStates
from farrier.converge.questions import MARK, Answers, Batch, Question

ROOT = Path(__file__).parents[2]

HEAD = """
import getpass, grp, os
from pyinfra import host
from pyinfra.api import FactBase
from farrier.converge import Text, questions, tree
from farrier.converge.commands import Script, last_lines
from farrier.converge.typed import operation

def text(name, content):
    group = grp.getgrgid(os.getgid()).gr_name
    return Text(os.path.abspath(name), content, user=getpass.getuser(), group=group)
"""


class Project:
    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def run(self, deploy: str) -> tuple[int, str, int]:
        """pyinfra's exit code and output for *deploy* on this machine, and how often it asked."""
        (self.directory / "deploy.py").write_text(HEAD + deploy)
        pyinfra = Path(sys.executable).with_name("pyinfra")
        done = subprocess.run(
            [pyinfra, "-y", "-v", "@local", "deploy.py"],
            cwd=self.directory,
            env=os.environ | {"PYTHONPATH": str(ROOT), "PYINFRA_PROGRESS": "off"},
            capture_output=True,
            text=True,
            check=False,
        )
        output = done.stdout + done.stderr
        return done.returncode, output, output.count("Loaded fact")

    def read(self, name: str) -> str:
        return (self.directory / name).read_text()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


TWO_FILES = 'tree(text("a", "1"), name="one")\ntree(text("b", "2"), name="two")\n'


def test_nothing_to_change_is_one_command(project: Project) -> None:
    assert project.run(TWO_FILES)[0] == 0
    code, output, asked = project.run(TWO_FILES)
    assert (code, asked) == (0, 1)
    assert output.count("No changes") == 2


def test_a_change_makes_the_rest_ask_again(project: Project) -> None:
    """The second operation must see what the first has just written over."""
    both = 'tree(text("a", "1"), name="one")\ntree(text("a", "2"), name="two")\n'
    for _ in range(2):
        code, output, asked = project.run(both)
        assert (code, asked) == (0, 2)
        assert output.count("Success") >= 2
        assert project.read("a") == "2"


def test_an_answer_is_not_kept_for_long(project: Project) -> None:
    project.run(TWO_FILES)
    code, _, asked = project.run(f"questions.FRESH = -1\n{TWO_FILES}")
    assert (code, asked) == (0, 2)


def test_a_drift_between_two_runs_is_seen(project: Project) -> None:
    project.run(TWO_FILES)
    (project.directory / "b").write_text("spoiled")
    assert project.run(TWO_FILES)[0] == 0
    assert project.read("b") == "2"


FAILING = """
class Failing(FactBase):
    def command(self):
        return "echo half an answer; echo this is why >&2; exit 3"

@operation(asks=lambda: questions.Question(Failing, {}))
def asks_in_vain():
    questions.answer()
    yield from ()
"""


def test_a_question_that_fails_says_why_and_spoils_no_other(project: Project) -> None:
    project.run(TWO_FILES)
    code, output, _ = project.run(f'{FAILING}\n{TWO_FILES}asks_in_vain(name="three")\n')
    assert code == 1
    assert "this is why" in output
    assert output.count("No changes") == 2


def test_an_operation_in_other_surroundings_asks_for_itself(project: Project) -> None:
    """Its answer may differ: it is not asked with those of the others."""
    project.run(TWO_FILES)
    code, _, asked = project.run(
        'tree(text("a", "1"), name="one")\n'
        'tree(text("b", "2"), name="two", _env={"LC_ALL": "C.UTF-8"})\n'
    )
    assert (code, asked) == (0, 2)


def test_questions_of_a_kind_are_one() -> None:
    one = Question(PathStates, {"paths": ["/a", "/b"]}, several="paths")
    two = Question(PathStates, {"paths": ["/b", "/c"]}, several="paths")
    other = Question(InstalledPackages, {"names": ["a"]}, several="names")
    assert one.goes_with(two)
    assert not one.goes_with(other)
    assert one.shared([one, two]).arguments == {"paths": ["/a", "/b", "/c"]}


def test_answers_are_told_apart() -> None:
    """Also those without output, and those that do not end with a line break."""

    class Says(PathStates):
        def command(self, paths: list[str]) -> str:  # type: ignore[override]
            return paths[0]

    says = ["printf 'a\\nb'", "true", "echo; echo c", "echo d; exit 4"]
    batch = Batch(tuple(Question(Says, {"paths": [command]}) for command in says))
    done = subprocess.run(
        ["sh", "-c", Answers().command(batch)], capture_output=True, text=True, check=True
    )
    assert MARK in done.stdout
    assert Answers().process(done.stdout.splitlines()) == [
        (0, ["a", "b"]),
        (0, []),
        (0, ["", "c"]),
        (4, ["d"]),
    ]
