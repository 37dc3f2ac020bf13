"""Protocols: one folder each, sans-io and pure. base says what a protocol is, registry which there are."""
