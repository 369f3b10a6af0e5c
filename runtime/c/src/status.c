#include "irs.h"

const char *irs_status_string(irs_status status) {
    switch (status) {
    case IRS_OK: return "ok";
    case IRS_ERR_ARGUMENT: return "invalid argument";
    case IRS_ERR_TRUNCATED: return "the bytes end too early";
    case IRS_ERR_MAGIC: return "not a frame or descriptor of irsplit";
    case IRS_ERR_VERSION: return "made by a later format version";
    case IRS_ERR_DESCRIPTOR: return "the descriptor contradicts itself";
    case IRS_ERR_BOUNDARY: return "the frame belongs to another boundary";
    case IRS_ERR_CHECKSUM: return "checksum mismatch";
    case IRS_ERR_SHAPE: return "dims or tensor sizes differ from the descriptor's";
    case IRS_ERR_SIZE: return "a size does not fit or contradicts another";
    case IRS_ERR_BUFFER: return "buffer too small";
    case IRS_ERR_CODEC: return "codec not available";
    case IRS_ERR_CORRUPT: return "impossible contents";
    case IRS_ERR_VALUE: return "a value that the element type does not have";
    }
    return "unknown status";
}
