"""The word that lets a client in."""


def is_token(token: str) -> bool:
    """Whether a header can carry it as it is."""
    return token == token.strip() and token.isascii() and token.isprintable()
