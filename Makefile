# The front door.  CMakeLists.txt is the build, tests/run.sh the tests; this only gives them short names.
#
#   make                            build into build/
#   make demo                       install what is missing, build, run the demonstration
#   make test                       everything that needs no GPU, network or Python packages
#   make test-long                  comparisons with the Python peers, long sweeps, thread sanitizer
#   make install PREFIX= DESTDIR=   programs to PREFIX/bin and PREFIX/libexec/weir
#   make format                     clang-format over the tree
#   make clean                      remove build/

PREFIX ?= /usr/local
DESTDIR ?=
export DESTDIR

.PHONY: all demo test test-long install format clean

# CMake's own build tool runs in parallel by itself, and a second run has almost nothing to do.
all:
	@tests/run.sh build

demo:
	@tests/setup.sh build
	@tests/demo.sh

test:
	@tests/setup.sh build test
	@tests/run.sh test

test-long:
	@tests/setup.sh build test long
	@tests/run.sh long

install: all
	cmake --install build --prefix "$(PREFIX)"

format:
	@tests/run.sh format

clean:
	rm -rf build
