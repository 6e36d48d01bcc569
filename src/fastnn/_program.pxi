# A part of _core.pyx, which includes it: kernel calls whose arguments were checked once, and their runs.

PIECEWISE, EVENLY, ALONE = FNN_PIECEWISE, FNN_EVENLY, FNN_ALONE  # how a team shares a step: see fastnn.h

_numbers = itertools.count(1)


cdef struct Relocation:
    ptrdiff_t slot
    int space
    ptrdiff_t index
    ptrdiff_t offset

cdef struct RuntimeSlot:
    ptrdiff_t slot
    ptrdiff_t index
    bint is_word


cdef class Instance:
    """One execution's own memory: an arena and the arguments that point into it."""
    cdef Memory arena
    cdef Memory constants
    cdef fnn_slot *slots
    cdef fnn_step *steps
    cdef int64_t program             # the number of the program that made it; 0: none did

    def __dealloc__(self):
        free(self.slots)
        free(self.steps)


cdef class Program:
    """Steps ready to run.

    steps: [(kernel, {field: value}, sharing)]; a value is an int, float, None, Pointer, Runtime, or for a table field a
    list of such values; sharing is PIECEWISE, EVENLY or ALONE. statics: arrays that stay for the program's life.
    externals: for each array given at a run, its size in bytes. The first `prologue` steps fill the constants, and run
    again only after `refresh()`; the rest run every time. `team`: the most threads that the steps have room for,
    whatever is set when they run; 0: any number.
    """
    cdef list fields                 # per step, for messages
    cdef tuple statics
    cdef list external_sizes, external_written
    cdef fnn_slot *slots
    cdef fnn_step *steps             # args hold offsets into slots until instantiated
    cdef ptrdiff_t *args_begin
    cdef Relocation *relocations
    cdef RuntimeSlot *runtimes
    cdef ptrdiff_t slot_count, relocation_count, runtime_count
    cdef readonly ptrdiff_t step_count, prologue, arena_bytes, constant_bytes, value_count
    cdef int team                    # the most threads that may run it
    cdef bint brief                  # so short that releasing the GIL costs more than it gives
    cdef Memory constants
    cdef ptrdiff_t wanted, filled    # the constants are current when these are equal
    cdef object lock
    cdef list idle                   # None until the program is built
    cdef int64_t number              # no other program has it

    def __cinit__(self):
        self.slots = NULL
        self.steps = NULL
        self.args_begin = NULL
        self.relocations = NULL
        self.runtimes = NULL

    def __init__(self, str isa, list steps, tuple statics, external_sizes, ptrdiff_t arena_bytes,
                 ptrdiff_t constant_bytes=0, ptrdiff_t prologue=0, ptrdiff_t value_count=0, bint brief=False,
                 int team=0):
        if self.steps != NULL:
            raise RuntimeError("a program is built once")
        if isa not in ISAS:
            raise ValueError(f"this CPU does not run ISA {isa!r}; it runs {', '.join(ISAS)}")
        if arena_bytes < 0 or constant_bytes < 0 or not 0 <= prologue <= len(steps):
            raise ValueError("arena, constants and prologue of a program cannot be negative or longer than it")
        if team < 0:
            raise ValueError(f"a team of at most {team} threads")
        self.statics = statics
        for array in statics:
            _check_static(array)
        self.external_sizes = [_checked_size(size) for size in external_sizes]
        self.external_written = [False] * len(self.external_sizes)
        self.step_count, self.prologue = len(steps), prologue
        self.arena_bytes, self.constant_bytes = arena_bytes, constant_bytes
        self.value_count, self.brief, self.team = value_count, brief, team
        self.lock = _Lock()
        self.number = next(_numbers)
        self.wanted, self.filled = 1, 0
        flat, begins = self._flatten(steps)
        self._fill(ISAS[isa]["index"], steps, flat, begins)
        self.idle = []

    def __dealloc__(self):
        free(self.slots)
        free(self.steps)
        free(self.args_begin)
        free(self.relocations)
        free(self.runtimes)

    cdef tuple _flatten(self, list steps):
        """All steps' arguments as one list of (kind, value), tables behind the fields of their step."""
        flat, begins = [], []
        for name, arguments, _sharing in steps:
            if name not in KERNELS:
                raise ValueError(f"there is no kernel {name!r}")
            fields = KERNELS[name]
            unknown = arguments.keys() - {field for field, _, _ in fields}
            missing = {field for field, _, _ in fields} - arguments.keys()
            if unknown or missing:
                raise ValueError(f"kernel {name}: unknown arguments {sorted(unknown)}, missing {sorted(missing)}")
            begins.append(len(flat))
            table_at = len(flat) + len(fields)
            tables = []
            for field, kind, _ in fields:
                value = arguments[field]
                if kind == "table":
                    flat.append(("self", table_at + len(tables)))
                    tables.extend(_table_entry(name, field, entry) for entry in value)
                else:
                    self._check_argument(name, field, kind, value)
                    flat.append((kind, value))
            flat.extend(tables)
            for kind, value in flat[begins[len(begins) - 1]:]:
                self._check_pointer(name, kind, value)
        return flat, begins

    def _check_argument(self, name, field, kind, value):
        if kind in ("in", "out", "update"):
            good = isinstance(value, Pointer)
        elif kind in ("in_optional", "out_optional"):
            good = value is None or isinstance(value, Pointer)
        elif kind == "size":
            good = isinstance(value, int)
        elif kind == "word":
            good = isinstance(value, (int, Runtime))
        else:
            good = isinstance(value, (int, float, Runtime))
        if not good:
            raise TypeError(f"kernel {name}: argument {field} ({kind}) cannot be {value!r}")
        if isinstance(value, Runtime) and not 0 <= value.index < self.value_count:
            raise ValueError(f"kernel {name}: argument {field} names run-time value {value.index} "
                             f"of {self.value_count}")

    def _check_pointer(self, name, kind, value):
        """The bytes a step may touch lie inside the space it points into."""
        if not isinstance(value, Pointer):
            return
        cdef Pointer pointer = value
        writes = kind in ("out", "out_optional", "update")
        arrays = {SPACE_STATIC: len(self.statics), SPACE_EXTERNAL: len(self.external_sizes)}.get(pointer.space)
        if arrays is not None and pointer.index >= arrays:
            raise ValueError(f"kernel {name}: array {pointer.index} of {arrays}")
        if pointer.space == SPACE_ARENA:
            size = self.arena_bytes
        elif pointer.space == SPACE_CONSTANT:
            size = self.constant_bytes
        elif pointer.space == SPACE_STATIC:
            size = self.statics[pointer.index].nbytes
            if writes and not self.statics[pointer.index].flags.writeable:
                raise ValueError(f"kernel {name} would write to a read-only array")
        else:
            size = self.external_sizes[pointer.index]
            if writes:
                self.external_written[pointer.index] = True
        end = <object>pointer.offset + <object>pointer.size  # beyond 64 bits, perhaps
        if end > size:
            raise ValueError(f"kernel {name}: bytes {pointer.offset} to {end} of a space of {size}")

    cdef _fill(self, int isa, list steps, list flat, list begins):
        cdef fnn_kernel *const *kernels = fnn_isa(<fnn_isa_id>isa).kernels
        cdef ptrdiff_t i
        order = {name: position for position, name in enumerate(KERNELS)}
        self.slot_count = len(flat)
        self.slots = <fnn_slot *>_allocate(len(flat) * sizeof(fnn_slot))
        self.steps = <fnn_step *>_allocate(len(steps) * sizeof(fnn_step))
        self.args_begin = <ptrdiff_t *>_allocate(len(steps) * sizeof(ptrdiff_t))
        self.relocations = <Relocation *>_allocate(len(flat) * sizeof(Relocation))
        self.runtimes = <RuntimeSlot *>_allocate(len(flat) * sizeof(RuntimeSlot))
        for i in range(len(steps)):
            self.steps[i].run = kernels[<int>order[steps[i][0]]]
            self.steps[i].sharing = steps[i][2]
            self.args_begin[i] = begins[i]
        for i in range(len(flat)):
            self._fill_slot(i, flat[i][0], flat[i][1])

    cdef _fill_slot(self, ptrdiff_t i, str kind, value):
        cdef Pointer pointer
        self.slots[i].pointer = NULL
        if kind == "self":
            self._relocate(i, -1, 0, value)
        elif isinstance(value, Pointer):
            pointer = value
            self._relocate(i, pointer.space, pointer.index, pointer.offset)
        elif isinstance(value, Runtime):
            self.runtimes[self.runtime_count] = RuntimeSlot(slot=i, index=value.index, is_word=kind == "word")
            self.runtime_count += 1
        elif kind == "size":
            self.slots[i].size = value
        elif kind == "word":
            self.slots[i].word = PyLong_AsUnsignedLongLong(value)
        elif kind == "real":
            self.slots[i].real = value

    cdef _relocate(self, ptrdiff_t slot, int space, ptrdiff_t index, ptrdiff_t offset):
        self.relocations[self.relocation_count] = Relocation(slot=slot, space=space, index=index, offset=offset)
        self.relocation_count += 1

    # -- running

    cdef Instance _instance(self, Memory constants):
        """An idle instance, or a new one, that reads the given constants."""
        cdef Instance instance
        try:
            instance = self.idle.pop()
        except IndexError:
            instance = Instance()
            instance.program = self.number
            instance.arena = Memory(self.arena_bytes)
            instance.slots = <fnn_slot *>_allocate(self.slot_count * sizeof(fnn_slot))
            instance.steps = <fnn_step *>_allocate(self.step_count * sizeof(fnn_step))
            memcpy(instance.slots, self.slots, self.slot_count * sizeof(fnn_slot))
            memcpy(instance.steps, self.steps, self.step_count * sizeof(fnn_step))
            self._bind(instance, constants)
        if instance.constants is not constants:
            self._bind(instance, constants)
        return instance

    cdef _bind(self, Instance instance, Memory constants):
        """Points an instance's arguments at everything but the externals."""
        cdef ptrdiff_t i
        cdef Relocation *r
        cdef char *base
        for i in range(self.step_count):
            instance.steps[i].args = instance.slots + self.args_begin[i]
        for i in range(self.relocation_count):
            r = &self.relocations[i]
            if r.space == SPACE_EXTERNAL:
                continue
            if r.space < 0:
                instance.slots[r.slot].pointer = instance.slots + r.offset
                continue
            if r.space == SPACE_ARENA:
                base = instance.arena.data
            elif r.space == SPACE_CONSTANT:
                base = constants.data
            else:
                base = <char *>cnp.PyArray_DATA(<cnp.ndarray>self.statics[r.index])
            instance.slots[r.slot].pointer = base + r.offset
        instance.constants = constants

    cdef _bind_run(self, Instance instance, tuple externals, tuple values):
        """Points an instance's arguments at checked arrays and gives it the run's values."""
        cdef ptrdiff_t i
        cdef Relocation *r
        if len(externals) != len(self.external_sizes) or len(values) != self.value_count:
            raise ValueError(f"the program takes {len(self.external_sizes)} arrays and {self.value_count} values, "
                             f"got {len(externals)} and {len(values)}")
        for i in range(len(externals)):
            _check_external(externals[i], self.external_sizes[i], self.external_written[i])
        for i in range(self.relocation_count):
            r = &self.relocations[i]
            if r.space == SPACE_EXTERNAL:
                instance.slots[r.slot].pointer = <char *>cnp.PyArray_DATA(<cnp.ndarray>externals[r.index]) + r.offset
        self._bind_values(instance, values)

    cdef _bind_values(self, Instance instance, tuple values):
        cdef ptrdiff_t i
        cdef RuntimeSlot *runtime
        for i in range(self.runtime_count):
            runtime = &self.runtimes[i]
            if runtime.is_word:
                instance.slots[runtime.slot].word = PyLong_AsUnsignedLongLong(values[runtime.index])
            else:
                instance.slots[runtime.slot].real = values[runtime.index]

    cdef _run_known(self, char **externals, tuple values):
        """As run, for arrays that were found to be like those of an earlier run."""
        cdef Instance instance
        cdef ptrdiff_t i
        cdef Relocation *r
        instance = self._instance(self._current_constants())
        for i in range(self.relocation_count):
            r = &self.relocations[i]
            if r.space == SPACE_EXTERNAL:
                instance.slots[r.slot].pointer = externals[r.index] + r.offset
        if self.runtime_count:
            self._bind_values(instance, values)
        self._run_steps(instance, self.prologue, self.step_count)
        self.idle.append(instance)

    cdef int _threads(self):
        """The number of threads that is set, which another thread may have raised since the plan was made."""
        cdef int threads = fastnn_get_num_threads()
        return threads if self.team == 0 or threads < self.team else self.team

    cdef _run_steps(self, Instance instance, ptrdiff_t first, ptrdiff_t last):
        cdef int threads = self._threads()
        if self.brief:
            fnn_plan_run(instance.steps + first, last - first, 1)
            return
        with nogil:
            fnn_plan_run(instance.steps + first, last - first, threads)

    def may_write(self, ptrdiff_t count):
        """Whether a step may write to one of the first `count` externals; what stands in a table counts as written."""
        return any(self.external_written[:count])

    def refresh(self):
        """The statics changed: compute the constants anew before the next run."""
        if self.idle is None:
            raise RuntimeError("the program was never built")
        with self.lock:
            self.wanted += 1

    cdef Memory _current_constants(self):
        """The constants; fresh ones when the statics changed, while runs under way keep the old."""
        cdef Instance instance
        cdef Memory constants
        cdef ptrdiff_t wanted
        cdef int threads = self._threads()
        if self.idle is None:
            raise RuntimeError("the program was never built")
        if self.filled == self.wanted:
            return self.constants
        with self.lock:
            wanted = self.wanted
            if self.filled == wanted:
                return self.constants
            constants = Memory(self.constant_bytes)
            if self.prologue:
                instance = self._instance(constants)
                with nogil:
                    fnn_plan_run(instance.steps, self.prologue, threads)
                self.idle.append(instance)
            self.constants = constants
            self.filled = wanted
            return constants

    def run(self, tuple externals, tuple values=(), Clock clock=None, tuple written=()):
        """Runs all steps behind the prologue on the given arrays (C-contiguous, of exactly the declared sizes).

        Stamps the variables that they changed, before a signal is handled."""
        cdef Instance instance
        instance = self._instance(self._current_constants())
        self._bind_run(instance, externals, values)
        self._run_steps(instance, self.prologue, self.step_count)
        if written:
            clock.stamp(written)
        self.idle.append(instance)

    def begin(self):
        """An instance to run part by part with run_part; its arena lives as long as it does."""
        return self._instance(self._current_constants())

    def run_part(self, Instance instance not None, ptrdiff_t first, ptrdiff_t last, tuple externals, tuple values=(),
                 Clock clock=None, tuple written=()):
        """Runs steps first to last (exclusive, not counting the prologue) in an instance from begin().

        Stamps as run does."""
        cdef int threads = self._threads()
        if not 0 <= first <= last <= self.step_count - self.prologue:
            raise ValueError(f"steps {first} to {last} of {self.step_count - self.prologue}")
        if self.idle is None or instance.program != self.number:
            raise ValueError("the instance belongs to another program")
        self._bind_run(instance, externals, values)
        with nogil:
            fnn_plan_run(instance.steps + self.prologue + first, last - first, threads)
        if written:
            clock.stamp(written)

    def profile(self, tuple externals, tuple values=(), Clock clock=None, tuple written=()):
        """As run; returns the seconds that each step behind the prologue took."""
        cdef Instance instance
        cdef int threads = self._threads()
        cdef ptrdiff_t count = self.step_count - self.prologue
        instance = self._instance(self._current_constants())
        self._bind_run(instance, externals, values)
        cdef double *seconds = <double *>_allocate(count * sizeof(double))
        with nogil:
            fnn_plan_profile(instance.steps + self.prologue, count, threads, seconds)
        if written:
            clock.stamp(written)
        result = [seconds[i] for i in range(count)]
        free(seconds)
        self.idle.append(instance)
        return result


cdef void *_allocate(size_t size) except NULL:
    cdef void *memory = malloc(size if size else 1)
    if memory == NULL:
        raise MemoryError()
    return memory
