"""Models made runnable: the engine protocol, its backends, and the packs they load."""
