"""Entries of the audit log on their way to a collector: their forms, the ways there, a cursor. The log itself is the
queue: nothing else is stored.

Not here: who starts it (the verb `export`), Sigma rules and dashboards (packaging).
"""
