"""The texts that go beside an exported bundle: configurations, a Dockerfile, a manual."""

import json
from dataclasses import dataclass

from irsplit.runtime.bundle.manifest import Manifest, TensorInfo
from irsplit.runtime.run.engines import ONE_THREAD, EngineOptions
from irsplit.runtime.serving.protocol.messages import DATATYPES, FRAME
from irsplit.runtime.serving.server.served import answer_tensors


@dataclass(frozen=True, slots=True)
class Deployment:
    """How a host engine runs a bundle.

    Attributes:
        name: What the engine calls the bundle.
        replicas: Processes that the engine may start, at most.
        image: Container image for KServe.
        options: How the inference engine runs.
    """

    name: str
    replicas: int
    image: str
    options: EngineOptions = ONE_THREAD


def ray_config(deployment: Deployment) -> str:
    """Ray Serve's config.yaml."""
    return f"""\
# serve run config.yaml      in this folder
http_options:
  host: 127.0.0.1
  port: 8000
grpc_options:
  port: 9000
  grpc_servicer_functions: [irsplit.runtime.serving.server.grpc_methods.add_to_server]
applications:
- name: {json.dumps(deployment.name)}
  route_prefix: /
  import_path: app:app
  args:
    name: {json.dumps(deployment.name)}
  deployments:
  - name: Bundle
    max_ongoing_requests: 16
    autoscaling_config:
      min_replicas: 1
      max_replicas: {deployment.replicas}
      target_ongoing_requests: 2
    ray_actor_options:
      num_cpus: 1
"""


def triton_config(manifest: Manifest, deployment: Deployment) -> str:
    """Triton's config.pbtxt."""
    outputs = "\n".join(f"output [ {_triton_tensor(info)} ]" for info in answer_tensors(manifest))
    return f"""\
name: "{deployment.name}"
backend: "python"
# A request is one frame, which says itself what it holds and how large its batch is.
max_batch_size: 0
input [ {_triton_tensor(TensorInfo(FRAME, "u8", (None,)))} ]
{outputs}
instance_group [ {{ count: {deployment.replicas} kind: KIND_CPU }} ]
"""


def _triton_tensor(info: TensorInfo) -> str:
    datatype = DATATYPES[info.dtype].replace("BYTES", "STRING")
    name = info.name.replace("\\", "\\\\").replace('"', '\\"')
    # Triton demands at least one dimension, but accepts a scalar that the model returns.
    dims = ", ".join("-1" if dim is None else str(dim) for dim in info.shape or (1,))
    return f'{{ name: "{name}" data_type: TYPE_{datatype} dims: [ {dims} ] }}'


def kserve_config(deployment: Deployment) -> str:
    """A Kubernetes resource of KServe, inference_service.yaml."""
    return f"""\
# docker build -t {deployment.image} . && docker push {deployment.image}
# kubectl apply -f inference_service.yaml
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: {deployment.name}
spec:
  predictor:
    minReplicas: 1
    maxReplicas: {deployment.replicas}
    scaleMetric: concurrency
    scaleTarget: 2
    containers:
    - name: kserve-container
      image: {json.dumps(deployment.image)}
      args: [--model_name={deployment.name}]
      ports:
      - name: h2c      # gRPC
        containerPort: 8081
        protocol: TCP
"""


def onnxruntime_readme(deployment: Deployment, operators: str) -> str:
    """How a host loads the models with the library `operators`."""
    return f"""\
# {deployment.name} on ONNX Runtime 1.16 or later

`models.json` lists the models in order. The `frame_output` of a model, a tensor of bytes, goes into
the `frame_input` of the next one, on whichever machine that runs. For every entry of `state`, feed
the output of one call to the input of the next; the first call gets zeros.
`python run.py INPUTS.npz OUTPUTS.npz` runs all models; it needs numpy and onnxruntime.

A host registers `{operators}` with the options of its sessions:

| host | how |
|---|---|
| Python | `options.register_custom_ops_library(path)` |
| C | `api->RegisterCustomOpsLibrary_V2(options, path)` |
| C++ | `options.RegisterCustomOpsLibrary(path)` |
| C# | `options.RegisterCustomOpLibrary(path)` |
| Java | `options.registerCustomOpLibrary(path)` |
| Triton, `onnxruntime` | `config.pbtxt`: `model_operations {{ op_library_filename: "PATH" }}` |

The library is for machines like the one that wrote this folder. For others, build it from irsplit's
sources: `cmake -S runtime -B build -DCMAKE_BUILD_TYPE=Release -DIRS_ORT_OPERATORS=ON`.
"""


DOCKERFILE = """\
# Put irsplit's wheel beside this file: python -m build --wheel --outdir . PATH/TO/irsplit
FROM python:3.11-slim
COPY *.whl /wheels/
RUN pip install --no-cache-dir kserve $(ls /wheels/irsplit-*.whl)[serve]
WORKDIR /app
COPY model.py engine.json ./
COPY bundle bundle
ENTRYPOINT ["python", "model.py"]
"""
