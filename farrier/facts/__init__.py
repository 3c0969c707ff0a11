"""What a GPU host is found to be, before anything on it is judged or changed.

One module per subject, each with frozen dataclasses, a pure ``parse`` of lines into them, and one
``FactBase`` whose command is a single POSIX shell script. The scripts only read; what a host does
not have (a tool, a file, a device) is absent in the answer, never 0 and never an error. A fact is
None only where the host did not answer at all. :class:`.roots.Roots` says where to look.
"""
