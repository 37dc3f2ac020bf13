"""EtherNet/IP: CIP requests for tags and objects, in encapsulation over TCP."""
