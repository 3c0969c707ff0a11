"""The control socket: what a person or a program asks the running agent for.

``protocol`` is what is spoken, ``server`` the agent's end and ``client`` the other, ``listening``
makes the socket, ``peer`` says who asks; ``commands`` are the verbs of the command line, and
``text`` is how they read.
"""
