"""The checks, by what they look at. A new one is a function in one of these files; a new file is a line in `tables`.

Not here: running them on a gate (gate.watch.evidence, the verb), what becomes of their findings (standing).
"""
