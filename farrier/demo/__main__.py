"""``python -m farrier.demo``: what ``make demo`` runs when the checkout is ready."""

from __future__ import annotations

import json
import sys

import click

from farrier.demo.errors import DemoError
from farrier.demo.screen import Screen
from farrier.demo.story import ROOT, Story


@click.command()
@click.option("--json", "as_json", is_flag=True, help="The result as JSON; all else on stderr.")
@click.option("--bootstrap-seconds", type=float, help="What came before, for the table of phases.")
def demo(as_json: bool, bootstrap_seconds: float | None) -> None:
    """Bring up the demo's lab, converge it, and talk to every host. The lab stays up."""
    screen = Screen(to_stderr=as_json)
    story = Story(screen, bootstrap_seconds)
    failed: dict[str, str] | None = None
    status = 0
    try:
        story.tell()
    except DemoError as error:
        failed = {"phase": story.phase, "why": error.why, "next": error.next}
        status = 1
    except KeyboardInterrupt:
        failed = {"phase": story.phase, "why": "interrupted", "next": "make demo"}
        status = 130
    screen.title("phases")
    lines = [[name, f"{seconds:.1f}"] for name, seconds in story.phases]
    total = sum(seconds for _, seconds in story.phases)
    screen.table(["phase", "seconds"], [*lines, ["all", f"{total:.1f}"]], right=("seconds",))
    if failed:
        screen.line(
            f"\nthe demo failed in its phase {failed['phase']}: {failed['why']}", "bold red"
        )
        screen.line(f"next: {failed['next']}\nagain: make demo    (what is done is not done twice)")
    else:
        screen.line(f"\nkept in {story.write_phases().relative_to(ROOT)}", style="dim")
    if as_json:
        phases = [{"phase": name, "seconds": round(s, 1)} for name, s in story.phases]
        result = {"ok": not failed, "phases": phases, "failed": failed, **story.found}
        click.echo(json.dumps(result, indent=2))
    sys.exit(status)


if __name__ == "__main__":
    demo()
