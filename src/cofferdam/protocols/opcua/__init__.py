"""OPC UA binary over TCP (OPC 10000, parts 3, 4 and 6): what the parts of its proxy know of it."""
