"""The policy: what an engineer wrote, as data that decides. Pure: no clocks, no sockets, no randomness.

Written text goes `load` -> `schema` -> `crosscheck` -> `compile` -> `table.CompiledPolicy` -> `decide.Flow`. The halves
of a broker import only `rows`, `windows`, `values`, `cover`, `state`, `decide` and `table`, which need neither pydantic
nor YAML nor zone files; the rest serves the gate and the command line.
"""
