"""Signatures of builds: Ed25519 over the SHA-256 of a manifest.

The manifest has the digest of every file of its bundle, so the signature covers them all. It says
who made a build, and not how new the build is. It is the same for every patch that makes the build,
which lets a server hand it on without having the key. Needs the package `cryptography`.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from irsplit.base.errors import BundleError
from irsplit.base.lazy import LazyModule

if TYPE_CHECKING:
    import cryptography.exceptions as exceptions
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519
else:
    exceptions = LazyModule("cryptography.exceptions")
    serialization = LazyModule("cryptography.hazmat.primitives.serialization")
    ed25519 = LazyModule("cryptography.hazmat.primitives.asymmetric.ed25519")

SIGNATURE = "manifest.sig"
"""The file beside a manifest that holds its signature."""
SIGNATURE_SIZE = 64
"""Bytes of a signature."""

_CONTEXT = b"irsplit: SHA-256 of a manifest\0"
"""Signed before the digest, so that no signature made for another purpose is one of a build."""
_KEY_LIMIT = 1 << 16


def sign(digest: bytes, key: Path) -> bytes:
    """Sign a build.

    Args:
        digest: SHA-256 of the manifest.
        key: A PEM file with an Ed25519 private key.

    Returns:
        The signature, SIGNATURE_SIZE bytes.

    Raises:
        BundleError: The file is no such key, or `cryptography` is not installed.
    """
    private = _load_key(key, "private")
    return private.sign(_CONTEXT + digest)


def load_public_key(key: Path) -> "ed25519.Ed25519PublicKey":
    """Read an Ed25519 public key from a PEM file.

    Raises:
        BundleError: The file is no such key, or `cryptography` is not installed.
    """
    return _load_key(key, "public")


def is_signed_by(key: "ed25519.Ed25519PublicKey", signature: bytes, digest: bytes) -> bool:
    """Whether the holder of a key has signed a build.

    Args:
        key: The holder's public key.
        signature: The signature of the build.
        digest: SHA-256 of its manifest.
    """
    try:
        key.verify(signature, _CONTEXT + digest)
    except exceptions.InvalidSignature:
        return False
    return True


def _load_key(path: Path, kind: str) -> Any:
    """A "private" or "public" key."""
    text = _read_key(path)

    try:
        if kind == "private":
            key = serialization.load_pem_private_key(text, password=None)
            is_ed25519 = isinstance(key, ed25519.Ed25519PrivateKey)
        else:
            key = serialization.load_pem_public_key(text)
            is_ed25519 = isinstance(key, ed25519.Ed25519PublicKey)
    except ImportError as error:
        raise BundleError(
            f"signatures need the package cryptography ({error}); pip install 'irsplit[sign]'"
        ) from error
    except TypeError as error:
        # The key is encrypted.
        raise BundleError(f"{path}: the key has a password; give a PEM file without one") from error
    except (ValueError, exceptions.UnsupportedAlgorithm) as error:
        raise BundleError(f"{path}: is no {kind} key; give an Ed25519 key as PEM") from error

    if not is_ed25519:
        raise BundleError(f"{path}: is a {kind} key of another kind; give an Ed25519 key as PEM")
    return key


def _read_key(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            text = file.read(_KEY_LIMIT + 1)
    except OSError as error:
        raise BundleError(
            f"{path}: cannot be read: {error.strerror}; give an Ed25519 key as PEM"
        ) from error
    if len(text) > _KEY_LIMIT:
        raise BundleError(f"{path}: is too large for a key; give an Ed25519 key as PEM")
    return text
