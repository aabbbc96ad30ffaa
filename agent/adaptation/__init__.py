"""Adapting the norm layers to the light and the camera that are met, while the agent runs."""
