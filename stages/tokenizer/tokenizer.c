/* tokenizer - a byte-level BPE vocabulary in the files of Hugging Face: vocab.json, merges.txt, tokenizer.json, tokenizer_config.json,
 * special_tokens_map.json. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"
#include "stages/data/bpe.h"
#include "stages/data/dataset.h"
#include "stages/runtime/stage.h"

#define FILE_MAX ((size_t)256 << 20)

/* The template emits at least one token for "", for a caption of no length would break padding. */
#define CHAT_TEMPLATE                                                                              \
    "{% for message in messages %}{{ '<|im_start|>' + message['content'] }}{% endfor %}"

static const char *const specials[] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
#define SPECIALS ((int32_t)(sizeof(specials) / sizeof(specials[0])))
static const char *const captions[] = {
    "short_caption",    "medium_caption",    "long_caption",    "simulated_user_prompt",
    "short_caption_zh", "medium_caption_zh", "long_caption_zh", "ocr_text"};

static const struct stage_param params[] = {
    {"vocab_size", STAGE_INT, "259", "259", "200000",
     .help = "tokens; 259 is the bytes and special tokens without merges"},
    {"count_min", STAGE_INT, "2", "1", "1000000",
     .help = "a pair that occurs less often is not merged"},
    {"max_length", STAGE_INT, "512", "8", "1000000",
     .help = "model_max_length of tokenizer_config.json"},
    {0}};
static const struct stage_port inputs[] = {
    {"dataset", true, "a dataset whose captions are counted; not needed without merges"}, {0}};
static const struct stage_port outputs[] = {
    {"tokenizer", .help = "a directory that AutoTokenizer reads"}, {0}};

static enum err_code feed(struct bpe *b, const char *path, struct err *err)
{
    struct dataset in;
    enum err_code rc = dataset_open(path, &in, err);

    for (int64_t i = 0; !rc && i < in.lines.count; i++) {
        json_t *row;

        rc = dataset_row(&in, i, &row, err);
        for (size_t k = 0; !rc && k < sizeof(captions) / sizeof(captions[0]); k++) {
            const char *text = row_text(row, captions[k], "");

            bpe_feed(b, text, strlen(text));
        }
        if (!rc)
            json_decref(row);
    }
    dataset_release(&in);
    return rc;
}

static char *token(const struct bpe *b, int32_t id)
{
    struct buf text;
    char *s;

    if (id < SPECIALS)
        return mem_strdup(specials[id]);
    buf_init(&text, 1 << 20);
    bpe_token(b, id, &text);
    s = buf_take(&text);
    buf_release(&text);
    return s;
}

static json_t *vocabulary(const struct bpe *b)
{
    json_t *o = json_object();

    for (int32_t i = 0; i < bpe_size(b); i++) {
        char *s = token(b, i);

        row_set(o, s, json_integer(i));
        free(s);
    }
    return o;
}

static void merge_line(const struct bpe *b, int32_t i, struct buf *out)
{
    int32_t left, right;

    bpe_merge(b, i, &left, &right);
    bpe_token(b, left, out);
    buf_char(out, ' ');
    bpe_token(b, right, out);
}

static json_t *byte_level(bool regex)
{
    return json_pack("{s:s,s:b,s:b,s:b}", "type", "ByteLevel", "add_prefix_space", false,
                     "trim_offsets", false, "use_regex", regex);
}

static json_t *whole(const struct bpe *b)
{
    json_t *merges = json_array(), *added = json_array(), *model;

    for (int32_t i = 0; i < bpe_merge_count(b); i++) {
        struct buf line;

        buf_init(&line, 1 << 20);
        merge_line(b, i, &line);
        CHECK(json_array_append_new(merges, json_string(line.p)) == 0);
        buf_release(&line);
    }
    for (int32_t i = 0; i < SPECIALS; i++)
        CHECK(json_array_append_new(added, json_pack("{s:i,s:s,s:b,s:b,s:b,s:b,s:b}", "id", i,
                                                     "content", specials[i], "single_word", false,
                                                     "lstrip", false, "rstrip", false, "normalized",
                                                     false, "special", true)) == 0);
    model = json_pack("{s:s,s:n,s:n,s:n,s:n,s:b,s:b,s:o,s:o}", "type", "BPE", "dropout",
                      "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk",
                      false, "byte_fallback", false, "vocab", vocabulary(b), "merges", merges);
    return json_pack("{s:s,s:n,s:n,s:o,s:n,s:o,s:o,s:o,s:o}", "version", "1.0", "truncation",
                     "padding", "added_tokens", added, "normalizer", "pre_tokenizer",
                     byte_level(true), "post_processor", byte_level(true), "decoder",
                     byte_level(true), "model", model);
}

static json_t *config(const struct stage_task *t)
{
    json_t *added = json_object();

    for (int32_t i = 0; i < SPECIALS; i++) {
        char key[16] = {(char)('0' + i), '\0'};

        row_set(added, key,
                json_pack("{s:s,s:b,s:b,s:b,s:b,s:b}", "content", specials[i], "single_word", false,
                          "lstrip", false, "rstrip", false, "normalized", false, "special", true));
    }
    return json_pack("{s:s,s:s,s:s,s:s,s:b,s:s,s:s,s:I,s:b,s:o}", "tokenizer_class",
                     "Qwen2Tokenizer", "chat_template", CHAT_TEMPLATE, "pad_token", specials[0],
                     "eos_token", specials[2], "add_prefix_space", false, "errors", "replace",
                     "unk_token", specials[0], "model_max_length",
                     (json_int_t)stage_int(t, "max_length"), "clean_up_tokenization_spaces", false,
                     "added_tokens_decoder", added);
}

static enum err_code put(int dir, const char *name, json_t *taken, struct err *err)
{
    struct buf text;
    enum err_code rc;

    CHECK(taken);
    buf_init(&text, FILE_MAX);
    rc = json_canonical(taken, &text, err);
    buf_char(&text, '\n');
    if (!rc)
        rc = buf_check(&text, name, err);
    if (!rc)
        rc = os_write_file(dir, name, text.p, text.n, 0644, err);
    buf_release(&text);
    json_decref(taken);
    return rc;
}

static enum err_code put_merges(int dir, const struct bpe *b, struct err *err)
{
    struct buf text;
    enum err_code rc;

    buf_init(&text, FILE_MAX);
    buf_str(&text, "#version: 0.2\n");
    for (int32_t i = 0; i < bpe_merge_count(b); i++) {
        merge_line(b, i, &text);
        buf_char(&text, '\n');
    }
    rc = buf_check(&text, "merges.txt", err);
    if (!rc)
        rc = os_write_file(dir, "merges.txt", text.p, text.n, 0644, err);
    buf_release(&text);
    return rc;
}

static enum err_code run(struct stage_task *t, struct err *err)
{
    const struct stage_input *dataset = stage_input(t, "dataset");
    struct bpe *b = bpe_new(SPECIALS);
    const char *path;
    int dir = -1;
    enum err_code rc = OK;

    if (stage_int(t, "vocab_size") > SPECIALS + 256 && !dataset)
        rc = err_set(
            err, ERR_USAGE,
            "parameter vocab_size: merges are learnt from captions; give --in dataset=PATH");
    else if (dataset)
        rc = feed(b, dataset->path, err);
    if (!rc)
        bpe_train(b, (int32_t)stage_int(t, "vocab_size"), stage_int(t, "count_min"));
    if (!rc)
        rc = stage_output_dir(t, "tokenizer", &path, err);
    if (!rc)
        rc = os_open_dir(AT_FDCWD, path, &dir, err);
    if (!rc)
        rc = put(dir, "vocab.json", vocabulary(b), err);
    if (!rc)
        rc = put_merges(dir, b, err);
    if (!rc)
        rc = put(dir, "tokenizer.json", whole(b), err);
    if (!rc)
        rc = put(dir, "tokenizer_config.json", config(t), err);
    if (!rc)
        rc = put(dir, "special_tokens_map.json",
                 json_pack("{s:s,s:s,s:s}", "pad_token", specials[0], "eos_token", specials[2],
                           "unk_token", specials[0]),
                 err);
    os_close_quiet(&dir);
    bpe_free(b);
    return rc;
}

static const struct stage_program self = {
    "tokenizer", "A byte-level BPE vocabulary in Hugging Face's files, with or without merges.",
    params,      inputs,
    outputs,     run,
    NULL,        false};

int main(int argc, char **argv)
{
    return stage_main(&self, argc, argv);
}
