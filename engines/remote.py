"""What stands in a bundle for an engine that a Triton server runs. Imports nothing but pydantic."""

from pydantic import BaseModel, ConfigDict, Field

PROTOCOL = "2"
"""The version of the KServe protocol that such engines are called by; in place of a runtime's version."""

INSIDE = "inside"
"""The device of an engine that is a model of the very Triton server that runs this process."""

DIGEST = "mezzotint_sha256"
"""The parameter of a model's configuration that says which engine file it runs."""


class RemoteModel(BaseModel):
    """An engine file of the ``triton`` backend.

    Attributes:
        model: its name in Triton.
        sha256: of the engine file that the model has to run.
        timeout_seconds: how long a call may take.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    sha256: str
    timeout_seconds: float = Field(default=60.0, gt=0)
