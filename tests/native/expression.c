/* Integer expressions over named variables. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "native.h"

const ptrdiff_t *find_variable(const struct variables *variables, const char *name) {
    for (int i = 0; i < variables->count; i++)
        if (!strcmp(variables->list[i].name, name)) return &variables->list[i].value;
    return NULL;
}

void set_variable(struct variables *variables, const char *name, ptrdiff_t value) {
    if (variables->count == VARIABLE_LIMIT || strlen(name) >= NAME_BYTES) give_up("no room for variable %s", name);
    if (find_variable(variables, name)) give_up("variable %s is set twice", name);
    struct variable *variable = &variables->list[variables->count++];
    strcpy(variable->name, name);
    variable->value = value;
}

static void expect(const char **text, char wanted) {
    if (**text != wanted) give_up("'%c' expected at: %s", wanted, *text);
    ++*text;
}

/* up[a,b] and max[a,b] */
static ptrdiff_t evaluate_function(const char **text, const struct variables *variables, const char *name) {
    expect(text, '[');
    ptrdiff_t a = evaluate(text, variables);
    expect(text, ',');
    ptrdiff_t b = evaluate(text, variables);
    expect(text, ']');
    if (!strcmp(name, "up")) return (a + b - 1) / b * b;
    if (!strcmp(name, "max")) return a > b ? a : b;
    give_up("no function %s", name);
}

static ptrdiff_t evaluate_factor(const char **text, const struct variables *variables) {
    if (**text == '(') {
        ++*text;
        ptrdiff_t value = evaluate(text, variables);
        expect(text, ')');
        return value;
    }
    if (**text == '-') {
        ++*text;
        return -evaluate_factor(text, variables);
    }
    if (isdigit((unsigned char)**text)) {
        char *end;
        ptrdiff_t value = strtoll(*text, &end, 10);
        *text = end;
        return value;
    }
    char name[NAME_BYTES];
    size_t length = 0;
    while (isalnum((unsigned char)(*text)[length]) || (*text)[length] == '_') ++length;
    if (length == 0 || length >= NAME_BYTES) give_up("a number or a variable expected at: %s", *text);
    memcpy(name, *text, length);
    name[length] = '\0';
    *text += length;
    if (**text == '[') return evaluate_function(text, variables, name);
    const ptrdiff_t *value = find_variable(variables, name);
    if (!value) give_up("no variable %s", name);
    return *value;
}

static ptrdiff_t evaluate_product(const char **text, const struct variables *variables) {
    ptrdiff_t value = evaluate_factor(text, variables);
    while (**text == '*' || **text == '/') {
        char operation = *(*text)++;
        ptrdiff_t other = evaluate_factor(text, variables);
        if (operation == '/' && other == 0) give_up("division by zero");
        value = operation == '*' ? value * other : value / other;
    }
    return value;
}

ptrdiff_t evaluate(const char **text, const struct variables *variables) {
    ptrdiff_t value = evaluate_product(text, variables);
    while (**text == '+' || **text == '-') {
        char operation = *(*text)++;
        ptrdiff_t other = evaluate_product(text, variables);
        value = operation == '+' ? value + other : value - other;
    }
    return value;
}
