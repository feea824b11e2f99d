"""The options of hires fix: a picture is painted small, enlarged, and denoised again."""

import click

from mezzotint.cli.option_group import option_group

hires_options = option_group(
    click.option(
        "--hires-scale",
        type=float,
        default=0.0,
        show_default=True,
        help="Paint at --width and --height, enlarge the picture so many times and denoise it again: a large picture "
        "that is composed as at the size which the model knows. The bundle must have been built for both; 0 is off.",
    ),
    click.option(
        "--hires-steps",
        type=int,
        default=0,
        show_default=True,
        help="Steps of the second pass; 0 is as many as --steps. Each takes as much longer as the picture is larger.",
    ),
    click.option(
        "--hires-strength",
        type=float,
        default=0.7,
        show_default=True,
        help="How much of the enlarged picture is drawn anew, above 0 to 1 (A1111's denoising strength): below 0.5 "
        "enlarged latents stay blurred, above 0.7 the picture changes.",
    ),
    click.option(
        "--hires-upscaler",
        type=click.Choice(["latent", "lanczos"]),
        default="latent",
        show_default=True,
        help="What enlarges the picture: latent is fast and draws more anew, lanczos decodes and encodes it once more "
        "and stays closer to it, at a low --hires-strength.",
    ),
)
"""Adds ``hires_scale``, ``hires_steps``, ``hires_strength`` and ``hires_upscaler``."""
