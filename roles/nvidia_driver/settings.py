"""The role's data as typed values, refused with the field's name where they are wrong."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Settings", "SettingsError", "Source", "WantedFlavour", "read_settings"]

Source = Literal["nvidia", "ubuntu", "debian", "directory", "none"]
WantedFlavour = Literal["auto", "open", "proprietary"]

_VERSION = re.compile(r"(?:[0-9]+:)?[0-9]{3,4}(?:\.[0-9]+){0,2}(?:[-+~][A-Za-z0-9.+~-]*)?")
_OPTION = re.compile(r"(?:[a-z0-9_-]+\.)?[A-Za-z0-9_]+")


class SettingsError(ValueError):
    """A datum of the inventory that cannot be meant; names it and says what it has to be."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the inventory says about the driver of one host.

    *version* is an upstream version, or its beginning (``580.95``), or a package's whole version
    (``535.261.03-1``); None is the branch's newest at the first installation. *fabric* is None
    where the host's PCI bus decides. *module_options* maps ``option`` or ``module.option``
    to its value.
    """

    source: Source
    branch: str
    version: str | None = None
    flavour: WantedFlavour = "auto"
    fabric: bool | None = None
    module_options: Mapping[str, str] = field(default_factory=dict)

    @property
    def wanted(self) -> str:
        """The beginning of the version that is wanted."""
        return self.version or self.branch

    def met_by(self, version: str) -> bool:
        """Whether a package's *version* is the wanted one (``535`` is not met by ``5350.1``)."""
        upstream = version.partition(":")[2] if ":" in version else version
        return any(
            one == self.wanted or re.match(re.escape(self.wanted) + r"[-.+~]", one) is not None
            for one in (version, upstream)
        )


def read_settings(values: Mapping[str, Any]) -> Settings:
    """Typed :class:`Settings` from the role's data. Raises :class:`SettingsError`."""
    source = _one_of(values, "nvidia_driver_source", get_args(Source))
    flavour = _one_of(values, "nvidia_driver_flavour", get_args(WantedFlavour))
    branch = str(values["nvidia_driver_branch"])
    if not re.fullmatch(r"[0-9]{3}", branch):
        raise SettingsError(f'nvidia_driver_branch = {branch!r} has to be a branch such as "580"')
    version = values["nvidia_driver_version"]
    if version is not None and not (isinstance(version, str) and _VERSION.fullmatch(version)):
        raise SettingsError(
            f"nvidia_driver_version = {version!r} has to be a version such as"
            ' "580.95.05", a package\'s whole version, or None'
        )
    settings = Settings(
        cast("Source", source),
        branch,
        version,
        cast("WantedFlavour", flavour),
        _fabric(values["nvidia_fabric"]),
        _options(values["nvidia_module_options"]),
    )
    if version and not Settings(settings.source, branch).met_by(version):
        raise SettingsError(
            f"nvidia_driver_version = {version!r} is not of nvidia_driver_branch = {branch!r}:"
            " correct one of them"
        )
    return settings


def _one_of(values: Mapping[str, Any], name: str, allowed: tuple[str, ...]) -> str:
    value = values[name]
    if value not in allowed:
        raise SettingsError(f"{name} = {value!r} has to be one of {', '.join(allowed)}")
    return str(value)


def _fabric(value: Any) -> bool | None:
    if value not in ("auto", True, False):
        raise SettingsError(f'nvidia_fabric = {value!r} has to be "auto", True or False')
    return None if value == "auto" else bool(value)


def _options(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise SettingsError(
            "nvidia_module_options has to be a dictionary,"
            ' such as {"NVreg_PreserveVideoMemoryAllocations": 0}'
        )
    options = {}
    for name, setting in value.items():
        text = str(int(setting)) if isinstance(setting, bool) else str(setting)
        if not isinstance(name, str) or not _OPTION.fullmatch(name):
            raise SettingsError(f"nvidia_module_options: {name!r} is no module option's name")
        if not text or re.search(r"[\s\"']", text):
            raise SettingsError(f"nvidia_module_options: {name} = {text!r} has blanks or quotes")
        options[name] = text
    return options
