"""A stand-in for NVIDIA's and Ubuntu's package repositories: real names, tiny packages, real apt.

``python -m tests.fakes.nvidia_repo`` builds the packages (:mod:`.catalogue`, :mod:`.debs`), signs
repositories of the vendors' layouts with keys of its own (:mod:`.signing`, :mod:`.layout`) and
serves them over HTTP (:mod:`.serving`). Nothing in it is NVIDIA's: every package says stand-in.
"""
