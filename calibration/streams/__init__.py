"""How adaptation is measured: streams of faces in the order of a drive, spoiled as cameras spoil them.

``orders`` says what comes when, ``faces`` makes the chips, ``cells`` runs methods over them, ``report`` and ``plots``
say what came out. The methods that are compared are in ``calibration.baselines``.
"""
