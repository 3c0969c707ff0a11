"""A real host, really broken: ``farrier preflight`` says so, and the line it prints repairs it.

Each test breaks one thing on the lab's host, looks at it as an operator would, types the line, and
looks again. What NVIDIA's packages and devices would be are stand-ins: tests/lab/preflight_site.py.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from farrier.lab import Lab
from tests.lab.preflight_site import HOST, PREPARE, SERVED, TREE, VERSION, VLLM, Site


@pytest.fixture(scope="module")
def prepared(brief: Lab, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    Site(brief, tmp_path_factory.mktemp("preparing")).root(f"set -e\n{PREPARE}")
    return brief


@pytest.fixture
def site(prepared: Lab, tmp_path: Path) -> Site:
    """What a test leaves behind, the next one's first look meets."""
    return Site(prepared, tmp_path)


@dataclass(frozen=True)
class Break:
    """*breaks* and *undo* are typed by root on the host; *undo* clears up after the repair."""

    breaks: str
    code: str
    state: str
    undo: str = "true"


HOLD = "apt-mark hold libcuda1 nvidia-driver-cuda nvidia-persistenced"
SERVER = "/usr/bin/python3 -m http.server"
NVSWITCH = f"""
d={TREE}/sys/bus/pci/devices/0000:40:00.0; mkdir -p $d
echo 0x10de > $d/vendor; echo 0x22a3 > $d/device; echo 0x068000 > $d/class
"""
NO_NVSWITCH = f"rm -r {TREE}/sys/bus/pci/devices/0000:40:00.0\n"

BREAKS = {
    "a foreign unit on nginx's port": Break(
        f"printf '[Service]\\nExecStart={SERVER} 8080\\n[Install]\\nWantedBy=multi-user.target\\n'"
        " > /etc/systemd/system/squatter.service; systemctl daemon-reload;"
        " systemctl enable -q --now squatter; while ! ss -Hltn | grep -q :8080; do sleep 0.1; done",
        "port-taken",
        "refused",
        "systemctl disable -q --now squatter; rm /etc/systemd/system/squatter.service;"
        " systemctl daemon-reload",
    ),
    "somebody's own process on the agent's port": Break(
        f"systemd-run -q --scope --unit=somebody {SERVER} 9810 >/dev/null 2>&1 &"
        " while ! ss -Hltn | grep -q :9810; do sleep 0.1; done",
        "port-taken",
        "refused",
        "systemctl stop somebody.scope",
    ),
    "a full disk": Break(
        "mkdir /mnt/var; mount -t tmpfs -o size=1100m tmpfs /mnt/var; cp -a /var/. /mnt/var;"
        " mount --bind /mnt/var /var;"
        " used=$(df -Pm /var | awk 'END {print $3}');"
        " head -c $(( (1100 - used - 300) * 1048576 )) /dev/zero >"
        " /var/cache/apt/archives/old_1_all.deb",
        "disk-full",
        "refused",
        "umount -l /var; umount -l /mnt/var; rmdir /mnt/var",
    ),
    "an interrupted dpkg": Break(
        "touch /srv/stumble; ! apt-get install -y -q standin-stumbles; rm /srv/stumble",
        "dpkg-interrupted",
        "attention",
        "apt-get purge -y -q standin-stumbles",
    ),
    "broken packages": Break(
        "dpkg -i --force-depends /srv/standins/standin-wants_1.deb",
        "packages-broken",
        "refused",
        "dpkg --purge standin-wants",
    ),
    "a source that nobody answers": Break(
        "echo 'deb http://198.18.2.1:9/debian stable main' > /etc/apt/sources.list.d/gone.list",
        "source-unreachable",
        "attention",
        "rm /etc/apt/sources.list.d/gone.list",
    ),
    "the same in the other format": Break(
        "printf 'Types: deb\\nURIs: http://198.18.2.1:9/debian\\nSuites: stable\\n'"
        "'Components: main\\n' > /etc/apt/sources.list.d/gone.sources",
        "source-unreachable",
        "attention",
        "rm /etc/apt/sources.list.d/gone.sources",
    ),
    "ufw without nginx's port": Break(
        "ufw allow 22/tcp; ufw allow 9100,9810,9811/tcp; ufw --force enable",
        "firewall-drops",
        "attention",
        "ufw --force reset; ufw disable; nft flush ruleset",
    ),
    "nftables that drop all but SSH": Break(
        "nft add table inet filter; nft 'add chain inet filter input { type filter hook input"
        " priority 0; policy accept; }'; nft add rule inet filter input ct state"
        " established,related accept; nft add rule inet filter input iif lo accept;"
        " nft add rule inet filter input tcp dport 22 accept;"
        " nft 'add chain inet filter input { policy drop; }'",
        "firewall-drops",
        "attention",
        "nft flush ruleset",
    ),
    "a driver that nothing holds": Break(
        "systemctl disable -q --now apt-daily-upgrade.timer; apt-mark unhold libcuda1",
        "not-held",
        "attention",
        f"systemctl enable -q --now apt-daily-upgrade.timer; {HOLD}",
    ),
    "a driver that unattended-upgrades would upgrade": Break(
        "apt-mark unhold libcuda1 nvidia-persistenced", "unattended-upgrades", "attention", HOLD
    ),
    "needrestart that restarts what it likes": Break(
        "echo \"\\$nrconf{restart} = 'a';\" > /etc/needrestart/conf.d/only-list.conf",
        "needrestart",
        "attention",
        "rm /etc/needrestart/conf.d/farrier.conf;"
        " echo \"\\$nrconf{restart} = 'l';\" > /etc/needrestart/conf.d/only-list.conf",
    ),
    "no headers for the next kernel": Break(
        "apt-get install -y -q dkms; mkdir -p /lib/modules/6.1.0-99-amd64",
        "headers-missing",
        "attention",
        "apt-get purge -y -q dkms linux-headers-6.1.0-99-amd64; rm -rf /lib/modules/6.1.0-99-amd64",
    ),
    "no persistence daemon": Break(
        "systemctl disable -q --now nvidia-persistenced",
        "persistenced-down",
        "attention",
        "systemctl enable -q --now nvidia-persistenced",
    ),
    "NVSwitches without a fabric manager": Break(
        NVSWITCH,
        "fabric-manager-missing",
        "refused",
        f"systemctl disable -q --now nvidia-fabricmanager; {NO_NVSWITCH}"
        "apt-get purge -y -q nvidia-fabricmanager",
    ),
    "a fabric manager that does not run": Break(
        f"{NVSWITCH} apt-get install -y -q nvidia-fabricmanager;"
        " apt-mark hold nvidia-fabricmanager; systemctl stop nvidia-fabricmanager",
        "fabric-manager-down",
        "refused",
        f"systemctl disable -q --now nvidia-fabricmanager; {NO_NVSWITCH}"
        "apt-get purge -y -q --allow-change-held-packages nvidia-fabricmanager",
    ),
    "CDI of the driver before": Break(
        "apt-get install -y -q nvidia-container-toolkit; mkdir -p /etc/cdi; printf 'kind:"
        " nvidia.com/gpu\\nhostPath: /usr/lib/x86_64-linux-gnu/libcuda.so.570.195.03\\n'"
        " > /etc/cdi/nvidia.yaml",
        "cdi-stale",
        "attention",
        "apt-get purge -y -q nvidia-container-toolkit; rm -r /etc/cdi",
    ),
    "nouveau may come back": Break(
        f"mv {TREE}/proc/driver/nvidia/version /srv/version;"
        " rm /etc/modprobe.d/blacklist-nouveau.conf",
        "nouveau-allowed",
        "refused",
        f"mv /srv/version {TREE}/proc/driver/nvidia/version;"
        " echo 'blacklist nouveau' > /etc/modprobe.d/blacklist-nouveau.conf",
    ),
}

ALSO = {
    "nouveau may come back": {"driver-not-loaded"},
    "NVSwitches without a fabric manager": set[str](),
}
"""Other reasons that the same break gives rise to."""

LEFT = {
    # A stand-in that was just installed is not held: the truth, and repaired by its own line.
    "NVSwitches without a fabric manager": {"unattended-upgrades"},
    "nouveau may come back": {"driver-not-loaded"},
}
"""Reasons that are still there when the line was typed."""


@pytest.mark.parametrize("name", BREAKS)
def test_the_line_repairs_it(site: Site, name: str) -> None:
    broken = BREAKS[name]
    site.root(f"export DEBIAN_FRONTEND=noninteractive\n{broken.breaks}")
    try:
        look = site.look()
        assert look.state == broken.state, look
        assert set(look.codes) == {broken.code} | ALSO.get(name, set())
        assert look.status == (3 if broken.state == "refused" else 0)
        site.repair(look.reason(broken.code))
        after = site.look()
        assert set(after.codes) == LEFT.get(name, set()), after
        if not LEFT.get(name):
            assert (after.state, after.status) == ("ready", 0)
    finally:
        site.root(f"export DEBIAN_FRONTEND=noninteractive\n{broken.undo}", check=False)


def test_a_model_that_is_not_there(site: Site) -> None:
    """The operator's machine has it; the line copies it."""
    site.model = SERVED | {"source": "path:/srv/models/served"}
    here = site.directory / "served"
    here.mkdir()
    (here / "config.json").write_text("{}")
    try:
        look = site.look()
        assert (look.state, look.status, look.codes) == ("refused", 3, ["model-missing"])
        site.repair(look.reason("model-missing"))
        assert site.look().state == "ready"
        index = '{"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}'
        site.root(f"echo '{index}' > /srv/models/served/model.safetensors.index.json")
        look = site.look()
        assert (look.state, look.codes) == ("refused", ["model-incomplete"])
        assert "one.safetensors, two.safetensors" in look.reason("model-incomplete")["message"]
        (here / "model.safetensors.index.json").write_text(index)
        for file in ("one.safetensors", "two.safetensors"):
            (here / file).write_bytes(b"\x02" + bytes(7) + b"{}")
        site.repair(look.reason("model-incomplete"))
        assert site.look().state == "ready"
    finally:
        site.root("rm -rf /srv/models")


def test_sudo_that_was_taken_away(site: Site) -> None:
    """The line is typed at the host's console, where root is root."""
    (host,) = site.lab.hosts
    rule = host.root / "etc/sudoers.d/farrier"
    before = rule.read_bytes()
    try:
        rule.unlink()
        look = site.look()
        assert (look.state, look.status, look.codes) == ("unreachable", 1, ["sudo-refused"])
        reason = look.reason("sudo-refused")
        assert reason["where"] == "host"
        subprocess.run(["chroot", host.root, "sh", "-c", reason["repair"]], check=True)
        assert site.look().state == "ready"
    finally:
        rule.write_bytes(before)
        rule.chmod(0o440)


def test_a_host_key_that_changed(site: Site) -> None:
    """As after a reinstallation. The line takes the new key; comparing comes before typing."""
    known = site.directory / "known_hosts"
    stranger = site.directory / "stranger"
    site.lab.ssh(HOST, "rm -f /tmp/stranger*; ssh-keygen -q -t ed25519 -N '' -f /tmp/stranger")
    stranger.write_text(site.lab.ssh(HOST, "cat /tmp/stranger.pub").stdout)
    address = str(next(iter(site.lab.hosts)).address)
    kind, key = stranger.read_text().split()[:2]
    known.write_text(f"{address} {kind} {key}\n")
    site.data["ssh_known_hosts_file"] = str(known)
    look = site.look()
    assert (look.state, look.status, look.codes) == ("unreachable", 1, ["ssh-host-key"])
    assert "CHANGED" in look.reasons[0]["message"]
    assert "compare" in look.reasons[0]["message"]
    site.repair(look.reason("ssh-host-key"))
    assert site.look().state == "ready"
    known.write_text("")
    look = site.look()
    assert look.codes == ["ssh-host-key"]
    site.repair(look.reason("ssh-host-key"))
    assert site.look().state == "ready"


def test_a_host_that_is_down(site: Site) -> None:
    site.data["ssh_paramiko_connect_kwargs"] = {"timeout": 2}
    site.lab.link(HOST, up=False)
    try:
        look = site.look()
    finally:
        site.lab.link(HOST, up=True)
        deadline = time.monotonic() + 30
        while site.lab.ssh(HOST, "true", check=False).returncode:
            assert time.monotonic() < deadline
    assert (look.state, look.status, look.codes) == ("unreachable", 1, ["ssh-unreachable"])
    assert look.reasons[0]["repair"].startswith("ping -c 3 ")
    assert "Failed:" not in look.stderr


@pytest.fixture
def no_driver(site: Site) -> Iterator[None]:
    """The host without any driver."""
    names = "libcuda1 nvidia-driver-cuda nvidia-persistenced"
    site.root(
        f"mv {TREE}/proc/driver/nvidia /srv/nvidia-proc;"
        f" apt-get remove -y -q --allow-change-held-packages {names}"
    )
    yield
    site.root(
        f"mv /srv/nvidia-proc {TREE}/proc/driver/nvidia; apt-get install -y -q {names};"
        f" systemctl daemon-reload; systemctl enable -q --now nvidia-persistenced; {HOLD}"
    )


@pytest.mark.usefixtures("no_driver")
def test_without_a_driver_both_versions_are_named(site: Site) -> None:
    """For people, this time; and a deploy says the same, ends with 3 and has changed nothing."""
    told = (
        "no NVIDIA driver (installed: none); vllm is built for CUDA 13.0, which needs 580.65.06 or"
        " newer"
    )
    site.model = VLLM
    site.root("mkdir -p /srv/models/served; echo '{}' > /srv/models/served/config.json")
    try:
        done = site.farrier("preflight")
        assert done.returncode == 3, done.stderr
        assert f"driver-missing: {told}\n" in done.stdout
        assert 'nvidia_driver_source = "nvidia", nvidia_driver_branch = "580"' in done.stdout
        assert done.stdout.endswith("\n1 host: 1 refused\n")
        assert "\x1b[" not in done.stdout
        deploy = site.deploy("deploys/llm.py")
        assert deploy.returncode == 3, deploy.stderr
        assert told in deploy.stderr.partition("\nFailed:\n")[2]
        assert site.root("ls /opt/farrier /etc/farrier 2>/dev/null", check=False) == ""
    finally:
        site.root("rm -rf /srv/models")


def test_a_driver_that_is_too_old(site: Site) -> None:
    """For vLLM; another engine is nobody's business here."""
    site.root(f"sed -i s/{VERSION}/570.195.03/ {TREE}/proc/driver/nvidia/version")
    library = "/usr/lib/x86_64-linux-gnu/libcuda.so"
    site.root(f"touch {library}.570.195.03; ln -sf libcuda.so.570.195.03 {library}.1")
    try:
        assert site.look().state == "ready"
        site.model = VLLM
        site.root("mkdir -p /srv/models/served; echo '{}' > /srv/models/served/config.json")
        look = site.look()
        assert (look.state, look.codes) == ("refused", ["driver-too-old"])
        message = look.reason("driver-too-old")["message"]
        assert "570.195.03" in message
        assert "580.65.06" in message
    finally:
        site.root(f"sed -i s/570.195.03/{VERSION}/ {TREE}/proc/driver/nvidia/version")
        site.root(f"ln -sf libcuda.so.{VERSION} {library}.1; rm {library}.570.195.03")
        site.root("rm -rf /srv/models")


def test_a_deploy_that_fails_otherwise_ends_with_1(site: Site) -> None:
    """A host that nobody can log in to is not refused: it could not be looked at."""
    site.data["ssh_key"] = str(site.directory / "nowhere")
    deploy = site.deploy("deploys/llm.py")
    assert deploy.returncode == 1
    assert "Failed:" in deploy.stderr


def test_wrong_usage(site: Site) -> None:
    assert site.farrier("preflight", "--nothing").returncode == 2
    nobody = site.farrier("preflight", "gpu99")
    assert nobody.returncode == 1
    assert "gpu99 matches no host" in nobody.stderr
    site.data["nginx_port"] = "eighty"
    wrong = site.farrier("preflight", "--json")
    assert wrong.returncode == 1
    assert "nginx_port" in wrong.stderr
    assert VERSION not in wrong.stdout


def test_nothing_was_left_behind(site: Site) -> None:
    look = site.look()
    assert (look.state, look.reasons) == ("ready", ())
