"""A bundle for engines that exist already: the server's side for Ray Serve, Triton, KServe; all of it for ONNX Runtime.

What is exported is code that is in this folder as it is, a configuration, and the bundle's files of the server; for
ONNX Runtime models that pack and unpack frames themselves, and the library of operators that they do it with.
"""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from irsplit.base.atomic_files import new_folder
from irsplit.base.errors import BundleError
from irsplit.export.framed import write_framed
from irsplit.runtime.bundle.manifest import MANIFEST, Manifest, TensorInfo, manifest_text
from irsplit.runtime.run.engines import ONE_THREAD, EngineOptions
from irsplit.runtime.run.ort_operators import library
from irsplit.runtime.serving.protocol.messages import DATATYPES, FRAME
from irsplit.runtime.serving.server.served import answer_tensors

_CODE = Path(__file__).parent
_DNS_LABEL = re.compile("[a-z]([-a-z0-9]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Deployment:
    """What the engine calls the bundle, how many replicas it may start, KServe's container image, and how nodes run."""

    name: str
    replicas: int
    image: str
    options: EngineOptions = ONE_THREAD


def export_bundle(
    bundle: Path,
    engine: str,
    folder: Path,
    name: str = "",
    replicas: int = 4,
    image: str = "irsplit:latest",
    options: EngineOptions = ONE_THREAD,
) -> Path:
    """Write what `engine` runs into `folder`; the folder of this bundle, which replaces an older export.

    `name` "" is the bundle's own. Raises BundleError for a bundle that has no server's side or is not whole, for a
    name that the engine does not take, and for a folder that holds something else.
    """
    if engine not in ENGINES:
        raise BundleError(f"unknown engine '{engine}'; engines: {', '.join(ENGINES)}")
    manifest = Manifest.load(bundle)
    manifest.check_files()
    if all(segment.placement != "server" for segment in manifest.segments):
        raise BundleError(f"{bundle}: no segment runs on the server; there is nothing to export")
    if any(segment.stateful for segment in manifest.segments):
        replicas = 1  # a session's state lies in the process that began it
    if replicas < 1:
        raise BundleError(f"{replicas} replicas: give at least 1")
    return ENGINES[engine](
        manifest, folder, Deployment(name or manifest.name, replicas, image, options)
    )


def _ray_serve(manifest: Manifest, folder: Path, service: Deployment) -> Path:
    with new_folder(folder, mark="app.py") as build:
        _copy_server_side(manifest, build / "bundle")
        service.options.save(build / "engine.json")
        shutil.copyfile(_CODE / "ray_app.py", build / "app.py")
        (build / "config.yaml").write_text(_ray_config(service), encoding="utf-8")
    return folder


def _triton(manifest: Manifest, folder: Path, service: Deployment) -> Path:
    if not re.fullmatch(r"(?!\.\.?$)[\w.-]+", service.name):
        raise BundleError(
            f"'{service.name}' cannot be the name of a Triton model; give another with --name"
        )
    model = folder / service.name
    with new_folder(model, mark="config.pbtxt") as build:
        _copy_server_side(manifest, build / "1" / "bundle")
        service.options.save(build / "1" / "engine.json")
        shutil.copyfile(_CODE / "triton_model.py", build / "1" / "model.py")
        (build / "config.pbtxt").write_text(_triton_config(manifest, service), encoding="utf-8")
    return model


def _kserve(manifest: Manifest, folder: Path, service: Deployment) -> Path:
    if not _DNS_LABEL.fullmatch(service.name):
        raise BundleError(
            f"'{service.name}' cannot be the name of a Kubernetes service (a-z, 0-9, '-'); give another with --name"
        )
    with new_folder(folder, mark="inference_service.yaml") as build:
        _copy_server_side(manifest, build / "bundle")
        service.options.save(build / "engine.json")
        shutil.copyfile(_CODE / "kserve_model.py", build / "model.py")
        (build / "inference_service.yaml").write_text(_kserve_config(service), encoding="utf-8")
        (build / "Dockerfile").write_text(_DOCKERFILE, encoding="utf-8")
    return folder


def _onnxruntime(manifest: Manifest, folder: Path, service: Deployment) -> Path:
    if service.options.providers or service.options.delegates:
        raise BundleError(
            "the host that loads these models says what runs them; leave --provider and --delegate out"
        )
    operators = library()
    with new_folder(folder, mark="models.json") as build:
        models = [model.to_json() for model in write_framed(manifest, build)]
        shipped = f"libirsplit_operators{operators.suffix}"
        shutil.copyfile(operators, build / shipped)
        shutil.copyfile(_CODE / "onnxruntime_run.py", build / "run.py")
        (build / "README.md").write_text(_onnxruntime_readme(service, shipped), encoding="utf-8")
        description = {
            "name": service.name,
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


def _copy_server_side(manifest: Manifest, folder: Path) -> None:
    for name in [name for name in manifest.files if name.startswith("server/")] + [MANIFEST]:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with manifest.store.open(name) as source, path.open("wb") as target:
            shutil.copyfileobj(source, target)


def _ray_config(service: Deployment) -> str:
    return f"""\
# serve run config.yaml      in this folder
http_options:
  host: 127.0.0.1
  port: 8000
grpc_options:
  port: 9000
  grpc_servicer_functions: [irsplit.runtime.serving.server.grpc_methods.add_to_server]
applications:
- name: {json.dumps(service.name)}
  route_prefix: /
  import_path: app:app
  args:
    name: {json.dumps(service.name)}
  deployments:
  - name: Bundle
    max_ongoing_requests: 16
    autoscaling_config:
      min_replicas: 1
      max_replicas: {service.replicas}
      target_ongoing_requests: 2
    ray_actor_options:
      num_cpus: 1
"""


def _triton_config(manifest: Manifest, service: Deployment) -> str:
    outputs = "\n".join(f"output [ {_triton_tensor(info)} ]" for info in answer_tensors(manifest))
    return f"""\
name: "{service.name}"
backend: "python"
# A request is one frame: what it holds, and its batch, the frame says.
max_batch_size: 0
input [ {_triton_tensor(TensorInfo(FRAME, "u8", (None,)))} ]
{outputs}
instance_group [ {{ count: {service.replicas} kind: KIND_CPU }} ]
"""


def _triton_tensor(info: TensorInfo) -> str:
    datatype = DATATYPES[info.dtype].replace("BYTES", "STRING")
    name = info.name.replace("\\", "\\\\").replace('"', '\\"')
    # Triton wants at least one dimension; it takes what the model gives all the same.
    dims = ", ".join("-1" if dim is None else str(dim) for dim in info.shape or (1,))
    return f'{{ name: "{name}" data_type: TYPE_{datatype} dims: [ {dims} ] }}'


def _kserve_config(service: Deployment) -> str:
    return f"""\
# docker build -t {service.image} . && docker push {service.image} && kubectl apply -f inference_service.yaml
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: {service.name}
spec:
  predictor:
    minReplicas: 1
    maxReplicas: {service.replicas}
    scaleMetric: concurrency
    scaleTarget: 2
    containers:
    - name: kserve-container
      image: {json.dumps(service.image)}
      args: [--model_name={service.name}]
      ports:
      - name: h2c      # gRPC
        containerPort: 8081
        protocol: TCP
"""


def _onnxruntime_readme(service: Deployment, operators: str) -> str:
    return f"""\
# {service.name} on ONNX Runtime 1.16 or later

`models.json` has the models in order. What one gives as its `frame_output`, a tensor of bytes, the next one takes as
its `frame_input`, on whichever machine it runs. `state`: feed what the output gave to the input of the next call, at
first zeros. `python run.py INPUTS.npz OUTPUTS.npz` runs them all; it needs numpy and onnxruntime.

A host registers `{operators}` with the options of its sessions:

| host | how |
|---|---|
| Python | `options.register_custom_ops_library(path)` |
| C | `api->RegisterCustomOpsLibrary_V2(options, path)` |
| C++ | `options.RegisterCustomOpsLibrary(path)` |
| C# | `options.RegisterCustomOpLibrary(path)` |
| Java | `options.registerCustomOpLibrary(path)` |
| Triton, backend `onnxruntime` | in `config.pbtxt`: `model_operations {{ op_library_filename: "PATH" }}` |

The library is for machines like the one that wrote this folder. For others build it from irsplit's sources:
`cmake -S runtime -B build -DCMAKE_BUILD_TYPE=Release -DIRS_ORT_OPERATORS=ON`.
"""


_DOCKERFILE = """\
# Put irsplit's wheel beside this file: python -m build --wheel --outdir . PATH/TO/irsplit
FROM python:3.11-slim
COPY *.whl /wheels/
RUN pip install --no-cache-dir kserve $(ls /wheels/irsplit-*.whl)[serve]
WORKDIR /app
COPY model.py engine.json ./
COPY bundle bundle
ENTRYPOINT ["python", "model.py"]
"""
