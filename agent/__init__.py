"""The agent: a daemon that watches cabin cameras and tells who is driving, and its command line."""

__version__ = "0.1.0"
