import signal
import subprocess
import sys
from pathlib import Path

from farrier.lab import machines

SUPERVISOR = [sys.executable, "-I", str(machines.SUPERVISOR)]


def test_a_reboot_starts_the_machine_again_and_a_power_off_ends_it(tmp_path: Path) -> None:
    boots = tmp_path / "boots"
    script = f"echo boot >> {boots}; [ $(wc -l < {boots}) -eq 3 ] && exit 0; exit 133"
    done = subprocess.run([*SUPERVISOR, "sh", "-c", script], timeout=20, check=False)
    assert done.returncode == 0
    assert boots.read_text() == "boot\n" * 3


def test_a_machine_that_fails_is_not_started_again(tmp_path: Path) -> None:
    boots = tmp_path / "boots"
    done = subprocess.run(
        [*SUPERVISOR, "sh", "-c", f"echo boot >> {boots}; exit 1"],
        timeout=20,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "ended with status 1" in done.stdout
    assert boots.read_text() == "boot\n"


def test_sigterm_reaches_the_machine_and_a_reboot_on_the_way_down_does_not_count() -> None:
    script = "trap 'exit 133' TERM; echo ready; while :; do sleep 0.05; done"
    with subprocess.Popen(
        [*SUPERVISOR, "sh", "-c", script], stdout=subprocess.PIPE, text=True
    ) as supervisor:
        assert supervisor.stdout is not None
        assert supervisor.stdout.readline() == "ready\n"
        supervisor.send_signal(signal.SIGTERM)
        assert supervisor.wait(timeout=20) == 133
        assert "ended with status 133" in supervisor.stdout.read()
