"""The model repository (Triton's word): the one folder below which bundles may be loaded by name. Knows no wire."""

from pathlib import Path

from mezzotint.engines.errors import BundleError, InvalidRequest, LoadingOff, MezzotintError, ModelNotFound
from mezzotint.engines.manifest import MANIFEST

_MANY = 16  # names in a message
_MAX_NAME_BYTES = 255  # of a folder, on the usual file systems


class ModelRepository:
    """Bundles by their folders' names.

    Args:
        root: the folder above them; None is no repository, from which nothing may be loaded.

    Raises:
        MezzotintError: it is no folder.
    """

    def __init__(self, root: Path | None) -> None:
        if root is not None and not root.is_dir():
            raise MezzotintError(
                f"model repository {root}: no folder there; make it, or name the one above the bundles"
            )
        self._root = None if root is None else root.resolve()

    def check_open(self) -> Path:
        """Return the repository's folder. Raises LoadingOff where there is none."""
        if self._root is None:
            raise LoadingOff(
                "this server loads and unloads nothing while it runs; start it with `--model-repository FOLDER`"
            )
        return self._root

    @property
    def names(self) -> tuple[str, ...]:
        """The folders of bundles in it, none where there is no repository."""
        if self._root is None:
            return ()
        return tuple(sorted(path.parent.name for path in self._root.glob(f"*/{MANIFEST}")))

    def find(self, name: str) -> Path:
        """Return the folder of a bundle in the repository.

        Raises:
            LoadingOff: there is no repository.
            InvalidRequest: the name is not that of a folder, or it leads out of the repository.
            ModelNotFound: there is no bundle of that name.
            BundleError: there is one that cannot be read.
        """
        root = self.check_open()
        if not _is_folder_name(name):
            raise InvalidRequest(f"bundle={name[:80]!r}: must be the name of a folder in the model repository, no path")
        try:
            return self._find(root, name)
        except (OSError, RuntimeError) as error:  # the second of links that go round in a circle
            reason = getattr(error, "strerror", None) or error
            raise BundleError(f"bundle={name!r}: cannot be read ({reason}); check its folder") from None

    def _find(self, root: Path, name: str) -> Path:
        folder = (root / name).resolve()
        _check_inside(root, name, folder)
        if not (folder / MANIFEST).is_file():
            known = self.names
            shown = ", ".join([*known[:_MANY], *(["…"] if len(known) > _MANY else [])])
            raise ModelNotFound(f"bundle={name!r}: is not in the model repository; it has {shown or 'no bundle'}")
        _check_inside(root, name, *folder.rglob("*"))
        return folder


def _is_folder_name(name: str) -> bool:
    is_plain = bool(name) and name == Path(name).name and name != ".." and name.isprintable()
    return is_plain and len(name.encode()) <= _MAX_NAME_BYTES


def _check_inside(root: Path, name: str, *paths: Path) -> None:
    if not all(path.resolve().is_relative_to(root) for path in paths):
        raise InvalidRequest(
            f"bundle={name!r}: leads out of the model repository; put its files there instead of a link"
        )
