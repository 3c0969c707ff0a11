"""``farrier completion``: what a shell has to read to complete ``farrier``."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

__all__ = ["completion"]


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion for SHELL, which reads it from there.

    \b
    bash   farrier completion bash > ~/.local/share/bash-completion/completions/farrier
    zsh    farrier completion zsh > "${fpath[1]}/_farrier"
    fish   farrier completion fish > ~/.config/fish/completions/farrier.fish
    """
    # Late: it is this command's own group.
    from farrier.cli import farrier  # noqa: PLC0415

    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"click knows no completion for {shell}")
    click.echo(kind(farrier, {}, "farrier", "_FARRIER_COMPLETE").source())
