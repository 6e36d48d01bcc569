/* One run of one case: its lines are read, buffers made, steps run. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "native.h"

static struct buffer *find_buffer(struct trial *trial, const char *name) {
    for (int i = trial->buffer_count; i-- > 0;)
        if (!strcmp(trial->buffers[i].name, name)) return &trial->buffers[i];
    give_up("%s: no buffer %s", trial->test->name, name);
}

/* Copies text up to a character of `ends` (or its end) to word; returns where that is. */
static const char *copy_until(const char *text, const char *ends, char *word) {
    size_t length = strcspn(text, ends);
    if (length >= NAME_BYTES) give_up("too long: %s", text);
    memcpy(word, text, length);
    word[length] = '\0';
    return text + length;
}

/* "kind(count)" or "kind(count,parameter)"; the comma of the parameter lies outside of all brackets */
static const void *make_pointer(struct trial *trial, const char *name, const char *type, const char *text,
                                const char **end) {
    if (!strncmp(text, "null", 4)) {
        *end = text + 4;
        return NULL;
    }
    char word[NAME_BYTES];
    if (*text == '@') {
        *end = copy_until(text + 1, " ,}", word);
        return find_buffer(trial, word)->data;
    }
    if (trial->buffer_count == BUFFER_LIMIT) give_up("%s: too many buffers", trial->test->name);
    text = copy_until(text, "(", word);
    if (*text != '(') give_up("%s: contents expected for %s", trial->test->name, name);
    ++text;
    ptrdiff_t count = evaluate(&text, &trial->variables);
    double parameter = 0;
    if (*text == ',') {
        ++text;
        parameter = (double)evaluate(&text, &trial->variables);
    }
    if (*text != ')') give_up("%s: ')' expected at: %s", trial->test->name, text);
    *end = text + 1;
    struct buffer *buffer = &trial->buffers[trial->buffer_count++];
    *buffer = make_buffer(name, type, word, count, parameter, trial->threads % 2 == 0);
    return buffer->data;
}

/* "{name:kind(count),@name,null,1.5,expression,...}": float buffers, pointers, reals and sizes, one slot each */
static const union fnn_slot *make_table(struct trial *trial, const char *text) {
    enum { TABLE_LIMIT = 64 };
    union fnn_slot *table = calloc(TABLE_LIMIT, sizeof *table);
    if (!table || trial->step_count == STEP_LIMIT) give_up("%s: no room for a table", trial->test->name);
    int count = 0;
    for (++text; *text && *text != '}'; count++) {
        if (count == TABLE_LIMIT) give_up("%s: table too long", trial->test->name);
        char word[NAME_BYTES];
        const char *after = copy_until(text, ":,}", word);
        if (*after == ':')
            table[count].pointer = make_pointer(trial, word, "float", after + 1, &text);
        else if (*text == '@' || !strcmp(word, "null"))
            table[count].pointer = make_pointer(trial, word, "", text, &text);
        else if (strchr(word, '.'))
            table[count].real = strtod(text, NULL), text = after;
        else
            table[count].size = evaluate(&text, &trial->variables);
        if (*text == ',') ++text;
    }
    trial->slots[trial->step_count++] = table; /* freed with the trial */
    return table;
}

static bool is_pointer(enum fnn_field_kind kind) { return kind <= FNN_FIELD_UPDATE; }

/* The value of one field: as given, or the variable of its name. */
static union fnn_slot make_slot(struct trial *trial, const struct fnn_field *field, const char *text) {
    union fnn_slot slot = {.size = 0};
    if (!text) {
        const ptrdiff_t *value = find_variable(&trial->variables, field->name);
        if (!value || is_pointer(field->kind)) give_up("%s: no value for %s", trial->test->name, field->name);
        if (field->kind == FNN_FIELD_REAL)
            slot.real = (double)*value;
        else
            slot.size = *value;
        return slot;
    }
    if (is_pointer(field->kind)) {
        slot.pointer = make_pointer(trial, field->name, field->type, text, &text);
        bool optional = field->kind == FNN_FIELD_IN_OPTIONAL || field->kind == FNN_FIELD_OUT_OPTIONAL;
        if (!slot.pointer && !optional) give_up("%s: %s cannot be null", trial->test->name, field->name);
    } else if (field->kind == FNN_FIELD_TABLE) {
        slot.pointer = make_table(trial, text);
    } else if (field->kind == FNN_FIELD_REAL) {
        slot.real = strtod(text, NULL);
    } else {
        slot.size = evaluate(&text, &trial->variables);
    }
    return slot;
}

/* The text behind "field=" among the words of a step, or null. */
static const char *given_value(char *const words[], int count, const char *field) {
    size_t length = strlen(field);
    for (int i = 0; i < count; i++)
        if (!strncmp(words[i], field, length) && words[i][length] == '=') return words[i] + length + 1;
    return NULL;
}

static int find_kernel(const char *name) {
    for (int id = 0; id < FNN_KERNEL_COUNT; id++)
        if (!strcmp(fnn_kernel_infos[id].name, name)) return id;
    give_up("no kernel %s", name);
}

static void add_step(struct trial *trial, char *line, bool *kernels_run) {
    enum { WORD_LIMIT = 64 };
    char *words[WORD_LIMIT], *rest = NULL;
    int count = 0, used = 0;
    for (char *word = strtok_r(line, " \t", &rest); word && count < WORD_LIMIT; word = strtok_r(NULL, " \t", &rest))
        words[count++] = word;
    const int id = find_kernel(words[0]);
    const struct fnn_kernel_info *info = &fnn_kernel_infos[id];
    union fnn_slot *slots = calloc((size_t)info->field_count, sizeof *slots);
    if (!slots) give_up("no memory");
    for (ptrdiff_t i = 0; i < info->field_count; i++) {
        const char *text = given_value(words + 1, count - 1, info->fields[i].name);
        used += text != NULL;
        slots[i] = make_slot(trial, &info->fields[i], text);
    }
    if (used != count - 1) give_up("%s: a field that %s does not have, or one twice", trial->test->name, info->name);
    if (trial->step_count == STEP_LIMIT) give_up("%s: too many steps", trial->test->name);
    trial->steps[trial->step_count] =
        (struct fnn_step){.run = trial->isa->kernels[id], .args = slots, .sharing = FNN_PIECEWISE};
    trial->slots[trial->step_count++] = slots;
    kernels_run[id] = true;
}

/* "name = a | b | c": the run chooses */
static void add_variable(struct trial *trial, const char *line) {
    char name[NAME_BYTES];
    const char *text = copy_until(line, " =", name);
    text += strspn(text, " =");
    int alternatives = 1, chosen;
    for (const char *c = text; *c; c++) alternatives += *c == '|';
    chosen = trial->run % alternatives;
    for (; chosen > 0; chosen--) text = strchr(text, '|') + 1;
    text += strspn(text, " ");
    set_variable(&trial->variables, name, evaluate(&text, &trial->variables));
}

struct trial *run_trial(const struct test_case *test, const struct fnn_isa_info *isa, int threads, int run,
                        bool *kernels_run) {
    struct trial *trial = calloc(1, sizeof *trial);
    if (!trial) give_up("no memory");
    trial->test = test;
    trial->isa = isa;
    trial->threads = threads;
    trial->run = run;
    set_variable(&trial->variables, "threads", trial->threads);
    set_variable(&trial->variables, "lanes", trial->isa->lanes);
    set_variable(&trial->variables, "gemm_rows", trial->isa->gemm_rows);
    set_variable(&trial->variables, "gemm_columns", trial->isa->gemm_columns);
    for (int i = 0; i < trial->test->line_count; i++) {
        char line[LINE_BYTES];
        strcpy(line, trial->test->lines[i]);
        if (strstr(line, " = "))
            add_variable(trial, line);
        else
            add_step(trial, line, kernels_run);
    }
    struct fnn_step steps[STEP_LIMIT];
    int count = 0;
    for (int i = 0; i < trial->step_count; i++)
        if (trial->steps[i].run) steps[count++] = trial->steps[i]; /* the others are tables */
    fnn_plan_run(steps, count, trial->threads);
    return trial;
}

void free_trial(struct trial *trial) {
    for (int i = 0; i < trial->buffer_count; i++) free_buffer(&trial->buffers[i]);
    for (int i = 0; i < trial->step_count; i++) free(trial->slots[i]);
    free(trial);
}
