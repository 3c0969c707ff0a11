"""The lab: real hosts on the operator's own machine, to learn, to show and to test.

Every host is a systemd-nspawn machine with systemd as PID 1, sshd, apt and an address of its own::

    from farrier.lab import Lab

    lab = Lab.open("test")
    lab.up()
    lab.ssh("gpu01", "sudo systemctl status nginx")
    lab.reboot("gpu01")
    lab.down()

:class:`LabError` is raised for everything that goes wrong with the lab itself.
"""

from farrier.lab.errors import LabError
from farrier.lab.hosts import TINY_MODEL, Host
from farrier.lab.lab import Lab
from farrier.lab.login import HostState

__all__ = ["TINY_MODEL", "Host", "HostState", "Lab", "LabError"]
