"""A packaging cell: a Logix controller with tags, a drive with I/O, a SCADA system and a scanner in the office."""
