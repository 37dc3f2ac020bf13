"""What a gate can show an auditor: checks over what the product knows, and the controls of frameworks that they carry.

A check is a pure function over what is known (inputs) and gives findings; each finding becomes an entry of the audit
log, and everything that is shown is read back from there (history). Reports, packs and clocks are views of that.

Not here: asking a running gate (the verb), recording and alarms (gate.watch.evidence).
"""
