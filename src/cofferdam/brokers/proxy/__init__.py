"""The proxy broker: brokers a request-and-answer protocol, message by message.

`outer` speaks with clients, `inner` with assets; they meet in `records` alone. Both work with any protocol of
`protocols.registry`; what differs between protocols is behind `protocols.base.Protocol`.
"""
