"""The fingerprint of a host, as its agent records and checks it. NVML is a stand-in."""

from __future__ import annotations

import json

from farrier_agent.control.protocol import Failed, Fingerprint, Fingerprinted

from tests.agent.host import Host, replica, until
from tests.agent.replicas import needs_another_user, serving

pytestmark = needs_another_user


def asked(host: Host, action: str, seconds: float = 0.0) -> Fingerprinted:
    final = host.ask(Fingerprint(action=action, seconds=seconds))  # type: ignore[arg-type]
    assert isinstance(final, Fingerprinted), final
    return final


def test_recorded_checked_and_told_over_a_restart(host: Host) -> None:
    host.nvml("count 2")
    host.configure(accelerator="cuda")
    host.start()
    until(lambda: host.value("farrier_gpus") == 2)
    refused = host.ask(Fingerprint(action="check", seconds=0))
    assert isinstance(refused, Failed)
    assert "none was recorded" in refused.error
    assert refused.next == "farrier-agent fingerprint record"
    assert host.snapshot().fingerprint is None

    one = asked(host, "record").recorded
    assert one is not None
    assert one.gpus is not None
    assert [gpu.index for gpu in one.gpus] == [0, 1]
    assert asked(host, "check").differences == ()
    until(lambda: host.value("farrier_fingerprint_differences", kind="changed") == 0)

    host.nvml("count 2\n1.pcie.width 8")
    until(lambda: host.value("farrier_fingerprint_differences", kind="changed") == 1)
    host.stop()
    host.start()
    until(lambda: host.value("farrier_fingerprint_differences", kind="changed") == 1)
    shown = host.snapshot().fingerprint
    assert shown is not None
    assert shown.recorded_at == one.at
    (found,) = shown.differences
    assert "pcie width: 8, it was 16" in str(found)
    assert "not as its fingerprint was recorded: GPU 1" in host.log()
    assert asked(host, "check").differences == (found,)
    asked(host, "record")
    assert asked(host, "check").differences == ()


def test_the_speed_of_a_replica_is_measured_and_its_clients_are_not_disturbed(host: Host) -> None:
    serving(host)
    one = asked(host, "record", seconds=1.0).recorded
    assert one is not None
    (speed,) = one.speeds
    assert (speed.replica, speed.quiet) == ("tiny", True)
    assert speed.tokens_per_second > 1
    assert host.gate()
    done = host.verb("fingerprint", "check", "--seconds=1", "--tolerance=0.99", "--json")
    assert done.returncode == 0, done.stdout
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["differences"] == said["missing"] == []
    # nothing measured: what was is not forgotten
    assert asked(host, "record").recorded.speeds == one.speeds  # type: ignore[union-attr]


def test_measured_it_is_told_and_kept_for_who_records_after_that(host: Host) -> None:
    serving(host)
    said = asked(host, "measure", seconds=1.0)
    assert said.now is not None
    assert (said.recorded, said.differences, len(said.now.speeds)) == (None, (), 1)
    assert host.snapshot().fingerprint is None
    assert asked(host, "record").recorded.speeds == said.now.speeds  # type: ignore[union-attr]


def test_an_engine_that_is_down_is_missing_and_the_rest_is_recorded(host: Host) -> None:
    one = replica()
    host.configure(one)
    host.unit(one.unit, run=1)
    host.start()
    said = asked(host, "record", seconds=1.0)
    assert said.recorded is not None
    assert said.recorded.speeds == ()
    assert len(said.missing) == 1
    assert "tiny was not measured" in said.missing[0]
    done = host.verb("fingerprint", "check", "--seconds=1")
    assert done.returncode == 1
    assert "not measured: replica tiny" in done.stdout


def test_garbage_that_was_kept_is_told_and_serving_goes_on(host: Host) -> None:
    host.configure()
    state = host.root / "state"
    state.mkdir(exist_ok=True)
    (state / "fingerprint.json").write_text("{")
    host.start()
    shown = host.snapshot().fingerprint
    assert shown is not None
    assert shown.problem is not None
    assert "not a fingerprint" in shown.problem
    asked(host, "record")
    until(lambda: getattr(host.snapshot().fingerprint, "recorded_at", None))
