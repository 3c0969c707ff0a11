"""Driver versions, what CUDA needs, generations by device id, and the driver's packages."""

from __future__ import annotations

import pytest

from farrier.nvidia.families import is_driver_package
from farrier.nvidia.generations import Generation, generation_of, has_nvlink5, open_module
from farrier.nvidia.versions import CUDA_DRIVERS, DriverVersion, UnknownCudaError, cuda_needs


def version(text: str) -> DriverVersion:
    found = DriverVersion.parse(text)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("text", "upstream", "branch"),
    [
        ("535.309.01", "535.309.01", 535),
        ("535.309.01-1~deb12u1", "535.309.01", 535),
        ("580.95.05-0ubuntu0.24.04.2", "580.95.05", 580),
        ("1:580.65.06-1", "580.65.06", 580),
        ("580.65.06-1~deb12u1+b2", "580.65.06", 580),
        ("570.26", "570.26", 570),
        ("590", "590", 590),
        (" 580.126.09\n", "580.126.09", 580),
    ],
)
def test_versions_of_all_packagers(text: str, upstream: str, branch: int) -> None:
    assert str(version(text)) == upstream
    assert version(text).branch == branch


@pytest.mark.parametrize(
    "text",
    ["", "N/A", "12", "latest", "580.", "580.65.06.1", "535,309", "20220217+3~deb12u1", "1.17.8-1"],
)
def test_what_is_no_driver_version(text: str) -> None:
    assert DriverVersion.parse(text) is None


def test_versions_compare_by_their_numbers() -> None:
    ordered = ["470.256.02", "535.54.03", "535.309.01", "580.65.06", "580.95.05", "580.105.08"]
    assert sorted(map(version, reversed(ordered))) == list(map(version, ordered))
    assert version("580.65.06") == version("580.65.6")
    assert str(version("580.65.06")) == "580.65.06"
    assert str(DriverVersion((580, 65, 6))) == "580.65.6"
    assert hash(version("580.65.06-1")) == hash(version("580.65.06"))
    assert version("580") < version("580.65.06")
    assert version("580.95.05") >= version("580.65.06")


def test_what_cuda_needs() -> None:
    assert str(cuda_needs("13.0")) == "580.65.06"
    assert cuda_needs("13.0.1") == cuda_needs("13.0")
    assert str(cuda_needs("12.8.1")) == "570.26"


def test_every_release_of_the_table_needs_more_than_the_one_before() -> None:
    needs = [cuda_needs(release) for release in CUDA_DRIVERS]
    assert needs == sorted(needs)


@pytest.mark.parametrize("cuda", ["", "13", "99.0", "x.y"])
def test_a_cuda_that_nobody_knows(cuda: str) -> None:
    with pytest.raises(UnknownCudaError, match=r"known: 11\.8"):
        cuda_needs(cuda)


G = Generation

# Device ids as pci.ids and the table of compatible GPUs of NVIDIA/open-gpu-kernel-modules name
# them; the ends of neighbouring ranges among them.
DEVICES = [
    (0x102D, G.KEPLER, "Tesla K80"),
    (0x1287, G.KEPLER, "GeForce GT 730"),
    (0x1380, G.MAXWELL, "GeForce GTX 750 Ti"),
    (0x17FD, G.MAXWELL, "Tesla M40"),
    (0x1667, G.MAXWELL, "GM204"),
    (0x15F8, G.PASCAL, "Tesla P100 PCIe"),
    (0x1B38, G.PASCAL, "Tesla P40"),
    (0x1BB3, G.PASCAL, "Tesla P4"),
    (0x1D56, G.PASCAL, "GP108"),
    (0x1D81, G.VOLTA, "TITAN V"),
    (0x1DB6, G.VOLTA, "Tesla V100 PCIe 32GB"),
    (0x1E02, G.TURING, "TITAN RTX"),
    (0x1EB8, G.TURING, "Tesla T4"),
    (0x2182, G.TURING, "GeForce GTX 1660 Ti"),
    (0x20B0, G.AMPERE, "A100 SXM4 40GB"),
    (0x20B5, G.AMPERE, "A100 PCIe 80GB"),
    (0x2235, G.AMPERE, "A40"),
    (0x25B6, G.AMPERE, "A16, A2"),
    (0x2684, G.ADA, "GeForce RTX 4090"),
    (0x26B9, G.ADA, "L40S"),
    (0x27B8, G.ADA, "L4"),
    (0x2330, G.HOPPER, "H100 80GB HBM3"),
    (0x2335, G.HOPPER, "H200"),
    (0x2342, G.HOPPER, "GH200"),
    (0x2901, G.BLACKWELL, "B200"),
    (0x2941, G.BLACKWELL, "GB200"),
    (0x2B85, G.BLACKWELL, "GeForce RTX 5090"),
    (0x2BB1, G.BLACKWELL, "RTX PRO 6000 Blackwell"),
    (0x2E12, G.BLACKWELL, "GB10"),
    (0x3182, G.BLACKWELL, "B300"),
]


@pytest.mark.parametrize(("device", "generation", "name"), DEVICES)
def test_generations(device: int, generation: Generation, name: str) -> None:
    assert generation_of(device) is generation, name


@pytest.mark.parametrize("device", [0, 0x0640, 0x06D1, 0x10EF, 0x1AF1, 0x22A3, 0x3500, 0xFFFF])
def test_devices_that_are_older_no_gpus_or_not_made_yet(device: int) -> None:
    assert generation_of(device) is None
    assert open_module(device) is None
    assert not has_nvlink5(device)


@pytest.mark.parametrize(
    ("device", "may"),
    [
        (0x1B38, "forbidden"),
        (0x1DB6, "forbidden"),
        (0x1EB8, "allowed"),
        (0x2330, "allowed"),
        (0x2342, "required"),  # Grace Hopper, unlike the rest of its generation
        (0x2B85, "required"),
        (0x2901, "required"),
    ],
)
def test_which_module(device: int, may: str) -> None:
    assert open_module(device) == may


def test_the_last_branch() -> None:
    assert {one: one.last_branch for one in G if one.last_branch} == {
        G.KEPLER: 470,
        G.MAXWELL: 580,
        G.PASCAL: 580,
        G.VOLTA: 580,
    }


def test_nvlink5_is_of_the_data_centers_blackwells_only() -> None:
    having = {name for device, _, name in DEVICES if has_nvlink5(device)}
    assert having == {"B200", "GB200", "B300"}


@pytest.mark.parametrize(
    "name",
    [
        "libcuda1",
        "libcuda1:i386",
        "libnvidia-compute-580-server",
        "libnvidia-cfg1",
        "nvidia-kernel-open-dkms",
        "nvidia-dkms-580-open",
        "nvidia-smi",
        "nvidia-firmware-580-server-580.178.04",
        "firmware-nvidia-gsp",
        "linux-modules-nvidia-580-open-6.8.0-45-generic",
        "nvidia-fabricmanager-580",
        "nvlsm",
        "cuda-drivers-580",
        "nvidia-driver-pinning-590",
    ],
)
def test_packages_of_the_driver(name: str) -> None:
    assert is_driver_package(name)


@pytest.mark.parametrize(
    "name",
    [
        "nvidia-container-toolkit",
        "libnvidia-container1",
        "libnvidia-container-tools",
        "libnvidia-egl-wayland1",
        "nvidia-cuda-toolkit",
        "cuda-toolkit-13-0",
        "libnvidia-ml-dev",
        "libcudart12",
        "nvtop",
        "linux-image-6.1.0-56-amd64",
        "nvidia-support",
    ],
)
def test_packages_of_others(name: str) -> None:
    assert not is_driver_package(name)
