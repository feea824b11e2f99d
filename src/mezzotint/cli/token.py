"""``mezzotint token``: makes a token, once, and the line of it for a server's file."""

import click


@click.command()
@click.argument("name")
@click.option(
    "--operator",
    is_flag=True,
    help="Let NAME load and unload models too, where the server has a model repository. Give it to those who run the "
    "server; clients who only paint need none.",
)
def command(name: str, operator: bool) -> None:
    """Make a token for the client NAME, which servers with --tokens let in and tell from others by that name.

    The line for the server's file is on stdout, for `mezzotint token NAME >> FILE`; it holds a digest of the token,
    which lets nobody in. The token itself is shown on stderr, once, and kept nowhere. A client may have several; take a
    line out of the file, and its token is worth nothing.
    """
    from mezzotint.server.tokens import new_token

    token, line = new_token(name, operator=operator)
    click.echo(line)
    click.echo(f"The token of {name}, which is not shown again:\n{token}", err=True)
