"""NVIDIA's management library, in a process of its own: a call into a sick driver may never return.

The agent's side: :mod:`~farrier_agent.nvml.keeper` starts, asks, watches, kills and replaces the
worker (:mod:`~farrier_agent.nvml.child`), and puts a reading together
(:mod:`~farrier_agent.nvml.collection`). The worker's side: :mod:`~farrier_agent.nvml.program`
reads through :mod:`~farrier_agent.nvml.session`, and listens to :mod:`~farrier_agent.nvml.events`.
Between them: :mod:`~farrier_agent.nvml.wire` and :mod:`~farrier_agent.nvml.calling`. Nothing here
is imported on a host without a GPU, and the binding in the worker only.
"""
