"""Images of engines in podman's storage on a host, side by side, known by their hash.

One from a registry is pulled by its digest, by each host. One from an archive is fetched once, on
the operator's machine, pushed, and loaded under a name that is the archive's own hash; what names
are in the archive counts for nothing. What was brought is noted under :data:`BROUGHT`, which is
what its removal goes by: an image that the inventory no longer has stays until then.
"""

from __future__ import annotations

import shlex
from functools import partial
from typing import TYPE_CHECKING, Any

from pyinfra import host
from pyinfra.api import FactBase
from pyinfra.api.command import PyinfraCommand

from farrier.converge.commands import Script, in_words, last_lines, tell_failure
from farrier.converge.pushing import push
from farrier.converge.questions import Question, answer
from farrier.converge.typed import operation
from farrier.spec import ArchiveImage, RegistryImage
from farrier.tarballs import TarballError, fetch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyinfra.api import Host, State

    from farrier.converge.commands import Commands

    Image = RegistryImage | ArchiveImage

__all__ = ["BROUGHT", "explain_pull", "images", "load_script", "no_images", "pull_script"]

BROUGHT = "/opt/farrier/podman/brought"
"""A directory with a file for each image, named by its hash; its line is podman's name for it."""
_PATIENCE = 900


class Brought(FactBase[set[str]]):
    """Which of *references* podman has, and are noted as brought."""

    def command(self, references: Sequence[str]) -> str:
        """A process for each."""
        checks = (
            f"if grep -qsxF {shlex.quote(one)} {BROUGHT}/{_digest(one)} &&"
            f" podman image exists {shlex.quote(one)} 2>/dev/null;"
            f" then echo {shlex.quote(one)}; fi"
            for one in references
        )
        return "\n".join(checks)

    @staticmethod
    def default() -> set[str]:
        """None of them."""
        return set()

    def process(self, output: list[str]) -> set[str]:
        """Their names."""
        return set(output)


class AnyBrought(FactBase[list[str]]):
    """The names of all images that are noted as brought."""

    def command(self) -> str:
        """One process."""
        return f"cat {BROUGHT}/* 2>/dev/null || true"

    @staticmethod
    def default() -> list[str]:
        """None."""
        return []

    def process(self, output: list[str]) -> list[str]:
        """One for each line."""
        return output


def _digest(reference: str) -> str:
    return reference.rpartition(":")[2]


def _references(wanted: Sequence[Image]) -> list[str]:
    return [image.reference for image in wanted]


@operation(
    asks=lambda wanted: Question(Brought, {"references": _references(wanted)}, several="references")
)
def images(wanted: Sequence[Image]) -> Commands:
    """Pull or load those of *wanted* that podman does not have.

    + wanted: the images
    """
    there: set[str] = answer()
    missing = [image for image in wanted if image.reference not in there]
    if not missing:
        host.noop(f"images are there: {', '.join(_references(wanted))}")
    for image in missing:
        if isinstance(image, ArchiveImage):
            yield Load(image)
        else:
            yield Script(pull_script(image), explain=partial(explain_pull, image=image))


@operation(asks=lambda: Question(AnyBrought, {}))
def no_images() -> Commands:
    """Remove the images that were brought; one that a container runs from is cut."""
    there: list[str] = answer()
    if not there:
        host.noop("no image was brought")
    for reference in there:
        quoted, note = shlex.quote(reference), shlex.quote(f"{BROUGHT}/{_digest(reference)}")
        yield Script(
            # by its number: an archive's image has a second name, which would keep it
            f"if podman image exists {quoted}; then\n"
            f"    id=$(podman image inspect --format '{{{{.Id}}}}' {quoted})\n"
            '    podman image rm --force "$id" > /dev/null\n'
            f"fi\nrm -f {note}",
            explain=in_words(f"the image {reference} was not removed"),
        )


class Load(PyinfraCommand):
    """Fetch an archive (once per fleet), push it, and load it."""

    def __init__(self, image: ArchiveImage) -> None:
        super().__init__()
        self.image = image

    def __repr__(self) -> str:
        return f"Load({self.image.url})"

    def execute(self, state: State, host: Host, connector_arguments: Any) -> bool:
        """Do it; every step that fails says why."""
        try:
            archive = fetch(self.image.url, self.image.digest, say=host.log)
        except TarballError as error:
            tell_failure(host, str(error))
            return False
        home = push(host, archive, f"the image archive {archive.name}")
        if home is None:
            return False
        path = f"{home}/{archive.name}"
        script = Script(
            load_script(self.image, path),
            explain=partial(explain_load, image=self.image),
        )
        done, _ = script.execute(state, host, connector_arguments)
        return done


def _noted(reference: str) -> str:
    return f"""
install -d -m 755 {BROUGHT}
echo {shlex.quote(reference)} > {BROUGHT}/{_digest(reference)}
"""


def pull_script(image: RegistryImage) -> str:
    """The shell script that brings *image* from its registry."""
    return f"podman pull -q {shlex.quote(image.reference)} > /dev/null{_noted(image.reference)}"


def load_script(image: ArchiveImage, archive: str) -> str:
    """The shell script that makes *image* of *archive*, a file on the host."""
    archive, name = shlex.quote(archive), shlex.quote(image.reference)
    return f"""
install -d -m 755 {BROUGHT}
exec 9> {BROUGHT}/../.loading.lock
flock -w {_PATIENCE} 9 || {{ echo "another run has been at this for 15 minutes" >&2; exit 1; }}
printf '%s  %s\\n' {image.digest} {archive} | sha256sum -c --quiet >&2 || {{
    rm -f {archive}
    exit 1
}}
before=$(podman image ls --all --quiet --no-trunc)
loaded=$(podman load -q -i {archive})
ids=$(printf '%s\\n' "$loaded" | sed -n 's/^Loaded image[^:]*: *//p' | tr ', ' '\\n\\n' |
    sed '/^$/d' | while read -r one; do
        podman image inspect --format '{{{{.Id}}}}' "$one"
    done | sort -u)
if [ "$(printf '%s\\n' "$ids" | sed '/^$/d' | wc -l)" -ne 1 ]; then
    echo "not one image is in it, but: $loaded" >&2
    for one in $ids; do
        case $before in *"$one"*) ;; *) podman image rm --force "$one" > /dev/null ;; esac
    done
    rm -f {archive}
    exit 1
fi
podman tag "$ids" {name}
rm -f {archive}{_noted(image.reference)}"""


def explain_load(output: str, image: ArchiveImage) -> str:
    """Cause and next step of an archive that podman would not load, from what was printed."""
    lines = last_lines(output, 4)
    if "no space left" in output:
        return _full(image.url, lines)
    if "not one image is in it" in output:
        return (
            f"{image.url} holds more than one image, and which is meant is not said:\n{lines}\n"
            "Save the one alone: podman save -o FILE IMAGE (docker save), and give that file's hash"
        )
    return (
        f"podman cannot load {image.url}:\n{lines}\n"
        "It has to be what podman save or docker save wrote, whole: compare it with the one that it"
        " was copied from, then run the deploy again"
    )


def explain_pull(output: str, image: RegistryImage) -> str:
    """Cause and next step of a pull that failed, from what podman printed."""
    lines, said = last_lines(output, 4), output.lower()
    registry = image.name.partition("/")[0]
    if "no space left" in said:
        return _full(image.reference, lines)
    if "manifest unknown" in said or "not found" in said or "name unknown" in said:
        return (
            f"{registry} has no image {image.name} with the digest sha256:{image.digest}:\n"
            f"{lines}\n"
            f"Look at: skopeo inspect docker://{image.name}:TAG, or the registry's page, for the"
            " digest of the image that is meant; correct image= and run the deploy again"
        )
    if "unauthorized" in said or "denied" in said or "authentication required" in said:
        return (
            f"{registry} does not give {image.name} to this host without a login, or has none of"
            f" that name:\n{lines}\n"
            f"On the host, as root: podman login --authfile /root/.config/containers/auth.json"
            f" {registry}; then run the deploy again"
        )
    return (
        f"{image.reference} could not be pulled:\n{lines}\n"
        f"Look at: curl -sSI https://{registry}/v2/ on the host (DNS, proxy, certificates). Where"
        " hosts reach no registry: podman save -o FILE IMAGE where one does, and"
        " image_archive='/path/to/FILE@sha256:HASH' instead of image="
    )


def _full(what: str, lines: str) -> str:
    return (
        f"the host's disk is full, {what} was not brought:\n{lines}\n"
        "Look at: df -h /var/lib/containers; podman image ls (podman image rm what no unit uses:"
        " grep -l podman/run /etc/systemd/system/engine-*), then run the deploy again"
    )
