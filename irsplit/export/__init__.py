"""Exports a bundle for engines that exist already.

Ray Serve, Triton and KServe get the server's side: code that lies in this folder as it is, a
configuration, and the bundle's files of the server. ONNX Runtime gets both sides: models that
decode and encode frames themselves, and the library of operators that they do it with.
"""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from irsplit.base.atomic_files import new_folder
from irsplit.base.errors import BundleError
from irsplit.export.configs import (
    DOCKERFILE,
    Deployment,
    kserve_config,
    onnxruntime_readme,
    ray_config,
    triton_config,
)
from irsplit.export.framed import write_framed
from irsplit.runtime.bundle.manifest import MANIFEST, Manifest, manifest_text
from irsplit.runtime.run.engines import ONE_THREAD, EngineOptions
from irsplit.runtime.run.ort_operators import library

_CODE = Path(__file__).parent
_DNS_LABEL = re.compile("[a-z]([-a-z0-9]{0,61}[a-z0-9])?")


def export_bundle(
    bundle: Path,
    engine: str,
    folder: Path,
    name: str = "",
    replicas: int = 4,
    image: str = "irsplit:latest",
    options: EngineOptions = ONE_THREAD,
) -> Path:
    """Write what a host engine needs to run a bundle.

    Args:
        bundle: The bundle.
        engine: One of ENGINES.
        folder: Where to write; an older export there is replaced.
        name: What the engine calls the bundle; "" is the bundle's own name.
        replicas: Processes that the engine may start, at most. A bundle with state gets one.
        image: Container image for KServe.
        options: How the inference engine runs.

    Returns:
        The folder of this bundle, which for Triton lies within `folder`.

    Raises:
        BundleError: The bundle is damaged or has no server's side, the engine does not take the
            name, or the folder holds something else.
    """
    if engine not in ENGINES:
        raise BundleError(f"unknown engine '{engine}'; engines: {', '.join(ENGINES)}")

    manifest = Manifest.load(bundle)
    manifest.check_files()
    if all(segment.placement != "server" for segment in manifest.segments):
        raise BundleError(f"{bundle}: no segment runs on the server; there is nothing to export")

    # A session's state lies in the process that began it.
    if any(segment.stateful for segment in manifest.segments):
        replicas = 1
    if replicas < 1:
        raise BundleError(f"{replicas} replicas: give at least 1")

    deployment = Deployment(name or manifest.name, replicas, image, options)
    return ENGINES[engine](manifest, folder, deployment)


def _ray_serve(manifest: Manifest, folder: Path, deployment: Deployment) -> Path:
    with new_folder(folder, mark="app.py") as build:
        _copy_server_side(manifest, build / "bundle")
        deployment.options.save(build / "engine.json")
        shutil.copyfile(_CODE / "ray_app.py", build / "app.py")
        (build / "config.yaml").write_text(ray_config(deployment), encoding="utf-8")

    return folder


def _triton(manifest: Manifest, folder: Path, deployment: Deployment) -> Path:
    if not re.fullmatch(r"(?!\.\.?$)[\w.-]+", deployment.name):
        raise BundleError(
            f"'{deployment.name}' cannot be the name of a Triton model; give another name"
        )

    model = folder / deployment.name
    with new_folder(model, mark="config.pbtxt") as build:
        _copy_server_side(manifest, build / "1" / "bundle")
        deployment.options.save(build / "1" / "engine.json")
        shutil.copyfile(_CODE / "triton_model.py", build / "1" / "model.py")
        (build / "config.pbtxt").write_text(triton_config(manifest, deployment), encoding="utf-8")

    return model


def _kserve(manifest: Manifest, folder: Path, deployment: Deployment) -> Path:
    if not _DNS_LABEL.fullmatch(deployment.name):
        raise BundleError(
            f"'{deployment.name}' cannot be the name of a Kubernetes service (a-z, 0-9, '-'); "
            "give another name"
        )

    with new_folder(folder, mark="inference_service.yaml") as build:
        _copy_server_side(manifest, build / "bundle")
        deployment.options.save(build / "engine.json")
        shutil.copyfile(_CODE / "kserve_model.py", build / "model.py")
        config = build / "inference_service.yaml"
        config.write_text(kserve_config(deployment), encoding="utf-8")
        (build / "Dockerfile").write_text(DOCKERFILE, encoding="utf-8")

    return folder


def _onnxruntime(manifest: Manifest, folder: Path, deployment: Deployment) -> Path:
    if deployment.options.providers or deployment.options.delegates:
        raise BundleError(
            "the host that loads these models chooses what runs them; "
            "export without providers and delegates"
        )

    operators = library()
    with new_folder(folder, mark="models.json") as build:
        models = [model.to_json() for model in write_framed(manifest, build)]
        shipped = f"libirsplit_operators{operators.suffix}"
        shutil.copyfile(operators, build / shipped)
        shutil.copyfile(_CODE / "onnxruntime_run.py", build / "run.py")
        (build / "README.md").write_text(onnxruntime_readme(deployment, shipped), encoding="utf-8")
        description = {
            "name": deployment.name,
            "bundle": manifest.digest,
            "operators": shipped,
            "models": models,
        }
        (build / "models.json").write_text(manifest_text(description), encoding="utf-8")

    return folder


ENGINES: dict[str, Callable[[Manifest, Path, Deployment], Path]] = {
    "ray-serve": _ray_serve,
    "triton": _triton,
    "kserve": _kserve,
    "onnxruntime": _onnxruntime,
}
"""The host engines that bundles can be exported to, with what writes their folders."""


def _copy_server_side(manifest: Manifest, folder: Path) -> None:
    """Copy the manifest and the server's files."""
    names = [name for name in manifest.files if name.startswith("server/")]
    for name in (*names, MANIFEST):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with manifest.store.open(name) as source, path.open("wb") as target:
            shutil.copyfileobj(source, target)
