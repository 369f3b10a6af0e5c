/* SPDX-License-Identifier: Apache-2.0
 *
 * A delegate of LiteRT that takes no node. It counts how often it is asked, for
 * test_accelerators.py.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct delegate {
    void *data;
    int (*prepare)(void *context, struct delegate *delegate);
    void *copy_from, *copy_to, *release;
    int64_t flags;
    void *opaque;
} delegate;

int prepared;
char level[16];

static int prepare(void *context, delegate *self) {
    (void)context, (void)self;
    prepared++;
    return 0;
}

static delegate made = {.prepare = prepare};

delegate *tflite_plugin_create_delegate(char **keys, char **values, size_t count,
                                        void (*report)(const char *)) {
    if (count != 1 || strcmp(keys[0], "level")) {
        report("it has one option, level");
        return NULL;
    }
    strncpy(level, values[0], sizeof level - 1);
    return &made;
}

void tflite_plugin_destroy_delegate(delegate *self) { (void)self; }
