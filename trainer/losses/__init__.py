"""What training makes small: pure torch, one file a family of losses, nothing of data, networks or loops."""
