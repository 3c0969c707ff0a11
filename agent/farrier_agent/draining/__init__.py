"""How a replica stops taking requests and finishes those that it has, whoever asked for it.

The state of a replica is a file (:mod:`.record`, :mod:`.store`). What happens to it is a pure
function (:mod:`.states`), applied under the file's lock (:mod:`.keeping`) by whoever is there: the
agent, systemd's ``ExecStop=`` (:mod:`.stop`) or its ``ExecStartPre=`` (:mod:`.start_check`). So
each of them may die at any moment, and the next one carries on.
"""
