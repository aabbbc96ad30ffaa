"""Adaptation to light and camera while the agent runs: norm layers only, guarded, in a process of its own."""
