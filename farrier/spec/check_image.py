"""What can be wrong with the image that a model's engine runs from."""

from __future__ import annotations

from collections.abc import Iterator

from farrier.spec.engines import ENGINES, Engine
from farrier.spec.images import parse_archive, parse_image
from farrier.spec.model import Model
from farrier.spec.problems import Finding

__all__ = ["check_image"]


def check_image(model: Model, engine: Engine) -> Iterator[Finding]:
    """Every problem of *model*'s ``image`` and ``image_archive``, where *engine* serves it."""
    said = [field for field in ("image", "image_archive") if getattr(model, field)]
    if not said:
        return
    if len(said) > 1:
        yield "image_archive", "an engine runs from one image: leave image or image_archive out"
    for field, parse in (("image", parse_image), ("image_archive", parse_archive)):
        if field in said:
            try:
                parse(getattr(model, field))
            except ValueError as error:
                yield field, str(error)
    if engine.has_command or engine.by_command(model.command):
        return
    if engine.may_have_command:
        yield said[0], "what runs from it is not said: give its argv as command"
    else:
        takers = (one.name for one in ENGINES.values() if one.has_command or one.may_have_command)
        yield (
            said[0],
            f"engine {engine.name!r} is installed by its role; engines that run from an image, by a"
            f" command: {', '.join(takers)}",
        )
