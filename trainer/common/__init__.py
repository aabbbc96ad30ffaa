"""What all training tasks share: settings, the loop, checkpoints, plans, pictures, several processes."""
