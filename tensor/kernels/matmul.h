/* The matrix product of one tile; see matmul.inc. */
#ifndef AG_KERNELS_MATMUL_H
#define AG_KERNELS_MATMUL_H

#include "../internal.h"

/* A matrix of any strides, in elements. */
typedef struct ag_matrix {
    const void *data;
    int64_t row, column;
} ag_matrix;

/* c [m, n] = a [m, k] b [k, n] + start[0] + start[1], data NULL where nothing is
 * added; the rows of c are c_row elements apart, its columns c_column. A start
 * may be c itself. */
typedef struct ag_matmul_tile {
    int64_t m, n, k;
    ag_matrix a, b, start[2];
    void *c;
    int64_t c_row, c_column;
} ag_matmul_tile;

/* One way to compute a tile. The bits of a product depend on the way, which is chosen
 * by the number of its columns. */
typedef struct ag_matmul_way {
    int64_t depth; /* sums are cut at its multiples: see matmul.inc */

    /* The bytes of scratch that tile needs for this one, and for tiles of the same
     * operands with fewer rows or columns. */
    size_t (*scratch)(const ag_matmul_tile *tile);

    /* scratch is aligned to AG_ALIGNMENT. */
    void (*tile)(const ag_matmul_tile *tile, void *scratch);
} ag_matmul_way;

typedef struct ag_matmul_kernels {
    int64_t row_step, column_step;   /* tiles that are multiples of these leave no edges */
    int64_t tile_rows, tile_columns; /* the largest tile worth having */
    int64_t narrow_columns;
    ag_matmul_way narrow, wide; /* for products with up to narrow_columns, with more */

    /* Whether c^T = b^T a^T is less work, for more than narrow_columns; the data are
     * not read. */
    bool (*better_transposed)(const ag_matmul_tile *product);
} ag_matmul_kernels;

#endif
