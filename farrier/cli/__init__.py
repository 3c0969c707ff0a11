"""``farrier``: the operator's command line. Each subcommand is imported when it is called."""

from __future__ import annotations

from importlib import import_module

import click

__all__ = ["farrier", "main"]

COMMANDS = {
    "audit": "farrier.cli.audit:audit",
    "completion": "farrier.cli.completion:completion",
    "drain": "farrier.cli.drain:drain",
    "exec": "farrier.cli.execute:execute",
    "fingerprint": "farrier.cli.fingerprint:fingerprint",
    "gpu": "farrier.cli.gpu:gpu",
    "lab": "farrier.cli.lab:lab",
    "load": "farrier.cli.load:load",
    "logs": "farrier.cli.logs:logs",
    "preflight": "farrier.cli.preflight:preflight",
    "ready": "farrier.cli.drain:ready",
    "rollout": "farrier.cli.rollout:rollout",
    "status": "farrier.cli.status:status",
}
"""Where each subcommand lives, ``module:attribute``."""


class _Lazy(click.Group):
    """A group that imports a subcommand only when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *COMMANDS})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return super().get_command(ctx, cmd_name)
        module, attribute = COMMANDS[cmd_name].split(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command


@click.group(cls=_Lazy)
@click.version_option(package_name="farrier")
def farrier() -> None:
    """Provision LLM engines on GPU hosts over SSH, and run them."""


def main() -> None:
    """Entry point. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 a host is refused."""
    farrier()
