/* Which machine this is, as far as bits depend on it. */
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "orchestrator/program.h"

/* nvml.h does not come with the CUDA toolkit, and machines without a GPU have no such library: four functions, found at run time. */
struct nvml {
    void *library;
    int (*init)(void);
    int (*shutdown)(void);
    int (*count)(unsigned *n);
    int (*handle)(unsigned i, void **device);
    int (*capability)(void *device, int *major, int *minor);
};

static bool find(void *library, const char *name, void *function, size_t size)
{
    void *at = dlsym(library, name);

    memcpy(function, &at, size); /* ISO C has no cast from object to function pointers */
    return at != NULL;
}

static bool nvml_open(struct nvml *n)
{
    n->library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    return n->library && find(n->library, "nvmlInit_v2", &n->init, sizeof(n->init)) &&
           find(n->library, "nvmlShutdown", &n->shutdown, sizeof(n->shutdown)) &&
           find(n->library, "nvmlDeviceGetCount_v2", &n->count, sizeof(n->count)) &&
           find(n->library, "nvmlDeviceGetHandleByIndex_v2", &n->handle, sizeof(n->handle)) &&
           find(n->library, "nvmlDeviceGetCudaComputeCapability", &n->capability,
                sizeof(n->capability));
}

static bool nvml_begin(struct nvml *n)
{
    if (nvml_open(n) && n->init() == 0)
        return true;
    if (n->library)
        (void)dlclose(n->library);
    return false;
}

static void nvml_end(struct nvml *n)
{
    (void)n->shutdown();
    (void)dlclose(n->library);
}

int platform_gpus(void)
{
    struct nvml n = {0};
    unsigned count = 0;

    if (!nvml_begin(&n))
        return 0;
    if (n.count(&count) != 0)
        count = 0;
    nvml_end(&n);
    return count < PLATFORM_GPUS_MAX ? (int)count : PLATFORM_GPUS_MAX;
}

static enum err_code gpu_class(char out[16], struct err *err)
{
    struct nvml n = {0};
    int first_major = 0, first_minor = 0, status = -1;
    unsigned count = 0;
    enum err_code rc = OK;

    if (!nvml_begin(&n))
        return err_set(err, ERR_MISSING,
                       "device: cuda needs an NVIDIA driver, and there is none here "
                       "(libnvidia-ml.so.1)");
    status = n.count(&count);
    for (unsigned i = 0; !rc && i < count; i++) {
        void *device = NULL;
        int major = 0, minor = 0;

        status = n.handle(i, &device);
        if (!status)
            status = n.capability(device, &major, &minor);
        if (status)
            break;
        if (i == 0) {
            first_major = major;
            first_minor = minor;
        } else if (major != first_major || minor != first_minor) {
            rc = err_set(err, ERR_CONFIG,
                         "GPUs of different kinds are here (compute capability %d.%d and %d.%d), "
                         "whose results differ in bits; show one kind with CUDA_VISIBLE_DEVICES on "
                         "a machine of its own",
                         first_major, first_minor, major, minor);
        }
    }
    if (!rc && (status || count == 0))
        rc = err_set(err, ERR_MISSING, "device: cuda needs a GPU; the driver shows none (NVML %d)",
                     status);
    if (!rc)
        (void)snprintf(out, 16, "sm_%d%d", first_major, first_minor);
    nvml_end(&n);
    return rc;
}

enum err_code platform_class(bool cuda, char out[64], struct err *err)
{
    char gpu[16] = "";
    const char *wide = "", *bf16 = "";
    enum err_code rc = cuda ? gpu_class(gpu, err) : OK;

    if (rc)
        return rc;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f"))
        wide = "+avx512f";
    else if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        wide = "+avx2";
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bf16"))
        bf16 = "+avx512_bf16";
    (void)snprintf(out, 64, "x86_64%s%s%s%s", wide, bf16, cuda ? "+" : "", gpu);
#elif defined(__aarch64__)
    (void)snprintf(out, 64, "aarch64%s%s%s%s", wide, bf16, cuda ? "+" : "", gpu);
#else
    (void)snprintf(out, 64, "other%s%s%s%s", wide, bf16, cuda ? "+" : "", gpu);
#endif
    return OK;
}
