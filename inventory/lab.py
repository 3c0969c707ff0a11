"""The hosts of a lab: what ``FARRIER_ENV=lab`` picks; FARRIER_LAB says which lab (``demo``).

``farrier lab up`` makes them. FARRIER_LAB_MODELS may name a Python file that defines
``models: dict[str, list[Model]]``: what the named hosts serve instead of tiny; and
``data: dict[str, dict]``: more data of the named hosts. FARRIER_LAB_GATEWAYS (``gpu01,…``) puts
hosts into group gateway, too, as one box that is a whole fleet.
"""

import os
import runpy

from pyinfra.api.exceptions import InventoryError

from farrier.lab import TINY_MODEL, Lab, LabError
from farrier.lab.base import USER
from farrier.spec import Model

_name = os.environ.get("FARRIER_LAB", "demo")
try:
    _lab = Lab.open(_name)
    _hosts = _lab.hosts
    _lab.keys_file.read_bytes()
except PermissionError as _error:
    raise InventoryError(
        f"lab {_name}: {_error.filename} is root's alone\n  run pyinfra as root: sudo -E pyinfra …"
    ) from _error
except FileNotFoundError:
    _hosts = []
except LabError as _error:
    raise InventoryError(f"FARRIER_LAB={_name}: {_error}") from _error
if not _hosts:
    raise InventoryError(f"lab {_name} is not up\n  run, as root: farrier lab up --name {_name}")

_tiny = Model(
    name="tiny",
    engine="vllm",
    source=f"path:{TINY_MODEL}",
    gpus=[],
    port=8101,
    args={"enforce-eager": True, "max-model-len": 2048},
    # by itself vLLM binds the workers of all hosts to the one core that each of them sees first
    env={
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "1",
    },
)
_models = {host.name: [_tiny] for host in _hosts if "gpu" in host.groups}
_data = {}
if _file := os.environ.get("FARRIER_LAB_MODELS"):
    if not os.path.isfile(_file):
        raise InventoryError(f"FARRIER_LAB_MODELS={_file}: no such file")
    _said = runpy.run_path(_file)
    _models |= _said.get("models", {})
    _data = _said.get("data", {})
_also_gateways = set(filter(None, os.environ.get("FARRIER_LAB_GATEWAYS", "").split(",")))
if _unknown := _also_gateways - {host.name for host in _hosts}:
    raise InventoryError(f"FARRIER_LAB_GATEWAYS: lab {_name} has no host {', '.join(_unknown)}")


def _groups(host):
    return (*host.groups, "gateway") if host.name in _also_gateways else host.groups


def _members(group):
    members = []
    for host in _hosts:
        groups = _groups(host)
        if group not in groups:
            continue
        data = {
            "ssh_hostname": str(host.address),
            "ssh_user": USER,
            "ssh_key": str(_lab.user_key),
            "ssh_known_hosts_file": str(_lab.known_hosts),
        }
        if "gpu" in groups:
            data |= {
                "accelerator": "cpu",
                "api_keys_file": str(_lab.keys_file),
                "models": _models.get(host.name, []),
            }
        if "gateway" in groups:
            data |= {
                "api_keys_file": str(_lab.keys_file),
                "gateway_tls_certificate": str(_lab.gateway_certificate),
            }
        members.append((host.name, data | _data.get(host.name, {})))
    return members


gpu = _members("gpu")
gateway = _members("gateway")
monitor = _members("monitor")
