"""A request becomes images, each with all the calls that it will make known before the first; runs no engine."""

from functools import lru_cache

from mezzotint.engines import guidance
from mezzotint.engines.canvas import MASK, Canvas, read_given
from mezzotint.engines.component import Component
from mezzotint.engines.errors import InvalidRequest
from mezzotint.engines.evaluations import most_rows, unet_calls
from mezzotint.engines.hires import LANCZOS
from mezzotint.engines.image import Image
from mezzotint.engines.manifest import Manifest
from mezzotint.engines.noise import NoiseStream
from mezzotint.engines.prompt import Prompts
from mezzotint.engines.prompts.rows import Saying, rows_of
from mezzotint.engines.request import Request, check_request, final_size_of, sampler_of, size_of
from mezzotint.engines.sampling import Plan, get_sampler, plan
from mezzotint.engines.schedule import Spacing
from mezzotint.engines.second_walk import SecondWalk
from mezzotint.engines.shapes import Uses
from mezzotint.engines.sizes import Size, own_size
from mezzotint.engines.tiles import Tiles, Tiling
from mezzotint.engines.variants import TILE, TINY, decoder_chain


class Planner:
    """What one bundle makes of requests.

    Args:
        manifest: what the bundle says of itself.
        digest: the bundle's digest.
        prompts: its tokenizer.
        whole_pixels: the most pixels of a picture that is decoded whole; None is any number.
    """

    def __init__(self, manifest: Manifest, digest: str, prompts: Prompts, whole_pixels: int | None) -> None:
        self._manifest = manifest
        self._digest = digest
        self._prompts = prompts
        self._whole_pixels = whole_pixels
        self._has_check = manifest.safety is not None
        unet = manifest.engine(Component.UNET)
        taken = unet.input_of(guidance.GUIDANCE)
        self._guidance_width = 0 if taken is None else int(taken.axes[-1])
        self._fills_in = unet.input_of(MASK) is not None
        self._schedule = manifest.schedule.noise_schedule()
        self._plan = lru_cache(maxsize=256)(self._make_plan)

    @property
    def uses(self) -> Uses:
        """How often a sampler's plan was there already."""
        plans = self._plan.cache_info()
        return Uses(plans.hits, plans.misses)

    def images(self, request: Request) -> tuple[Image, ...]:
        """Check a request and return its images, ready to be encoded; runs no engine.

        Raises:
            InvalidRequest: a field is wrong.
            ShapeNotCompiled: the bundle has no engine of that size.
        """
        check_request(request, self._manifest)
        name = sampler_of(request, self._manifest)
        the_plan = self._plan_of(request, name, request.steps, request.start.skipped_steps(request.steps))
        calls = unet_calls(the_plan, request, takes_guidance=bool(self._guidance_width))
        then = self._second_walk(request, name)
        num_rows = most_rows((*calls, *(then.calls if then else ())), request, self._manifest)
        said = [Saying("negative_prompt", request.negative_prompt, request.negative_prompt_states)]
        said += [Saying("prompt", part.text, request.prompt_states) for part in request.parts]
        rows = rows_of(self._prompts, said[-num_rows:], the_plan.num_steps, self._manifest)
        size = size_of(request, self._manifest)
        shape = self._manifest.latents.shape(*size)
        given = read_given(request.start, size, fills_in=self._fills_in)
        decoder, tiling = self._decoding(request, shape[1:])
        if then is not None and not then.from_pixels:
            decoder, tiling = (), None
        seeds = [request.variation.seeds(request.seed, i)[0] for i in range(request.num_images)]
        return tuple(
            Image(
                request=request,
                index=i,
                seed=seed,
                plan=the_plan,
                rows=rows,
                calls=calls,
                decoder=decoder,
                noise=NoiseStream(seed),
                shape=shape,
                bundle=self._digest,
                guidance=guidance.embedding(request.guidance, self._guidance_width) if self._guidance_width else None,
                has_check=self._has_check,
                canvas=None if given is None else Canvas(given),
                tiles=None if tiling is None else Tiles(tiling),
                then=then,
            )
            for i, seed in enumerate(seeds)
        )

    def warnings(self, request: Request) -> tuple[str, ...]:
        """Return a sentence for each thing that the request asked for and will not get."""
        given = {field: getattr(request, f"{field}_states") is not None for field in ("prompt", "negative_prompt")}
        why = {field: f"{field}_states are there in its place" for field, is_given in given.items() if is_given}
        if no_row := self._no_negative_row(request):
            why |= {"negative_prompt": no_row, "negative_prompt_states": no_row}
        asked = {field: getattr(request, field) for field in why}
        return tuple(
            f"{field}: is not looked at, since {why[field]}"
            for field, value in asked.items()
            if value is not None and len(value)
        )

    def _no_negative_row(self, request: Request) -> str:
        """Return why a request's pictures have no row of the negative prompt; empty where they have one."""
        if self._guidance_width:
            return "this model takes guidance as an input"
        parts = [part.weight for part in request.parts]
        if len(guidance.weights(request.guidance, parts=parts)) == len(parts):
            return f"its row has no weight at guidance={request.guidance:g}"
        return ""

    def has_calls(self, key: tuple[Component, str], size: Size) -> bool:
        """Whether an engine is called for pictures of a size: those in tiles have no call of the whole decoder."""
        component, variant = key
        if component is not Component.VAE_DECODER or variant == TINY:
            return True
        is_whole = self._whole_pixels is None or size.area * self._manifest.latents.factor**2 <= self._whole_pixels
        return is_whole and variant != TILE

    def _decoding(self, request: Request, size: tuple[int, int]) -> tuple[tuple[str, ...], Tiling | None]:
        """Return the engines that decode pictures of (height, width) latents, and their tiles where they have some."""
        chain = decoder_chain(self._manifest, request.decoder)
        own = own_size(self._manifest)
        if request.decoder == TINY or self.has_calls((Component.VAE_DECODER, chain[0]), Size(*size, 0)):
            return chain, None
        tiling = Tiling.of(size, (own.height, own.width), self._manifest.latents.factor)
        return (chain, None) if len(tiling.corners) == 1 else ((TILE,) * (1 + len(tiling.corners)), tiling)

    def _second_walk(self, request: Request, sampler: str) -> SecondWalk | None:
        """Return how pictures that hires fix enlarges go on; None without it. Raises InvalidRequest."""
        if not request.hires:
            return None
        if self._fills_in:
            raise InvalidRequest(
                "hires_scale: this model fills in a mask, which an enlarged picture has not; leave it out"
            )
        num_steps, num_skipped = request.hires.walk(request.steps)
        the_plan = self._plan_of(request, sampler, num_steps, num_skipped)
        size = final_size_of(request, self._manifest)
        shape = self._manifest.latents.shape(*size)
        decoder, tiling = self._decoding(request, shape[1:])
        return SecondWalk(
            plan=the_plan,
            calls=unet_calls(the_plan, request, takes_guidance=bool(self._guidance_width)),
            shape=shape,
            pixels=size,
            decoder=decoder,
            tiling=tiling,
            from_pixels=request.hires.upscaler == LANCZOS,
        )

    def _plan_of(self, request: Request, sampler: str, num_steps: int, num_skipped: int) -> Plan:
        """Return the plan of one of a request's walks. Raises InvalidRequest."""
        levels = (request.sigmas, request.spacing, request.eta, request.custom_sigmas)
        return self._plan(sampler, num_steps, *levels, num_skipped)

    def _make_plan(
        self,
        sampler: str,
        steps: int,
        sigmas: str,
        spacing: str,
        eta: float,
        custom_sigmas: tuple[float, ...],
        num_skipped: int,
    ) -> Plan:
        found, levels = get_sampler(sampler, sigmas)
        return plan(
            found,
            self._schedule,
            steps,
            spacing=Spacing(spacing) if spacing else self._manifest.schedule.timestep_spacing or found.default_spacing,
            sigmas=levels,
            eta=eta,
            custom_sigmas=custom_sigmas,
            num_skipped=num_skipped,
        )
