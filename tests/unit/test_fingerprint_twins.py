"""Hosts of one kind are compared with each other, and with no others."""

from __future__ import annotations

from farrier_agent.fingerprint.made import Fingerprint, GpuPrint, Speed

from farrier.fingerprint.twins import odd_ones, paces


def host(
    name: str,
    speed: float | None = None,
    *,
    gpu: str = "H200",
    vbios: str = "1",
    width: int = 16,
    others: int = 0,
    kernel: str | None = "6.1",
) -> Fingerprint:
    one = GpuPrint(uuid=f"GPU-{name}", index=0, name=gpu, vbios_version=vbios, pcie_width=width)
    measured = Speed(
        replica="tiny",
        model="m",
        engine="vllm",
        tokens_per_second=speed or 0.0,
        first_token_seconds=0.1,
        requests=9,
        seconds=20.0,
        others=others,
    )
    speeds = () if speed is None else (measured,)
    return Fingerprint(host=name, at=1.0, agent="1", kernel=kernel, gpus=(one,), speeds=speeds)


def fleet(*ones: Fingerprint) -> dict[str, Fingerprint]:
    return {one.host: one for one in ones}


def test_the_slow_one_is_named_first_and_beside_the_others() -> None:
    found = list(paces(fleet(host("gpu01", 100), host("gpu02", 102), host("gpu07", 82.8))))
    assert str(found[0]) == "gpu07/tiny: 82.8 tokens/s, 18 % below its twins"
    assert [one.slow() for one in found] == [True, False, False]


def test_who_is_no_twin_is_compared_with_nobody() -> None:
    (first, second) = paces(fleet(host("gpu01", 100), host("gpu02", 10, gpu="L4")))
    assert (first.share, second.share) == (None, None)
    assert "it has no twin" in str(first)
    assert not first.slow()


def test_what_was_measured_beside_others_counts_for_nobody() -> None:
    found = list(paces(fleet(host("gpu01", 100), host("gpu02", 10, others=3))))
    assert [(one.host, one.share) for one in found] == [("gpu01", None)]


def test_the_odd_one_out() -> None:
    three = fleet(host("gpu01"), host("gpu02"), host("gpu03", vbios="2"))
    (one,) = odd_ones(three)
    assert str(one) == "gpu03 GPU 0: vbios version is 2, 2 twins have 1"
    kernels = fleet(host("gpu01"), host("gpu02", kernel="6.2"), host("gpu03"))
    assert [str(one) for one in odd_ones(kernels)] == ["gpu02: kernel is 6.2, 2 twins have 6.1"]


def test_of_two_that_differ_neither_is_right() -> None:
    found = [str(one) for one in odd_ones(fleet(host("gpu01"), host("gpu02", width=8)))]
    assert found == [
        "gpu01 GPU 0: pcie width is 16, 1 twins have 8",
        "gpu02 GPU 0: pcie width is 8, 1 twins have 16",
    ]


def test_alike_or_unknown_is_nothing() -> None:
    assert list(odd_ones(fleet(host("gpu01"), host("gpu02", kernel=None)))) == []
    assert list(odd_ones(fleet(host("gpu01"), host("gpu02", kernel="6.2", gpu="L4")))) == []
    assert list(odd_ones({})) == []
