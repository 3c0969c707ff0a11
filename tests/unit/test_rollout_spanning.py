"""What a rollout leaves to a person: hosts of a replica over several hosts."""

from __future__ import annotations

import pytest

from farrier.fleet.target import Login, MemberOf, ReplicaOf, Target
from farrier.rollout.errors import RefusedError
from farrier.rollout.plan import Kind
from farrier.rollout.spanning import refuse_spanning

BIG = ReplicaOf("big", "big", "engine-big.service", 8101, ("gpu01", "gpu02"))
OWN = ReplicaOf("own", "own", "engine-own.service", 8101)
SHARE = MemberOf("big", 1, "gpu01", "engine-big-rank1.service")


def target(name: str, *replicas: ReplicaOf, members: tuple[MemberOf, ...] = ()) -> Target:
    return Target(name, ("gpu",), name, Login(name), replicas, members=members)


HEAD, MEMBER, OTHER = target("gpu01", BIG), target("gpu02", OWN, members=(SHARE,)), target("gpu03")


@pytest.mark.parametrize("kind", ["reboot", "run", "driver", "gpu-reset", "gpu-diag"])
def test_a_members_host_is_not_taken_from_under_its_head(kind: Kind) -> None:
    with pytest.raises(RefusedError) as told:
        refuse_spanning(kind, [OTHER, MEMBER])
    assert told.value.code == 3
    assert "gpu02 carries rank 1 of replica big, whose head is on gpu01" in str(told.value)
    assert "farrier drain gpu01/big" in str(told.value)
    refuse_spanning(kind, [HEAD, OTHER])


@pytest.mark.parametrize("kind", ["converge", "rollback"])
@pytest.mark.parametrize("host", [HEAD, MEMBER])
def test_its_hosts_take_a_configuration_together(kind: Kind, host: Target) -> None:
    with pytest.raises(RefusedError) as told:
        refuse_spanning(kind, [OTHER, host])
    assert "replica big spans gpu01 and gpu02" in str(told.value)
    assert "farrier rollout restart --limit gpu01" in str(told.value)
    assert "or leave gpu01 and gpu02 out with --limit" in str(told.value)
    refuse_spanning(kind, [OTHER])


def test_a_restart_is_the_heads_and_its_members_follow() -> None:
    refuse_spanning("restart", [HEAD, MEMBER, OTHER])
