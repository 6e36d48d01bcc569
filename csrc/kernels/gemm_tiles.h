/* One function for each size of the register tile, from one body. The file that includes this has defined
 *
 *   static inline __attribute__((always_inline)) void RUN_TILE(const struct TILE_STRUCT *tile, int rows, int vectors)
 *
 * and gets tiles[rows - 1][vectors - 1]: rows and vectors are constants inside, so that sums stay in registers. */
#define TILE(rows, vectors) \
    static void tile_##rows##_##vectors(const struct TILE_STRUCT *tile) { RUN_TILE(tile, rows, vectors); }

#if FNN_GEMM_VECTORS == 4
#define TILES(rows) TILE(rows, 1) TILE(rows, 2) TILE(rows, 3) TILE(rows, 4)
#define ENTRY(rows) {tile_##rows##_1, tile_##rows##_2, tile_##rows##_3, tile_##rows##_4},
#elif FNN_GEMM_VECTORS == 2
#define TILES(rows) TILE(rows, 1) TILE(rows, 2)
#define ENTRY(rows) {tile_##rows##_1, tile_##rows##_2},
#else
#error "list the vectors of this register tile"
#endif

#define ROWS_TO_4(each) each(1) each(2) each(3) each(4)
#define ROWS_TO_6(each) ROWS_TO_4(each) each(5) each(6)
#define ROWS_TO_14(each) ROWS_TO_6(each) each(7) each(8) each(9) each(10) each(11) each(12) each(13) each(14)
#if FNN_GEMM_ROWS == 14
#define ALL_ROWS(each) ROWS_TO_14(each)
#elif FNN_GEMM_ROWS == 6
#define ALL_ROWS(each) ROWS_TO_6(each)
#elif FNN_GEMM_ROWS == 4
#define ALL_ROWS(each) ROWS_TO_4(each)
#else
#error "list the rows of this register tile"
#endif

ALL_ROWS(TILES)

static void (*const tiles[FNN_GEMM_ROWS][FNN_GEMM_VECTORS])(const struct TILE_STRUCT *) = {ALL_ROWS(ENTRY)};
