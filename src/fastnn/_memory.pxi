# A part of _core.pyx, which includes it: the memory of plans and of large results, from csrc/memory.c.

cdef ptrdiff_t _memory_in_use = 0


def memory_in_use():
    """Bytes that plans hold now: the arenas of their runs and their constants."""
    return _memory_in_use


cdef class Memory:
    """An aligned block of memory, freed with the object."""
    cdef char *data
    cdef readonly ptrdiff_t size

    def __cinit__(self, ptrdiff_t size):
        global _memory_in_use
        self.data = <char *>fnn_memory_allocate(size)
        if self.data == NULL:
            raise MemoryError(f"a plan needs {size} bytes at once, which the system does not give")
        self.size = size
        _memory_in_use += size

    def __dealloc__(self):
        global _memory_in_use
        _memory_in_use -= self.size
        fnn_memory_free(self.data, self.size)


def release_memory():
    """Gives the memory of freed results and plans back to the system, which is otherwise kept for the next ones (256 MB
    at most)."""
    fnn_memory_release()


cdef enum:
    LARGE_ARRAY = 4194304            # bytes from which memory of our own is worth its while
    MOST_AXES = 64                   # of any NumPy's arrays


cdef class _Block:
    """The memory of a large result, freed with the array."""
    cdef void *data
    cdef ptrdiff_t size

    def __cinit__(self, ptrdiff_t size):
        self.data = fnn_memory_allocate(size)
        if self.data == NULL:
            raise MemoryError(f"a result needs {size} bytes at once, which the system does not give")
        self.size = size

    def __dealloc__(self):
        fnn_memory_free(self.data, self.size)


cdef cnp.ndarray _new_array(int axes, cnp.npy_intp *shape, int type_number, ptrdiff_t item_bytes):
    """An uninitialised array; a large one in memory that is aligned for streaming stores and used again when freed."""
    cdef ptrdiff_t size = item_bytes
    cdef int axis
    for axis in range(axes):
        size *= shape[axis]
    if size < LARGE_ARRAY:
        return cnp.PyArray_EMPTY(axes, shape, type_number, 0)
    cdef _Block block = _Block(size)
    cdef cnp.ndarray array = cnp.PyArray_SimpleNewFromData(axes, shape, type_number, block.data)
    cnp.set_array_base(array, block)
    return array


def new_array(tuple shape, dtype):
    """An uninitialised, C-contiguous array of numbers of the given shape and NumPy dtype."""
    cdef cnp.npy_intp extents[MOST_AXES]
    cdef ptrdiff_t item_bytes = dtype.itemsize
    if len(shape) > MOST_AXES or min(shape, default=0) < 0:
        raise ValueError(f"an array cannot have shape {shape}")
    tensor_bytes(shape, item_bytes)
    for i, extent in enumerate(shape):
        extents[i] = extent
    return _new_array(len(shape), extents, dtype.num, item_bytes)
