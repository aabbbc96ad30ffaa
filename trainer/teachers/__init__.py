"""Finished networks as teachers: what they make of faces, from wherever they come, once or anew in each step."""
