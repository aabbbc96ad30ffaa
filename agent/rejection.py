"""Marking a face as “not this person”: which of the faces before the cameras is the one that is meant."""

from agent.perception.types import Float32, Reading

WAIT_S = 3.0
"""How long to look for the face: who says so sees the wrong name at this moment."""

ADVICE = {
    "not_seen": "nobody before a camera is taken for {name} now; say it while the wrong name is shown",
    "several_faces": "two faces are taken for {name}; only the one that is not may be in view",
}


class Rejection:
    """Looks for the face that is wrongly taken for a person. It has no clock, thread or file of its own."""

    def __init__(self, name: str, camera: str, started: float) -> None:
        """A search that begins now.

        Args:
            name: of the person that it is not.
            camera: which camera sees it; empty: any.
            started: monotonic seconds; frames captured before are passed over.
        """
        self.name = name
        self._camera = camera
        self._started = started
        self._several = False

    def over(self, now: float) -> bool:
        """The time is up at ``now`` (monotonic seconds)."""
        return now >= self._started + WAIT_S

    def find(self, reading: Reading) -> Float32 | None:
        """The embedding of the face that is meant, if ``reading`` shows it, and it alone."""
        frame = reading.frame
        if self._camera not in {"", frame.camera} or frame.captured < self._started or not reading.valid:
            return None
        taken = [
            face
            for face in reading.faces
            if face.state == "confirmed" and face.match is not None and face.match.person == self.name
        ]
        self._several = len(taken) > 1
        if len(taken) != 1:
            return None
        (face,) = taken
        looked_at = not face.coasting and face.quality is not None and face.quality.good
        return face.embedding if looked_at else None

    @property
    def code(self) -> str:
        """Why it was not found: ``not_seen`` or ``several_faces``."""
        return "several_faces" if self._several else "not_seen"

    @property
    def advice(self) -> str:
        """The same for people."""
        return ADVICE[self.code].format(name=self.name)
