/* Python binding of the C core, limited API of Python 3.11.
 *
 *     open(descriptor, compress, decompress) -> boundary      compress(tensor, source) -> bytes
 *     encode(boundary, arrays, dims) -> bytes                 decompress(tensor, source, size) -> bytes
 *     shapes(boundary, frame) -> [dims, ...]
 *     decode(boundary, frame, arrays) -> None
 *     sizes(boundary, arrays) -> (bytes of the opened boundary, of the largest frame, of scratch)
 *     frame_size(bytes) -> int        crc32c(bytes) -> int
 *
 * Buffers belong to the caller; the lock is released while the core works and taken again for hooks. A status of the core
 * becomes irsplit.runtime.frame.status.StatusError.
 */
#define Py_LIMITED_API 0x030b0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "irs.h"

#define CAPSULE_NAME "irsplit.runtime.c._native.boundary"

typedef struct opened {
    irs_boundary *boundary;
    void *memory;
    Py_buffer descriptor;
    PyObject *compress, *decompress;
} opened;

typedef struct call {
    opened *owner;
    PyThreadState *thread; /* while the lock is released */
} call;

static PyObject *raise_status(irs_status status) {
    PyObject *module = PyImport_ImportModule("irsplit.runtime.frame.status");
    PyObject *type = module == NULL ? NULL : PyObject_GetAttrString(module, "StatusError");
    PyObject *error = type == NULL ? NULL : PyObject_CallFunction(type, "i", (int)status);
    if (error != NULL) {
        PyErr_SetObject(type, error);
    }
    Py_XDECREF(error);
    Py_XDECREF(type);
    Py_XDECREF(module);
    return NULL;
}

static void *aligned(void *memory) { return (void *)(((uintptr_t)memory + 15) & ~(uintptr_t)15); }

/* ---- hooks: bytes returned by Python are copied to where the core wants them ------------------------------------- */

static irs_status copy_result(PyObject *result, void *target, size_t capacity, size_t *size) {
    char *bytes;
    Py_ssize_t length;
    if (result == NULL || PyBytes_AsStringAndSize(result, &bytes, &length) != 0) {
        return IRS_ERR_CORRUPT; /* the exception is set and wins over the status */
    }
    if ((size_t)length > capacity) {
        return IRS_ERR_BUFFER;
    }
    memcpy(target, bytes, (size_t)length);
    *size = (size_t)length;
    return IRS_OK;
}

static irs_status compress_hook(void *context, uint32_t tensor, uint8_t codec, const void *parameters,
                                size_t parameters_size, const void *source, size_t source_size, void *target,
                                size_t capacity, size_t *size) {
    (void)codec, (void)parameters, (void)parameters_size;
    call *c = context;
    PyEval_RestoreThread(c->thread);
    PyObject *view = PyMemoryView_FromMemory((char *)(uintptr_t)source, (Py_ssize_t)source_size, PyBUF_READ);
    PyObject *result = view == NULL ? NULL : PyObject_CallFunction(c->owner->compress, "IO", tensor, view);
    irs_status status = copy_result(result, target, capacity, size);
    Py_XDECREF(result);
    Py_XDECREF(view);
    c->thread = PyEval_SaveThread();
    return status;
}

static irs_status decompress_hook(void *context, uint32_t tensor, uint8_t codec, const void *parameters,
                                  size_t parameters_size, const void *source, size_t source_size, void *target,
                                  size_t size) {
    (void)codec, (void)parameters, (void)parameters_size;
    call *c = context;
    size_t written = 0;
    PyEval_RestoreThread(c->thread);
    PyObject *view = PyMemoryView_FromMemory((char *)(uintptr_t)source, (Py_ssize_t)source_size, PyBUF_READ);
    PyObject *result =
        view == NULL ? NULL : PyObject_CallFunction(c->owner->decompress, "IOn", tensor, view, (Py_ssize_t)size);
    irs_status status = copy_result(result, target, size, &written);
    Py_XDECREF(result);
    Py_XDECREF(view);
    c->thread = PyEval_SaveThread();
    return status == IRS_OK && written == size ? IRS_OK : IRS_ERR_CORRUPT;
}

/* ---- opening ------------------------------------------------------------------------------------------------------ */

static void close_opened(opened *o) {
    if (o->descriptor.obj != NULL) {
        PyBuffer_Release(&o->descriptor);
    }
    Py_XDECREF(o->compress);
    Py_XDECREF(o->decompress);
    PyMem_Free(o->memory);
    PyMem_Free(o);
}

static void destroy(PyObject *capsule) { close_opened(PyCapsule_GetPointer(capsule, CAPSULE_NAME)); }

static PyObject *py_open(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *descriptor, *compress, *decompress;
    if (!PyArg_ParseTuple(args, "OOO", &descriptor, &compress, &decompress)) {
        return NULL;
    }
    opened *o = PyMem_Calloc(1, sizeof *o);
    if (o == NULL) {
        return PyErr_NoMemory();
    }
    if (PyObject_GetBuffer(descriptor, &o->descriptor, PyBUF_SIMPLE) != 0) {
        close_opened(o);
        return NULL;
    }
    size_t size = 0;
    irs_status status = irs_boundary_size(o->descriptor.buf, (size_t)o->descriptor.len, &size);
    if (status == IRS_OK) {
        o->memory = PyMem_Malloc(size + 16);
        if (o->memory == NULL) {
            close_opened(o);
            return PyErr_NoMemory();
        }
        status =
            irs_boundary_open(&o->boundary, aligned(o->memory), size, o->descriptor.buf, (size_t)o->descriptor.len);
    }
    if (status != IRS_OK) {
        close_opened(o);
        return raise_status(status);
    }
    o->compress = Py_NewRef(compress);
    o->decompress = Py_NewRef(decompress);
    PyObject *capsule = PyCapsule_New(o, CAPSULE_NAME, destroy);
    if (capsule == NULL) {
        close_opened(o);
    }
    return capsule;
}

/* ---- tensors of one call ------------------------------------------------------------------------------------------ */

typedef struct tensors {
    uint32_t count; /* of buffers held */
    irs_tensor items[IRS_MAX_TENSORS];
    Py_buffer buffers[IRS_MAX_TENSORS];
} tensors;

static void release(tensors *t) {
    while (t->count > 0) {
        PyBuffer_Release(&t->buffers[--t->count]);
    }
    PyMem_Free(t);
}

/* Data, size and dims of a sequence of C-contiguous arrays; PyBUF_WRITABLE for those that are written. */
static tensors *hold(const opened *o, PyObject *arrays, int flags) {
    uint32_t count = irs_tensor_count(o->boundary);
    Py_ssize_t given = PySequence_Size(arrays);
    if (given < 0) {
        return NULL;
    }
    if (given != (Py_ssize_t)count) {
        PyErr_Format(PyExc_ValueError, "%zd arrays for %u tensors", given, count);
        return NULL;
    }
    tensors *t = PyMem_Calloc(1, sizeof *t);
    if (t == NULL) {
        return (tensors *)PyErr_NoMemory();
    }
    for (uint32_t i = 0; i < count; i++) {
        Py_buffer *buffer = &t->buffers[i];
        PyObject *array = PySequence_GetItem(arrays, (Py_ssize_t)i);
        int failed = array == NULL || PyObject_GetBuffer(array, buffer, PyBUF_C_CONTIGUOUS | flags) != 0;
        Py_XDECREF(array);
        if (failed) {
            release(t);
            return NULL;
        }
        t->count++;
        int shaped = buffer->ndim == (int)irs_tensor_rank(o->boundary, i);
        for (int axis = 0; shaped && axis < buffer->ndim; axis++) {
            shaped = (uint64_t)buffer->shape[axis] < UINT32_MAX;
            t->items[i].dims[axis] = (uint32_t)buffer->shape[axis];
        }
        if (!shaped) {
            release(t);
            raise_status(IRS_ERR_SHAPE);
            return NULL;
        }
        t->items[i].data = buffer->buf;
        t->items[i].size = (uint64_t)buffer->len;
    }
    return t;
}

static opened *get_opened(PyObject *capsule) { return PyCapsule_GetPointer(capsule, CAPSULE_NAME); }

/* The arguments (boundary, arrays) of a call that reads the arrays. */
static tensors *hold_arguments(PyObject *args, opened **o) {
    PyObject *capsule, *arrays;
    if (!PyArg_ParseTuple(args, "OO", &capsule, &arrays)) {
        return NULL;
    }
    *o = get_opened(capsule);
    return *o == NULL ? NULL : hold(*o, arrays, PyBUF_SIMPLE);
}

/* ---- encode, decode ----------------------------------------------------------------------------------------------- */

static PyObject *py_encode(PyObject *module, PyObject *args) {
    (void)module;
    opened *o;
    tensors *t = hold_arguments(args, &o);
    if (t == NULL) {
        return NULL;
    }
    size_t bound = 0, scratch_size = 0, size = 0;
    irs_status status = irs_frame_bound(o->boundary, t->items, &bound);
    if (status == IRS_OK) {
        status = irs_workspace_size(o->boundary, t->items, &scratch_size);
    }
    if (status != IRS_OK) {
        release(t);
        return raise_status(status);
    }
    void *scratch = PyMem_Malloc(scratch_size + 16);
    PyObject *result = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)bound); /* cut to size afterwards, not copied */
    if (scratch == NULL || result == NULL) {
        Py_CLEAR(result);
        PyErr_NoMemory();
    } else {
        void *frame = PyBytes_AsString(result);
        call c = {o, PyEval_SaveThread()};
        irs_hooks hooks = {&c, compress_hook, decompress_hook};
        status = irs_encode(o->boundary, &hooks, t->items, aligned(scratch), scratch_size, frame, bound, &size);
        PyEval_RestoreThread(c.thread);
        if (PyErr_Occurred() == NULL && status == IRS_OK) {
            _PyBytes_Resize(&result, (Py_ssize_t)size);
        } else {
            Py_CLEAR(result);
        }
        if (PyErr_Occurred() == NULL && status != IRS_OK) {
            raise_status(status);
        }
    }
    PyMem_Free(scratch);
    release(t);
    return result;
}

static PyObject *dims_tuple(const irs_tensor *tensor, uint32_t rank) {
    PyObject *tuple = PyTuple_New((Py_ssize_t)rank);
    for (uint32_t axis = 0; tuple != NULL && axis < rank; axis++) {
        PyObject *dim = PyLong_FromUnsignedLong(tensor->dims[axis]);
        if (dim == NULL || PyTuple_SetItem(tuple, (Py_ssize_t)axis, dim) != 0) {
            Py_CLEAR(tuple);
        }
    }
    return tuple;
}

static PyObject *py_shapes(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *capsule;
    Py_buffer frame;
    if (!PyArg_ParseTuple(args, "Oy*", &capsule, &frame)) {
        return NULL;
    }
    PyObject *list = NULL;
    irs_tensor *items = PyMem_Calloc(IRS_MAX_TENSORS, sizeof *items);
    opened *o = items == NULL ? (opened *)PyErr_NoMemory() : get_opened(capsule);
    if (o != NULL) {
        irs_status status = irs_frame_dims(o->boundary, frame.buf, (size_t)frame.len, items);
        list = status == IRS_OK ? PyList_New(0) : raise_status(status);
        for (uint32_t i = 0; list != NULL && i < irs_tensor_count(o->boundary); i++) {
            PyObject *dims = dims_tuple(&items[i], irs_tensor_rank(o->boundary, i));
            if (dims == NULL || PyList_Append(list, dims) != 0) {
                Py_CLEAR(list);
            }
            Py_XDECREF(dims);
        }
    }
    PyMem_Free(items);
    PyBuffer_Release(&frame);
    return list;
}

static PyObject *decode_held(opened *o, const Py_buffer *frame, tensors *t) {
    size_t scratch_size = 0;
    irs_status status = irs_workspace_size(o->boundary, t->items, &scratch_size);
    if (status != IRS_OK) {
        return raise_status(status);
    }
    void *scratch = PyMem_Malloc(scratch_size + 16);
    if (scratch == NULL) {
        return PyErr_NoMemory();
    }
    call c = {o, PyEval_SaveThread()};
    irs_hooks hooks = {&c, compress_hook, decompress_hook};
    status = irs_decode(o->boundary, &hooks, frame->buf, (size_t)frame->len, t->items, aligned(scratch), scratch_size);
    PyEval_RestoreThread(c.thread);
    PyMem_Free(scratch);
    if (PyErr_Occurred() != NULL) {
        return NULL;
    }
    return status == IRS_OK ? Py_NewRef(Py_None) : raise_status(status);
}

static PyObject *py_decode(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *capsule, *arrays;
    Py_buffer frame;
    if (!PyArg_ParseTuple(args, "Oy*O", &capsule, &frame, &arrays)) {
        return NULL;
    }
    opened *o = get_opened(capsule);
    tensors *t = o == NULL ? NULL : hold(o, arrays, PyBUF_WRITABLE);
    PyObject *result = t == NULL ? NULL : decode_held(o, &frame, t);
    if (t != NULL) {
        release(t);
    }
    PyBuffer_Release(&frame);
    return result;
}

/* memory of the opened boundary, largest frame, scratch for arrays of these shapes */
static PyObject *py_sizes(PyObject *module, PyObject *args) {
    (void)module;
    opened *o;
    tensors *t = hold_arguments(args, &o);
    if (t == NULL) {
        return NULL;
    }
    size_t memory = 0, bound = 0, scratch = 0;
    irs_status status = irs_boundary_size(o->descriptor.buf, (size_t)o->descriptor.len, &memory);
    if (status == IRS_OK) {
        status = irs_frame_bound(o->boundary, t->items, &bound);
    }
    if (status == IRS_OK) {
        status = irs_workspace_size(o->boundary, t->items, &scratch);
    }
    release(t);
    return status == IRS_OK ? Py_BuildValue("nnn", (Py_ssize_t)memory, (Py_ssize_t)bound, (Py_ssize_t)scratch)
                            : raise_status(status);
}

static PyObject *py_frame_size(PyObject *module, PyObject *args) {
    (void)module;
    Py_buffer bytes;
    if (!PyArg_ParseTuple(args, "y*", &bytes)) {
        return NULL;
    }
    uint64_t size = 0;
    irs_status status = irs_frame_size(bytes.buf, (size_t)bytes.len, &size);
    PyBuffer_Release(&bytes);
    return status == IRS_OK ? PyLong_FromUnsignedLongLong(size) : raise_status(status);
}

static PyObject *py_crc32c(PyObject *module, PyObject *args) {
    (void)module;
    Py_buffer bytes;
    if (!PyArg_ParseTuple(args, "y*", &bytes)) {
        return NULL;
    }
    uint32_t crc = irs_crc32c(0, bytes.buf, (size_t)bytes.len);
    PyBuffer_Release(&bytes);
    return PyLong_FromUnsignedLong(crc);
}

static PyMethodDef methods[] = {
    {"open", py_open, METH_VARARGS, NULL},     {"encode", py_encode, METH_VARARGS, NULL},
    {"shapes", py_shapes, METH_VARARGS, NULL}, {"decode", py_decode, METH_VARARGS, NULL},
    {"crc32c", py_crc32c, METH_VARARGS, NULL}, {"frame_size", py_frame_size, METH_VARARGS, NULL},
    {"sizes", py_sizes, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_native", "C core of irsplit.runtime.", 0, methods, slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__native(void) { return PyModuleDef_Init(&module); }
