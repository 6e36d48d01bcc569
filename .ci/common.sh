# Sourced by the other scripts: where things are, and the tools' own environment. Everything made goes to build/ci.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
work=$root/build/ci
mkdir -p "$work"
# Settings of the machine that change which kernels NumPy and we choose, or how many threads.
unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE OMP_NUM_THREADS FASTNN_NUM_THREADS FASTNN_ISA

# Several parts compile the same sources with the same flags. Paths are relative, and pip and build work as deep as CMake does
# below, so that it does not matter where.
export SKBUILD_BUILD_DIR=build/ci/pip CC=gcc
if command -v ccache > /dev/null; then
    export CMAKE_C_COMPILER_LAUNCHER=ccache CCACHE_DIR=$work/ccache CCACHE_BASEDIR=/ CCACHE_NOHASHDIR=1 CCACHE_COMPILERCHECK=content
fi

step() { printf '\n==== %s (%d s so far)\n' "$*" "$SECONDS"; }

# The tools: linters pinned in pyproject.toml, build tools, and what tests need.
tools() {
    if [ ! -f "$work/tools/ready" ]; then
        python3 -m venv "$work/tools"
        "$work/tools/bin/python" - > "$work/tools.txt" <<'PYTHON'
import tomllib
project = tomllib.load(open("pyproject.toml", "rb"))
extras = project["project"]["optional-dependencies"]
names = [*project["build-system"]["requires"], *project["project"]["dependencies"], *extras["lint"], *extras["test"]]
print("\n".join(dict.fromkeys([*names, "cmake>=3.26", "ninja", "build", "abi3audit"])))
PYTHON
        "$work/tools/bin/pip" install -q -r "$work/tools.txt"
        touch "$work/tools/ready"
    fi
    PATH=$work/tools/bin:$PATH
}

# The ISAs for x86-64 that this CPU runs, as an argument for CMake: a sanitizer's build of others would never run.
own_isas() {
    local isas=avx2 feature
    grep -qw avx512f /proc/cpuinfo && isas="avx2;avx512"
    echo "-DFASTNN_X86_ISAS=$isas"
}

# build_c NAME [cmake arguments]: the C part and the driver of tests/native in build/ci/NAME.
build_c() {
    local name=$1
    shift
    cmake -S . -B "$work/$name" -G Ninja -DFASTNN_NATIVE_TESTS=ON -DFASTNN_PYTHON_MODULE=OFF "$@" > "$work/$name.log" 2>&1 &&
        ninja -C "$work/$name" >> "$work/$name.log" 2>&1 || { tail -60 "$work/$name.log"; return 1; }
}

# build_module NAME [cmake arguments]: likewise with the Python module; the package is build/ci/NAME/package.
build_module() {
    local name=$1 modules
    shift
    modules=$(python -c 'import cython_cmake, os; print(os.path.join(os.path.dirname(cython_cmake.__file__), "cmake"))')
    build_c "$name" -DFASTNN_PYTHON_MODULE=ON -DCMAKE_MODULE_PATH="$modules" -DPython_EXECUTABLE="$work/tools/bin/python" \
        -DSKBUILD_SABI_COMPONENT=Development.SABIModule -DSKBUILD_SABI_VERSION=3.11 "$@"
    rm -rf "$work/$name/package"
    mkdir -p "$work/$name/package"
    cp -r src/fastnn "$work/$name/package/"
    cp "$work/$name"/_core*.so "$work/$name/package/fastnn/"
}
