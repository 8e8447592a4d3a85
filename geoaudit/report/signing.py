"""A detached Ed25519 signature (RFC 8032) of the bundle, made and checked with a user's own keys in PEM form.

The signature is the 64 bytes that OpenSSL writes and reads too, in ``audit.zip.sig`` beside the bundle. The private key is
read where it lies and goes nowhere else.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from dnd_core.errors import ConfigError, StoreError
from dnd_core.store import write_atomic

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

__all__ = ["PASSWORD", "SUFFIX", "check_signature", "private_key", "public_key", "sign", "signature_path"]

SUFFIX = ".sig"
PASSWORD = "GEOAUDIT_SIGN_PASSWORD"  # noqa: S105 - the name of a variable, no password
_LENGTH = 64
_INSTALL = "signatures need the package cryptography: pip install 'geoaudit[sign]'"
_MAKE = "make one with: openssl genpkey -algorithm ed25519 -out key.pem"
_EXTRACT = "take it from the private one with: openssl pkey -in key.pem -pubout -out pub.pem"


def signature_path(bundle: Path) -> Path:
    """Where a bundle's signature lies."""
    return bundle.with_name(bundle.name + SUFFIX)


def private_key(path: Path) -> Ed25519PrivateKey:
    """Read a private key; one with a password takes it from the environment.

    Raises:
        ConfigError: it cannot be read, is of another kind, or its password is missing or wrong.

    """
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    except ImportError as error:
        raise ConfigError(_INSTALL) from error
    password = os.environ.get(PASSWORD)
    try:
        key = load_pem_private_key(path.read_bytes(), password.encode() if password else None)
    except OSError as error:
        raise ConfigError(f"the key {path} cannot be read ({error.strerror}): give a PEM file; {_MAKE}") from error
    except TypeError as error:
        # The library says so where a password is missing, and where one is given and none is wanted.
        state = "does not need a password" if password else "needs a password"
        raise ConfigError(f"the key {path} {state}: set {PASSWORD} only for a key that has one") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        # What the library says may quote the file, and a private key must not be shown.
        raise ConfigError(
            f"the key {path} is no private key in PEM form, or {PASSWORD} is not its password: {_MAKE}"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"the key {path} is no Ed25519 key: {_MAKE}")
    return key


def public_key(path: Path) -> Ed25519PublicKey:
    """Read a public key.

    Raises:
        ConfigError: it cannot be read or is of another kind.

    """
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
    except ImportError as error:
        raise ConfigError(_INSTALL) from error
    try:
        key = load_pem_public_key(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"the key {path} cannot be read ({error.strerror}): give a PEM file; {_EXTRACT}") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"the key {path} is no public key in PEM form: {_EXTRACT}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError(f"the key {path} is no Ed25519 key: {_MAKE}")
    return key


def sign(bundle: Path, key: Ed25519PrivateKey) -> Path:
    """Write the signature of a bundle beside it; equal bundles and keys give equal bytes.

    Raises:
        StoreError: the signature cannot be written.

    """
    path = signature_path(bundle)
    write_atomic(path, key.sign(bundle.read_bytes()))
    return path


def check_signature(bundle: Path, key: Ed25519PublicKey) -> str:
    """What is wrong with a bundle's signature in one sentence, or an empty string where it is the key's.

    Raises:
        StoreError: the bundle or its signature cannot be read.

    """
    from cryptography.exceptions import InvalidSignature

    path = signature_path(bundle)
    if not path.is_file():
        return f"{path.name} is missing: the bundle is not signed"
    try:
        signature, signed = path.read_bytes(), bundle.read_bytes()
    except OSError as error:
        raise StoreError(f"{error.filename} cannot be read ({error.strerror}): ask for it again") from error
    if len(signature) != _LENGTH:
        return f"{path.name} is no Ed25519 signature: it has {len(signature)} bytes and not {_LENGTH}"
    try:
        key.verify(signature, signed)
    except InvalidSignature:
        return f"{path.name} is not this key's signature of {bundle.name}"
    return ""
