"""Signed builds: with the public key, a device takes only what its owner has signed."""

import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from hostile.patches import scene, with_checksum
from hostile.update_servers import evil, own_clock, pieces
from irsplit.base.atomic_files import MANIFEST
from irsplit.base.errors import BundleError
from irsplit.cli import main
from irsplit.compilation.delta import write_delta
from irsplit.compilation.old_names import pack_bundle
from irsplit.runtime.bundle.patch import apply_delta
from irsplit.runtime.bundle.patch_format import SIGNED
from irsplit.runtime.bundle.signature import SIGNATURE, SIGNATURE_SIZE, load_public_key, sign
from irsplit.runtime.serving.client.update import update
from irsplit.runtime.serving.server.server import Server, ServerOptions, serving
from test_delta import contents


def write_pair(
    folder: Path, name: str, key: "ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey"
) -> None:
    pem = serialization.Encoding.PEM
    plain, pkcs8 = serialization.NoEncryption(), serialization.PrivateFormat.PKCS8
    encrypted = serialization.BestAvailableEncryption(b"password")
    public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    (folder / f"{name}.pem").write_bytes(key.private_bytes(pem, pkcs8, plain))
    (folder / f"{name}.encrypted.pem").write_bytes(key.private_bytes(pem, pkcs8, encrypted))
    (folder / f"{name}.pub").write_bytes(public)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """NAME.pem and NAME.pub of two pairs of keys, and of one of another kind."""
    folder = tmp_path_factory.mktemp("keys")
    write_pair(folder, "mine", ed25519.Ed25519PrivateKey.generate())
    write_pair(folder, "another", ed25519.Ed25519PrivateKey.generate())
    write_pair(folder, "curve", ec.generate_private_key(ec.SECP256R1()))
    (folder / "junk.pem").write_bytes(bytes(range(256)))
    (folder / "endless.pem").symlink_to("/dev/zero")
    return folder


@pytest.fixture(scope="module")
def builds(tmp_path_factory: pytest.TempPathFactory, keys: Path) -> Path:
    """The folders old, new (signed) and plain (not signed), and patches signed and unsigned."""
    folder = tmp_path_factory.mktemp("builds")
    shutil.copytree(scene().old, folder / "old")
    shutil.copytree(scene().new, folder / "new")
    shutil.copytree(scene().new, folder / "plain")
    write_delta(folder / "old", folder / "new", folder / "signed", sign_with=keys / "mine.pem")
    write_delta(folder / "old", folder / "plain", folder / "unsigned")
    return folder


@pytest.fixture(scope="module")
def server(builds: Path) -> Iterator[Server]:
    words = [f"digits={builds / name}" for name in ("old", "new")]
    with serving(words, ServerOptions(port=0, http_port=0), write_delta) as server:
        yield server


@pytest.fixture
def device(builds: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(builds / "old", tmp_path / "device"))


def url(server: Server) -> str:
    return f"http://127.0.0.1:{server.http_port}"


def test_signature_costs_its_size_and_stays_beside_the_manifest(builds):
    size = len(SIGNED) + SIGNATURE_SIZE
    signed, unsigned = ((builds / name).read_bytes() for name in ("signed", "unsigned"))
    assert len(signed) == len(unsigned) + size
    assert signed[-size:] == SIGNED + (builds / "new" / SIGNATURE).read_bytes()


def test_commands(builds, keys, device, capsys):
    patch = device.parent / "patch"
    assert (
        main(
            [
                "delta",
                str(builds / "old"),
                str(builds / "new"),
                "-o",
                str(patch),
                "--sign",
                f"{keys}/mine.pem",
            ]
        )
        == 0
    )
    assert patch.read_bytes() == (builds / "signed").read_bytes()
    words = ["apply", str(device), str(patch), "-o", str(device), "--public-key"]
    assert main([*words, str(keys / "another.pub")]) == 2
    assert "is not signed by the owner of" in capsys.readouterr().err
    assert contents(device) == contents(builds / "old")
    assert main([*words, str(keys / "mine.pub")]) == 0
    assert contents(device) == contents(builds / "plain")


def test_signed_patch_is_applied_without_a_key_too(builds, device):
    apply_delta(device, builds / "signed", device)
    assert contents(device) == contents(builds / "plain")


def test_patch_that_is_not_signed_is_refused(builds, keys, device):
    with pytest.raises(BundleError, match="is not signed; make it with 'irsplit delta --sign'"):
        apply_delta(device, builds / "unsigned", device, public_key=keys / "mine.pub")
    assert contents(device) == contents(builds / "old")


def test_signature_of_another_build_is_refused(builds, keys, device):
    """What is signed is the manifest, and so every file: a signature fits nothing else."""
    trailer = (builds / "signed").read_bytes()[-len(SIGNED) - SIGNATURE_SIZE :]
    parts = scene().patch.with_manifest(lambda manifest: manifest.__setitem__("name", "forged"))
    patch = with_checksum(replace(parts, coded=parts.coded + trailer).together())
    (device.parent / "patch").write_bytes(patch)
    with pytest.raises(BundleError, match="is not signed by the owner of"):
        apply_delta(device, device.parent / "patch", device, public_key=keys / "mine.pub")
    apply_delta(device, device.parent / "patch", device)


def test_forged_contents_below_a_right_signature_are_refused(builds, keys, device):
    """The head of a signed patch before contents that make something else."""
    signed = (builds / "signed").read_bytes()
    forged = (
        scene()
        .patch.with_manifest(lambda manifest: manifest.__setitem__("name", "forged"))
        .together()
    )
    trailer = signed[-len(SIGNED) - SIGNATURE_SIZE :]
    patch = with_checksum(forged[:17] + signed[17:49] + forged[49:] + trailer)
    (device.parent / "patch").write_bytes(patch)
    with pytest.raises(
        BundleError, match="the result is not the build that the patch was made for"
    ):
        apply_delta(device, device.parent / "patch", device, public_key=keys / "mine.pub")
    assert contents(device) == contents(builds / "old")


def test_every_byte_of_a_signature_counts(builds, keys, device):
    signed = (builds / "signed").read_bytes()
    for position in range(len(signed) - len(SIGNED) - SIGNATURE_SIZE, len(signed)):
        changed = signed[:position] + bytes([signed[position] ^ 1]) + signed[position + 1 :]
        (device.parent / "patch").write_bytes(with_checksum(changed))
        with pytest.raises(BundleError, match="is not signed"):
            apply_delta(device, device.parent / "patch", device, public_key=keys / "mine.pub")


@pytest.mark.parametrize("have", ["the old build", "nothing", "a packed side"])
def test_server_hands_the_signature_out_with_every_patch(
    have, server, builds, keys, device, tmp_path
):
    if have == "nothing":
        shutil.rmtree(device)
    bundle = pack_bundle(device, tmp_path / "packed")[0] if have == "a packed side" else device
    done = update(url(server), bundle, name="digits", public_key=keys / "mine.pub")
    assert done.changed


def test_server_without_the_right_signature_leaves_the_old_build(
    server, builds, keys, device, capsys
):
    words = [
        "update",
        str(device),
        "--from",
        url(server),
        "--public-key",
        str(keys / "another.pub"),
    ]
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "is not signed by the owner of" in line
    with evil(*pieces((builds / "unsigned").read_bytes())) as stranger, own_clock():
        with pytest.raises(BundleError, match="is not signed"):
            update(stranger.url, device, public_key=keys / "mine.pub")
        assert contents(device) == contents(builds / "old")
        assert update(stranger.url, device).changed


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mine.pub", "is no private key; give an Ed25519 key as PEM"),
        ("curve.pem", "is a private key of another kind"),
        ("mine.encrypted.pem", "has a password"),
        ("junk.pem", "is no private key"),
        ("endless.pem", "too large for a key"),
        ("nothing.pem", "cannot be read: No such file"),
        (".", "cannot be read: Is a directory"),
    ],
)
def test_private_keys_that_are_none(name, message, builds, keys, tmp_path):
    with pytest.raises(BundleError, match=message):
        write_delta(builds / "old", builds / "plain", tmp_path / "patch", sign_with=keys / name)
    assert not (tmp_path / "patch").exists()
    assert not (builds / "plain" / SIGNATURE).exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mine.pem", "is no public key; give an Ed25519 key as PEM"),
        ("curve.pub", "is a public key of another kind"),
        ("nothing.pub", "cannot be read: No such file"),
    ],
)
def test_public_keys_that_are_none_are_told_before_anything_is_asked(name, message, keys, device):
    with pytest.raises(BundleError, match=message):
        update("http://127.0.0.1:9", device, public_key=keys / name)


def test_without_the_package_one_line_says_how_to_get_it(keys, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "cryptography"]:
        monkeypatch.setitem(sys.modules, name, None)
    message = r"signatures need the package cryptography \(.*\); pip install 'irsplit\[sign\]'"
    with pytest.raises(BundleError, match=message):
        sign(bytes(32), keys / "mine.pem")
    with pytest.raises(BundleError, match=message):
        load_public_key(keys / "mine.pub")


def test_signature_that_is_none_is_not_handed_out(builds, tmp_path):
    new = Path(shutil.copytree(builds / "plain", tmp_path / "new"))
    (new / SIGNATURE).write_bytes(b"signed, honestly")
    with pytest.raises(BundleError, match=r"manifest\.sig: is no signature"):
        write_delta(builds / "old", new, tmp_path / "patch")
    assert MANIFEST in contents(new)
    assert not (tmp_path / "patch").exists()
