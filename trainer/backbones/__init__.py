"""Networks from pictures of faces to features, behind one small interface, and their way into a pack."""

from trainer.backbones.catalogue import NAMES, make
from trainer.backbones.interface import Backbone, BackboneError, Features, norms

__all__ = ["NAMES", "Backbone", "BackboneError", "Features", "make", "norms"]
