# A part of _core.pyx, which includes it: what steps of a program are given, places and numbers, and checks of both.

ARENA, CONSTANT, STATIC, EXTERNAL = range(4)
cdef enum:
    SPACE_ARENA = 0
    SPACE_CONSTANT = 1
    SPACE_STATIC = 2
    SPACE_EXTERNAL = 3


cdef class Pointer:
    """`size` bytes at `offset` of a space: the arena, the program's constants, array `index` of the statics
    (parameters and buffers, fixed when the program is built) or of the externals (given at every run)."""
    cdef readonly int space
    cdef readonly ptrdiff_t index, offset, size

    def __init__(self, int space, ptrdiff_t index, ptrdiff_t offset, ptrdiff_t size):
        if not (SPACE_ARENA <= space <= SPACE_EXTERNAL) or index < 0 or offset < 0 or size < 0:
            raise ValueError("not a pointer into any space of a program")
        self.space, self.index, self.offset, self.size = space, index, offset, size


cdef class Runtime:
    """A number given at every run: value `index` of the run's values."""
    cdef readonly ptrdiff_t index

    def __init__(self, ptrdiff_t index):
        self.index = index


def _table_entry(name, field, entry):
    if entry is None or isinstance(entry, Pointer):
        return "update", entry
    if isinstance(entry, float):
        return "real", entry
    if isinstance(entry, int):
        return "size", entry
    raise TypeError(f"kernel {name}: table {field} cannot hold {entry!r}")


def _check_static(array):
    if not isinstance(array, cnp.ndarray):
        raise TypeError(f"a program works on NumPy arrays, not {type(array).__name__}")
    if not (array.flags.c_contiguous and array.flags.aligned):
        raise ValueError("a program works on C-contiguous, aligned arrays")
    if not _is_plain(<cnp.ndarray>array):
        raise TypeError(f"a program works on numbers in native byte order, not on {array.dtype}")


cdef bint _is_plain(cnp.ndarray array) noexcept:
    """Whether the elements are real numbers in native byte order; anything else is no memory for kernels."""
    return cnp.PyArray_ISNOTSWAPPED(array) and (cnp.PyArray_ISINTEGER(array) or cnp.PyArray_ISFLOAT(array)
                                                or cnp.PyArray_ISBOOL(array))


def _checked_size(size):
    if not isinstance(size, int):
        raise TypeError(f"the size of an array is an integer, not {size!r}")
    if not 0 <= size < 2**63:
        raise ValueError(f"an array cannot have {size} bytes")
    return size


cdef _check_external(array, ptrdiff_t size, bint written):
    if not isinstance(array, cnp.ndarray):
        raise TypeError(f"a program works on NumPy arrays, not {type(array).__name__}")
    cdef cnp.ndarray checked = <cnp.ndarray>array
    if not (cnp.PyArray_IS_C_CONTIGUOUS(checked) and cnp.PyArray_ISALIGNED(checked)):
        raise ValueError("a program works on C-contiguous, aligned arrays")
    if not _is_plain(checked):
        raise TypeError(f"a program works on numbers in native byte order, not on {array.dtype}")
    if cnp.PyArray_NBYTES(checked) != size:
        raise ValueError(f"the program needs an array of {size} bytes, got one of {cnp.PyArray_NBYTES(checked)}")
    if written and not cnp.PyArray_ISWRITEABLE(checked):
        raise ValueError("the program would write to a read-only array")
