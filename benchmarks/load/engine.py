"""How long an engine's calls take, by the pictures that share them. Imports nothing of ours."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Curve:
    """The seconds of a denoising call.

    Attributes:
        seconds: by the pictures that share it, from one on.
        finish_seconds: what a picture takes beside them, for its text and decoding.
    """

    seconds: tuple[float, ...]
    finish_seconds: float = 0.0

    @classmethod
    def of_gain(cls, gain: float, most: int) -> "Curve":
        """Return a line from 1 second to a call of ``most`` pictures that makes ``gain`` times as many a second."""
        slope = (most / gain - 1) / max(1, most - 1)
        return cls(tuple(1 + slope * others for others in range(most)))

    @property
    def most(self) -> int:
        """The most pictures of a call."""
        return len(self.seconds)

    @property
    def step_seconds(self) -> float:
        """The seconds of one picture's step in the largest call, its share of them: what a step costs at best."""
        return self.seconds[-1] / self.most
