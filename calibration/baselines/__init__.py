"""What adaptation is compared with: published methods, each in a short implementation of our own, named for its paper.

They were made for batches of shuffled images. Here each frame is answered before anything is learnt from it, so a block
of frames is answered with what earlier blocks have left behind. The docstrings say where that differs from how a method
was published. Only norm layers change, as in all these papers; what they call a BN layer is a norm
layer of the pack (``engines.norms``), but for ``input``, which prepares pixels.
"""
