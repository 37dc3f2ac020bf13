"""Modbus TCP: messages (types), wire, requests and responses (bytes), machine (state), operations (meaning)."""
