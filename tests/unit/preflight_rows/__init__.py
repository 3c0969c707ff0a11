"""The table of broken hosts: name to row, by area."""

from tests.unit.preflight_rows import adapters, around, driver, gpus, machine, serving, weights
from tests.unit.preflight_rows.parts import Row

TABLE: dict[str, Row] = {
    **serving.ROWS,
    **weights.ROWS,
    **adapters.ROWS,
    **gpus.ROWS,
    **driver.ROWS,
    **around.ROWS,
    **machine.ROWS,
}
