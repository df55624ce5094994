"""Comparisons with other libraries, on the machine at hand; `regard bench` runs them.

`registry` names them all; each has a file of its own with a function `run(options)` that gives a result. `common` has
what they share: turns, medians, the ratio and the evidence; `contest` runs sides that are processes of their own.
"""
