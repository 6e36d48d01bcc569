# cython: language_level=3, binding=True, embedsignature=False, boundscheck=False, wraparound=False
# cython: freethreading_compatible=True
"""The doorway to C: programs of kernels over arrays, ISAs, threads, geometry. Nothing else is compiled.

A Program is built once from steps whose arguments are checked against kernels.def, field by field; running it
checks the arrays passed in and makes one C call with the GIL released.
"""
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

import itertools
import threading

cimport numpy as cnp

from .locks import Lock as _Lock

cnp.import_array()

cdef extern from "Python.h":
    uint64_t PyLong_AsUnsignedLongLong(object number) except? <uint64_t>-1

cdef extern from "fastnn.h" nogil:
    union fnn_slot:
        const void *pointer
        ptrdiff_t size
        uint64_t word
        double real
    ctypedef struct fnn_team:
        pass
    ctypedef void fnn_kernel(const void *args, const fnn_team *team)
    cdef enum fnn_sharing:
        FNN_PIECEWISE
        FNN_EVENLY
        FNN_ALONE
    cdef struct fnn_step:
        fnn_kernel *run
        const fnn_slot *args
        fnn_sharing sharing
    cdef struct fnn_thread_limits:
        int affinity
        int cgroup
        int openmp
        int fastnn
        int chosen
    cdef enum fnn_isa_id "fnn_isa":
        FNN_ISA_COUNT
    cdef struct fnn_isa_info:
        const char *name
        ptrdiff_t lanes
        ptrdiff_t gemm_rows
        ptrdiff_t gemm_columns
        fnn_kernel *const *kernels
    cdef enum fnn_field_kind:
        FNN_FIELD_IN
        FNN_FIELD_IN_OPTIONAL
        FNN_FIELD_OUT
        FNN_FIELD_OUT_OPTIONAL
        FNN_FIELD_UPDATE
        FNN_FIELD_SIZE
        FNN_FIELD_WORD
        FNN_FIELD_REAL
        FNN_FIELD_TABLE
    cdef struct fnn_field:
        const char *name
        const char *type
        fnn_field_kind kind
    cdef struct fnn_kernel_info:
        const char *name
        ptrdiff_t field_count
        const fnn_field *fields
    const fnn_kernel_info fnn_kernel_infos[]
    int FNN_KERNEL_COUNT
    ptrdiff_t FNN_OVERFLOW

    void fnn_team_initialize()
    const char *fnn_team_backend()
    fnn_thread_limits fnn_read_thread_limits(const char *cgroup_root, const char *process_cgroup)
    void fastnn_set_num_threads(int threads)
    int fastnn_get_num_threads()
    void fnn_threads_initialize()
    const fnn_isa_info *fnn_isa(fnn_isa_id isa)
    void fnn_plan_run(const fnn_step *steps, ptrdiff_t count, int threads)
    void fnn_plan_profile(const fnn_step *steps, ptrdiff_t count, int threads, double *seconds)
    void *fnn_memory_allocate(size_t size)
    void fnn_memory_free(void *memory, size_t size)
    void fnn_memory_release()
    ptrdiff_t fnn_checked_product(ptrdiff_t a, ptrdiff_t b)
    ptrdiff_t fnn_window_positions(ptrdiff_t size, ptrdiff_t kernel, ptrdiff_t stride, ptrdiff_t dilation,
                                   ptrdiff_t pad_before, ptrdiff_t pad_after, bint ceil_mode)

fnn_team_initialize()
fnn_threads_initialize()


# ---- ISAs, threads, geometry -----------------------------------------------------------------------------

def _list_kernels():
    kinds = ("in", "in_optional", "out", "out_optional", "update", "size", "word", "real", "table")
    cdef const fnn_kernel_info *info
    kernels = {}
    for k in range(FNN_KERNEL_COUNT):
        info = &fnn_kernel_infos[k]
        kernels[info.name.decode()] = tuple(
            (info.fields[f].name.decode(), kinds[<int>info.fields[f].kind], info.fields[f].type.decode())
            for f in range(info.field_count))
    return kernels


def _list_isas():
    cdef const fnn_isa_info *info
    isas = {}
    for i in range(FNN_ISA_COUNT):
        info = fnn_isa(<fnn_isa_id>i)
        if info != NULL:
            isas[info.name.decode()] = {"index": i, "lanes": info.lanes, "gemm_rows": info.gemm_rows,
                                        "gemm_columns": info.gemm_columns}
    return isas


KERNELS = _list_kernels()
"""{kernel: ((field, kind, C type), ...)} in the order of kernels.def."""

ISAS = _list_isas()
"""{name: facts} of the ISAs that this CPU runs, the best one last."""

TEAM_BACKEND = fnn_team_backend().decode()


def get_num_threads():
    """Threads that a call made now would use."""
    return fastnn_get_num_threads()


def set_num_threads(int threads):
    """Use this many threads from the next call on."""
    if threads < 1:
        raise ValueError(f"the number of threads must be at least 1, got {threads}")
    fastnn_set_num_threads(threads)


def thread_limits(str cgroup_root="/sys/fs/cgroup", str process_cgroup="/proc/self/cgroup"):
    """What limits the default number of threads: {affinity, cgroup, OMP_NUM_THREADS, ..., chosen}; 0: no limit."""
    root, process = cgroup_root.encode(), process_cgroup.encode()
    cdef fnn_thread_limits limits = fnn_read_thread_limits(root, process)
    return {"affinity": limits.affinity, "cgroup": limits.cgroup, "OMP_NUM_THREADS": limits.openmp,
            "FASTNN_NUM_THREADS": limits.fastnn, "chosen": limits.chosen}


def window_positions(ptrdiff_t size, ptrdiff_t kernel, ptrdiff_t stride, ptrdiff_t dilation,
                     ptrdiff_t pad_before, ptrdiff_t pad_after, bint ceil_mode=False):
    """Output size of a sliding window; at most 0 when the kernel does not fit. OverflowError: too large."""
    if size < 0 or kernel < 1 or stride < 1 or dilation < 1 or pad_before < 0 or pad_after < 0:
        raise ValueError("kernel, stride and dilation must be at least 1, size and padding at least 0")
    cdef ptrdiff_t positions = fnn_window_positions(size, kernel, stride, dilation, pad_before, pad_after, ceil_mode)
    if positions == FNN_OVERFLOW:
        raise OverflowError("window geometry exceeds the range of a 64-bit size")
    return positions


def tensor_bytes(shape, ptrdiff_t item_bytes=4):
    """Bytes of a tensor. OverflowError: more than can be addressed."""
    cdef ptrdiff_t total = item_bytes
    for extent in shape:
        total = fnn_checked_product(total, extent)
        if total == FNN_OVERFLOW and extent != 0:
            raise OverflowError(f"a tensor of shape {tuple(shape)} exceeds the address space")
    return total


cdef class Clock:
    """A count of changes that any thread may tick."""
    cdef readonly int64_t now
    cdef object lock, own            # own.ticks: those of the thread that looks

    def __init__(self):
        self.lock = _Lock()
        self.own = threading.local()

    def tick(self):
        """Counts one more change; returns the new count."""
        with self.lock:
            self.own.ticks = self.own_ticks() + 1
            self.now += 1
            return self.now

    def own_ticks(self):
        """How often this thread has ticked."""
        return getattr(self.own, "ticks", 0)

    def stamp(self, variables):
        """Counts one more change and writes the count into the `changed` of each variable before anybody can see it.

        No line of Python runs for it: a signal that came while kernels ran is handled when the change is noted."""
        self.lock.acquire()
        try:
            changed = self.now + 1
            for variable in variables:
                variable.changed = changed
            self.now = changed
        finally:
            self.lock.release()


# ---- memory, programs, repeated calls ------------------------------------------------------------------------

include "_memory.pxi"
include "_arguments.pxi"
include "_program.pxi"
include "_calls.pxi"
