/* weir doctor: what this machine has, what is missing for which feature, and how to get it.  weir stage: a shipped program by hand. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/os.h"
#include "orchestrator/cli/commands.h"
#include "orchestrator/ledger.h"
#include "orchestrator/program.h"
#include "store/materialise.h"

struct doctor {
    struct cli *c;
    int64_t missing, broken;
};
enum finding { FINE, LACKS, BROKEN };

static enum err_code say(struct doctor *d, enum finding f, const char *what, const char *detail,
                         const char *help, struct err *err)
{
    static const char *const words[] = {"ok", "missing", "broken"};

    d->missing += f == LACKS;
    d->broken += f == BROKEN;
    if (d->c->json)
        return cli_json(json_pack("{s:s, s:s, s:s, s:s*}", "what", what, "state", words[f],
                                  "detail", detail, "help", f == FINE ? NULL : help),
                        err);
    printf(" %-8s %-16s %s\n", words[f], what, detail);
    if (f != FINE && help)
        printf(" %-8s %-16s %s\n", "", "", help);
    return OK;
}

/* ---- programs and libraries -------------------------------------------------------------------- */

static bool on_path(const char *name)
{
    const char *path = getenv("PATH");
    char full[4096];

    while (path && *path) {
        const size_t n = strcspn(path, ":");

        (void)snprintf(full, sizeof(full), "%.*s/%s", (int)n, path, name);
        if (access(full, X_OK) == 0)
            return true;
        path += n + (path[n] == ':');
    }
    return false;
}

static enum err_code helpers(struct doctor *d, struct err *err)
{
    static const struct {
        const char *program, *use, *help;
    } list[] = {
        {"apt-get", "deb: sources are downloaded with it", "only Debian and its kin have it"},
        {"dpkg-deb", "deb: sources are unpacked with it", "apt-get install dpkg"},
        {"dot", "weir graph --svg", "apt-get install graphviz"},
        {"git", "only for you: weir reads repositories by itself", "apt-get install git"},
        {"sbatch", "--executor slurm", "apt-get install slurm-client"},
        {"nvcc", "building the GPU kernels", "install the CUDA Toolkit"},
    };
    enum err_code rc = OK;

    for (size_t i = 0; !rc && i < sizeof(list) / sizeof(list[0]); i++)
        rc = say(d, on_path(list[i].program) ? FINE : LACKS, list[i].program, list[i].use,
                 list[i].help, err);
    return rc;
}

static enum err_code gpus(struct doctor *d, struct err *err)
{
    const int n = platform_gpus();
    char text[64];

    if (n == 0)
        return say(d, LACKS, "gpu", "the driver shows none; stages with device: cuda cannot run",
                   "install NVIDIA's driver, or use a machine that has a GPU; see nvidia-smi", err);
    (void)snprintf(text, sizeof(text), "%d found", n);
    return say(d, FINE, "gpu", text, NULL, err);
}

/* ---- the machine ------------------------------------------------------------------------------- */

static enum err_code machine(struct doctor *d, struct err *err)
{
    char text[160], bytes[16];
    enum err_code rc;

    str_from_bytes((int64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE), bytes);
    (void)snprintf(text, sizeof(text), "%d processors, %s of memory", os_cpu_count(), bytes);
    rc = say(d, FINE, "machine", text, NULL, err);
    if (!rc)
        rc = platform_class(false, text, err);
    if (!rc)
        rc = say(d, FINE, "platform class", text, NULL, err);
    if (!rc)
        rc = say(
            d, materialise_shield_works() ? FINE : LACKS, "namespaces",
            "read-only bind mounts keep tasks from changing their inputs",
            "without them inputs are hard links that are checked afterwards, or copies for root; "
            "in a container allow unshare(CLONE_NEWNS)",
            err);
    return rc;
}

/* ---- the store --------------------------------------------------------------------------------- */

static enum err_code space(struct doctor *d, struct store *st, struct err *err)
{
    struct statvfs v;
    char text[200], bytes[16];

    if (fstatvfs(st->objects, &v) != 0)
        return say(d, BROKEN, "disk", strerror(errno), NULL, err);
    str_from_bytes((int64_t)v.f_bavail * (int64_t)v.f_frsize, bytes);
    (void)snprintf(text, sizeof(text), "%s free where objects lie", bytes);
    return say(d, (int64_t)v.f_bavail * (int64_t)v.f_frsize > (INT64_C(1) << 30) ? FINE : LACKS,
               "disk", text, "weir gc --dry-run shows what could go", err);
}

static enum err_code ledger(struct doctor *d, struct store *st, struct err *err)
{
    struct ledger *l = NULL;
    struct err why = ERR_INIT;
    int64_t events = 0;
    char text[ERR_TEXT_MAX];
    enum err_code rc = ledger_open(st->root, LEDGER_READ, &l, &why);

    if (rc == ERR_NOT_FOUND)
        return say(d, FINE, "ledger", "nothing has been run here yet", NULL, err);
    if (!rc)
        rc = ledger_verify(l, 0, &events, &why);
    ledger_close(l);
    (void)snprintf(text, sizeof(text), "%lld events, chain intact", (long long)events);
    return say(d, rc ? BROKEN : FINE, "ledger", rc ? why.text : text,
               "weir store rebuild brings back what the kept runs hold", err);
}

static enum err_code store(struct doctor *d, struct err *err)
{
    struct store *st = NULL;
    struct err why = ERR_INIT;
    enum err_code rc = cli_open(d->c, STORE_READ, &st, &why);

    if (rc == ERR_NOT_FOUND)
        return say(d, LACKS, "store", "no .weir here or above", "weir init", err);
    if (rc)
        return say(d, BROKEN, "store", why.text, "weir fsck; weir store rebuild", err);
    rc = say(d, FINE, "store", st->root, NULL, err);
    if (!rc)
        rc = space(d, st, err);
    if (!rc)
        rc = ledger(d, st, err);
    store_close(st);
    return rc;
}

static enum err_code programs(struct doctor *d, struct err *err)
{
    struct store *st = NULL;
    struct programs *ps = NULL;
    struct err why = ERR_INIT;
    char text[ERR_TEXT_MAX];
    enum err_code rc = cli_open(d->c, STORE_READ, &st, &why);

    if (!rc)
        rc = programs_new(st, &ps, &why);
    if (!rc) {
        (void)snprintf(text, sizeof(text), "%.400s/weir-exec", programs_dir(ps));
        rc = say(d, access(text, X_OK) == 0 ? FINE : BROKEN, "programs", text,
                 "the installation is not whole: make install", err);
    } else {
        rc = OK; /* said by store */
    }
    programs_free(ps);
    store_close(st);
    return rc;
}

static enum err_code doctor_run(struct cli *c, struct err *err)
{
    struct doctor d = {.c = c};
    enum err_code rc = machine(&d, err);

    if (!rc)
        rc = store(&d, err);
    if (!rc)
        rc = programs(&d, err);
    if (!rc)
        rc = gpus(&d, err);
    if (!rc)
        rc = helpers(&d, err);
    if (!rc && d.broken)
        rc = err_set(err, ERR_CONFIG, "%lld broken; what to do stands above", (long long)d.broken);
    return rc;
}

const struct cli_command cli_doctor = {
    .name = "doctor",
    .args = "",
    .summary = "what this machine has and lacks, and how to get it",
    .text = "What is missing only matters to who uses it; what is broken ends with status 78.",
    .example = "weir doctor",
    .json = "{\"detail\":\"...\",\"help\":\"...\",\"state\":\"ok\"|\"missing\"|\"broken\",\"what\":"
            "\"gpu\"}",
    .run = doctor_run,
};

/* ---- stage ------------------------------------------------------------------------------------- */

static enum err_code unknown_program(const char *dir, const char *name, struct err *err)
{
    struct err ignored = ERR_INIT;
    struct os_entry *entries = NULL;
    const char **names = NULL, *near = NULL;
    size_t n = 0, count = 0;
    int fd = -1;

    if (os_open_dir(AT_FDCWD, dir, &fd, &ignored) == OK &&
        os_list(fd, &entries, &n, &ignored) == OK) {
        names = mem_zero(n + 1, sizeof(*names));
        for (size_t i = 0; i < n; i++)
            if (strcmp(entries[i].name, "weir-exec") != 0)
                names[count++] = entries[i].name;
        near = str_nearest(name, names, count);
    }
    (void)err_set(err, ERR_NOT_FOUND, "there is no program '%s'; %s%s%s", name,
                  near ? "did you mean '" : dir, near ? near : " holds what there is",
                  near ? "'?" : "");
    free(names);
    free(entries);
    os_close_quiet(&fd);
    return ERR_NOT_FOUND;
}

static enum err_code stage_run(struct cli *c, struct err *err)
{
    char self[4096], path[8192];
    const ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    const char *libexec = getenv("WEIR_LIBEXEC"), *name = c->args[0];
    char **argv;

    if (strchr(name, '/') || name[0] == '.')
        return err_set(err, ERR_USAGE, "'%s' is no name of a program", name);
    if (n < 0)
        return err_sys(err, errno, "read /proc/self/exe");
    self[n] = '\0';
    *strrchr(self, '/') = '\0';
    if (libexec)
        (void)snprintf(path, sizeof(path), "%s/%s", libexec, name);
    else
        (void)snprintf(path, sizeof(path), "%s/../libexec/weir/%s", self, name);
    if (access(path, X_OK) != 0) {
        *strrchr(path, '/') = '\0';
        return unknown_program(path, name, err);
    }
    argv = mem_zero(c->arg_count + 1, sizeof(*argv));
    argv[0] = path;
    for (size_t i = 1; i < c->arg_count; i++)
        argv[i] = mem_strdup(c->args[i]);
    (void)execv(path, argv);
    return err_sys(err, errno, "start %s", path);
}

const struct cli_command cli_stage = {
    .name = "stage",
    .args = "NAME [ARGUMENT...]",
    .args_min = 1,
    .args_max = -1,
    .raw = true,
    .summary = "run a shipped stage program by hand",
    .text = "Everything after NAME goes to the program: --in NAME=PATH, --out NAME=PATH, --set "
            "KEY=VALUE, --help, --describe.",
    .example = "weir stage vae --in data=shards/ --out model=vae/ --set steps=100",
    .json = "what the program prints",
    .run = stage_run,
};
