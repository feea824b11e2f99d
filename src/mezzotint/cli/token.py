"""``mezzotint token``: makes a token, once, and the line of it for a server's file."""

import click


@click.command()
@click.argument("name")
def command(name: str) -> None:
    """Make a token for the client NAME, which servers with --tokens let in and tell from others by that name.

    The line for the server's file is on stdout, for `mezzotint token NAME >> FILE`; it holds a digest of the token,
    which lets nobody in. The token itself is shown on stderr, once, and kept nowhere. A client may have several; take a
    line out of the file, and its token is worth nothing.
    """
    from mezzotint.server.tokens import new_token

    token, line = new_token(name)
    click.echo(line)
    click.echo(f"The token of {name}, which is not shown again:\n{token}", err=True)
