"""What a converge changes, and what it must never: hosts that are right, engines that run."""

from tests.roles.converging import Converge
from tests.roles.fleet import Fleet, until


def test_a_second_run_changes_nothing_on_any_host(fleet: Fleet, converge: Converge) -> None:
    run = converge()
    assert run.returncode == 0, run.last_words()
    assert run.hosts == {host.name for host in fleet.lab.hosts}
    assert {host.suite for host in fleet.lab.hosts} == {"bookworm", "trixie"}
    assert {host: run.changed(host) for host in run.hosts} == {host: [] for host in run.hosts}
    assert all(run.unchanged(host) for host in run.hosts)
    assert "Serving | Replicas are ready" in run.unchanged("gpu03")


def test_a_limit_leaves_the_other_hosts_alone(fleet: Fleet, converge: Converge) -> None:
    run = converge(limit=["gpu03", "gw01"])
    assert run.returncode == 0, run.last_words()
    assert run.hosts == {"gpu03", "gw01"}
    # Prometheus still watches the hosts that were left out
    assert run.changed("gw01") == []


def test_an_engine_that_is_stopped_is_started_and_waited_for(
    fleet: Fleet, converge: Converge
) -> None:
    fleet.root("gpu03", "systemctl stop engine-tiny")
    assert not fleet.gate("gpu03")
    run = converge(limit=["gpu03"])
    assert run.returncode == 0, run.last_words()
    assert run.changed("gpu03") == ["Engine | Started", "Serving | Replicas are ready"]
    assert fleet.gate("gpu03")
    assert fleet.chat("gpu03").status == 200


def test_changed_args_are_marked_restart_pending_and_the_engine_runs_on(
    fleet: Fleet, converge: Converge
) -> None:
    """On the real vLLM, which is restarted once, by hand."""
    before = fleet.unit("gpu01", "engine-tiny", "MainPID")
    others = {host: fleet.unit(host, "engine-tiny", "MainPID") for host in ("gpu02", "gpu03")}
    (model,) = converge.models["gpu01"]
    seats = 16 if model["args"].get("max-num-seqs") == 8 else 8
    changed = {**model, "args": {**model["args"], "max-num-seqs": seats}}

    for changes in (
        [
            *("Agent | Configuration", "Agent | Service"),
            *("Engine | What they had before", "Engine | Units", "Engine | Started"),
        ],
        [],  # said again by every run, without a change
    ):
        run = converge(models={"gpu01": [changed]})
        assert run.returncode == 0, run.last_words()
        assert run.changed("gpu01") == changes
        assert [run.changed(host) for host in ("gpu02", "gpu03", "gw01")] == [[], [], []]
        pending = run.last_section("Restart pending")
        assert "gpu01: replica tiny runs an older configuration" in pending
        assert "sudo farrier-agent restart tiny (it is drained first" in pending
        assert "gpu02" not in pending
        assert run.stderr.rstrip().endswith(pending.rstrip())
    assert fleet.unit("gpu01", "engine-tiny", "MainPID") == before
    assert {host: fleet.unit(host, "engine-tiny", "MainPID") for host in others} == others
    assert fleet.chat("gpu01").status == 200

    metric = 'farrier_replica_restart_pending{replica="tiny"}'
    until(lambda: f"{metric} 1\n" in fleet.metrics("gpu01"), 15, f"{metric} 1")
    assert fleet.status("gpu01")["replicas"][0]["restart_pending"] is True
    assert "pending" in fleet.ssh("gpu01", "farrier-agent status")
    assert f"{metric} 0\n" in fleet.metrics("gpu02")

    fleet.root("gpu01", "systemctl restart engine-tiny")
    assert not fleet.gate("gpu01")
    cold = fleet.chat("gpu01")
    assert (cold.status, "retry-after" in cold.headers) == (503, True)
    until(lambda: fleet.gate("gpu01"), 180, "gpu01's gate opens by itself")
    assert fleet.chat("gpu01").status == 200
    main = fleet.unit("gpu01", "engine-tiny", "MainPID")
    assert main != before
    assert f"--max-num-seqs\0{seats}\0" in fleet.root("gpu01", f"cat /proc/{main}/cmdline")
    until(lambda: f"{metric} 0\n" in fleet.metrics("gpu01"), 15, f"{metric} 0")

    run = converge(models={"gpu01": [changed]})
    assert (run.returncode, run.changed("gpu01")) == (0, []), run.last_words()
    assert "Restart pending" not in run.stderr
    converge.models["gpu01"] = [changed]  # what runs now: the tests after this one start from it


def test_changed_args_that_are_taken_back_need_no_restart(fleet: Fleet, converge: Converge) -> None:
    (model,) = converge.models["gpu03"]
    before = fleet.unit("gpu03", "engine-tiny", "InvocationID")
    slower = {**model, "command": [*model["command"], "--token-delay", "0.03"]}
    run = converge(models={"gpu03": [slower]}, limit=["gpu03"])
    assert "gpu03: replica tiny" in run.last_section("Restart pending"), run.last_words()
    run = converge(limit=["gpu03"])
    assert run.returncode == 0
    assert "Restart pending" not in run.stderr
    assert fleet.unit("gpu03", "engine-tiny", "InvocationID") == before
    metric = 'farrier_replica_restart_pending{replica="tiny"} 0\n'
    until(lambda: metric in fleet.metrics("gpu03"), 15, metric)


def test_a_gate_that_was_closed_by_hand_stays_closed_and_is_told(
    fleet: Fleet, converge: Converge
) -> None:
    fleet.root("gpu02", "rm /run/farrier/open/tiny")
    try:
        run = converge(limit=["gpu02"])
        assert (run.returncode, run.changed("gpu02")) == (0, []), run.last_words()
        assert not fleet.gate("gpu02")
        said = run.last_section("Left as it is")
        assert "gpu02: replica tiny is warm, but somebody closed its gate by hand" in said
        assert "sudo farrier-agent ready tiny" in said
        until(lambda: not fleet.status("gpu02")["ready"], 10, "the agent sees it")
        (reason,) = fleet.status("gpu02")["reasons"]
        assert "closed by hand" in reason
        assert fleet.request("gpu02", "/readyz", port=9810).status == 503
    finally:
        fleet.root("gpu02", "touch /run/farrier/open/tiny")
    until(lambda: fleet.ready("gpu02"), 10, "ready again")
