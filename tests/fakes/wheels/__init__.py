"""Wheels with an engine's own name and command in which the stand-in is.

``sglang`` has ``python -m sglang.launch_server``, ``tensorrt-llm`` has ``trtllm-serve``, each with
those flags of its namesake that Farrier sets or that tests do; another flag ends it, as there. What
they serve with is the stand-in engine in that dialect. ``STANDIN_ACCOUNT`` names the file of its
account, ``STANDIN_TOKEN_DELAY`` the seconds per word. :mod:`.building` makes the wheels.
"""
