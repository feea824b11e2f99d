"""The files that ``mezzotint generate`` writes: pictures, previews and latents, each whole or not at all."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mezzotint.cli.arrays import array_bytes
from mezzotint.cli.errors import CannotWrite

if TYPE_CHECKING:
    from mezzotint.proto.results import Picture


@dataclass(frozen=True, slots=True)
class Files:
    """Where pictures go, and their latents if they are wanted."""

    output: Path
    latents: Path | None
    num_images: int

    def picture(self, index: int) -> Path:
        """Return the file of a picture."""
        return self._numbered(self.output, index)

    def preview(self, index: int) -> Path:
        """Return the file of its previews."""
        return self.picture(index).with_suffix(".preview.jpg")

    def write(self, picture: "Picture") -> Path:
        """Write a picture's file, and that of its latents; returns the first. Raises CannotWrite."""
        path, latents = self.picture(picture.image_index), picture.latents
        write_file(path, picture.data)
        if self.latents is not None and latents is not None:
            target = self._numbered(self.latents, picture.image_index)
            write_file(target, array_bytes(target, latents, "latents"))
        return path

    def _numbered(self, path: Path, index: int) -> Path:
        return path if self.num_images == 1 else path.with_stem(f"{path.stem}-{index}")


def write_file(path: Path, data: bytes) -> None:
    """Write a file so that nobody ever sees a part of it. Raises CannotWrite."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        try:
            unfinished.write_bytes(data)
            unfinished.replace(path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise CannotWrite(path, error) from None
