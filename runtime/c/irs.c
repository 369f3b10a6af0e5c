/* SPDX-License-Identifier: Apache-2.0
 *
 * The whole library in one translation unit, and the one list of its sources. Compile this file
 * with -Iinclude, or let amalgamate.py make two files of the library that need nothing else.
 *
 * Compilers that put each function into a section of its own (-ffunction-sections) do so here too,
 * so that a linker drops what a firmware does not call.
 */
#define IRS_ONE_FILE 1

#include "src/status.c"

#include "src/crc32c.c"
#include "src/descriptor.c"
#include "src/quantize.c"

#include "src/rans/elements.c"
#include "src/rans/rans.c"
#include "src/rans/static_narrow.c"
#include "src/rans/static_open.c"
#include "src/rans/static_portable.c"
#include "src/rans/static_rans.c"
#include "src/rans/static_v128.c"
#include "src/rans/static_v256.c"

#include "src/frame.c"
#include "src/frame_decode.c"
