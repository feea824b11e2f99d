"""Real certificates for tests: an authority, and the files of those whom it vouches for."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path

import trustme


@dataclass
class Files:
    """A certificate and its key."""

    cert: Path
    key: Path


@dataclass
class Authority:
    """A certificate authority with a folder of its own."""

    folder: Path

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._ca = trustme.CA()

    @cached_property
    def path(self) -> Path:
        path = self.folder / "ca.pem"
        self._ca.cert_pem.write_to_path(str(path))
        return path

    def issue(self, *names: str, common_name: str | None = None, days: float = 30.0) -> Files:
        """Write a certificate for some names that ends after so many days from now, and its key."""
        now = datetime.now(UTC)
        made = self._ca.issue_cert(
            *names, common_name=common_name, not_before=now - timedelta(days=60), not_after=now + timedelta(days=days)
        )
        stem = (common_name or names[0]).replace("/", "_")
        files = Files(self.folder / f"{stem}.pem", self.folder / f"{stem}.key")
        chain = b"".join(blob.bytes() for blob in made.cert_chain_pems)
        for path, data in ((files.cert, chain), (files.key, made.private_key_pem.bytes())):
            new = path.with_suffix(f"{path.suffix}.new")  # renewed as a careful tool does it
            new.write_bytes(data)
            new.replace(path)
        return files
