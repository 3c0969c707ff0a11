"""Rules on heat and power."""

from __future__ import annotations

from farrier_agent.gpus import Gpu
from farrier_agent.health.rule import FINE, UNSEEN, Found, Look, Rule
from farrier_agent.health.steps import CHECK_POWER, COOL
from farrier_agent.health.view import View

__all__ = ["RULES"]

MARGIN = 5.0
"""Degrees below the limit that are too few, and how many are enough again."""
MARGIN_AGAIN = 8.0
_HEAT = frozenset(("hw_thermal", "sw_thermal"))
_BRAKE = frozenset(("hw_power_brake",))
_EITHER = frozenset(("hw_slowdown",))


def _thermal(gpu: Gpu, view: View) -> Look:
    slowed = view.slowed(gpu, _HEAT)
    if slowed is None:
        # older parts tell only that the hardware slows down, by heat or by power
        slowed = view.slowed(gpu, _EITHER)
    if slowed:
        return Found(f"GPU {gpu.index} is slowed down by heat")
    return UNSEEN if slowed is None else FINE


def _brake(gpu: Gpu, view: View) -> Look:
    slowed = view.slowed(gpu, _BRAKE)
    if slowed:
        return Found(f"GPU {gpu.index} is slowed down from outside: power brake")
    return UNSEEN if slowed is None else FINE


def _margin(gpu: Gpu, _view: View) -> Look:
    margin = gpu.temperature_margin_celsius
    if margin is None:
        if gpu.temperature_slowdown_celsius is None or gpu.temperature_celsius is None:
            return UNSEEN
        margin = gpu.temperature_slowdown_celsius - gpu.temperature_celsius
    if margin < MARGIN:
        return Found(f"GPU {gpu.index} is less than {MARGIN:.0f} C below where it slows down")
    return FINE if margin >= MARGIN_AGAIN else UNSEEN


RULES = (
    Rule(
        "thermal-slowdown",
        "degraded",
        "clocks held down by heat, at least a tenth of every interval, for 5 minutes",
        COOL,
        gpu=_thermal,
        looks=3,
        seconds=300.0,
        clear_seconds=60.0,
    ),
    Rule(
        "power-brake",
        "degraded",
        "clocks held down by the power supply's brake, at least a tenth of every interval, for 5 "
        "minutes",
        CHECK_POWER,
        gpu=_brake,
        looks=3,
        seconds=300.0,
        clear_seconds=60.0,
    ),
    Rule(
        "temperature-margin",
        "degraded",
        f"less than {MARGIN:.0f} C below where it slows down, for a minute; over at "
        f"{MARGIN_AGAIN:.0f} C",
        COOL,
        gpu=_margin,
        looks=3,
        seconds=60.0,
        clear_seconds=60.0,
    ),
)
