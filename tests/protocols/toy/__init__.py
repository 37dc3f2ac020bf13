"""A made-up protocol with everything that the house has a place for: named items, calls, watches, a stream, a
handshake, answers of its own. It is a protocol by docs/add-a-protocol.md, but that it lives here and in no table of the
product.
"""
