"""What systemd makes of the words that we write into its units."""

from __future__ import annotations

import random

from roles.engine.commands import command_line, systemd_quote
from tests.roles.fleet import Fleet

UNIT = "farrier-quoting.service"

NASTY = [
    "",
    " ",
    ";",
    "a;b",
    "$HOME",
    "${HOME}",
    "$$",
    "100%",
    "%h %n %%",
    "it's",
    'say "hi"',
    "back\\slash",
    "ends in \\",
    "\\x41\\n\\t",
    "tab\there",
    "line\nbreak",
    "#comment",
    "-flag=value",
    "!x",
    "@x",
    "+x",
    ":x",
    '{"a": [1, "$x", "%i", "\\\\"]}',
    "grüße ✓ 模型",
    "x" * 5000,
]


def random_words(count: int) -> list[str]:
    """Words of the characters that mean something to systemd, the same at every run."""
    source = random.Random(20261121)  # noqa: S311 - nothing secret
    letters = " \t'\"\\$%;{}()[]#@!+-=:,.~&|<>*?^`ab0\n"
    return ["".join(source.choices(letters, k=source.randint(1, 12))) for _ in range(count)]


def test_words_arrive_as_they_were_written(fleet: Fleet) -> None:
    words = [*NASTY, *random_words(150)]
    # A line break cannot stand in a variable's value (systemd.exec(5)); the spec refuses it too.
    values = [word for word in words if word.isprintable()]
    program = ["/usr/bin/python3", "-c", "import time; time.sleep(600)", *words]
    variables = [f"NASTY_{number}={value}" for number, value in enumerate(values)]
    text = "\n".join(
        [
            "[Service]",
            *(f"Environment={systemd_quote(line)}" for line in variables),
            f"ExecStart={command_line(program)}",
            "",
        ]
    )
    fleet.put("gpu03", f"/run/systemd/system/{UNIT}", text)
    try:
        fleet.root("gpu03", f"systemctl daemon-reload && systemctl start {UNIT}")
        pid = fleet.unit("gpu03", UNIT, "MainPID")
        hexdump = "python3 -c 'import sys; print(open(sys.argv[1], \"rb\").read().hex())'"
        argv = bytes.fromhex(fleet.root("gpu03", f"{hexdump} /proc/{pid}/cmdline"))
        environ = bytes.fromhex(fleet.root("gpu03", f"{hexdump} /proc/{pid}/environ"))
    finally:
        fleet.root("gpu03", f"systemctl stop {UNIT}; rm -f /run/systemd/system/{UNIT}")
        fleet.root("gpu03", "systemctl daemon-reload")
    assert argv.decode().split("\0")[:-1] == program
    arrived = {line for line in environ.decode().split("\0") if line.startswith("NASTY_")}
    assert arrived == set(variables)
    assert len(values) > 50
