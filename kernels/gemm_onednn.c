/* The only file that knows oneDNN. */
#include <dnnl.h>

#include "base/err.h"
#include "kernels/gemm.h"

/* Inside a parallel region oneDNN works on the calling thread only.  That is where linear and convolution call it. */
void gemm_tile(const struct gemm *g)
{
    dnnl_status_t status =
        dnnl_sgemm(g->a_t ? 'T' : 'N', g->b_t ? 'T' : 'N', g->m, g->n, g->k, 1.0f, g->a, g->lda,
                   g->b, g->ldb, g->add ? 1.0f : 0.0f, g->c, g->ldc);

    CHECK(status == dnnl_success);
}
