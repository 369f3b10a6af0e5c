/* The part of ONNX Runtime's C interface that operators.c uses, declared here: its headers are in no package.
 *
 * The interface is a struct of function pointers that only ever grows at its end, and so is the struct of an operator;
 * the host says which version of both it has. With -DIRS_ORT_HEADERS the host's own onnxruntime_c_api.h is compiled
 * against instead. Either way every position is asserted below, so neither these declarations nor a later header can
 * disagree with what hosts have unseen.
 */
#ifndef IRS_ORT_ABI_H
#define IRS_ORT_ABI_H

#include <stdbool.h> /* for headers of hosts that use it without including it */
#include <stddef.h>
#include <stdint.h>

#define IRS_ORT_API 16 /* ONNX Runtime 1.16: the first whose operators can answer with a status */

#ifdef IRS_ORT_HEADERS
#include <onnxruntime_c_api.h>
#else

#ifdef _WIN32
#define ORT_API_CALL __stdcall
#else
#define ORT_API_CALL
#endif

typedef struct OrtStatus OrtStatus; /* null: success */
typedef struct OrtValue OrtValue;
typedef struct OrtTypeInfo OrtTypeInfo;
typedef struct OrtTensorTypeAndShapeInfo OrtTensorTypeAndShapeInfo;
typedef struct OrtSessionOptions OrtSessionOptions;
typedef struct OrtCustomOpDomain OrtCustomOpDomain;
typedef struct OrtKernelInfo OrtKernelInfo;
typedef struct OrtKernelContext OrtKernelContext;
typedef struct OrtCustomOp OrtCustomOp;
typedef struct OrtApi OrtApi;

typedef enum OrtErrorCode { ORT_FAIL = 1, ORT_INVALID_ARGUMENT = 2 } OrtErrorCode;
typedef enum OrtMemType { OrtMemTypeDefault = 0 } OrtMemType;
typedef enum OrtCustomOpInputOutputCharacteristic {
    INPUT_OUTPUT_REQUIRED = 0,
    INPUT_OUTPUT_VARIADIC = 2
} OrtCustomOpInputOutputCharacteristic;

/* Numbers of ONNX's TensorProto.DataType. */
typedef enum ONNXTensorElementDataType {
    ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED = 0,
    ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8 = 2
} ONNXTensorElementDataType;

typedef struct OrtApiBase {
    const OrtApi *(ORT_API_CALL *GetApi)(uint32_t version);
    const char *(ORT_API_CALL *GetVersionString)(void);
} OrtApiBase;

struct OrtApi {
    OrtStatus *(ORT_API_CALL *CreateStatus)(OrtErrorCode code, const char *message);
    void *other_1[25];
    OrtStatus *(ORT_API_CALL *CreateCustomOpDomain)(const char *name, OrtCustomOpDomain **domain);
    OrtStatus *(ORT_API_CALL *CustomOpDomain_Add)(OrtCustomOpDomain *domain, const OrtCustomOp *op);
    OrtStatus *(ORT_API_CALL *AddCustomOpDomain)(OrtSessionOptions *options, OrtCustomOpDomain *domain);
    void *other_29[22];
    OrtStatus *(ORT_API_CALL *GetTensorMutableData)(OrtValue *value, void **data);
    void *other_52[3];
    OrtStatus *(ORT_API_CALL *CastTypeInfoToTensorInfo)(const OrtTypeInfo *type, const OrtTensorTypeAndShapeInfo **info);
    void *other_56[4];
    OrtStatus *(ORT_API_CALL *GetTensorElementType)(const OrtTensorTypeAndShapeInfo *info,
                                                    ONNXTensorElementDataType *type);
    OrtStatus *(ORT_API_CALL *GetDimensionsCount)(const OrtTensorTypeAndShapeInfo *info, size_t *count);
    OrtStatus *(ORT_API_CALL *GetDimensions)(const OrtTensorTypeAndShapeInfo *info, int64_t *dims, size_t count);
    void *other_63[1];
    OrtStatus *(ORT_API_CALL *GetTensorShapeElementCount)(const OrtTensorTypeAndShapeInfo *info, size_t *count);
    OrtStatus *(ORT_API_CALL *GetTensorTypeAndShape)(const OrtValue *value, OrtTensorTypeAndShapeInfo **info);
    void *other_66[20];
    OrtStatus *(ORT_API_CALL *KernelInfoGetAttribute_int64)(const OrtKernelInfo *info, const char *name, int64_t *out);
    OrtStatus *(ORT_API_CALL *KernelInfoGetAttribute_string)(const OrtKernelInfo *info, const char *name, char *out,
                                                             size_t *size);
    OrtStatus *(ORT_API_CALL *KernelContext_GetInputCount)(const OrtKernelContext *context, size_t *count);
    OrtStatus *(ORT_API_CALL *KernelContext_GetOutputCount)(const OrtKernelContext *context, size_t *count);
    OrtStatus *(ORT_API_CALL *KernelContext_GetInput)(const OrtKernelContext *context, size_t index,
                                                      const OrtValue **value);
    OrtStatus *(ORT_API_CALL *KernelContext_GetOutput)(OrtKernelContext *context, size_t index, const int64_t *dims,
                                                       size_t rank, OrtValue **value);
    void *other_92[1];
    void(ORT_API_CALL *ReleaseStatus)(OrtStatus *status);
    void *other_94[4];
    void(ORT_API_CALL *ReleaseTypeInfo)(OrtTypeInfo *type);
    void(ORT_API_CALL *ReleaseTensorTypeAndShapeInfo)(OrtTensorTypeAndShapeInfo *info);
    void *other_100[1];
    void(ORT_API_CALL *ReleaseCustomOpDomain)(OrtCustomOpDomain *domain);
    void *other_102[128];
    OrtStatus *(ORT_API_CALL *KernelInfo_GetInputCount)(const OrtKernelInfo *info, size_t *count);
    OrtStatus *(ORT_API_CALL *KernelInfo_GetOutputCount)(const OrtKernelInfo *info, size_t *count);
    void *other_232[2];
    OrtStatus *(ORT_API_CALL *KernelInfo_GetInputTypeInfo)(const OrtKernelInfo *info, size_t index, OrtTypeInfo **type);
    OrtStatus *(ORT_API_CALL *KernelInfo_GetOutputTypeInfo)(const OrtKernelInfo *info, size_t index,
                                                            OrtTypeInfo **type);
    /* ... and what is not used; the host allocates the struct */
};

/* As of version IRS_ORT_API; hosts read no further than an operator's `version` says. */
struct OrtCustomOp {
    uint32_t version;
    void *(ORT_API_CALL *CreateKernel)(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info);
    const char *(ORT_API_CALL *GetName)(const OrtCustomOp *op);
    const char *(ORT_API_CALL *GetExecutionProviderType)(const OrtCustomOp *op);
    ONNXTensorElementDataType(ORT_API_CALL *GetInputType)(const OrtCustomOp *op, size_t index);
    size_t(ORT_API_CALL *GetInputTypeCount)(const OrtCustomOp *op);
    ONNXTensorElementDataType(ORT_API_CALL *GetOutputType)(const OrtCustomOp *op, size_t index);
    size_t(ORT_API_CALL *GetOutputTypeCount)(const OrtCustomOp *op);
    void(ORT_API_CALL *KernelCompute)(void *kernel, OrtKernelContext *context);
    void(ORT_API_CALL *KernelDestroy)(void *kernel);
    OrtCustomOpInputOutputCharacteristic(ORT_API_CALL *GetInputCharacteristic)(const OrtCustomOp *op, size_t index);
    OrtCustomOpInputOutputCharacteristic(ORT_API_CALL *GetOutputCharacteristic)(const OrtCustomOp *op, size_t index);
    OrtMemType(ORT_API_CALL *GetInputMemoryType)(const OrtCustomOp *op, size_t index);
    int(ORT_API_CALL *GetVariadicInputMinArity)(const OrtCustomOp *op);
    int(ORT_API_CALL *GetVariadicInputHomogeneity)(const OrtCustomOp *op);
    int(ORT_API_CALL *GetVariadicOutputMinArity)(const OrtCustomOp *op);
    int(ORT_API_CALL *GetVariadicOutputHomogeneity)(const OrtCustomOp *op);
    OrtStatus *(ORT_API_CALL *CreateKernelV2)(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info,
                                              void **kernel);
    OrtStatus *(ORT_API_CALL *KernelComputeV2)(void *kernel, OrtKernelContext *context);
};

#endif

/* C99 has no static assertion: an array type of negative size stops the compiler. */
#define IRS_ORT_AT(type, field, position) \
    typedef char irs_ort_##type##_##field[offsetof(type, field) == (position) * sizeof(void *) ? 1 : -1]

IRS_ORT_AT(OrtApiBase, GetApi, 0);
IRS_ORT_AT(OrtApi, CreateStatus, 0);
IRS_ORT_AT(OrtApi, CreateCustomOpDomain, 26);
IRS_ORT_AT(OrtApi, CustomOpDomain_Add, 27);
IRS_ORT_AT(OrtApi, AddCustomOpDomain, 28);
IRS_ORT_AT(OrtApi, GetTensorMutableData, 51);
IRS_ORT_AT(OrtApi, CastTypeInfoToTensorInfo, 55);
IRS_ORT_AT(OrtApi, GetTensorElementType, 60);
IRS_ORT_AT(OrtApi, GetDimensionsCount, 61);
IRS_ORT_AT(OrtApi, GetDimensions, 62);
IRS_ORT_AT(OrtApi, GetTensorShapeElementCount, 64);
IRS_ORT_AT(OrtApi, GetTensorTypeAndShape, 65);
IRS_ORT_AT(OrtApi, KernelInfoGetAttribute_int64, 86);
IRS_ORT_AT(OrtApi, KernelInfoGetAttribute_string, 87);
IRS_ORT_AT(OrtApi, KernelContext_GetInputCount, 88);
IRS_ORT_AT(OrtApi, KernelContext_GetOutputCount, 89);
IRS_ORT_AT(OrtApi, KernelContext_GetInput, 90);
IRS_ORT_AT(OrtApi, KernelContext_GetOutput, 91);
IRS_ORT_AT(OrtApi, ReleaseStatus, 93);
IRS_ORT_AT(OrtApi, ReleaseTypeInfo, 98);
IRS_ORT_AT(OrtApi, ReleaseTensorTypeAndShapeInfo, 99);
IRS_ORT_AT(OrtApi, ReleaseCustomOpDomain, 101);
IRS_ORT_AT(OrtApi, KernelInfo_GetInputCount, 230);
IRS_ORT_AT(OrtApi, KernelInfo_GetOutputCount, 231);
IRS_ORT_AT(OrtApi, KernelInfo_GetInputTypeInfo, 234);
IRS_ORT_AT(OrtApi, KernelInfo_GetOutputTypeInfo, 235);
IRS_ORT_AT(OrtCustomOp, version, 0);
IRS_ORT_AT(OrtCustomOp, CreateKernel, 1);
IRS_ORT_AT(OrtCustomOp, GetName, 2);
IRS_ORT_AT(OrtCustomOp, GetExecutionProviderType, 3);
IRS_ORT_AT(OrtCustomOp, GetInputType, 4);
IRS_ORT_AT(OrtCustomOp, GetInputTypeCount, 5);
IRS_ORT_AT(OrtCustomOp, GetOutputType, 6);
IRS_ORT_AT(OrtCustomOp, GetOutputTypeCount, 7);
IRS_ORT_AT(OrtCustomOp, KernelCompute, 8);
IRS_ORT_AT(OrtCustomOp, KernelDestroy, 9);
IRS_ORT_AT(OrtCustomOp, GetInputCharacteristic, 10);
IRS_ORT_AT(OrtCustomOp, GetOutputCharacteristic, 11);
IRS_ORT_AT(OrtCustomOp, GetInputMemoryType, 12);
IRS_ORT_AT(OrtCustomOp, GetVariadicInputMinArity, 13);
IRS_ORT_AT(OrtCustomOp, GetVariadicInputHomogeneity, 14);
IRS_ORT_AT(OrtCustomOp, GetVariadicOutputMinArity, 15);
IRS_ORT_AT(OrtCustomOp, GetVariadicOutputHomogeneity, 16);
IRS_ORT_AT(OrtCustomOp, CreateKernelV2, 17);
IRS_ORT_AT(OrtCustomOp, KernelComputeV2, 18);

#endif
