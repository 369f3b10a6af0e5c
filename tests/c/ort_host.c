/* SPDX-License-Identifier: Apache-2.0
 *
 * A host of ONNX Runtime without Python:
 *
 *     ort_host RUNTIME OPERATORS DEVICE.onnx SERVER.onnx INPUT OUTPUT < image > logits
 *
 * The image is f32[1,1,16,16], the logits are f32[1,10]. Only what a host needs is declared, by its
 * position in OrtApi.
 */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

typedef void (*function)(void); /* which casts to any other function without a warning */
typedef struct base {
    const function *(*GetApi)(uint32_t version);
} base;

enum { FLOAT = 1, UINT8 = 2 };
enum {
    ERROR_MESSAGE = 2,
    CREATE_ENV = 3,
    CREATE_SESSION = 7,
    RUN = 9,
    CREATE_OPTIONS = 10,
    WRAP_TENSOR = 49,
    DATA = 51,
    COUNT = 64,
    SHAPE_OF = 65,
    CPU_MEMORY = 69,
    REGISTER_LIBRARY = 228
};

static const function *api;
#define CALL(position, parameters, ...) check(((void *(*)parameters)api[position])(__VA_ARGS__))

static void check(void *status) {
    if (status != NULL) {
        fprintf(stderr, "%s\n", ((const char *(*)(const void *))api[ERROR_MESSAGE])(status));
        exit(1);
    }
}

static void *open_session(void *env, void *options, const char *path) {
    void *session = NULL;
    CALL(CREATE_SESSION, (void *, const char *, void *, void **), env, path, options, &session);
    return session;
}

/* One input, one output; the number of the output's elements. */
static size_t run(void *session, const char *input, void *data, size_t size, const int64_t *dims,
                  size_t rank, int type, const char *output, void **result) {
    void *memory = NULL, *value = NULL, *made = NULL, *shape = NULL;
    size_t count = 0;
    CALL(CPU_MEMORY, (int, int, void **), 0, 0, &memory);
    CALL(WRAP_TENSOR, (void *, void *, size_t, const int64_t *, size_t, int, void **), memory, data,
         size, dims, rank, type, &value);
    CALL(RUN, (void *, void *, const char **, void **, size_t, const char **, size_t, void **),
         session, NULL, &input, &value, 1, &output, 1, &made);
    CALL(DATA, (void *, void **), made, result);
    CALL(SHAPE_OF, (void *, void **), made, &shape);
    CALL(COUNT, (void *, size_t *), shape, &count);
    return count;
}

int main(int argc, char **argv) {
    void *library = argc == 7 ? dlopen(argv[1], RTLD_NOW) : NULL;
    function entry = library == NULL ? NULL : (function)(uintptr_t)dlsym(library, "OrtGetApiBase");
    if (entry == NULL) {
        return 2;
    }
    api = ((const base *(*)(void))entry)()->GetApi(16);
    void *env = NULL, *options = NULL, *frame = NULL, *logits = NULL;
    CALL(CREATE_ENV, (int, const char *, void **), 3, "host", &env);
    CALL(CREATE_OPTIONS, (void **), &options);
    CALL(REGISTER_LIBRARY, (void *, const char *), options, argv[2]);
    void *device = open_session(env, options, argv[3]),
         *server = open_session(env, options, argv[4]);
    static float image[256];
    const int64_t dims[] = {1, 1, 16, 16};
    if (fread(image, sizeof image, 1, stdin) != 1) {
        return 2;
    }
    size_t size = run(device, argv[5], image, sizeof image, dims, 4, FLOAT, "frame", &frame);
    const int64_t length = (int64_t)size;
    size_t count = run(server, "frame", frame, size, &length, 1, UINT8, argv[6], &logits);
    return fwrite(logits, sizeof(float), count, stdout) == count ? 0 : 1;
}
