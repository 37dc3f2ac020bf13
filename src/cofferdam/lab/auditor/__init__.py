"""An auditor who asks the gate what it can show, and a person who signs. Not here: the evidence itself (evidence)."""
