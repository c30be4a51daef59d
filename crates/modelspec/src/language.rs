//! The recipe language, written down once: every key, what it may be, what it means. Read by `check`, `schema` and
//! `reference`. A new key is a line here and a field in `recipe`.

use std::collections::HashSet;

use crate::check::{object, one_of};
use crate::grammar;
use crate::problem::{Objection, Report, shown};
use crate::quantize;
use crate::recipe::{API_VERSION, CAPABILITIES, DTYPES, KIND};
use crate::shape::{Key, ListRule, NumberRule, Record, Shape, TextRule, Whole, join};
use crate::templates;
use crate::tree::Kind;

/// Texts that people read or that a model is given.
const MAX_PROSE: usize = 256 << 10;
const MAX_LINE: usize = 1024;
/// The largest whole number that every JSON reader keeps.
const MAX_SAFE_INTEGER: u64 = (1 << 53) - 1;
const MAX_U32: u64 = u32::MAX as u64;

pub(crate) static NAME: TextRule =
    TextRule::new("a name", 255).verbatim().checked(Some(grammar::NAME_PATTERN), grammar::name);
pub(crate) static VERSION: TextRule =
    TextRule::new("a version", 128).verbatim().checked(Some(grammar::TAG_PATTERN), grammar::version);
pub(crate) static PROSE: TextRule = TextRule::new("a text", MAX_PROSE).verbatim();
pub(crate) static LINE: TextRule = TextRule::new("a text", MAX_LINE).verbatim().checked(None, grammar::one_line);
pub(crate) static LABEL: TextRule = TextRule::new("a text", 4096).verbatim().may_be_empty();
pub(crate) static LICENSE: TextRule = TextRule::new("a licence", 256).checked(None, grammar::one_line);
pub(crate) static STOP: TextRule =
    TextRule::new("a text", MAX_LINE).verbatim().may_be_empty().checked(Some("^[\\s\\S]"), |text| {
        if text.is_empty() { Err(Objection::new("must be a text, found an empty text")) } else { Ok(()) }
    });
pub(crate) static PATH: TextRule = TextRule::new("a path", 4096).checked(None, grammar::one_line);
pub(crate) static HUB: TextRule =
    TextRule::new("a hub repository", 512).checked(Some(grammar::HUB_PATTERN), grammar::hub_reference);
pub(crate) static OCI: TextRule = TextRule::new("a reference", 1024).checked(Some("^[^\\s]+$"), grammar::oci_reference);
static URL: TextRule = TextRule::new("an address", 2048).checked(Some(grammar::URL_PATTERN), grammar::url);
static INSIDE: TextRule =
    TextRule::new("a relative path", 1024).checked(Some(grammar::INSIDE_PATTERN), grammar::inside);
static FILE_PATTERN: TextRule =
    TextRule::new("a pattern", 1024).checked(Some("^[^/\\\\:\\[\\]{}!]"), grammar::file_pattern);
static MODULE_PATTERN: TextRule =
    TextRule::new("a pattern", 512).checked(Some("^[^\\s\\[\\]{}!]+$"), grammar::module_pattern);
static SHARD_SIZE: TextRule =
    TextRule::new("a size", 32).checked(Some(grammar::BYTE_SIZE_PATTERN), |text| grammar::byte_size(text).map(drop));
static TEMPLATE: TextRule = TextRule::new("a Jinja template", MAX_PROSE);
static ADAPTER_NAME: TextRule =
    TextRule::new("a name", 128).verbatim().checked(Some("^[A-Za-z0-9_][A-Za-z0-9._-]*$"), |name| {
        grammar::version(name).map_err(|_| {
            Objection::new(format!("is {}, which is no name for an adapter", shown(name)))
                .hint("a name has letters, digits, `.`, `_` and `-`, and starts with none of `.-`")
        })
    });

static LICENSES: ListRule = ListRule { item: Shape::Text(&LICENSE), max: 64, unique: false };
static AUTHORS: ListRule = ListRule { item: Shape::Text(&LINE), max: 256, unique: false };
static FILE_PATTERNS: ListRule = ListRule { item: Shape::Text(&FILE_PATTERN), max: 256, unique: false };
static DOCS: ListRule = ListRule { item: Shape::Text(&INSIDE), max: 256, unique: true };
pub(crate) static STOPS: ListRule = ListRule { item: Shape::Text(&STOP), max: 64, unique: false };
static CAPABILITY_LIST: ListRule = ListRule { item: Shape::Word(CAPABILITIES), max: 16, unique: true };
static OVERRIDES: ListRule = ListRule { item: Shape::Record(&OVERRIDE), max: 4096, unique: false };
static ADAPTERS: ListRule = ListRule { item: Shape::Record(&ADAPTER), max: 64, unique: false };
static TESTS: ListRule = ListRule { item: Shape::Record(&TEST), max: 1024, unique: false };
static TOKENS: ListRule = ListRule { item: Shape::Integer { min: 0, max: MAX_U32 }, max: 65_536, unique: false };

const fn number(min: f64, max: f64) -> Shape {
    Shape::Number(NumberRule { min, above_min: false, max })
}

const fn number_above(min: f64, max: f64) -> Shape {
    Shape::Number(NumberRule { min, above_min: true, max })
}

const fn count(min: u64) -> Shape {
    Shape::Integer { min, max: MAX_U32 }
}

pub(crate) const TEMPERATURE: Shape = number(0.0, 2.0);
pub(crate) const TOP_P: Shape = number_above(0.0, 1.0);
pub(crate) const MAX_TOKENS: Shape = count(1);
pub(crate) const BITS: Shape = Shape::Integer { min: 2, max: 8 };
pub(crate) const GROUP_SIZE: Shape = Shape::Integer { min: 16, max: 128 };
pub(crate) const MODE: Shape = Shape::Word(quantize::MODES);

pub(crate) static RECIPE: Record = Record::new(
    "a recipe",
    &[
        Key::new("apiVersion", Shape::Word(&[API_VERSION]), "the version of the recipe language")
            .required()
            .also_called(&["version"]),
        Key::new("kind", Shape::Word(&[KIND]), "what this document is").required(),
        Key::new(
            "name",
            Shape::Text(&NAME),
            "a repository name in lower case, such as `org/qwen3-0.6b`, without registry and tag",
        )
        .required()
        .also_called(&["model"]),
        Key::new("version", Shape::Text(&VERSION), "the tag, exactly as written: `1.10` needs no quotes")
            .default("the tag `latest`")
            .also_called(&["tag"]),
        Key::new("description", Shape::Text(&PROSE), "what the model is, for people")
            .also_called(&["summary", "about"]),
        Key::new("authors", Shape::List(&AUTHORS), "who made it").also_called(&["maintainer", "maintainers"]),
        Key::new("vendor", Shape::Text(&LINE), "who publishes it").also_called(&["publisher", "organization"]),
        Key::new("family", Shape::Text(&LINE), "the family of models, such as `qwen3`").also_called(&["architecture"]),
        Key::new("licenses", Shape::List(&LICENSES), "SPDX expressions")
            .also_called(&["license", "licence", "licences"]),
        Key::new("url", Shape::Text(&URL), "where to read more").also_called(&["homepage", "website", "link"]),
        Key::new("labels", Shape::Labels(&LABEL), "keys and texts of your own")
            .also_called(&["metadata", "annotations"]),
        Key::new("from", Shape::Record(&FROM), "where the model comes from")
            .required()
            .also_called(&["base", "source", "weights", "FROM"]),
        Key::new("files", Shape::Record(&FILES), "which files of the source are taken").default("all"),
        Key::new("quantize", Shape::Record(&QUANTIZE), "how weights are quantised")
            .default("the source's weights")
            .also_called(&["quantization", "quantisation", "quant"]),
        Key::new("dtype", Shape::Word(DTYPES), "what dense weights are stored as")
            .default("the source's")
            .also_called(&["precision", "torch_dtype", "format"]),
        Key::new(
            "shard_size",
            Shape::Text(&SHARD_SIZE),
            "the most that one file of rewritten weights holds, such as `500MB` or `2GiB`; given alone, it rewrites them",
        )
        .default("`5GiB`")
        .also_called(&["max_shard_size", "shardSize"]),
        Key::new("tokenizer", Shape::Record(&TOKENIZER), "another tokenizer").default("the source's"),
        Key::new("template", Shape::Record(&TEMPLATE_SOURCE), "another chat template")
            .default("the source's")
            .also_called(&["promptTemplate", "prompt_template", "chat_template", "TEMPLATE"]),
        Key::new("system", Shape::Text(&PROSE), "the system prompt where a request has none")
            .default("none")
            .also_called(&["systemPrompt", "system_prompt", "SYSTEM"]),
        Key::new("parameters", Shape::Record(&PARAMETERS), "defaults of requests")
            .default("the source's `generation_config.json`")
            .also_called(&["defaults", "params", "options", "PARAMETER"]),
        Key::new("capabilities", Shape::List(&CAPABILITY_LIST), "what the model is good for")
            .default("told from its files"),
        Key::new("adapters", Shape::List(&ADAPTERS), "LoRA adapters that travel with the model")
            .default("none")
            .also_called(&["lora", "loras"]),
        Key::new("draft", Shape::Record(&DRAFT), "a smaller model that drafts for this one")
            .default("none")
            .also_called(&["draft_model", "draftModel"]),
        Key::new("docs", Shape::List(&DOCS), "files beside the recipe that travel with the model, such as `README.md`")
            .default("none"),
        Key::new("tests", Shape::List(&TESTS), "prompts with known answers, run greedily by `mlxctl verify --smoke`")
            .default("none"),
    ],
)
.rule(adapter_names, |_| {});

pub(crate) static FROM: Record = Record::new(
    "a source",
    &[
        from_path(),
        Key::new(
            "hf",
            Shape::Text(&HUB),
            "a hub repository, `owner/name[@revision]`; a branch or tag is pinned to a commit in `ModelSpec.lock`",
        )
        .also_called(&["hub", "huggingface", "hfRepo", "repo"]),
        Key::new(
            "oci",
            Shape::Text(&OCI),
            "another artifact, `[registry/]repository[:tag][@sha256:…]`: its layers are reused",
        )
        .also_called(&["image", "artifact", "registry"]),
    ],
)
.exactly_one_of(&["path", "hf", "oci"]);

static FILES: Record = Record::new(
    "a selection of files",
    &[
        Key::new(
            "include",
            Shape::List(&FILE_PATTERNS),
            "patterns of files to take; one without `/` matches in every folder",
        )
        .default("all"),
        Key::new("exclude", Shape::List(&FILE_PATTERNS), "patterns of files to leave out; wins over `include`")
            .default("none"),
    ],
);

pub(crate) static QUANTIZE: Record = Record::new(
    "a quantisation",
    &[
        Key::new("mode", MODE, "`affine` takes 2, 3, 4, 5, 6 or 8 bits in groups of 32, 64 or 128; `mxfp4` is 4 bits by 32, `mxfp8` 8 by 32, `nvfp4` 4 by 16")
            .default("`affine`")
            .also_called(&["type", "method", "format"]),
        Key::new("bits", BITS, "bits a weight").default("the mode's; 4 for `affine`").also_called(&["width", "wbits"]),
        Key::new("group_size", GROUP_SIZE, "weights a group").default("the mode's; 64 for `affine`").also_called(&["group", "groupsize"]),
        Key::new("recipe", Shape::Word(quantize::RECIPES), "bits by layer instead of `bits`, as mlx-lm's recipes of these names choose them: more for the layers that matter most").default("none").also_called(&["predicate", "quant_predicate", "mixed"]),
        Key::new("overrides", Shape::List(&OVERRIDES), "exceptions; the last one that matches a module holds").default("none").also_called(&["exceptions"]),
    ],
)
.rule(quantize::rule, quantize::schema_rule);

pub(crate) static OVERRIDE: Record = Record::new(
    "an override",
    &[
        Key::new(
            "match",
            Shape::Text(&MODULE_PATTERN),
            "a pattern over the dotted name of a module, as in `*.mlp.gate`; `*` crosses dots",
        )
        .required()
        .also_called(&["pattern", "name", "module", "path"]),
        Key::new("mode", MODE, "another mode").default("as above"),
        Key::new("bits", BITS, "other bits a weight").default("as above"),
        Key::new("group_size", GROUP_SIZE, "other weights a group").default("as above"),
        Key::new("skip", Shape::Flag, "these modules stay as they are")
            .default("false")
            .also_called(&["exclude", "keep"]),
    ],
)
.rule(|_, _| {}, quantize::override_schema_rule);

static TOKENIZER: Record = Record::new(
    "a tokenizer",
    &[Key::new("path", Shape::Text(&PATH), "a directory with the tokenizer's files").required()],
);

pub(crate) static TEMPLATE_SOURCE: Record = Record::new(
    "a template",
    &[
        Key::new("catalog", Shape::Word(templates::NAMES), "a name that `mlxctl templates` lists")
            .also_called(&["catalogue", "name"]),
        Key::new("file", Shape::Text(&PATH), "a Jinja file, relative to the recipe or absolute").also_called(&["path"]),
        Key::new("inline", Shape::Text(&TEMPLATE), "the Jinja text itself").also_called(&["text", "content", "jinja"]),
    ],
)
.exactly_one_of(&["catalog", "file", "inline"]);

static PARAMETERS: Record = Record::new(
    "parameters",
    &[
        Key::new("temperature", TEMPERATURE, "0 is greedy").also_called(&["temp"]),
        Key::new("top_p", TOP_P, "the mass of likeliest tokens to draw from"),
        Key::new("top_k", count(0), "how many likeliest tokens to draw from; 0 takes all"),
        Key::new("min_p", number(0.0, 1.0), "the least probability, relative to the likeliest token"),
        Key::new("max_tokens", MAX_TOKENS, "tokens of an answer").also_called(&[
            "num_predict",
            "max_new_tokens",
            "n_predict",
            "max_completion_tokens",
        ]),
        Key::new("stop", Shape::List(&STOPS), "texts that end an answer").also_called(&["stop_sequences", "stops"]),
        Key::new("context_length", count(1), "tokens of prompt and answer")
            .also_called(&["num_ctx", "n_ctx", "context"]),
        Key::new("seed", Shape::Integer { min: 0, max: MAX_SAFE_INTEGER }, "makes sampled answers repeatable"),
        Key::new("repetition_penalty", number_above(0.0, 10.0), "above 1 discourages repeating; 1 changes nothing")
            .also_called(&["repeat_penalty"]),
    ],
);

static ADAPTER: Record = Record::new(
    "an adapter",
    &[
        Key::new("name", Shape::Text(&ADAPTER_NAME), "how requests name it; no two adapters share one").required(),
        from_path(),
        Key::new("hf", Shape::Text(&HUB), "a hub repository, `owner/name[@revision]`").also_called(&[
            "hub",
            "huggingface",
            "repo",
        ]),
        Key::new("oci", Shape::Text(&OCI), "another artifact").also_called(&["image", "artifact"]),
        Key::new("merge", Shape::Flag, "its change is added to the weights, and it does not travel by itself")
            .default("false")
            .also_called(&["fuse", "merged"]),
    ],
)
.exactly_one_of(&["path", "hf", "oci"]);

static DRAFT: Record = Record::new(
    "a draft model",
    &[Key::new("oci", Shape::Text(&OCI), "the artifact it is in; pinned by digest when the model is created")
        .required()
        .also_called(&["image", "artifact", "model"])],
);

static TEST: Record = Record::new(
    "a test",
    &[
        Key::new("prompt", Shape::Text(&PROSE), "what is asked").required().also_called(&["input", "question"]),
        Key::new("expect", Shape::Record(&EXPECT), "what must come")
            .required()
            .also_called(&["expected", "answer", "output"]),
    ],
);

static EXPECT: Record = Record::new(
    "an expectation",
    &[
        Key::new("contains", Shape::Text(&PROSE), "the answer holds this text").also_called(&["includes"]),
        Key::new("equals", Shape::Text(&PROSE), "the answer is this text").also_called(&["is", "exact"]),
        Key::new("tokens", Shape::List(&TOKENS), "the answer starts with these token ids")
            .also_called(&["token_ids", "ids"]),
    ],
)
.exactly_one_of(&["contains", "equals", "tokens"]);

const fn from_path() -> Key {
    Key::new("path", Shape::Text(&PATH), "a directory, relative to the recipe or absolute").also_called(&[
        "dir",
        "directory",
        "local",
        "localPath",
        "file",
    ])
}

/// No two adapters share a name.
fn adapter_names(whole: &Whole<'_>, report: &mut Report<'_>) {
    let mut seen = HashSet::new();
    let adapters = whole.node.entries().iter().find(|entry| entry.key == "adapters").map(|entry| &*entry.value.kind);
    let Some(Kind::List(adapters)) = adapters else { return };
    for (index, adapter) in adapters.iter().enumerate() {
        let Some(entry) = adapter.entries().iter().find(|entry| entry.key == "name") else { continue };
        let Kind::Scalar(name) = &*entry.value.kind else { continue };
        if !seen.insert(name.text.as_str()) {
            let path = join(whole.path, &format!("adapters[{index}].name"));
            let message = format!("is {}, the name of another adapter", shown(&name.text));
            object(report, entry.value.at, &path, Objection::new(message));
        }
    }
}

/// How the reference page calls what a shape takes.
pub(crate) fn type_name(shape: &Shape) -> String {
    match shape {
        Shape::Text(rule) => rule.what.split_once(' ').map_or(rule.what, |(_, what)| what).to_owned(),
        Shape::Number(rule) => rule.what().trim_start_matches("a ").to_owned(),
        Shape::Integer { min, max } if *max >= MAX_U32 => format!("whole number from {min}"),
        Shape::Integer { min, max } => format!("whole number from {min} to {max}"),
        Shape::Flag => "true or false".to_owned(),
        Shape::Word(words) => one_of(words),
        Shape::List(rule) => format!("list of {}", type_name(&rule.item)),
        Shape::Labels(_) => "mapping of keys to texts".to_owned(),
        Shape::Record(_) => "mapping".to_owned(),
        Shape::Either(what, _) => (*what).to_owned(),
    }
}
