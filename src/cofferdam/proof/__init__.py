"""Shows on the running gate that no packet goes from one side to the other: see docs/prove.md."""
