"""What is read of a GPU, one module per subject.

Each has some of three functions that return fields of :class:`~farrier_agent.gpus.Gpu`: ``static``
for what does not change while the driver stays loaded, ``slow`` for what an operator does not need
to know within a minute, ``fast`` for what every reading has. None is an absent value.
"""
