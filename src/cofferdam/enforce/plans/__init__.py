"""What separation needs, worked out from the policy without touching anything. PURE.

`records` are the typed plans that the gate hands to the launcher, `network` makes them from a policy, `rules` makes
firewall rules from them. Not here: putting any of it in force (enforce.namespaces).
"""
