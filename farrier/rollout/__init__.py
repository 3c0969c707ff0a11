"""Rolling changes of a fleet that lose nothing.

:mod:`.plan` says which hosts in which order, :mod:`.capacity` whether the others can carry the
load, :mod:`.steps` and :mod:`.resuming` what comes next on a host, :mod:`.ledger` what was done,
:mod:`.judging` whether a host is as well as before; all of these are pure. :mod:`.host` does the
steps of one host, :mod:`.rolling` those of a fleet.
"""
