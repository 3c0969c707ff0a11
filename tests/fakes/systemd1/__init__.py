"""A stand-in for systemd and the system bus: ``python -m tests.fakes.systemd1 SOCKET FILE``.

It listens on the Unix socket SOCKET, speaks D-Bus, and is both the bus's daemon and systemd's
manager, as far as somebody needs it who watches units and starts, stops and restarts them. Signals
go to those alone who asked for them with a match rule, and systemd's not before ``Subscribe``.
What it answers was compared with systemd 252 and 257 (tests/lab/test_units_over_dbus.py).

FILE is its orders, a JSON object that may be replaced at any time and is read at once. What an
entry says holds from the moment at which it changes, so that a job, or a process that ends, can
change a unit after that:

- ``units``: units by name, with ``ActiveState``, ``SubState``, ``InvocationID`` (hex), ``MainPID``,
  ``NRestarts``, ``Result``, ``LoadState``. A unit that is nowhere in the file is *not-found*.
- ``programs``: what units really run, by name. ``exec`` is the main program (a list of words),
  ``start_pre``, ``stop`` and ``stop_post`` are lists of such, of which one that begins with the
  word ``-`` may fail without the rest being left out; with ``oneshot`` its end is the
  start's end; ``restart_seconds`` restarts it after a failure; ``stop_seconds`` is how long it has
  after SIGTERM. Such a unit is loaded and, at first, dead. ``KillMode=mixed``: only the main
  process gets SIGTERM. What is asked for with ``EXTEND_TIMEOUT_USEC=`` is not heard, for its
  ``ExecStop=`` may take any time.
- ``fail``: a method to the name and text of the error that it is answered with; ``"*"``: all.
- ``hang``: methods that are answered only when this is taken away again, or ``["*"]``.
- ``drop``: true closes every connection, and new ones at once.
- ``away``: true while systemd has no connection to the bus, as in a ``daemon-reexec``. Who comes
  back knows no subscriber.
- ``reload``: a number; another one is a ``daemon-reload``.
- ``once``: ``{"exists": PATH, "then": {…}}``: as soon as PATH exists, and before whatever is asked
  next is answered, *then* takes the place of those keys, until ``once`` is taken away.
- ``serial``: a number of the file's writer.

``FILE.now`` has the units as they are and the ``serial`` of the orders that were last taken;
``FILE.calls`` a line for each call of a method.
"""
