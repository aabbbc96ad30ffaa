"""The landmark network: its layers, its export, and how it is judged."""
