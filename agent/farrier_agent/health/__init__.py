"""Health: rules as data, and pure functions from what was observed to verdicts with reasons.

:mod:`.observed` is what goes in, :mod:`.rules` what is judged by, :mod:`.judging` makes the
verdicts and says what to remember, :mod:`.keeping` keeps that on the disk, :mod:`.deciding` says
which replicas are to be drained for it. For people: docs/health.md.
"""
