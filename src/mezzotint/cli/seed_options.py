"""The options of seeds: of one picture, of several, and of variations between two of them."""

import click

from mezzotint.cli.option_group import option_group

seed_options = option_group(
    click.option("--seed", type=int, help="The same seed gives the same picture. [default: a new one, which is shown]"),
    click.option(
        "--subseed-strength",
        type=float,
        default=0.0,
        show_default=True,
        help="A variation of the seed's picture: its noise is turned this far, 0 to 1, towards that of --subseed. 0.1 "
        "changes details, at 0.5 the two have equal parts.",
    ),
    click.option(
        "--subseed",
        type=int,
        default=0,
        show_default=True,
        help="The seed that a variation goes towards. Of several pictures the i-th goes towards subseed + i, and all "
        "have the same seed.",
    ),
    click.option("--num-images", type=int, default=1, show_default=True, help="Pictures; the i-th has seed + i."),
)
"""Adds ``seed``, ``num_images``, ``subseed`` and ``subseed_strength``."""
