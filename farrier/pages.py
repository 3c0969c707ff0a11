"""``make docs``: the pages of ``docs/roles``, made from what the roles say about themselves.

``python -m farrier.pages`` writes them; with ``--check`` nothing is written and the exit code is 1
when a page is missing, old, or of a role that is gone.
"""

from __future__ import annotations

import inspect
import json
import pkgutil
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import click

import roles
from farrier.defaults import Default, Defaults
from farrier.generated import row

__all__ = ["page", "pages"]

DIRECTORY = Path(__file__).parents[1] / "docs" / "roles"
_HEAD = "<!-- Written by `make docs` from roles/{role}/__init__.py: change it there. -->"
_NO_DATA = "It reads no data from the inventory."


def pages() -> dict[str, str]:
    """Every page by its file name; the index is ``README.md``."""
    texts = {}
    index = [_HEAD.replace("{role}", "*"), "# Roles\n"]
    index.append("What `deploys/` installs, one folder under `roles/` for each thing.\n")
    for found in pkgutil.iter_modules(roles.__path__):
        module = import_module(f"roles.{found.name}")
        if isinstance(defaults := getattr(module, "DEFAULTS", None), Defaults):
            texts[f"{found.name}.md"] = page(found.name, module, defaults)
            index.append(f"- [`{found.name}`]({found.name}.md): {defaults.purpose}")
    return texts | {"README.md": "\n".join(index) + "\n"}


def page(role: str, module: ModuleType, defaults: Defaults) -> str:
    """The page of one role: what it is for, its data with defaults, how it is removed."""
    lines = [_HEAD.format(role=role), f"# Role `{role}`\n", defaults.purpose, "", "## Data\n"]
    if defaults.entries:
        lines += [
            "Set them in `inventory/group_data/` or beside a host in `inventory/production.py`.\n",
            "| name | default | meaning |",
            "|---|---|---|",
            *map(_row, defaults.entries),
        ]
    else:
        lines.append(_NO_DATA)
    if remove := getattr(module, "remove", None):
        lines += [
            "\n## Removal\n",
            f"`pyinfra inventory deploys/remove.py --data role={role}`: {_first_line(remove)}",
        ]
    return "\n".join(lines) + "\n"


def _row(entry: Default) -> str:
    value = json.dumps(entry.value) if entry.value is not None else "none"
    cells = (f"`{entry.name}`", f"`{value}`", entry.meaning)
    return row(cells)


def _first_line(described: object) -> str:
    # pyinfra's decorator keeps the original behind __wrapped__, its docstring included.
    text = inspect.getdoc(inspect.unwrap(described)) or ""  # type: ignore[arg-type]
    return " ".join(text.split("\n\n")[0].split()).replace(":func:", "").replace("`", "")


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; exit 1 unless the pages are right.")
def main(check: bool) -> None:
    """Write docs/roles from the roles."""
    wanted = pages()
    there = {path.name for path in DIRECTORY.glob("*.md")}
    wrong = sorted(
        {name for name, text in wanted.items() if _read(DIRECTORY / name) != text}
        | (there - set(wanted))
    )
    if check and wrong:
        click.echo(
            f"docs/roles: not as the roles say: {', '.join(wrong)}\n  run: make docs", err=True
        )
        sys.exit(1)
    if check:
        return
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    for name in wrong:
        if name in wanted:
            (DIRECTORY / name).write_text(wanted[name], encoding="utf-8")
        else:
            (DIRECTORY / name).unlink()
    click.echo(f"docs/roles: {len(wanted)} pages, changed: {', '.join(wrong) or 'none'}")


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


if __name__ == "__main__":
    main()
