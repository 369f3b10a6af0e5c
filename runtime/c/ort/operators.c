/* SPDX-License-Identifier: Apache-2.0
 *
 * Two operators for ONNX Runtime, in the domain "irsplit":
 *
 *     tensors... = DecodeFrame(frame: uint8[n])    tensors in order; the node declares their types
 *     frame: uint8[n] = EncodeFrame(tensors...)
 *
 * Attributes:
 *
 *     descriptor   string, the bytes of a descriptor
 *     max_bytes    int, for DecodeFrame: the most bytes of all tensors of a frame; 1 GiB if absent
 *
 * A host registers the library with its session options and finds RegisterCustomOps by name. A
 * kernel opens its descriptor once and then only reads the schema; each call has a workspace of its
 * own, so that any number of threads may run one session. Whatever a frame or a graph holds becomes
 * a status of the host, never a crash.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "irs.h"
#include "ort_abi.h"

#ifdef _WIN32
#define EXPORTED __declspec(dllexport)
#else
#define EXPORTED __attribute__((visibility("default")))
#endif

#define DOMAIN "irsplit"
#define DEFAULT_MAX_BYTES (INT64_C(1) << 30)

#define ORT_TRY(call)                \
    do {                             \
        OrtStatus *status_ = (call); \
        if (status_ != NULL) {       \
            return status_;          \
        }                            \
    } while (0)

typedef struct kernel {
    const OrtApi *api; /* of the host that made the kernel: a process may hold several */
    const char *name;
    irs_schema *schema;
    void *memory, *descriptor;
    uint64_t max_bytes;
} kernel;

/* `size` bytes that can be aligned; null if there is no memory. */
static void *allocate(size_t size) {
    size_t slack = IRS_ALIGNMENT - 1;
    return size > SIZE_MAX - slack ? NULL : malloc(size + slack);
}

static void *aligned(void *memory) {
    uintptr_t slack = IRS_ALIGNMENT - 1;
    return (void *)(((uintptr_t)memory + slack) & ~slack);
}

/* ---- errors ---------------------------------------------------------------------------------- */

static OrtStatus *refuse(const OrtApi *api, const char *name, const char *what,
                         const char *remedy) {
    char text[256];
    snprintf(text, sizeof text, DOMAIN ".%s: %s; %s", name, what, remedy);
    return api->CreateStatus(ORT_INVALID_ARGUMENT, text);
}

static OrtStatus *no_memory(const kernel *k) {
    return k->api->CreateStatus(ORT_FAIL, DOMAIN ": out of memory");
}

static const char *remedy_of(irs_status status) {
    switch (status) {
    case IRS_ERR_TRUNCATED:
    case IRS_ERR_MAGIC:
    case IRS_ERR_SIZE: return "give exactly the bytes of one frame";
    case IRS_ERR_VERSION: return "build this library from the release that made it";
    case IRS_ERR_BOUNDARY: return "both sides need the same build of the same bundle";
    case IRS_ERR_CHECKSUM: return "its bytes changed on the way: send it again";
    case IRS_ERR_SHAPE: return "feed what the bundle was made for";
    case IRS_ERR_CORRUPT: return "the sender is at fault";
    case IRS_ERR_VALUE: return "a bool is 0 or 1";
    default: return "export the bundle again";
    }
}

static OrtStatus *refuse_status(const kernel *k, irs_status status) {
    return refuse(k->api, k->name, irs_status_string(status), remedy_of(status));
}

static OrtStatus *refuse_tensors(const kernel *k, irs_status status) {
    return status != IRS_ERR_SIZE ? refuse_status(k, status)
                                  : refuse(k->api, k->name, "a tensor is too large for a frame",
                                           "feed fewer samples at a time");
}

/* ---- a kernel: the opened descriptor --------------------------------------------------------- */

/* ONNX's number of an element type; 0 for types that frames cannot carry. */
static int onnx_type(irs_type type) {
    static const uint8_t types[] = {0, 1,  10, 11, 16, 3, 5, 6,  7,  2,  4,  12, 13,
                                    9, 14, 15, 0,  0,  0, 0, 17, 18, 19, 20, 24};
    return (size_t)type < sizeof types ? types[type] : 0;
}

static OrtStatus *read_attributes(kernel *k, const OrtKernelInfo *info, size_t *size) {
    const OrtApi *api = k->api;
    int64_t limit = 0;
    OrtStatus *absent = api->KernelInfoGetAttribute_int64(info, "max_bytes", &limit);
    if (absent != NULL) {
        api->ReleaseStatus(absent);
        limit = DEFAULT_MAX_BYTES;
    }

    k->max_bytes = limit < 0 ? 0 : (uint64_t)limit;
    ORT_TRY(api->KernelInfoGetAttribute_string(info, "descriptor", NULL, size));
    k->descriptor = malloc(*size); /* the bytes, and a zero that the host appends */
    if (k->descriptor == NULL) {
        return no_memory(k);
    }

    ORT_TRY(api->KernelInfoGetAttribute_string(info, "descriptor", k->descriptor, size));
    *size -= *size > 0;
    return NULL;
}

static OrtStatus *open_schema(kernel *k, size_t size) {
    size_t memory_size = 0;
    irs_status status = irs_schema_size(k->descriptor, size, &memory_size);
    if (status == IRS_OK) {
        k->memory = allocate(memory_size);
        if (k->memory == NULL) {
            return no_memory(k);
        }

        status = irs_schema_open(&k->schema, aligned(k->memory), memory_size, k->descriptor, size);
    }
    if (status != IRS_OK) {
        return refuse(k->api, k->name, irs_status_string(status),
                      "give the bytes of a boundary's .irsd file");
    }

    for (uint32_t i = 0; i < irs_tensor_count(k->schema); i++) {
        uint8_t codec = irs_tensor_codec(k->schema, i);
        if (codec != IRS_CODEC_RAW && codec != IRS_CODEC_STATIC_RANS) {
            return refuse(k->api, k->name, "the boundary's codec is not built in",
                          "compile with --codec static-rans or --codec raw");
        }
    }
    return NULL;
}

typedef OrtStatus *(ORT_API_CALL *count_function)(const OrtKernelInfo *info, size_t *count);
typedef OrtStatus *(ORT_API_CALL *type_function)(const OrtKernelInfo *info, size_t index,
                                                 OrtTypeInfo **type);

/* The node's tensors (operands or results) must be those of the schema, by number and type. */
static OrtStatus *check_node(const kernel *k, const OrtKernelInfo *info, count_function count_of,
                             type_function type_of) {
    size_t count = 0;
    ORT_TRY(count_of(info, &count));
    if (count != irs_tensor_count(k->schema)) {
        return refuse(k->api, k->name, "the node has another number of tensors than its descriptor",
                      "export the bundle again");
    }

    for (uint32_t i = 0; i < count; i++) {
        OrtTypeInfo *type = NULL;
        const OrtTensorTypeAndShapeInfo *tensor = NULL;
        ONNXTensorElementDataType element = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
        ORT_TRY(type_of(info, i, &type));
        OrtStatus *status = k->api->CastTypeInfoToTensorInfo(type, &tensor);
        if (status == NULL && tensor != NULL) {
            status = k->api->GetTensorElementType(tensor, &element);
        }

        k->api->ReleaseTypeInfo(type);
        ORT_TRY(status);
        if ((int)element == 0 || (int)element != onnx_type(irs_tensor_type(k->schema, i))) {
            return refuse(k->api, k->name,
                          "a tensor of the node has another type than its descriptor says",
                          "export the bundle again");
        }
    }
    return NULL;
}

static void ORT_API_CALL destroy(void *opened) {
    kernel *k = opened;
    free(k->memory);
    free(k->descriptor);
    free(k);
}

static OrtStatus *create(const OrtApi *api, const char *name, const OrtKernelInfo *info,
                         count_function count_of, type_function type_of, void **opened) {
    kernel *k = calloc(1, sizeof *k);
    if (k == NULL) {
        return api->CreateStatus(ORT_FAIL, DOMAIN ": out of memory");
    }

    k->api = api;
    k->name = name;
    size_t size = 0;
    OrtStatus *status = read_attributes(k, info, &size);
    if (status == NULL) {
        status = open_schema(k, size);
    }
    if (status == NULL) {
        status = check_node(k, info, count_of, type_of);
    }
    if (status != NULL) {
        destroy(k);
        return status;
    }

    *opened = k;
    return NULL;
}

/* ---- tensors of one call --------------------------------------------------------------------- */

/* Stands for null pointers, which hosts may give for tensors without elements, and which the
 * library refuses. */
static uint8_t nothing;

static OrtStatus *data_of(const OrtApi *api, OrtValue *value, void **data) {
    ORT_TRY(api->GetTensorMutableData(value, data));
    if (*data == NULL) {
        *data = &nothing;
    }
    return NULL;
}

/* Data and number of elements of operand `index`. Its dims are read if it has `*rank` of them;
 * otherwise `*rank` becomes its rank. */
static OrtStatus *read_input(const kernel *k, const OrtKernelContext *context, size_t index,
                             void **data, size_t *elements, int64_t *dims, size_t *rank) {
    const OrtApi *api = k->api;
    const OrtValue *value = NULL;
    OrtTensorTypeAndShapeInfo *info = NULL;
    size_t expected = *rank;
    ORT_TRY(api->KernelContext_GetInput(context, index, &value));
    if (value == NULL) {
        return refuse(api, k->name, "an operand is absent", "feed all of them");
    }

    ORT_TRY(data_of(api, (OrtValue *)(uintptr_t)value,
                    data)); /* the interface has no function for data that is only read */
    ORT_TRY(api->GetTensorTypeAndShape(value, &info));
    OrtStatus *status = api->GetTensorShapeElementCount(info, elements);
    if (status == NULL) {
        status = api->GetDimensionsCount(info, rank);
    }
    if (status == NULL && *rank == expected) {
        status = api->GetDimensions(info, dims, expected);
    }

    api->ReleaseTensorTypeAndShapeInfo(info);
    return status;
}

static OrtStatus *read_tensor(const kernel *k, const OrtKernelContext *context, uint32_t index,
                              irs_tensor *tensor) {
    size_t elements = 0, rank = irs_tensor_rank(k->schema, index), expected = rank;
    int64_t dims[IRS_MAX_RANK];
    ORT_TRY(read_input(k, context, index, &tensor->data, &elements, dims, &rank));
    if (rank != expected) {
        return refuse_tensors(k, IRS_ERR_SHAPE);
    }

    for (size_t axis = 0; axis < rank; axis++) {
        if (dims[axis] < 0 || dims[axis] >= UINT32_MAX) {
            return refuse_tensors(k, IRS_ERR_SIZE);
        }

        tensor->dims[axis] = (uint32_t)dims[axis];
    }

    tensor->size = (uint64_t)elements * irs_tensor_element_size(k->schema, index);
    return NULL;
}

static OrtStatus *make_output(const kernel *k, OrtKernelContext *context, size_t index,
                              const int64_t *dims, size_t rank, void **data) {
    OrtValue *value = NULL;
    ORT_TRY(k->api->KernelContext_GetOutput(context, index, dims, rank, &value));
    if (value == NULL) {
        return refuse(k->api, k->name, "a result has no name", "name all of them");
    }
    return data_of(k->api, value, data);
}

/* ---- DecodeFrame ----------------------------------------------------------------------------- */

static OrtStatus *ORT_API_CALL create_decoder(const OrtCustomOp *op, const OrtApi *api,
                                              const OrtKernelInfo *info, void **opened) {
    (void)op;
    return create(api, "DecodeFrame", info, api->KernelInfo_GetOutputCount,
                  api->KernelInfo_GetOutputTypeInfo, opened);
}

/* Nothing is allocated for a frame before it is checked and its tensors meet the limit. */
static OrtStatus *check_size(const kernel *k, const irs_tensor *tensors) {
    uint64_t left = k->max_bytes;
    for (uint32_t i = 0; i < irs_tensor_count(k->schema); i++) {
        if (tensors[i].size > left) {
            return refuse(k->api, k->name, "the frame's tensors have more than max_bytes",
                          "raise this attribute");
        }

        left -= tensors[i].size;
    }
    return NULL;
}

static OrtStatus *make_tensors(const kernel *k, OrtKernelContext *context, irs_tensor *tensors) {
    for (uint32_t i = 0; i < irs_tensor_count(k->schema); i++) {
        size_t rank = irs_tensor_rank(k->schema, i);
        int64_t dims[IRS_MAX_RANK];
        for (size_t axis = 0; axis < rank; axis++) {
            dims[axis] = tensors[i].dims[axis];
        }

        ORT_TRY(make_output(k, context, i, dims, rank, &tensors[i].data));
    }
    return NULL;
}

static OrtStatus *ORT_API_CALL decode(void *opened, OrtKernelContext *context) {
    const kernel *k = opened;
    irs_tensor tensors[IRS_MAX_TENSORS];
    void *frame = NULL;
    size_t size = 0, rank = 1, scratch_size = 0;
    int64_t dim;
    ORT_TRY(read_input(k, context, 0, &frame, &size, &dim, &rank));
    irs_status status = irs_frame_dims(k->schema, frame, size, tensors);
    if (status == IRS_OK) {
        status = irs_workspace_size(k->schema, tensors, &scratch_size);
    }
    if (status != IRS_OK) {
        return refuse_status(k, status);
    }

    ORT_TRY(check_size(k, tensors));
    ORT_TRY(make_tensors(k, context, tensors));
    void *scratch = allocate(scratch_size);
    if (scratch == NULL) {
        return no_memory(k);
    }

    status = irs_decode(k->schema, NULL, frame, size, tensors, aligned(scratch), scratch_size);
    free(scratch);
    return status == IRS_OK ? NULL : refuse_status(k, status);
}

/* ---- EncodeFrame ----------------------------------------------------------------------------- */

static OrtStatus *ORT_API_CALL create_encoder(const OrtCustomOp *op, const OrtApi *api,
                                              const OrtKernelInfo *info, void **opened) {
    (void)op;
    return create(api, "EncodeFrame", info, api->KernelInfo_GetInputCount,
                  api->KernelInfo_GetInputTypeInfo, opened);
}

/* Encodes to a buffer of the largest size and copies the frame: an output of the host has its final
 * size from the start. */
static OrtStatus *encode_into(const kernel *k, OrtKernelContext *context, const irs_tensor *tensors,
                              uint8_t *frame, size_t bound, size_t scratch_size) {
    size_t size = 0;
    irs_status status = irs_encode(k->schema, NULL, tensors, aligned(frame + bound), scratch_size,
                                   frame, bound, &size);
    if (status != IRS_OK) {
        return refuse_tensors(k, status);
    }

    int64_t dim = (int64_t)size;
    void *output = NULL;
    ORT_TRY(make_output(k, context, 0, &dim, 1, &output));
    memcpy(output, frame, size);
    return NULL;
}

static OrtStatus *ORT_API_CALL encode(void *opened, OrtKernelContext *context) {
    const kernel *k = opened;
    irs_tensor tensors[IRS_MAX_TENSORS];
    size_t bound = 0, scratch_size = 0;
    for (uint32_t i = 0; i < irs_tensor_count(k->schema); i++) {
        ORT_TRY(read_tensor(k, context, i, &tensors[i]));
    }

    irs_status status = irs_frame_bound(k->schema, tensors, &bound);
    if (status == IRS_OK) {
        status = irs_workspace_size(k->schema, tensors, &scratch_size);
    }
    if (status == IRS_OK && scratch_size > SIZE_MAX - bound) {
        status = IRS_ERR_SIZE;
    }
    if (status != IRS_OK) {
        return refuse_tensors(k, status);
    }

    uint8_t *frame = allocate(bound + scratch_size);
    if (frame == NULL) {
        return no_memory(k);
    }

    OrtStatus *answer = encode_into(k, context, tensors, frame, bound, scratch_size);
    free(frame);
    return answer;
}

/* ---- what hosts ask about the operators ------------------------------------------------------ */

static const char *ORT_API_CALL decoder_name(const OrtCustomOp *op) {
    return (void)op, "DecodeFrame";
}
static const char *ORT_API_CALL encoder_name(const OrtCustomOp *op) {
    return (void)op, "EncodeFrame";
}

static const char *ORT_API_CALL on_cpu(const OrtCustomOp *op) {
    return (void)op, (const char *)NULL;
}

static size_t ORT_API_CALL one(const OrtCustomOp *op) { return (void)op, (size_t)1; }

static ONNXTensorElementDataType ORT_API_CALL bytes(const OrtCustomOp *op, size_t index) {
    return (void)op, (void)index, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
}

static ONNXTensorElementDataType ORT_API_CALL any_type(const OrtCustomOp *op, size_t index) {
    return (void)op, (void)index, ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
}

static OrtCustomOpInputOutputCharacteristic ORT_API_CALL single(const OrtCustomOp *op,
                                                                size_t index) {
    return (void)op, (void)index, INPUT_OUTPUT_REQUIRED;
}

static OrtCustomOpInputOutputCharacteristic ORT_API_CALL variadic(const OrtCustomOp *op,
                                                                  size_t index) {
    return (void)op, (void)index, INPUT_OUTPUT_VARIADIC;
}

static OrtMemType ORT_API_CALL in_memory(const OrtCustomOp *op, size_t index) {
    return (void)op, (void)index, OrtMemTypeDefault;
}

static int ORT_API_CALL at_least_one(const OrtCustomOp *op) { return (void)op, 1; }
static int ORT_API_CALL of_many_types(const OrtCustomOp *op) { return (void)op, 0; }

#define OPERATOR(op_name, input, inputs, output, outputs, create_function, compute_function)      \
    {                                                                                             \
        .version = IRS_ORT_API, .GetName = op_name, .GetExecutionProviderType = on_cpu,           \
        .GetInputType = input, .GetInputTypeCount = one, .GetOutputType = output,                 \
        .GetOutputTypeCount = one, .KernelDestroy = destroy, .GetInputCharacteristic = inputs,    \
        .GetOutputCharacteristic = outputs, .GetInputMemoryType = in_memory,                      \
        .GetVariadicInputMinArity = at_least_one, .GetVariadicInputHomogeneity = of_many_types,   \
        .GetVariadicOutputMinArity = at_least_one, .GetVariadicOutputHomogeneity = of_many_types, \
        .CreateKernelV2 = create_function, .KernelComputeV2 = compute_function                    \
    }

static const OrtCustomOp decoder =
    OPERATOR(decoder_name, bytes, single, any_type, variadic, create_decoder, decode);
static const OrtCustomOp encoder =
    OPERATOR(encoder_name, any_type, variadic, bytes, single, create_encoder, encode);

static OrtStatus *add_operators(const OrtApi *api, OrtSessionOptions *options,
                                OrtCustomOpDomain *domain) {
    ORT_TRY(api->CustomOpDomain_Add(domain, &decoder));
    ORT_TRY(api->CustomOpDomain_Add(domain, &encoder));
    return api->AddCustomOpDomain(options, domain);
}

EXPORTED OrtStatus *ORT_API_CALL RegisterCustomOps(OrtSessionOptions *options,
                                                   const OrtApiBase *base);

/* The domain is never released: sessions use it, and nobody says when the last one ends. */
EXPORTED OrtStatus *ORT_API_CALL RegisterCustomOps(OrtSessionOptions *options,
                                                   const OrtApiBase *base) {
    const OrtApi *api = base->GetApi(IRS_ORT_API);
    if (api == NULL) {
        return base->GetApi(1)->CreateStatus(ORT_FAIL, DOMAIN
                                             ": its operators need ONNX Runtime 1.16 or later");
    }

    OrtCustomOpDomain *domain = NULL;
    ORT_TRY(api->CreateCustomOpDomain(DOMAIN, &domain));
    OrtStatus *status = add_operators(api, options, domain);
    if (status != NULL) {
        api->ReleaseCustomOpDomain(domain);
    }
    return status;
}
