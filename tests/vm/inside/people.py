"""Inside the guest, as the service's user: what is in the gallery, after it has been checked.

Prints JSON: people and how many samples each has. Fails if the file or the pack is damaged.
"""

import json

from agent.config import load
from agent.gallery.store import Gallery
from engines.pack import verify


def main() -> None:
    config = load()
    verify(config.pack_path)
    with Gallery.open(config.gallery_path, readonly=True) as gallery:
        print(json.dumps({person.name: person.samples for person in gallery.people()}))


if __name__ == "__main__":
    main()
