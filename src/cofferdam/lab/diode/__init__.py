"""What leaves the plant over a strand, to a second machine outside. Not here: the strand (brokers.diode)."""
