"""Training of the project's own networks; needs PyTorch (``pip install 'cabinsense[trainer]'``)."""
