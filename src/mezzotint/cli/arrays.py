"""Arrays of ``mezzotint generate``: noise, prompt states and noise levels from files, and final latents into them.

Files are NumPy's ``.npy`` or ``.safetensors``, which needs the package of that name.
"""

import io
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mezzotint.cli.errors import CannotWrite
from mezzotint.cli.option_group import option_group
from mezzotint.engines.errors import InvalidRequest, MezzotintError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[np.float32]

_NPY, _SAFETENSORS = ".npy", ".safetensors"
_FILE = click.Path(dir_okay=False, path_type=Path)


def read_array(path: Path, name: str, dtype: str = "float32") -> Any:
    """Return an array of a file: its only tensor, or the one of this name. Raises InvalidRequest, MezzotintError."""
    import numpy as np

    found: Any
    try:
        if path.suffix == _SAFETENSORS:
            found = _tensor(path, name)
        else:
            with path.open("rb") as file:
                found = np.load(file, allow_pickle=False)
        if not isinstance(found, np.ndarray):
            raise ValueError("it holds several arrays")
        return np.ascontiguousarray(found, dtype=dtype)
    except OSError as error:
        raise InvalidRequest(f"{name}: {path} cannot be read ({(error.strerror or str(error)).lower()})") from None
    except (ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise InvalidRequest(
            f"{name}: {path} is no array of numbers ({error}); save one as .npy or .safetensors"
        ) from None


def array_bytes(path: Path, array: "Array", name: str) -> bytes:
    """Return the bytes of a file that holds an array, by the path's suffix. Raises MezzotintError."""
    import numpy as np

    if path.suffix == _SAFETENSORS:
        data: bytes = _safetensors().save({name: np.ascontiguousarray(array)})
        return data
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _read(ctx: click.Context, param: click.Parameter, path: Path | None) -> "Array | None":
    return None if path is None else read_array(path, str(param.name))


def _sigmas(ctx: click.Context, param: click.Parameter, value: str) -> tuple[float, ...]:
    """Read levels between commas, or those of a file; unless steps are named there are as many."""
    if value.endswith((_NPY, _SAFETENSORS)):
        return tuple(read_array(Path(value), str(param.name), "float64").ravel().tolist())
    try:
        return tuple(float(part) for part in value.split(",")) if value else ()
    except ValueError:
        raise InvalidRequest(
            f"custom_sigmas={value!r}: must be noise levels between commas, as 14.6,3.2,0.5, or a .npy file"
        ) from None


def _target(ctx: click.Context, param: click.Parameter, path: Path | None) -> Path | None:
    if path is not None and path.suffix not in (_NPY, _SAFETENSORS):
        raise click.BadParameter(f"{click.format_filename(path)} must end in {_NPY} or {_SAFETENSORS}", ctx, param)
    if path is not None and not path.absolute().parent.is_dir():
        raise CannotWrite(path, FileNotFoundError(2, "its folder does not exist"))
    return path


def _tensor(path: Path, name: str) -> Any:
    library = _safetensors()
    try:
        tensors = library.load(path.read_bytes())
    except OSError:
        raise
    except Exception as error:  # the library's own errors are of no class that it exports everywhere
        raise ValueError(str(error)) from None
    if len(tensors) == 1:
        return next(iter(tensors.values()))
    if name not in tensors:
        raise ValueError(f"none of its tensors is called {name}")
    return tensors[name]


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError:
        raise MezzotintError(
            "files of that kind need safetensors, which is not installed; run `pip install safetensors`, or use .npy"
        ) from None
    return safetensors.numpy


array_options = option_group(
    click.option(
        "--latents",
        type=_FILE,
        callback=_read,
        metavar="FILE",
        help="Begin with this noise instead of the seed's: unit gaussian, pictures × channels × rows × columns of "
        "latents, as .npy or .safetensors. To paint what another program painted, or to go from one noise to another.",
    ),
    click.option(
        "--prompt-states",
        type=_FILE,
        callback=_read,
        metavar="FILE",
        help="The text encoder's output, tokens × width, instead of PROMPT's: for weighted or mixed prompts that you "
        "made yourself.",
    ),
    click.option(
        "--negative-prompt-states",
        type=_FILE,
        callback=_read,
        metavar="FILE",
        help="The same for the negative prompt; guidance needs both.",
    ),
    click.option(
        "--custom-sigmas",
        default="",
        callback=_sigmas,
        metavar="LEVELS|FILE",
        help="Noise levels of the steps instead of the schedule's, falling and without the last 0: 14.6,3.2,0.5 or a "
        ".npy file. For schedules that were tuned for a few steps; --steps is then their number.",
    ),
    click.option(
        "--latents-out",
        type=_FILE,
        callback=_target,
        metavar="FILE",
        help="Also write the final latents, .npy or .safetensors, to decode or to go on with elsewhere. Several become "
        "NAME-0.npy, NAME-1.npy, …",
    ),
)
"""Adds the options that take arrays, and the one that asks for latents back."""
