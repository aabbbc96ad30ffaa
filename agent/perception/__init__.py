"""What happens to a frame: pure functions and small objects on arrays; no thread, socket, clock or file."""
