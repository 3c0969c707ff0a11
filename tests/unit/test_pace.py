"""What is spared of pyinfra's work changes nothing in what it does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

DEPLOY = """
from pyinfra import state
from pyinfra.api import deploy
from pyinfra.api.util import get_operation_order_from_stack as pyinfras
from farrier.pace import operation_order as ours

def asked():
    theirs, our = pyinfras(state), ours(state)
    print("ORDER", theirs == our, len(our))

def twice():
    asked()
    asked()

@deploy("A deploy")
def of_a_role():
    twice()

asked()
twice()
of_a_role()
"""


def test_operations_have_pyinfras_order(tmp_path: Path) -> None:
    """From the deploy file itself, from a function of it, and through pyinfra's own frames."""
    (tmp_path / "deploy.py").write_text(DEPLOY)
    done = subprocess.run(
        [Path(sys.executable).with_name("pyinfra"), "-y", "@local", "deploy.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("ORDER")]
    assert lines == [f"ORDER True {depth}" for depth in (3, 4, 4, 5, 5)]


@pytest.mark.parametrize("unwanted", [False, True])
def test_byte_code_is_kept_unless_the_operator_does_not_want_it(unwanted: bool) -> None:
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    if unwanted:
        env["PYTHONDONTWRITEBYTECODE"] = "1"
    program = (
        "import sys, pyinfra_cli.main; from farrier import pace;"
        " sys.dont_write_bytecode = True; pace.install(); print(sys.dont_write_bytecode)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str(unwanted)
