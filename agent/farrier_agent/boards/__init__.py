"""A GPU's board after a fault: it is reset, diagnosed, and described for its return."""
