/* weir store fsck, weir store check */
#include <stdio.h>
#include <string.h>

#include "orchestrator/cli/commands.h"
#include "store/fsck.h"

static enum err_code show_problem(const struct cli *c, const struct fsck_problem *p,
                                  struct err *err)
{
    if (c->json) {
        json_t *line = json_pack("{s:b,s:o}", "repaired", p->repaired, "what",
                                 cli_json_name(p->what, strlen(p->what)));

        CHECK(line);
        if (!digest_is_zero(&p->id))
            CHECK(json_object_set_new(line, "digest", cli_json_digest(&p->id)) == 0);
        if (p->part_of)
            CHECK(json_object_set_new(line, "part_of",
                                      cli_json_name(p->part_of, strlen(p->part_of))) == 0);
        return cli_json(line, err);
    }
    printf("%s  ", p->repaired ? "repaired" : "DAMAGED ");
    cli_name(p->what, strlen(p->what));
    if (p->part_of) {
        printf("\n          part of ");
        cli_name(p->part_of, strlen(p->part_of));
    }
    printf("\n");
    return OK;
}

static enum err_code show(const struct cli *c, const struct fsck_report *r, struct err *err)
{
    enum err_code rc = OK;
    char size[16];
    size_t repaired = 0;

    for (size_t i = 0; i < r->problem_count && rc == OK; i++) {
        repaired += r->problems[i].repaired;
        rc = show_problem(c, &r->problems[i], err);
    }
    if (rc == OK && c->json)
        return cli_json(json_pack("{s:I,s:I,s:I,s:I,s:I,s:I}", "bytes", (json_int_t)r->bytes,
                                  "loose", (json_int_t)r->loose, "objects", (json_int_t)r->objects,
                                  "packs", (json_int_t)r->packs, "problems",
                                  (json_int_t)r->problem_count, "repaired", (json_int_t)repaired),
                        err);
    if (rc || c->quiet)
        return rc;
    str_from_bytes(r->bytes, size);
    printf("checked %lld objects, %s in %lld packs and %lld loose files: ", (long long)r->objects,
           size, (long long)r->packs, (long long)r->loose);
    if (r->problem_count)
        printf("%zu problems, %zu repaired\n", r->problem_count, repaired);
    else
        printf("all good\n");
    return OK;
}

static enum err_code parse_part(const char *text, struct fsck_options *o, struct err *err)
{
    const char *slash = text ? strchr(text, '/') : NULL;
    struct err inner = ERR_INIT;
    int64_t part, parts;

    if (!text)
        return OK;
    if (!slash || str_to_i64(str_of(slash + 1), 1, 65536, &parts, &inner) ||
        str_to_i64((struct str){text, (size_t)(slash - text)}, 1, parts, &part, &inner))
        return err_set(err, ERR_USAGE, "--part %s: write N/M with 1 <= N <= M <= 65536, as in 3/30",
                       text);
    o->part = (int)part - 1;
    o->parts = (int)parts;
    return OK;
}

static enum err_code fsck_run(struct cli *c, struct err *err)
{
    static const char *const levels[] = {[FSCK_QUICK] = "quick",
                                         [FSCK_CRC] = "crc",
                                         [FSCK_FULL] = "full",
                                         [FSCK_LOGICAL] = "logical"};
    struct fsck_options o = {.level = FSCK_FULL, .repair = cli_flag(c, "repair")};
    struct fsck_report report = {0};
    struct err shown = ERR_INIT;
    struct progress line;
    struct store *st = NULL;
    enum err_code rc = cli_one_of(c, levels, 4, err), printed;

    for (int i = 0; i < 4; i++)
        if (cli_flag(c, levels[i]))
            o.level = (enum fsck_level)i;
    if (rc == OK)
        rc = parse_part(cli_value(c, "part"), &o, err);
    if (rc == OK)
        rc = cli_open(c, o.repair ? STORE_WRITE : STORE_READ, &st, err);
    if (rc)
        goto out;
    o.progress = cli_progress(c, &line, "checking", "bytes");
    rc = store_fsck(st, &o, &report, err);
    progress_end(o.progress);
    if (rc == OK || rc == ERR_DAMAGED) {
        printed = show(c, &report, &shown);
        if (rc == OK && printed) {
            *err = shown;
            rc = printed;
        }
    }
out:
    fsck_report_release(&report);
    store_close(st);
    return rc;
}

static const struct cli_option fsck_options[] = {
    {"quick", 0, NULL, "sizes, tables and reachability only"},
    {"crc", 0, NULL, "also the checksum of every record"},
    {"full", 0, NULL,
     "also decode and hash every stored byte once (what it does without an option)"},
    {"logical", 0, NULL, "also hash every object end to end, however it is stored"},
    {"repair", 0, NULL, "quarantine what is damaged, and fetch it again from a remote that has it"},
    {"part", 0, "N/M", "only the N-th of M parts, to spread a full check over M days"},
    {0},
};

const struct cli_command cli_store_fsck = {
    .name = "store fsck",
    .alias = "fsck",
    .args = "",
    .summary = "is every byte what its name says?",
    .text = "Without --repair nothing is changed.  For what cannot be repaired it names the refs "
            "and paths that\n"
            "the lost object was part of, and exits 74.",
    .example = "weir fsck --quick\nweir fsck --repair\nweir fsck --part 3/30",
    .json = "{\"digest\":\"sha256:...\",\"part_of\":\"ref runs/41: "
            "model/x\",\"repaired\":B,\"what\":\"...\"}, a line per\n"
            "problem (digest and part_of where known), then\n"
            "{\"bytes\":N,\"loose\":N,\"objects\":N,\"packs\":N,\"problems\":N,\"repaired\":N}",
    .options = fsck_options,
    .run = fsck_run,
};

static enum err_code check_run(struct cli *c, struct err *err)
{
    struct store *st = NULL;
    enum err_code rc = cli_open(c, STORE_READ, &st, err);

    if (rc == OK)
        rc = store_check(st, err);
    if (rc == OK && c->json)
        rc = cli_json(json_pack("{s:b}", "ok", 1), err);
    else if (rc == OK && !c->quiet)
        printf("ok\n");
    store_close(st);
    return rc;
}

const struct cli_command cli_store_check = {
    .name = "store check",
    .args = "",
    .summary = "do index, packs and loose files agree?  Takes moments; fsck reads the bytes",
    .example = "weir store check",
    .json = "{\"ok\":true}",
    .run = check_run,
};
