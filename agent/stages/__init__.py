"""The threads of the daemon, one file each."""
