"""Terminals: what a person works at (SSH, telnet, a serial line). Here only what policy has to know of them."""
