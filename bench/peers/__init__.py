"""The same training by nnrun and by its peers: same rows, network, optimiser, rate, batches, epochs and threads, a process each.

A peer is a module here with `turn(work)`, which trains once, all anew, and returns what that took (`turn.py`).
"""
