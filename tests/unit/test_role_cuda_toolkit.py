"""Which packages are a CUDA toolkit, by source; what of the driver is none of it."""

from __future__ import annotations

import pytest

from roles.cuda_toolkit import family

# cuda-toolkit-13-0 of NVIDIA's repository, as far as its dependencies are published; the others
# from a simulated installation on Debian 12.
OF_NVIDIA = """cuda-toolkit-13-0 cuda-nvcc-13-0 cuda-toolkit-13-0-config-common gds-tools-13-0
    cuda-toolkit-config-common cuda-toolkit-13-config-common libcublas-dev-13-0 libnpp-13-0
    libnvjitlink-13-0 libnvptxcompiler-13-0 libcufile-13-0 nsight-compute-2025.3.1
    nsight-systems-2025.3.2"""
OF_DEBIAN = """nvidia-cuda-toolkit nvidia-cuda-dev nvidia-profiler nvidia-opencl-dev libcudart11.0
    libcublas11 libcublaslt11 libcupti-dev libcupti11.8 libcufft10 libcufftw10 libcuinj64-11.8
    libcurand10 libcusolver11 libcusolvermg11 libcusparse11 libnppial11 libnpps11 libnvblas11
    libnvidia-ml-dev libnvjpeg11 libnvrtc11.2 libnvrtc-builtins11.8 libnvtoolsext1 libnvvm4
    libaccinj64-11.8"""
OF_NOBODY = """gcc-11 tree libcub-dev libthrust-dev libcurl4 libcups2 ocl-icd-libopencl1 libnvme1
    linux-headers-6-1"""
OF_THE_DRIVER = """libcuda1 libnvidia-ml1 nvidia-alternative nvidia-driver-580 cuda-drivers-580
    libnvidia-ptxjitcompiler1 cuda-drivers nvidia-kernel-dkms libnvcuvid1"""


@pytest.mark.parametrize(("source", "names"), [("nvidia", OF_NVIDIA), ("distribution", OF_DEBIAN)])
def test_what_belongs_to_a_toolkit(source: str, names: str) -> None:
    toolkit = family("13.0", source)
    assert [name for name in names.split() if not toolkit.has(name)] == []
    others = [*OF_NOBODY.split(), *OF_THE_DRIVER.split()]
    assert [name for name in others if toolkit.has(name)] == []


@pytest.mark.parametrize(
    ("version", "source", "name"),
    [
        ("13.0", "nvidia", "cuda-toolkit-13-0"),
        ("12.9.1", "nvidia", "cuda-toolkit-12-9"),
        ("12.0", "distribution", "nvidia-cuda-toolkit"),
    ],
)
def test_what_is_asked_for(version: str, source: str, name: str) -> None:
    assert family(version, source).names == (name,)


@pytest.mark.parametrize(("version", "source"), [("13", "nvidia"), ("13.0", "ubuntu"), ("", "x")])
def test_what_is_not_understood_is_told(version: str, source: str) -> None:
    with pytest.raises(ValueError, match=r"cuda_toolkit_(version|source) = "):
        family(version, source)
