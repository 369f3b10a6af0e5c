/* Two operators for ONNX Runtime, in the domain "irsplit":
 *
 *     tensors... = DecodeFrame(frame: uint8[n])    the boundary's tensors in order; the node declares their types
 *     frame: uint8[n] = EncodeFrame(tensors...)
 *
 *     descriptor   string, the bytes of the boundary's descriptor
 *     max_bytes    int, of DecodeFrame: more than this in all tensors of a frame is refused; default 1 GiB
 *
 * A host registers the library with its session options; it finds RegisterCustomOps by name. A kernel opens the
 * boundary once and only reads it, each call has scratch of its own: any number of threads may run one session. Whatever
 * a frame or a graph says becomes a status of the host, never a crash.
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

#define TRY(call)                   \
    do {                            \
        OrtStatus *status_ = (call); \
        if (status_ != NULL) {      \
            return status_;         \
        }                           \
    } while (0)

typedef struct kernel {
    const OrtApi *api; /* of the host that made the kernel: a process may hold several */
    const char *name;
    irs_boundary *boundary;
    void *memory, *descriptor;
    uint64_t max_bytes;
} kernel;

/* Room for `size` bytes from the next multiple of 16 on; null when there is none. */
static void *allocate(size_t size) { return size > SIZE_MAX - 15 ? NULL : malloc(size + 15); }

static void *aligned(void *memory) { return (void *)(((uintptr_t)memory + 15) & ~(uintptr_t)15); }

/* ---- errors ------------------------------------------------------------------------------------------------------- */

static OrtStatus *refuse(const OrtApi *api, const char *name, const char *what, const char *remedy) {
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

/* ---- a kernel: the opened boundary -------------------------------------------------------------------------------- */

/* ONNX's number of an element type that FORMAT.md numbers; 0 for those that cannot cross. */
static int onnx_type(uint8_t type) {
    static const uint8_t types[] = {0, 1,  10, 11, 16, 3, 5, 6, 7, 2,  4,  12, 13,
                                    9, 14, 15, 0,  0,  0, 0, 17, 18, 19, 20, 24};
    return type < sizeof types ? types[type] : 0;
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
    TRY(api->KernelInfoGetAttribute_string(info, "descriptor", NULL, size));
    k->descriptor = malloc(*size); /* the bytes, and a zero that the host puts behind them */
    if (k->descriptor == NULL) {
        return no_memory(k);
    }
    TRY(api->KernelInfoGetAttribute_string(info, "descriptor", k->descriptor, size));
    *size -= *size > 0;
    return NULL;
}

static OrtStatus *open_boundary(kernel *k, size_t size) {
    size_t memory_size = 0;
    irs_status status = irs_boundary_size(k->descriptor, size, &memory_size);
    if (status == IRS_OK) {
        k->memory = allocate(memory_size);
        if (k->memory == NULL) {
            return no_memory(k);
        }
        status = irs_boundary_open(&k->boundary, aligned(k->memory), memory_size, k->descriptor, size);
    }
    if (status != IRS_OK) {
        return refuse(k->api, k->name, irs_status_string(status), "give the bytes of a boundary's .irsd file");
    }
    for (uint32_t i = 0; i < irs_tensor_count(k->boundary); i++) {
        uint8_t codec = irs_tensor_codec(k->boundary, i);
        if (codec != IRS_CODEC_RAW && codec != IRS_CODEC_STATIC_RANS) {
            return refuse(k->api, k->name, "the boundary's codec is not built in",
                          "compile with --codec static-rans or --codec raw");
        }
    }
    return NULL;
}

typedef OrtStatus *(ORT_API_CALL *count_function)(const OrtKernelInfo *info, size_t *count);
typedef OrtStatus *(ORT_API_CALL *type_function)(const OrtKernelInfo *info, size_t index, OrtTypeInfo **type);

/* The node's side of tensors (operands or results) is the boundary's: as many, of the same types. */
static OrtStatus *check_node(const kernel *k, const OrtKernelInfo *info, count_function count_of, type_function type_of) {
    size_t count = 0;
    TRY(count_of(info, &count));
    if (count != irs_tensor_count(k->boundary)) {
        return refuse(k->api, k->name, "the node has another number of tensors than its descriptor",
                      "export the bundle again");
    }
    for (uint32_t i = 0; i < count; i++) {
        OrtTypeInfo *type = NULL;
        const OrtTensorTypeAndShapeInfo *tensor = NULL;
        ONNXTensorElementDataType element = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
        TRY(type_of(info, i, &type));
        OrtStatus *status = k->api->CastTypeInfoToTensorInfo(type, &tensor);
        if (status == NULL && tensor != NULL) {
            status = k->api->GetTensorElementType(tensor, &element);
        }
        k->api->ReleaseTypeInfo(type);
        TRY(status);
        if ((int)element == 0 || (int)element != onnx_type(irs_tensor_type(k->boundary, i))) {
            return refuse(k->api, k->name, "a tensor of the node has another type than its descriptor says",
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

static OrtStatus *create(const OrtApi *api, const char *name, const OrtKernelInfo *info, count_function count_of,
                         type_function type_of, void **opened) {
    kernel *k = calloc(1, sizeof *k);
    if (k == NULL) {
        return api->CreateStatus(ORT_FAIL, DOMAIN ": out of memory");
    }
    k->api = api;
    k->name = name;
    size_t size = 0;
    OrtStatus *status = read_attributes(k, info, &size);
    if (status == NULL) {
        status = open_boundary(k, size);
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

/* ---- tensors of one call ------------------------------------------------------------------------------------------ */

/* The core refuses null pointers, which hosts may give for tensors without elements. */
static uint8_t nothing;

static OrtStatus *data_of(const OrtApi *api, OrtValue *value, void **data) {
    TRY(api->GetTensorMutableData(value, data));
    if (*data == NULL) {
        *data = &nothing;
    }
    return NULL;
}

/* Data and number of elements of operand `index`, and its dims when it has `*rank` of them; else `*rank` is its own. */
static OrtStatus *read_input(const kernel *k, const OrtKernelContext *context, size_t index, void **data, size_t *elements,
                             int64_t *dims, size_t *rank) {
    const OrtApi *api = k->api;
    const OrtValue *value = NULL;
    OrtTensorTypeAndShapeInfo *info = NULL;
    size_t expected = *rank;
    TRY(api->KernelContext_GetInput(context, index, &value));
    if (value == NULL) {
        return refuse(api, k->name, "an operand is absent", "feed all of them");
    }
    TRY(data_of(api, (OrtValue *)(uintptr_t)value, data)); /* there is no function for reading alone */
    TRY(api->GetTensorTypeAndShape(value, &info));
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

static OrtStatus *read_tensor(const kernel *k, const OrtKernelContext *context, uint32_t index, irs_tensor *tensor) {
    size_t elements = 0, rank = irs_tensor_rank(k->boundary, index), expected = rank;
    int64_t dims[IRS_MAX_RANK];
    TRY(read_input(k, context, index, &tensor->data, &elements, dims, &rank));
    if (rank != expected) {
        return refuse_tensors(k, IRS_ERR_SHAPE);
    }
    for (size_t axis = 0; axis < rank; axis++) {
        if (dims[axis] < 0 || dims[axis] >= UINT32_MAX) {
            return refuse_tensors(k, IRS_ERR_SIZE);
        }
        tensor->dims[axis] = (uint32_t)dims[axis];
    }
    tensor->size = (uint64_t)elements * irs_tensor_element_size(k->boundary, index);
    return NULL;
}

static OrtStatus *make_output(const kernel *k, OrtKernelContext *context, size_t index, const int64_t *dims, size_t rank,
                              void **data) {
    OrtValue *value = NULL;
    TRY(k->api->KernelContext_GetOutput(context, index, dims, rank, &value));
    if (value == NULL) {
        return refuse(k->api, k->name, "a result has no name", "name all of them");
    }
    return data_of(k->api, value, data);
}

/* ---- DecodeFrame -------------------------------------------------------------------------------------------------- */

static OrtStatus *ORT_API_CALL create_decoder(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info,
                                              void **opened) {
    (void)op;
    return create(api, "DecodeFrame", info, api->KernelInfo_GetOutputCount, api->KernelInfo_GetOutputTypeInfo, opened);
}

/* Nothing is allocated for a frame before it has been checked and its tensors compared with the limit. */
static OrtStatus *check_size(const kernel *k, const irs_tensor *tensors) {
    uint64_t left = k->max_bytes;
    for (uint32_t i = 0; i < irs_tensor_count(k->boundary); i++) {
        if (tensors[i].size > left) {
            return refuse(k->api, k->name, "the frame's tensors have more than max_bytes", "raise this attribute");
        }
        left -= tensors[i].size;
    }
    return NULL;
}

static OrtStatus *make_tensors(const kernel *k, OrtKernelContext *context, irs_tensor *tensors) {
    for (uint32_t i = 0; i < irs_tensor_count(k->boundary); i++) {
        size_t rank = irs_tensor_rank(k->boundary, i);
        int64_t dims[IRS_MAX_RANK];
        for (size_t axis = 0; axis < rank; axis++) {
            dims[axis] = tensors[i].dims[axis];
        }
        TRY(make_output(k, context, i, dims, rank, &tensors[i].data));
    }
    return NULL;
}

static OrtStatus *ORT_API_CALL decode(void *opened, OrtKernelContext *context) {
    const kernel *k = opened;
    irs_tensor tensors[IRS_MAX_TENSORS];
    void *frame = NULL;
    size_t size = 0, rank = 1, scratch_size = 0;
    int64_t dim;
    TRY(read_input(k, context, 0, &frame, &size, &dim, &rank));
    irs_status status = irs_frame_dims(k->boundary, frame, size, tensors);
    if (status == IRS_OK) {
        status = irs_workspace_size(k->boundary, tensors, &scratch_size);
    }
    if (status != IRS_OK) {
        return refuse_status(k, status);
    }
    TRY(check_size(k, tensors));
    TRY(make_tensors(k, context, tensors));
    void *scratch = allocate(scratch_size);
    if (scratch == NULL) {
        return no_memory(k);
    }
    status = irs_decode(k->boundary, NULL, frame, size, tensors, aligned(scratch), scratch_size);
    free(scratch);
    return status == IRS_OK ? NULL : refuse_status(k, status);
}

/* ---- EncodeFrame -------------------------------------------------------------------------------------------------- */

static OrtStatus *ORT_API_CALL create_encoder(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info,
                                              void **opened) {
    (void)op;
    return create(api, "EncodeFrame", info, api->KernelInfo_GetInputCount, api->KernelInfo_GetInputTypeInfo, opened);
}

/* Into a buffer of the largest size first: an output of the host has its size from the start. */
static OrtStatus *encode_into(const kernel *k, OrtKernelContext *context, const irs_tensor *tensors, uint8_t *frame,
                              size_t bound, size_t scratch_size) {
    size_t size = 0;
    irs_status status =
        irs_encode(k->boundary, NULL, tensors, aligned(frame + bound), scratch_size, frame, bound, &size);
    if (status != IRS_OK) {
        return refuse_tensors(k, status);
    }
    int64_t dim = (int64_t)size;
    void *output = NULL;
    TRY(make_output(k, context, 0, &dim, 1, &output));
    memcpy(output, frame, size);
    return NULL;
}

static OrtStatus *ORT_API_CALL encode(void *opened, OrtKernelContext *context) {
    const kernel *k = opened;
    irs_tensor tensors[IRS_MAX_TENSORS];
    size_t bound = 0, scratch_size = 0;
    for (uint32_t i = 0; i < irs_tensor_count(k->boundary); i++) {
        TRY(read_tensor(k, context, i, &tensors[i]));
    }
    irs_status status = irs_frame_bound(k->boundary, tensors, &bound);
    if (status == IRS_OK) {
        status = irs_workspace_size(k->boundary, tensors, &scratch_size);
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

/* ---- what hosts are told of both ---------------------------------------------------------------------------------- */

static const char *ORT_API_CALL decoder_name(const OrtCustomOp *op) { return (void)op, "DecodeFrame"; }
static const char *ORT_API_CALL encoder_name(const OrtCustomOp *op) { return (void)op, "EncodeFrame"; }

static const char *ORT_API_CALL on_cpu(const OrtCustomOp *op) { return (void)op, (const char *)NULL; }

static size_t ORT_API_CALL one(const OrtCustomOp *op) { return (void)op, (size_t)1; }

static ONNXTensorElementDataType ORT_API_CALL bytes(const OrtCustomOp *op, size_t index) {
    return (void)op, (void)index, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
}

static ONNXTensorElementDataType ORT_API_CALL any_type(const OrtCustomOp *op, size_t index) {
    return (void)op, (void)index, ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
}

static OrtCustomOpInputOutputCharacteristic ORT_API_CALL single(const OrtCustomOp *op, size_t index) {
    return (void)op, (void)index, INPUT_OUTPUT_REQUIRED;
}

static OrtCustomOpInputOutputCharacteristic ORT_API_CALL variadic(const OrtCustomOp *op, size_t index) {
    return (void)op, (void)index, INPUT_OUTPUT_VARIADIC;
}

static OrtMemType ORT_API_CALL in_memory(const OrtCustomOp *op, size_t index) {
    return (void)op, (void)index, OrtMemTypeDefault;
}

static int ORT_API_CALL at_least_one(const OrtCustomOp *op) { return (void)op, 1; }
static int ORT_API_CALL of_many_types(const OrtCustomOp *op) { return (void)op, 0; }

#define OPERATOR(op_name, input, inputs, output, outputs, create_function, compute_function)                            \
    {                                                                                                                  \
        .version = IRS_ORT_API, .GetName = op_name, .GetExecutionProviderType = on_cpu, .GetInputType = input,         \
        .GetInputTypeCount = one, .GetOutputType = output, .GetOutputTypeCount = one, .KernelDestroy = destroy,        \
        .GetInputCharacteristic = inputs, .GetOutputCharacteristic = outputs, .GetInputMemoryType = in_memory,         \
        .GetVariadicInputMinArity = at_least_one, .GetVariadicInputHomogeneity = of_many_types,                        \
        .GetVariadicOutputMinArity = at_least_one, .GetVariadicOutputHomogeneity = of_many_types,                      \
        .CreateKernelV2 = create_function, .KernelComputeV2 = compute_function                                         \
    }

static const OrtCustomOp decoder = OPERATOR(decoder_name, bytes, single, any_type, variadic, create_decoder, decode);
static const OrtCustomOp encoder = OPERATOR(encoder_name, any_type, variadic, bytes, single, create_encoder, encode);

static OrtStatus *add_operators(const OrtApi *api, OrtSessionOptions *options, OrtCustomOpDomain *domain) {
    TRY(api->CustomOpDomain_Add(domain, &decoder));
    TRY(api->CustomOpDomain_Add(domain, &encoder));
    return api->AddCustomOpDomain(options, domain);
}

EXPORTED OrtStatus *ORT_API_CALL RegisterCustomOps(OrtSessionOptions *options, const OrtApiBase *base);

/* The domain stays for as long as the process does: sessions use it, and nobody says when the last one is gone. */
EXPORTED OrtStatus *ORT_API_CALL RegisterCustomOps(OrtSessionOptions *options, const OrtApiBase *base) {
    const OrtApi *api = base->GetApi(IRS_ORT_API);
    if (api == NULL) {
        return base->GetApi(1)->CreateStatus(ORT_FAIL, DOMAIN ": its operators need ONNX Runtime 1.16 or later");
    }
    OrtCustomOpDomain *domain = NULL;
    TRY(api->CreateCustomOpDomain(DOMAIN, &domain));
    OrtStatus *status = add_operators(api, options, domain);
    if (status != NULL) {
        api->ReleaseCustomOpDomain(domain);
    }
    return status;
}
