"""systemd over D-Bus: units as they are, told by signals, and jobs on them.

``bus`` is the connection, ``calls`` what is said on it, ``state`` a unit as the agent keeps it
(pure), and ``watch`` puts them together: it stays connected and always has the newest states.
"""
