/* Memory of exactly the size a kernel may touch, so that a sanitizer sees every step beyond it. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "native.h"

enum { POISON = 0xff }; /* a NaN, or -1: no kernel writes it into every byte of an element */

static size_t element_size(const char *type) {
    if (!strcmp(type, "float") || !strcmp(type, "int32_t")) return 4;
    if (!strcmp(type, "double") || !strcmp(type, "int64_t")) return 8;
    if (!strcmp(type, "uint8_t")) return 1;
    give_up("no element type %s", type);
}

static void store(char *element, const char *type, double value) {
    if (!strcmp(type, "float"))
        memcpy(element, &(float){(float)value}, 4);
    else if (!strcmp(type, "double"))
        memcpy(element, &value, 8);
    else if (!strcmp(type, "int32_t"))
        memcpy(element, &(int32_t){(int32_t)value}, 4);
    else if (!strcmp(type, "int64_t"))
        memcpy(element, &(int64_t){(int64_t)value}, 8);
    else
        *(uint8_t *)element = (uint8_t)value;
}

/* splitmix64 (Steele, Lea and Flood 2014) */
static uint64_t next_random(uint64_t *state) {
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static double draw(const char *kind, double parameter, uint64_t *state) {
    uint64_t bits = next_random(state) >> 11;
    double uniform = (double)bits * 0x1p-53;
    if (!strcmp(kind, "int")) return (double)(bits % 7) - 3;
    if (!strcmp(kind, "real")) return 4 * uniform - 2;
    if (!strcmp(kind, "positive")) return 0.5 + uniform;
    if (!strcmp(kind, "below")) return floor(uniform * parameter);
    if (!strcmp(kind, "value")) return parameter;
    give_up("no kind of contents %s", kind);
}

struct buffer make_buffer(const char *name, const char *type, const char *kind, ptrdiff_t count, double parameter,
                          bool off_alignment) {
    struct buffer buffer = {.count = count, .comparison = COMPARE_ALL};
    if (strlen(name) >= sizeof buffer.name || strlen(type) >= sizeof buffer.type) give_up("name too long: %s", name);
    if (count < 0) give_up("%s would have %td elements", name, count);
    strcpy(buffer.name, name);
    strcpy(buffer.type, type);
    size_t size = element_size(type), shift = !off_alignment ? 0
                                              : size < 4     ? 4
                                                             : size; /* bytes may hold wider indices */
    buffer.bytes = (size_t)count * size;
    buffer.memory = malloc(buffer.bytes + shift > 0 ? buffer.bytes + shift : 1);
    if (!buffer.memory) give_up("no memory for %s", name);
    buffer.data = buffer.memory + shift;
    if (!strcmp(kind, "scratch")) buffer.comparison = COMPARE_NOT;
    if (!strcmp(kind, "packed")) buffer.comparison = COMPARE_THREADS;
    if (!strcmp(kind, "out") || buffer.comparison != COMPARE_ALL) {
        memset(buffer.data, POISON, buffer.bytes);
        return buffer;
    }
    uint64_t state = 0;
    for (const char *c = name; *c; c++) state = state * 31 + (unsigned char)*c;
    for (ptrdiff_t i = 0; i < count; i++) store(buffer.data + (size_t)i * size, type, draw(kind, parameter, &state));
    return buffer;
}

void free_buffer(struct buffer *buffer) { free(buffer->memory); }

static char message[160];

const char *unwritten(const struct buffer *buffer) {
    size_t size = element_size(buffer->type);
    char poison[8];
    memset(poison, POISON, sizeof poison);
    for (ptrdiff_t i = 0; i < buffer->count && size > 1; i++)
        if (!memcmp(buffer->data + (size_t)i * size, poison, size)) {
            snprintf(message, sizeof message, "%s[%td] of %td was never written", buffer->name, i, buffer->count);
            return message;
        }
    return NULL;
}

static const char *integer_difference(const struct buffer *expected, const struct buffer *got) {
    size_t size = element_size(got->type);
    ptrdiff_t i = 0;
    while (!memcmp(expected->data + (size_t)i * size, got->data + (size_t)i * size, size)) ++i;
    snprintf(message, sizeof message, "%s[%td] of %td differs", got->name, i, got->count);
    return message;
}

const char *difference(const struct buffer *expected, const struct buffer *got, double tolerance) {
    if (expected->count != got->count) return "sizes differ";
    if (!memcmp(expected->data, got->data, got->bytes)) return NULL;
    if (strcmp(got->type, "float")) return integer_difference(expected, got);
    const float *a = (const float *)expected->data, *b = (const float *)got->data;
    double largest = 0;
    for (ptrdiff_t i = 0; i < got->count; i++)
        if (isfinite(a[i])) largest = fmax(largest, fabs((double)a[i]));
    for (ptrdiff_t i = 0; i < got->count; i++) {
        bool equal = a[i] == b[i] || (isnan(a[i]) && isnan(b[i]));
        if (tolerance == SAME_BITS) equal = !memcmp(&a[i], &b[i], sizeof(float));
        if (equal || fabs((double)a[i] - (double)b[i]) <= tolerance * largest) continue;
        snprintf(message, sizeof message, "%s[%td] of %td is %.9g, not %.9g", got->name, i, got->count, (double)b[i],
                 (double)a[i]);
        return message;
    }
    return NULL;
}
