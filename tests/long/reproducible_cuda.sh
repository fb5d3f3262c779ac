#!/bin/bash
# reproducible_cuda.sh - as tests/tidy/reproducible.sh, with the CUDA kernels where nvcc is found.
WEIR_CUDA=AUTO exec bash "$(dirname "$0")/../tidy/reproducible.sh"
