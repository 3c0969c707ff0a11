"""Replicas over several hosts: what an inventory says of them, and what it cannot."""

from __future__ import annotations

from typing import Any

import pytest

from farrier.spec import OPEN_ACCESS, Fleet, Model, read_fleet
from farrier.spec.check_model import check_model

BIG: dict[str, Any] = {
    "name": "big",
    "source": "path:/srv/models/big",
    "gpus": [0, 1],
    "hosts": ["gpu01", "gpu02"],
}


class Data:
    """What pyinfra calls a host's data."""

    def __init__(self, data: dict[str, Any]) -> None:
        self._data = data

    def dict(self) -> dict[str, Any]:
        return self._data


class Host:
    """A host of an inventory."""

    def __init__(self, name: str, *models: Model, group: str = "gpu", **data: Any) -> None:
        self.name = name
        self.groups = [group]
        given = {"address": f"192.0.2.{int(name[-2:])}", "models": models}
        self.data = Data({"open_access": OPEN_ACCESS, **given, **data})


def problems(*hosts: Host) -> list[tuple[str, str, str]]:
    return [(one.host, one.field, one.message) for one in read_fleet(hosts).problems]


def fleet(*hosts: Host) -> Fleet:
    it = read_fleet(hosts)
    assert it.problems == ()
    return it


def test_the_first_host_is_the_head_and_the_others_are_members() -> None:
    it = fleet(Host("gpu01", Model(**BIG)), Host("gpu02"), Host("gpu03"))
    head, member, other = (it.hosts[name] for name in ("gpu01", "gpu02", "gpu03"))
    assert [one.unit for one in head.carried] == ["engine-big.service"]
    assert head.members == ()
    assert member.models == ()
    assert [one.unit for one in member.carried] == ["engine-big-rank1.service"]
    rank = member.ranks["big-rank1"]
    assert (rank.number, rank.replica, rank.head) == (1, "big", "gpu01")
    assert rank.addresses == ("192.0.2.1", "192.0.2.2")
    assert (rank.address, rank.size) == ("192.0.2.2", 2)
    assert head.ranks["big"].number == 0
    assert (other.members, other.ranks) == ((), {})


def test_a_member_may_serve_replicas_of_its_own() -> None:
    own = Model("own", source="path:/srv/models/own", gpus=[2])
    it = fleet(Host("gpu01", Model(**BIG)), Host("gpu02", own))
    assert [one.replica for one in it.hosts["gpu02"].carried] == ["own", "big-rank1"]


@pytest.mark.parametrize(
    ("change", "others", "field", "message"),
    [
        ({"hosts": ["gpu02", "gpu01"]}, {}, "hosts", "in the data of its first host"),
        ({"hosts": ["gpu01", "gpu2"]}, {}, "hosts", "did you mean 'gpu02'?"),
        ({}, {"group": "monitor"}, "hosts", "gpu02 is not in group gpu"),
        ({}, {"accelerator": "cpu"}, "hosts", "ranks have to be alike"),
        ({}, {"address": "gpu02.example.org"}, "hosts", "which is a name"),
        ({}, {"address": "0.0.0.0"}, "hosts", "address = '10.0.0.…'"),
        ({"master_port": 8080}, {}, "master_port", "8080 is nginx's port on gpu01"),
        ({"master_port": 8101}, {}, "master_port", "pick another, e.g. 29501"),
    ],
)
def test_what_the_fleet_says_against_it(
    change: dict[str, Any], others: dict[str, Any], field: str, message: str
) -> None:
    found = problems(Host("gpu01", Model(**(BIG | change))), Host("gpu02", **others))
    assert [(host, path) for host, path, _ in found] == [("gpu01", f"models[0].{field}")]
    assert message in found[0][2]


def test_gpus_belong_to_one_replica_on_a_members_host_too() -> None:
    own = Model("own", source="path:/srv/models/own", gpus=[1])
    [(host, field, message)] = problems(Host("gpu01", Model(**BIG)), Host("gpu02", own))
    assert (host, field) == ("gpu01", "models[0].gpus")
    assert message == "GPU 1 of gpu02 already belongs to replica 'own'"


def test_two_heads_may_not_share_a_members_gpu_nor_a_port() -> None:
    third = ["gpu03", "gpu02"]
    found = problems(
        Host("gpu01", Model(**BIG)), Host("gpu02"), Host("gpu03", Model(**(BIG | {"hosts": third})))
    )
    assert {field for _, field, _ in found} == {"models[0].gpus", "models[0].replica"}
    again = Model(**(BIG | {"name": "two", "gpus": [2, 3], "port": 8102}))
    found = problems(Host("gpu01", Model(**BIG), again), Host("gpu02"))
    assert "the master_port of replica 'two'" in found[0][2]


def test_a_name_that_a_member_would_have_is_taken() -> None:
    own = Model("big-rank1", source="path:/srv/models/own", gpus=[5])
    [(_, field, message)] = problems(Host("gpu01", Model(**BIG)), Host("gpu02", own))
    assert field == "models[0].replica"
    assert "already named 'big-rank1'" in message


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        ({"hosts": "gpu01"}, "hosts", "must be a list of hosts' names"),
        ({"hosts": ["gpu01"]}, "hosts", "is one host: leave hosts out"),
        ({"hosts": ["gpu01", "gpu01"]}, "hosts", "names a host twice"),
        ({"engine": "transformers", "gpus": [0]}, "hosts", "hosts is for 'vllm'"),
        ({"source": "hf:a/b@v1"}, "source", "a directory that is on each of them"),
        ({"master_port": 80}, "master_port", "1024 to 65535, not 80"),
        ({"hosts": [], "master_port": 4000}, "master_port", "has no effect without hosts"),
        ({"env": {"VLLM_HOST_IP": "192.0.2.9"}}, "env.VLLM_HOST_IP", "the host's address"),
        (
            {"args": {"distributed-executor-backend": "uni"}},
            "args.distributed-executor-backend",
            "by vLLM's own way, 'mp', or by 'ray'",
        ),
        ({"args": {"data-parallel-size": 4}}, "args.data-parallel-size", "replica of its own"),
        ({"args": {"tensor-parallel-size": 2}}, "gpus", "on each of 2 hosts, but the engine"),
        ({"args": {"nnodes": 2}}, "args.nnodes", "the model's field hosts"),
        ({"args": {"master-port": 2}}, "args.master-port", "the model's field master_port"),
    ],
)
def test_what_the_model_alone_says_against_it(
    change: dict[str, Any], field: str, message: str
) -> None:
    found = dict(check_model(Model(**(BIG | change)), "cuda"))
    assert message in found[field]


def test_sizes_may_be_the_operators_as_long_as_they_use_every_gpu() -> None:
    for sizes in ({"tensor-parallel-size": 4}, {"pipeline-parallel-size": 4}):
        assert list(check_model(Model(**(BIG | {"args": sizes})), "cuda")) == []


def test_ray_is_refused_where_vllm_refuses_it() -> None:
    args = {"distributed-executor-backend": "ray"}
    model = Model("tiny", source="path:/srv/models/tiny", args=args)
    [(field, message)] = check_model(model, "cpu")
    assert field == "args.distributed-executor-backend"
    assert "does not support ray" in message


def test_stages_of_a_pipeline_are_refused_where_vllm_serves_none_of_them() -> None:
    eager = BIG | {"gpus": [], "args": {"enforce-eager": True}}
    [(field, message)] = check_model(Model(**eager), "cpu")
    assert field == "args.enforce-eager"
    assert "set args={'tensor-parallel-size': 2}" in message
    assert list(check_model(Model(**(BIG | {"args": {"enforce-eager": True}})), "cuda")) == []
    for args in ({}, {"enforce-eager": True, "tensor-parallel-size": 2}):
        assert list(check_model(Model(**(eager | {"args": args})), "cpu")) == []
    alone = Model("a", source="path:/m", args={"enforce-eager": True})
    assert list(check_model(alone, "cpu")) == []


def test_ranks_are_divided_evenly_on_cpus() -> None:
    args = {"pipeline-parallel-size": 3}
    found = dict(check_model(Model(**(BIG | {"gpus": [], "args": args})), "cpu"))
    assert "3 ranks cannot be divided among 2 hosts" in found["hosts"]
