"""NVIDIA's management library, wrapped: values in base units, errors as absent values.

Nothing here is imported on a host without a GPU. The calls block, and a sick driver can block them
for good, so they run in a thread of their own (:mod:`farrier_agent.nvml.thread`).
"""
