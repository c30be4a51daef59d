//! Every environment variable that a program of ours reads. The reference in the docs is made from these.

/// A variable and what it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// One sentence for the reference.
    pub meaning: &'static str,
}

macro_rules! variables {
    ($($name:ident: $meaning:literal;)*) => {
        $(#[doc = $meaning] pub const $name: Variable = Variable { name: stringify!($name), meaning: $meaning };)*
        /// All of them, in the order of the reference.
        pub const ALL: &[Variable] = &[$($name),*];
    };
}

variables! {
    MLXCTL_HOME: "The folder of the store, caches, logs and `config.yaml`; default `~/.mlxctl`.";
    MLX_HOST: "The address that `mlxserve` listens on; default 127.0.0.1.";
    MLX_PORT: "The port that `mlxserve` listens on; default 8081.";
    MLXCTL_REGISTRY: "What completes short names on push and pull, for example `ghcr.io/org`.";
    MLXCTL_LOG: "The filter of log lines, for example `info` or `mlxserve=debug`; default `info`.";
    MLXCTL_THREADS: "Threads of the CPU backend; default: the machine's cores.";
    DOCKER_CONFIG: "The folder of Docker's `config.json` with registry credentials; default `~/.docker`.";
    HF_ENDPOINT: "The hub that `from.hf` is fetched from; default `https://huggingface.co`.";
    HF_TOKEN: "The token of the hub, for private and gated repositories; default: what `HF_HOME/token` holds.";
    HF_HOME: "The folder of the hub's own tools, with their token and cache; default `~/.cache/huggingface`.";
    HF_HUB_CACHE: "The hub's cache; default `HF_HOME/hub`.";
    HOME: "The user's home folder.";
}
