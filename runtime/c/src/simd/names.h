/* SPDX-License-Identifier: Apache-2.0
 *
 * Names of the vector code. The same code is compiled for vectors of 16 and 32 bytes; its functions
 * are called vec_add and the like, and get the size appended here, so that both can be part of one
 * file. names_end.h takes the names back. A header for a machine defines, besides the functions
 * below:
 *
 *     VEC_SIZE    bytes of a vector, and VEC_LANES, lanes of 32 bits, before it includes this file
 *     VEC_TARGET  the attribute that makes the compiler use the machine's instructions
 *     VEC_INLINE  the same for small functions
 */
#define VEC_PASTE_(name, size) irs_##name##_##size
#define VEC_PASTE(name, size) VEC_PASTE_(name, size)
#define VEC_NAME(name) VEC_PASTE(name, VEC_SIZE)

/* the type and memory */
#define vec VEC_NAME(vec)                               /* a vector of VEC_SIZE bytes */
#define vec_load VEC_NAME(vec_load)                     /* from any address */
#define vec_store VEC_NAME(vec_store)                   /* to any address */
#define vec_set_u8 VEC_NAME(vec_set_u8)                 /* the same value in all bytes */
#define vec_set_u32 VEC_NAME(vec_set_u32)               /* the same value in all lanes of 32 bits */
#define vec_load_u8_to_u32 VEC_NAME(vec_load_u8_to_u32) /* a byte for each lane */

/* all bits; a mask is all ones or all zeros in each byte or lane */
#define vec_and VEC_NAME(vec_and)
#define vec_or VEC_NAME(vec_or)
#define vec_andnot VEC_NAME(vec_andnot) /* a and not b */
#define vec_select VEC_NAME(vec_select) /* a where the mask is all ones, else b */

/* bytes */
#define vec_add_u8 VEC_NAME(vec_add_u8)
#define vec_sub_u8 VEC_NAME(vec_sub_u8)
#define vec_min_u8 VEC_NAME(vec_min_u8)
#define vec_max_u8 VEC_NAME(vec_max_u8)
#define vec_cmpeq_u8 VEC_NAME(vec_cmpeq_u8)       /* a mask */
#define vec_add_sums VEC_NAME(vec_add_sums)       /* adds all bytes to a few sums, which */
#define vec_reduce_sums VEC_NAME(vec_reduce_sums) /* adds up */
#define vec_widen VEC_NAME(vec_widen)             /* a vector of bytes to four vectors of lanes */
#define vec_narrow VEC_NAME(vec_narrow)           /* and back: the lowest byte of each lane */
#define vec_store_interleaved VEC_NAME(vec_store_interleaved) /* bytes of both, in turn */
#define vec_store_differences VEC_NAME(vec_store_differences) /* a - b in 16 bits */

/* lanes of 32 bits */
#define vec_add VEC_NAME(vec_add)
#define vec_sub VEC_NAME(vec_sub)
#define vec_mul VEC_NAME(vec_mul)     /* lower half of the product */
#define vec_mulhi VEC_NAME(vec_mulhi) /* upper half of the product, unsigned */
#define vec_shl VEC_NAME(vec_shl)
#define vec_shr VEC_NAME(vec_shr)
#define vec_cmpeq VEC_NAME(vec_cmpeq)                   /* a mask */
#define vec_cmpgt VEC_NAME(vec_cmpgt)                   /* a mask; signed */
#define vec_movemask VEC_NAME(vec_movemask)             /* the set of lanes whose top bit is set */
#define vec_select_by_sign VEC_NAME(vec_select_by_sign) /* a where the top bit is set, else b */
#define vec_popcount VEC_NAME(vec_popcount)             /* number of lanes in a set */

/* tables and streams; bit 0 of a set stands for the first lane */
#define vec_gather VEC_NAME(vec_gather)             /* an entry for each lane */
#define vec_gather_u64 VEC_NAME(vec_gather_u64)     /* both halves of an entry for each lane */
#define vec_load_two_u64 VEC_NAME(vec_load_two_u64) /* a helper of vec_gather_u64 */
#define vec_emit_words VEC_NAME(vec_emit_words)     /* writes the low words of a set of lanes */
#define vec_refill_words VEC_NAME(vec_refill_words) /* gives each lane of a set the next word */

/* predictions */
#define vec_predict_linear VEC_NAME(vec_predict_linear) /* irs_predict_linear for a row */
#define vec_weigh_half VEC_NAME(vec_weigh_half)         /* a helper of vec_predict_linear */
#define vec_refine VEC_NAME(vec_refine)                 /* irs_refine_predictions */

/* rans/static_vector.h */
#define vec_mask_edge VEC_NAME(vec_mask_edge)
#define vec_first_bytes VEC_NAME(vec_first_bytes)
#define vec_at_most VEC_NAME(vec_at_most)
#define vec_predict_med VEC_NAME(vec_predict_med)
#define vec_predict VEC_NAME(vec_predict)
#define vec_residuals VEC_NAME(vec_residuals)
#define vec_choose_tables VEC_NAME(vec_choose_tables)
#define vec_pixel_contexts VEC_NAME(vec_pixel_contexts)
#define vec_find_contexts VEC_NAME(vec_find_contexts)

/* rans/static_vector_encode.h */
#define vec_output VEC_NAME(vec_output)
#define vec_put_escapes VEC_NAME(vec_put_escapes)
#define vec_encode_quarter VEC_NAME(vec_encode_quarter)
#define vec_encode_partial VEC_NAME(vec_encode_partial)
#define vec_encode_row VEC_NAME(vec_encode_row)
#define vec_encode_lanes VEC_NAME(vec_encode_lanes)
#define vec_encode_symbols VEC_NAME(vec_encode_symbols)

/* rans/static_vector_decode.h */
#define vec_stream VEC_NAME(vec_stream)
#define vec_stream_save VEC_NAME(vec_stream_save)
#define vec_stream_load VEC_NAME(vec_stream_load)
#define vec_take_escapes VEC_NAME(vec_take_escapes)
#define vec_decode_slowly VEC_NAME(vec_decode_slowly)
#define vec_decode_quarter VEC_NAME(vec_decode_quarter)
#define vec_decode_partial VEC_NAME(vec_decode_partial)
#define vec_decode_row VEC_NAME(vec_decode_row)
#define vec_decode_pixel VEC_NAME(vec_decode_pixel)
#define vec_decode_contexts VEC_NAME(vec_decode_contexts)
#define vec_decode_one_context VEC_NAME(vec_decode_one_context)
#define vec_decode_lanes VEC_NAME(vec_decode_lanes)
#define vec_decode_symbols VEC_NAME(vec_decode_symbols)
