# A part of _core.pyx, which includes it: a call like one before is recognised here, shapes, memory order, settings and
# clocks, and its program runs without a line of Python.

cdef enum:
    FORM_AXES = 8
    ROUTE_ARRAYS = 16
    ROUTES_KEPT = 4


cdef class Form:
    """What an array of a repeated call looks like: element type, shape, order in memory, range of its values."""
    cdef int type_number, axes
    cdef bint channels_last, limited, has_exception
    cdef cnp.npy_intp shape[FORM_AXES]
    cdef int64_t least, most, exception

    def __init__(self, dtype, tuple shape, bint channels_last, limits=None):
        """shape: logical. channels_last: a 4-D array N,C,H,W that lies N,H,W,C in memory. limits: None, or
        (least, most, exception or None) of an integer array."""
        if len(shape) > FORM_AXES or channels_last and len(shape) != 4:
            raise ValueError(f"an array of {len(shape)} axes cannot have this form")
        self.type_number = cnp.NPY_FLOAT if dtype == "f" else cnp.NPY_INT64
        self.axes, self.channels_last = len(shape), channels_last
        for i, extent in enumerate(shape):
            self.shape[i] = extent
        if limits is not None:
            self.limited = True
            self.least, self.most, exception = limits
            self.has_exception = exception is not None
            self.exception = exception or 0

    cdef bint fits(self, array) except -1:
        """Whether a kernel may read the array as it lies, and every value is in range."""
        cdef int axis
        cdef cnp.ndarray given
        if not cnp.PyArray_CheckExact(array):
            return False
        given = <cnp.ndarray>array
        if (cnp.PyArray_TYPE(given) != self.type_number or cnp.PyArray_NDIM(given) != self.axes
                or not cnp.PyArray_ISALIGNED(given) or not cnp.PyArray_ISNOTSWAPPED(given)):
            return False
        for axis in range(self.axes):
            if cnp.PyArray_DIM(given, axis) != self.shape[axis]:
                return False
        if self.channels_last:
            return self._lies_channels_last(given)
        if not cnp.PyArray_IS_C_CONTIGUOUS(given):
            return False
        return not self.limited or self._in_range(given)

    cdef bint _lies_channels_last(self, cnp.ndarray array):
        cdef cnp.npy_intp stride = cnp.PyArray_ITEMSIZE(array)
        cdef int i, axis
        for i in range(4):
            axis = 3 * (i == 1) + 2 * (i == 2) + (i == 0)  # C, W, H, N
            if self.shape[axis] != 1 and cnp.PyArray_STRIDE(array, axis) != stride:
                return False
            stride *= self.shape[axis]
        return True

    cdef bint _in_range(self, cnp.ndarray array):
        cdef const int64_t *values = <const int64_t *>cnp.PyArray_DATA(array)
        cdef cnp.npy_intp i
        for i in range(cnp.PyArray_SIZE(array)):
            if (values[i] < self.least or values[i] > self.most) and not (
                    self.has_exception and values[i] == self.exception):
                return False
        return True

    cdef cnp.ndarray fresh(self):
        """A new array of this form, in memory order."""
        cdef cnp.npy_intp shape[FORM_AXES]
        cdef int axis
        for axis in range(self.axes):
            shape[axis] = self.shape[axis]
        if self.channels_last:
            shape[1], shape[2], shape[3] = self.shape[2], self.shape[3], self.shape[1]
        return _new_array(self.axes, shape, self.type_number, 4 if self.type_number == cnp.NPY_FLOAT else 8)


cdef class Route:
    """All that was found out for one call, and what must not have changed for the next one to be like it."""
    cdef Program program
    cdef tuple inputs, outputs, value_names, written
    cdef object choice
    cdef int threads
    cdef int64_t structure, weights

    def __init__(self, Program program not None, tuple inputs, tuple outputs, tuple value_names, tuple written,
                 choice, int threads, int64_t structure, int64_t weights):
        """inputs, outputs: a Form for each array. written: the variables that a run changes. choice, threads,
        structure, weights: the settings and clocks that the program is right for."""
        sizes = program.external_sizes
        if len(inputs) + len(outputs) != len(sizes) or len(sizes) > ROUTE_ARRAYS:
            raise ValueError(f"a route of {len(inputs)} inputs and {len(outputs)} outputs does not fit its program")
        for form, size in zip(inputs + outputs, sizes):
            bytes_needed = tensor_bytes(tuple([(<Form?>form).shape[i] for i in range((<Form>form).axes)]),
                                        4 if (<Form>form).type_number == cnp.NPY_FLOAT else 8)
            if bytes_needed != size:
                raise ValueError(f"an array of {bytes_needed} bytes does not fit its program's {size}")
        if any(program.external_written[:len(inputs)]):
            raise ValueError("the program writes to its inputs")
        if len(value_names) != program.value_count:
            raise ValueError(f"{len(value_names)} names for {program.value_count} values")
        self.program, self.inputs, self.outputs = program, inputs, outputs
        self.value_names, self.written = value_names, written
        self.choice, self.threads, self.structure = choice, threads, structure
        self.weights = weights if program.prologue else -1

    cdef bint fits(self, tuple inputs, dict runtime) except -1:
        cdef Py_ssize_t i
        if len(inputs) != len(self.inputs):
            return False
        for name in self.value_names:
            if runtime is None or name not in runtime:
                return False
        for i in range(len(inputs)):
            if not (<Form>self.inputs[i]).fits(inputs[i]):
                return False
        return True

    cdef tuple run(self, tuple inputs, dict runtime):
        cdef char *pointers[ROUTE_ARRAYS]
        cdef Py_ssize_t i, count = len(inputs)
        cdef cnp.ndarray array
        cdef list results = []
        for i in range(count):
            pointers[i] = <char *>cnp.PyArray_DATA(<cnp.ndarray>inputs[i])
        for form in self.outputs:
            array = (<Form>form).fresh()
            pointers[count] = <char *>cnp.PyArray_DATA(array)
            count += 1
            results.append(array.transpose(0, 3, 1, 2) if (<Form>form).channels_last else array)
        values = tuple([runtime[name] for name in self.value_names]) if self.value_names else ()
        self.program._run_known(pointers, values)
        return tuple(results)


cdef class Calls:
    """The routes of one function: a call like one before is recognised in C, and nothing is looked up for it."""
    cdef list routes
    cdef object choice               # () -> the settings in force
    cdef Clock structure, weights

    def __init__(self, choice, Clock structure not None, Clock weights not None):
        self.routes = []
        self.choice, self.structure, self.weights = choice, structure, weights

    def remember(self, Route route not None):
        """Puts a route before those known; one that it replaces, and the oldest, go."""
        self.routes = [route, *[r for r in self.routes if (<Route>r).program is not route.program]][:ROUTES_KEPT]

    def run(self, tuple inputs not None, dict runtime=None):
        """The outputs of a call like one before, images seen as N,C,H,W; None: the call is another."""
        cdef Route route
        cdef list routes = self.routes
        if not routes:
            return None
        choice = self.choice()
        for found in routes:
            route = <Route>found
            if (route.choice is choice and route.structure == self.structure.now
                    and route.threads == fastnn_get_num_threads()
                    and (route.weights == -1 or route.weights == self.weights.now)
                    and route.fits(inputs, runtime)):
                results = route.run(inputs, runtime)
                if route.written:
                    self.weights.stamp(route.written)
                return results
        return None
