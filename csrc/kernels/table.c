/* This ISA's kernels as one table, in the order of kernels.def. */
#include "kernel.h"

/* One adapter a kernel, so that each is called through a pointer of its own true type. */
#define FNN_KERNEL(name, fields) \
    static void call_##name(const void *args, const struct fnn_team *team) { FNN_FUNCTION(name)(args, team); }
#include "../kernels.def"
#undef FNN_KERNEL

static fnn_kernel *const kernels[FNN_KERNEL_COUNT] = {
#define FNN_KERNEL(name, fields) call_##name,
#include "../kernels.def"
#undef FNN_KERNEL
};

#define FNN_STRING(name) #name
#define FNN_EXPAND_STRING(name) FNN_STRING(name)

extern const struct fnn_isa_info FNN_FUNCTION(isa_info);
const struct fnn_isa_info FNN_FUNCTION(isa_info) = {
    .name = FNN_EXPAND_STRING(FNN_ISA_NAME),
    .lanes = FNN_LANES,
    .gemm_rows = FNN_GEMM_ROWS,
    .gemm_columns = FNN_GEMM_VECTORS * FNN_LANES,
    .kernels = kernels,
};
