"""Data sets as the trainer reads them: pictures with class numbers, in an order that seed, epoch and step decide."""
