/* kernels.def as data: the name and fields of every kernel, for the binding and the tests. */
#include "fastnn.h"

#define FNN_IN(type, name) {#name, #type, FNN_FIELD_IN},
#define FNN_IN_OPTIONAL(type, name) {#name, #type, FNN_FIELD_IN_OPTIONAL},
#define FNN_OUT(type, name) {#name, #type, FNN_FIELD_OUT},
#define FNN_OUT_OPTIONAL(type, name) {#name, #type, FNN_FIELD_OUT_OPTIONAL},
#define FNN_UPDATE(type, name) {#name, #type, FNN_FIELD_UPDATE},
#define FNN_SIZE(name) {#name, "", FNN_FIELD_SIZE},
#define FNN_WORD(name) {#name, "", FNN_FIELD_WORD},
#define FNN_REAL(name) {#name, "", FNN_FIELD_REAL},
#define FNN_TABLE(name) {#name, "", FNN_FIELD_TABLE},

#define FNN_KERNEL(name, fields)                              \
    static const struct fnn_field name##_fields[] = {fields}; \
    _Static_assert(sizeof(struct fnn_##name##_args) == sizeof(name##_fields) / sizeof(struct fnn_field) * 8, #name);
#include "kernels.def"
#undef FNN_KERNEL

const struct fnn_kernel_info fnn_kernel_infos[FNN_KERNEL_COUNT] = {
#define FNN_KERNEL(name, fields) {#name, sizeof(name##_fields) / sizeof(struct fnn_field), name##_fields},
#include "kernels.def"
#undef FNN_KERNEL
};
