"""The commands of ``cabinsense``, one module a command or group of commands."""
