"""Telnet (RFC 854), as a client sees it: a terminal at something old."""
