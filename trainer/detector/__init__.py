"""A detector small enough for a microcontroller: its network, and its way into a pack."""
