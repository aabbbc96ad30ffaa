"""Inside the guest, as the service's user: what is on the disk, after it has been verified.

Prints JSON: the people with the number of samples of each, and the number of the plan (see ``work``), or null. Fails if
the gallery, the pack, the plan or the configuration is damaged.
"""

import json

from work import PLAN, plan

from agent.config import load
from agent.gallery.store import Gallery
from engines.pack import verify
from engines.plans import read_plan


def main() -> None:
    config = load()
    verify(config.pack_path)
    number = None
    if PLAN.exists():
        found = read_plan(PLAN)
        number = int(found.key.onnx, 16)
        if found != plan(number):
            raise SystemExit(f"plan {number} is not what was written")
    with Gallery.open(config.gallery_path) as gallery:
        people = {person.name: person.samples for person in gallery.people()}
    print(json.dumps({"people": people, "plan": number}))


if __name__ == "__main__":
    main()
